"""Verdict: did the repair help, on paired before and after predictions of the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite, prod
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtr, stdtrit
from torch import nn

from fairneuron.audit import RATE_TITLES, audit_scores, histogram_cells
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import require_known
from fairneuron.limits import OUTCOMES, ROUNDING, Limit, check_limit, compares_groups, violation
from fairneuron.markup import signed
from fairneuron.metrics.bootstrap import DRAWS, Interval
from fairneuron.metrics.definitions import (
    METRICS,
    POSITIVE,
    Counts,
    Floats,
    class_accuracies,
    false_positive_rate,
    group_accuracy,
    selection_rate,
    true_positive_rate,
)
from fairneuron.models import Predictor, predict, predicted_classes

IMPROVED = "improved"
NOT_RELIABLE = "no reliable improvement"
NOT_MET = "limit not met"
RATES: dict[str, Callable[[Counts], Floats]] = {
    "selection_rate": selection_rate,
    "tpr": true_positive_rate,
    "fpr": false_positive_rate,
    "accuracy": group_accuracy,
}
EQUALISED = {
    "dp": ("selection_rate",),
    "dpr": ("selection_rate",),
    "eo": ("tpr",),
    "eodds": ("tpr", "fpr"),
    "mcd": (),
    "cv": (),
}
"""Which rates of the groups are equal where a limited metric is at its best."""


def is_loss(*, down: bool, positive_outcome: str | None) -> bool | None:
    """Whether rates that only fell, or only rose, are a loss to people: that is levelling down.

    Args:
        down: Whether they fell.
        positive_outcome: What ``y = 1`` is to a person, "favourable" or "harmful".

    Returns:
        None where nobody said what ``y = 1`` is.
    """
    return None if positive_outcome is None else down == (positive_outcome == "favourable")


def one_sided_title(*, down: bool, positive_outcome: str | None) -> str:
    """What to call them; see ``is_loss``."""
    moved = "Only lowered" if down else "Only raised"
    loss = is_loss(down=down, positive_outcome=positive_outcome)
    if loss is None:
        return f"{moved} (levelled down if y = 1 is {'favourable' if down else 'harmful'})"
    title = "Levelled down" if loss else f"{moved}, no levelling down"
    return f"{title} (y = 1 is the {positive_outcome} outcome)"


@dataclass(frozen=True)
class Change:
    """A metric before and after.

    Attributes:
        metric: Its name.
        before: Of the original model; None if undefined.
        after: Of the repaired one.
        gain: How much nearer to its best value it came; negative if further away.
        interval: 95 % interval of the gain, paired bootstrap; None if undefined.
        noise_floor: What an equal model's gap would show; None for metrics that compare no groups.
        limit: The worst accepted value, if one was asked for.
    """

    metric: str
    before: float | None
    after: float | None
    gain: float | None
    interval: Interval | None
    noise_floor: float | None = None
    limit: float | None = None

    @property
    def better(self) -> bool:
        """Whether the gain is reliable: its interval above zero, and it above the noise floor."""
        return self.interval is not None and self.interval[0] > 0 and self._notable()

    @property
    def worse(self) -> bool:
        """Whether the loss is reliable, likewise."""
        return self.interval is not None and self.interval[1] < 0 and self._notable()

    @property
    def met(self) -> bool:
        """Whether the limit holds after the repair; True if there is none."""
        return self.limit is None or (
            self.after is not None and violation(self.metric, self.after, self.limit) == 0
        )

    def _notable(self) -> bool:
        floor = (
            0.0 if self.noise_floor is None else METRICS[self.metric].shortfall(self.noise_floor)
        )
        return self.gain is not None and abs(self.gain) >= floor

    @classmethod
    def from_dict(cls, metric: str, fields: Mapping[str, Any]) -> Change:
        """Restores what ``Verdict.to_dict`` has of a metric."""
        optional = {
            name: _optional(fields[name]) for name in ("before", "after", "gain", "noise_floor")
        }
        limit = _number(fields["limit"]) if "limit" in fields else None
        return cls(metric, interval=_interval(fields["interval"]), limit=limit, **optional)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; without the name of the metric."""
        return {
            "before": self.before,
            "after": self.after,
            "gain": self.gain,
            "interval": None if self.interval is None else list(self.interval),
            "noise_floor": self.noise_floor,
            **({"limit": self.limit, "met": self.met} if self.limit is not None else {}),
        }

    def sentence(self) -> str:
        """It in one sentence."""
        if self.gain is None:
            return f"{self.metric} is undefined before or after"
        text = f"{self.metric} {self.before:.3f} → {self.after:.3f}"
        if self.interval is not None:
            low, high = (
                (-self.interval[1], -self.interval[0])
                if METRICS[self.metric].best == 0
                else self.interval
            )
            text += f" (change {signed(low)} to {signed(high)})"
        return text


