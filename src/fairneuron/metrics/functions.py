"""Fairness metrics of labels and predictions: fairlearn's names, signatures and values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fairneuron.errors import DataError, require_known, warn
from fairneuron.metrics.definitions import (
    Counts,
    Floats,
    false_positive_rate,
    ratio,
    selection_rate,
    true_positive_rate,
)


def demographic_parity_difference(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sensitive_features: npt.ArrayLike,
    method: str = "between_groups",
    sample_weight: npt.ArrayLike | None = None,
) -> float:
    """Largest difference of selection rates, in [0, 1].

    Args:
        y_true: Labels, ``(n,)``, 0 or 1 (or -1 and 1); only their number matters here.
        y_pred: Predictions, likewise.
        sensitive_features: Groups, ``(n,)``, or ``(n, k)`` for intersections.
        method: "between_groups" compares the extremes, "to_overall" each group with everybody.
        sample_weight: ``(n,)``; 1 unless given.
    """
    return _difference(
        _weighted(y_true, y_pred, sensitive_features, sample_weight), selection_rate, method
    )


def demographic_parity_ratio(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sensitive_features: npt.ArrayLike,
    method: str = "between_groups",
    sample_weight: npt.ArrayLike | None = None,
) -> float:
    """Smallest ratio of selection rates, in [0, 1]; NaN if nobody is selected.

    Args:
        y_true: Labels, ``(n,)``: 0 and 1, or -1 and 1.
        y_pred: Predictions, likewise.
        sensitive_features: Groups, ``(n,)``, or ``(n, k)`` for intersections.
        method: "between_groups" compares the extremes, "to_overall" each group with everybody.
        sample_weight: ``(n,)``; 1 unless given.
    """
    return _fold(
        _weighted(y_true, y_pred, sensitive_features, sample_weight), selection_rate, method
    )


def equal_opportunity_difference(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sensitive_features: npt.ArrayLike,
    method: str = "between_groups",
    sample_weight: npt.ArrayLike | None = None,
) -> float:
    """Largest difference of true positive rates, in [0, 1].

    A group without positives counts as 0, with a warning.

    Args:
        y_true: Labels, ``(n,)``: 0 and 1, or -1 and 1.
        y_pred: Predictions, likewise.
        sensitive_features: Groups, ``(n,)``, or ``(n, k)`` for intersections.
        method: "between_groups" compares the extremes, "to_overall" each group with everybody.
        sample_weight: ``(n,)``; 1 unless given.
    """
    return _difference(
        _weighted(y_true, y_pred, sensitive_features, sample_weight), true_positive_rate, method
    )


def equal_opportunity_ratio(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sensitive_features: npt.ArrayLike,
    method: str = "between_groups",
    sample_weight: npt.ArrayLike | None = None,
) -> float:
    """Smallest ratio of true positive rates, in [0, 1]. See the difference.

    Args:
        y_true: Labels, ``(n,)``: 0 and 1, or -1 and 1.
        y_pred: Predictions, likewise.
        sensitive_features: Groups, ``(n,)``, or ``(n, k)`` for intersections.
        method: "between_groups" compares the extremes, "to_overall" each group with everybody.
        sample_weight: ``(n,)``; 1 unless given.
    """
    return _fold(
        _weighted(y_true, y_pred, sensitive_features, sample_weight), true_positive_rate, method
    )


def equalized_odds_difference(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sensitive_features: npt.ArrayLike,
    method: str = "between_groups",
    sample_weight: npt.ArrayLike | None = None,
    agg: str = "worst_case",
) -> float:
    """The larger ("worst_case") or mean ("mean") of the TPR and FPR differences, in [0, 1].

    Args:
        y_true: Labels, ``(n,)``: 0 and 1, or -1 and 1.
        y_pred: Predictions, likewise.
        sensitive_features: Groups, ``(n,)``, or ``(n, k)`` for intersections.
        method: "between_groups" compares the extremes, "to_overall" each group with everybody.
        sample_weight: ``(n,)``; 1 unless given.
        agg: "worst_case" or "mean" of the two rates.
    """
    counts = _weighted(y_true, y_pred, sensitive_features, sample_weight)
    pair = [_difference(counts, rate, method) for rate in (true_positive_rate, false_positive_rate)]
    return _aggregate(pair, agg, max)


def equalized_odds_ratio(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sensitive_features: npt.ArrayLike,
    method: str = "between_groups",
    sample_weight: npt.ArrayLike | None = None,
    agg: str = "worst_case",
) -> float:
    """The smaller ("worst_case") or mean ("mean") of the TPR and FPR ratios, in [0, 1].

    Args:
        y_true: Labels, ``(n,)``: 0 and 1, or -1 and 1.
        y_pred: Predictions, likewise.
        sensitive_features: Groups, ``(n,)``, or ``(n, k)`` for intersections.
        method: "between_groups" compares the extremes, "to_overall" each group with everybody.
        sample_weight: ``(n,)``; 1 unless given.
        agg: "worst_case" or "mean" of the two rates.
    """
    counts = _weighted(y_true, y_pred, sensitive_features, sample_weight)
    pair = [_fold(counts, rate, method) for rate in (true_positive_rate, false_positive_rate)]
    return _aggregate(pair, agg, min)


def _weighted(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    sensitive: npt.ArrayLike,
    weight: npt.ArrayLike | None,
) -> Counts:
    """Weighted counts ``(groups, 2, 2)``."""
    labels, predictions, table = (np.asarray(a) for a in (y_true, y_pred, sensitive))
    weights = np.ones(len(labels)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not len(labels) == len(predictions) == len(table) == len(weights):
        raise DataError(
            "data-lengths",
            "y_true, y_pred, sensitive_features and sample_weight must be equally long",
            got=f"{len(labels)}, {len(predictions)}, {len(table)} and {len(weights)}",
            cure="Check how they were cut.",
        )
    if not weights.any():
        raise DataError("data-empty", "There must be samples", got="none", cure="Check the data.")
    for values in (labels, predictions):
        if not set(np.unique(values)) <= {0, 1} and not set(np.unique(values)) <= {-1, 1}:
            raise DataError(
                "data-labels",
                "Labels and predictions must be 0 and 1, or -1 and 1",
                got=str(np.unique(values)[:5].tolist()),
                cure="Threshold scores, and compare texts with the one that is 1: y == 'yes'.",
            )
    table = table.reshape(len(table), -1).astype(str)
    _, group = np.unique(table, axis=0, return_inverse=True)
    group = group.reshape(-1)
    counts = np.zeros((int(group.max(initial=0)) + 1, 2, 2))
    np.add.at(
        counts,
        (group, (labels.reshape(-1) == 1).astype(int), (predictions.reshape(-1) == 1).astype(int)),
        weights,
    )
    return counts[counts.sum((1, 2)) > 0]  # a group without weight is nobody


def _rates(counts: Counts, rate: Callable[[Counts], Floats]) -> Floats:
    rates = rate(counts)
    if not np.isfinite(rates).all():
        warn(
            "metric-undefined", f"The {rate.__name__} of a group has no denominator and counts as 0"
        )
    return np.nan_to_num(rates)


def _difference(counts: Counts, rate: Callable[[Counts], Floats], method: str) -> float:
    require_known("option-method", "method", method, ("between_groups", "to_overall"))
    rates = _rates(counts, rate)
    if method == "between_groups":
        return float(np.ptp(rates))
    return float(np.abs(rates - _rates(counts.sum(0, keepdims=True), rate)).max())


def _fold(counts: Counts, rate: Callable[[Counts], Floats], method: str) -> float:
    require_known("option-method", "method", method, ("between_groups", "to_overall"))
    rates = _rates(counts, rate)
    if method == "between_groups":
        value = ratio(rates.min(), rates.max())
    else:
        ratios = ratio(rates, _rates(counts.sum(0, keepdims=True), rate))
        value = np.fmin.reduce(np.fmin(ratios, ratio(np.ones(1), ratios)))
    if np.isnan(value):
        warn("metric-undefined", f"The {rate.__name__} of every group is 0, so their ratio is NaN")
    return float(value)


def _aggregate(pair: list[float], agg: str, worst: Callable[[list[float]], float]) -> float:
    require_known("option-agg", "agg", agg, ("worst_case", "mean"))
    if agg == "worst_case":
        return worst(pair)
    defined = [value for value in pair if not np.isnan(value)]
    return sum(defined) / len(defined) if defined else float("nan")
