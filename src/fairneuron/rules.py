"""The slicing rule of each kind of layer: what contributes to the values of its units.

Contributions are summed over the positions of a unit, as Gao et al. (section 3.2) sum nothing but
the one value that a neuron of a fully connected layer has. A rule reads the values that go into a
layer, summed over positions; in attention, with its pattern held fixed. All readings are linear in
these values, so those relative to the means of readings are those of relative activations. Written
``c`` for the contributions to a unit of value ``v``, ``Σ c = v`` for every rule: the sum over
positions of its values, minus the mean of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch.nn import functional

from fairneuron.graph import Convolution, Graph, Heads, Layer, Linear, Lookup, Sum, Weighted

Array = np.ndarray[Any, Any]
CONSTANT = -1  # the number of a value that no unit changes


@dataclass(frozen=True, eq=False)
class Rule:
    """What contributes to the units of a layer.

    Attributes:
        units: How many units the layer has.
        predecessor: ``(fan_in,)``, or ``(units, fan_in)`` where units have others: the numbers of
            the units that contribute. ``Units.total`` stands for none.
        read: Maps the values that the layer reads, ``(n, …)`` each, to
            ``(n, units, fan_in)``: contributions, but for their means; or, of layers with weights,
            to ``(n, taps, channels)``, which the weights make contributions of.
        arrange: Makes ``(units, taps, fan_in)`` of the weights; None of layers without.
        groups: Into how many parts units and channels are divided.
    """

    units: int
    predecessor: torch.Tensor
    read: Callable[[list[torch.Tensor]], torch.Tensor]
    arrange: Callable[[torch.Tensor], torch.Tensor] | None = None
    groups: int = 1

    @property
    def fan_in(self) -> int:
        """Synapses of each unit."""
        return self.predecessor.shape[-1]

    def contributions(
        self,
        weight: torch.Tensor | None,
        relative: torch.Tensor,
        sample: torch.Tensor,
        unit: torch.Tensor,
    ) -> torch.Tensor:
        """Contribution of each synapse of some units of some samples.

        Args:
            weight: ``(units, taps, fan_in)`` float64 of layers with weights.
            relative: What ``read`` gives, relative to the means, float32.
            sample: ``(rows,)``.
            unit: ``(rows,)``.

        Returns:
            ``(rows, fan_in)`` float64.
        """
        if weight is None:
            return relative[sample, unit].double()
        taps = relative.unflatten(-1, (self.groups, -1))  # (n, taps, groups, fan_in)
        part = taps[sample, :, unit // (self.units // self.groups)]  # (rows, taps, fan_in)
        own = weight[unit]
        c = own[:, 0] * part[:, 0]
        for tap in range(1, own.shape[1]):
            c += own[:, tap] * part[:, tap]
        return c

    def sources(self, unit: torch.Tensor, synapse: torch.Tensor) -> torch.Tensor:
        """The numbers of the units that synapses come from, ``(k,)``."""
        table = self.predecessor
        return table[synapse] if table.ndim == 1 else table[unit, synapse]


class MixedUnitsError(Exception):
    """What a layer tells apart is finer or coarser than units."""


def _by_column(numbers: torch.Tensor) -> torch.Tensor:
    """The unit of each column of ``(positions, columns)``, which must be one at all positions.

    Raises:
        MixedUnitsError: If it is not.
    """
    unit = numbers.amax(0)  # (columns,)
    if not ((numbers == unit) | (numbers == CONSTANT)).all():
        raise MixedUnitsError
    return unit


# The rule of each kind of layer


@singledispatch
def rule_of(
    layer: Layer, _graph: Graph, _sources: list[torch.Tensor], _shape: torch.Size
) -> tuple[Rule, torch.Tensor]:
    """The rule of a layer, and which of its units each of its values belongs to.

    Args:
        layer: The layer.
        _graph: Its network's.
        _sources: The numbers of the units of what it reads, of the shapes of a sample's values.
        _shape: Of a sample's value.
    """
    raise NotImplementedError(type(layer))


@rule_of.register
def _(
    layer: Linear, graph: Graph, sources: list[torch.Tensor], _: torch.Size
) -> tuple[Rule, torch.Tensor]:
    """Weight times relative activation; features of one unit (a flattened channel's) are added."""
    units = len(graph.weight(layer))
    feature = _by_column(sources[0].reshape(-1, sources[0].shape[-1]))  # (features,)
    place, predecessor = _grouped(feature.numpy())  # (taps, fan_in), (fan_in,)
    plain = len(place) == 1
    index = torch.from_numpy(np.where(place < 0, len(feature), place))  # one more: a 0

    def read(values: list[torch.Tensor]) -> torch.Tensor:
        value = values[0]
        if value.ndim > 2:
            value = value.flatten(1, -2).sum(1)  # (n, features)
        if plain:
            return value[:, None]
        return functional.pad(value, (0, 1))[:, index.to(value.device)]  # (n, taps, fan_in)

    def arrange(weight: torch.Tensor) -> torch.Tensor:
        if plain:
            return weight[:, None]
        return functional.pad(weight, (0, 1))[:, index.to(weight.device)]

    rule = Rule(units, torch.from_numpy(predecessor), read, arrange)
    return rule, torch.arange(units)


def _grouped(unit: Array) -> tuple[Array, Array]:
    """Columns by unit, in the order in which units come: ``(most, units)`` filled up with -1."""
    if len(np.unique(unit)) == len(unit):
        return np.arange(len(unit))[None], unit.copy()
    distinct, first, number = np.unique(unit, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.argsort(order)[number]  # (columns,) in the order in which they come
    by_unit = np.argsort(rank, kind="stable")
    counts = np.bincount(rank)
    slot = np.arange(len(unit)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.full((counts.max(), len(distinct)), -1)
    place[slot, rank[by_unit]] = by_unit
    return place, distinct[order]


@rule_of.register
def _(
    layer: Convolution, graph: Graph, sources: list[torch.Tensor], shape: torch.Size
) -> tuple[Rule, torch.Tensor]:
    """Weight times relative activation, summed over the places of a channel.

    A weight meets the values that it sees as it moves: their sum is all that is needed of them.
    """
    weight = graph.weight(layer)
    units, *kernel = len(weight), *weight.shape[2:]
    channel = _by_column(sources[0].flatten(1).T)  # (channels,)
    predecessor = channel.reshape(layer.groups, -1)  # (groups, fan_in)
    if layer.groups > 1:
        predecessor = predecessor.repeat_interleave(units // layer.groups, 0)
    axes = len(kernel)

    def read(values: list[torch.Tensor]) -> torch.Tensor:
        (value,) = values
        if any(sum(both) for both in layer.padding):
            both_ends = [place for both in reversed(layer.padding) for place in both]
            value = functional.pad(value, both_ends, layer.mode)
        for axis in reversed(range(axes)):  # the places along it go, its taps come last
            size, stride = kernel[axis], layer.stride[axis]
            seen = (value.shape[2 + axis] - layer.dilation[axis] * (size - 1) - 1) // stride + 1
            by_place = value.movedim(2 + axis, -1)
            firsts = [tap * layer.dilation[axis] for tap in range(size)]
            ends = [first + stride * (seen - 1) + 1 for first in firsts]
            value = torch.stack(
                [by_place[..., a:b:stride].sum(-1) for a, b in zip(firsts, ends, strict=True)], -1
            )
        return value.flatten(2).transpose(1, 2)  # (n, taps, channels)

    def arrange(weight: torch.Tensor) -> torch.Tensor:
        return weight.permute(0, *range(weight.ndim - 1, 1, -1), 1).flatten(1, -2)

    rule = Rule(
        units,
        predecessor[0].clone() if layer.groups == 1 else predecessor.contiguous(),
        read,
        arrange,
        layer.groups,
    )
    return rule, torch.arange(units).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)


@rule_of.register
def _(
    layer: Sum, _graph: Graph, sources: list[torch.Tensor], shape: torch.Size
) -> tuple[Rule, torch.Tensor]:
    """The operands' relative activations. Values that share a unit in an operand are one unit."""
    numbers = [s.expand(shape).reshape(-1).numpy() for s in sources]
    of: Array = np.stack(numbers)  # (operands, values)
    values = of.shape[1]
    operand, value = np.nonzero(of != CONSTANT)
    ends = values + of[operand, value]
    size = values + int(of.max(initial=0)) + 1
    edges = coo_array((np.ones(len(value)), (value, ends)), (size, size))
    label = connected_components(edges, directed=False)[1][:values]
    _, first, unit = np.unique(label, return_index=True, return_inverse=True)
    unit = np.argsort(np.argsort(first))[unit]  # (values,) in the order in which they come
    units = int(unit.max()) + 1

    # a synapse for each unit of an operand that a unit has values of
    keys = np.stack([unit[value], operand, of[operand, value]], axis=1)
    synapses, which = np.unique(keys, axis=0, return_inverse=True)
    counts = np.bincount(synapses[:, 0], minlength=units)
    fan_in = int(counts.max())
    slot = np.arange(len(synapses)) - np.repeat(np.cumsum(counts) - counts, counts)
    predecessor = np.full((units, fan_in), CONSTANT)
    predecessor[synapses[:, 0], slot] = synapses[:, 2]
    target = np.full(of.shape, -1)  # (operands, values): place among (units, fan_in)
    target[operand, value] = (synapses[:, 0] * fan_in + slot)[which.reshape(-1)]
    totals = [_Totals(torch.from_numpy(t).reshape(shape), units * fan_in) for t in target]

    def read(values: list[torch.Tensor]) -> torch.Tensor:
        terms = [
            sign * total(value.expand(len(value), *shape))
            for total, sign, value in zip(totals, layer.signs, values, strict=True)
        ]
        return torch.stack(terms).sum(0).unflatten(1, (units, fan_in))

    return Rule(units, torch.from_numpy(predecessor), read), torch.from_numpy(unit).reshape(shape)


class _Totals:
    """Sums of the values that have the same target, ``(n, targets)``.

    Args:
        target: Of the shape of a sample's value; below 0 for values that count nowhere.
        targets: How many targets there are.
    """

    def __init__(self, target: torch.Tensor, targets: int) -> None:
        self.targets = targets
        self.axis: int | None = None  # along which alone targets differ
        target = torch.where(target < 0, targets, target)
        self.target = target.reshape(-1)
        for axis in range(target.ndim):
            along = target.movedim(axis, 0).reshape(target.shape[axis], -1)
            if (along == along[:, :1]).all():
                self.axis, self.target = axis, along[:, 0]
                break

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        if self.axis is None:
            value = value.flatten(1)
        elif value.ndim > 2:
            value = value.movedim(1 + self.axis, 1).flatten(2).sum(2)
        sums = value.new_zeros(len(value), self.targets + 1)
        return sums.index_add_(1, self.target.to(value.device), value)[:, :-1]


@rule_of.register
def _(
    layer: Heads, _graph: Graph, sources: list[torch.Tensor], shape: torch.Size
) -> tuple[Rule, torch.Tensor]:
    """The values that a head attends to, by how much all steps together attend to them."""
    if len(shape) != 3 or len(sources[2]) != shape[0]:
        raise MixedUnitsError
    heads, features = len(sources[2]), sources[2].shape[-1]
    predecessor = torch.stack([_by_column(head) for head in sources[2]])  # (heads, features)

    def read(values: list[torch.Tensor]) -> torch.Tensor:
        query, key, value = values
        scale = features**-0.5 if layer.scale is None else layer.scale
        products = query @ key.transpose(-2, -1) * scale  # (n, heads, steps, seen)
        if layer.causal:
            later = torch.ones(products.shape[-2:], dtype=torch.bool, device=value.device).triu(1)
            products = products.masked_fill(later, -torch.inf)
        attended = products.softmax(-1).sum(-2)  # (n, heads, seen)
        return (attended[..., None] * value).sum(-2)  # (n, heads, features)

    return Rule(heads, predecessor, read), torch.arange(heads)[:, None, None].expand(shape)


@rule_of.register
def _(
    layer: Lookup, graph: Graph, sources: list[torch.Tensor], shape: torch.Size
) -> tuple[Rule, torch.Tensor]:
    """What each value of the source looks up."""
    units = shape[-1]

    def read(values: list[torch.Tensor]) -> torch.Tensor:
        found = functional.embedding(values[0].long(), graph.weight(layer)).double()
        return found.reshape(len(found), -1, units).transpose(1, 2)  # (n, features, positions)

    return Rule(units, sources[0].reshape(-1).clone(), read), torch.arange(units)


def weight_of(graph: Graph, layer: Layer, rule: Rule) -> torch.Tensor | None:
    """Weights ``(units, taps, fan_in)``, float32 or float64; None of a layer without."""
    if not isinstance(layer, Weighted) or rule.arrange is None:
        return None
    weight = rule.arrange(graph.weight(layer).detach())
    return weight if weight.dtype == torch.float64 else weight.float()
