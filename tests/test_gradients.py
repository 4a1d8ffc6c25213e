"""Activation × gradient: paths of units through networks of any layers."""

import numpy as np
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.errors import ModelError, OptionError
from fairneuron.gradients import GradientSlicer
from fairneuron.paths import Means
from tests.test_slicing import data, network
from tests.test_tracing import Branch
from tests.test_units import Gate, Recurrent, image, made


class Hidden(nn.Module):
    """Its forward depends on values, behind a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.end = nn.Linear(5, 4), Branch()
        self.end.a = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.body(x).relu())


class Reader(nn.Module):
    """Reads words, step after step."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(9, 3), nn.LSTM(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.table(x.long()).transpose(0, 1))[0][-1])


def seeded(make: type[nn.Module]) -> nn.Module:
    """The same network each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def test_without_means_and_biases_each_layer_explains_the_whole_logit() -> None:
    """Rectifiers are homogeneous, so attributions of a layer's units sum to f (Euler)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(36, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False),
        )  # fmt: skip
    x = image(2, 6, 6)
    slicer = GradientSlicer(net, x, 0.9)
    shapes = [torch.zeros(2, 6, 6), torch.zeros(4, 6, 6), torch.zeros(5)]
    slicer.relative_to(Means({i: s.double() for i, s in enumerate(shapes)}, 1))
    expected = net.double()(x.double()).amax(1).detach()
    for found in slicer.attributions(x):
        torch.testing.assert_close(found.sum(1), expected)
    assert [name for name, _ in slicer.layers] == ["input", "0", "4"]
    assert [p.stop - p.start for _, (p,) in slicer.layers] == [2, 4, 5]


def test_attributions_are_relative_values_times_the_gradient() -> None:
    """Of a recurrent layer, summed over steps; by a second derivation."""
    net, x = seeded(Recurrent).double(), image(5).double()
    slicer = GradientSlicer(net, x, 0.9)
    means = fn.mean_activations(net, x, contribution="gradient")
    slicer.relative_to(means)
    by_layer = dict(zip((name for name, _ in slicer.layers), slicer.attributions(x), strict=True))
    steps = net.gru(x[:, None])[0].detach().requires_grad_()
    out = net.c(net.a(steps[:, -1]).relu())[:, 0]
    (slope,) = torch.autograd.grad(out.sum(), steps)
    expected = ((steps - steps.mean(0)) * slope).sum(1).detach()
    torch.testing.assert_close(by_layer["gru"], expected)


@pytest.mark.parametrize("make", [Gate, Recurrent, Hidden, Reader])
def test_any_network_that_runs_has_paths(make: type[nn.Module]) -> None:
    """Gates, recurrence, branches; the same paths in batches of any size, and in parts."""
    net = seeded(make)
    x = torch.randint(0, 9, (40, 6)).float() if make is Reader else image(5, n=40)
    paths = fn.activation_paths(net, x, contribution="gradient")
    assert 1 < len(paths) <= 40
    assert (paths.level, paths.contribution) == ("units", "gradient")
    for size in (1, 7):
        found = fn.activation_paths(net, x, contribution="gradient", batch_size=size)
        np.testing.assert_array_equal(found.signatures, paths.signatures)
    means = fn.mean_activations(net, x, contribution="gradient")
    parts = [
        fn.activation_paths(net, part, contribution="gradient", means=means) for part in x.split(15)
    ]
    merged = fn.Paths.merge(parts)
    np.testing.assert_array_equal(merged.path_of, paths.path_of)
    assert fn.rare_paths(merged).shape == (40,)


def test_neurons_on_these_paths_are_counted() -> None:
    """By module; every sample's path has a unit of each layer."""
    net, x = seeded(Recurrent), image(5, n=30)
    found = fn.path_neurons(net, x, np.arange(30) % 2, contribution="gradient")
    assert found.layers == ("input", "gru", "a")
    assert all((counts.sum(1) >= 15).all() for counts in found.counts)


def test_units_of_a_path_are_those_of_its_synapses() -> None:
    """At the level of units more samples share a path, and those that shared one still do."""
    net, x = network(3), data(3, n=300)
    fine = fn.activation_paths(net, x, gamma=0.7)
    coarse = fn.activation_paths(net, x, gamma=0.7, level="units")
    assert len(coarse) <= len(fine)
    of_fine = {p: coarse.path_of[fine.first[p]] for p in range(len(fine))}
    assert [of_fine[p] for p in fine.path_of] == coarse.path_of.tolist()
    assert coarse.level == "units"


def test_a_model_of_one_layer_has_no_units() -> None:
    """Nothing lies between the input and the logits."""
    with pytest.raises(ModelError) as caught:
        fn.activation_paths(nn.Linear(5, 1), image(5), contribution="gradient")
    assert caught.value.code == "model-no-hidden"


def test_synapses_are_of_exact_rules_alone() -> None:
    """Asking for those of a gradient is refused; so are unknown levels."""
    net, x = network(0), data(0)
    with pytest.raises(OptionError, match="contribution"):
        fn.path_synapses(net, x, contribution="gradient")
    with pytest.raises(OptionError, match="level"):
        fn.activation_paths(net, x, level="unit")


def test_large_networks_with_exact_rules_have_unit_paths_too() -> None:
    """A residual network, by its channels."""
    net, x = made("residual")
    assert fn.activation_paths(net, x, level="units").level == "units"
