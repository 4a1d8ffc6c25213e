"""Trains several networks of one architecture at once, each with its own settings.

A search tries many candidates that differ in little: which neurons may change, λ, which samples are
trained with dropout. Their parameters are stacked (``stack.py``), so that a step of all of them is
a few batched matrix products.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from fairneuron.data.dataset import Dataset, Floats, Mask
from fairneuron.errors import ModelError
from fairneuron.forward import logits, one_thread, placed, tensors_of
from fairneuron.models import Penalty, Scores, weighted_mean
from fairneuron.progress import Progress, quiet
from fairneuron.search.muting import OnPath, with_muting
from fairneuron.search.stack import ALIGNED, Stack
from fairneuron.search.steps import Noise, Step, Steps, dropout_layers, with_fillers, with_noise
from fairneuron.settings import Schedule
from fairneuron.terms import Terms
from fairneuron.tracing import trace
from fairneuron.training import PLAIN, Keep, Watch, at_once, reproducible, train

JUDGED = 2048  # rows at a time
_STATISTICS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True, eq=False)
class Job:
    """What is trained, and what is special about it.

    Attributes:
        model: Trained in place.
        only: Parameter name to a mask of its shape; the elements that may change. All unless given.
        strength: Factor of the penalty, λ.
        weight: ``(n,)`` of the rows in the task loss, in place of the data's.
        dropped: ``(n,)`` rows that are trained with dropout, after the others.
        dropout: Probability of dropout, for networks without dropout layers of their own.
        on_path: Of these rows: what is not on a row's own path is muted, in the place of dropout.
    """

    model: nn.Module
    only: Mapping[str, torch.Tensor] | None = None
    strength: float = 1.0
    weight: Floats | None = None
    dropped: Mask | None = None
    dropout: float = 0.0
    on_path: OnPath | None = None

    def noisy(self) -> tuple[fx.GraphModule, dict[str, Noise]]:
        """The network with the noise of its dropped rows, and that noise by name."""
        graph = trace(self.model)
        if self.on_path is not None:
            return with_muting(graph, self.on_path)
        twin = graph.with_dropout(self.dropout)
        return twin, with_noise(twin)


def train_together(
    jobs: Sequence[Job],
    data: Dataset,
    valid: Dataset,
    schedule: Schedule,
    *,
    seed: int,
    penalty: Penalty | None = None,
    terms: Terms = PLAIN,
    keep: Keep = at_once,
    progress: Progress = quiet,
) -> list[bool]:
    """Trains the networks of the jobs in place, each as ``train`` would, up to rounding.

    The result of a job does not depend on the others: it is the same to the bit in any company.
    Networks with batch statistics, those whose gradients depend on their place in the stack (on
    some processors, if widths are odd), and a caller's own optimiser, are trained one by one.

    Args:
        jobs: Networks of the same class and shapes.
        data: To train on.
        valid: For the plateau and for early stopping.
        schedule: How long and how fast.
        seed: Of the order of the rows and of dropout, for each job the same.
        penalty: A fairness term; each job has its own strength of it.
        terms: The caller's loss, optimiser and time.
        keep: Called around what is trained in one piece.
        progress: Told after each epoch.

    Returns:
        Whether every loss was finite, for each job that was begun before the time was over.

    Raises:
        ModelError: For muting in networks that are trained one by one.
    """
    if _stackable(jobs, data, schedule, terms, penalty):

        def run() -> list[bool]:
            several = jobs
            if len(jobs) == 1:  # a batch of one product is computed otherwise: other bits
                several = [jobs[0], replace(jobs[0], model=copy.deepcopy(jobs[0].model))]
            with reproducible(seed), torch.enable_grad(), _without_hints():
                together = _Together(
                    several, data, schedule, seed=seed, penalty=penalty, terms=terms
                )
                return together.run(valid, progress)[: len(jobs)]

        return keep("together", [job.model for job in jobs], run)
    if any(job.on_path is not None for job in jobs):
        raise ModelError(
            "model-muting",
            "Neurons are muted in networks that run with stacked parameters",
            got="batch statistics, an optimiser of your own, or a forward that vmap cannot run",
            cure='Choose drop="random".',
        )
    return list(
        _one_by_one(
            *(jobs, data, valid, schedule),
            seed=seed,
            penalty=penalty,
            terms=terms,
            keep=keep,
            progress=progress,
        )
    )


def _one_by_one(
    jobs: Sequence[Job],
    data: Dataset,
    valid: Dataset,
    schedule: Schedule,
    *,
    seed: int,
    penalty: Penalty | None,
    terms: Terms,
    keep: Keep,
    progress: Progress,
) -> Iterator[bool]:
    """Those that are begun in time, the first one in any case."""
    for number, job in enumerate(jobs):
        if number and terms.budget is not None and terms.budget.over():
            terms.budget.left_out = len(jobs) - number
            return

        def run(job: Job = job) -> list[bool]:
            finite = train(
                job.model,
                data if job.weight is None else replace(data, weight=job.weight),
                valid,
                schedule,
                seed=seed,
                dropped=job.dropped,
                run=None if job.dropped is None else trace(job.model).with_dropout(job.dropout),
                only=job.only,
                penalty=penalty,
                strength=job.strength,
                terms=terms,
                progress=progress if len(jobs) == 1 else quiet,
            )
            return [finite]

        yield keep(f"network {number}", [job.model], run)[0]
        if len(jobs) > 1:
            progress("training", number + 1, len(jobs))


def _stackable(
    jobs: Sequence[Job],
    data: Dataset,
    schedule: Schedule,
    terms: Terms,
    penalty: Penalty | None,
) -> bool:
    """Whether the jobs are of one architecture that runs with stacked parameters."""
    networks = [job.model for job in jobs]
    if not jobs or terms.optimiser is not None:
        return False
    if len({(_architecture(job.model), job.on_path is None) for job in jobs}) > 1:
        return False
    if any(isinstance(module, _STATISTICS) for module in networks[0].modules()):
        return False
    own_rows = any(job.weight is not None or job.dropped is not None for job in jobs)
    if (penalty is not None and own_rows) or not all(_has_plain_dropout(job) for job in jobs):
        return False
    muted = jobs[0].on_path is not None
    with _without_hints():
        return _runs_stacked(networks[0], data) and (
            muted or _same_anywhere(networks[0], data, schedule.batch_size)
        )


@contextmanager
def _without_hints() -> Iterator[None]:
    """Without torch's word on each step that it stacks in a slow way."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        yield


