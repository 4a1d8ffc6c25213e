"""Trains several networks of one architecture on the same data, each with its own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from fairneuron.data.dataset import Dataset, Floats, Mask
from fairneuron.models import Penalty
from fairneuron.settings import Schedule
from fairneuron.terms import Terms
from fairneuron.tracing import trace
from fairneuron.training import PLAIN, Progress, quiet, train


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
    """

    model: nn.Module
    only: Mapping[str, torch.Tensor] | None = None
    strength: float = 1.0
    weight: Floats | None = None
    dropped: Mask | None = None
    dropout: float = 0.0


def train_together(
    jobs: Sequence[Job],
    data: Dataset,
    valid: Dataset,
    schedule: Schedule,
    *,
    seed: int,
    penalty: Penalty | None = None,
    terms: Terms = PLAIN,
    progress: Progress = quiet,
) -> list[bool]:
    """Trains the networks of the jobs in place, each as ``train`` would.

    Args:
        jobs: Networks of the same class and shapes.
        data: To train on.
        valid: For the plateau and for early stopping.
        schedule: How long and how fast.
        seed: Of the order of the rows, which all share, and of dropout.
        penalty: A fairness term; each job has its own strength of it.
        terms: The caller's loss, optimiser and time.
        progress: Told after each epoch.

    Returns:
        Whether every loss was finite, for each job.
    """
    return [
        train(
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
            progress=progress,
        )
        for job in jobs
    ]