class _Moved:
    """What a paired interval says of after - before."""

    interval: Interval | None

    @property
    def rose(self) -> bool:
        """Whether it reliably rose: the interval lies above zero."""
        return self.interval is not None and self.interval[0] > 0

    @property
    def fell(self) -> bool:
        """Whether it reliably fell: the interval lies below zero."""
        return self.interval is not None and self.interval[1] < 0


@dataclass(frozen=True)
class GroupChange(_Moved):
    """A rate of one group before and after.

    Attributes:
        group: The group.
        rate: "selection_rate", "tpr", "fpr" or "accuracy".
        before: Of the original model; None if undefined.
        after: Of the repaired one.
        interval: 95 % interval of after - before, paired bootstrap; None if undefined.
    """

    group: str
    rate: str
    before: float | None
    after: float | None
    interval: Interval | None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> GroupChange:
        """Restores what ``to_dict`` gave."""
        if not isinstance(fields["group"], str):
            raise TypeError("a group must have a name")
        if fields["rate"] not in RATES:
            raise ValueError(f"a rate is one of {', '.join(RATES)}")
        before, after = _optional(fields["before"]), _optional(fields["after"])
        return cls(fields["group"], fields["rate"], before, after, _interval(fields["interval"]))

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        bounds = None if self.interval is None else list(self.interval)
        return {
            "group": self.group,
            "rate": self.rate,
            "before": self.before,
            "after": self.after,
            "interval": bounds,
        }

    def sentence(self) -> str:
        """It in a few words, for a rate that is defined."""
        return f"{self.group} ({self.before:.3f} → {self.after:.3f})"


@dataclass(frozen=True)
class ClassChange(_Moved):
    """The accuracy on the samples of one class before and after.

    Attributes:
        name: The class.
        n: Its samples.
        before: Of the original model; None without samples.
        after: Of the repaired one.
        interval: 95 % interval of after - before, paired bootstrap; None if undefined.
    """

    name: str
    n: int
    before: float | None
    after: float | None
    interval: Interval | None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ClassChange:
        """Restores what ``to_dict`` gave."""
        name, n = fields["class"], fields["n"]
        if not isinstance(name, str) or type(n) is not int:
            raise TypeError("a class must have a name and a number of samples")
        before, after = _optional(fields["before"]), _optional(fields["after"])
        return cls(name, n, before, after, _interval(fields["interval"]))

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "class": self.name,
            "n": self.n,
            "before": self.before,
            "after": self.after,
            "interval": None if self.interval is None else list(self.interval),
        }

    def sentence(self) -> str:
        """It in a few words, for a class with samples."""
        return f"class {self.name} ({self.before:.3f} → {self.after:.3f})"


