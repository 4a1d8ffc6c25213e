"""What a model must be before it is run, copied or retrained; all else is refused with a cure.

``check_model`` asks for all of it: what can be seen without running the model first, then what a
few rows show.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fairneuron.errors import DataError, FairNeuronError, ModelError
from fairneuron.forward import (
    HALF,
    evaluation,
    first_line,
    full_precision,
    logits,
    placed,
    require_finite,
    tensors_of,
)
from fairneuron.widths import require_names, watched_widths

_FEW = 64  # samples that a model is run on
_SAME_VALUES = tuple("Squeeze Unsqueeze View UnsafeView Reshape Select Slice ToCopy".split())
Module = TypeVar("Module", bound=nn.Module)


def check_model(
    model: nn.Module,
    x: torch.Tensor,
    *,
    feature_names: Sequence[str] = (),
    left_out: Sequence[str] = (),
    retrained: bool = False,
) -> None:
    """Refuses, before any work, a model that cannot be run on some data, or retrained.

    Costs a look at the weights and three forwards of a few rows; one that will be retrained is
    copied, and that copy is run. Neither the model nor the state of random generators changes,
    but for what the model's own forward does to it where it is not retrained.

    Args:
        model: Anything; see ``fairneuron.models`` for what is accepted.
        x: ``(n, features)`` or ``(n, channels, …)`` that it is to read.
        feature_names: The columns of ``x``, for messages and to compare with the model's attribute
            ``feature_names_in_`` or ``feature_names`` if it has one.
        left_out: Columns of the table that are no inputs, and why, as in "sex (sensitive)".
        retrained: Whether it will be copied and trained too.

    Raises:
        ModelError: See the ``model-*`` codes.
    """
    require_module(model)
    if x.ndim < 2:
        raise DataError(
            "data-shape",
            "Inputs must be (n, features), or (n, channels, …)",
            got=tuple(x.shape),
            cure="Reshape them.",
        )
    require_weights(model)
    if feature_names:
        require_names(model, feature_names)
    if retrained:
        require_retrainable(model)
        before, model = model, full_precision(copied(model))
    rows = x[:_FEW]
    if bool((bad := ~torch.isfinite(rows)).any()):
        first = tuple(bad.nonzero()[0].tolist())
        raise DataError(
            "data-nonfinite",
            "Inputs must be finite numbers",
            got=f"{float(rows[first])} in row {first[0]}, column {first[1]} (the first is 0)",
            cure="Fill or drop these rows.",
        )
    if not len(rows):
        return
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices), evaluation(model):
        with watched_widths(model, x.shape[1:], feature_names, left_out):
            _check_repeatable(model, rows)
            _check_logits(model, rows)
        if retrained:
            _check_state(before, model)
            _check_gradient(model, rows)


# What is seen without running it


def require_table(x: torch.Tensor) -> None:
    """Raises a ``DataError`` for images where a network of ours is to be trained."""
    if x.ndim != 2:
        raise DataError(
            "data-shape",
            "The networks that are trained here read tables (n, features)",
            got=tuple(x.shape),
            cure="Train a network of your own on images, and give that.",
        )


def require_module(model: object) -> None:
    """Raises a ``ModelError`` unless the model is a module."""
    if isinstance(model, nn.Module) and hasattr(model, "_modules"):
        return
    if isinstance(model, nn.Module):
        cure = "Call super().__init__() first in its __init__."
    elif isinstance(model, type):
        cure = f"Make an instance of it: {model.__name__}(...)."
    elif isinstance(model, Mapping):
        cure = "Load it into the module that it is of: module.load_state_dict(...)."
    elif isinstance(model, (str, PathLike)):
        cure = "Build the module and load the file's weights into it."
    else:
        cure = "Give the module itself."
    kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
    raise ModelError("model-type", "A model must be a torch.nn.Module", got=kind, cure=cure)


def require_weights(model: nn.Module) -> None:
    """Raises a ``ModelError`` unless every weight is there, and finite; a mask may hold -inf."""
    for name, value in tensors_of(model).items():
        if is_lazy(value):
            raise ModelError(
                "model-lazy",
                "Every weight must be initialised",
                got=f"{name!r}, which still waits for its shape",
                cure="Run the model on a batch once, and train it.",
            )
        if value.is_meta:
            raise ModelError(
                "model-meta",
                "Every weight must have values",
                got=f"{name!r} on the meta device",
                cure="Call model.to_empty(device='cpu') and load the weights.",
            )
        with torch.no_grad():
            bad = ~torch.isfinite(value.float() if value.element_size() == 1 else value)
            if bad.any() and not isinstance(value, nn.Parameter):
                bad &= value != -torch.inf
        if bad.any():
            raise ModelError(
                "model-nonfinite",
                "Every weight must be a finite number",
                got=f"NaN or infinity in {int(bad.sum())} of {value.numel()} in {name!r}",
                cure="Train the model again, with a lower learning rate or scaled inputs.",
            )


def require_retrainable(model: nn.Module) -> None:
    """Raises a ``ModelError`` unless there is something to train, and dropout lets a part pass."""
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p >= 1:
            raise ModelError(
                "model-dropout",
                "Dropout must keep some activations: p < 1",
                got=f"p = {module.p:g} at {path!r}",
                cure="Lower it; no neuron behind it can learn.",
            )
    if not any(p.requires_grad for p in model.parameters()):
        raise ModelError(
            "model-frozen",
            "A parameter must be trainable",
            got="requires_grad = False on all of them" if any(True for _ in model.parameters())
            else "a model without parameters",
            cure="Call requires_grad_(True) on those that may change.",
        )  # fmt: skip


# What a few rows show


def _check_repeatable(model: nn.Module, x: torch.Tensor) -> None:
    """Runs all rows, and a part of them again: each row's output must be a function of that row."""
    inputs = placed(model, x).clone()
    first = logits(model, inputs).double()
    if not torch.equal(inputs, placed(model, x)):
        raise ModelError(
            "model-inplace",
            "The model's forward must not change its input",
            got="an in-place step on it",
            cure="Take an out-of-place step, for example nn.ReLU() without inplace=True.",
        )
    require_finite(first)
    half = len(x) // 2  # the second one: recurrent layers begin there
    close = 1e-2 if inputs.dtype in HALF else 1e-3
    if _alike(logits(model, inputs[half:]).double(), first[half:], close):
        return
    if _alike(logits(model, inputs).double(), first, close):
        if any("quantized" in type(module).__module__ for module in model.modules()):
            return  # dynamic quantisation rounds by the range of the batch
        raise ModelError(
            "model-batch",
            "The model's output for a row must depend on that row alone",
            got="other outputs for the same rows in a smaller batch",
            cure="Normalise with stored statistics, as nn.BatchNorm1d does in eval mode; recurrent "
            "and attention layers read (n, steps, features).",
        )
    raise ModelError(
        "model-stochastic",
        "In eval mode the model must give the same output for the same row",
        got="other outputs in a second run",
        cure="Draw random numbers only if self.training, as nn.Dropout does.",
    )


