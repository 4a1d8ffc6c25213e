"""The one training loop; rows trained with dropout and parameters that may change are arguments.

Naive, ordinary, pure dropout, random dropout and FairNeuron (Gao et al., Algorithm 1, lines 7 to
11) differ in these two alone. Data stay in memory as tensors: an epoch is a permutation and slices
of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import nn

from fairneuron.adam import Adam
from fairneuron.checks import check_model, require_table
from fairneuron.data.dataset import Dataset, Floats, Mask
from fairneuron.errors import DataError, ModelError, require_range
from fairneuron.forward import evaluation, logits, one_thread, placed, rows_at_once
from fairneuron.graph import DROPOUT
from fairneuron.models import Penalty, Scores, TaskLoss, mlp, task_loss
from fairneuron.progress import Progress, quiet
from fairneuron.settings import Schedule
from fairneuron.terms import ClassWeight, Loss, MakeOptimiser, Terms, class_weighted

Keep = Callable[[str, Sequence[nn.Module], Callable[[], list[bool]]], list[bool]]
"""Called with a name, networks, and what trains them in place and says whether each loss stayed
finite. It may put into them what an earlier run came to instead."""

PLAIN = Terms()
GATHERED = 64  # batches; row by row from all over the data is slow, a copy of all of it is large


def at_once(
    _name: str, _networks: Sequence[nn.Module], run: Callable[[], list[bool]]
) -> list[bool]:
    """Nothing kept: the networks are trained."""
    return run()


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seeds torch and computes on one thread: neither cores nor earlier calls change results."""
    require_range("seed", seed, 0, 2**63 - 1)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), one_thread():
        torch.manual_seed(seed)
        yield


def train(
    model: nn.Module,
    data: Dataset,
    valid: Dataset,
    schedule: Schedule,
    *,
    seed: int,
    dropped: Mask | None = None,
    run: nn.Module | None = None,
    only: Mapping[str, torch.Tensor] | None = None,
    penalty: Penalty | None = None,
    strength: float = 1.0,
    terms: Terms = PLAIN,
    progress: Progress = quiet,
) -> bool:
    """Trains a model in place.

    Each epoch trains the rows outside ``dropped`` with dropout inactive, then those inside with
    dropout active. Batch norm keeps its statistics.

    Args:
        model: Whose parameters are trained.
        data: To train on.
        valid: For the plateau and for early stopping; no gradient sees it.
        schedule: How long and how fast.
        seed: Of the order of the rows and of dropout.
        dropped: ``(n,)`` rows that are trained with dropout.
        run: What to run in the model's place; a twin on the same parameters that has dropout
            layers.
        only: Parameter name to a mask of its shape; the elements that may change. All unless given.
        penalty: A fairness term; none unless given.
        strength: Its factor, λ.
        terms: The caller's loss, optimiser and time.
        progress: Told after each epoch.

    Returns:
        Whether every loss was finite. If not, the model is as diverged as it was then.
    """
    network = model if run is None else run
    objective = _Objective(network, data, terms.task_loss, penalty, strength)
    rows = np.zeros(len(data), dtype=bool) if dropped is None else dropped
    halves = [
        (torch.from_numpy(np.flatnonzero(rows == active)), active) for active in np.unique(rows)
    ]
    with reproducible(seed), torch.enable_grad(), _trainable(model, only) as masks:
        optimiser, step = terms.optimise(masks, schedule.learning_rate)
        watch, best = Watch(schedule, optimiser), None
        epochs = schedule.epochs_for(len(data))
        for epoch in range(epochs):
            total = torch.zeros((), device=objective.y.device)
            for part, active in halves:
                _set_modes(network, bool(active))
                order = part[torch.randperm(len(part))].to(total.device)
                for batch in objective.batches(order, schedule.batch_size):
                    loss = objective(*batch)
                    for parameter in masks:
                        parameter.grad = None
                    loss.backward()
                    _mask_gradients(masks)
                    step()
                    total += loss.detach()
            if not total.isfinite():
                return False
            progress("training", epoch + 1, epochs)
            if watch.needs_loss and watch.improved(loss_of(model, valid, terms.task_loss)):
                best = _copied(model)
            if watch.over or terms.out_of_time(last=epoch + 1 == epochs):
                break
        if best is not None:
            model.load_state_dict(best)
    return True


def _mask_gradients(masks: Mapping[nn.Parameter, torch.Tensor | None]) -> None:
    for parameter, mask in masks.items():
        if mask is not None and parameter.grad is not None:
            parameter.grad.mul_(mask)


def _copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def loss_of(model: nn.Module, data: Dataset, task: TaskLoss = task_loss) -> float:
    """Mean task loss in eval mode, by weight."""
    device = next(model.parameters()).device
    with evaluation(model):
        x = placed(model, data.x)
        out = torch.cat([logits(model, part) for part in x.split(rows_at_once(x))])
        y = torch.from_numpy(data.y).to(device)
        return float(task(out, y, _column(model, data.relative_weight)))


