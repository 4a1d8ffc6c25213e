"""Neurons of paths: counts by cell, and which are over-represented beyond chance."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control, fisher_exact
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fairneuron as fn
from fairneuron.data.dataset import Dataset
from fairneuron.errors import DataError, OptionError
from fairneuron.path_neurons import PathNeurons
from fairneuron.path_views import describe_path, summarise_neurons
from fairneuron.paths import Means
from tests.test_slicing import Residual, data, figure_2, network


def residual() -> nn.Module:
    """A residual network."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Residual().eval()


def zero_means(net: nn.Module, x: torch.Tensor) -> Means:
    """Means of 0, so that activations are their own relative ones."""
    sums = fn.activation_paths(net, x).means.sums
    return Means({index: torch.zeros_like(total) for index, total in sums.items()}, 1)


def made(*counts: list[list[int]], samples: list[int]) -> PathNeurons:
    """Counts of an input and hidden layers, ``(cells, units)`` each."""
    layers = ("input", *(f"layer {i}" for i in range(1, len(counts))))
    cells = tuple(str(i) for i in range(len(samples)))
    return PathNeurons(layers, tuple(map(np.array, counts)), cells, np.array(samples))


def test_figure_2_of_the_paper() -> None:
    """Neuron 2 of the second and neuron 3 of the first hidden layer, and both inputs."""
    net, x = figure_2(), torch.tensor([[3.0, 1.0]])
    found = fn.path_neurons(net, x, [1], gamma=0.8, means=zero_means(net, x))
    assert found.layers == ("input", "0", "1")
    assert [c.tolist() for c in found.counts] == [
        [[0, 0], [1, 1]],
        [[0, 0, 0], [0, 0, 1]],
        [[0, 0, 0], [0, 1, 0]],
    ]
    assert found.samples.tolist() == [0, 1]


