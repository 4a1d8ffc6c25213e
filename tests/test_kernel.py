"""The compiled kernel against its torch twin, and both against exact arithmetic."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fairneuron as fn
from fairneuron import kernel
from fairneuron.errors import FairNeuronWarning, ModelError
from fairneuron.kernel import Wiring, keep_prefix
from fairneuron.models import mlp
from tests.test_slicing import Residual, data, network

SETS = [] if kernel.extension() is None else kernel.extension().instruction_sets()
needs_kernel = pytest.mark.skipif(not SETS, reason="installed without a C++ compiler")


def rows(seed: int, units: int, fan_in: int, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and activations of the kind that is asked for.

    ``(units, taps, fan_in)`` and ``(7, taps, fan_in)``, with one to three taps.
    """
    rng = np.random.default_rng(seed)
    taps = 1 + seed % 3
    weight, value = rng.normal(size=(units, taps, fan_in)), rng.normal(size=(7, taps, fan_in))
    if kind == "ties":  # few different values, zeros among them
        weight, value = rng.integers(-2, 3, weight.shape), rng.integers(-1, 2, value.shape)
    elif kind == "dead":
        value[..., rng.random(fan_in) < 0.8] = 0
        weight[0] = 0
    elif kind == "skewed":  # from 1e-30 to 1e30
        weight *= 10.0 ** rng.integers(-15, 16, weight.shape)
        value *= 10.0 ** rng.integers(-15, 16, value.shape)
    elif kind == "positive":
        weight, value = np.abs(weight), np.abs(value)
    return torch.tensor(weight, dtype=torch.float64), torch.tensor(value, dtype=torch.float64)


def kept_by_torch(
    weight: torch.Tensor, value: torch.Tensor, mean: torch.Tensor, gamma: float, absolute: bool
) -> torch.Tensor:
    """``(samples, units, fan_in)`` bool."""
    r = (value - mean).float().double()
    c = weight.double()[None, :, 0] * r[:, None, 0]  # (samples, units, fan_in)
    for tap in range(1, weight.shape[1]):
        c += weight.double()[None, :, tap] * r[:, None, tap]
    kept = keep_prefix(c.reshape(-1, c.shape[2]), gamma, absolute=absolute)
    return kept.reshape(c.shape)


@needs_kernel
@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(
        st.integers(1, 20), st.one_of(st.integers(1, 40), st.sampled_from([64, 105, 128, 200]))
    ),
    gamma=st.one_of(st.sampled_from([0.5, 0.9, 1.0]), st.floats(1e-6, 1)),
    kind=st.sampled_from(["normal", "ties", "dead", "skewed", "positive"]),
    flags=st.tuples(st.booleans(), st.booleans(), st.sampled_from(range(len(SETS) or 1))),
)
def test_kernel_keeps_what_its_twin_keeps(
    seed: int, shape: tuple[int, int], gamma: float, kind: str, flags: tuple[bool, bool, int]
) -> None:
    """The same synapses, so the same signature and active predecessors, on every machine."""
    (units, fan_in), (absolute, single, isa) = shape, flags
    weight, value = rows(seed, units, fan_in, kind)
    weight = weight.float() if single else weight
    active = torch.rand(len(value), units, generator=torch.Generator().manual_seed(seed)) < 0.5
    mean = value.mean(0) if kind == "normal" else torch.zeros_like(value[0])
    wiring = Wiring(weight, units, fan_in, 3, torch.device("cpu"))
    source = torch.zeros(len(value), fan_in, dtype=torch.bool)
    signature = torch.zeros(len(value), 2, dtype=torch.int64)
    finite = wiring.fold(
        value, mean, active, source, signature, gamma=gamma, absolute=absolute, isa=isa
    )
    kept = kept_by_torch(weight, value, mean, gamma, absolute) & active[:, :, None]
    sample, unit, synapse = kept.nonzero(as_tuple=True)
    expected = torch.zeros_like(signature).index_add_(0, sample, wiring.keys(unit, synapse))
    assert finite
    assert torch.equal(source, kept.any(1))
    assert torch.equal(signature, expected)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    fan_in=st.integers(1, 40),
    kind=st.sampled_from(["normal", "ties", "dead", "skewed", "positive"]),
)
def test_sums_on_the_grid_are_exact(seed: int, fan_in: int, kind: str) -> None:
    """Every sum of rounded contributions is a float64, so its order cannot matter."""
    weight, value = rows(seed, 5, fan_in, kind)
    c = weight[:, 0] * value[:5, 0]
    rounded = kernel._on_grid(c)
    bound = c.abs().amax(1, keepdim=True) * 2.0**-51 * max(fan_in, 4)
    assert ((rounded - c).abs() <= bound).all()
    for row in rounded.tolist():
        total = Fraction(0)
        for x in row:  # and so is that of the magnitudes, which bounds every other
            total += abs(Fraction(x))
            assert Fraction(float(total)) == total
        assert Fraction(float(sum(map(Fraction, row)))) == sum(map(Fraction, row))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    fan_in=st.integers(1, 30),
    gamma=st.sampled_from([0.3, 0.5, 0.9, 1.0]),
    kind=st.sampled_from(["normal", "ties", "dead", "positive"]),
    absolute=st.booleans(),
)
def test_prefixes_are_those_of_exact_arithmetic(
    seed: int, fan_in: int, gamma: float, kind: str, absolute: bool
) -> None:
    """Algorithm 1 with fractions, contribution by contribution."""
    weight, value = rows(seed, 6, fan_in, kind)
    c = weight[:, 0].float().double() * value[:6, 0].float().double()
    for row, kept in zip(c.tolist(), keep_prefix(c, gamma, absolute=absolute), strict=True):
        exact = [Fraction(x) for x in row]
        total = sum(exact)
        oriented = [abs(x) if absolute else (-x if total < 0 else x) for x in exact]
        order = sorted(range(fan_in), key=lambda i: (-oriented[i], i))
        expected, ahead = {order[0]}, oriented[order[0]]
        for i in order[1:]:
            if ahead > Fraction(gamma * float(abs(total))) or oriented[i] <= 0:
                break
            expected.add(i)
            ahead += oriented[i]
        assert set(kept.nonzero()[:, 0].tolist()) == expected


