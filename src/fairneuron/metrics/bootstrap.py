"""What chance does to metrics: their intervals, and the gaps that equal treatment would show."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fairneuron.metrics.definitions import METRICS, Counts, Floats, accuracy, ratio, value_or_none

DRAWS = 1000
_AT_ONCE = 100  # draws in memory: histograms are large
Interval = tuple[float, float]


def intervals(
    measured: Mapping[str, Counts], names: Collection[str], seed: int
) -> dict[str, Interval | None]:
    """95 % percentile intervals of metrics, by a multinomial bootstrap of 1,000 draws.

    Args:
        measured: "counts" ``(groups, classes, classes)`` and, if there are any, "histograms"
            ``(groups, 2, bins)``.
        names: The metrics that have a value.
        seed: Another seed, other draws.

    Returns:
        Each metric's interval; None for other metrics, and where more than 5 % of the draws have no
        value.
    """
    rng = np.random.default_rng([seed, 1])
    drawn: dict[str, list[Floats]] = {name: [] for name in METRICS}
    for _ in range(DRAWS // _AT_ONCE):
        parts = {source: _resample(rng, counts) for source, counts in measured.items()}
        for name in names:
            drawn[name].append(METRICS[name].of(parts[METRICS[name].source]))
    return {name: _interval(np.concatenate(d)) if d else None for name, d in drawn.items()}


def _resample(rng: np.random.Generator, counts: Counts) -> Counts:
    """``(_AT_ONCE, *counts.shape)`` tables of the same total."""
    flat = counts.reshape(-1)
    used = np.flatnonzero(flat)
    tables = np.zeros((_AT_ONCE, flat.size), dtype=np.int32)
    tables[:, used] = rng.multinomial(flat.sum(), flat[used] / flat.sum(), size=_AT_ONCE)
    return tables.reshape(_AT_ONCE, *counts.shape)


def _interval(draws: Floats) -> Interval | None:
    """2.5 % and 97.5 % quantiles of the defined draws; None if more than 5 % are undefined."""
    defined = draws[np.isfinite(draws)]
    if defined.size < 0.95 * draws.size:
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def floors_of_groups(
    counts: Counts, histograms: Counts | None, seed: int
) -> dict[str, float | None]:
    """Mean gaps between groups of a classifier that treats them alike.

    Predictions are independent of the group for DP and DPR, independent of it given the label for
    EO and equalised odds; scores are independent of it for ABCC.

    Args:
        counts: ``(groups, classes, classes)``, whose rates over everybody the classifier has.
        histograms: ``(groups, 2, bins)`` of scores; without them ABCC has no floor.
        seed: Another seed, other draws.
    """
    rng = np.random.default_rng([seed, 2])
    label = counts.sum(2, keepdims=True)  # (g, y, 1)
    independent = counts.sum((0, 1)) / counts.sum()  # (p,)
    given_label = ratio(counts.sum(0), counts.sum((0, 2))[:, None])  # (y, p)
    blind = _multinomial(
        rng, label.sum(1), np.broadcast_to(independent, (len(label), independent.size))
    )
    fair = _multinomial(rng, label[..., 0], np.broadcast_to(given_label, counts.shape))
    draws: dict[str, Counts] = dict.fromkeys(("eo", "eodds"), fair)
    draws |= dict.fromkeys(("dp", "dpr"), blind[:, :, None, :])  # the label plays no part
    if histograms is not None:
        total = histograms.sum((0, 1))
        scores = _multinomial(
            rng,
            histograms.sum((1, 2)),
            np.broadcast_to(total / total.sum(), (len(label), total.size)),
        )
        draws["abcc"] = scores[:, :, None, :]
    floors: dict[str, float | None] = {}
    for name, metric in METRICS.items():
        if metric.between_groups:
            value = metric.of(draws[name]) if name in draws else np.full(1, np.nan)
            floors[name] = value_or_none(np.nanmean(value)) if np.isfinite(value).any() else None
    return floors


def _multinomial(rng: np.random.Generator, n: Counts, p: Floats) -> Counts:
    """``(DRAWS, *p.shape)`` tables with n per leading cell; cells without samples stay empty."""
    return rng.multinomial(
        np.asarray(n, dtype=np.int64).reshape(p.shape[:-1]),
        np.nan_to_num(p, nan=1 / p.shape[-1]),
        size=(DRAWS, *p.shape[:-1]),
    )


def floors_of_classes(counts: Counts, seed: int) -> dict[str, float | None]:
    """Mean CV and MCD of a classifier that has the accuracy of this one for every class."""
    n = counts.sum((0, 2))  # (y,)
    right = np.random.default_rng([seed, 3]).binomial(
        n, float(accuracy(counts)), size=(DRAWS, n.size)
    )
    draws = np.zeros((DRAWS, 1, n.size, n.size), dtype=np.int64)
    for k in range(n.size):
        draws[:, 0, k, k] = right[:, k]
        draws[:, 0, k, k - 1] = n[k] - right[:, k]
    return {name: value_or_none(METRICS[name].of(draws).mean()) for name in ("cv", "mcd")}