@dataclass(frozen=True)
class Verdict:
    """Whether a repair helped on some data.

    Attributes:
        outcome: "improved", "no reliable improvement" or "limit not met".
        on: Which data: "validation" or "test".
        n: Samples.
        changes: Before and after for every metric.
        flips: Per group how many predictions changed, to 1 and away from 1.
        groups: Before and after for every rate of every group that is compared.
        positive_outcome: What ``y = 1`` is to a person, "favourable" or "harmful"; None if unknown.
        classes: Before and after for the accuracy of every class.
    """

    outcome: str
    on: str
    n: int
    changes: dict[str, Change]
    flips: tuple[dict[str, Any], ...]
    groups: tuple[GroupChange, ...]
    positive_outcome: str | None = None
    classes: tuple[ClassChange, ...] = ()

    def __repr__(self) -> str:
        return f"Verdict({self.sentence()})"

    @property
    def limits(self) -> tuple[Change, ...]:
        """Those with a limit."""
        return tuple(c for c in self.changes.values() if c.limit is not None)

    @cached_property
    def worse(self) -> tuple[Change, ...]:
        """The other metrics, those without a limit, that got reliably worse."""
        return tuple(c for c in self.changes.values() if c.worse and c.limit is None)

    @cached_property
    def levelled_down(self) -> tuple[GroupChange, ...]:
        """The falls that alone brought rates nearer to each other.

        Of the rates that a limit asks to be equal, those whose gap shrank while the rate of a
        group that had not the lowest one reliably fell, and that of no group reliably rose
        (Mittelstadt, Wachter and Russell, The Unfairness of Fair Machine Learning, 2023). Whether a
        fall is a loss depends on what y = 1 means: ``is_loss``.
        """
        return self._one_sided(down=True)

    @cached_property
    def only_raised(self) -> tuple[GroupChange, ...]:
        """The opposite: the rises that alone did, which is the harm where y = 1 is one."""
        return self._one_sided(down=False)

    @property
    def lost_accuracy(self) -> tuple[GroupChange, ...]:
        """The groups whose accuracy reliably fell."""
        return tuple(c for c in self.groups if c.rate == "accuracy" and c.fell)

    def _one_sided(self, *, down: bool) -> tuple[GroupChange, ...]:
        found: list[GroupChange] = []
        for rate in dict.fromkeys(rate for c in self.limits for rate in EQUALISED[c.metric]):
            changes = [c for c in self.groups if c.rate == rate]
            before = [c.before for c in changes if c.before is not None]
            after = [c.after for c in changes if c.after is not None]
            if not before or np.ptp(before) - np.ptp(after) <= ROUNDING:
                continue
            moved = [c for c in changes if (c.fell if down else c.rose)]
            against = any(c.rose if down else c.fell for c in changes)
            outermost = min(before) if down else max(before)
            if not against and any(c.before != outermost for c in moved):
                found += moved
        return tuple(found)

    def sentence(self) -> str:
        """It in a few words: outcome, figures against limits, what got worse, one-sided changes."""
        sign = {name: "≥" if METRICS[name].best else "≤" for name in self.changes}
        limits = "; ".join(
            f"{c.sentence()}, limit {sign[c.metric]} {c.limit:g} {'met' if c.met else 'not met'}"
            for c in self.limits
        )
        worse = "; ".join(c.sentence() for c in self.worse)
        lost = f" Got worse: {worse}." if worse else " No other metric got reliably worse."
        return (
            f"{self.outcome.capitalize()} on {self.on} data (n = {self.n}): {limits}.{lost}"
            + self._told(self.levelled_down, down=True)
            + self._told(self.only_raised, down=False)
            + self._told_accuracy()
        )

    def _told(self, changes: tuple[GroupChange, ...], *, down: bool) -> str:
        """A sentence for every rate of one-sided changes."""
        title = one_sided_title(down=down, positive_outcome=self.positive_outcome)
        moved, against = ("fell", "rose") if down else ("rose", "fell")
        return "".join(
            f" {title}: the {RATE_TITLES[rate]} {moved} in "
            f"{', '.join(c.sentence() for c in changes if c.rate == rate)}, "
            f"and reliably {against} in no group."
            for rate in _rates(changes)
        )

    def _told_accuracy(self) -> str:
        """Whose accuracy fell: groups, if there are several; classes, if a limit is theirs."""
        lost: list[GroupChange | ClassChange] = []
        if len({c.group for c in self.groups}) > 1:
            lost += self.lost_accuracy
        if any(METRICS[c.metric].between_classes for c in self.limits):
            lost += (c for c in self.classes if c.fell)
        return f" Accuracy fell in {', '.join(c.sentence() for c in lost)}." if lost else ""

    def under(self, limit: Limit) -> Verdict:
        """The same figures, judged under another limit.

        Raises:
            OptionError: For what is no limit.
        """
        bounds = check_limit(limit)
        changes = {name: replace(c, limit=bounds.get(name)) for name, c in self.changes.items()}
        return replace(self, outcome=_outcome(changes), changes=changes)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "outcome": self.outcome,
            "on": self.on,
            "n": self.n,
            "sentence": self.sentence(),
            "changes": {name: change.to_dict() for name, change in self.changes.items()},
            "worse": [c.metric for c in self.worse],
            "flips": list(self.flips),
            "groups": [c.to_dict() for c in self.groups],
            "levelled_down": _rates(self.levelled_down),
            "only_raised": _rates(self.only_raised),
            "lost_accuracy": [c.group for c in self.lost_accuracy],
            "positive_outcome": self.positive_outcome,
            "classes": [c.to_dict() for c in self.classes],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Verdict:
        """Restores what ``to_dict`` gave; anything else is a KeyError, ValueError or TypeError."""
        if "groups" not in fields:
            raise ValueError("a verdict without changes of the groups, as before format 3")
        changes = {name: Change.from_dict(name, fields["changes"][name]) for name in METRICS}
        flips = tuple(_flip(flip) for flip in fields["flips"])
        groups = tuple(GroupChange.from_dict(group) for group in fields["groups"])
        newer = {"positive_outcome", "classes"}  # older results have none
        classes = tuple(ClassChange.from_dict(one) for one in fields.get("classes", ()))
        means = fields.get("positive_outcome")
        if means not in (None, *OUTCOMES):
            raise ValueError(f"y = 1 is one of {', '.join(OUTCOMES)}")
        on, n = str(fields["on"]), int(fields["n"])
        found = cls(_outcome(changes), on, n, changes, flips, groups, means, classes)
        expected = found.to_dict()
        if set(fields) | newer != set(expected):
            raise ValueError(f"a verdict has {', '.join(expected)}")
        for name in expected:
            if name in fields and name != "sentence" and expected[name] != fields[name]:
                raise ValueError(f"{name} does not follow from the figures")
        return found