@needs_kernel
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    gamma=st.sampled_from([0.5, 0.9, 1.0]),
    contribution=st.sampled_from(["signed", "absolute"]),
    outputs=st.sampled_from([1, 3]),
    residual=st.booleans(),
)
def test_paths_are_the_same_without_the_kernel(
    seed: int, gamma: float, contribution: str, outputs: int, residual: bool
) -> None:
    """Signatures and ids to the bit, for stacks and residual networks."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Residual().eval() if residual else network(seed, outputs=outputs)
    x, options = data(seed), {"gamma": gamma, "contribution": contribution}
    with pytest.MonkeyPatch.context() as patch:
        by_kernel = fn.activation_paths(net, x, **options)
        patch.setenv("FAIRNEURON_KERNEL", "torch")
        by_torch = fn.activation_paths(net, x, **options)
    np.testing.assert_array_equal(by_kernel.signatures, by_torch.signatures)
    np.testing.assert_array_equal(by_kernel.path_of, by_torch.path_of)


@needs_kernel
def test_networks_in_float64_and_16_bits_have_a_kernel_too() -> None:
    """Their weights are read as they are."""
    x = data(5)
    for cast in (nn.Module.double, nn.Module.half, nn.Module.bfloat16):
        net = cast(copy.deepcopy(network(5)))
        with pytest.MonkeyPatch.context() as patch:
            by_kernel = fn.activation_paths(net, x)
            patch.setenv("FAIRNEURON_KERNEL", "torch")
            by_torch = fn.activation_paths(net, x)
        np.testing.assert_array_equal(by_kernel.signatures, by_torch.signatures)


@pytest.mark.parametrize("choice", [pytest.param("compiled", marks=needs_kernel), "torch"])
def test_contributions_that_overflow_name_the_layer(
    monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    """Finite activations, but a relative one beyond float32."""
    monkeypatch.setenv("FAIRNEURON_KERNEL", choice)
    net = mlp(3, (4,))
    with torch.no_grad():
        net[0].weight.fill_(1e-38)
    x = torch.zeros(8, 3, dtype=torch.float64)
    x[0] = 1e39
    with pytest.raises(ModelError, match="layer '0'") as caught:
        fn.activation_paths(net.double(), x)
    assert caught.value.code == "model-nonfinite"


def folded(weight: torch.Tensor, gamma: float, isa: int) -> torch.Tensor:
    """Which synapses of one neuron the kernel keeps for a sample of ones, ``(fan_in,)`` bool."""
    fan_in = weight.shape[1]
    wiring = Wiring(weight[:, None], 1, fan_in, 0, torch.device("cpu"))
    source = torch.zeros(1, fan_in, dtype=torch.bool)
    signature = torch.zeros(1, 2, dtype=torch.int64)
    ones = torch.ones(1, 1, fan_in, dtype=torch.float64)
    nothing, active = (
        torch.zeros(1, fan_in, dtype=torch.float64),
        torch.ones(1, 1, dtype=torch.bool),
    )
    wiring.fold(ones, nothing, active, source, signature, gamma=gamma, absolute=False, isa=isa)
    kept = source[0].nonzero()[:, 0]
    assert torch.equal(signature[0], wiring.keys(torch.zeros_like(kept), kept).sum(0))
    return source[0]


@needs_kernel
@pytest.mark.parametrize("isa", range(len(SETS)))
@pytest.mark.parametrize("n", [107, 161, 197, 389])
def test_sums_are_exact_where_rounding_carries_upwards(n: int, isa: int) -> None:
    """1 / n is rounded up: n of them exceed the power of two above n - 1 of them."""
    weight = torch.full((1, n), 1 / n, dtype=torch.float64)
    expected = keep_prefix(weight, (n - 1) / n)[0]
    assert torch.equal(folded(weight, (n - 1) / n, isa), expected)
    exact = Fraction(float(kernel._on_grid(weight)[0, 0]))
    threshold = Fraction((n - 1) / n * float(n * exact))
    assert int(expected.sum()) == next(k for k in range(1, n + 1) if k * exact > threshold)


@needs_kernel
@pytest.mark.parametrize("isa", range(len(SETS)))
def test_denormal_contributions_and_zeros(isa: int) -> None:
    """Zeros are never kept beside positive ones, however small those are."""
    weight = torch.tensor([[5e-324] * 4 + [0.0] * 4], dtype=torch.float64)
    for gamma in (0.5, 0.9, 1.0):
        assert torch.equal(folded(weight, gamma, isa), keep_prefix(weight, gamma)[0])


@needs_kernel
@pytest.mark.parametrize("isa", range(len(SETS)))
@pytest.mark.parametrize("fan_in", [300, 5000])
def test_many_equal_contributions(fan_in: int, isa: int) -> None:
    """Duplicated neurons and few different weights: the lower index first."""
    rng = np.random.default_rng(fan_in)
    for values in (np.repeat(rng.random(fan_in // 2), 2), rng.integers(-3, 8, fan_in) / 8):
        weight = torch.tensor(values[None])
        for gamma in (0.1, 0.9, 1.0):
            assert torch.equal(folded(weight, gamma, isa), keep_prefix(weight, gamma)[0])


@needs_kernel
def test_arrays_that_do_not_fit_are_refused() -> None:
    """The compiled code never reads beyond an array."""
    fold = kernel.extension().fold
    n, units, taps, inputs, padded = 3, 2, 2, 5, 8
    good = [
        np.zeros((units, taps, padded), np.float32), np.zeros((n, taps, inputs)),
        np.zeros((taps, inputs)),
        np.zeros((n, units), bool), np.zeros((n, inputs), bool), np.zeros((units, 2), np.int64),
        np.zeros((2, padded), np.int64), np.zeros((n, 2), np.int64),
    ]  # fmt: skip
    sizes = (n, units, taps, inputs, padded)
    assert fold(*good, sizes, 32, 0.9, False, 0, n, 0)
    for position, array in enumerate(good):
        short = [*good[:position], array[..., 1:].copy(), *good[position + 1 :]]
        with pytest.raises(ValueError, match="must be"):
            fold(*short, sizes, 32, 0.9, False, 0, n, 0)
        frozen = array.copy()
        frozen.flags.writeable = False
        if position in (4, 7):
            with pytest.raises((ValueError, BufferError)):
                fold(
                    *good[:position], frozen, *good[position + 1 :], sizes, 32, 0.9, False, 0, n, 0
                )
    for wrong in ((32, 0, n + 1, 0), (32, 2, 1, 0), (16, 0, n, 0), (32, 0, n, 99), (32, -1, n, 0)):
        with pytest.raises(ValueError, match="sizes"):
            fold(*good, sizes, wrong[0], 0.9, False, *wrong[1:])


def test_a_missing_kernel_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slicing then runs in torch, with a warning; asking for torch is quiet."""
    expected = fn.activation_paths(network(1), data(1))
    monkeypatch.setattr(kernel, "extension", lambda: None)
    monkeypatch.delenv("FAIRNEURON_KERNEL", raising=False)
    with pytest.warns(FairNeuronWarning, match=r"compiler.*\[option-kernel\]$"):
        found = fn.activation_paths(network(1), data(1))
    np.testing.assert_array_equal(found.signatures, expected.signatures)
    monkeypatch.setenv("FAIRNEURON_KERNEL", "torch")
    fn.activation_paths(network(1), data(1))
