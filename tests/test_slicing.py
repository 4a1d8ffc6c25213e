"""Slicing: the paper's worked example, the literal oracle, and what must not change a path."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import fairneuron as fn
from fairneuron.batches import Batches
from fairneuron.errors import ModelError, OptionError
from fairneuron.kernel import keep_prefix
from fairneuron.models import mlp
from fairneuron.paths import Means
from fairneuron.progress import quiet
from fairneuron.recording import Recorder
from fairneuron.slicing import Slicer
from tests.oracles import literal_paths, same_partition


def figure_2() -> nn.Sequential:
    """The network of the paper's Figure 2."""
    net = nn.Sequential(
        nn.Linear(2, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False)
    )
    weights = [
        [[2.0, -1.0], [1.0, -2.0], [1.0, 3.0]],
        [[1.0, 2.0, -1.0], [-1.0, -1.0, 2.0], [-1.0, 1.0, 1.0]],
        [[2.0, 1.0, -4.0], [3.0, 2.0, -3.0]],
    ]
    with torch.no_grad():
        for layer, weight in zip(net, weights, strict=True):
            layer.weight.copy_(torch.tensor(weight))
    return net


def network(
    seed: int, *, hidden: tuple[int, ...] = (9, 7), outputs: int = 1, inputs: int = 5
) -> nn.Sequential:
    """A random ReLU network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return mlp(inputs, hidden, outputs=outputs)


def data(seed: int, n: int = 60, inputs: int = 5) -> torch.Tensor:
    """Random samples; a column of zeros and ones makes ties and repeated paths."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, inputs)).round(1)
    x[:, -1] = rng.integers(0, 2, n)
    return torch.from_numpy(x.astype(np.float32))


