"""The terms of a training: whose loss and optimiser, how much each class counts, how long."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real

import numpy as np
import torch
from torch import nn

from fairneuron.adam import Adam
from fairneuron.data.dataset import Dataset
from fairneuron.errors import OptionError, require_range
from fairneuron.forward import first_line
from fairneuron.models import TaskLoss, task_loss, weighted_mean

clock = time.monotonic

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps logits ``(n,)`` or ``(n, classes)`` and int64 labels ``(n,)`` to a scalar or ``(n,)``."""
MakeOptimiser = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
ClassWeight = str | Mapping[int, float] | None
Masks = Mapping[nn.Parameter, torch.Tensor | None]


class Budget:
    """The seconds that the retrainings of a repair may take.

    Args:
        seconds: Above 0.

    Attributes:
        cut: Whether a training was cut short.
        left_out: Trainings that were not begun.

    Raises:
        OptionError: For other seconds.
    """

    def __init__(self, seconds: float) -> None:
        require_range("time_budget", seconds, 0, math.inf, open_low=True)
        self.seconds, self.cut, self.left_out, self._end = seconds, False, 0, math.inf

    def start(self) -> None:
        """Starts the clock."""
        self._end = clock() + self.seconds

    def over(self) -> bool:
        """Whether they have passed."""
        return clock() >= self._end


@dataclass(frozen=True, eq=False)
class Terms:
    """What a training may be given.

    Attributes:
        loss: Maps logits, as the model gives them but without a dimension of one, and int64 labels
            to a scalar, or to a loss per sample ``(n,)``, which weights need. Cross entropy unless
            given.
        optimiser: Maps the list of parameters to an optimiser of them. Adam unless given.
        budget: When to stop after the epoch.
    """

    loss: Loss | None = None
    optimiser: MakeOptimiser | None = None
    budget: Budget | None = None

    def __post_init__(self) -> None:
        if self.loss is not None and not callable(self.loss):
            raise _loss_error("something else", type(self.loss).__name__)
        if self.optimiser is not None and not callable(self.optimiser):
            raise _optimiser_error("something else", type(self.optimiser).__name__)

    @property
    def has_time(self) -> bool:
        """Whether another training may begin."""
        return self.budget is None or not self.budget.over()

    def out_of_time(self, *, last: bool) -> bool:
        """Whether a training must stop after an epoch; it is cut short unless that is its last."""
        if last or self.budget is None or not self.budget.over():
            return False
        self.budget.cut = True
        return True

    @property
    def stopped(self) -> str | None:
        """What the budget kept from happening, in words; None if nothing."""
        budget = self.budget
        if budget is None or not (budget.cut or budget.left_out):
            return None
        text = f"the time budget of {budget.seconds:g} s ended the retraining early"
        return f"{text}; networks not begun: {budget.left_out}" if budget.left_out else text

    @property
    def task_loss(self) -> TaskLoss:
        """The weighted mean of the loss, a scalar."""
        return task_loss if self.loss is None else partial(_weighted, self.loss)

    def check(self, out: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None) -> None:
        """Tries the caller's loss on some logits.

        Raises:
            OptionError: If it fails, or gives no loss, or one that the logits play no part in.
        """
        if self.loss is None:
            return
        with torch.enable_grad():
            leaf = out.detach().requires_grad_(True)
            value = self.task_loss(leaf, y, weight)
            try:
                (gradient,) = torch.autograd.grad(value, [leaf], allow_unused=True)
            except Exception as error:  # whatever autograd says about the caller's loss
                raise _loss_error("one without a gradient", first_line(error)) from error
        if gradient is None:
            raise _loss_error("one", "that does not depend on the logits")

    def optimise(
        self, masks: Masks, learning_rate: float
    ) -> tuple[Adam | torch.optim.Optimizer, Callable[[], object]]:
        """An optimiser of some parameters, and how to take a step with it.

        Args:
            masks: Parameters, with masks of their elements that may change; the gradients of the
                others are 0.
            learning_rate: Of Adam; an optimiser that the caller gave has its own.

        Raises:
            OptionError: For what is no optimiser of these parameters, or needs a closure.
        """
        if self.optimiser is None:
            adam = Adam(masks, learning_rate)
            return adam, adam.step
        try:
            optimiser = self.optimiser(list(masks))
        except Exception as error:  # whatever the caller's function raises
            raise _optimiser_error("an exception", first_line(error)) from error
        _check_optimiser(optimiser, masks)
        return optimiser, _guarded(optimiser, masks)


