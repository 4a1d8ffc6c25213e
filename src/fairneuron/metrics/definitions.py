"""Group fairness metrics: a line each over confusion counts, and fairlearn's functions.

Counts have the shape ``(..., groups, classes, classes)``: ``counts[g, y, p]`` samples of group g
with the label y were predicted p. Class 1 is the positive one. Leading dimensions are free, so a
metric of a thousand bootstrap replicates is the same line as the metric itself. A rate without a
denominator is NaN in here; ``fairneuron.audit`` turns it into None and a reason.

Definitions: Gao et al., FairNeuron (ICSE 2022), section 4.2, equations 5 to 7 (DP, DPR, EO); Hardt
et al., Equality of Opportunity in Supervised Learning (2016) for equalised odds; names as in
fairlearn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.integer[Any] | np.floating[Any]]
POSITIVE = 1
NO_GROUP_RATE = "fewer than two groups with a defined rate"


def group_counts(
    y: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    group: npt.NDArray[Any],
    groups: int,
    classes: int,
) -> npt.NDArray[np.int64]:
    """Counts ``(groups, classes, classes)`` from integer arrays of shape ``(n,)``."""
    cell = np.ravel_multi_index((group, y, predicted), (groups, classes, classes))
    return np.bincount(cell, minlength=groups * classes**2).reshape(groups, classes, classes)


# Rates per group: (..., groups, classes, classes) -> (..., groups)


def selection_rate(c: Counts) -> Floats:
    """P(ŷ = 1 | g)."""
    return ratio(c[..., :, POSITIVE].sum(-1), c.sum((-1, -2)))


def true_positive_rate(c: Counts) -> Floats:
    """P(ŷ = 1 | y = 1, g)."""
    return ratio(c[..., POSITIVE, POSITIVE], c[..., POSITIVE, :].sum(-1))


def false_positive_rate(c: Counts) -> Floats:
    """P(ŷ = 1 | y ≠ 1, g)."""
    wrong = c[..., :, POSITIVE].sum(-1) - c[..., POSITIVE, POSITIVE]
    return ratio(wrong, c.sum((-1, -2)) - c[..., POSITIVE, :].sum(-1))


def group_accuracy(c: Counts) -> Floats:
    """P(ŷ = y | g)."""
    return ratio(np.trace(c, axis1=-2, axis2=-1), c.sum((-1, -2)))


def wilson(k: Counts, n: Counts) -> Floats:
    """95 % interval of a share, k of n, ``(..., 2)``; NaN where n is 0.

    Wilson, Probable Inference (1927): it lies in [0, 1], and is not empty at shares of 0 and 1.
    """
    z = 1.959963984540054
    share = ratio(k, n)
    middle = (k + z**2 / 2) / (n + z**2)
    half = z * np.sqrt(n * share * (1 - share) + z**2 / 4) / (n + z**2)
    return np.clip(np.stack([middle - half, middle + half], axis=-1), 0, 1)


# Metrics of the whole: (..., groups, classes, classes) -> (...)


def accuracy(c: Counts) -> Floats:
    """P(ŷ = y)."""
    return group_accuracy(c.sum(-3, keepdims=True))[..., 0]


def class_accuracies(c: Counts) -> Floats:
    """P(ŷ = y | y = k) per class, ``(..., classes)``."""
    total = c.sum(-3)
    return ratio(np.diagonal(total, axis1=-2, axis2=-1), total.sum(-1))


def balanced_accuracy(c: Counts) -> Floats:
    """The mean of the class accuracies."""
    return class_accuracies(c).mean(-1)


def f1(c: Counts) -> Floats:
    """2 TP / (2 TP + FP + FN) of class 1."""
    t = c.sum(-3)
    return ratio(2 * t[..., 1, 1], t[..., 1, :].sum(-1) + t[..., :, 1].sum(-1))


def worst_group_accuracy(c: Counts) -> Floats:
    """The lowest accuracy of a group."""
    return _reduce(group_accuracy(c), np.fmin)


def dp(c: Counts) -> Floats:
    """Demographic parity difference: the largest difference of two groups' selection rates."""
    return _gap(selection_rate(c))


def dpr(c: Counts) -> Floats:
    """Demographic parity ratio: the lowest selection rate over the highest, in [0, 1]."""
    rates = selection_rate(c)
    return np.where(
        _defined(rates), ratio(_reduce(rates, np.fmin), _reduce(rates, np.fmax)), np.nan
    )


def eo(c: Counts) -> Floats:
    """Equal opportunity difference: the largest difference of two groups' true positive rates."""
    return _gap(true_positive_rate(c))


def fpr_gap(c: Counts) -> Floats:
    """The largest difference of two groups' false positive rates."""
    return _gap(false_positive_rate(c))


def eodds(c: Counts) -> Floats:
    """Equalised odds difference: the larger one of the TPR and FPR differences."""
    return np.maximum(eo(c), fpr_gap(c))


