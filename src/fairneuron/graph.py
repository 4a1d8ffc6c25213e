"""A network as a graph of layers of neurons, found by tracing.

Tracing (``torch.fx``) runs the model's own ``forward`` on symbols, so what counts is what the
network computes and not how its attributes are called. Each step must be one of a few kinds:

========================
==========================================================================================
``Input``                 The columns of ``x``.
``Linear``                ``z = W a + b``: each unit is a neuron, each weight a synapse.
``Elementwise``           Activation, dropout, batch norm (eval mode), scaling by constants,
reshaping: the same neurons.
``Sum``                   A residual addition ``a ± b``: each unit has one synapse to every operand.
========================
==========================================================================================
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from fairneuron.errors import ModelError
from fairneuron.models import evaluation


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


@dataclass(frozen=True)
class Input(Layer):
    """The columns of ``x``."""


@dataclass(frozen=True)
class Linear(Layer):
    """``z = W a + b``.

    Attributes:
        weight: Name of the parameter ``(units, fan_in)``.
        bias: Name of the parameter ``(units,)``, or None.
    """

    weight: str
    bias: str | None


@dataclass(frozen=True)
class Elementwise(Layer):
    """Changes each neuron's value by itself.

    Attributes:
        activation: Whether it is an activation function, after which dropout belongs.
    """

    activation: bool = False


@dataclass(frozen=True)
class Sum(Layer):
    """Adds (sign 1) or subtracts (sign -1) layers of the same width.

    Attributes:
        signs: A sign per source.
    """

    signs: tuple[int, ...]


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
    def linear(self) -> tuple[Linear, ...]:
        """Every linear layer."""
        return tuple(layer for layer in self.layers if isinstance(layer, Linear))

    @cached_property
    def head(self) -> tuple[Linear, ...]:
        """The linear layers that make the output, without another one in between."""
        return tuple(dict.fromkeys(self._back_to_linear(self.output)))

    @cached_property
    def hidden(self) -> tuple[Linear, ...]:
        """The linear layers whose units are the hidden neurons."""
        return tuple(layer for layer in self.linear if layer not in self.head)

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """For each layer the positions of those that read it."""
        return tuple(
            tuple(other.index for other in self.layers if layer.index in other.sources)
            for layer in self.layers
        )

    def activation_of(self, layer: Layer) -> int:
        """Position of the neurons' activation: the last elementwise step fed by the layer alone."""
        index = layer.index
        while len(self.readers[index]) == 1 and isinstance(
            self.layers[self.readers[index][0]], Elementwise
        ):
            index = self.readers[index][0]
        return index

    def weight(self, layer: Linear) -> torch.Tensor:
        """``(units, fan_in)``."""
        return operator.attrgetter(layer.weight)(self.module)

    @cached_property
    def neurons(self) -> dict[str, Linear]:
        """The layers of hidden neurons by name; a layer that is used twice counts once."""
        return {layer.name: layer for layer in self.hidden}

    @cached_property
    def incoming(self) -> dict[str, nn.Parameter]:
        """The incoming weights and biases of the hidden neurons, by name."""
        names = [n for layer in self.neurons.values() for n in (layer.weight, layer.bias) if n]
        return {name: operator.attrgetter(name)(self.module) for name in names}

    def with_dropout(self, rate: float) -> fx.GraphModule:
        """The same network, on the same parameters, with dropout after each hidden activation.

        A network that has dropout layers keeps them as they are.
        """
        traced = fx.GraphModule(self.module, copy.deepcopy(self.module.graph))
        if any(isinstance(m, nn.modules.dropout._DropoutNd) for m in self.module.modules()):
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
        fed = {layer.index for layer in self.linear}  # computed from a neuron
        for layer in self.layers:
            if isinstance(layer, (Elementwise, Sum)) and any(s in fed for s in layer.sources):
                fed.add(layer.index)
                if (
                    isinstance(layer, Elementwise)
                    and layer.activation
                    and layer.index != self.output
                ):
                    yield layer

    def _back_to_linear(self, index: int) -> Iterator[Linear]:
        layer = self.layers[index]
        if isinstance(layer, Linear):
            yield layer
        else:
            for source in layer.sources:
                yield from self._back_to_linear(source)