def _flip(fields: Mapping[str, Any]) -> dict[str, Any]:
    counts = ("n", "to_positive", "from_positive")
    if not isinstance(fields["group"], str) or any(type(fields[k]) is not int for k in counts):
        raise TypeError("flips must count predictions per group")
    return {"group": fields["group"], **{k: fields[k] for k in counts}}


def _rates(changes: tuple[GroupChange, ...]) -> list[str]:
    return list(dict.fromkeys(c.rate for c in changes))


def _optional(value: Any) -> float | None:
    return None if value is None else _number(value)


def _interval(value: Any) -> Interval | None:
    if value is None:
        return None
    low, high = map(_number, value)
    return low, high


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    if not isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    return float(value)


def _outcome(changes: Mapping[str, Change]) -> str:
    """What follows from the changes of the limited metrics."""
    limited = [c for c in changes.values() if c.limit is not None]
    if not any(c.better for c in limited) or any(c.worse for c in limited):
        return NOT_RELIABLE
    return IMPROVED if all(c.met for c in limited) else NOT_MET


def judge(
    before: nn.Module | Predictor,
    after: nn.Module | Predictor,
    data: Dataset,
    limit: Limit,
    *,
    on: str,
    threshold: float = 0.5,
    seed: int = 0,
    positive_outcome: str | None = None,
) -> Verdict:
    """Compares two models on the same samples.

    Args:
        before: The original model.
        after: The repaired one.
        data: Labelled data with groups.
        limit: What was asked for.
        on: What to call the data: "validation" or "test".
        threshold: On the probability of class 1.
        seed: Of the bootstrap.
        positive_outcome: What ``y = 1`` is to a person, "favourable" or "harmful", which says
            whether rates that only fell, or only rose, are a loss; not stated unless given.

    Returns:
        "improved" if a limited metric got reliably better, none of them reliably worse, and all
        limits hold.

    Raises:
        OptionError: For other limits and outcomes.
    """
    bounds = check_limit(limit)
    if positive_outcome is not None:
        require_known("option-outcome", "outcome", positive_outcome, OUTCOMES)
    if compares_groups(bounds):
        data.require_groups()
    pair = _Pair(before, after, data, threshold, seed)
    changes = {name: pair.change(name, bounds.get(name)) for name in METRICS}
    return Verdict(
        *(_outcome(changes), on, len(data), changes, pair.flips(), pair.groups()),
        positive_outcome=positive_outcome,
        classes=pair.classes(),
    )


