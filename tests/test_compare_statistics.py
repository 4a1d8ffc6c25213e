"""The statistics of a comparison, against scipy, enumeration, and examples worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from fairneuron.compare.statistics import holm, hypervolume, lower, mean_ranks, summary

GRID = st.integers(0, 20).map(lambda i: i / 20)


@pytest.mark.parametrize("n", [10, 13, 20])
def test_the_signed_rank_test_is_scipys(n: int) -> None:
    """Without ties, the exact p value of scipy."""
    rng = np.random.default_rng(n)
    for shift in (-0.5, 0.0, 0.7):
        a, b = rng.normal(size=n), rng.normal(size=n) + shift
        expected = scipy.stats.wilcoxon(a, b, alternative="less", method="exact").pvalue
        assert lower(a, b) == pytest.approx(expected, rel=1e-9)


def test_the_signed_rank_test_is_exact_with_ties() -> None:
    """The share of all 2^n sign patterns whose rank sum is no larger than the one seen."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        differences = rng.integers(-3, 4, 11) / 100
        kept = differences[differences != 0]
        ranks = scipy.stats.rankdata(abs(kept))
        seen = ranks[kept > 0].sum()
        sums = [sum(s) for s in itertools.product(*((0, rank) for rank in ranks))]
        expected = np.mean(np.array(sums) <= seen + 1e-9)
        assert lower(0.8 + differences, np.full(11, 0.8)) == pytest.approx(expected)


def test_p_values_at_the_ends() -> None:
    """All below: one of 2^10 patterns. None differs: 1. All above: 1. Nine seeds: no test."""
    zeros, ones = np.zeros(10), np.ones(10)
    assert lower(zeros, ones + np.arange(10)) == pytest.approx(1 / 1024)
    assert lower(ones, ones) == 1
    assert lower(ones, zeros) == pytest.approx(1)
    assert lower(zeros[:9], ones[:9]) is None


def test_equal_differences_are_ties_whatever_their_last_bit() -> None:
    """.85 − .84 and .84 − .83 differ in floating point, and count alike."""
    a, b = np.array([0.85, 0.84] * 5), np.array([0.84, 0.85] * 5)
    a[0], b[0] = 0.84, 0.83
    exact = lower(np.array([2, 1] * 5), np.array([1, 2] * 5))
    assert lower(a, b) == exact


def literal_holm(p: dict[str, float]) -> dict[str, float]:
    """Sequentially: the smallest p times how many are left, never below the one before."""
    left, adjusted, before = dict(p), {}, 0.0
    while left:
        name = min(left, key=lambda n: (left[n], n))
        before = max(before, min(1.0, left[name] * len(left)))
        adjusted[name] = before
        del left[name]
    return adjusted


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1), max_size=8))
def test_holm_is_the_literal_one(p: dict[str, float]) -> None:
    """The same adjusted values, never below the given ones."""
    found = holm(p)
    assert found == pytest.approx(literal_holm(p))
    assert all(found[name] >= p[name] for name in p)


def test_holm_by_hand() -> None:
    """.01 × 4, .02 × 3, .03 × 2, the last one .06 as the one before; no p value stays none."""
    given_values = {"b": 0.02, "a": 0.01, "d": 0.05, "none": None, "c": 0.03}
    expected = {"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06}
    found = holm(given_values)
    assert found.pop("none") is None
    assert found == pytest.approx(expected)
    assert holm({}) == {}


@given(st.lists(st.tuples(GRID, GRID), max_size=6), GRID, GRID)
@settings(max_examples=50)
def test_hypervolume_is_that_of_a_grid(
    points: list[tuple[float, float]], accuracy: float, gap: float
) -> None:
    """The share of the cells of a fine grid that some point dominates."""
    cells = (np.arange(20) + 0.5) / 20
    a, g = np.meshgrid(cells, cells, indexing="ij")
    covered = np.zeros_like(a, dtype=bool)
    for best, least in points:
        covered |= (a < best) & (g > least)
    covered &= (a > accuracy) & (g < gap)
    found = hypervolume(np.array(points, dtype=float).reshape(-1, 2), (accuracy, gap))
    assert found == pytest.approx(covered.mean(), abs=1e-9)


def test_hypervolume_by_hand() -> None:
    """Two steps: (.9, .1) and (.8, 0) over (.5, .2): .3 × .1 + .4 × .1."""
    points = np.array([[0.9, 0.1], [0.8, 0.0], [0.7, 0.1], [0.4, 0.0], [0.9, 0.3]])
    assert hypervolume(points, (0.5, 0.2)) == pytest.approx(0.07)
    assert hypervolume(points[:0], (0.5, 0.2)) == 0


def test_mean_ranks_by_hand() -> None:
    """The largest is first; ties share; the mean over the seeds."""
    found = mean_ranks({"a": [3.0, 1.0], "b": [2.0, 1.0], "c": [1.0, 0.5]})
    assert found == {"a": 1.25, "b": 1.75, "c": 3.0}
    assert mean_ranks({}) == {}
    assert mean_ranks({"a": []}) == {}


def test_summary() -> None:
    """Mean, sd with n − 1, an interval as wide as theory has it, the same each time."""
    values = np.random.default_rng(0).normal(0.8, 0.02, 40)
    found = summary(list(values))
    assert found["mean"] == pytest.approx(values.mean())
    assert found["sd"] == pytest.approx(values.std(ddof=1))
    half = 1.96 * values.std() / np.sqrt(40)
    expected = [values.mean() - half, values.mean() + half]
    assert found["interval"] == pytest.approx(expected, abs=0.1 * half)
    assert summary(list(values)) == found
    assert summary([0.5]) == {"n": 1, "mean": 0.5, "sd": None, "interval": None}
    assert summary([])["mean"] is None