_ACTIVATIONS = tuple(
    getattr(nn, name)
    for name in (
        "ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU SELU GELU SiLU Mish Softplus Softsign Sigmoid "
        "LogSigmoid Hardsigmoid Tanh Hardtanh Hardswish Tanhshrink Hardshrink Softshrink Threshold"
    ).split()
)
_SAME_NEURONS = (
    *(nn.Identity, nn.Flatten, nn.BatchNorm1d),
    *(nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout),
)
_ACTIVATION_NAMES = (
    "relu relu_ relu6 leaky_relu elu celu selu gelu silu mish softplus softsign sigmoid logsigmoid "
    "hardsigmoid tanh hardtanh hardswish tanhshrink hardshrink softshrink threshold abs square"
).split()
_SAME_NEURON_NAMES = (
    "dropout alpha_dropout flatten squeeze unsqueeze reshape view contiguous float double to clone"
).split()
_ARITHMETIC = {
    "add": 1,
    "sub": -1,
    "mul": None,
    "truediv": None,
    "div": None,
    "neg": None,
    "iadd": 1,
    "isub": -1,
}


def trace(model: nn.Module) -> Graph:
    """Finds the layers of a network.

    Args:
        model: Any module made of linear layers, elementwise activations, dropout, batch norm and
            additions. It is not changed.

    Raises:
        ModelError: ``model-untraceable`` if its forward depends on values, ``model-unsupported``
            for other layers.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            "model-type",
            "A model must be a torch.nn.Module",
            got=type(model).__name__,
            cure="Give the module itself.",
        )
    try:
        with evaluation(model):  # functional dropout is traced as it is in eval mode: absent
            module = fx.symbolic_trace(model)
    except Exception as error:  # whatever the user's forward raises on symbols
        raise ModelError(
            "model-untraceable",
            "The model's forward must be traceable by torch.fx",
            got=f"{type(error).__name__}: {error}",
            cure="Avoid branches and loops that depend on values.",
        ) from error
    builder = _Builder(module)
    for node in module.graph.nodes:
        builder.add(node)
    return builder.graph()


class _Builder:
    """Turns traced steps into layers, one after the other."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.layers: list[Layer] = []
        self.nodes: list[str] = []
        self.position: dict[fx.Node, int] = {}
        self.output = -1

    def add(self, node: fx.Node) -> None:
        if node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                raise ModelError(
                    "model-output",
                    "The model must return one tensor of logits",
                    got=type(node.args[0]).__name__,
                    cure="Wrap it in a module that returns the logits alone.",
                )
            self.output = self.position[node.args[0]]
            return
        if node.op == "get_attr" or (node.op == "placeholder" and node.args):
            return  # a constant, or an optional argument left at its default
        make = {"placeholder": self._input, "call_module": self._module}.get(
            node.op, self._function
        )
        layer = make(node, len(self.layers))
        self.position[node] = layer.index
        self.layers.append(layer)
        self.nodes.append(node.name)

    def graph(self) -> Graph:
        graph = Graph(tuple(self.layers), self.output, self.module, tuple(self.nodes))
        last = graph.layers[self.output]
        if isinstance(last, Elementwise) and last.activation:
            raise ModelError(
                "model-head",
                "The model must return logits",
                got=f"an output that ends in the activation {last.name!r}",
                cure="Leave the last activation out; we apply sigmoid or softmax ourselves.",
            )
        if not graph.hidden:
            raise ModelError(
                "model-no-hidden",
                "The network must have a hidden linear layer",
                got=f"{len(graph.linear)} linear layers",
                cure="A linear model has no neurons to repair.",
            )
        return graph

    def _input(self, node: fx.Node, index: int) -> Layer:
        if index > 0:
            raise ModelError(
                "model-inputs",
                "The model's forward must take one tensor",
                got=f"another input {node.name!r}",
                cure="Wrap it.",
            )
        return Input(str(node.target), index, ())

    def _module(self, node: fx.Node, index: int) -> Layer:
        name = str(node.target)
        module = self.module.get_submodule(name)
        sources = self._sources(node)
        if isinstance(module, nn.Linear):
            bias = f"{name}.bias" if module.bias is not None else None
            return Linear(name, index, sources, f"{name}.weight", bias)
        if isinstance(module, _ACTIVATIONS):
            return Elementwise(name, index, sources, activation=True)
        if isinstance(module, _SAME_NEURONS):
            return Elementwise(name, index, sources)
        raise self._unsupported(name, type(module).__name__)

    def _function(self, node: fx.Node, index: int) -> Layer:
        name = node.target if isinstance(node.target, str) else node.target.__name__
        sources = self._sources(node)
        if node.target is functional.linear:
            arguments = dict(zip(("input", "weight", "bias"), node.args, strict=False)) | dict(
                node.kwargs
            )
            weight, bias = arguments["weight"], arguments.get("bias")
            if isinstance(weight, fx.Node) and weight.op == "get_attr":
                return Linear(
                    str(weight.target), index, sources, str(weight.target),
                    str(bias.target) if isinstance(bias, fx.Node) else None,
                )  # fmt: skip
        elif name in _ACTIVATION_NAMES:
            return Elementwise(node.name, index, sources, activation=True)
        elif name in _SAME_NEURON_NAMES:
            return Elementwise(node.name, index, sources)
        elif name in _ARITHMETIC:
            sign = _ARITHMETIC[name]
            if len(sources) == 1:  # the other operand is a constant
                return Elementwise(node.name, index, sources)
            if sign is not None and not node.kwargs:
                return Sum(node.name, index, sources, (1, sign))
        raise self._unsupported(node.name, name)

    def _sources(self, node: fx.Node) -> tuple[int, ...]:
        operands = [*node.args, *node.kwargs.values()]
        return tuple(
            self.position[n] for n in operands if isinstance(n, fx.Node) and n in self.position
        )

    def _unsupported(self, name: str, kind: str) -> ModelError:
        return ModelError(
            "model-unsupported",
            "Layers must be Linear, activations, Dropout, BatchNorm1d or residual additions",
            got=f"{kind} at {name!r}",
            cure="Other layers have no slicing rule yet.",
        )


