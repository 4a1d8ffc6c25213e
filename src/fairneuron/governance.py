"""Impact ratios of groups and the four-fifths rule: calculations from counts, for screening.

Definitions: the rules for Local Law 144 of New York City (6 RCNY 5-300 ff.) for impact ratios,
scoring rates and categories of less than 2 %; the Uniform Guidelines on Employee Selection
Procedures (29 CFR 1607.4 D) for four fifths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairneuron.metrics.definitions import wilson

Values = dict[str, Any]
FOUR_FIFTHS = 0.8
SMALL = 2
"""The percentage of the people below which a category may be left out of the ratios."""
PERSONS = 2
"""How many other decisions are tried to say whether a flag hangs on a few people."""
_DRAWS = 1000
_EMPTY = "nobody is in this group"
_LEFT_OUT = f"left out: less than {SMALL} % of the people"
_ALONE = f"fewer than two groups have {SMALL} % of the people or more"
_NOBODY = "nobody is selected in any group"


def impact_tables(audited: Values, *, harmful: bool = False) -> list[Values]:
    """The tables of ``impact_table``: of each sensitive column alone, then of all together.

    Args:
        audited: What ``Audit.to_dict`` gives. Columns in which one group alone has people have no
            table.
        harmful: Whether ``y = 1`` is the harmful outcome, so that those who are not predicted
            ``y = 1`` are selected.
    """
    each = (*audited.get("by_column", {}).values(), audited)
    return [impact_table(one, harmful=harmful) for one in each]


def impact_table(audited: Values, *, harmful: bool = False) -> Values:
    """Selection rates, impact ratios and four-fifths flags of the groups.

    The impact ratio of a group is its selection rate divided by that of the most selected group,
    the ``reference``. Groups of less than 2 % of the people are listed, and left out of the ratios.
    People with an unknown group are counted apart. The scoring rate is the share of a group with a
    score better than the median of all people's scores.

    Args:
        audited: What ``Audit.to_dict`` gives.
        harmful: As in ``impact_tables``.

    Returns:
        ``by`` (columns), ``n`` (people of known groups), ``unknown`` (others), ``selection``, and
        ``scoring`` (None without scores). Both have ``reference``, ``lowest`` (the lowest ratio),
        ``noise_floor`` (the lowest ratio that a model which treats all groups alike would show, on
        average of 1,000 draws; None where ratios are undefined) and ``groups``: see ``_row``.
    """
    groups = [g for g in audited["groups"] if g["compared"]]
    names, n = [g["group"] for g in groups], [g["n"] for g in groups]
    selected = [round(g["n"] * (g["selection_rate"] or 0)) for g in groups]
    if harmful:
        selected = [of - k for of, k in zip(n, selected, strict=True)]
    better = "score_below_median" if harmful else "score_above_median"
    scored = [g.get(better) for g in groups]
    return {
        "by": list(audited["sensitive"]),
        "n": sum(n),
        "unknown": sum(g["n"] for g in audited["groups"] if not g["compared"]),
        "selection": _rates(names, n, selected),
        "scoring": None if None in scored else _rates(names, n, scored),
    }


@dataclass(frozen=True)
class _Group:
    """How many of a group's people are selected."""

    name: str
    n: int
    selected: int

    def times(self, other: _Group) -> tuple[int, int]:
        """Numerator and denominator of the ratio of its rate to another's."""
        return self.selected * other.n, other.selected * self.n

    def below(self, other: _Group) -> bool:
        """Whether its rate is less than four fifths of another's; in whole numbers, so exact."""
        top, bottom = self.times(other)
        return 5 * top < 4 * bottom

    def changed(self, persons: int) -> _Group | None:
        """It with so many more people selected; None where that cannot be."""
        selected = self.selected + persons
        return _Group(self.name, self.n, selected) if 0 <= selected <= self.n else None


