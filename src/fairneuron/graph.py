"""A network as a graph of layers of neurons, found by tracing.

Tracing (``torch.fx``) runs the model's own ``forward`` on symbols, so what counts is what the
network computes and not how its attributes are called. Each step is of one of a few kinds:

- ``Input``: ``x``.
- ``Linear``: ``z = W a + b``; each feature is a neuron, at whatever positions (tokens) it stands.
- ``Convolution``: likewise; each channel is a neuron, and its places are positions.
- ``Lookup``: an embedding; each of its features is a unit.
- ``Heads``: scaled dot product attention; each head is a unit.
- ``Sum``: a residual addition ``a ± b``.
- ``Elementwise``: activation, dropout, norms in eval mode, scaling by constants; the same units.
- ``Layout``: reshaping, choosing, joining, pooling of values; the same units.
- ``Opaque``: any other step. It has no slicing rule.

Which unit each value belongs to is told by ``units.py``, and what contributes to it by
``rules.py``.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm

from fairneuron.errors import ModelError

DROPOUT = nn.modules.dropout._DropoutNd


@dataclass(frozen=True)
class Layer:
    """A step of the network.

    Attributes:
        name: Path of the module that computes it, or the name of the operation.
        index: Its position in ``Graph.layers``.
        sources: Positions of the layers that it reads.
    """

    name: str
    index: int
    sources: tuple[int, ...]

    axis: ClassVar[int] = 1
    """Which axis of its value has the units, if any has."""

    def by_unit(self, value: torch.Tensor) -> torch.Tensor:
        """A value ``(n, …)`` of the layer, or of a step of the same shape, as a view of it.

        Returns:
            ``(n, units, …)``, or ``(n, 1)`` of ``(n,)``.
        """
        return value[:, None] if value.ndim == 1 else value.movedim(self.axis, 1)


@dataclass(frozen=True)
class Input(Layer):
    """``x``."""


@dataclass(frozen=True)
class Weighted(Layer):
    """A layer whose units have incoming weights of their own: row q of the weight is of unit q.

    Attributes:
        weight: Name of the parameter ``(units, …)``.
        bias: Name of the parameter ``(units,)``, or None.
    """

    weight: str
    bias: str | None


@dataclass(frozen=True)
class Linear(Weighted):
    """``z = W a + b`` over the last axis."""

    axis = -1


@dataclass(frozen=True)
class Convolution(Weighted):
    """``z = W * a + b`` over the last one, two or three axes.

    Attributes:
        stride: Per spatial axis, as the following ones.
        padding: Places before and after.
        dilation: Distance of the places that a unit reads.
        groups: Into how many parts units and channels are divided.
        mode: What stands at the padded places, as ``torch.nn.functional.pad`` calls it.
    """

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    mode: str = "constant"


@dataclass(frozen=True)
class Lookup(Layer):
    """Rows of a table ``(rows, features)``, chosen by the values of the source.

    Attributes:
        weight: Name of the table.
    """

    weight: str


@dataclass(frozen=True)
class Heads(Layer):
    """Scaled dot product attention ``(n, heads, steps, features)`` of queries, keys, values.

    Attributes:
        causal: Whether a step sees the earlier ones alone.
        scale: Of the products; None for 1 / √features.
    """

    causal: bool = False
    scale: float | None = None


@dataclass(frozen=True)
class Elementwise(Layer):
    """Changes each unit's values by themselves, or by statistics that are held fixed.

    Attributes:
        activation: Whether it is an activation function, after which dropout belongs.
    """

    activation: bool = False


@dataclass(frozen=True)
class Layout(Layer):
    """Gives the same units' values elsewhere: reshaped, chosen, joined.

    Attributes:
        pools: Whether it puts one value in the place of several, which must be of one unit.
    """

    pools: bool = False


@dataclass(frozen=True)
class Sum(Layer):
    """Adds (sign 1) or subtracts (sign -1) layers.

    Attributes:
        signs: A sign per source.
    """

    signs: tuple[int, ...]


@dataclass(frozen=True)
class Opaque(Layer):
    """A step without a slicing rule.

    Attributes:
        kind: What it is.
    """

    kind: str


@dataclass(frozen=True, eq=False)
class Graph:
    """The layers of a network in the order of their computation.

    Attributes:
        layers: Every layer; sources come before what reads them.
        output: Position of the layer that the network returns.
        module: The traced network; it shares its parameters with the model.
        node_of: The traced step of each layer.
    """

    layers: tuple[Layer, ...]
    output: int
    module: fx.GraphModule
    node_of: tuple[str, ...]

    @cached_property
    def weighted(self) -> tuple[Weighted, ...]:
        """Every layer with weights of its units."""
        return tuple(layer for layer in self.layers if isinstance(layer, Weighted))

    @cached_property
    def head(self) -> tuple[Weighted, ...]:
        """The layers with weights that make the output, without another one in between."""
        return tuple(dict.fromkeys(self._back_to_weights(self.output)))

    @cached_property
    def hidden(self) -> tuple[Weighted, ...]:
        """The layers whose units are the hidden neurons."""
        return tuple(layer for layer in self.weighted if layer not in self.head)

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """For each layer the positions of those that read it."""
        return tuple(
            tuple(other.index for other in self.layers if layer.index in other.sources)
            for layer in self.layers
        )

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.weight(self.weighted[0]).device

    def activation_of(self, layer: Layer) -> int:
        """Position of the neurons' activation: the last elementwise step fed by the layer alone."""
        index = layer.index
        while len(self.readers[index]) == 1 and isinstance(
            self.layers[self.readers[index][0]], Elementwise
        ):
            index = self.readers[index][0]
        return index

    def weight(self, layer: Weighted | Lookup) -> torch.Tensor:
        """``(units, fan_in)`` of a linear layer; of others with what they have of further axes."""
        return operator.attrgetter(layer.weight)(self.module)

    @cached_property
    def owner(self) -> dict[int, str]:
        """Whose neurons a hidden layer computes: its own, or the first's that shares weights."""
        first: dict[int | str, str] = {}
        return {
            layer.index: first.setdefault(self._identity(layer), layer.name)
            for layer in self.hidden
        }

    @cached_property
    def neurons(self) -> dict[str, Weighted]:
        """The layers of hidden neurons by name; shared weights count once."""
        return {layer.name: layer for layer in self.hidden if self.owner[layer.index] == layer.name}

    @cached_property
    def incoming(self) -> dict[str, nn.Parameter]:
        """The incoming weights and biases of the hidden neurons, by name."""
        layers = self.neurons.values()
        return {k: p for layer in layers for rows in self.rows(layer) for k, p in rows.items()}

    def rows(self, layer: Weighted) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
        """The parameters, by name, that a layer's weight and bias consist of.

        Row u of each makes the incoming weights, or the bias, of neuron u alone. None for buffers.

        Raises:
            ModelError: If the weights of several neurons are computed together.
        """
        return self._rows(layer.weight), self._rows(layer.bias) if layer.bias else {}

    def _rows(self, name: str) -> dict[str, nn.Parameter]:
        path, _, attribute = name.rpartition(".")
        owner = self.module.get_submodule(path)
        if attribute in owner._buffers:
            return {}
        if isinstance(own := owner._parameters.get(attribute), nn.Parameter):
            return {name: own}
        if parametrize.is_parametrized(owner, attribute):
            steps: Any = owner.parametrizations[attribute]  # type: ignore[index]
            if all(isinstance(step, _WeightNorm) and step.dim == 0 for step in steps):
                prefix = f"{path}." if path else ""
                names = steps.named_parameters(f"{prefix}parametrizations.{attribute}", False)
                return dict(names)
            kinds = ", ".join(type(step).__name__.lstrip("_") for step in steps)
        else:
            kinds = "a hook"
        raise ModelError(
            "model-parametrised",
            "The weights of a neuron must be parameters of its own, or weight_norm's with dim=0",
            got=f"{name!r}, which {kinds} computes",
            cure="Make it permanent first: torch.nn.utils.parametrize.remove_parametrizations.",
        )

    def _identity(self, layer: Weighted) -> int | str:
        """What layers that share their weights have in common."""
        weight = self.weight(layer)  # computed ones are new each time
        return id(weight) if isinstance(weight, nn.Parameter) else layer.weight

    @property
    def has_dropout(self) -> bool:
        """Whether the network has dropout layers of its own, of a probability above 0."""
        return any(isinstance(m, DROPOUT) and m.p > 0 for m in self.module.modules())

    def with_dropout(self, rate: float) -> fx.GraphModule:
        """The same network, on the same parameters, with dropout after each hidden activation.

        A network that has dropout layers (of a probability above 0) keeps them as they are.
        """
        traced = fx.GraphModule(self.module, copy.deepcopy(self.module.graph))
        if self.has_dropout:
            return traced
        nodes = {node.name: node for node in traced.graph.nodes}
        for layer in self._hidden_activations():
            node = nodes[self.node_of[layer.index]]
            name = f"_dropout_{layer.index}"
            traced.add_submodule(name, nn.Dropout(rate))
            with traced.graph.inserting_after(node):
                dropped = traced.graph.call_module(name, (node,))
            node.replace_all_uses_with(
                dropped, delete_user_cb=lambda user, own=dropped: user is not own
            )
        traced.recompile()
        return traced

    def _hidden_activations(self) -> Iterator[Layer]:
        fed = {layer.index for layer in self.weighted}  # computed from a neuron
        for layer in self.layers:
            if any(s in fed for s in layer.sources):
                fed.add(layer.index)
                if (
                    isinstance(layer, Elementwise)
                    and layer.activation
                    and layer.index != self.output
                ):
                    yield layer

    def _back_to_weights(self, index: int) -> Iterator[Weighted]:
        layer = self.layers[index]
        if isinstance(layer, Weighted):
            yield layer
        else:
            for source in layer.sources:
                yield from self._back_to_weights(source)
