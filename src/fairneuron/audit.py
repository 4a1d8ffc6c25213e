"""Audit: what a model does to each group, from counts of people that can be merged.

``audit`` runs the model on the data and counts; ``Audit`` has the counts, and its properties are
what follows from them. How far chance goes is in ``metrics.bootstrap``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from fairneuron.data.dataset import Dataset, Mask
from fairneuron.data.tables import UNKNOWN
from fairneuron.errors import DataError, require_known, warn
from fairneuron.markup import snippet, table
from fairneuron.metrics import bootstrap
from fairneuron.metrics import definitions as m
from fairneuron.metrics.bootstrap import Interval
from fairneuron.metrics.definitions import METRICS, Counts, Floats, value_or_none
from fairneuron.models import Predictor, predict, predicted_classes

NO_GROUPS = "the data have no sensitive columns"
BINS = 1024
TINY = 10
RATE_TITLES = {
    "selection_rate": "selection rate",
    "tpr": "TPR",
    "fpr": "FPR",
    "accuracy": "accuracy",
}


@dataclass(frozen=True, eq=False)
class Audit:
    """Group confusion counts and score histograms, and all that follows from them.

    It counts people, whatever their weights in training. Groups with a level "unknown" are listed,
    and count in what is measured over everybody, but are not compared with others.

    Attributes:
        counts: ``(groups, classes, classes)``: group, label, prediction.
        histograms: ``(groups, 2, BINS)``: scores P(y = 1) of y ≠ 1 and y = 1, or None without
            scores.
        group_names: Names of the groups, the empty ones too.
        levels: Their values per sensitive column, ``(groups, k)`` texts.
        sensitive_names: The k sensitive columns.
        seed: Of the bootstrap and of the noise floor.
        halves: ``(groups, 2)``: people with a score below, and above, the median score of all
            people; None without scores, or where parts were merged.
        class_names: What the labels 0, 1, … mean, if that is known.
    """

    counts: npt.NDArray[np.int64]
    histograms: npt.NDArray[np.int64] | None
    group_names: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    sensitive_names: tuple[str, ...]
    seed: int = 0
    halves: npt.NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sensitive_names and (self.counts.sum((1, 2)) > 0)[self.compared].sum() < 2:
            raise DataError(
                "data-single-group",
                f"An audit compares groups: two or more other than {UNKNOWN!r} must have samples",
                got=f"{self.counts.sum((1, 2)).tolist()} samples of {list(self.group_names)}",
                cure="Choose another sensitive column, or more data.",
            )

    @cached_property
    def compared(self) -> Mask:
        """Whether each group is compared, ``(groups,)``: all but those with an unknown level."""
        return np.array([UNKNOWN not in level for level in self.levels])

    @cached_property
    def _known(self) -> Audit:
        """The audit of the groups that are compared alone."""
        if self.compared.all():
            return self
        inside = np.flatnonzero(self.compared)
        return replace(
            self,
            counts=self.counts[inside],
            histograms=None if self.histograms is None else self.histograms[inside],
            halves=None if self.halves is None else self.halves[inside],
            group_names=tuple(self.group_names[g] for g in inside),
            levels=tuple(self.levels[g] for g in inside),
        )

    def _of(self, metric: str) -> Audit:
        """Whose people a metric reads."""
        return self._known if METRICS[metric].groupwise else self

    @cached_property
    def _measured(self) -> dict[str, Counts]:
        """What metrics are computed of, by ``Metric.source``."""
        scores = {} if self.histograms is None else {"histograms": self.histograms}
        return {"counts": self.counts, **scores}

    def _value(self, name: str) -> Floats:
        metric = METRICS[name]
        measured = self._measured.get(metric.source)
        return np.asarray(np.nan) if measured is None else metric.of(measured)

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Name to value; None where ``undefined`` has the reason."""
        alone = not self.sensitive_names  # nobody to compare with
        return {
            name: None
            if alone and METRICS[name].groupwise
            else value_or_none(self._of(name)._value(name))
            for name in METRICS
        }

    @cached_property
    def undefined(self) -> dict[str, str]:
        """Why a metric has no value, for those that have none."""
        return {
            name: METRICS[name].undefined
            if self.sensitive_names or not METRICS[name].groupwise
            else NO_GROUPS
            for name, value in self.metrics.items()
            if value is None
        }

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        """95 % percentile intervals: multinomial bootstrap of the counts, 1,000 draws.

        The gaps are absolute values, so near zero their intervals lie above zero even for equal
        groups: read them with ``noise_floor``. None where the metric, or it in more than 5 % of the
        draws, is undefined.
        """
        return {name: self._of(name)._own_intervals[name] for name in self.metrics}

    @cached_property
    def _own_intervals(self) -> dict[str, Interval | None]:
        """Those of the metrics over all groups here."""
        names = [
            n for n, v in self.metrics.items() if v is not None and np.isfinite(self._value(n))
        ]
        return bootstrap.intervals(self._measured, names, self.seed)

    @cached_property
    def noise_floor(self) -> dict[str, float | None]:
        """Mean gap that an equal classifier of the same rates shows on groups of these sizes.

        Simulated, 1,000 draws: predictions independent of the group for DP and DPR, independent of
        it given the label for EO and equalised odds, scores independent of it for ABCC. A
        difference below the floor is no finding. With more than two classes, or without groups, the
        gaps between classes have a floor too: that of a classifier of one accuracy for all classes.
        """
        if self.sensitive_names:
            known = self._known
            floors = bootstrap.floors_of_groups(known.counts, known.histograms, self.seed)
        else:
            floors = {n: None for n, metric in METRICS.items() if metric.between_groups}
        if self._shows_classes:
            floors |= bootstrap.floors_of_classes(self.counts, self.seed)
        return floors

    @property
    def _shows_classes(self) -> bool:
        """Whether gaps between classes are told in full: for several classes, or without groups."""
        return not self.sensitive_names or self.counts.shape[1] > 2

    @cached_property
    def classes(self) -> list[dict[str, Any]]:
        """A row per class: its name, n, its accuracy (its recall), and Wilson's 95 % interval."""
        n = self.counts.sum((0, 2))
        right = np.diagonal(self.counts.sum(0))
        bounds = m.wilson(right, n)
        return [
            {
                "class": self.class_names[k] if self.class_names else str(k),
                "n": int(n[k]),
                "accuracy": value_or_none(value),
                "interval": [float(bound) for bound in bounds[k]] if n[k] else None,
            }
            for k, value in enumerate(m.class_accuracies(self.counts))
        ]

    @cached_property
    def groups(self) -> list[dict[str, Any]]:
        """A row per group: n, positives, whether it is compared, its rates, and its scores.

        Rates are None where undefined. The interval of the selection rate is Wilson's, 95 %. How
        many people have a score below and above the median score of all is None without scores.
        """
        selected, n = self.counts[..., m.POSITIVE].sum(-1), self.counts.sum((1, 2))
        intervals = m.wilson(selected, n)
        rates = {
            "selection_rate": m.selection_rate(self.counts),
            "tpr": m.true_positive_rate(self.counts),
            "fpr": m.false_positive_rate(self.counts),
            "accuracy": m.group_accuracy(self.counts),
        }
        return [
            {
                "group": name,
                "n": int(n[g]),
                "positive": int(self.counts[g, m.POSITIVE].sum()),
                "compared": bool(self.compared[g]),
                **{rate: value_or_none(values[g]) for rate, values in rates.items()},
                "selection_interval": [float(bound) for bound in intervals[g]] if n[g] else None,
                "score_below_median": None if self.halves is None else int(self.halves[g, 0]),
                "score_above_median": None if self.halves is None else int(self.halves[g, 1]),
            }
            for g, name in enumerate(self.group_names)
        ]

    def marginal(self, column: str) -> Audit:
        """The audit of one sensitive column alone, when there are several.

        Its level "unknown" is not compared; people who are unknown in other columns only are.
        """
        require_known("option-sensitive", "sensitive column", column, self.sensitive_names)
        k = self.sensitive_names.index(column)
        names = tuple(dict.fromkeys(level[k] for level in self.levels))
        member = np.array(
            [[level[k] == name for level in self.levels] for name in names], dtype=np.int64
        )
        histograms = self.histograms
        return replace(
            self,
            counts=np.einsum("mg,gyp->myp", member, self.counts),
            histograms=None if histograms is None else np.einsum("mg,gyb->myb", member, histograms),
            halves=None if self.halves is None else member @ self.halves,
            group_names=names,
            levels=tuple((name,) for name in names),
            sensitive_names=(column,),
        )

    def merge(self, other: Audit) -> Audit:
        """The audit of both parts of some data.

        Raises:
            DataError: If they have other groups or classes.
        """
        if self.group_names != other.group_names or self.counts.shape != other.counts.shape:
            raise DataError(
                "data-groups",
                "Audits of the same groups and classes can be merged",
                got=f"{list(self.group_names)} and {list(other.group_names)}",
                cure="Encode both parts with one schema.",
            )
        both = self.histograms is not None and other.histograms is not None
        return replace(
            self,
            counts=self.counts + other.counts,
            histograms=np.add(self.histograms, other.histograms) if both else None,  # type: ignore[arg-type]
            halves=None,
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON; counts and rates of groups, no rows."""
        by_column = self._by_column()
        return {
            "n": int(self.counts.sum()),
            "sensitive": list(self.sensitive_names),
            "metrics": self.metrics,
            "intervals": {k: None if v is None else list(v) for k, v in self.intervals.items()},
            "noise_floor": self.noise_floor,
            "undefined": self.undefined,
            "groups": self.groups,
            **({"classes": self.classes} if self._shows_classes else {}),
            **({"by_column": by_column} if by_column else {}),
        }

    def _by_column(self) -> dict[str, Any]:
        """Each column's own audit where there are several; one with a single group has none."""
        if len(self.sensitive_names) == 1:
            return {}
        present = [
            level for level, n in zip(self.levels, self.counts.sum((1, 2)), strict=True) if n
        ]
        return {
            column: self.marginal(column).to_dict()
            for k, column in enumerate(self.sensitive_names)
            if len({level[k] for level in present} - {UNKNOWN}) > 1
        }

    def _repr_html_(self) -> str:
        head, rows = ("metric", "value", "95 % interval", "noise floor"), []
        for name, value in self.metrics.items():
            bounds, floor = self.intervals[name], self.noise_floor.get(name)
            rows.append(
                (
                    METRICS[name].title,
                    f"undefined: {self.undefined[name]}" if value is None else f"{value:.3f}",
                    "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}",
                    "" if floor is None else f"{floor:.3f}",
                )
            )
        tables = [table("Metrics", head, rows)]
        if self.sensitive_names:
            groups = [
                (g["group"], f"{g['n']:,}", *(_shown(g[rate]) for rate in RATE_TITLES))
                for g in self.groups
            ]
            tables.append(table("Groups", ("group", "n", *RATE_TITLES.values()), groups))
        if self._shows_classes:
            classes = [(c["class"], f"{c['n']:,}", _shown(c["accuracy"])) for c in self.classes]
            tables.append(table("Classes", ("class", "n", "accuracy"), classes))
        by = f"between groups by {' and '.join(self.sensitive_names)} "
        gap, alike = "dp", "treats all groups alike"
        if not self.sensitive_names:
            by, gap, alike = "", "mcd", "serves all classes alike"
        return snippet(
            f"The {METRICS[gap].title} {by}is {_shown(self.metrics[gap])} "
            f"(n = {self.counts.sum():,}); a model that {alike} would show "
            f"{_shown(self.noise_floor.get(gap))} on average.",
            *tables,
        )

    def __repr__(self) -> str:
        names = ("accuracy", "dp", "eo") if self.sensitive_names else ("accuracy", "mcd")
        values = ((name, self.metrics[name]) for name in names)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in values if value is not None)
        return f"Audit(n={self.counts.sum()}, {shown})"


