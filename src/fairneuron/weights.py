"""Weights of networks: state_dicts into files and back, without running anything in a file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fairneuron.checkpoints import FLOATS, read_tensors, tensor_bytes
from fairneuron.checks import require_module, require_weights
from fairneuron.errors import ModelError, printable, warn
from fairneuron.models import mlp

_ARCHITECTURE = "fairneuron.mlp"
_MOST_UNITS, _MOST_LAYERS = 1 << 16, 64
_SHOWN = 5  # names of a kind in a message
_PREFIXES = (  # compiled modules may be anywhere in a module, a parallel one is around it
    ("_orig_mod.", re.compile(r"(?:^|(?<=\.))_orig_mod\."), any),
    ("module.", re.compile(r"^module\."), all),
)
_NONE: Mapping[str, str] = MappingProxyType({})

State = dict[str, torch.Tensor]


def module_weights(model: nn.Module, metadata: Mapping[str, str] = _NONE) -> bytes:
    """The state_dict of any module as a safetensors file; every key of it is there.

    Args:
        model: A module whose state_dict has tensors alone.
        metadata: Text for the header of the file.

    Raises:
        ModelError: For weights without values or that are not finite, and for what is no tensor.
    """
    require_module(model)
    require_weights(model)
    return tensor_bytes(model.state_dict(), metadata)


def load_into(model: nn.Module, path: Path) -> nn.Module:
    """Loads a file of ``module_weights`` or ``torch.save(module.state_dict())`` into a module.

    The file must have all weights of the module, in their shapes, and no others. Floats get the
    module's own precision. What ``torch.compile`` (``_orig_mod.``) and ``DataParallel``
    (``module.``) put before names is left out, with a warning. Weights that are one tensor in the
    module stay one, and need to be in the file once only.

    Args:
        model: The module; it is changed only if everything fits.
        path: The file.

    Returns:
        The module, in eval mode.

    Raises:
        ModelError: For files that are refused, and for weights that do not fit or are not finite.
    """
    require_module(model)
    own = _own_state(model)
    _, found = read_tensors(path)
    state, stripped = _without_prefixes(found, own)
    for same in _tied(own):
        given = [name for name in same if name in state]
        state.update({name: state[given[0]] for name in same if given and name not in state})
    _require_keys(own, state)
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    state = {n: _fitting(n, state[n], own[n].dtype, path, n not in parameters) for n in own}
    for same in _tied(own):
        if not all(torch.equal(state[same[0]], state[name]) for name in same):
            raise _keys_error(f"different values for {_names(same)}, which are one tensor")
    if stripped:
        prefixes = " and ".join(map(repr, stripped))
        warn("model-prefix", f"The names in {printable(str(path))} are read without {prefixes}")
    return _loaded(model, state).eval()


def mlp_weights(model: nn.Sequential, metadata: Mapping[str, str] = _NONE) -> bytes:
    """The weights of an ``mlp`` as safetensors; its widths stand in the header.

    Args:
        model: What ``mlp`` made.
        metadata: Further text for the header.
    """
    linear = [m for m in model if isinstance(m, nn.Linear)]
    dropout = next((m.p for m in model if isinstance(m, nn.Dropout)), 0.0)
    shape = {
        "inputs": linear[0].in_features,
        "hidden": [m.out_features for m in linear[:-1]],
        "outputs": linear[-1].out_features,
        "dropout": dropout,
    }
    return tensor_bytes(model.state_dict(), {**metadata, _ARCHITECTURE: json.dumps(shape)})


def load_mlp(path: Path) -> nn.Sequential:
    """Loads what ``mlp_weights`` made; a safetensors file holds numbers alone and runs nothing.

    Raises:
        ModelError: For other files, and for weights that do not fit or are not finite.
    """
    metadata, state = read_tensors(path)
    with torch.device("meta"):  # no memory before the shapes are known to fit
        model = _build(metadata.get(_ARCHITECTURE), path)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items() if value.dtype in FLOATS}
    if expected != found:
        names = sorted(expected.keys() | state.keys())
        wrong = [name for name in names if expected.get(name) != found.get(name)]
        raise ModelError(
            "model-keys",
            f"The weights must be {', '.join(expected)}",
            got=f"missing, unexpected, misshapen or not real: {printable(', '.join(wrong[:5]))}",
            cure="Check that the file is whole.",
        )
    real = {name: _fitting(name, value, torch.float32, path) for name, value in state.items()}
    model.load_state_dict(real, assign=True)
    return model.eval()


def weights_sum(model: nn.Module) -> str:
    """A sum over the values in a network."""
    found = hashlib.sha256()
    for value in model.state_dict().values():
        found.update(_bytes(value))
    return found.hexdigest()


def network_sum(model: nn.Module) -> str:
    """A sum over a network: its modules, their settings and the values in them."""
    found = hashlib.sha256()
    for name, module in model.named_modules(remove_duplicate=False):
        own = re.sub(r" at 0x[0-9a-fA-F]+", "", module.extra_repr())  # addresses differ by process
        found.update(f"{name} {type(module).__qualname__} {own}\n".encode())
    for name, value in model.state_dict().items():
        kind = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else ""
        found.update(f"{name} {kind}\n".encode() + _bytes(value))
    return found.hexdigest()


def _own_state(model: nn.Module) -> State:
    """The state_dict of a module that weights can be loaded into."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(value) or value.is_meta:
            raise ModelError(
                "model-lazy" if is_lazy(value) else "model-meta",
                "Weights can be loaded into a model that has some already",
                got=f"{printable(name)!r} without values",
                cure="Run the model on a batch once."
                if is_lazy(value)
                else "Call model.to_empty(device='cpu') before.",
            )
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise _keys_error(f"a model with a {type(value).__name__}, no tensor, at {name!r}")
    return state