def complete(net: nn.Module, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each layer with a rule: sums of contributions, and the values that they must be.

    ``(n, units)`` each; a unit's value is the sum over its positions, less the mean of that.
    """
    slicer = Slicer(net, x, 0.9, "signed")
    (read,) = slicer.activations.of(Batches(x, len(x)))
    slicer.relative_to(slicer.activations.means(Batches(x, 16), quiet, remember=False))
    values: dict[int, torch.Tensor] = {}

    def see(index: int, value: torch.Tensor) -> None:
        values[index] = value.clone()  # a later step may overwrite it

    with torch.no_grad():
        Recorder(slicer.graph, see, slicer.activations._module).run(x.double())
    pairs = []
    for index, rule in slicer.units.rules.items():
        relative = (read[index] - slicer._means[index]).float()
        sample, unit = torch.ones(len(x), rule.units).nonzero(as_tuple=True)
        c = rule.contributions(slicer._weights[index], relative, sample, unit)
        own = slicer.units.of[index].reshape(-1) - slicer.units.first[index]
        value = values[index].reshape(len(x), -1)
        total = torch.zeros(len(x), rule.units).double().index_add_(1, own, value)
        pairs.append((c.sum(1).reshape(len(x), -1), total - total.mean(0)))
    return pairs


def synapse_sets(model: nn.Module, x: torch.Tensor, **options: object) -> list[frozenset]:
    """The synapses of each sample, as sets of (layer, neuron, predecessor's layer, predecessor)."""
    sets: list[set] = [set() for _ in x]
    for s in fn.path_synapses(model, x, **options):
        for sample, unit, source, predecessor in zip(
            s.sample, s.unit, s.source, s.predecessor, strict=True
        ):
            sets[sample].add((s.layer, int(unit), source, int(predecessor)))
    return [frozenset(s) for s in sets]


@pytest.mark.parametrize("contribution", ["signed", "absolute"])
def test_figure_2_of_the_paper(contribution: str) -> None:
    """x = (3, 1), gamma 0.8: output 2 ← neuron 2 ← neuron 3 ← both inputs."""
    net, x = figure_2(), torch.tensor([[3.0, 1.0]])
    sums = fn.activation_paths(net, x).means.sums
    means = Means({index: torch.zeros_like(total) for index, total in sums.items()}, 1)
    (path,) = synapse_sets(net, x, gamma=0.8, contribution=contribution, means=means)
    assert path == {("2", 1, "1", 1), ("1", 1, "0", 2), ("0", 2, "input", 0), ("0", 2, "input", 1)}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    gamma=st.sampled_from([0.5, 0.8, 0.9, 1.0]),
    outputs=st.sampled_from([1, 2, 3]),
    contribution=st.sampled_from(["signed", "absolute"]),
)
def test_same_synapses_and_partition_as_the_literal_algorithm(
    seed: int, gamma: float, outputs: int, contribution: str
) -> None:
    """Random networks: every synapse, and so every path, is that of the sample-by-sample oracle."""
    net, x = network(seed, outputs=outputs), data(seed)
    expected = literal_paths(net, x.numpy(), gamma, absolute=contribution == "absolute")
    names = {0: ("0", "input"), 1: ("2", "0"), 2: ("4", "2")}
    named = [frozenset((names[k][0], q, names[k][1], i) for k, q, i in path) for path in expected]
    assert synapse_sets(net, x, gamma=gamma, contribution=contribution) == named
    paths = fn.activation_paths(net, x, gamma=gamma, contribution=contribution)
    assert same_partition(expected, paths.path_of.tolist())


def test_trained_network_as_the_literal_algorithm(parts, trained) -> None:
    """A trained network too."""
    x = parts[0].x[:150]
    paths = fn.activation_paths(trained, x, gamma=0.3)
    assert same_partition(literal_paths(trained, x.numpy(), 0.3), paths.path_of.tolist())
    assert 1 < len(paths) < 150


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.randoms(use_true_random=False))
def test_order_of_the_samples_does_not_matter(seed: int, order: object) -> None:
    """Ids follow the samples when they are shuffled."""
    net, x = network(seed), data(seed)
    permutation = list(range(len(x)))
    order.shuffle(permutation)
    one, other = fn.activation_paths(net, x), fn.activation_paths(net, x[permutation])
    np.testing.assert_array_equal(one.path_of[permutation], other.path_of)
    np.testing.assert_array_equal(one.counts, other.counts)


@pytest.mark.parametrize("batch_size", [1, 7, 128, 4096])
def test_batch_size_does_not_matter(parts, trained, batch_size: int) -> None:
    """Ids, counts and signatures are the same for every batch size."""
    one = fn.activation_paths(trained, parts[0].x, gamma=0.3)
    other = fn.activation_paths(trained, parts[0].x, gamma=0.3, batch_size=batch_size)
    np.testing.assert_array_equal(one.signatures, other.signatures)
    np.testing.assert_array_equal(one.path_of, other.path_of)


@pytest.mark.parametrize("work", [1, 1 << 19])
def test_number_of_threads_does_not_matter(
    parts, trained, monkeypatch: pytest.MonkeyPatch, work: int
) -> None:
    """One thread, two and three give the same ids, also where a thread gets little to do."""
    monkeypatch.setattr("fairneuron.kernel._WORK", work)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(fn.activation_paths(trained, parts[0].x, gamma=0.3))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].path_of, other.path_of)
        np.testing.assert_array_equal(found[0].signatures, other.signatures)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), gammas=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)))