class Recorder(fx.Interpreter):
    """Runs a traced network and hands each layer's value ``(n, units)`` to a function.

    Args:
        graph: The traced network.
        module: The module to run, by default the graph's own; a float64 copy, for example.
        see: Called with the position of a layer and its value; what it returns, if not None, takes
            the value's place.
    """

    def __init__(
        self,
        graph: Graph,
        see: Callable[[int, torch.Tensor], torch.Tensor | None],
        module: fx.GraphModule | None = None,
    ) -> None:
        super().__init__(module or graph.module)
        self._index = {name: i for i, name in enumerate(graph.node_of)}
        self._see = see
        self._graph = graph
        self._widths: dict[int, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Runs a step and shows its value."""
        value = super().run_node(n)
        if n.name not in self._index:
            return value
        self._check_width(self._graph.layers[self._index[n.name]], value)
        changed = self._see(self._index[n.name], value.reshape(len(value), -1))
        return value if changed is None else changed.reshape(value.shape)

    def _check_width(self, layer: Layer, value: torch.Tensor) -> None:
        """A unit must be a neuron: broadcasting and linear layers over positions are refused."""
        width = value.numel() // max(len(value), 1)
        self._widths[layer.index] = width
        expected = {self._widths[source] for source in layer.sources} or {width}
        if isinstance(layer, Linear):
            expected = {len(self._graph.weight(layer))}
        if expected != {width}:
            raise ModelError(
                "model-unsupported",
                "Each layer must give one value per neuron",
                got=f"{width} values for {sorted(expected)} neurons at {layer.name!r}",
                cure="Broadcasting and linear layers over positions have no slicing rule yet.",
            )
