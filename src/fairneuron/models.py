"""Networks: what we take for a classifier, how its outputs are read, and the paper's own.

A classifier is any ``torch.nn.Module`` whose ``forward`` maps ``x (n, features)`` to one logit per
sample, ``(n,)`` or ``(n, 1)`` (the probability of class 1 is its sigmoid), or to a logit per class,
``(n, classes)`` (softmax).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from fairneuron.checks import check_model, require_module
from fairneuron.data.dataset import Dataset
from fairneuron.errors import DataError, ModelError, require_range, warn
from fairneuron.forward import evaluation, logits, placed, require_finite, rows_at_once

Probabilities = npt.NDArray[np.float64]
TaskLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Maps logits, labels and weights (None: all alike) to the loss that training lowers, a scalar."""
Penalty = Callable[["Scores", torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Maps the scores of one network or of several, ``(..., n)``, and labels, groups and
``Dataset.gap_weight``, ``(n,)`` each, to what is added to the task losses, ``(...)``."""
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


def task_loss(
    out: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean cross entropy of logits ``(n,)`` or ``(n, classes)`` for int64 labels ``(n,)``.

    With weights ``(n,)`` it is the weighted mean.
    """
    how = "mean" if weight is None else "none"
    if out.ndim == 1:
        losses = functional.binary_cross_entropy_with_logits(out, y.to(out.dtype), reduction=how)
    else:
        losses = functional.cross_entropy(out, y, reduction=how)
    return losses if weight is None else weighted_mean(losses, weight)


def weighted_mean(losses: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Σ w l / Σ w of ``(..., n)``; 0 where no row has weight."""
    total = weight.sum(-1)
    return (losses * weight).sum(-1) / torch.where(total > 0, total, 1)


def positive_score(out: torch.Tensor) -> torch.Tensor:
    """Probability of class 1, ``(n,)``, differentiable."""
    return out.sigmoid() if out.ndim == 1 else out.softmax(1)[:, 1]


@dataclass(frozen=True, eq=False)
class Scores:
    """Probabilities that networks give to a batch, differentiable.

    Attributes:
        out: Logits ``(..., n)`` of heads of one logit, or ``(..., n, classes)``.
        y: ``(n,)`` labels.
        by_class: Whether there is a logit for each class.
        rows: How many of the n are there; the others are fillers.
        weight: ``(rows,)`` how much each sample counts, of whatever group; all alike unless given.
    """

    out: torch.Tensor
    y: torch.Tensor
    by_class: bool
    rows: int | None = None
    weight: torch.Tensor | None = None

    @property
    def positive(self) -> torch.Tensor:
        """Of class 1, ``(..., rows)``."""
        scores = self.out.softmax(-1)[..., 1] if self.by_class else self.out.sigmoid()
        return scores[..., : self.rows]

    @property
    def true(self) -> torch.Tensor:
        """Of each sample's own class, ``(..., rows)``."""
        if self.by_class:
            own = self.y.expand(self.out.shape[:-1])[..., None]
            scores = self.out.softmax(-1).gather(-1, own)[..., 0]
        else:
            scores = torch.where(self.y == 1, self.out, -self.out).sigmoid()
        return scores[..., : self.rows]


def probabilities(
    model: nn.Module,
    x: torch.Tensor,
    *,
    feature_names: Sequence[str] = (),
    left_out: Sequence[str] = (),
    batch_size: int | None = None,
) -> Probabilities:
    """Class probabilities, ``(n, classes)`` float64, with every module in eval mode.

    Raises:
        ModelError: For what ``check_model`` refuses, and for outputs that are not finite.
    """
    check_model(model, x, feature_names=feature_names, left_out=left_out)
    parts, suspicious = [], len(x) >= _ENOUGH
    with evaluation(model):
        for batch in x.split(batch_size or rows_at_once(x)):
            out = logits(model, placed(model, batch)).double()
            suspicious = suspicious and out.ndim == 1 and bool(((out >= 0) & (out <= 1)).all())
            parts.append(torch.stack([-out, out], 1).sigmoid() if out.ndim == 1 else out.softmax(1))
    if suspicious:
        warn(
            "model-head",
            "All outputs lie in [0, 1]: they are read as logits, but look like probabilities",
        )
    result = torch.cat(parts).cpu()
    require_finite(result)
    found: Probabilities = result.numpy()
    return found


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

    def check(self, data: Dataset, *, retrained: bool = False) -> None:
        """See ``check_model``."""
        check_model(
            self.model,
            data.x,
            feature_names=data.feature_names,
            left_out=_left_out(data),
            retrained=retrained,
        )

    def predict(self, data: Dataset) -> Probabilities:
        """Class probabilities, ``(n, classes)``."""
        return probabilities(
            self.model, data.x, feature_names=data.feature_names, left_out=_left_out(data)
        )


def _left_out(data: Dataset) -> list[str]:
    """The sensitive columns that are no inputs."""
    inputs = {name.partition("=")[0] for name in data.feature_names}
    return [f"{name} (sensitive)" for name in data.sensitive_names if name not in inputs]


def predict(model: nn.Module | Predictor, data: Dataset) -> Probabilities:
    """Class probabilities ``(n, classes)`` of a module or predictor, checked against the labels.

    Raises:
        ModelError: For what is no probability, and more classes than a table's label has.
        DataError: For labels that the model has no output for.
    """
    predictor = (
        model
        if not isinstance(model, nn.Module) and isinstance(model, Predictor)
        else Network(model)
    )
    scores = predictor.predict(data)
    if scores.ndim != 2 or len(scores) != len(data) or scores.shape[1] < 2:
        raise ModelError(
            "model-output",
            "A predictor must give (n, classes) probabilities, of two classes or more",
            got=f"{scores.shape} for n = {len(data)}",
            cure="Give a column per class.",
        )
    outside = ~((scores >= 0) & (scores <= 1))  # NaN too
    if outside.any():
        raise ModelError(
            "model-nonfinite",
            "Probabilities must lie in [0, 1]",
            got=f"others for {int(outside.any(1).sum())} of {len(data)} samples",
            cure="Apply sigmoid or softmax to logits; look for NaN in the weights.",
        )
    if data.schema is not None and scores.shape[1] > 2:
        raise ModelError(
            "model-output",
            "A model for two labels must have one logit or two",
            got=f"{scores.shape[1]} outputs",
            cure="Check the head.",
        )
    if data.y.min(initial=0) < 0 or data.y.max(initial=0) >= scores.shape[1]:
        raise DataError(
            "data-labels",
            f"Labels must be below the model's {scores.shape[1]} classes, and at least 0",
            got=f"labels from {data.y.min()} to {data.y.max()}",
            cure="Check the head, or the labels.",
        )
    return scores


def predicted_classes(scores: Probabilities, threshold: float = 0.5) -> npt.NDArray[np.int64]:
    """Class per sample: of two by the threshold on class 1, of more by the largest score."""
    require_range("threshold", threshold, 0, 1)
    if scores.shape[1] == 2:
        return (scores[:, 1] >= threshold).astype(np.int64)
    return scores.argmax(1).astype(np.int64)