def test_larger_gamma_never_removes_a_synapse(seed: int, gammas: tuple[float, float]) -> None:
    """Paths grow with gamma."""
    net, x = network(seed), data(seed, n=20)
    small, large = (synapse_sets(net, x, gamma=g) for g in sorted(gammas))
    assert all(a <= b for a, b in zip(small, large, strict=True))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_contributions_are_complete(seed: int) -> None:
    """They sum to the neuron's pre-activation minus its mean.

    In every layer, for stacks and residual additions.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Residual()
    x = data(seed)
    for found, expected in complete(net, x):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("c", "gamma", "kept"),
    [
        ([4.0, 3.0, 2.0, 1.0], 0.4, [1, 1, 0, 0]),  # 4 does not exceed 4
        ([4.0, 3.0, 2.0, 1.0], 0.39, [1, 0, 0, 0]),
        ([4.0, 3.0, 2.0, 1.0], 0.41, [1, 1, 0, 0]),
        ([4.0, 3.0, 2.0, 1.0], 1.0, [1, 1, 1, 1]),
        ([1.0, 3.0, -2.0], 1.0, [0, 1, 0]),  # 3 exceeds 2
        (
            [-1.0, -3.0, 2.0],
            0.9,
            [0, 1, 0],
        ),  # a negative value is explained by negative contributions
        ([1.0, 1.0, 1.0, 1.0], 0.6, [1, 1, 1, 0]),  # ties: lower index first
        ([1.0, -1.0], 0.5, [1, 0]),  # value 0 counts as positive
        ([-1.0, 1.0], 0.5, [0, 1]),
        ([0.0, 0.0, 0.0], 0.9, [1, 0, 0]),  # dead: keeps one
        ([5.0, -4.0, -0.5, 0.0], 1.0, [1, 0, 0, 0]),
        ([2.0, 2.0, 0.0, 0.0], 1.0, [1, 1, 0, 0]),  # never one that is not positive
    ],
)
def test_prefixes_worked_out_by_hand(c: list[float], gamma: float, kept: list[int]) -> None:
    """The shortest sorted prefix whose sum exceeds gamma · |v|."""
    assert keep_prefix(torch.tensor([c], dtype=torch.float64), gamma).int().tolist() == [kept]


def test_absolute_contributions_keep_opposing_synapses() -> None:
    """Compared by absolute values, -4 comes before 3."""
    c = torch.tensor([[3.0, -4.0, 2.0]], dtype=torch.float64)  # v = 1
    assert keep_prefix(c, 1.0, absolute=True).int().tolist() == [[0, 1, 0]]


class Residual(nn.Module):
    """A residual network with odd names, functional activations and a scaled input."""

    def __init__(self) -> None:
        super().__init__()
        self.zebra = nn.Linear(5, 6)
        self.inner = nn.ModuleDict({"a": nn.Linear(6, 6), "b": nn.Linear(6, 6)})
        self.norm = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, 1)
        self.register_buffer("shift", torch.linspace(-1, 1, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = functional.relu(self.zebra((x - self.shift) / 2))
        h = h + torch.tanh(self.norm(self.inner["a"](h)))
        h = h - self.inner["b"](h).sigmoid()
        return self.last(h).squeeze(-1)


class Plain(nn.Module):
    """A stack written with functions and its own names."""

    def __init__(self, stack: nn.Sequential) -> None:
        super().__init__()
        self.first, self.second, self.third = (copy.deepcopy(stack[i]) for i in (0, 2, 4))
        self.rest = nn.Dropout(0.5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out = self.rest(functional.relu(self.first(inputs)))
        out = functional.dropout(self.second(out).relu(), 0.3, self.training)
        return functional.linear(out, self.third.weight, self.third.bias).flatten()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_writing_the_network_in_another_way_changes_nothing(seed: int) -> None:
    """Functional activations.

    Dropout (functional too) and other names: the same partition, in training mode too.
    """
    net, x = network(seed), data(seed)
    expected = fn.activation_paths(net, x).path_of.tolist()
    assert same_partition(fn.activation_paths(Plain(net), x).path_of.tolist(), expected)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_batch_norm_is_folded(seed: int) -> None:
    """Batch norm in eval mode gives the partition of the linear layer that it folds into."""
    rng = torch.Generator().manual_seed(seed)
    net, x = network(seed), data(seed)
    norm = nn.BatchNorm1d(9).eval()
    with torch.no_grad():
        norm.weight.copy_(torch.randn(9, generator=rng))
        norm.bias.copy_(torch.randn(9, generator=rng))
        norm.running_mean.copy_(torch.randn(9, generator=rng))
        norm.running_var.copy_(torch.rand(9, generator=rng) + 0.5)
        folded = copy.deepcopy(net)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        folded[0].weight.mul_(scale[:, None])
        folded[0].bias.copy_((net[0].bias - norm.running_mean) * scale + norm.bias)
    normed = nn.Sequential(net[0], norm, *net[1:])
    expected = fn.activation_paths(folded, x).path_of.tolist()
    assert same_partition(fn.activation_paths(normed, x).path_of.tolist(), expected)


def test_residual_paths_lead_through_branch_and_shortcut() -> None:
    """Both operands of an addition are predecessors, and slicing goes on through both."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Residual().eval()
    paths = synapse_sets(net, data(3), gamma=1.0)
    into_sums = {
        (layer, source)
        for path in paths
        for layer, _, source, _ in path
        if layer in ("add", "sub_1")
    }
    assert len({source for layer, source in into_sums if layer == "add"}) == 2
    assert any(layer == "zebra" for path in paths for layer, *_ in path)
    assert any(layer == "inner.a" for path in paths for layer, *_ in path)


