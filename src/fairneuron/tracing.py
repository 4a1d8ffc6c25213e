"""Tracing: finds the graph of a network by running its forward on symbols (``torch.fx``)."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from fairneuron.checks import require_module
from fairneuron.errors import FairNeuronError, ModelError
from fairneuron.forward import evaluation, first_line
from fairneuron.graph import (
    Convolution,
    Elementwise,
    Graph,
    Heads,
    Input,
    Layer,
    Layout,
    Linear,
    Lookup,
    Opaque,
    Sum,
)
from fairneuron.unfolding import Tracer

_ACTIVATIONS = tuple(
    getattr(nn, name)
    for name in (
        "ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU SELU GELU SiLU Mish Softplus Softsign Sigmoid "
        "LogSigmoid Hardsigmoid Tanh Hardtanh Hardswish Tanhshrink Hardshrink Softshrink Threshold"
    ).split()
)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_SAME = (
    *(nn.Identity, nn.modules.dropout._DropoutNd, *_NORMS),
    *(nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm),
)
_LAYOUTS = (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
_POOLS = (
    *(nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd),
    *(nn.modules.pooling._AdaptiveMaxPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd),
)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ACTIVATION_NAMES = (
    "relu relu_ relu6 leaky_relu elu celu selu gelu silu mish softplus softsign sigmoid logsigmoid "
    "hardsigmoid tanh hardtanh hardswish tanhshrink hardshrink softshrink threshold abs square"
).split()
_SAME_NAMES = (
    "dropout alpha_dropout feature_dropout feature_alpha_dropout dropout1d dropout2d dropout3d "
    "contiguous clone float double half bfloat16 long int to layer_norm group_norm rms_norm"
).split()
_VIEWS = ("view", "reshape", "flatten", "squeeze", "unsqueeze")
_LAYOUT_NAMES = (
    *_VIEWS,
    *(
        "permute transpose movedim swapaxes t unflatten expand expand_as repeat chunk split unbind "
        "getitem select narrow cat concat concatenate stack index_select flip roll pixel_shuffle "
        "channel_shuffle"
    ).split(),
)
_POOL_NAMES = (
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_max_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d mean sum amax"
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
        model: Any module; steps of no known kind are ``Opaque``. It is not changed.

    Raises:
        ModelError: ``model-untraceable`` if its forward depends on values, ``model-unsupported``
            for steps that look at the batch or are random in eval mode.
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
            graph = Tracer().trace(model, _defaults(model))
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
        "A layer must have units, and in eval mode a step must be a function of each row alone and "
        "overwrite no view",
        got=f"{kind} at {name!r}",
        cure="Normalise by stored statistics; switch dropout off if not self.training.",
    )


def _require_own_weight(module: nn.Module, name: str) -> None:
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


_FORWARDS = [kind.forward for kind in _CONVOLUTIONS]
_GEOMETRY = ("stride", "padding", "dilation", "groups")
_CONVOLVED = {functional.conv1d: 1, functional.conv2d: 2, functional.conv3d: 3}  # over axes


def _own(module: nn.Module, name: str) -> tuple[str, str | None]:
    """Names of the weight and the bias."""
    _require_own_weight(module, name)
    return f"{name}.weight", f"{name}.bias" if module.bias is not None else None


def _geometry(module: nn.Module) -> tuple[Any, ...]:
    """The fields of a ``Convolution`` after its weights."""
    both: Any = module._reversed_padding_repeated_twice
    padding = tuple(zip(both[::2], both[1::2], strict=True))[::-1]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return module.stride, padding, module.dilation, module.groups, mode


def _geometry_of_call(given: Mapping[str, Any], kernel: Sequence[int]) -> tuple[Any, ...] | None:
    """The same of a functional convolution; None if the input says some of it."""
    computed: list[fx.Node] = []
    fx.map_arg([given.get(name) for name in _GEOMETRY], computed.append)
    if computed:
        return None

    def each(name: str, default: int) -> tuple[int, ...]:
        value = given.get(name, default)
        return (
            (value,) * len(kernel)
            if isinstance(value, int)
            else tuple(value) * (len(kernel) // len(value))
        )

    dilation, padding = each("dilation", 1), given.get("padding", 0)
    if padding == "same":
        total = [gap * (size - 1) for gap, size in zip(dilation, kernel, strict=True)]
        both = tuple((places // 2, places - places // 2) for places in total)
    else:
        both = tuple(
            (p, p) for p in ((0,) * len(kernel) if padding == "valid" else each("padding", 0))
        )
    return each("stride", 1), both, dilation, given.get("groups", 1)


def _arguments(node: fx.Node, names: str) -> dict[str, Any]:
    return dict(zip(names.split(), node.args, strict=False)) | dict(node.kwargs)


def _require_row_alone(module: nn.Module, name: str) -> None:
    """Refuses batch norm that looks at the batch in eval mode."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        raise _unsupported(name, f"{type(module).__name__} without running statistics")


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
        if node.op != "placeholder" and (not self._sources(node) or self._shape(node)):
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
        while isinstance(last, (Elementwise, Layout)) and not getattr(last, "activation", False):
            last = graph.layers[last.sources[0]]
        softmax = isinstance(last, Opaque) and last.kind.lower() == "softmax"
        if isinstance(last, Elementwise) or softmax:
            raise ModelError(
                "model-head",
                "The model must return logits",
                got=f"an output that ends in the activation {last.name!r}",
                cure="Leave the last activation out; we apply sigmoid or softmax ourselves.",
            )
        for one in graph.weighted:
            if not len(graph.weight(one)):
                raise _unsupported(one.name, "a layer without units")
        other = [layer for layer in graph.layers if isinstance(layer, Opaque)]
        if not graph.hidden and other:
            raise ModelError(
                "model-unsupported",
                "A hidden layer of neurons must be linear, convolutional, or attention without a "
                "mask",
                got=f"{other[0].kind} at {other[0].name!r}, and linear layers at the output alone",
                cure="Put a linear layer before the last one.",
            )
        if not graph.hidden:
            raise ModelError(
                "model-no-hidden",
                "The network must have a hidden layer of neurons with weights",
                got=f"{len(graph.weighted)} linear or convolutional layers, all at the output",
                cure="A linear model has no neurons to repair.",
            )
        return graph

    def _shape(self, node: fx.Node) -> bool:
        """Whether a step only asks for a shape, as in ``x.view(x.size(0), -1)``."""
        name = _name(node)
        known = ("shape", "device", "dtype", "ndim")
        return name in ("size", "dim") or (name == "getattr" and node.args[1] in known)

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
        name, sources = str(node.target), self._sources(node)
        module = self.module.get_submodule(name)
        _require_row_alone(module, name)
        if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
            return Linear(name, index, sources, *_own(module, name))
        if isinstance(module, _CONVOLUTIONS) and type(module).forward in _FORWARDS:
            return Convolution(name, index, sources, *_own(module, name), *_geometry(module))
        if isinstance(module, nn.Embedding):
            return Lookup(name, index, sources, f"{name}.weight")
        if isinstance(module, (*_ACTIVATIONS, *_SAME)):
            activation = isinstance(module, _ACTIVATIONS)
            return Elementwise(name, index, sources, activation=activation)
        if isinstance(module, (*_LAYOUTS, *_POOLS)):
            return Layout(name, index, sources, pools=isinstance(module, _POOLS))
        return Opaque(name, index, sources, type(module).__name__)

    def _function(self, node: fx.Node, index: int) -> Layer:
        name, sources = _name(node), self._sources(node)
        if "dropout" in name and _active(node):
            raise _unsupported(node.name, "dropout that is active in eval mode")
        if name in (*_ACTIVATION_NAMES, *_SAME_NAMES) and len(sources) == 1:
            activation = name in _ACTIVATION_NAMES
            return Elementwise(node.name, index, sources, activation=activation)
        if name in (*_LAYOUT_NAMES, *_POOL_NAMES):
            return Layout(node.name, index, sources, pools=name in _POOL_NAMES)
        layer = (
            self._weighted_call(node, index)
            or self._attention_call(node, index)
            or self._arithmetic(node, index)
        )
        return layer or Opaque(node.name, index, sources, name)

    def _weighted_call(self, node: fx.Node, index: int) -> Layer | None:
        given = _arguments(node, "input weight bias stride padding dilation groups")
        weight, bias = given.get("weight"), given.get("bias")
        axes = _CONVOLVED.get(node.target)  # type: ignore[arg-type]
        if node.target is not functional.linear and axes is None:
            return None
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            return None
        if isinstance(bias, fx.Node) and bias.op != "get_attr":
            return None
        name = str(weight.target)
        bias_name = str(bias.target) if isinstance(bias, fx.Node) else None
        own = name.removesuffix(".weight"), index, self._sources(node), name, bias_name
        if axes is None:
            return Linear(*own)
        kernel = operator.attrgetter(name)(self.module).shape[2:]
        geometry = _geometry_of_call(given, kernel)
        return None if geometry is None else Convolution(*own, *geometry)

    def _attention_call(self, node: fx.Node, index: int) -> Layer | None:
        given = _arguments(node, "query key value attn_mask dropout_p is_causal scale enable_gqa")
        sources = self._sources(node)
        plain = not any(given.get(name) for name in ("dropout_p", "enable_gqa"))
        alone = given.get("attn_mask") is None and len(sources) == 3
        known = not any(isinstance(given.get(n), fx.Node) for n in ("is_causal", "scale"))
        if node.target is not functional.scaled_dot_product_attention or not (
            plain and alone and known
        ):
            return None
        return Heads(node.name, index, sources, bool(given.get("is_causal")), given.get("scale"))

    def _arithmetic(self, node: fx.Node, index: int) -> Layer | None:
        name, sources = _name(node), self._sources(node)
        if name not in _ARITHMETIC:
            return None
        if len(sources) == 1:  # the other operand is a constant
            return Elementwise(node.name, index, sources)
        sign = _ARITHMETIC[name]
        if sign is None or node.kwargs or len(node.args) != 2:
            return None
        return Sum(node.name, index, sources, (1, sign))

    def _sources(self, node: fx.Node) -> tuple[int, ...]:
        operands: list[fx.Node] = []  # x + x reads x twice; all_input_nodes has it once
        fx.map_arg((node.args, node.kwargs), operands.append)
        return tuple(self.position[n] for n in operands if n in self.position)