_Drawn = dict[Callable[[Counts], Floats], Floats]


def _expanded(draws: Floats, moved: int) -> Interval | None:
    """Expanded percentile interval, 95 %, of the defined draws ``(draws,)``.

    Hesterberg, What Teachers Should Know about the Bootstrap (2015), section 5.3: the quantile
    beyond z = -t √(m / (m - 1)), with t that of Student's distribution of m - 1 degrees of freedom,
    in place of that beyond -1.96. m is the number of samples that moved, since the others add
    nothing to a paired difference: percentiles call four changes in one direction reliable, which
    a coin gives in one of eight cases. None if more than 5 % of the draws are undefined.
    """
    defined = draws[np.isfinite(draws)]
    if defined.size < 0.95 * draws.size:
        return None
    m = max(moved, 2)
    tail = float(ndtr(stdtrit(m - 1, 0.025) * np.sqrt(m / (m - 1))))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


class _Pair:
    """Both models' predictions of the same samples, and bootstrap draws of the samples.

    Samples that are alike in label, group, both predictions and both scores (to 1/64) are a cell; a
    draw is a multinomial over cells, so that both models are measured on the same resample. What
    compares groups is measured on draws of the samples whose group is compared. Where few samples
    moved from one cell to another, intervals are wider than the percentiles: ``_expanded``.
    """

    def __init__(
        self,
        before: nn.Module | Predictor,
        after: nn.Module | Predictor,
        data: Dataset,
        threshold: float,
        seed: int,
    ) -> None:
        scores = [predict(model, data) for model in (before, after)]
        self.audits = [audit_scores(s, data, threshold=threshold, seed=seed) for s in scores]
        self.predicted = [predicted_classes(s, threshold) for s in scores]
        self.data = data
        coarse, groups = 64, len(data.group_names)
        columns, self._shapes = [], []
        for s, classes in zip(scores, self.predicted, strict=True):
            shape = (groups, s.shape[1], s.shape[1])
            columns.append(np.ravel_multi_index((data.group, data.y, classes), shape))
            columns.append(histogram_cells(s, data, coarse))
            self._shapes += [shape, (groups, 2, coarse)]
        self._cell = np.stack(columns, 1)  # (n, 4)
        known = data.compared[data.group]
        everybody = self._draw(np.ones_like(known), seed)
        self._drawn = {
            False: everybody,
            True: everybody if known.all() else self._draw(known, seed),
        }
        self._flipped: Mask = self._cell[:, 0] != self._cell[:, 2]
        shifted: Mask = self._cell[:, 1] != self._cell[:, 3]
        self._moved = {
            (source, groupwise): int(moved[known | (not groupwise)].sum())
            for source, moved in (("counts", self._flipped), ("histograms", shifted))
            for groupwise in (False, True)
        }

    def _draw(self, samples: Mask, seed: int) -> tuple[_Drawn, _Drawn]:
        """Every metric and rate of every draw from some samples, before and after."""
        cells, counts = np.unique(self._cell[samples], axis=0, return_counts=True)  # (m, 4)
        rng = np.random.default_rng([seed, 3])
        rows = np.arange(len(cells))
        members = [
            csr_array((np.ones(len(cells)), (column, rows)), (prod(shape), len(cells)))
            for column, shape in zip(cells.T, self._shapes, strict=True)
        ]  # (cells of a table, m)
        found: tuple[dict[Callable[[Counts], Floats], list[Floats]], ...] = ({}, {})
        for _ in range(DRAWS // 100):
            drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=100)  # (100, m)
            tables = [
                (member @ drawn.T).T.reshape(100, *shape)
                for member, shape in zip(members, self._shapes, strict=True)
            ]
            for model, (table, histogram) in enumerate((tables[:2], tables[2:])):
                for metric in METRICS.values():
                    source = table if metric.source == "counts" else histogram
                    found[model].setdefault(metric.of, []).append(metric.of(source))
                for rate in (*RATES.values(), class_accuracies):
                    found[model].setdefault(rate, []).append(rate(table))
        before, after = ({k: np.concatenate(v) for k, v in f.items()} for f in found)
        return before, after

    def change(self, name: str, limit: float | None) -> Change:
        """What happened to a metric."""
        before, after = (a.metrics[name] for a in self.audits)
        metric, gain, bounds = METRICS[name], None, None
        if before is not None and after is not None:
            gain = metric.shortfall(before) - metric.shortfall(after)
            drawn = self._drawn[metric.groupwise]
            old, new = (np.abs(values[metric.of] - metric.best) for values in drawn)
            bounds = _expanded(old - new, self._moved[metric.source, metric.groupwise])
        floor = self.audits[0].noise_floor.get(name)
        return Change(name, before, after, gain, bounds, floor, limit)

    def groups(self) -> tuple[GroupChange, ...]:
        """What happened to every rate of the groups that are compared and have samples."""
        y, size = self.data.y, len(self.data.group_names)
        people: dict[str, Mask] = {"tpr": y == POSITIVE, "fpr": y != POSITIVE}
        found = []
        for rate, of in RATES.items():
            old, new = (drawn[of] for drawn in self._drawn[True])  # (draws, groups)
            flipped = self._flipped & people.get(rate, np.True_)
            moved = np.bincount(self.data.group[flipped], minlength=size)
            for g, rows in enumerate(zip(*(a.groups for a in self.audits), strict=True)):
                before, after = (row[rate] for row in rows)
                if rows[0]["compared"] and rows[0]["n"]:
                    bounds = (
                        None if before is None else _expanded(new[:, g] - old[:, g], int(moved[g]))
                    )
                    found.append(GroupChange(rows[0]["group"], rate, before, after, bounds))
        return tuple(found)

    def classes(self) -> tuple[ClassChange, ...]:
        """What happened to the accuracy of every class."""
        old, new = (drawn[class_accuracies] for drawn in self._drawn[False])  # (draws, classes)
        was, became = (predicted == self.data.y for predicted in self.predicted)
        moved = np.bincount(self.data.y[was != became], minlength=old.shape[1])
        found = []
        for k, (before, after) in enumerate(zip(*(a.classes for a in self.audits), strict=True)):
            bounds = _expanded(new[:, k] - old[:, k], int(moved[k])) if before["n"] else None
            values = before["accuracy"], after["accuracy"]
            found.append(ClassChange(before["class"], before["n"], *values, bounds))
        return tuple(found)

    def flips(self) -> tuple[dict[str, Any], ...]:
        """Per group how many predictions changed to class 1, and away from it."""
        was, became = (classes == POSITIVE for classes in self.predicted)
        size = len(self.data.group_names)
        gained, lost = (
            np.bincount(self.data.group[moved], minlength=size)
            for moved in (became & ~was, was & ~became)
        )
        return tuple(
            {"group": name, "n": int(n), "to_positive": int(g), "from_positive": int(k)}
            for name, n, g, k in zip(
                self.data.group_names, self.data.group_counts, gained, lost, strict=True
            )
        )
