"""Similar paths: counts of samples with nearly the same units."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairneuron as fn
from fairneuron.errors import DataError, OptionError
from fairneuron.similar import TABLES, Sketcher, similar_counts
from tests.test_slicing import data, network


def sets(n: int, units: int, share: float, seed: int) -> torch.Tensor:
    """Random sets of units."""
    return torch.rand(n, units, generator=torch.Generator().manual_seed(seed)) < share


def literal_counts(active: np.ndarray, b: int) -> np.ndarray:
    """Σ J(own, other)^b, pair by pair."""
    found = []
    for own in active:
        total = 0.0
        for other in active:
            union = (own | other).sum()
            total += ((own & other).sum() / union if union else 1.0) ** b
        found.append(total)
    return np.array(found)


def test_counts_estimate_the_company_of_each_sample() -> None:
    """Within what 32 tables leave to chance; equal sets always count."""
    base = sets(6, 200, 0.3, 0)
    noise = sets(240, 200, 0.02, 1)
    active = base.repeat(40, 1) ^ noise  # six clouds of 40
    sketcher = Sketcher(0.9, 200)
    found = similar_counts(sketcher.sketch(active))
    expected = literal_counts(active.numpy(), sketcher.hashes)
    assert abs(found.mean() / expected.mean() - 1) < 0.15
    assert np.corrcoef(found, expected)[0, 1] > 0.6
    assert (similar_counts(sketcher.sketch(base[[0] * 9])) == 9).all()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999), n=st.integers(0, 9), units=st.integers(1, 90), share=st.floats(0, 1)
)
def test_a_number_is_that_of_the_least_ranks(seed: int, n: int, units: int, share: float) -> None:
    """Set by set, order by order; of no units, one more than all."""
    active = sets(n, units, share, seed)
    sketcher = Sketcher(0.6, units)
    found = sketcher.sketch(active)
    assert found.shape == (n, TABLES)
    for row, numbers in zip(active.numpy(), found, strict=True):
        least = [min(order[row], default=units) for order in sketcher._ranks.T.astype(int)]
        words = np.array(least).reshape(TABLES, sketcher.hashes) + 1
        np.testing.assert_array_equal(numbers, (words * sketcher._keys).sum(1))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(1, 30), cells=st.integers(1, 3))
def test_a_count_is_between_itself_and_its_cell(seed: int, n: int, cells: int) -> None:
    """At least 1, at most the cell's size; counts of cells are those of the cell alone."""
    sketches = Sketcher(0.8, 40).sketch(sets(n, 40, 0.4, seed))
    cell = np.arange(n) % cells
    found = similar_counts(sketches, cell)
    assert (found >= 1).all()
    for c in range(cells):
        inside = cell == c
        assert (found[inside] <= inside.sum()).all()
        np.testing.assert_array_equal(found[inside], similar_counts(sketches[inside]))


def test_half_the_tables_agree_at_the_similarity_asked_for() -> None:
    """Two sets that share 90 % of their union."""
    agreed = []
    for seed in range(40):
        order = torch.randperm(400, generator=torch.Generator().manual_seed(seed))
        pair = torch.zeros(2, 400, dtype=torch.bool)
        pair[0, order[:95]] = pair[1, order[5:100]] = True
        one, other = Sketcher(0.9, 400).sketch(pair)
        agreed.append((one == other).mean())
    assert abs(np.mean(agreed) - 0.5) < 0.1


def test_rarity_by_similar_paths() -> None:
    """θ = 0 marks those without company, 1 everybody; equal paths alone need no sketches."""
    net, x = network(2), data(2, n=200)
    paths = fn.activation_paths(net, x, similarity=0.7)
    assert paths.sketches is not None
    assert paths.sketches.shape == (200, TABLES)
    alone = fn.rare_paths(paths, 0.0, similar=True)
    company = similar_counts(paths.sketches)
    np.testing.assert_array_equal(alone, company == 1)
    assert fn.rare_paths(paths, 1.0, similar=True).all()
    marked = [fn.rare_paths(paths, t, similar=True).sum() for t in (0.0, 0.05, 0.3, 1.0)]
    assert marked == sorted(marked)
    with pytest.raises(OptionError, match="similarity=") as caught:
        fn.rare_paths(fn.activation_paths(net, x), similar=True)
    assert caught.value.code == "option-similar"


def test_rarity_within_cells_is_that_of_each_cell_alone() -> None:
    """A small cell is compared with itself: the same as slicing it apart."""
    net, x = network(4), data(4, n=150)
    cell = (np.arange(150) % 10 == 0).astype(int)
    paths = fn.activation_paths(net, x, gamma=0.5)
    found = fn.rare_paths(paths, 0.2, within=cell)
    for c in (0, 1):
        own = np.unique(paths.path_of[cell == c], return_inverse=True, return_counts=True)
        counts = own[2][own[1]]
        np.testing.assert_array_equal(found[cell == c], counts <= max(0.2 * counts.max(), 1))
    for bad in (cell[:-1], cell - 1.5, cell - 1):
        with pytest.raises(DataError) as caught:
            fn.rare_paths(paths, within=bad)
        assert caught.value.code == "data-cells"


@pytest.mark.parametrize("similarity", [0.0, 1.0, float("nan"), 2])
def test_a_similarity_lies_between_none_and_all(similarity: float) -> None:
    """The ends mean nothing here: all sets, or equal ones."""
    with pytest.raises(OptionError, match="similarity"):
        fn.activation_paths(network(0), data(0), similarity=similarity)
