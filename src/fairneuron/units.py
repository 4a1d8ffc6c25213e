"""Units: which of them each value of a network belongs to.

A unit is what a path goes through: a feature of a linear layer, a channel of a convolution, a head
of attention, a value of the input. It may stand at many positions (places of an image, tokens).

Which unit each value belongs to is found by running the steps that move values on the numbers of
the units in their place, so that no layout has to be understood. Steps that change values by
themselves pass the numbers on; norms count among them, with their statistics held fixed. What
contributes to the values of a unit is told by ``rules.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from fairneuron.errors import FairNeuronError, ModelError
from fairneuron.forward import evaluation, placed
from fairneuron.graph import (
    Elementwise,
    Graph,
    Input,
    Layer,
    Layout,
    Opaque,
)
from fairneuron.recording import Recorder
from fairneuron.rules import CONSTANT, MixedUnitsError, Rule, rule_of


@dataclass(frozen=True, eq=False)
class Units:
    """The units of a network, numbered.

    Attributes:
        first: Layer, by its position, to the number of its first unit.
        rules: Layer to its rule, in the order of their computation.
        of: Layer to the unit of each of its values, of the shape of a sample's value.
        total: How many units there are.
    """

    first: dict[int, int]
    rules: dict[int, Rule]
    of: dict[int, torch.Tensor] = field(repr=False)
    total: int

    def to(self, device: torch.device) -> Units:
        """The same, for kept synapses that are on a device."""
        rules = {
            layer: replace(rule, predecessor=rule.predecessor.to(device))
            for layer, rule in self.rules.items()
        }
        return replace(self, rules=rules)

    def places(self, layer: int) -> slice:
        """Where a layer's units are among all."""
        later = [first for first in self.first.values() if first > self.first[layer]]
        return slice(self.first[layer], min(later, default=self.total))

    def layer_of(self, unit: int) -> int:
        """Whose a unit is."""
        return max((first, layer) for layer, first in self.first.items() if first <= unit)[1]


def find_units(graph: Graph, example: torch.Tensor) -> Units:
    """Finds the units of a network.

    The units of the input are the finest that every layer that reads it can tell apart: its values;
    or its channels, or its last axis; or all of it.

    Args:
        graph: The network's.
        example: ``(n, …)`` samples that it can read.

    Raises:
        ModelError: ``model-unsupported`` for a step without a rule.
    """
    for layer in graph.layers:
        if isinstance(layer, Opaque):
            raise _no_rule(layer, layer.kind)
    some = example[:1] if len(example) else example.new_zeros(1, *example.shape[1:])
    x = placed(graph.module, torch.cat([some, some]))  # two, as a batch of one may be squeezed
    refusals: list[tuple[int, FairNeuronError]] = []
    with evaluation(graph.module):
        for numbers in _numberings(x[:1]):
            finder = _Finder(graph, numbers.expand(x.shape))
            try:
                finder.run(x)
            except ModelError as error:
                refusals.append((finder.done, error))
            else:
                return finder.found()
    raise max(refusals, key=lambda refusal: refusal[0])[1]  # of the one that came the furthest


def _no_rule(layer: Layer, kind: str) -> ModelError:
    return ModelError(
        "model-unsupported",
        "To be sliced, each step must have a rule: linear layers, convolutions, embeddings, "
        "attention without masks, additions, activations, norms, pooling, reshaping",
        got=f"{kind} at {layer.name!r}",
        cure="Replace it.",
    )


def _numberings(x: torch.Tensor) -> Iterator[torch.Tensor]:
    """Numbers of the units of an input ``(1, …)``, the finest first."""
    shape = x.shape[1:]
    yield torch.arange(max(1, math.prod(shape)), dtype=torch.float64).reshape(1, *shape)
    for axis in (1, x.ndim - 1) if x.ndim > 2 else ():
        along = torch.arange(x.shape[axis], dtype=torch.float64)
        yield along.reshape([-1 if a == axis else 1 for a in range(x.ndim)]).expand(x.shape)
    yield torch.zeros(x.shape, dtype=torch.float64)


