"""Judging a repair: paired before and after, on bootstrap draws of the same samples."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtr, stdtrit
from torch import nn

from fairneuron.audit import audit_scores, histogram_cells
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import require_known
from fairneuron.limits import OUTCOMES, Limit, check_limit, compares_groups
from fairneuron.metrics.bootstrap import DRAWS, Interval
from fairneuron.metrics.definitions import (
    METRICS,
    POSITIVE,
    Counts,
    Floats,
    class_accuracies,
)
from fairneuron.models import Predictor, predict, predicted_classes
from fairneuron.verdict import RATES, Change, ClassChange, GroupChange, Verdict, outcome_of


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
        *(outcome_of(changes), on, len(data), changes, pair.flips(), pair.groups()),
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
