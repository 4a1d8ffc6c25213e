"""Clustering: the paper's Figure 3 and the edges of theta."""

import numpy as np
import pytest

import fairneuron as fn
from fairneuron.clustering import summarise_paths
from fairneuron.errors import OptionError
from fairneuron.paths import Means, Paths
from tests.conftest import made_up


def with_counts(counts: list[int]) -> Paths:
    """Paths of the given sizes."""
    sizes = np.array(counts)
    empty = np.zeros((len(sizes), 2), dtype=np.int64)
    path_of = np.repeat(np.arange(len(sizes)), sizes)
    first = np.cumsum(sizes) - sizes
    return Paths(path_of, sizes, first, empty, Means({}, len(path_of)), 0.9)


def test_figure_3_of_the_paper() -> None:
    """Counts 25, 10, 3, 2 and theta 0.3: the paths with 3 and 2 are biased, 5 samples."""
    biased = fn.rare_paths(with_counts([25, 10, 3, 2]), theta=0.3)
    assert biased.dtype == bool
    assert biased.tolist() == [False] * 35 + [True] * 5


@pytest.mark.parametrize(
    ("counts", "theta", "biased"),
    [
        ([10, 5, 1], 0.5, 6),  # at the threshold counts as rare
        ([10, 5, 1], 0.49, 1),
        ([10, 5, 1, 1], 0.0, 2),  # a path of one sample is always rare
        ([10, 5, 2], 1e-4, 0),
        ([10, 5, 2], 1.0, 17),
        ([1, 1, 1], 0.0, 3),
    ],
)
def test_threshold(counts: list[int], theta: float, biased: int) -> None:
    """count ≤ max(theta · M, 1)."""
    assert fn.rare_paths(with_counts(counts), theta).sum() == biased


@pytest.mark.parametrize("theta", [-0.1, 1.1, float("nan"), "1"])
def test_theta_out_of_range_is_refused(theta: object) -> None:
    """Theta lies in [0, 1]."""
    with pytest.raises(OptionError) as caught:
        fn.rare_paths(with_counts([2]), theta)
    assert caught.value.code == "option-range"


def test_summary_counts_groups_among_biased_and_benign(trained) -> None:
    """Biased and benign samples add up to each group, and positives to the labels."""
    data = made_up()
    paths = fn.activation_paths(trained, data.x)
    summary = summarise_paths(paths, data, 0.05)
    rare = fn.rare_paths(paths, 0.05)
    assert summary.biased == rare.sum() == sum(row["biased"] for row in summary.makeup)
    for g, row in enumerate(summary.makeup):
        inside = data.group == g
        assert row["biased"] + row["benign"] == row["n"] == inside.sum()
        assert row["biased_positive"] == (inside & rare & (data.y == 1)).sum()
        assert row["benign_positive"] == (inside & ~rare & (data.y == 1)).sum()
    assert (summary.paths, summary.largest) == (len(paths), paths.counts.max())
    assert summary.alone == (paths.counts == 1).sum()