class _Finder(Recorder):
    """Runs a network on a few samples, and beside them on the numbers of units.

    Args:
        graph: The network's.
        numbers: ``(n, …)`` of the units of the input.

    Attributes:
        done: How many steps have numbers.
    """

    def __init__(self, graph: Graph, numbers: torch.Tensor) -> None:
        super().__init__(graph, lambda *_: None)
        self._of_input = numbers
        self._numbers: dict[fx.Node, Any] = {}
        self._rows: dict[
            fx.Node, Any
        ] = {}  # whose each value is, the first sample's or the other's
        self._of: dict[int, torch.Tensor] = {}
        self._first: dict[int, int] = {}
        self._rules: dict[int, Rule] = {}
        self._total = self.done = 0

    def found(self) -> Units:
        for rule in self._rules.values():
            rule.predecessor[rule.predecessor == CONSTANT] = self._total
        return Units(self._first, self._rules, self._of, self._total)

    def run_node(self, n: fx.Node) -> Any:
        """Runs a step on values, then on the numbers of their units."""
        value = super().run_node(n)
        index = self._index.get(n.name)
        if index is None:
            self._numbers[n] = _constant(value, CONSTANT)
            self._rows[n] = _constant(value, math.nan)
            return value
        layer = self._graph.layers[index]
        if not isinstance(layer, Layout):
            self._require_samples_first(layer)
            self._rows[n] = _rows(value)
        numbers = self._number(layer, n, value)
        self._numbers[n] = numbers
        self.done += 1
        if isinstance(numbers, torch.Tensor):
            self._of[index] = numbers[0].long()
        return value

    def _number(self, layer: Layer, node: fx.Node, value: Any) -> Any:
        if isinstance(layer, Input):
            self._begin(layer, int(self._of_input.max()) + 1)
            return self._of_input
        if isinstance(layer, Layout):
            return self._moved(layer, node)
        sources = [self._of[s] for s in layer.sources]
        if isinstance(layer, Elementwise):
            if sources[0].shape != value.shape[1:]:
                raise _no_rule(layer, "broadcasting")
            return sources[0].double().expand(value.shape)
        try:
            rule, unit = rule_of(layer, self._graph, sources, value.shape[1:])
        except MixedUnitsError:
            raise _no_rule(layer, "a layer that reads several units as one") from None
        self._rules[layer.index] = rule
        first = self._begin(layer, rule.units)
        return (unit + first).double().expand(value.shape)

    def _begin(self, layer: Layer, units: int) -> int:
        first = self._first[layer.index] = self._total
        self._total += units
        return first

    def _require_samples_first(self, layer: Layer) -> None:
        """Rules read each sample's own values, along the first axis."""
        for source in layer.sources:
            rows = self._rows[self._nodes[self._graph.node_of[source]]]
            there = isinstance(rows, torch.Tensor) and rows.ndim > 0 and len(rows) == 2
            if not there or not (rows.isnan() | (rows == _rows(rows))).all():
                raise _no_rule(layer, "a step whose first axis is not that of the samples")

    def _moved(self, layer: Layout, node: fx.Node) -> Any:
        """The numbers after a step that moves or pools them."""
        if not layer.pools:
            self._rows[node] = self._on(self._rows, layer, node)
            return self._on(self._numbers, layer, node)
        ones = self._on(self._numbers, layer, node, torch.ones_like)
        if not isinstance(ones, torch.Tensor):
            raise _no_rule(layer, "pooling that gives indices too")
        self._rows[node] = self._on(self._rows, layer, node) / ones
        means = self._on(self._numbers, layer, node, lambda n: n + 2) / ones  # all are above 0
        squares = self._on(self._numbers, layer, node, lambda n: (n + 2) ** 2) / ones
        least = -self._on(self._numbers, layer, node, lambda n: -(n + 2)) / ones
        numbers = means.round()
        close = [
            torch.allclose(a, b, rtol=1e-9)
            for a, b in ((means, numbers), (least, numbers), (squares, numbers**2))
        ]
        if not all(close):
            raise _no_rule(layer, "pooling over several units")
        return numbers - 2

    def _on(
        self,
        given: dict[fx.Node, Any],
        layer: Layer,
        node: fx.Node,
        change: Callable[[torch.Tensor], torch.Tensor] = lambda numbers: numbers,
    ) -> Any:
        """What a step makes of numbers in the place of values."""
        values, self.env = self.env, {}
        for source in node.all_input_nodes:
            numbers = given[source]
            floating = isinstance(numbers, torch.Tensor) and numbers.is_floating_point()
            self.env[source] = change(numbers.contiguous()) if floating else numbers
        try:
            return self.run_step(node)
        except ModelError:  # it ran on the values
            raise _no_rule(layer, "a step that chooses by values") from None
        finally:
            self.env = values


def _constant(value: Any, number: float) -> Any:
    """Numbers in the place of what does not depend on the input; places and sizes stay."""
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return torch.full(value.shape, float(number), dtype=torch.float64) if floating else value


def _rows(value: torch.Tensor) -> torch.Tensor:
    """The number of the sample of each value ``(n, …)``."""
    rows = torch.arange(len(value), dtype=torch.float64)
    return rows.reshape(-1, *[1] * (value.ndim - 1)).expand(value.shape)
