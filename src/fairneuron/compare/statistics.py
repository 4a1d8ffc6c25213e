"""Statistics over seeds: paired tests, correction for their number, hypervolume, ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
ENOUGH = 10  # seeds for a test
_RESAMPLES = 10_000
_DIGITS = 12  # .85 − .84 and .84 − .83 are a tie


def lower(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> float | None:
    """One-sided p value of Wilcoxon's signed-rank test that a tends to lie below b.

    The distribution is exact, also with ties: under the null hypothesis each difference is as
    likely to have the other sign, so that the rank sum of the positive ones is a sum of independent
    terms. Differences of zero are left out, as in Wilcoxon, Individual Comparisons by Ranking
    Methods (1945).

    Args:
        a: ``(n,)`` values, one per seed.
        b: ``(n,)`` values of the same seeds.

    Returns:
        In (0, 1]; 1 if all are equal; None for fewer than 10 seeds, too few for a test.
    """
    from scipy.stats import rankdata

    if len(a) < ENOUGH:
        return None
    differences = np.round(np.asarray(a) - np.asarray(b), _DIGITS)
    differences = differences[differences != 0]
    doubled = (2 * rankdata(np.abs(differences))).astype(np.int64)  # mean ranks become whole
    chances = np.ones(1)  # of each sum of the ranks so far
    for rank in doubled:
        with_rank = np.zeros(len(chances) + rank)
        with_rank[: len(chances)] += chances / 2
        with_rank[rank:] += chances / 2
        chances = with_rank
    positive = int(doubled[differences > 0].sum())
    return min(1.0, float(chances[: positive + 1].sum()))


def holm(p: Mapping[str, float | None]) -> dict[str, float | None]:
    """P values adjusted for their number: Holm, A Simple Sequentially Rejective Procedure (1979).

    The k-th smallest of m is multiplied by m − k + 1, and is at least the one before it.

    Args:
        p: Name to p value; those that are None count for nothing and stay None.

    Returns:
        Name to adjusted value, in [0, 1].
    """
    known = sorted((value, name) for name, value in p.items() if value is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p)
    least = 0.0
    for done, (value, name) in enumerate(known):
        least = max(least, min(1.0, value * (len(known) - done)))
        adjusted[name] = least
    return adjusted


def hypervolume(points: Floats, reference: tuple[float, float]) -> float:
    """Area that points of (accuracy, gap) dominate, within a reference point.

    Zitzler and Thiele, Multiobjective Evolutionary Algorithms (1999): here accuracy is maximised
    and the gap, at least 0, is minimised.

    Args:
        points: ``(m, 2)`` accuracies and gaps.
        reference: The worst accuracy and gap that count.

    Returns:
        In [0, (1 − reference accuracy) · reference gap]; 0 for points that do not beat it.
    """
    worst_accuracy, worst_gap = reference
    inside = points[(points[:, 0] > worst_accuracy) & (points[:, 1] < worst_gap)]
    ordered = inside[np.argsort(inside[:, 1], kind="stable")]  # the smallest gap first
    best = np.maximum.accumulate(ordered[:, 0])
    widths = np.diff(np.append(ordered[:, 1], worst_gap))
    return float(((best - worst_accuracy) * widths).sum())


def mean_ranks(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean over seeds of each method's rank by value; the largest has rank 1, ties their mean.

    Args:
        values: Method to ``(seeds,)`` values, the same seeds for each.
    """
    from scipy.stats import rankdata

    table = np.array(list(values.values()), dtype=np.float64)  # (methods, seeds)
    ranks = rankdata(-np.round(table, _DIGITS), axis=0) if table.size else table
    return {name: float(row.mean()) for name, row in zip(values, ranks, strict=True) if len(row)}


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation and 95 % bootstrap interval of the mean over seeds.

    The interval is the percentile one of 10,000 resamples, always the same ones.

    Args:
        values: One per seed.

    Returns:
        ``n``, ``mean``, ``sd`` and ``interval``; None where there are too few values for it.
    """
    x = np.asarray(values, dtype=np.float64)
    if not x.size:
        return {"n": 0, "mean": None, "sd": None, "interval": None}
    found: dict[str, Any] = {"n": len(x), "mean": float(x.mean()), "sd": None, "interval": None}
    if len(x) > 1:
        drawn = np.random.default_rng(0).integers(0, len(x), (_RESAMPLES, len(x)))
        bounds = np.quantile(x[drawn].mean(1), [0.025, 0.975])
        found |= {"sd": float(x.std(ddof=1)), "interval": [float(bound) for bound in bounds]}
    return found