def require_trainable(
    model: nn.Module, train: Dataset, valid: Dataset, terms: Terms = PLAIN
) -> None:
    """Refuses what a model cannot be trained on, before any work.

    Args:
        model: One that ``check_model`` accepts.
        train: To train on.
        valid: To choose by.
        terms: The caller's loss is tried on a few rows of ``train``.

    Raises:
        DataError: For parts without samples of two classes or without weight, and labels that the
            model has no output for.
        OptionError: For what is no loss.
    """
    require_classes(train, valid)
    rows = train.subset(np.arange(min(len(train), 64)))
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), evaluation(model):
        out = logits(model, placed(model, rows.x))
        outputs = 2 if out.ndim == 1 else out.shape[1]
        require_labels(train, valid, outputs)
        y = torch.from_numpy(rows.y).to(out.device)
        terms.check(out, y, _column(model, rows.relative_weight))


def require_classes(train: Dataset, valid: Dataset) -> None:
    """Raises a ``DataError`` for a part without samples of two classes, or without weight."""
    for part, title in ((train, "training"), (valid, "validation")):
        classes = np.unique(part.y)
        if len(classes) < 2:
            raise DataError(
                "data-too-few",
                "Training and validation data need samples of two classes or more",
                got=f"{len(part)} {title} rows of the classes {classes.tolist()}",
                cure="Give more data, or split them otherwise.",
            )
        if part.weight is not None and not part.weight.any():
            raise DataError(
                "data-weights",
                "Some training and validation samples must have a weight above 0",
                got=f"zeros alone for {len(part)} {title} rows",
                cure="Correct the weights.",
            )


def require_labels(train: Dataset, valid: Dataset, outputs: int) -> None:
    """Raises a ``DataError`` for labels that a model of so many classes cannot express."""
    low, high = (f(np.concatenate([train.y, valid.y])) for f in (np.min, np.max))
    if low < 0 or high >= outputs:
        raise DataError(
            "data-labels",
            f"Labels must be below the model's {outputs} classes, and at least 0",
            got=f"labels from {low} to {high}",
            cure="Correct the labels, or give the model an output per class.",
        )


def train_classifier(
    train: Dataset,
    valid: Dataset,
    *,
    hidden: Sequence[int] = (32, 32, 32),
    outputs: int = 1,
    dropout: float = 0.0,
    seed: int = 0,
    schedule: Schedule | None = None,
    class_weight: ClassWeight = None,
    loss: Loss | None = None,
    optimiser: MakeOptimiser | None = None,
    keep: Keep = at_once,
    progress: Progress = quiet,
) -> nn.Sequential:
    """Trains the paper's network (Gao et al., section 4.1).

    Fully connected, ReLU, Adam with β = (0.9, 0.9999).

    Args:
        train: To train on. Its rows count by their ``weight``, those of ``valid`` too.
        valid: For the learning rate and early stopping.
        hidden: Widths of the hidden layers; the paper has three of 128 for Census and three of 32
            for the others.
        outputs: 1 for one logit, 2 or more for class logits.
        dropout: Probability of dropout layers; none unless above 0.
        seed: Same seed, same weights.
        schedule: By default up to 50 epochs, batches of 128, learning rate 0.01 × 0.1 on a plateau,
            stopping after 8 epochs without a lower validation loss; the best epoch is kept.
        class_weight: Factors of the weights by class, for example {0: 1, 1: 3}; "balanced" for
            n / (classes · count).
        loss: Maps logits ``(n,)``, or ``(n, classes)`` with class logits, and int64 labels to a
            differentiable scalar or ``(n,)``, which weights need. Cross entropy unless given.
        optimiser: Maps the list of parameters to a ``torch.optim.Optimizer`` of them; its learning
            rate is its own. Adam unless given.
        keep: Called around the training.
        progress: Told after each epoch.

    Returns:
        The trained network, in eval mode.

    Raises:
        DataError: For a part without samples of two classes, or labels that the outputs cannot
            express.
        OptionError: For what is no class weight, loss or optimiser.
        ModelError: If training diverges.
    """
    require_range("dropout", dropout, 0, 1, open_high=True)
    terms = Terms(loss, optimiser)
    require_table(train.x)
    require_classes(train, valid)
    require_labels(train, valid, max(outputs, 2))
    train, valid = class_weighted(train, valid, class_weight)
    with reproducible(seed):
        model = mlp(train.x.shape[1], hidden, outputs=outputs, dropout=dropout)
    check_model(model, valid.x, feature_names=valid.feature_names)
    everybody = np.full(len(train), dropout > 0)
    plan = schedule or Schedule(patience=8)
    require_trainable(model, train, valid, terms)

    def run() -> list[bool]:
        finite = _fit(
            model, train, valid, plan, seed=seed, dropped=everybody, terms=terms, progress=progress
        )
        return [finite]

    if not all(keep("base model", [model], run)):
        raise ModelError(
            "model-diverged",
            "Training must keep the loss finite",
            got=f"a learning rate of {plan.learning_rate}",
            cure="Lower it, or scale the inputs.",
        )
    return model.eval()


