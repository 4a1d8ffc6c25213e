"""The inner loop of slicing: which synapses of the active neurons are kept.

Gao et al., Algorithm 1, lines 18 to 26. It exists twice, with one result: in torch, which runs on
any device (``keep_prefix``), and compiled from ``_kernel.cpp``, for layers with weights on the CPU.

Every sum is exact. The contributions of a neuron are rounded to a grid so fine that nothing is
lost that a float64 sum would have kept, and so coarse that no sum of them is ever rounded; so
neither the order of summing, nor the width of vectors, nor the device can change what is kept.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Any

import numpy as np
import torch

from fairneuron.errors import require_known, warn

_LANES = 8  # of the compiled loops
_WORK = 1 << 19  # contributions, a millisecond or so, that are worth a thread
_KERNELS = ("", "compiled", "torch")  # what FAIRNEURON_KERNEL may be


@cache
def extension() -> Any:
    """The compiled module; None if fairneuron was installed without a compiler."""
    try:
        return import_module("fairneuron._kernel")
    except ImportError:
        return None


def compiled() -> bool:
    """Whether the compiled kernel is there and wanted (unless ``FAIRNEURON_KERNEL=torch``)."""
    wanted = os.environ.get("FAIRNEURON_KERNEL", "")
    require_known("option-kernel", "FAIRNEURON_KERNEL", wanted, _KERNELS)
    if wanted == "torch":
        return False
    if extension() is None:
        warn(
            "option-kernel",
            "The compiled kernel is missing, so slicing takes many times as long. Install a C++ "
            "compiler, then fairneuron again (or set FAIRNEURON_KERNEL=torch to be content)",
        )
    return extension() is not None


def keep_prefix(c: torch.Tensor, gamma: float, *, absolute: bool = False) -> torch.Tensor:
    """Marks the shortest prefix of the sorted contributions whose sum exceeds ``gamma * |v|``.

    Contributions are oriented by the sign of the neuron's value v (0 counts as positive) and sorted
    descending, the lower index first among equals. At least one synapse is kept, and beyond it none
    whose oriented contribution is not positive.

    Args:
        c: ``(neurons, fan_in)`` float64 contributions, finite.
        gamma: In (0, 1].
        absolute: Compares absolute values instead.

    Returns:
        ``(neurons, fan_in)`` bool.
    """
    c = _on_grid(c)
    value = c.sum(1, keepdim=True)  # (neurons, 1)
    threshold = gamma * value.abs()
    oriented = c.abs() if absolute else torch.where(value < 0, -c, c)
    largest = oriented.amax(1, keepdim=True)
    columns = torch.arange(c.shape[1], device=c.device)
    first = torch.where(oriented == largest, columns, c.shape[1]).amin(1, keepdim=True)
    kept = columns == first  # often enough
    more = ((largest <= threshold) & (largest > 0))[:, 0].nonzero()[:, 0]
    ordered, order = oriented[more].sort(dim=1, descending=True, stable=True)
    ahead = ordered.cumsum(1) - ordered  # the sum of those before
    prefix = (ahead <= threshold[more]) & (ordered > 0)
    kept[more] = torch.zeros_like(prefix).scatter(1, order, prefix)
    return kept


def _on_grid(c: torch.Tensor) -> torch.Tensor:
    """Contributions rounded to multiples of a power of two that makes sums of a row exact.

    With u = 2^(e - 52), where 2^e is the power of two at or below ``(fan_in + 1) * max |c|``, every
    sum of the row's rounded elements is a multiple of u and at most 2^53 u: float64 holds it. (One
    more than ``fan_in``, since rounding may carry each of them above the largest.)
    """
    total = c.abs().amax(1, keepdim=True) * max(c.shape[1] + 1, 4)
    mantissa, _ = torch.frexp(total)  # in [0.5, 1)
    power = torch.where(mantissa > 0, total / (2 * mantissa), 0)
    return (c + 1.5 * power) - 1.5 * power


def unit_signatures(active: torch.Tensor) -> torch.Tensor:
    """What stands for a set of units ``(n, units)`` bool: 128 bits, ``(n, 2)`` int64."""
    units = Wiring(None, 1, active.shape[1], -1, active.device)
    sample, unit = active.nonzero(as_tuple=True)
    signature = torch.zeros(len(active), 2, dtype=torch.int64, device=active.device)
    return signature.index_add_(0, sample, units.keys(torch.zeros_like(unit), unit))


@dataclass(frozen=True, eq=False)
class Wiring:
    """The synapses into a layer: their weights, and the keys that signatures are made of.

    The key of synapse i → q is the product of a random number of q and one of i, modulo 2^64, for
    each of the two words of a signature.

    Attributes:
        weight: ``(units, taps, fan_in)``, float32 or float64: a contribution is the sum over taps
            of weight times value; None of layers without weights.
        units: Neurons of the layer.
        fan_in: Synapses of each.
        seed: Of the keys: the layer's position.
        device: Where the network is.
    """

    weight: torch.Tensor | None
    units: int
    fan_in: int
    seed: int
    device: torch.device

    @cached_property
    def _keys(self) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([0xFA1, self.seed % (1 << 32)])
        low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
        of_units = rng.integers(low, high, (self.units, 2)) | 1  # odd: no factor loses a bit
        of_synapses = rng.integers(low, high, (2, self.fan_in))
        return tuple(torch.from_numpy(k).to(self.device) for k in (of_units, of_synapses))  # type: ignore[return-value]

    def keys(self, unit: torch.Tensor, synapse: torch.Tensor) -> torch.Tensor:
        """Keys of synapses, ``(k, 2)`` int64."""
        of_units, of_synapses = self._keys
        return of_units[unit] * of_synapses[:, synapse].T

    @cached_property
    def _padded(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, units' keys and synapses' keys, the last dimension a multiple of the lanes."""
        assert self.weight is not None  # noqa: S101  # of layers with weights alone
        extra = -self.fan_in % _LANES
        of_units, of_synapses = self._keys
        weight = torch.nn.functional.pad(self.weight, (0, extra)).contiguous()
        keys = torch.nn.functional.pad(of_synapses, (0, extra)).contiguous()
        return weight.numpy(), of_units.numpy(), keys.numpy()

    def fold(
        self,
        value: torch.Tensor,
        mean: torch.Tensor,
        active: torch.Tensor,
        source: torch.Tensor,
        signature: torch.Tensor,
        *,
        gamma: float,
        absolute: bool,
        threads: int = 1,
        isa: int = 0,
    ) -> bool:
        """Keeps the prefix of each active neuron of a layer with weights, by the compiled kernel.

        Args:
            value: ``(samples, taps, fan_in)`` float64 activations that the weights meet.
            mean: ``(taps, fan_in)`` float64.
            active: ``(samples, units)`` bool.
            source: ``(samples, fan_in)`` bool; set where a kept synapse comes from.
            signature: ``(samples, 2)`` int64; the keys of the kept synapses are added.
            gamma: In (0, 1].
            absolute: See ``keep_prefix``.
            threads: To use at most.
            isa: Which of the machine's instruction sets, the widest first.

        Returns:
            Whether all contributions were finite.
        """
        kernel = extension().fold
        weight, of_units, of_synapses = self._padded
        n = len(value)
        arrays = (
            *(weight, value.contiguous().numpy(), mean.contiguous().numpy()),
            *(active.contiguous().numpy(), source.numpy()),
            *(of_units, of_synapses, signature.numpy()),
        )
        sizes = (n, self.units, weight.shape[1], self.fan_in, weight.shape[2])
        bits = 8 * weight.itemsize

        def part(first: int, last: int) -> bool:
            return kernel(*arrays, sizes, bits, gamma, absolute, first, last, isa)

        if threads > 1:  # no more than there is work for
            work = int(active.sum()) * self.fan_in * weight.shape[1]
            threads = min(threads, work // _WORK)
        if threads < 2:
            return part(0, n)
        cuts = [n * k // threads for k in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            return all(pool.map(part, cuts[:-1], cuts[1:]))
