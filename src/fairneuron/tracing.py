"""Tracing: finds the graph of a network by running its forward on symbols (``torch.fx``)."""

from __future__ import annotations

from torch import fx, nn
from torch.nn import functional

from fairneuron.errors import ModelError
from fairneuron.graph import Elementwise, Graph, Input, Layer, Linear, Sum
from fairneuron.models import evaluation, require_module

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
    require_module(model)
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
