"""On a GPU: the torch twin of the kernel finds the paths that the CPU finds."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.kernel import _on_grid, keep_prefix
from tests.test_slicing import Residual, data, network
from tests.test_units import NETWORKS, Recurrent, made

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def residual() -> nn.Module:
    """A random residual network."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Residual().eval()


@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("contribution", ["signed", "absolute"])
@pytest.mark.parametrize("make", [lambda: network(1), lambda: network(2, outputs=3), residual])
def test_paths_are_those_of_the_cpu(make, contribution: str, gamma: float) -> None:
    """Signatures to the bit."""
    options = {"gamma": gamma, "contribution": contribution}
    net, x = make(), data(1, n=500)
    here = fn.activation_paths(net, x, **options)
    for batch_size in (7, 128, None):
        there = fn.activation_paths(copy.deepcopy(net).cuda(), x, batch_size=batch_size, **options)
        np.testing.assert_array_equal(there.signatures, here.signatures)
        np.testing.assert_array_equal(there.path_of, here.path_of)


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_are_sliced_as_on_the_cpu(name: str) -> None:
    """Convolutions, attention and the like, at both levels, and how many paths are similar.

    Sums of convolutions may differ in their last bits, which a path seldom shows.
    """
    net, x = made(name)
    for level in ("synapses", "units"):
        here = fn.activation_paths(net, x, level=level, similarity=0.9)
        there = fn.activation_paths(copy.deepcopy(net).cuda(), x, level=level, similarity=0.9)
        same = (here.signatures[here.path_of] == there.signatures[there.path_of]).all(1)
        assert same.mean() > 0.9
        assert (here.sketches == there.sketches).mean() > 0.9


def test_activation_times_gradient_runs_there() -> None:
    """A recurrent network, whose library has no gradient in eval mode."""
    net, x = Recurrent(), data(5)
    here = fn.activation_paths(net, x, contribution="gradient")
    there = fn.activation_paths(copy.deepcopy(net).cuda(), x, contribution="gradient")
    same = (here.signatures[here.path_of] == there.signatures[there.path_of]).all(1)
    assert same.mean() > 0.9


def test_wide_prefixes_are_those_of_the_cpu() -> None:
    """Sums on the grid are exact, so a parallel scan gives what a sequential one gives."""
    c = torch.randn(500, 700, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    c[:, ::7] = c[:, 1:2]  # ties
    assert torch.equal(_on_grid(c.cuda()).cpu(), _on_grid(c))
    assert torch.equal(_on_grid(c.cuda()).cumsum(1).cpu(), _on_grid(c).cumsum(1))
    for gamma in (0.3, 0.9, 1.0):
        assert torch.equal(keep_prefix(c.cuda(), gamma).cpu(), keep_prefix(c, gamma))


def test_neurons_and_synapses_are_those_of_the_cpu() -> None:
    """Counts by cell, and the synapses of a path."""
    net, x = network(4), data(4)
    by = torch.arange(len(x)).remainder(3).numpy()
    here, there = (fn.path_neurons(m, x, by) for m in (net, copy.deepcopy(net).cuda()))
    for one, other in zip(here.counts, there.counts, strict=True):
        np.testing.assert_array_equal(one, other)
    one, other = (fn.path_synapses(m, x) for m in (net, copy.deepcopy(net).cuda()))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.predecessor, b.predecessor)
        np.testing.assert_array_equal(a.sample, b.sample)


def test_a_repair_runs_on_the_gpu(parts) -> None:
    """Both recipes, from a network that is there."""
    train, valid, _ = parts
    net = fn.train_classifier(train, valid, hidden=(8, 8), schedule=fn.Schedule(epochs=3)).cuda()
    for recipe in ("paper", "conflict"):
        result = fn.repair(net, train, valid, recipe=recipe, epochs=2, seed=0)
        assert next(result.model.parameters()).is_cuda