def cv(c: Counts) -> Floats:
    """Class-wise variance: the variance of the class accuracies (FairNeuron, Table 7)."""
    return class_accuracies(c).var(-1)


def mcd(c: Counts) -> Floats:
    """Maximum class-wise discrepancy: largest minus smallest class accuracy (Table 7)."""
    return np.ptp(class_accuracies(c), axis=-1)


# Metrics of score histograms (..., groups, 2, bins): y ≠ 1 and y = 1, scores P(y = 1) ascending


def auc(h: Counts) -> Floats:
    """Area under the ROC curve; scores in one bin count as ties."""
    negative, positive = np.moveaxis(h.sum(-3), -2, 0)
    below = np.cumsum(negative, -1) - negative / 2
    return ratio((positive * below).sum(-1), positive.sum(-1) * negative.sum(-1))


def abcc(h: Counts) -> Floats:
    """Area between the groups' cumulative score curves, largest pair: DP without a threshold.

    Han et al., Retiring ΔDP (2023).
    """
    total = h.sum(-2)
    curves = ratio(np.cumsum(total, -1), total.sum(-1, keepdims=True))
    areas = [
        np.abs(curves[..., i, :] - curves[..., j, :]).mean(-1)
        for i in range(curves.shape[-2])
        for j in range(i)
    ]
    return _reduce(np.stack(areas, -1), np.fmax) if areas else np.full(curves.shape[:-2], np.nan)


@dataclass(frozen=True)
class Metric:
    """What an audit knows of a metric.

    Attributes:
        title: Its name in full.
        of: The function.
        source: What it reads: confusion "counts" or score "histograms".
        best: The value of a perfect model: 0 for gaps, 1 for accuracies and ratios.
        between_groups: Whether it compares groups, so that it has a noise floor.
        undefined: Why it can be undefined.
        worst_group: Whether it is that of the worst group.
        between_classes: Whether it compares classes, whatever the groups.
    """

    title: str
    of: Callable[[Counts], Floats]
    source: Literal["counts", "histograms"] = "counts"
    best: float = 0.0
    between_groups: bool = False
    undefined: str = NO_GROUP_RATE
    worst_group: bool = False
    between_classes: bool = False

    @property
    def groupwise(self) -> bool:
        """Whether it reads only the groups that are compared; the other metrics read everybody."""
        return self.between_groups or self.worst_group

    def shortfall(self, value: float) -> float:
        """How far a value is from the best one."""
        return abs(value - self.best)


_NO_POSITIVES = "no two groups with positives in y"
METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", accuracy, best=1, undefined="no samples"),
    "balanced_accuracy": Metric(
        "balanced accuracy", balanced_accuracy, best=1, undefined="a class without samples"
    ),
    "f1": Metric("F1", f1, best=1, undefined="no positives, in y or predicted"),
    "auc": Metric(
        "AUC", auc, "histograms", best=1, undefined="y has one class only, or no scores were given"
    ),
    "worst_group_accuracy": Metric(
        "worst-group accuracy", worst_group_accuracy, best=1, worst_group=True
    ),
    "dp": Metric("demographic parity difference", dp, between_groups=True),
    "dpr": Metric(
        "demographic parity ratio",
        dpr,
        best=1,
        between_groups=True,
        undefined="no positive predictions",
    ),
    "eo": Metric("equal opportunity difference", eo, between_groups=True, undefined=_NO_POSITIVES),
    "eodds": Metric(
        "equalised odds difference",
        eodds,
        between_groups=True,
        undefined=f"{_NO_POSITIVES}, or none with negatives",
    ),
    "abcc": Metric(
        "area between score curves",
        abcc,
        "histograms",
        between_groups=True,
        undefined="no scores were given",
    ),
    "cv": Metric(
        "variance of class accuracies",
        cv,
        undefined="a class without samples",
        between_classes=True,
    ),
    "mcd": Metric(
        "largest class accuracy difference",
        mcd,
        undefined="a class without samples",
        between_classes=True,
    ),
}


def ratio(a: Counts, b: Counts) -> Floats:
    """A / b, NaN where b is 0."""
    denominator = np.asarray(b, dtype=np.float64)
    return np.divide(
        a,
        denominator,
        out=np.full(np.broadcast(a, denominator).shape, np.nan),
        where=denominator != 0,
    )


def value_or_none(value: Any) -> float | None:
    """A figure as a plain number; None for NaN and infinity, which mean undefined."""
    return float(value) if np.isfinite(value) else None


def _defined(rates: Floats) -> npt.NDArray[np.bool_]:
    """Whether two groups or more have a rate."""
    return np.isfinite(rates).sum(-1) >= 2


def _reduce(rates: Floats, ufunc: np.ufunc) -> Floats:
    """Smallest or largest defined rate; NaN where there is none."""
    return np.asarray(ufunc.reduce(rates, axis=-1))


def _gap(rates: Floats) -> Floats:
    return np.where(_defined(rates), _reduce(rates, np.fmax) - _reduce(rates, np.fmin), np.nan)