def test_other_data_are_sliced_relative_to_the_given_means(parts, trained) -> None:
    """With the training means a training sample keeps its path, alone as in company."""
    whole = fn.activation_paths(trained, parts[0].x)
    alone = fn.activation_paths(trained, parts[0].x[5:6], means=whole.means)
    np.testing.assert_array_equal(alone.signatures[0], whole.signatures[whole.path_of[5]])


def test_most_frequent_path_comes_first(parts, trained) -> None:
    """Counts fall with the id, add up, and are those of the ids."""
    paths = fn.activation_paths(trained, parts[0].x, gamma=0.3)
    assert paths.counts[0] > paths.counts[-1]
    assert (np.diff(paths.counts) <= 0).all()
    np.testing.assert_array_equal(np.bincount(paths.path_of), paths.counts)
    assert len(paths) == len(np.unique(paths.signatures, axis=0)) == len(paths.counts)


def test_non_finite_activations_name_the_layer(trained, parts) -> None:
    """An overflow is reported where it shows."""
    x = parts[0].x.double()
    x[100] = 1e308
    broken = copy.deepcopy(trained)
    with torch.no_grad():
        broken[0].weight.fill_(4.0)
    with pytest.raises(ModelError, match="layer '0'") as caught:
        fn.activation_paths(broken, x)
    assert caught.value.code == "model-nonfinite"


@pytest.mark.parametrize("gamma", [0, -0.1, 1.01, float("nan"), "0.9", True])
def test_gamma_out_of_range_is_refused(trained, parts, gamma: object) -> None:
    """Gamma lies in (0, 1]."""
    with pytest.raises(OptionError, match="gamma") as caught:
        fn.activation_paths(trained, parts[0].x, gamma=gamma)
    assert caught.value.code == "option-range"


def test_a_width_that_does_not_fit_is_refused(trained, parts) -> None:
    """With both numbers."""
    with pytest.raises(ModelError, match="expects 5 inputs; got data with 4") as caught:
        fn.activation_paths(trained, parts[0].x[:, :4])
    assert caught.value.code == "model-width"


def test_unknown_contribution_is_refused(trained, parts) -> None:
    """Only signed and absolute are known."""
    with pytest.raises(OptionError, match="Did you mean 'signed'"):
        fn.activation_paths(trained, parts[0].x, contribution="sign")


def test_the_model_is_left_as_it_was(trained, parts, weights_before) -> None:
    """Weights, dtype, modes and hooks stay."""
    trained.train()
    try:
        fn.activation_paths(trained, parts[0].x)
        assert all(module.training for module in trained.modules())
    finally:
        trained.eval()
    for name, value in trained.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights_before[name])
