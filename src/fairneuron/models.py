"""Networks: what we take for a classifier, how its outputs are read, and the paper's own.

A classifier is any ``torch.nn.Module`` whose ``forward`` maps ``x (n, features)`` to one logit per
sample, ``(n,)`` or ``(n, 1)`` (the probability of class 1 is its sigmoid), or to a logit per class,
``(n, classes)`` (softmax).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError, require_range, warn

Probabilities = npt.NDArray[np.float64]
_ENOUGH = 100  # samples to suspect that outputs are no logits


def mlp(
    inputs: int, hidden: Sequence[int] = (32, 32, 32), *, outputs: int = 1, dropout: float = 0.0
) -> nn.Sequential:
    """The paper's network (section 4.1): fully connected layers with ReLU.

    Args:
        inputs: Columns of ``x``.
        hidden: Widths of the hidden layers.
        outputs: 1 for one logit, else the number of classes.
        dropout: Adds a dropout layer of this probability after each hidden activation, if above 0.
    """
    layers: list[nn.Module] = []
    width = inputs
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        width = units
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def logits(model: Callable[[torch.Tensor], object], x: torch.Tensor) -> torch.Tensor:
    """Runs the model and checks its output.

    Returns:
        ``(n,)`` for a one-logit head, ``(n, classes)`` otherwise.

    Raises:
        ModelError: If the output is not a tensor of such a shape.
    """
    out = model(x)
    if not isinstance(out, torch.Tensor):
        raise ModelError(
            "model-output",
            "The model must return one tensor of logits",
            got=type(out).__name__,
            cure="Wrap it in a module that returns the logits alone.",
        )
    if out.ndim == 0 and len(x) == 1:  # squeezed too far
        out = out.reshape(1)
    if out.ndim == 2 and out.shape[1] == 1:
        out = out[:, 0]
    if out.ndim not in (1, 2) or len(out) != len(x):
        raise ModelError(
            "model-output",
            "The model must map (n, features) to (n,), (n, 1) or (n, classes)",
            got=f"{tuple(out.shape)} for n = {len(x)}",
            cure="Check the last layer.",
        )
    return out


def task_loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of logits ``(n,)`` or ``(n, classes)`` for int64 labels ``(n,)``."""
    if out.ndim == 1:
        return functional.binary_cross_entropy_with_logits(out, y.to(out.dtype))
    return functional.cross_entropy(out, y)


def positive_score(out: torch.Tensor) -> torch.Tensor:
    """Probability of class 1, ``(n,)``, differentiable."""
    return out.sigmoid() if out.ndim == 1 else out.softmax(1)[:, 1]


def placed(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Inputs on the device and in the precision of the model's parameters."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    return x if first is None else x.to(first.device, first.dtype)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Puts every module into eval mode without gradients; each gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def probabilities(model: nn.Module, x: torch.Tensor, *, batch_size: int = 8192) -> Probabilities:
    """Class probabilities, ``(n, classes)`` float64, with every module in eval mode.

    Raises:
        ModelError: For outputs that are not logits, or not finite.
    """
    require_width(model, x)
    parts, suspicious = [], len(x) >= _ENOUGH
    with evaluation(model):
        for batch in x.split(batch_size):
            out = logits(model, placed(model, batch)).double()
            suspicious = suspicious and out.ndim == 1 and bool(((out >= 0) & (out <= 1)).all())
            parts.append(torch.stack([-out, out], 1).sigmoid() if out.ndim == 1 else out.softmax(1))
    if suspicious:
        warn(
            "model-head",
            "All outputs lie in [0, 1]: they are read as logits, but look like probabilities",
        )
    result: Probabilities = torch.cat(parts).cpu().numpy()
    if not np.isfinite(result).all():
        raise ModelError(
            "model-nonfinite",
            "The model's outputs must be finite",
            got=f"NaN for {int((~np.isfinite(result)).any(1).sum())} of {len(result)} samples",
            cure="Check its weights and the scaling of the inputs.",
        )
    return result


def require_module(model: object) -> None:
    """Raises a ``ModelError`` unless the model is a module."""
    if not isinstance(model, nn.Module):
        raise ModelError(
            "model-type",
            "A model must be a torch.nn.Module",
            got=type(model).__name__,
            cure="Give the module itself.",
        )


def require_width(model: nn.Module, x: torch.Tensor) -> None:
    """Raises a ``ModelError`` if a stack's first layer expects another number of columns."""
    first = next((m for m in model.modules() if isinstance(m, nn.Linear)), None)
    stack = isinstance(model, nn.Sequential) and first is not None and first is model[0]
    if stack and first is not None and first.in_features != x.shape[1]:
        raise ModelError(
            "model-width",
            f"The model expects {first.in_features} inputs",
            got=f"data with {x.shape[1]}",
            cure="Encode the data as for its training, the sensitive columns included or not.",
        )


@runtime_checkable
class Predictor(Protocol):
    """What a mitigator gives back.

    Attributes:
        needs_sensitive: Whether predicting reads the sensitive columns.
    """

    needs_sensitive: bool

    def predict(self, data: Dataset) -> Probabilities:
        """Class probabilities, ``(n, classes)``; see ``predicted_classes``."""
        ...


class Network:
    """A network as a predictor; it reads ``data.x`` alone."""

    needs_sensitive = False

    def __init__(self, model: nn.Module) -> None:
        require_module(model)
        self.model = model

    def predict(self, data: Dataset) -> Probabilities:
        """Class probabilities, ``(n, classes)``."""
        return probabilities(self.model, data.x)


def predicted_classes(scores: Probabilities, threshold: float = 0.5) -> npt.NDArray[np.int64]:
    """Class per sample: of two by the threshold on class 1, of more by the largest score."""
    require_range("threshold", threshold, 0, 1)
    if scores.shape[1] == 2:
        return (scores[:, 1] >= threshold).astype(np.int64)
    return scores.argmax(1).astype(np.int64)
