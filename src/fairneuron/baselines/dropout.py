"""The paper's ablations: FairNeuron's training loop with another mask of dropped samples."""

import copy

import numpy as np
from torch import nn

from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import ModelError, require_range
from fairneuron.forward import in_precision_of, trainable
from fairneuron.models import Network
from fairneuron.settings import Schedule
from fairneuron.terms import Loss, MakeOptimiser, Terms
from fairneuron.tracing import trace
from fairneuron.training import require_trainable, train


class Naive:
    """The model as it is."""

    def fit(self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int) -> Network:
        """Returns a copy of the model."""
        return Network(copy.deepcopy(model))


class Ordinary:
    """Continued training without dropout.

    Args:
        schedule: Of the training; that of the recipe ``paper`` unless given.
        loss: As in ``repair``.
        optimiser: As in ``repair``.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        *,
        loss: Loss | None = None,
        optimiser: MakeOptimiser | None = None,
    ) -> None:
        self.schedule, self.terms = schedule or Schedule(), Terms(loss, optimiser)

    def fit(self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int) -> Network:
        """Trains a copy of the model on."""
        return _retrained(model, train, valid, self.schedule, self.terms, seed=seed, dropped=None)


class PureDropout:
    """Continued training with dropout for every sample.

    Args:
        dropout: In (0, 1); for networks without dropout layers of their own.
        schedule: Of the training.
        loss: As in ``repair``.
        optimiser: As in ``repair``.
    """

    def __init__(
        self,
        dropout: float = 0.1,
        schedule: Schedule | None = None,
        *,
        loss: Loss | None = None,
        optimiser: MakeOptimiser | None = None,
    ) -> None:
        require_range("dropout", dropout, 0, 1, open_low=True, open_high=True)
        self.dropout, self.schedule = dropout, schedule or Schedule()
        self.terms = Terms(loss, optimiser)

    def fit(self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int) -> Network:
        """Trains a copy of the model on."""
        everybody = np.ones(len(train), dtype=bool)
        return _retrained(
            model,
            train,
            valid,
            self.schedule,
            self.terms,
            seed=seed,
            dropped=everybody,
            rate=self.dropout,
        )


class RandomDropout:
    """Continued training with dropout for a random part of the samples.

    Args:
        share: In (0, 1]: of the samples trained with dropout.
        dropout: In (0, 1); for networks without dropout layers of their own.
        schedule: Of the training.
        loss: As in ``repair``.
        optimiser: As in ``repair``.
    """

    def __init__(
        self,
        share: float = 0.5,
        dropout: float = 0.1,
        schedule: Schedule | None = None,
        *,
        loss: Loss | None = None,
        optimiser: MakeOptimiser | None = None,
    ) -> None:
        require_range("share", share, 0, 1, open_low=True)
        require_range("dropout", dropout, 0, 1, open_low=True, open_high=True)
        self.share, self.dropout, self.schedule = share, dropout, schedule or Schedule()
        self.terms = Terms(loss, optimiser)

    def fit(self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int) -> Network:
        """Trains a copy of the model on."""
        dropped = np.zeros(len(train), dtype=bool)
        chosen = np.random.default_rng(seed).permutation(len(train))[
            : max(1, round(self.share * len(train)))
        ]
        dropped[chosen] = True
        return _retrained(
            model,
            train,
            valid,
            self.schedule,
            self.terms,
            seed=seed,
            dropped=dropped,
            rate=self.dropout,
        )


def _retrained(
    model: nn.Module,
    train_data: Dataset,
    valid: Dataset,
    schedule: Schedule,
    terms: Terms,
    *,
    seed: int,
    dropped: Mask | None,
    rate: float = 0.0,
) -> Network:
    Network(model).check(train_data, retrained=True)
    require_trainable(model, train_data, valid, terms)
    own = copy.deepcopy(trainable(model))
    run = None if dropped is None else trace(own).with_dropout(rate)
    finite = train(
        own, train_data, valid, schedule, seed=seed, dropped=dropped, run=run, terms=terms
    )
    if not finite:
        raise ModelError(
            "model-diverged",
            "Training must keep the loss finite",
            got=f"a learning rate of {schedule.learning_rate}",
            cure="Lower it.",
        )
    return Network(in_precision_of(model, own))
