"""On another device: the torch twin of the kernel finds the paths that the CPU finds.

Without a GPU on a pretend one, which shows what would not run.
"""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.kernel import _on_grid, keep_prefix
from fairneuron.paths import Paths
from tests.pretend import DEVICES, device_named
from tests.test_slicing import Residual, data, network
from tests.test_units import NETWORKS, Recurrent, made


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Each of them."""
    with device_named(request.param) as device:
        yield device


def residual() -> nn.Module:
    """A random residual network."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Residual().eval()


def alike(here: Paths, there: Paths, device: torch.device) -> bool:
    """Whether samples have the same paths.

    On a GPU sums of convolutions may differ in their last bits, which a path seldom shows.
    """
    same = (here.signatures[here.path_of] == there.signatures[there.path_of]).all(1)
    return same.mean() > 0.9 if device.type == "cuda" else same.all()


@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("contribution", ["signed", "absolute"])
@pytest.mark.parametrize("make", [lambda: network(1), lambda: network(2, outputs=3), residual])
def test_paths_are_those_of_the_cpu(make, contribution: str, gamma: float, device) -> None:
    """Signatures to the bit."""
    options = {"gamma": gamma, "contribution": contribution}
    net, x = make(), data(1, n=500 if device.type == "cuda" else 30)
    here = fn.activation_paths(net, x, **options)
    for batch_size in (7, 128, None):
        there = fn.activation_paths(net.to(device), x, batch_size=batch_size, **options)
        np.testing.assert_array_equal(there.signatures, here.signatures)
        np.testing.assert_array_equal(there.path_of, here.path_of)


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_are_sliced_as_on_the_cpu(name: str, device) -> None:
    """Convolutions, attention and the like, at both levels, and how many paths are similar."""
    net, x = made(name)
    there = copy.deepcopy(net).to(device)
    assert alike(fn.activation_paths(net, x), fn.activation_paths(there, x), device)
    options = {"level": "units", "similarity": 0.9, "layers": "last"}
    one, other = (fn.activation_paths(m, x, **options) for m in (net, there))
    assert alike(one, other, device)
    assert (one.sketches == other.sketches).mean() > 0.9


@pytest.mark.parametrize("make", [Recurrent, lambda: network(1)])
def test_activation_times_gradient_runs_there(make, device) -> None:
    """A recurrent network too, whose library has no gradient in eval mode."""
    net, x = make(), data(5)
    options = {"contribution": "gradient", "similarity": 0.8}
    here = fn.activation_paths(net, x, **options)
    there = fn.activation_paths(net.to(device), x, **options)
    assert alike(here, there, device)
    assert (here.sketches == there.sketches).mean() > 0.9


@pytest.mark.parametrize("contribution", ["signed", "gradient"])
def test_samples_may_be_there_or_here(contribution: str, device) -> None:
    """Wherever the network is, all at once or in batches, with means of the other device."""
    net, x = network(1), data(2)
    here = fn.activation_paths(net, x, contribution=contribution)
    away, there = copy.deepcopy(net).to(device), x.to(device)
    found = [
        fn.activation_paths(net, there, contribution=contribution),
        fn.activation_paths(away, there, contribution=contribution),
        fn.activation_paths(away, list(there.split(20)), contribution=contribution),
        fn.activation_paths(away, x, contribution=contribution, means=here.means),
    ]
    assert all(alike(here, paths, device) for paths in found)
    means = fn.mean_activations(away, x[:30], contribution=contribution)
    means += fn.mean_activations(net, x[30:], contribution=contribution)
    assert alike(here, fn.activation_paths(net, x, contribution=contribution, means=means), device)


def test_wide_prefixes_are_those_of_the_cpu(device) -> None:
    """Sums on the grid are exact, so a parallel scan gives what a sequential one gives."""
    c = torch.randn(500, 700, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    c[:, ::7] = c[:, 1:2]  # ties
    there = c.to(device)
    assert torch.equal(_on_grid(there).cpu(), _on_grid(c))
    assert torch.equal(_on_grid(there).cumsum(1).cpu(), _on_grid(c).cumsum(1))
    for gamma in (0.3, 0.9, 1.0):
        assert torch.equal(keep_prefix(there, gamma).cpu(), keep_prefix(c, gamma))


def test_neurons_and_synapses_are_those_of_the_cpu(device) -> None:
    """Counts by cell, and the synapses of a path."""
    net, x = network(4), data(4)
    by = torch.arange(len(x)).remainder(3).numpy()
    nets = (net, copy.deepcopy(net).to(device))
    for contribution in ("signed", "gradient"):
        here, there = (fn.path_neurons(m, x, by, contribution=contribution) for m in nets)
        for one, other in zip(here.counts, there.counts, strict=True):
            np.testing.assert_array_equal(one, other)
    one, other = (fn.path_synapses(m, x) for m in nets)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.predecessor, b.predecessor)
        np.testing.assert_array_equal(a.sample, b.sample)