def audit(
    model: nn.Module | Predictor, data: Dataset, *, threshold: float = 0.5, seed: int = 0
) -> Audit:
    """Audits a classifier on labelled data with groups.

    People count, not their weights in training. Groups of 1 to 9 samples are a warning, with the
    intervals of their selection rates. Data without sensitive columns have no groups: the gaps
    between classes (``cv``, ``mcd``, ``Audit.classes``) are measured, the others are undefined.

    Args:
        model: A module that maps ``x`` to logits (see ``fairneuron.models``), or what a mitigator
            gave.
        data: Labels, inputs and groups. With several sensitive columns the groups are their
            intersections.
        threshold: On the probability of class 1, for two classes.
        seed: Of the bootstrap and the noise floor.

    Returns:
        Metrics, intervals, noise floors and counts.

    Raises:
        DataError: With fewer than two groups, or labels that the model has no output for.
        ModelError: If the model does not give finite logits.
    """
    found = audit_scores(predict(model, data), data, threshold=threshold, seed=seed)
    if tiny := tiny_groups(found):
        warn("data-group-tiny", tiny)
    return found


def tiny_groups(found: Audit) -> str:
    """What to say of groups of 1 to 9 samples, with the intervals of their selection rates."""
    tiny = []
    for row in found.groups:
        if row["compared"] and 0 < row["n"] < TINY:
            low, high = row["selection_interval"]
            tiny.append(
                f"{row['group']!r} (n = {row['n']}, selection rate {row['selection_rate']:.2f}, "
                f"95 % interval {low:.2f} to {high:.2f})"
            )
    return f"Groups of fewer than {TINY} samples say little: {'; '.join(tiny)}" if tiny else ""