_fit = train  # `train` is the training part in there


def _column(model: nn.Module, values: Floats | None) -> torch.Tensor | None:
    """Weights beside the model's inputs."""
    return None if values is None else placed(model, torch.from_numpy(values))


def _set_modes(network: nn.Module, active: bool) -> None:
    """Eval mode, so that batch norm keeps its statistics, but dropout layers as told."""
    network.eval()
    for module in network.modules():
        if isinstance(module, DROPOUT):
            module.train(active)


@contextmanager
def _trainable(
    model: nn.Module, only: Mapping[str, torch.Tensor] | None
) -> Iterator[dict[nn.Parameter, torch.Tensor | None]]:
    """Gives the parameters to train with their masks; flags and modes are restored after."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    masks: dict[nn.Parameter, torch.Tensor | None] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad if only is None else name in only:
            masks[parameter] = None if only is None else only[name].to(parameter)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in masks)
    try:
        if not masks:
            raise ModelError(
                "model-frozen",
                "A parameter must be trainable",
                got="none",
                cure="Set requires_grad on some.",
            )
        yield masks
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
        for module, mode in modes:
            module.training = mode


class _Objective:
    """The loss of the rows of a batch, as a network has it now."""

    def __init__(
        self,
        network: nn.Module,
        data: Dataset,
        task: TaskLoss,
        penalty: Penalty | None,
        strength: float,
    ) -> None:
        self.network, self.task, self.penalty, self.strength = network, task, penalty, strength
        x = placed(network, data.x)
        self.y, group = (torch.from_numpy(c).to(x.device) for c in (data.y, data.group))
        weights = [_column(network, c) for c in (data.relative_weight, data.gap_weight)]
        self.columns = (x, self.y, group, *weights)

    def batches(self, order: torch.Tensor, size: int) -> Iterator[tuple[Any, ...]]:
        """The columns of the rows, batch by batch; rows are gathered for many batches at once."""
        size = min(size, len(order))
        for rows in order.split(GATHERED * size):
            parts = (repeat(c) if c is None else c[rows].split(size) for c in self.columns)
            yield from zip(*parts, strict=False)

    def __call__(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        group: torch.Tensor,
        weight: torch.Tensor | None,
        gap_weight: torch.Tensor | None,
    ) -> torch.Tensor:
        out = logits(self.network, x)
        loss = self.task(out, y, weight)
        if self.penalty is None:
            return loss
        return loss + self.strength * self.penalty(
            Scores(out, y, out.ndim == 2, weight=weight), y, group, gap_weight
        )


class _Plateau:
    """Lowers the learning rate to a tenth after so many epochs without a clearly lower loss.

    As ``torch.optim.lr_scheduler.ReduceLROnPlateau``, which takes nothing but torch's optimisers.
    """

    def __init__(self, patience: int, optimiser: Adam | torch.optim.Optimizer) -> None:
        self._patience, self._groups = patience, optimiser.param_groups
        self._best, self._waited = math.inf, 0

    def step(self, loss: float) -> None:
        """Takes note of an epoch's loss."""
        better = loss < self._best * (1 - 1e-4)
        self._best, self._waited = (loss, 0) if better else (self._best, self._waited + 1)
        if self._waited <= self._patience:
            return
        self._waited = 0
        for group in self._groups:
            rate = float(group["lr"])
            if rate - rate * 0.1 > 1e-8:
                group["lr"] = rate * 0.1


class Watch:
    """What follows from the validation loss after each epoch: plateau and early stopping.

    Args:
        schedule: With a plateau, a patience, both or neither.
        optimiser: Whose learning rate falls on a plateau.

    Attributes:
        over: Whether the patience is at its end.
    """

    def __init__(self, schedule: Schedule, optimiser: Adam | torch.optim.Optimizer) -> None:
        self._patience, self._loss, self._waited = schedule.patience, math.inf, 0
        self._plateau = None if schedule.plateau is None else _Plateau(schedule.plateau, optimiser)
        self.over = False

    @property
    def needs_loss(self) -> bool:
        """Whether the loss plays any part."""
        return self._plateau is not None or self._patience is not None

    def improved(self, loss: float) -> bool:
        """Takes note of an epoch's loss; whether there is a patience and it is the best so far."""
        if self._plateau is not None:
            self._plateau.step(loss)
        if self._patience is None:
            return False
        better = loss < self._loss
        self._loss, self._waited = (loss, 0) if better else (self._loss, self._waited + 1)
        self.over = self._waited >= self._patience
        return better
