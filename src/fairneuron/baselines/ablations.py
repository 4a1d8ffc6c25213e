"""What is left of FairNeuron without its choice of neurons or samples, over several settings.

Gao et al., section 4 compare with training that is simply continued, and with dropout for every
sample or for random ones. These are the same trainings with as many configurations as the other
mitigators try; ``fairneuron.baselines.dropout`` has them with one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import torch
from torch import nn

from fairneuron.baselines.dropout import random_samples
from fairneuron.baselines.gradient import checked
from fairneuron.baselines.protocol import Tuned, listed
from fairneuron.data.dataset import Dataset
from fairneuron.forward import in_precision_of
from fairneuron.limits import DEFAULT_LIMIT, Limit
from fairneuron.search.together import Job, train_together
from fairneuron.settings import Schedule
from fairneuron.terms import Loss, MakeOptimiser, Terms
from fairneuron.training import train as train_on
from fairneuron.trials import Candidate

SHARES = (0.1, 0.3, 0.5, 0.8)
RATES = (0.05, 0.1, 0.3)
STOPS = (1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 38, 50)


class RandomSamples(Tuned):
    """Recipe ``paper`` with random samples in the place of those with rare paths.

    With all samples it is continued training with dropout ("pure dropout").

    Args:
        limit: As in ``repair``; for the choice alone.
        shares: Of the samples that are trained with dropout, each in (0, 1].
        dropout: Rates, each in (0, 1); for networks without dropout layers of their own.
        schedule: Of each training; that of the recipe ``paper`` unless given.
        loss: As in ``repair``.
        optimiser: As in ``repair``.

    Raises:
        OptionError: For no share or rate, for one outside its range, and for what is no limit, loss
            or optimiser.
    """

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        shares: Sequence[float] = SHARES,
        dropout: Sequence[float] = RATES,
        schedule: Schedule | None = None,
        loss: Loss | None = None,
        optimiser: MakeOptimiser | None = None,
    ) -> None:
        super().__init__(limit)
        self.shares = listed("shares", shares, open_low=True)
        self.dropout = listed("dropout", dropout, open_low=True, open_high=True)
        self.schedule, self.terms = schedule or Schedule(), Terms(loss, optimiser)

    def candidates(
        self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int
    ) -> Iterator[Candidate]:
        """A network for each share and rate.

        Raises:
            ModelError: For networks that cannot be retrained.
            DataError: As ``require_trainable``.
        """
        own = checked(model, train, valid, self.terms)
        tried = list(product(self.shares, self.dropout))
        jobs = [
            Job(
                copy.deepcopy(own),
                dropped=random_samples(len(train), share, seed),
                dropout=rate,
            )
            for share, rate in tried
        ]
        finite = train_together(jobs, train, valid, self.schedule, seed=seed, terms=self.terms)
        for (share, rate), job, ok in zip(tried, jobs, finite, strict=True):
            yield {"share": share, "dropout": rate}, in_precision_of(model, job.model), ok


class ContinuedTraining(Tuned):
    """All weights are trained on, without a penalty or dropout: one training, stopped on the way.

    Args:
        limit: As in ``repair``; for the choice alone.
        stops: After how many epochs; each stop is a candidate.
        schedule: Of the training, which ends with the last stop; that of the recipe ``paper``
            unless given.
        loss: As in ``repair``.
        optimiser: As in ``repair``.

    Raises:
        OptionError: For no stop or one before the first epoch, and for what is no limit, loss or
            optimiser.
    """

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        stops: Sequence[int] = STOPS,
        schedule: Schedule | None = None,
        loss: Loss | None = None,
        optimiser: MakeOptimiser | None = None,
    ) -> None:
        super().__init__(limit)
        self.stops = tuple(sorted(set(listed("stops", stops, 1, 1e6, whole=True))))
        self.schedule = replace(schedule or Schedule(), epochs=int(self.stops[-1]), min_steps=0)
        self.terms = Terms(loss, optimiser)

    def candidates(
        self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int
    ) -> Iterator[Candidate]:
        """A network for each stop; after one whose loss was not finite, none.

        Raises:
            ModelError: For networks that cannot be retrained.
            DataError: As ``require_trainable``.
        """
        own = copy.deepcopy(checked(model, train, valid, self.terms))
        seen: dict[int, dict[str, torch.Tensor]] = {}

        def see(_: str, epoch: int, _of: int) -> None:
            if epoch in self.stops:
                seen[epoch] = {name: value.clone() for name, value in own.state_dict().items()}

        finite = train_on(
            own, train, valid, self.schedule, seed=seed, terms=self.terms, progress=see
        )
        for epoch, values in seen.items():
            network = copy.deepcopy(own)
            network.load_state_dict(values)
            yield {"epochs": epoch}, in_precision_of(model, network), True
        if not finite:
            yield {"epochs": self.schedule.epochs}, in_precision_of(model, own), False