def _alike(a: torch.Tensor, b: torch.Tensor, close: float) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=close, atol=close * 1e-2)


def _check_logits(model: nn.Module, x: torch.Tensor) -> None:
    """Refuses outputs that end in a sigmoid or softmax: what made them is in their gradient."""
    try:
        with torch.enable_grad():
            out = logits(model, placed(model, x[:2]).clone().requires_grad_().clone())
    except FairNeuronError:  # of a model that runs without gradients alone
        return
    step, name = out.grad_fn, ""
    while step is not None:
        name = type(step).__name__
        if not name.startswith(_SAME_VALUES) or not step.next_functions:
            break
        step = step.next_functions[0][0]
    if name.startswith(("SigmoidBackward", "SoftmaxBackward")):
        raise ModelError(
            "model-head",
            "The model must return logits",
            got=f"an output that ends in a {name.removesuffix('0').removesuffix('Backward')}",
            cure="Leave the last activation out; we apply sigmoid or softmax ourselves.",
        )


def _check_state(before: nn.Module, after: nn.Module) -> None:
    """Compares a model with its copy that ran."""
    state = tensors_of(after)
    for name, value in tensors_of(before).items():
        if name not in state or not torch.equal(value.to(state[name]), state[name]):
            raise ModelError(
                "model-stateful",
                "In eval mode the model's forward must leave its state alone",
                got=f"another {name!r} after it",
                cure="Change buffers only if self.training, as nn.BatchNorm1d does.",
            )


def _check_gradient(model: nn.Module, x: torch.Tensor) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        with torch.enable_grad():
            total = logits(model, placed(model, x).clone()).sum()
            found = torch.autograd.grad(total, trained, allow_unused=True)
        problem = "" if any(g is not None for g in found) else "none that does"
    except FairNeuronError:
        raise
    except Exception as error:  # whatever autograd says about the user's forward
        problem = first_line(error)
    if problem:
        raise ModelError(
            "model-gradient",
            "The model's output must have a gradient for a trainable parameter",
            got=problem,
            cure="Avoid detach, no_grad, inference_mode and in-place steps in forward.",
        )


# Copies


def copied(model: Module) -> Module:
    """A deep copy, on parameters of its own."""
    cached = _cached(model)
    if cached is not None:
        raise ModelError(
            "model-nonleaf",
            "A model must hold no tensors that were computed with gradients: they cannot be copied",
            got=repr(cached),
            cure="Detach it, register it as a buffer, or compute it in forward. For weight_norm "
            "and the like use torch.nn.utils.parametrizations.",
        )
    try:
        twin = copy.deepcopy(model)
        own = {id(p) for p in model.parameters()}
        good = list(twin.state_dict()) == list(model.state_dict())
        good = good and not any(id(p) in own for p in twin.parameters())
        problem = "" if good else "its copy.deepcopy gives something else, or shares its weights"
    except FairNeuronError:
        raise
    except Exception as error:  # whatever the user's attributes raise
        problem = first_line(error)
    if problem:
        raise ModelError(
            "model-copy",
            "The model must be a thing that copy.deepcopy copies",
            got=problem,
            cure="Keep files, locks and the like outside of it.",
        )
    return twin


def _cached(model: nn.Module) -> str | None:
    """Path of an attribute that holds a tensor with a history."""
    for path, module in model.named_modules():
        for name, value in [*vars(module).items(), *module._buffers.items()]:
            inside = value.values() if isinstance(value, dict) else value
            values = inside if isinstance(value, (dict, list, tuple)) else [value]
            if name != "_buffers" and any(
                isinstance(v, torch.Tensor) and not v.is_leaf for v in values
            ):
                return f"{path}.{name}" if path else name
    return None