def _rates(names: Sequence[str], n: Sequence[int], selected: Sequence[int]) -> Values:
    """Rates and ratios of the groups, and what they are compared with."""
    groups = [_Group(*each) for each in zip(names, n, selected, strict=True)]
    total = sum(n)
    counted = [g for g in groups if g.n and 100 * g.n >= SMALL * total]
    best = max(counted, key=lambda g: g.selected / g.n, default=None)
    reason = _ALONE if len(counted) < 2 else _NOBODY if not best or not best.selected else None
    reference = None if reason else best
    rows = [_row(g, total, reference, reason if g in counted else _LEFT_OUT) for g in groups]
    ratios = [row["impact_ratio"] for row in rows if row["impact_ratio"] is not None]
    return {
        "reference": None if reference is None else reference.name,
        "lowest": min(ratios, default=None),
        "noise_floor": None if reference is None else _noise_floor(counted),
        "groups": rows,
    }


def _row(group: _Group, total: int, reference: _Group | None, reason: str | None) -> Values:
    """A group: n, its share of the people, rate and ratio with 95 % intervals, the flag.

    ``below_four_fifths`` is whether the ratio is below 0.8; ``flips_with`` with how many other
    decisions (1 or 2, in the group or in the reference) it would not be so, None if more;
    ``p_value`` Fisher's exact test of equal rates, two-sided, of this pair alone. ``undefined``
    says why there is no ratio.
    """
    row: Values = {
        "group": group.name,
        "n": group.n,
        "share": group.n / total if total else None,
        "selected": group.selected,
        "rate": None,
        "rate_interval": None,
        "impact_ratio": None,
        "impact_interval": None,
        "below_four_fifths": None,
        "flips_with": None,
        "p_value": None,
        "undefined": reason,
    }
    if not group.n:
        return row | {"undefined": _EMPTY}
    row["rate"] = group.selected / group.n
    row["rate_interval"] = wilson(np.array(group.selected), np.array(group.n)).tolist()
    if reason or reference is None:
        return row
    top, bottom = group.times(reference)
    row |= {"impact_ratio": top / bottom, "below_four_fifths": group.below(reference)}
    if group is not reference:
        row |= {
            "impact_interval": _ratio_interval(group, reference),
            "flips_with": _flips_with(group, reference),
            "p_value": _fisher(group, reference),
        }
    return row


def _flips_with(group: _Group, reference: _Group) -> int | None:
    """The smallest number of other decisions, up to 2, that would turn the flag."""
    flagged = group.below(reference)
    step = 1 if flagged else -1
    for persons in range(1, PERSONS + 1):
        for own in range(persons + 1):
            here = group.changed(step * own)
            there = reference.changed(-step * (persons - own))
            if here and there and there.selected and here.below(there) != flagged:
                return persons
    return None


def _ratio_interval(group: _Group, reference: _Group) -> list[float] | None:
    """95 % interval of a ratio of two shares; None where one is 0.

    Katz et al., Obtaining Confidence Intervals for the Risk Ratio in Cohort Studies (1978).
    """
    if not group.selected:
        return None
    top, bottom = group.times(reference)
    parts = (1 / g.selected - 1 / g.n for g in (group, reference))
    half = 1.959963984540054 * np.sqrt(sum(parts))
    return [float(top / bottom * np.exp(sign * half)) for sign in (-1, 1)]


def _fisher(group: _Group, reference: _Group) -> float:
    from scipy.stats import fisher_exact  # takes half a second

    counts = [[g.selected, g.n - g.selected] for g in (group, reference)]
    return min(1.0, float(fisher_exact(counts).pvalue))


def _noise_floor(groups: Sequence[_Group]) -> float | None:
    """The mean of the lowest ratio where all groups have the same rate."""
    n = np.array([g.n for g in groups])
    rate = sum(g.selected for g in groups) / n.sum()
    rates = np.random.default_rng(0).binomial(n, rate, (_DRAWS, len(n))) / n  # (draws, groups)
    highest = rates.max(1)
    lowest = rates.min(1)[highest > 0] / highest[highest > 0]
    return float(lowest.mean()) if lowest.size else None
