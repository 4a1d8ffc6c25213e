"""Audit: what a model does to each group, from counts that stream, merge and bootstrap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from fairneuron.data.dataset import Dataset, Mask
from fairneuron.data.tables import UNKNOWN
from fairneuron.errors import DataError, ModelError, require_known, warn
from fairneuron.markup import snippet, table
from fairneuron.metrics import definitions as m
from fairneuron.metrics.definitions import METRICS, Counts, Floats
from fairneuron.models import Network, Predictor, predicted_classes

NO_GROUPS = "the data have no sensitive columns"
BINS = 1024
DRAWS = 1000
TINY = 10
RATE_TITLES = {
    "selection_rate": "selection rate",
    "tpr": "TPR",
    "fpr": "FPR",
    "accuracy": "accuracy",
}
Interval = tuple[float, float]


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
    def metrics(self) -> dict[str, float | None]:
        """Name to value; None where ``undefined`` has the reason."""
        alone = not self.sensitive_names  # nobody to compare with
        return {
            name: None if alone and METRICS[name].groupwise else _plain(self._of(name)._value(name))
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
        rng = np.random.default_rng([self.seed, 1])
        values = {name: self._value(name) for name in METRICS if self.metrics[name] is not None}
        drawn: dict[str, list[Floats]] = {name: [] for name in METRICS}
        for _ in range(DRAWS // 100):  # a part at a time: histograms are large
            parts = {"counts": resample(rng, self.counts, 100)}
            if self.histograms is not None:
                parts["histograms"] = resample(rng, self.histograms, 100)
            for name, value in values.items():
                if np.isfinite(value):
                    drawn[name].append(METRICS[name].of(parts[METRICS[name].source]))
        return {name: interval(np.concatenate(d)) if d else None for name, d in drawn.items()}

    @cached_property
    def noise_floor(self) -> dict[str, float | None]:
        """Mean gap that an equal classifier of the same rates shows on groups of these sizes.

        Simulated, 1,000 draws: predictions independent of the group for DP and DPR, independent of
        it given the label for EO and equalised odds, scores independent of it for ABCC. A
        difference below the floor is no finding. With more than two classes, or without groups, the
        gaps between classes have a floor too: that of a classifier of one accuracy for all classes.
        """
        if self._known is not self:
            return self._known.noise_floor | self._class_floor
        if not self.sensitive_names:
            return {n: None for n, metric in METRICS.items() if metric.between_groups} | (
                self._class_floor
            )
        rng = np.random.default_rng([self.seed, 2])
        label = self.counts.sum(2, keepdims=True)  # (g, y, 1)
        independent = self.counts.sum((0, 1)) / self.counts.sum()  # (p,)
        given_label = m.ratio(self.counts.sum(0), self.counts.sum((0, 2))[:, None])  # (y, p)
        blind = _multinomial(
            rng, label.sum(1), np.broadcast_to(independent, (len(label), independent.size))
        )
        fair = _multinomial(rng, label[..., 0], np.broadcast_to(given_label, self.counts.shape))
        draws: dict[str, Counts] = dict.fromkeys(("eo", "eodds"), fair)
        draws |= dict.fromkeys(("dp", "dpr"), blind[:, :, None, :])  # the label plays no part
        if self.histograms is not None:
            total = self.histograms.sum((0, 1))
            scores = _multinomial(
                rng,
                self.histograms.sum((1, 2)),
                np.broadcast_to(total / total.sum(), (len(label), total.size)),
            )
            draws["abcc"] = scores[:, :, None, :]
        floors: dict[str, float | None] = {}
        for name, metric in METRICS.items():
            if metric.between_groups:
                value = metric.of(draws[name]) if name in draws else np.full(1, np.nan)
                floors[name] = _plain(np.nanmean(value)) if np.isfinite(value).any() else None
        return floors | self._class_floor

    @property
    def _shows_classes(self) -> bool:
        """Whether gaps between classes are told in full: for several classes, or without groups."""
        return not self.sensitive_names or self.counts.shape[1] > 2

    @cached_property
    def _class_floor(self) -> dict[str, float | None]:
        """Mean CV and MCD of a classifier that has the accuracy of this one for every class."""
        if not self._shows_classes:
            return {}
        n = self.counts.sum((0, 2))  # (y,)
        right = np.random.default_rng([self.seed, 3]).binomial(
            n, float(m.accuracy(self.counts)), size=(DRAWS, n.size)
        )
        draws = np.zeros((DRAWS, 1, n.size, n.size), dtype=np.int64)
        for k in range(n.size):
            draws[:, 0, k, k] = right[:, k]
            draws[:, 0, k, k - 1] = n[k] - right[:, k]
        return {name: _plain(METRICS[name].of(draws).mean()) for name in ("cv", "mcd")}

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
                "accuracy": _plain(value),
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
                **{rate: _plain(values[g]) for rate, values in rates.items()},
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
            **(
                {} if self.sensitive_names and len(self.classes) <= 2 else {"classes": self.classes}
            ),
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
        groups = [
            (g["group"], f"{g['n']:,}", *(_shown(g[rate]) for rate in RATE_TITLES))
            for g in self.groups
        ]
        of_classes = [
            (row["class"], f"{row['n']:,}", _shown(row["accuracy"])) for row in self.classes
        ]
        tables = []
        if self.sensitive_names:
            tables.append(table("Groups", ("group", "n", *RATE_TITLES.values()), groups))
        if self._shows_classes:
            tables.append(table("Classes", ("class", "n", "accuracy"), of_classes))
        by, gap = f"between groups by {' and '.join(self.sensitive_names)} ", "dp"
        if not self.sensitive_names:
            by, gap = "", "mcd"
        alike = "treats all groups alike" if self.sensitive_names else "serves all classes alike"
        return snippet(
            f"The {METRICS[gap].title} {by}is {_shown(self.metrics[gap])} "
            f"(n = {self.counts.sum():,}); a model that {alike} would show "
            f"{_shown(self.noise_floor.get(gap))} on average.",
            table("Metrics", head, rows),
            *tables,
        )

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{k} {v:.3f}"
            for k, v in self.metrics.items()
            if v is not None
            and k in (("accuracy", "dp", "eo") if self.sensitive_names else ("accuracy", "mcd"))
        )
        return f"Audit(n={self.counts.sum()}, {shown})"

    def _value(self, name: str) -> Floats:
        metric = METRICS[name]
        if metric.source == "counts":
            return metric.of(self.counts)
        return np.asarray(np.nan) if self.histograms is None else metric.of(self.histograms)


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
    tiny = "; ".join(_tiny(row) for row in found.groups if row["compared"] and 0 < row["n"] < TINY)
    return f"Groups of fewer than {TINY} samples say little: {tiny}" if tiny else ""


def _tiny(row: dict[str, Any]) -> str:
    low, high = row["selection_interval"]
    return (
        f"{row['group']!r} (n = {row['n']}, selection rate {row['selection_rate']:.2f}, 95 % "
        f"interval {low:.2f} to {high:.2f})"
    )


def audit_scores(
    scores: npt.NDArray[np.float64], data: Dataset, *, threshold: float = 0.5, seed: int = 0
) -> Audit:
    """Audits class probabilities ``(n, classes)``; see ``audit``."""
    groups, classes = len(data.group_names), scores.shape[1]
    return Audit(
        counts=m.group_counts(
            data.y, predicted_classes(scores, threshold), data.group, groups, classes
        ),
        histograms=_histograms(scores, data, BINS),
        group_names=data.group_names,
        levels=_levels(data),
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


def _histograms(scores: npt.NDArray[np.float64], data: Dataset, bins: int) -> npt.NDArray[np.int64]:
    shape = (len(data.group_names), 2, bins)
    cells = histogram_cells(scores, data, bins)
    return np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape)


def _halves(score: npt.NDArray[np.float64], data: Dataset) -> npt.NDArray[np.int64]:
    """Per group, how many scores are below and above the median of all, ``(groups, 2)``."""
    middle = np.median(score) if len(score) else 0.0
    sides = (data.group[score < middle], data.group[score > middle])
    return np.stack([np.bincount(side, minlength=len(data.group_names)) for side in sides], axis=1)


def predict(model: nn.Module | Predictor, data: Dataset) -> npt.NDArray[np.float64]:
    """Class probabilities ``(n, classes)`` of a module or predictor, checked against the labels."""
    predictor = (
        model
        if not isinstance(model, nn.Module) and isinstance(model, Predictor)
        else Network(model)
    )
    scores = predictor.predict(data)
    if scores.ndim != 2 or len(scores) != len(data) or scores.shape[1] < 2:
        raise ModelError(
            "model-output",
            "A predictor must give (n, classes) probabilities, of two classes or more",
            got=f"{scores.shape} for n = {len(data)}",
            cure="Give a column per class.",
        )
    outside = ~((scores >= 0) & (scores <= 1))  # NaN too
    if outside.any():
        raise ModelError(
            "model-nonfinite",
            "Probabilities must lie in [0, 1]",
            got=f"others for {int(outside.any(1).sum())} of {len(data)} samples",
            cure="Apply sigmoid or softmax to logits; look for NaN in the weights.",
        )
    if data.schema is not None and scores.shape[1] > 2:
        raise ModelError(
            "model-output",
            "A model for two labels must have one logit or two",
            got=f"{scores.shape[1]} outputs",
            cure="Check the head.",
        )
    if data.y.min(initial=0) < 0 or data.y.max(initial=0) >= scores.shape[1]:
        raise DataError(
            "data-labels",
            f"Labels must be below the model's {scores.shape[1]} classes, and at least 0",
            got=f"labels from {data.y.min()} to {data.y.max()}",
            cure="Check the head, or the labels.",
        )
    return scores


def resample(rng: np.random.Generator, counts: Counts, draws: int = DRAWS) -> Counts:
    """Multinomial bootstrap: ``(draws, *counts.shape)`` tables of the same total."""
    flat = counts.reshape(-1)
    used = np.flatnonzero(flat)
    tables = np.zeros((draws, flat.size), dtype=np.int32)
    tables[:, used] = rng.multinomial(flat.sum(), flat[used] / flat.sum(), size=draws)
    return tables.reshape(draws, *counts.shape)


def interval(draws: Floats) -> Interval | None:
    """2.5 % and 97.5 % quantiles of the defined draws; None if more than 5 % are undefined."""
    defined = draws[np.isfinite(draws)]
    if defined.size < 0.95 * draws.size:
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def _multinomial(rng: np.random.Generator, n: Counts, p: Floats) -> Counts:
    """``(DRAWS, *p.shape)`` tables with n per leading cell; cells without samples stay empty."""
    return rng.multinomial(
        np.asarray(n, dtype=np.int64).reshape(p.shape[:-1]),
        np.nan_to_num(p, nan=1 / p.shape[-1]),
        size=(DRAWS, *p.shape[:-1]),
    )


def _levels(data: Dataset) -> tuple[tuple[str, ...], ...]:
    sizes = tuple(len(levels) for levels in data.sensitive_levels)
    return tuple(
        tuple(levels[i] for levels, i in zip(data.sensitive_levels, index, strict=True))
        for index in np.ndindex(*sizes)
    )


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
