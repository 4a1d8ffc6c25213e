"""The one training loop; rows trained with dropout and parameters that may change are arguments.

Naive, ordinary, pure dropout, random dropout and FairNeuron (Gao et al., Algorithm 1, lines 7 to
11) differ in these two alone. Data stay in memory as tensors: an epoch is a permutation and slices
of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import DataError, ModelError, require_range
from fairneuron.graph import DROPOUT
from fairneuron.models import evaluation, logits, mlp, placed, require_width, task_loss
from fairneuron.settings import Schedule

Objective = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and of how many."""


def quiet(_what: str, _done: int, _of: int) -> None:
    """No progress shown."""


def task_only(out: torch.Tensor, y: torch.Tensor, _group: torch.Tensor) -> torch.Tensor:
    """The objective without a fairness term."""
    return task_loss(out, y)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seeds torch and computes on one thread: neither cores nor earlier calls change results."""
    require_range("seed", seed, 0, 2**63 - 1)
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


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
    objective: Objective = task_only,
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
        objective: Maps logits, labels and groups of a batch to the loss.
        progress: Told after each epoch.

    Returns:
        Whether every loss was finite. If not, the model is as diverged as it was then.
    """
    network = model if run is None else run
    device = next(model.parameters()).device
    x, y, group = (
        placed(model, data.x),
        torch.from_numpy(data.y).to(device),
        torch.from_numpy(data.group).to(device),
    )
    rows = np.zeros(len(data), dtype=bool) if dropped is None else dropped
    halves = [
        (torch.from_numpy(np.flatnonzero(rows == active)), active) for active in np.unique(rows)
    ]
    with reproducible(seed), torch.enable_grad(), _trainable(model, only) as masks:
        best = _Best(model, schedule)
        optimiser = torch.optim.Adam(
            masks, lr=schedule.learning_rate, betas=(0.9, 0.9999), fused=True
        )
        plateau = (
            torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimiser, factor=0.1, patience=schedule.plateau
            )
            if schedule.plateau is not None
            else None
        )
        epochs = schedule.epochs_for(len(data))
        for epoch in range(epochs):
            total = torch.zeros((), device=device)
            for part, active in halves:
                _set_modes(network, bool(active))
                order = part[torch.randperm(len(part))].to(device)
                for batch in order.split(schedule.batch_size):
                    loss = objective(logits(network, x[batch]), y[batch], group[batch])
                    optimiser.zero_grad()
                    loss.backward()
                    for parameter, mask in masks.items():
                        if mask is not None and parameter.grad is not None:
                            parameter.grad.mul_(mask)
                    optimiser.step()
                    total += loss.detach()
            if not math.isfinite(float(total)):
                return False
            progress("training", epoch + 1, epochs)
            if plateau is None and schedule.patience is None:
                continue
            current = loss_of(model, valid)
            if plateau is not None:
                plateau.step(current)
            if best.stop(current):
                break
        best.restore()
    return True


def loss_of(model: nn.Module, data: Dataset) -> float:
    """Mean task loss in eval mode."""
    device = next(model.parameters()).device
    with evaluation(model):
        return float(
            task_loss(logits(model, placed(model, data.x)), torch.from_numpy(data.y).to(device))
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
    progress: Progress = quiet,
) -> nn.Sequential:
    """Trains the paper's network (Gao et al., section 4.1).

    Fully connected, ReLU, Adam with β = (0.9, 0.9999).

    Args:
        train: To train on.
        valid: For the learning rate and early stopping.
        hidden: Widths of the hidden layers; the paper has three of 128 for Census and three of 32
            for the others.
        outputs: 1 for one logit, 2 or more for class logits.
        dropout: Probability of dropout layers; none unless above 0.
        seed: Same seed, same weights.
        schedule: By default up to 50 epochs, batches of 128, learning rate 0.01 × 0.1 on a plateau,
            stopping after 8 epochs without a lower validation loss; the best epoch is kept.
        progress: Told after each epoch.

    Returns:
        The trained network, in eval mode.

    Raises:
        DataError: For an empty part, or labels that the outputs cannot express.
        ModelError: If training diverges.
    """
    require_range("dropout", dropout, 0, 1, open_high=True)
    classes = max(int(train.y.max(initial=0)), int(valid.y.max(initial=0))) + 1
    if not len(train) or not len(valid) or classes > max(outputs, 2):
        raise DataError(
            "data-labels",
            f"Training needs rows, and labels below {max(outputs, 2)}",
            got=f"{len(train)} and {len(valid)} rows with labels up to {classes - 1}",
            cure="Give more data, or outputs= the number of classes.",
        )
    with reproducible(seed):
        model = mlp(train.x.shape[1], hidden, outputs=outputs, dropout=dropout)
    require_width(model, valid.x)
    everybody = np.full(len(train), dropout > 0)
    plan = schedule or Schedule(patience=8)
    if not _fit(model, train, valid, plan, seed=seed, dropped=everybody, progress=progress):
        raise ModelError(
            "model-diverged",
            "Training must keep the loss finite",
            got=f"a learning rate of {plan.learning_rate}",
            cure="Lower it, or scale the inputs.",
        )
    return model.eval()


_fit = train  # `train` is the training part in there


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


class _Best:
    """Remembers the epoch of the lowest validation loss, when a patience is set."""

    def __init__(self, model: nn.Module, schedule: Schedule) -> None:
        self.model, self.patience = model, schedule.patience
        self.loss, self.waited = math.inf, 0
        self.state: dict[str, torch.Tensor] | None = None

    def stop(self, loss: float) -> bool:
        if self.patience is None:
            return False
        if loss < self.loss:
            self.loss, self.waited = loss, 0
            self.state = {k: v.clone() for k, v in self.model.state_dict().items()}
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self) -> None:
        if self.state is not None:
            self.model.load_state_dict(self.state)