def _without_prefixes(state: State, own: State) -> tuple[State, list[str]]:
    """The state without the prefixes of wrappers that the model does not have; and these."""
    stripped = []
    for prefix, pattern, enough in _PREFIXES:
        hits = [bool(pattern.search(name)) for name in state]
        if hits and enough(hits) and not any(pattern.search(name) for name in own):
            renamed = {pattern.sub("", name): value for name, value in state.items()}
            if len(renamed) < len(state):
                raise _keys_error(f"the same names with and without {prefix!r}")
            state = renamed
            stripped.append(prefix)
    return dict(state), stripped


def _tied(own: State) -> list[list[str]]:
    """The names of each tensor that has several."""
    names: dict[tuple[object, ...], list[str]] = {}
    for name, value in own.items():
        if value.numel() and value.layout == torch.strided:
            place = value.device, value.data_ptr(), value.dtype, value.shape, value.stride()
            names.setdefault(place, []).append(name)
    return [same for same in names.values() if len(same) > 1]


def _require_keys(own: State, found: State) -> None:
    """Raises one error with all that is missing, unexpected or of another shape or kind."""
    wrong = [
        name
        for name in own.keys() & found.keys()
        if own[name].shape != found[name].shape or _kind(own[name]) != _kind(found[name])
    ]
    problems = {
        "missing": [f"{name} {_shape(own[name])}" for name in own if name not in found],
        "unexpected": [f"{name} {_shape(found[name])}" for name in found if name not in own],
        "not fitting": [
            f"{name} {_shape(found[name])} in place of {_shape(own[name])}"
            for name in sorted(wrong)
        ],
    }
    if any(problems.values()):
        raise _keys_error(
            "; ".join(f"{k}: {_names(names)}" for k, names in problems.items() if names)
        )


def _keys_error(got: str) -> ModelError:
    return ModelError(
        "model-keys",
        "The file must have the weights of the model, all of them and no others",
        got=printable(got),
        cure="Give the architecture that the weights were saved from.",
    )


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:150] for name in names[:_SHOWN]) + more


def _shape(value: torch.Tensor) -> str:
    return f"{_kind(value)}{tuple(value.shape)}"


def _kind(value: torch.Tensor) -> str:
    """Floats are of one kind whatever their width, and shown without a name."""
    return "" if value.dtype in FLOATS else str(value.dtype).removeprefix("torch.")


def _fitting(
    name: str, value: torch.Tensor, dtype: torch.dtype, path: Path, is_buffer: bool = False
) -> torch.Tensor:
    """A copy in the model's precision; finite, but for the -inf of a mask in a buffer."""
    fitting = value.to(dtype, copy=True)
    if dtype in FLOATS:
        bad = ~torch.isfinite(fitting)
        if is_buffer:
            bad &= value != -torch.inf
        if bad.any():
            beyond = bool(torch.isfinite(value[bad]).all())
            much = f"numbers beyond {str(dtype).removeprefix('torch.')}"
            raise ModelError(
                "model-nonfinite",
                "Weights must be finite",
                got=printable(f"{much if beyond else 'NaN or infinity'} in {name} of {path}"),
                cure="Train the model again.",
            )
    return fitting


def _loaded(model: nn.Module, state: State) -> nn.Module:
    """Loads what fits; hooks of the model that fail leave it as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        model.load_state_dict(state)
    except Exception as error:
        with torch.no_grad():
            for name, value in model.state_dict().items():
                value.copy_(before[name])
        raise _keys_error(f"{type(error).__name__} of the model's own loading") from error
    return model


def _build(header: str | None, path: Path) -> nn.Sequential:
    try:
        shape = json.loads(header or "")
        hidden = [int(width) for width in shape["hidden"]]
        widths = [int(shape["inputs"]), *hidden, int(shape["outputs"])]
        dropout = float(shape["dropout"])
        if not 0 <= dropout < 1 or min(widths) < 1:
            raise ValueError(shape)
        if max(widths) > _MOST_UNITS or len(hidden) > _MOST_LAYERS:
            raise ValueError(shape)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelError(
            "model-file",
            "The weights must say which network they belong to",
            got=f"{path} without a valid {_ARCHITECTURE!r} entry in its header",
            cure="Use a file that fairneuron wrote.",
        ) from error
    return mlp(widths[0], hidden, outputs=widths[-1], dropout=dropout)


def _bytes(value: object) -> bytes:
    """The numbers of a tensor; of what else a state may hold, its type alone."""
    if not isinstance(value, torch.Tensor):
        return type(value).__qualname__.encode()
    plain = value.detach().cpu()
    plain = plain.dequantize() if plain.is_quantized else plain
    return plain.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