def _runs_stacked(network: nn.Module, data: Dataset) -> bool:
    """Whether a network's forward can be run for several at once, with the same outputs.

    Steps that look at values fail, and where rows see each other the fillers show.
    """
    own = _private(network)
    x = placed(own, data.x[with_fillers(torch.arange(min(len(data), 100)))])
    with torch.no_grad():
        plain = logits(own, x[: min(len(data), 100)])
        try:
            stack = Stack([own, own], [None, None])
            stacked = stack.forward(own, shared=True)(stack.tensors, x)[0, : len(plain)]
        except Exception:  # whatever its steps say of stacked tensors
            return False
    return torch.allclose(stacked, plain, rtol=1e-3, atol=1e-4, equal_nan=True)


def _same_anywhere(network: nn.Module, data: Dataset, size: int) -> bool:
    """Whether copies get the same gradients, to the bit, wherever they are in a stack.

    On some processors the last bits of a product depend on where in memory its result lies: those
    of layers whose number of weights is no multiple of a vector's length.
    """
    own = _private(network)
    for parameter in own.parameters():  # all of them: which ones change is the jobs' matter
        parameter.requires_grad_(parameter.is_floating_point())
    x = placed(own, data.x[with_fillers(torch.arange(min(len(data), size)))])
    with one_thread(), torch.enable_grad():
        stack = Stack([own] * ALIGNED, [None] * ALIGNED)
        out = stack.forward(own, shared=True)(stack.tensors, x)
        try:
            found = torch.autograd.grad(out.sum(), list(stack.tensors.values()), allow_unused=True)
        except RuntimeError:  # attention takes a fused step that has none, not seeing who wants it
            return False
    gradients = [each for each in found if each is not None and each.isfinite().all()]
    return all(bool((each == each[:1]).all()) for each in gradients)