def audit_scores(
    scores: npt.NDArray[np.float64], data: Dataset, *, threshold: float = 0.5, seed: int = 0
) -> Audit:
    """Audits class probabilities ``(n, classes)``; see ``audit``."""
    groups, classes = len(data.group_names), scores.shape[1]
    cells = histogram_cells(scores, data, BINS)
    return Audit(
        counts=m.group_counts(
            data.y, predicted_classes(scores, threshold), data.group, groups, classes
        ),
        histograms=np.bincount(cells, minlength=groups * 2 * BINS).reshape(groups, 2, BINS),
        group_names=data.group_names,
        levels=data.group_levels,
        sensitive_names=data.sensitive_names,
        seed=seed,
        halves=_halves(scores[:, m.POSITIVE], data),
        class_names=data.class_names if len(data.class_names) == classes else (),
    )


def histogram_cells(
    scores: npt.NDArray[np.float64], data: Dataset, bins: int
) -> npt.NDArray[np.int64]:
    """Each sample's flat position ``(n,)`` in score histograms ``(groups, 2, bins)``."""
    positive = (data.y == m.POSITIVE).astype(np.int64)
    place = np.minimum((scores[:, m.POSITIVE] * bins).astype(np.int64), bins - 1)
    return np.ravel_multi_index(
        (data.group, positive, place), (len(data.group_names), 2, bins)
    ).astype(np.int64)


def _halves(score: npt.NDArray[np.float64], data: Dataset) -> npt.NDArray[np.int64]:
    """Per group, how many scores are below and above the median of all, ``(groups, 2)``."""
    middle = np.median(score) if len(score) else 0.0
    sides = (data.group[score < middle], data.group[score > middle])
    return np.stack([np.bincount(side, minlength=len(data.group_names)) for side in sides], axis=1)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
