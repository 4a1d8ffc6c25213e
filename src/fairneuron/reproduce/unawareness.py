"""Fairness through unawareness: a network that was never told the group."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from fairneuron.baselines.gradient import initialised
from fairneuron.counterfactual import stating_inputs
from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError
from fairneuron.models import Network, Probabilities
from fairneuron.settings import Schedule
from fairneuron.training import train as train_on


class Unawareness:
    """The network is trained anew without the sensitive columns among its inputs.

    They are held at 0, which is as good as leaving them out and keeps the architecture. What goes
    with the group stays an input: Dwork et al., *Fairness Through Awareness* (2012), say why this
    is not enough.

    Args:
        schedule: Of the training; that of the recipe ``paper`` unless given.
    """

    needs_sensitive = False

    def __init__(self, schedule: Schedule | None = None) -> None:
        self.schedule = schedule or Schedule()

    def fit(self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int) -> Unaware:
        """Trains a fresh network of the model's architecture.

        Raises:
            ModelError: If training diverges, or the model cannot be initialised anew.
        """
        fresh = initialised(model, seed)
        if not train_on(fresh, blind(train), blind(valid), self.schedule, seed=seed):
            raise ModelError(
                "model-diverged",
                "Training must keep the loss finite",
                got=f"a learning rate of {self.schedule.learning_rate}",
                cure="Lower it.",
            )
        return Unaware(fresh)


class Unaware:
    """A network that reads the inputs without the sensitive columns."""

    needs_sensitive = False

    def __init__(self, model: nn.Module) -> None:
        self.network = Network(model)

    def predict(self, data: Dataset) -> Probabilities:
        """Class probabilities, ``(n, classes)``."""
        return self.network.predict(blind(data))


def blind(data: Dataset) -> Dataset:
    """The data with the inputs that are named after a sensitive column held at 0."""
    x = data.x.clone()
    x[:, stating_inputs(data)] = 0
    return replace(data, x=x)