def _private(network: nn.Module) -> nn.Module:
    """A copy in eval mode to run stacked: what its forward stores is of no use to anybody else."""
    return copy.deepcopy(network).eval()


def _architecture(network: nn.Module) -> tuple[object, ...]:
    tensors = tensors_of(network).items()
    return type(network), *((name, v.shape, v.dtype, v.device) for name, v in tensors)


def _has_plain_dropout(job: Job) -> bool:
    """Whether what is dropped is dropped by ``nn.Dropout``, each layer of which runs once."""
    if job.dropped is None or job.on_path is not None:
        return True
    twin = trace(job.model).with_dropout(job.dropout)
    layers = dropout_layers(twin)
    plain = all(type(twin.get_submodule(name)) is nn.Dropout for name in layers)
    return plain and len(layers) == len(set(layers))


class _Together:
    """One training of all jobs."""

    def __init__(
        self,
        jobs: Sequence[Job],
        data: Dataset,
        schedule: Schedule,
        *,
        seed: int,
        penalty: Penalty | None,
        terms: Terms,
    ) -> None:
        self.network = network = _private(jobs[0].model)
        self.schedule, self.penalty, self.terms = schedule, penalty, terms
        self.stack = Stack([job.model for job in jobs], [job.only for job in jobs])
        self.data = _Columns(network, data, [job.weight for job in jobs])
        self.strengths = self.data.x.new_tensor([job.strength for job in jobs])
        dropped = [job.dropped for job in jobs]
        self.judged = self.stack.forward(network, shared=True)
        self.quiet = self.judged
        noise: list[dict[str, Noise]] = []
        if any(mask is not None for mask in dropped):
            self.quiet = self.stack.forward(network, shared=False)
            twins, noise = map(
                list,
                zip(
                    *(replace(job, model=_private(job.model)).noisy() for job in jobs), strict=True
                ),
            )
            for twin in twins:
                twin(self.data.x[:1])  # which shows the shapes
            self.noisy = self.stack.forward(twins[0], shared=False)
        self.steps = Steps(dropped, len(data), schedule.batch_size, seed, noise)

    def run(self, valid: Dataset, progress: Progress) -> list[bool]:
        """Trains; whether every loss was finite, for each job."""
        rows, schedule = self.stack.rows, self.schedule
        alone = schedule.plateau is not None  # each network has a learning rate of its own
        optimisers = [
            self.terms.optimise(dict.fromkeys(own), schedule.learning_rate)
            for own in ([[row] for row in rows] if alone else [rows])
        ]
        watches = [Watch(schedule, optimisers[b if alone else 0][0]) for b in range(len(rows))]
        finite, running = np.ones(len(rows), bool), np.ones(len(rows), bool)
        best: dict[int, torch.Tensor] = {}
        judge = _Columns(self.network, valid, [])
        epochs = schedule.epochs_for(len(self.data.y))
        for epoch in range(epochs):
            total = torch.zeros(len(rows), device=self.data.x.device)
            for step in self.steps:
                losses = self._losses(step)
                self.stack.backward(losses, running & (np.array(step.counts) > 0))
                for _, take in optimisers:
                    take()
                total += losses.detach()
            finite &= ~running | torch.isfinite(total).cpu().numpy()
            running &= finite
            progress("training", epoch + 1, epochs)
            if watches[0].needs_loss and running.any():
                found = self._valid_losses(judge)
                for b in np.flatnonzero(running).tolist():
                    if watches[b].improved(found[b]):
                        best[b] = rows[b].detach().clone()
                    running[b] = not watches[b].over
            if not running.any() or self.terms.out_of_time(last=epoch + 1 == epochs):
                break
        for b, row in best.items():
            if finite[b]:
                rows[b].data.copy_(row)
        self.stack.write_back()
        return [bool(f) for f in finite]

    def _losses(self, step: Step) -> torch.Tensor:
        """Of all jobs, ``(jobs,)``."""
        rows = step.rows.to(self.data.x.device)
        x, y, group, weight, gap_weight = self.data.at(rows)
        if step.noise is None:
            out = self.quiet(self.stack.tensors, x)
        else:
            noise = {f"{name}.noise": value.to(x) for name, value in step.noise.items()}
            out = self.noisy(self.stack.tensors | noise, x)
        losses = _task_losses(self.terms, out, y, weight, step.counts)
        if self.penalty is None:
            return losses
        n = step.counts[0]  # the same for all, where there is a penalty
        own, weights = (None if w is None else w[:n] for w in (weight, gap_weight))
        scores = Scores(out, y, out.ndim == 3, n, own)
        return losses + self.strengths * self.penalty(scores, y[:n], group[:n], weights)

    def _valid_losses(self, valid: _Columns) -> list[float]:
        """Of all jobs; the networks see some rows at a time."""
        x, y, _, weight, _ = valid.at(with_fillers(torch.arange(len(valid.y))).to(valid.x.device))
        with torch.no_grad():
            out = torch.cat([self.judged(self.stack.tensors, part) for part in x.split(JUDGED)], 1)
            return _task_losses(self.terms, out, y, weight, [len(valid.y)] * len(out)).tolist()


