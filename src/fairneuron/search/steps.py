"""The batches of several trainings at once, with the noise of their dropout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import fx, nn

from fairneuron.data.dataset import Mask
from fairneuron.graph import DROPOUT

VECTOR = 64  # elements at most that a loop of torch takes at once


@dataclass(frozen=True, eq=False)
class Step:
    """A batch of each training.

    Attributes:
        rows: Positions in the data: ``(n,)`` if all have the same, else ``(trainings, n)``.
        counts: How many of them are there for each training; the others are fillers.
        noise: Of the dropout layers by name, ``(trainings, n, units)``; None if all are inactive.
    """

    rows: torch.Tensor
    counts: list[int]
    noise: dict[str, torch.Tensor] | None = None


class Steps:
    """Draws batches, for each training with a generator of its own, as ``train`` does.

    Args:
        dropped: For each training its rows ``(n,)`` that are trained with dropout, after the
            others; None for none.
        rows: n.
        size: Rows of a batch.
        seed: Of all generators.
        noise: For each training its dropout layers by name, in the order in which they run; empty
            if no training has any.
    """

    def __init__(
        self,
        dropped: Sequence[Mask | None],
        rows: int,
        size: int,
        seed: int,
        noise: Sequence[dict[str, Noise]],
    ) -> None:
        self.shared = all(mask is None for mask in dropped)
        self._noise, self._size = noise, size
        masks = [np.zeros(rows, bool) if mask is None else mask for mask in dropped]
        self._halves = [
            [
                (torch.from_numpy(np.flatnonzero(m == active)), bool(active))
                for active in np.unique(m)
            ]
            for m in (masks[:1] if self.shared else masks)
        ]
        self._generators = [torch.Generator().manual_seed(seed) for _ in self._halves]
        self._trainings = len(masks)
        self._rows = filled(min(size, rows))

    def __iter__(self) -> Iterator[Step]:
        """An epoch."""
        each = [self._own(i) for i in range(len(self._halves))]
        if self.shared:
            for rows, _ in each[0]:
                yield Step(with_fillers(rows), [len(rows)] * self._trainings)
            return
        nothing = torch.empty(0, dtype=torch.int64), False
        for batches in zip_longest(*each, fillvalue=nothing):
            counts = [len(rows) for rows, _ in batches]
            together = torch.zeros(len(batches), self._rows, dtype=torch.int64)
            for own, (rows, _) in zip(together, batches, strict=True):
                own[: len(rows)] = rows
            active = [i for i, (_, on) in enumerate(batches) if on]
            drawn = self._drawn(active, [rows for rows, _ in batches]) if active else None
            yield Step(together, counts, drawn)

    def _own(self, training: int) -> Iterator[tuple[torch.Tensor, bool]]:
        for part, active in self._halves[training]:
            order = part[torch.randperm(len(part), generator=self._generators[training])]
            for rows in order.split(min(self._size, len(order))):
                yield rows, active

    def _drawn(self, active: list[int], rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        noise = {
            name: torch.ones((len(rows), self._rows, *layer.shape), dtype=layer.dtype)
            for name, layer in self._noise[0].items()
        }
        for training in active:
            for name, layer in self._noise[training].items():
                own = rows[training]
                noise[name][training, : len(own)] = layer.draw(own, self._generators[training])
        return noise


def filled(rows: int) -> int:
    """Rows with fillers: a whole number of the processor's vectors.

    The last elements of a tensor beyond that are computed otherwise, with other bits, and which
    elements these are would depend on how many trainings there are.
    """
    return math.ceil(rows / VECTOR) * VECTOR


def with_fillers(rows: torch.Tensor) -> torch.Tensor:
    """The rows, and the first row of the data as often as it takes."""
    together = rows.new_zeros(filled(len(rows)))
    together[: len(rows)] = rows
    return together


class Noise(nn.Module):
    """A dropout layer whose noise is given.

    Args:
        p: Probability of an element to be dropped.

    Attributes:
        shape: Of the values of a sample, once it has run.
        dtype: Likewise.
    """

    noise: torch.Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.shape, self.dtype = p, torch.Size(), torch.float32
        self.register_buffer("noise", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiplies by the noise."""
        self.shape, self.dtype = x.shape[1:], x.dtype
        return x * self.noise

    def draw(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Noise ``(n, *shape)`` for n rows as ``nn.Dropout`` draws it: 0, or 1 / (1 - p)."""
        noise = torch.empty((len(rows), *self.shape), dtype=self.dtype)
        noise.bernoulli_(1 - self.p, generator=generator)
        return noise if self.p == 1 else noise.div_(1 - self.p)


def dropout_layers(network: fx.GraphModule) -> list[str]:
    """Names of a traced network's dropout layers in the order in which they run."""
    names = [str(node.target) for node in network.graph.nodes if node.op == "call_module"]
    return [name for name in names if isinstance(network.get_submodule(name), DROPOUT)]


def with_noise(network: fx.GraphModule) -> dict[str, Noise]:
    """Puts given noise in the place of a traced network's dropout layers; returns it by name."""
    layers = {}
    for name in dropout_layers(network):
        layers[name] = Noise(network.get_submodule(name).p)  # type: ignore[arg-type]
        network.set_submodule(name, layers[name])
    return layers