def by_synapses(
    net: nn.Module, x: torch.Tensor, cell: np.ndarray, same: dict[str, str], **options: object
) -> dict[str, np.ndarray]:
    """Counts ``(cells, units)`` by layer from the list of all synapses, sample by sample.

    ``same`` tells of a step whose neurons it computes.
    """
    on = set()
    for s in fn.path_synapses(net, x, **options):
        for row, unit, source, predecessor in zip(
            s.sample, s.unit, s.source, s.predecessor, strict=True
        ):
            on |= {(int(row), s.layer, int(unit))}
            on |= {(int(row), same.get(source, source), int(predecessor))}
    counts: dict[str, np.ndarray] = {}
    for row, layer, unit in on:
        counts.setdefault(layer, np.zeros((cell.max() + 1, 32), dtype=int))[cell[row], unit] += 1
    return counts


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], dict[str, str]]] = {
    "stack": (lambda: network(5), ("input", "0", "2"), {"1": "0", "3": "2"}),
    "residual": (
        residual,
        ("x", "zebra", "inner.a", "inner.b"),
        {"truediv": "x", "relu": "zebra", "tanh": "inner.a", "sigmoid": "inner.b"},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("gamma", [0.5, 0.9])
@pytest.mark.parametrize("kernel", ["", "torch"])
def test_counts_are_those_of_the_synapses(
    name: str, gamma: float, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every count is that of a literal walk over ``path_synapses``, by either kernel."""
    monkeypatch.setenv("FAIRNEURON_KERNEL", kernel)
    make, layers, same = NETWORKS[name]
    net, x = make(), data(5)
    cell = np.random.default_rng(0).integers(0, 3, len(x))
    expected, nobody = by_synapses(net, x, cell, same, gamma=gamma), np.zeros((3, 32))
    found = fn.path_neurons(net, x, cell, gamma=gamma)
    assert found.layers == layers
    for layer, counts in zip(found.layers, found.counts, strict=True):
        np.testing.assert_array_equal(counts, expected.get(layer, nobody)[:, : counts.shape[1]])
    np.testing.assert_array_equal(found.samples, np.bincount(cell))


def test_shared_weights_are_the_same_neurons() -> None:
    """A layer that is applied twice counts once, and a sample once where both are on its path."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(2, 2, bias=False), nn.Linear(2, 1)
            with torch.no_grad():
                self.inner.weight.copy_(torch.eye(2))
                self.head.weight.copy_(torch.tensor([[1.0, 0.0]]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.inner(self.inner(x)))

    net, x = Twice(), torch.tensor([[1.0, 0.0]])
    found = fn.path_neurons(net, x, [0], means=zero_means(net, x))
    assert found.layers == ("x", "inner")
    assert [c.tolist() for c in found.counts] == [[[1, 0]], [[1, 0]]]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch_size", [1, 7, 128])
def test_batch_size_and_loaders_do_not_matter(name: str, batch_size: int) -> None:
    """The same counts for every batch size, from a DataLoader too."""
    net, x = NETWORKS[name][0](), data(5)
    cell = np.arange(len(x)) % 4
    one = fn.path_neurons(net, x, cell)
    loader = DataLoader(TensorDataset(x), batch_size=batch_size)
    for other in (
        fn.path_neurons(net, x, cell, batch_size=batch_size),
        fn.path_neurons(net, loader, cell),
    ):
        for a, b in zip(one.counts, other.counts, strict=True):
            np.testing.assert_array_equal(a, b)


def test_p_values_are_fishers_adjusted_over_all_neurons(parts, trained) -> None:
    """Each p is that of scipy's exact test; each adjusted one that of scipy over all neurons."""
    train = parts[0]
    found = fn.path_neurons(trained, train.x, train.y, gamma=0.3)
    n, m = found.samples
    inside, outside = (np.concatenate([c[i] for c in found.counts]) for i in (1, 0))
    p = np.array(
        [
            fisher_exact([[a, m - a], [b, n - b]], alternative="greater").pvalue
            for a, b in zip(inside, outside, strict=True)
        ]
    )
    adjusted = false_discovery_control(p)
    differences = inside / m - outside / n
    listed = found.over_represented(1, top=1000)
    assert len(listed) == ((adjusted <= 0.05) & (differences > 0)).sum() > 2
    start = dict(zip(found.layers, np.cumsum([0, 5, 12]).tolist(), strict=True))
    for use in listed:
        i = start[use.layer] + use.unit
        assert use.is_input == (use.layer == "input")
        assert (use.count, use.n, use.others_count, use.others_n) == (inside[i], m, outside[i], n)
        assert use.p == pytest.approx(p[i], rel=1e-6)
        assert use.p_adjusted == pytest.approx(adjusted[i], rel=1e-6)
        assert use.difference == pytest.approx(differences[i])
        assert use.finding
    assert [u.difference for u in listed] == sorted((u.difference for u in listed), reverse=True)
    assert found.over_represented(1, top=2) == listed[:2]


def test_a_neuron_that_only_one_group_uses_is_found() -> None:
    """Group 1 alone moves the second input, which leads through neuron 1 to the output."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
        net[2].weight.fill_(1.0)
    group = np.arange(60) % 3 == 1
    x = torch.zeros(60, 2)
    x[:, 0] = torch.from_numpy(~group)
    x[:, 1] = torch.from_numpy(group)
    found = fn.path_neurons(net, x, group, means=zero_means(net, x))
    assert found.cells == ("False", "True")
    uses = found.over_represented(True)
    assert [(u.layer, u.unit) for u in uses] == [("input", 1), ("0", 1)]
    for use in uses:
        assert (use.count, use.n, use.others_count, use.others_n) == (20, 20, 0, 40)
        assert (use.share, use.others_share, use.difference, use.ratio) == (1, 0, 1, None)
        assert use.finding


def test_shares_worked_out_by_hand() -> None:
    """30 of 40 against 20 of 80: 75 % by 25 %, 50 points more, 3 times as many."""
    found = made([[20, 40], [30, 20]], [[0], [0]], samples=[80, 40])
    (use,) = found.over_represented(1)
    assert (use.layer, use.unit, use.is_input) == ("input", 0, True)
    assert (use.share, use.others_share, use.difference, use.ratio) == (0.75, 0.25, 0.5, 3)
    values = json.loads(json.dumps(use.to_dict()))
    assert (values["count"], values["others_count"], values["ratio"]) == (30, 20, 3)


def test_cells_can_be_taken_together_and_compared_with_some() -> None:
    """Cells 0 and 1 against 3: counts add up, and cell 2 plays no part."""
    found = made([[10], [20], [7], [0]], samples=[20, 30, 9, 50])
    (use,) = found.over_represented([0, 1], against=3)
    assert (use.count, use.n, use.others_count, use.others_n) == (30, 50, 0, 50)
    (use,) = found.over_represented([0, 1])
    assert (use.others_count, use.others_n) == (7, 59)


def test_tiny_cells_have_counts_and_no_finding() -> None:
    """Of 2 samples nothing is known: the largest differences come, none of them a finding."""
    found = made([[50, 50, 50], [2, 1, 2]], [[90], [0]], samples=[100, 2])
    uses = found.over_represented(1)
    assert [(u.layer, u.unit) for u in uses] == [("input", 0), ("input", 2)]
    assert all((u.count, u.n, u.others_count, u.others_n) == (2, 2, 50, 100) for u in uses)
    assert not any(u.finding for u in uses)


@pytest.mark.parametrize(
    ("samples", "reason"), [([5, 0], "nobody is inside"), ([0, 5], "nobody is outside")]
)
def test_nothing_to_compare(samples: list[int], reason: str) -> None:
    """An empty cell, and one that everybody is in, have a reason and an empty list."""
    found = made([[2 * n // 5] for n in samples], samples=samples)
    assert found.over_represented(1) == []
    assert found.undefined(1) == reason


def test_cells_of_even_use_have_nothing() -> None:
    """Where no share is larger, the list is empty although both sides have samples."""
    found = made([[5], [5]], samples=[10, 10])
    assert (found.over_represented(0), found.undefined(0)) == ([], None)


@pytest.mark.parametrize(
    ("cell", "against"), [(2, None), (-1, None), (0, 0), ([0, 0], None), (0, [1, 2])]
)
def test_cells_that_do_not_exist_are_refused(cell: object, against: object) -> None:
    """Unknown, doubled and overlapping cells."""
    with pytest.raises(OptionError, match="0 to 1") as caught:
        made([[5], [5]], samples=[10, 10]).over_represented(cell, against=against)
    assert caught.value.code == "option-cell"


def test_top_below_1_is_refused() -> None:
    """It must be 1 or more."""
    with pytest.raises(OptionError, match="top"):
        made([[5], [5]], samples=[10, 10]).over_represented(0, top=0)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ([-1] * 60, None),
        ([2] * 60, ["a", "b"]),
        ([0.5] * 60, None),
        ([[0]] * 60, None),
        (["a"] * 60, None),
        ([1 << 40] * 60, None),
    ],
)
def test_what_is_no_cell_is_refused(by: list[object], names: list[str] | None) -> None:
    """Cells are integers from 0, and each has a name if any has."""
    with pytest.raises(DataError, match="Cells must be") as caught:
        fn.path_neurons(network(1), data(1), by, names=names)
    assert caught.value.code == "data-cells"


@pytest.mark.parametrize("n", [59, 61])
@pytest.mark.parametrize("batched", [False, True])
def test_another_number_of_cells_is_refused(n: int, batched: bool) -> None:
    """With both numbers."""
    x = data(1).split(7) if batched else data(1)
    with pytest.raises(DataError, match=f"{n} for 6") as caught:
        fn.path_neurons(network(1), x, np.zeros(n, dtype=int))
    assert caught.value.code == "data-lengths"


def test_plain_values_have_counts_and_names() -> None:
    """to_dict has the samples of each cell and the counts of each layer, and goes through JSON."""
    found = fn.path_neurons(network(1), data(1), np.arange(60) % 2, names=["a", "b"])
    values = json.loads(json.dumps(found.to_dict()))
    assert values["cells"] == [{"cell": "a", "samples": 30}, {"cell": "b", "samples": 30}]
    for row, layer, counts in zip(values["layers"], found.layers, found.counts, strict=True):
        assert (row["layer"], row["counts"]) == (layer, counts.tolist())


def test_summary_compares_the_cluster_and_every_known_group(parts, trained) -> None:
    """The biased cluster has the counts of its samples; people of no known group play no part."""
    whole = parts[0]
    groups = np.array(["A", "B"], dtype=object)[whole.group]
    groups[:40] = None
    with pytest.warns(fn.FairNeuronWarning, match="data-group-missing"):
        train = Dataset.from_arrays(whole.x, whole.y, groups)
    paths = fn.activation_paths(trained, train.x, gamma=0.3)
    rare = fn.rare_paths(paths, 0.1)
    cluster, *sides = summarise_neurons(trained, train, paths, 0.1, top=1000)
    a, b, unknown = (int((groups == name).sum()) for name in ("A", "B", None))
    assert (cluster["n"], cluster["others_n"]) == (rare.sum(), (~rare).sum())
    assert [(s["inside"], s["n"], s["others_n"]) for s in sides] == [("A", a, b), ("B", b, a)]
    assert unknown == 40
    alone = fn.path_neurons(trained, train.x, rare, gamma=0.3, means=paths.means)
    uses = [use.to_dict() for use in alone.over_represented(1, top=1000, tested=False)]
    assert {use["p"] for use in uses} == {None}
    assert not any(use["finding"] for use in uses)
    named = [{k: v for k, v in use.items() if k != "feature"} for use in cluster["neurons"]]
    assert uses == named
    names = {use["feature"] for side in (cluster, *sides) for use in side["neurons"]}
    assert names - {None} <= set(train.feature_names)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_path_is_described_by_its_synapses(name: str) -> None:
    """The synapses of a path's first sample, from the neurons' own layers, inputs by name."""
    make, (first, *_), same = NETWORKS[name]
    net, x = make(), data(5)
    samples = Dataset.from_arrays(x, np.arange(60) % 2, np.arange(60) % 2)
    paths = fn.activation_paths(net, x)
    for path in (0, len(paths) - 1):
        expected = {
            (s.layer, unit, same.get(source, source), predecessor)
            for s in fn.path_synapses(net, x[paths.first[[path]]], means=paths.means)
            for unit, source, predecessor in zip(
                s.unit.tolist(), s.source, s.predecessor.tolist(), strict=True
            )
        }
        found = describe_path(net, samples, paths, path)
        listed = [
            (neuron["layer"], neuron["unit"], source["layer"], unit)
            for neuron in found["neurons"]
            for source in neuron["predecessors"]
            for unit in source["units"]
        ]
        assert set(listed) == expected
        assert len(listed) == found["synapses"] == len(expected)
        assert found["samples"] == paths.counts[path]
        for source in (s for neuron in found["neurons"] for s in neuron["predecessors"]):
            assert ("features" in source) == (source["layer"] == first)
            names = [f"x{unit}" for unit in source["units"]]
            assert source.get("features", names) == names


@pytest.mark.parametrize("path", [-1, 10_000])
def test_a_path_that_is_not_there_is_refused(parts, trained, path: int) -> None:
    """With the ids that there are."""
    paths = fn.activation_paths(trained, parts[0].x, gamma=0.3)
    with pytest.raises(OptionError, match=rf"\[0, {len(paths) - 1}\]; got {path}") as caught:
        describe_path(trained, parts[0], paths, path)
    assert caught.value.code == "option-path"
