"""The paper's ablations: FairNeuron's training loop with another mask of dropped samples."""

import copy

import numpy as np
from torch import nn

from fairneuron.baselines.gradient import checked
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import ModelError, require_range
from fairneuron.forward import in_precision_of
from fairneuron.models import Network
from fairneuron.settings import Schedule
from fairneuron.terms import Loss, MakeOptimiser, Terms
from fairneuron.tracing import trace
from fairneuron.training import train


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
        return _retrained(
            model,
            train,
            valid,
            self.schedule,
            self.terms,
            seed=seed,
            dropped=random_samples(len(train), self.share, seed),
            rate=self.dropout,
        )


class PureDropout(RandomDropout):
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
        super().__init__(1.0, dropout, schedule, loss=loss, optimiser=optimiser)


def random_samples(samples: int, share: float, seed: int) -> Mask:
    """Marks a random share of the samples, at least one; a larger share marks the same and more.

    Args:
        samples: n.
        share: In (0, 1].
        seed: Same seed, same samples.

    Returns:
        ``(n,)`` bool.
    """
    marked = np.zeros(samples, dtype=bool)
    order = np.random.default_rng(seed).permutation(samples)
    marked[order[: max(1, round(share * samples))]] = True
    return marked


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
    own = copy.deepcopy(checked(model, train_data, valid, terms))
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