def _weighted(
    loss: Loss, out: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    """The caller's loss as one of ours."""
    try:
        value = loss(out, y)
    except Exception as error:  # whatever the caller's function raises
        raise _loss_error("an exception", first_line(error)) from error
    if not isinstance(value, torch.Tensor):
        raise _loss_error("no tensor", type(value).__name__)
    if value.shape not in ((), y.shape):
        raise _loss_error("the shape", f"{tuple(value.shape)} for n = {len(y)}")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise _loss_error("one without a gradient", "a constant for autograd")
    if weight is None:
        return value.mean()
    if value.ndim == 0 and len(y) > 1:
        raise OptionError(
            "option-loss",
            "With weights the loss must give a value per sample, (n,)",
            got="one value",
            cure="Leave the mean to us, for example with reduction='none'.",
        )
    return weighted_mean(value.reshape(len(y)), weight)


def _loss_error(what: str, got: str) -> OptionError:
    return OptionError(
        "option-loss",
        "loss must be a function of logits, (n,) or (n, classes), and int64 labels (n,) that gives "
        "a differentiable tensor, one value or (n,)",
        got=f"{what}: {got}",
        cure="For one logit, for example: lambda logits, y: "
        "torch.nn.functional.binary_cross_entropy_with_logits(logits, y.to(logits.dtype)).",
    )


def _check_optimiser(optimiser: torch.optim.Optimizer, masks: Masks) -> None:
    if not isinstance(optimiser, torch.optim.Optimizer):
        raise _optimiser_error("something else", type(optimiser).__name__)
    name = type(optimiser).__name__
    if _needs_closure(optimiser):
        raise _optimiser_error("one whose step needs a closure", name)
    known = {id(parameter) for parameter in masks}
    for group in optimiser.param_groups:
        if any(id(parameter) not in known for parameter in group["params"]):
            raise _optimiser_error("one of other parameters than it was called with", name)
        if "lr" not in group:
            raise _optimiser_error("one without lr in its param_groups", name)


def _needs_closure(optimiser: torch.optim.Optimizer) -> bool:
    from inspect import signature

    closure = signature(optimiser.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def _guarded(optimiser: torch.optim.Optimizer, masks: Masks) -> Callable[[], None]:
    """A step after which the elements that may not change are as they were, to the bit.

    Weight decay and the like move elements without a gradient too.
    """
    kept = [(p, mask != 0, p.detach().clone()) for p, mask in masks.items() if mask is not None]

    def step() -> None:
        try:
            optimiser.step()
        except Exception as error:  # whatever the caller's optimiser raises
            raise _optimiser_error("an exception", first_line(error)) from error
        with torch.no_grad():
            for parameter, free, start in kept:
                parameter.copy_(torch.where(free, parameter, start))

    return step


def _optimiser_error(what: str, got: str) -> OptionError:
    return OptionError(
        "option-optimiser",
        "optimiser must be a function of a list of parameters that gives a torch.optim.Optimizer "
        "of them whose step needs no closure",
        got=f"{what}: {got}",
        cure="For example: lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9).",
    )


# Weights of classes


def check_class_weight(class_weight: ClassWeight) -> None:
    """Raises an ``OptionError`` unless it is None, "balanced" or positive numbers by class."""
    if class_weight is None or (isinstance(class_weight, str) and class_weight == "balanced"):
        return
    if not isinstance(class_weight, Mapping) or not class_weight:
        raise _class_weight_error(repr(class_weight))
    for label, weight in class_weight.items():
        number = isinstance(weight, Real) and not isinstance(weight, bool)
        if not (number and 0 < weight < math.inf):
            raise _class_weight_error(f"{weight!r} for class {label!r}")


def class_weighted(
    train: Dataset, valid: Dataset, class_weight: ClassWeight
) -> tuple[Dataset, Dataset]:
    """Multiplies the weights of both parts by those of their classes.

    Args:
        train: Its class frequencies, by weight, are what "balanced" balances.
        valid: Gets the same factors.
        class_weight: Factor by class, 1 for a class that is not named; "balanced": n / (classes ·
            count), as in scikit-learn; None leaves the parts as they are.

    Raises:
        OptionError: For a class that ``train`` does not have, or factors that are not positive.
    """
    check_class_weight(class_weight)
    if class_weight is None:
        return train, valid
    classes = np.unique(train.y).tolist()
    factor = np.ones(1 + max(part.y.max(initial=0) for part in (train, valid)))
    if isinstance(class_weight, str):
        weight = train.relative_weight
        count = np.bincount(train.y, weight, minlength=len(factor))  # by weight
        np.divide(count.sum(), len(classes) * count, out=factor, where=count > 0)
    else:
        for label, value in class_weight.items():
            if label not in classes:
                raise _class_weight_error(f"class {label!r}, where there are {classes}")
            factor[int(label)] = value

    def weighted(part: Dataset) -> Dataset:
        own = 1.0 if part.relative_weight is None else part.relative_weight
        return replace(part, weight=factor[part.y] * own)

    return weighted(train), weighted(valid)


def _class_weight_error(got: str) -> OptionError:
    return OptionError(
        "option-class-weight",
        'class_weight must be None, "balanced" or a positive number for some of the classes',
        got=got,
        cure="For example {0: 1, 1: 3}.",
    )
