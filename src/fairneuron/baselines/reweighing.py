"""Reweighing: rows count so that group and label are independent."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from fairneuron.baselines.gradient import RETRAINING, checked
from fairneuron.baselines.protocol import Tuned, listed_strengths
from fairneuron.data.dataset import Dataset, Floats
from fairneuron.forward import in_precision_of
from fairneuron.limits import DEFAULT_LIMIT, Limit
from fairneuron.search.together import Job, train_together
from fairneuron.settings import Schedule
from fairneuron.terms import Loss, MakeOptimiser, Terms
from fairneuron.trials import Candidate


class Reweighing(Tuned):
    """All weights of the trained model are retrained on rows that are weighted by w^s.

    w is the weight of Kamiran and Calders (see ``reweighing_weights``); s = 0 weights all rows
    alike, s = 1 is their method, and beyond it the association is turned round. Which gap is
    limited plays its part in the choice alone.

    Args:
        limit: As in ``repair``.
        strengths: The s to try, each at least 0.
        schedule: Of each training.
        loss: As in ``repair``.
        optimiser: As in ``repair``.

    Raises:
        OptionError: For no s or one below 0, and for what is no limit, loss or optimiser.
    """

    STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0)

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        strengths: Sequence[float] = STRENGTHS,
        schedule: Schedule = RETRAINING,
        loss: Loss | None = None,
        optimiser: MakeOptimiser | None = None,
    ) -> None:
        super().__init__(limit)
        self.strengths, self.schedule = listed_strengths(strengths), schedule
        self.terms = Terms(loss, optimiser)

    def candidates(
        self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int
    ) -> Iterator[Candidate]:
        """A network for each s.

        Raises:
            ModelError: For networks that cannot be retrained.
            DataError: As ``require_trainable``.
        """
        own = checked(model, train, valid, self.terms)
        weight = reweighing_weights(train)
        base = np.ones(len(train)) if train.relative_weight is None else train.relative_weight
        jobs = [Job(copy.deepcopy(own), weight=base * weight**s) for s in self.strengths]
        finite = train_together(jobs, train, valid, self.schedule, seed=seed, terms=self.terms)
        for strength, job, ok in zip(self.strengths, jobs, finite, strict=True):
            yield {"strength": strength}, in_precision_of(model, job.model), ok


def reweighing_weights(data: Dataset) -> Floats:
    """The factors of the rows' weights that make group and label independent.

    w(g, y) = P(g) P(y) / P(g, y): Kamiran and Calders, *Data preprocessing techniques for
    classification without discrimination* (Knowledge and Information Systems 33, 2012).
    Probabilities are the data's, by weight, over the rows whose group is compared.

    Returns:
        ``(n,)`` positive; 1 for rows whose group is not compared or without weight.
    """
    weight = np.ones(len(data)) if data.gap_weight is None else data.gap_weight
    joint = np.zeros((data.group.max(initial=0) + 1, data.y.max(initial=0) + 1))
    np.add.at(joint, (data.group, data.y), weight)
    independent = joint.sum(1, keepdims=True) * joint.sum(0) / max(joint.sum(), 1e-300)
    factor = np.divide(independent, joint, out=np.ones_like(joint), where=joint > 0)
    weights: Floats = factor[data.group, data.y]
    return weights
