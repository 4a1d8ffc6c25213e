"""Tracing: finds the graph of a network by running its forward on symbols (``torch.fx``)."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from fairneuron.checks import require_module
from fairneuron.errors import FairNeuronError, ModelError
from fairneuron.forward import evaluation, first_line
from fairneuron.graph import Elementwise, Graph, Input, Layer, Linear, Sum

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
    "dropout alpha_dropout flatten squeeze unsqueeze reshape view contiguous clone "
    "float double half bfloat16 to"
).split()
_VIEWS = ("view", "reshape", "flatten", "squeeze", "unsqueeze")
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
    if model._forward_hooks or model._forward_pre_hooks:
        raise ModelError(
            "model-untraceable",
            "The model itself must have no forward hooks: tracing does not see them",
            got=f"{len(model._forward_hooks) + len(model._forward_pre_hooks)} of them",
            cure="Remove them, or wrap it: nn.Sequential(model).",
        )
    try:
        # functional dropout is traced as it is in eval mode: absent
        with evaluation(model), _attributes_kept(model):
            graph = fx.Tracer().trace(model, _defaults(model))
            _simplify(model, graph)
            module = fx.GraphModule(model, graph)  # with the constants that tracing left
        builder = _Builder(module)
        for node in module.graph.nodes:
            builder.add(node)
        return builder.graph()
    except FairNeuronError:
        raise
    except Exception as error:  # whatever the user's forward does with symbols
        raise ModelError(
            "model-untraceable",
            "The model's forward must be traceable by torch.fx",
            got=first_line(error),
            cure="Avoid branches and loops that depend on values.",
        ) from error


def _defaults(model: nn.Module) -> dict[str, Any] | None:
    """The optional arguments of a forward after the first; they are left at their defaults."""
    _, *others = inspect.signature(model.forward).parameters.values()
    return {p.name: p.default for p in others if p.default is not p.empty} or None


@contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Gives modules their attributes back: a forward that stores something stores symbols here."""
    places = [place for m in model.modules() for place in (vars(m), *vars(m).values())]
    dicts = [(place, dict(place)) for place in places if isinstance(place, dict)]
    lists = [(place, list(place)) for place in places if isinstance(place, list)]
    try:
        yield
    finally:
        for dictionary, items in dicts:
            dictionary.clear()
            dictionary.update(items)
        for list_, values in lists:
            list_[:] = values


def _simplify(model: nn.Module, graph: fx.Graph) -> None:
    """Drops steps that do not lead to the output, and makes in-place steps explicit.

    After ``relu_(h)`` whoever reads h reads the result; fx records them as readers of the old h.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if _in_place(model, node):
            changed = node.args[0]
            if _name(changed) in _VIEWS and len(changed.all_input_nodes[0].users) > 1:
                raise _unsupported(node.name, "an in-place step on a view")
            later = {user for user in changed.users if order[user] > order[node]}
            changed.replace_all_uses_with(node, delete_user_cb=later.__contains__)
    for node in reversed(graph.nodes):
        checked = "_assert" in _name(node)  # of an optional argument
        optional = node.op == "placeholder" and order[node] > 0 and not node.users
        if checked or optional or (node.target is operator.eq and not node.users):
            graph.erase_node(node)
    graph.set_codegen(fx.graph.CodeGen())
    graph.eliminate_dead_code(partial(_has_effect, model))


def _name(node: fx.Node) -> str:
    """What a step calls: a method, a function, or a module's path."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _has_effect(model: nn.Module, node: fx.Node) -> bool:
    """Whether a step must stay although nothing reads its value."""
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "is_impure", False))
    return node.is_impure()


def _in_place(model: nn.Module, node: fx.Node) -> bool:
    """Whether a step overwrites its first argument."""
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    name = _name(node)
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or bool(node.kwargs.get("inplace")) or name in ("iadd", "isub", "imul")


def _unsupported(name: str, kind: str) -> ModelError:
    return ModelError(
        "model-unsupported",
        "To be traced and repaired, layers must be Linear, activations, Dropout, BatchNorm1d or "
        "residual additions",
        got=f"{kind} at {name!r}",
        cure="Other layers have no slicing rule yet; audit takes any model.",
    )


def _require_own_weight(module: nn.Linear, name: str) -> None:
    """The weight must be a parameter, or computed from some; hooks that set it leave copies old."""
    own = "weight" in module._parameters or "weight" in module._buffers
    if not own and not parametrize.is_parametrized(module, "weight"):
        raise ModelError(
            "model-nonleaf",
            "The weight of a layer must be a parameter",
            got=f"a weight that a hook computes at {name!r}",
            cure="Use torch.nn.utils.parametrizations, or make it permanent with "
            "torch.nn.utils.remove_weight_norm or torch.nn.utils.prune.remove.",
        )


def _active(node: fx.Node) -> bool:
    """Whether a functional dropout drops even in eval mode."""
    given = dict(zip(("input", "p", "training"), node.args, strict=False)) | dict(node.kwargs)
    return bool(given.get("training", True)) and bool(given.get("p", 0.5))


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
            value = node.args[0]
            if not isinstance(value, fx.Node) or value not in self.position:
                constant = isinstance(value, fx.Node)
                raise ModelError(
                    "model-output",
                    "The model must return one tensor of logits",
                    got="a constant" if constant else type(value).__name__,
                    cure="Wrap it in a module that returns the logits alone.",
                )
            self.output = self.position[value]
            return
        if node.op == "get_attr" or self._shape(node):
            return  # a constant
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
        while isinstance(last, Elementwise) and not last.activation:
            last = graph.layers[last.sources[0]]
        if isinstance(last, Elementwise):
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

    def _shape(self, node: fx.Node) -> bool:
        """Whether a step only asks for a shape, as in ``x.view(x.size(0), -1)``."""
        name = _name(node)
        known = ("shape", "device", "dtype")
        asked = name == "size" or (name == "getattr" and node.args[1] in known)
        part = name == "getitem" and isinstance(node.args[0], fx.Node)
        return asked or (part and node.args[0] not in self.position)

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
        if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
            _require_own_weight(module, name)
            bias = f"{name}.bias" if module.bias is not None else None
            return Linear(name, index, sources, f"{name}.weight", bias)
        if isinstance(module, _ACTIVATIONS):
            return Elementwise(name, index, sources, activation=True)
        if isinstance(module, nn.BatchNorm1d) and module.running_mean is None:
            raise _unsupported(name, "BatchNorm1d without running statistics")
        if isinstance(module, _SAME_NEURONS):
            return Elementwise(name, index, sources)
        raise _unsupported(name, type(module).__name__)

    def _function(self, node: fx.Node, index: int) -> Layer:
        name = _name(node)
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
        elif name == "dropout" and _active(node):
            raise _unsupported(node.name, "dropout that is active in eval mode")
        elif name in _SAME_NEURON_NAMES:
            return Elementwise(node.name, index, sources)
        elif name in _ARITHMETIC:
            sign = _ARITHMETIC[name]
            if len(sources) == 1:  # the other operand is a constant
                return Elementwise(node.name, index, sources)
            if sign is not None and not node.kwargs:
                return Sum(node.name, index, sources, (1, sign))
        raise _unsupported(node.name, name)

    def _sources(self, node: fx.Node) -> tuple[int, ...]:
        operands = [*node.args, *node.kwargs.values()]
        return tuple(
            self.position[n] for n in operands if isinstance(n, fx.Node) and n in self.position
        )