class _Columns:
    """A data set where the networks are.

    Args:
        network: One of them.
        data: n rows.
        weights: For each job its own weights of the rows, or None.
    """

    def __init__(self, network: nn.Module, data: Dataset, weights: Sequence[Floats | None]) -> None:
        self.x = placed(network, data.x)
        self.y, self.group = (torch.from_numpy(c).to(self.x.device) for c in (data.y, data.group))
        relative: Floats | None = data.relative_weight
        if any(own is not None for own in weights):
            parts = [data if own is None else replace(data, weight=own) for own in weights]
            even = np.ones(len(data))
            relative = np.stack(
                [even if p.relative_weight is None else p.relative_weight for p in parts]
            )
        self.weight, self.gap_weight = (
            None if c is None else torch.from_numpy(c).to(self.x)
            for c in (relative, data.gap_weight)
        )

    def at(self, rows: torch.Tensor) -> tuple[Any, ...]:
        """All columns of some rows, ``(n,)`` or for each job ``(jobs, n)``."""
        x, y, group = self.x[rows], self.y[rows], self.group[rows]
        gap_weight = None if self.gap_weight is None else self.gap_weight[rows]
        if self.weight is None or self.weight.ndim == 1:
            weight = None if self.weight is None else self.weight[rows]
        else:
            weight = self.weight.gather(1, rows.expand(len(self.weight), -1))
        return x, y, group, weight, gap_weight


def _task_losses(
    terms: Terms,
    out: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
    counts: Sequence[int],
) -> torch.Tensor:
    """The task loss of each job, ``(jobs,)``, over its first ``counts`` rows.

    Where jobs have rows of their own, sums are over the fillers too, with the weight 0: their
    number does not depend on the company.
    """
    (jobs, n), shared = out.shape[:2], y.ndim == 1
    y = y.expand(jobs, n)
    weight = None if weight is None else weight.expand(jobs, n)
    if terms.loss is not None:
        return torch.stack(
            [
                terms.task_loss(out[b, :c], y[b, :c], None if weight is None else weight[b, :c])
                if c
                else out[b].sum() * 0
                for b, c in enumerate(counts)
            ]
        )
    if out.ndim == 2:
        losses = binary_cross_entropy_with_logits(out, y.to(out.dtype), reduction="none")
    else:
        losses = cross_entropy(out.movedim(-1, 1), y, reduction="none")
    if shared:
        losses = losses[:, : counts[0]]
        weight = None if weight is None else weight[:, : counts[0]]
    else:
        ends = torch.tensor(counts, device=out.device)[:, None]
        there = torch.arange(n, device=out.device) < ends
        weight = there.to(losses) if weight is None else weight * there
    return losses.mean(1) if weight is None else weighted_mean(losses, weight)
