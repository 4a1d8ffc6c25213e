"""Hidden neurons: the features, channels and attention heads that are retrained by themselves.

A neuron is what has incoming weights of its own. Those of a head are the rows of its queries, keys
and values; where heads share some, as in multi-query attention, or queries, keys and values are
more than projections, each feature of the projections is a neuron.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError
from fairneuron.forward import evaluation, logits, placed, rows_at_once
from fairneuron.graph import Elementwise, Graph, Heads, Layer, Layout
from fairneuron.models import Scores
from fairneuron.recording import Recorder
from fairneuron.units import Units, find_units


@dataclass(frozen=True, eq=False)
class Neurons:
    """The hidden neurons of a layer.

    Attributes:
        name: Of the layer; of heads, of the module that has their projections.
        count: How many.
        layers: The layers that compute them; several if they share their weights.
        weights: Parameter name to the rows of it that are each neuron's, ``(count, rows)``.
        biases: Likewise.
    """

    name: str
    count: int
    layers: tuple[Layer, ...]
    weights: Mapping[str, torch.Tensor]
    biases: Mapping[str, torch.Tensor]


def hidden_neurons(graph: Graph, example: torch.Tensor) -> dict[str, Neurons]:
    """Finds the hidden neurons, by the name of their layer, in the order of the layers.

    Args:
        graph: The network's.
        example: ``(n, …)`` samples that it can read.
    """
    found = []
    for name, layer in graph.neurons.items():
        weights, biases = graph.rows(layer)
        if not weights:  # a fixed filter, say: there is nothing to retrain
            continue
        count = len(graph.weight(layer))
        own = torch.arange(count)[:, None]
        layers = tuple(one for one in graph.hidden if graph.owner[one.index] == name)
        found.append(
            Neurons(name, count, layers, dict.fromkeys(weights, own), dict.fromkeys(biases, own))
        )
    for projections, heads in _attention(graph, example):
        at = next(i for i, one in enumerate(found) if one.name in projections)
        rest = [one for one in found[at:] if one.name not in projections]
        taken = any(one.name == heads.name for one in (*found[:at], *rest))
        named = replace(heads, name=heads.layers[0].name) if taken else heads
        found[at:] = [named, *rest]
    return {one.name: one for one in found}


def _attention(graph: Graph, example: torch.Tensor) -> Iterator[tuple[tuple[str, ...], Neurons]]:
    """The heads whose projections, by name, are theirs alone."""
    layers = [layer for layer in graph.layers if isinstance(layer, Heads)]
    if not layers:
        return
    try:
        units = find_units(graph, example)
    except ModelError:  # a step without a rule, somewhere
        return
    found: dict[tuple[str, ...], list[Neurons]] = {}
    for layer in layers:
        rows = _rows_of_heads(graph, units, layer)
        if rows is not None and all(_only_for_heads(graph, name) for name in rows):
            found.setdefault(tuple(sorted(rows)), []).append(_heads(graph, layer, rows))
    read = Counter(name for projections in found for name in projections)
    for projections, same in found.items():
        first = same[0]
        alike = all(
            torch.equal(one.weights[k], rows) for one in same for k, rows in first.weights.items()
        )
        if first.weights and alike and all(read[name] == 1 for name in projections):
            yield projections, replace(first, layers=tuple(one.layers[0] for one in same))


def _rows_of_heads(graph: Graph, units: Units, layer: Heads) -> dict[str, torch.Tensor] | None:
    """Hidden layer to the neurons ``(heads, rows)`` of it that each head reads, if none else does.

    None if they are more or less than that.
    """
    numbers = [units.of[source].flatten(1) for source in layer.sources]  # (heads, …) each
    if len({len(n) for n in numbers}) > 1:
        return None
    of_head = [row.unique() for row in torch.cat(numbers, 1)]
    rows, known = {}, 0
    for index, name in graph.owner.items():
        places = units.places(index) if index in units.first else slice(0, 0)
        own = [n[(n >= places.start) & (n < places.stop)] - places.start for n in of_head]
        read = torch.cat(own)
        if not len(read):
            continue
        each = len(read) // len(own)
        everyone = torch.arange(places.stop - places.start)
        if name in rows or any(len(n) != each for n in own):
            return None
        if not torch.equal(read.sort().values, everyone):
            return None
        rows[name] = torch.stack(own)
        known += len(read)
    return rows if rows and known == sum(map(len, of_head)) else None


def _only_for_heads(graph: Graph, projection: str) -> bool:
    """Whether nothing but attention reads what a layer, or one with its weights, computes."""
    waiting = [index for index, name in graph.owner.items() if name == projection]
    while waiting:
        index = waiting.pop()
        readers = [graph.layers[reader] for reader in graph.readers[index]]
        if index == graph.output or not all(
            isinstance(reader, (Heads, Layout, Elementwise)) for reader in readers
        ):
            return False
        waiting += [reader.index for reader in readers if not isinstance(reader, Heads)]
    return True


def _heads(graph: Graph, layer: Heads, rows: Mapping[str, torch.Tensor]) -> Neurons:
    """The neurons of a layer of heads, by the rows of their projections."""
    weights: dict[str, torch.Tensor] = {}
    biases: dict[str, torch.Tensor] = {}
    for projection, own in rows.items():
        of_weight, of_bias = graph.rows(graph.neurons[projection])
        weights |= dict.fromkeys(of_weight, own)
        biases |= dict.fromkeys(of_bias, own)
    owners = {graph.neurons[projection].weight.rpartition(".")[0] for projection in rows}
    if len(owners) > 1:  # layers side by side: the module that has them
        owners = {owner.rpartition(".")[0] for owner in owners}
    name = owners.pop() if len(owners) == 1 else ""
    return Neurons(name or layer.name, len(own), (layer,), weights, biases)


class Activations:
    """The activations of hidden neurons on all the data, by weight.

    Args:
        graph: The network's.
        data: On which.

    Attributes:
        neurons: By the name of their layer.

    Raises:
        ModelError: ``model-unsupported`` for a layer whose values have something else along the
            axis of the samples too.
    """

    def __init__(self, graph: Graph, data: Dataset) -> None:
        self.graph, self.data = graph, data
        self.neurons = hidden_neurons(graph, data.x)
        self._of = {  # which neurons' activation a layer holds, and as which layer's value
            graph.activation_of(layer): (one.name, layer)
            for one in self.neurons.values()
            for layer in one.layers
        }
        self._axes = self._sample_axes()

    def active(self) -> dict[str, torch.Tensor]:
        """Share of the samples on which each neuron is not 0, by layer.

        Of weights that several layers share, the mean over these layers.
        """
        total: dict[str, torch.Tensor] = {}

        def add(index: int, value: torch.Tensor, weight: torch.Tensor) -> None:
            if index in self._of:
                name, _ = self._of[index]
                there = (self._by_neuron(index, value) != 0).double()  # (n, neurons, …)
                there = there.reshape(*there.shape[:2], -1).mean(2)
                total[name] = total.get(name, 0) + (there * weight).sum(0)

        self._see(add)
        return {
            name: sums / len(self.data) / len(self.neurons[name].layers)
            for name, sums in total.items()
        }

    def means(self) -> dict[int, torch.Tensor]:
        """Means over the samples, by position of the layer that holds them."""
        total: dict[int, torch.Tensor] = {}

        def add(index: int, value: torch.Tensor, weight: torch.Tensor) -> None:
            if index in self._of:
                value = value.movedim(self._axes[index], 0)
                weighted = value.double() * weight.reshape(-1, *[1] * (value.ndim - 1))
                total[index] = total.get(index, 0) + weighted.sum(0)

        self._see(add)
        return {index: value / len(self.data) for index, value in total.items()}

    def holding(
        self, held: list[tuple[str, int]], means: Mapping[int, torch.Tensor]
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """The network with some neurons (name of the layer, unit) held at their means."""

        def hold(index: int, value: torch.Tensor) -> torch.Tensor | None:
            if index not in self._of:
                return None
            chosen = [unit for name, unit in held if name == self._of[index][0]]
            if not chosen:
                return None
            changed = value.clone()
            mean = means[index].to(value).unsqueeze(self._axes[index])
            mean = self._by_neuron(index, mean)
            self._by_neuron(index, changed)[:, chosen] = mean[:, chosen]
            return changed

        return Recorder(self.graph, hold).run

    def scores(self, run: Callable[[torch.Tensor], object]) -> Scores:
        """What a network says of all the data."""
        with evaluation(self.graph.module):
            out = torch.cat([logits(run, x) for x, *_ in self.batches()]).cpu()
        return Scores(out, torch.from_numpy(self.data.y), out.ndim == 2)

    def batches(self, *more: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """Inputs, labels and further columns, batch by batch, on the network's device."""
        x, y = self.data.x, torch.from_numpy(self.data.y)
        size, device = rows_at_once(x), self.graph.device
        for parts in zip(*(column.split(size) for column in (x, y, *more)), strict=True):
            first, *others = (part.to(device) for part in parts)
            yield placed(self.graph.module, first), *others

    def _see(self, see: Callable[..., None]) -> None:
        """Shows the values of all layers, and the samples' relative weights ``(n, 1)``."""
        weights = self.data.relative_weight
        weights = np.ones(len(self.data)) if weights is None else weights
        with evaluation(self.graph.module):
            for x, _, weight in self.batches(torch.from_numpy(weights)[:, None]):
                Recorder(self.graph, partial(see, weight=weight)).run(x)

    def _by_neuron(self, index: int, value: torch.Tensor) -> torch.Tensor:
        """A layer's value as a view ``(n, neurons, …)``."""
        _, layer = self._of[index]
        return layer.by_unit(value.movedim(self._axes[index], 0))

    def _sample_axes(self) -> dict[int, int]:
        """Along which axis the activations have the samples, by position."""
        shapes: list[dict[int, torch.Size]] = [{}, {}]
        rows = placed(self.graph.module, self.data.x[:1])
        with evaluation(self.graph.module):
            for samples, seen in zip((2, 3), shapes, strict=True):
                x = torch.cat([rows] * samples)
                Recorder(self.graph, partial(_note_shape, seen)).run(x)
        axes: dict[int, int] = {}
        for index, (_, layer) in self._of.items():
            two, three = (seen[index] for seen in shapes)
            sizes = list(zip(two, three, strict=False))
            if sizes.count((2, 3)) != 1 or len({*sizes} - {(k, k) for k in two}) != 1:
                raise ModelError(
                    "model-unsupported",
                    "The values of a layer must have the samples along one axis",
                    got=f"{tuple(two)} for two samples, {tuple(three)} for three at {layer.name!r}",
                    cure="Give steps an axis of their own, (n, steps, features), or flatten them "
                    "into the features.",
                )
            axes[index] = sizes.index((2, 3))
        return axes


def _note_shape(seen: dict[int, torch.Size], index: int, value: Any) -> None:
    seen[index] = value.shape
