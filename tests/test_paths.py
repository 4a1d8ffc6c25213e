"""Samples in batches of any kind, and paths of parts that merge into those of the whole."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import fairneuron as fn
from fairneuron import activations
from fairneuron.errors import DataError, ModelError, OptionError
from fairneuron.paths import count_paths
from tests.test_slicing import Residual, data, network
from tests.test_units import made


class Stream:
    """Batches that can be asked for again and again; counts how often."""

    def __init__(self, x: torch.Tensor, size: int) -> None:
        self.x, self.size, self.passes = x, size, 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.passes += 1
        yield from self.x.split(self.size)


class Numbers(IterableDataset):
    """A data set without a length."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from data(1)


def loader(x: torch.Tensor, **options: object) -> DataLoader:
    """Of a tensor."""
    return DataLoader(TensorDataset(x), **options)


def equal(one: fn.Paths, other: fn.Paths) -> None:
    """The same result in every part."""
    for name in ("path_of", "counts", "first", "signatures"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # of a worker's fork
@pytest.mark.parametrize(
    "give",
    [
        lambda x: DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=7),
        lambda x: DataLoader(TensorDataset(x), batch_size=7, num_workers=1),
        lambda x: Stream(x, 9),
        lambda x: list(x.split(13)),
        lambda x: [(part, "label") for part in x.split(13)],
        lambda x: [x[:0], x[:50], x[50:50], x[50:]],
        lambda x: x.T.contiguous().T,  # column by column in memory, as tables are
        lambda x: torch.cat([x, x], 1)[:, :5],
        lambda x: DataLoader(Numbers(), batch_size=8),
    ],
)
def test_batches_of_any_kind_give_the_paths_of_the_tensor(give) -> None:
    """A DataLoader, an iterable, tuples, empty batches among them."""
    net, x = network(1), data(1)
    equal(fn.activation_paths(net, give(x)), fn.activation_paths(net, x))


@pytest.mark.parametrize("room", [0, 20_000, 1 << 28])
@pytest.mark.parametrize(
    "given", [lambda: (network(2), data(2)), lambda: made("residual")], ids=["linear", "images"]
)
def test_what_is_remembered_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, given, room: int
) -> None:
    """The second pass may find all, some or no activations in memory."""
    net, x = given()
    expected = fn.activation_paths(net, x)
    monkeypatch.setattr(activations, "_REMEMBERED", room)
    equal(fn.activation_paths(net, x, batch_size=7), expected)


def test_few_values_of_many_are_remembered_in_one_piece() -> None:
    """Else they keep the memory around them; many of few stay where they are."""
    values = {-1: torch.rand(3, 2).double(), 0: torch.rand(3, 1, 4).double()}
    memory = activations._Memory(8 * 40)
    kept = [memory.keep(values, 1000) for _ in range(3)]
    assert kept[2] is None  # 18 numbers each
    pieces = {v.untyped_storage().data_ptr() for one in kept[:2] for v in one.values()}
    assert len(pieces) == 1
    for one in kept[:2]:
        assert all(torch.equal(one[index], values[index]) for index in values)
    assert activations._Memory(8 * 40).keep(values, 20) is values


def test_samples_are_read_once_if_the_means_are_known() -> None:
    """An iterator will do then."""
    net, x = network(1), data(1)
    means = fn.mean_activations(net, iter(x.split(7)))
    equal(
        fn.activation_paths(net, iter(x.split(7)), means=means),
        fn.activation_paths(net, x, means=means),
    )


@pytest.mark.parametrize(
    ("give", "code"),
    [
        (lambda x: iter(x.split(7)), "data-once"),
        (lambda x: DataLoader(TensorDataset(x), batch_size=7, shuffle=True), "data-order"),
        (lambda x: loader(x, sampler=WeightedRandomSampler([1.0] * len(x), len(x))), "data-order"),
        (lambda x: loader(x, sampler=SubsetRandomSampler(range(len(x)))), "data-order"),
        (lambda x: loader(x, batch_sampler=BatchSampler(RandomSampler(x), 7, False)), "data-order"),
        (lambda x: x.numpy(), "data-type"),
        (lambda x: pd.DataFrame(x.numpy()), "data-type"),
        (lambda x: torch.where(torch.arange(len(x))[:, None] == 5, torch.nan, x), "data-nonfinite"),
        (lambda x: [], "data-empty"),
        (lambda x: x[:0], "data-empty"),
        (lambda x: [x[:0]], "data-empty"),
        (lambda x: 3, "data-type"),
        (lambda x: [x.numpy()], "data-type"),
        (lambda x: [{"x": x}], "data-type"),
        (lambda x: x[0], "data-shape"),
    ],
)
def test_what_is_no_samples_is_refused(give, code: str) -> None:
    """With a cure."""
    with pytest.raises(DataError) as caught:
        fn.activation_paths(network(1), give(data(1)))
    assert caught.value.code == code


def test_passes_that_differ_are_refused() -> None:
    """The second pass must give the same samples."""

    class Shrinking(Stream):
        def __iter__(self) -> Iterator[torch.Tensor]:
            self.passes += 1
            yield from self.x[: len(self.x) - self.passes].split(self.size)

    with pytest.raises(DataError, match="58 samples, then 57") as caught:
        fn.activation_paths(network(1), Shrinking(data(1), 9))
    assert caught.value.code == "data-once"


def test_passes_in_another_order_are_refused() -> None:
    """Nobody could tell whose the paths are."""

    class Shuffled(Stream):
        def __iter__(self) -> Iterator[torch.Tensor]:
            self.passes += 1
            yield from self.x.roll(self.passes, 0).split(self.size)

    with pytest.raises(DataError, match="same order") as caught:
        fn.activation_paths(network(1), Shuffled(data(1), 9))
    assert caught.value.code == "data-order"


@pytest.mark.parametrize("threads", [1, 2])
def test_many_samples_in_large_batches_are_recognised(threads: int) -> None:
    """What tells a pass from others does not depend on how many threads torch has."""
    x = torch.randn(40_000, 5, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = fn.activation_paths(network(1), [x[:30_000], x[30_000:]], batch_size=20_000)
        whole = fn.activation_paths(network(1), x)
    finally:
        torch.set_num_threads(before)
    equal(found, whole)


@pytest.mark.parametrize("size", [0, -1, 1.5, "a", True])
def test_batch_sizes_that_are_none_are_refused(size: object) -> None:
    """Whole numbers from 1."""
    with pytest.raises(OptionError, match="batch_size"):
        fn.activation_paths(network(1), data(1), batch_size=size)


def test_means_that_are_none_are_refused() -> None:
    """A tensor is not told apart by its layers."""
    with pytest.raises(OptionError, match="this network") as caught:
        fn.activation_paths(network(1), data(1), means=data(1).mean(0))
    assert caught.value.code == "option-means"


def test_a_late_nan_names_the_input() -> None:
    """Beyond the rows that a model is tried on."""
    x = data(1, n=200)
    x[150, 2] = float("nan")
    with pytest.raises(ModelError, match=r"layer 'input'.*Fill or drop"):
        fn.activation_paths(network(1), x)


def test_a_later_batch_of_another_width_is_refused() -> None:
    """Where it comes."""
    x = data(1)
    with pytest.raises(ModelError) as caught:
        fn.activation_paths(network(1), [x, x[:, :4]])
    assert caught.value.code == "model-forward"


def test_values_that_a_later_step_overwrites_are_read_before() -> None:
    """In-place steps change nothing."""

    class InPlace(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 6)
                self.last = nn.Linear(6, 1)
            self.relu = nn.ReLU(inplace=inplace)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.second(self.relu(self.first(x)))
            h = h + self.first(x)
            return self.last(self.relu(h))

    x = data(4)
    equal(fn.activation_paths(InPlace(True), x), fn.activation_paths(InPlace(False), x))


@pytest.mark.parametrize("cuts", [[30], [1, 2, 59], [7, 14, 21, 28]])
def test_paths_of_parts_merge_into_those_of_the_whole(cuts: list[int]) -> None:
    """Means add up, counts and ids follow."""
    with torch.random.fork_rng():
        torch.manual_seed(8)
        net = Residual().eval()
    x = data(8)
    parts = torch.tensor_split(x, cuts)
    means = sum(fn.mean_activations(net, part) for part in parts)
    merged = fn.Paths.merge(fn.activation_paths(net, part, means=means) for part in parts)
    equal(merged, fn.activation_paths(net, x))
    assert means.samples == len(x)


def test_merging_is_refused_for_what_does_not_belong_together() -> None:
    """Other means, other settings, other networks, nothing at all."""
    net, x = network(1), data(1)
    whole = fn.activation_paths(net, x)
    others = [
        fn.activation_paths(net, x[:30]),
        fn.activation_paths(net, x, means=whole.means, gamma=0.8),
        fn.activation_paths(net, x, means=whole.means, contribution="absolute"),
    ]
    for other, name in zip(others, ("means", "gamma", "contribution"), strict=True):
        with pytest.raises(OptionError, match=name) as caught:
            fn.Paths.merge([whole, other])
        assert caught.value.code == "option-merge"
    with pytest.raises(DataError, match="none"):
        fn.Paths.merge([])
    with pytest.raises(OptionError, match="one network"):
        _ = whole.means + fn.mean_activations(network(1, hidden=(9, 8)), x)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        residual = Residual()
    with pytest.raises(OptionError, match="this network"):
        fn.activation_paths(residual, x, means=whole.means)


def test_first_sample_of_a_path_has_that_path() -> None:
    """And none before it."""
    paths = fn.activation_paths(network(1), data(1), gamma=0.3)
    assert len(paths) < 60
    for path, first in enumerate(paths.first):
        assert paths.path_of[first] == path
        assert path not in paths.path_of[:first]


def test_signatures_that_share_a_word_are_told_apart() -> None:
    """The second word of 64 bits counts too."""
    signatures = np.array([[5, 1], [5, 2], [5, 1], [7, 1]])
    paths = count_paths(signatures, fn.Means({}, 4), 0.9, "signed")
    assert len(paths) == 3
    assert paths.counts.tolist() == [2, 1, 1]
    assert paths.path_of[0] == paths.path_of[2] == 0
    assert len({*paths.path_of.tolist()}) == 3
