"""The paper's setting: its data sets and networks, how they are trained, and how much is tried."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from fairneuron.compare.setting import OneDataset, PaperNetwork, Setting
from fairneuron.data.builtin import SOURCES, compas_table, load_dataset
from fairneuron.errors import ModelError
from fairneuron.loading import Parts
from fairneuron.reproduce.published import published_data, squared_error
from fairneuron.settings import Schedule
from fairneuron.terms import Loss, Terms
from fairneuron.training import train

CENSUS, CREDIT, COMPAS, PUBLISHED = PARTS = ("census", "credit", "compas", "compas-published")
SENSITIVE = {CENSUS: "sex", CREDIT: "age", COMPAS: "race"}
OUTPUTS = {CENSUS: 2, CREDIT: 2, COMPAS: 1}
"""Softmax over two logits for Census and Credit, a linear output for COMPAS (section 4.1)."""
GAMMA, THETA, DROPOUT = 0.9, 1e-3, 0.1
"""Of single runs: the release's defaults."""


@dataclass(frozen=True)
class Scale:
    """How large an experiment is.

    Attributes:
        quick: Whether it only shows that everything runs: few rows, epochs and values.
        sample: A file with a part of CIFAR-10, to take in the place of all of it.
    """

    quick: bool = False
    sample: str | None = None

    @property
    def rows(self) -> int | None:
        """Of each data set; all of them if None."""
        return 400 if self.quick else None

    @property
    def schedule(self) -> Schedule:
        """Of every training: Adam, learning rate .01, × .1 on a plateau (section 4.1)."""
        return Schedule(epochs=2 if self.quick else 50)

    @property
    def gammas(self) -> tuple[float, ...]:
        """γ that are searched, from the paper's [.5, 1]."""
        return (0.5, 0.9) if self.quick else (0.5, 0.75, 0.95)

    @property
    def thetas(self) -> tuple[float, ...]:
        """θ that are searched, evenly on the logarithmic scale of the paper's [1e-4, 1]."""
        return (1e-3, 0.1) if self.quick else (1e-4, 2e-3, 5e-2, 1.0)

    @property
    def published(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """γ and θ of the release's search (FN/FairNeuron.py)."""
        if self.quick:
            return self.gammas, self.thetas
        return (0.95, 0.9, 0.85, 0.8, 0.7, 0.6), (0.1, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)

    def sweep(self, over: str) -> tuple[float, ...]:
        """γ or θ of figure 5, ascending."""
        if over == "gamma":
            return tuple(np.round(np.linspace(0.5, 1, 3 if self.quick else 11), 3).tolist())
        return tuple(np.logspace(-4, 0, 3 if self.quick else 13).round(6).tolist())


@dataclass(frozen=True, eq=False)
class PaperSetting(Setting):
    """Splits, and base models that are trained as the paper says, for all epochs.

    Attributes:
        scale: Of the experiment.
        loss: Of the base model; cross entropy unless given.
    """

    scale: Scale = Scale()
    loss: Loss | None = None

    @property
    def schedule(self) -> Schedule:
        """Of the naive model's training."""
        return self.scale.schedule

    def base(self, parts: Parts, seed: int) -> nn.Module:
        """The naive model.

        Raises:
            ModelError: If it diverges.
        """
        model = self._start(parts, seed)
        if not self._train(model, parts, seed):
            raise ModelError(
                "model-diverged",
                "Training must keep the loss finite",
                got=f"a learning rate of {self.schedule.learning_rate}",
                cure="Scale the inputs.",
            )
        return model.eval()

    def _train(self, model: nn.Module, parts: Parts, seed: int) -> bool:
        """Trains it in place; whether every loss was finite."""
        return train(model, *parts[:2], self.schedule, seed=seed, terms=Terms(self.loss))

    def describe(self) -> dict[str, Any]:
        """See ``Setting``."""
        return super().describe() | {
            "schedule": asdict(self.schedule),
            "quick": self.scale.quick,
        }


def setting_of(part: str, scale: Scale) -> PaperSetting:
    """The setting of a part; the sensitive column is an input in all of them."""
    if part == PUBLISHED:
        data, network = published_data(compas_table()), PaperNetwork(SOURCES[COMPAS].hidden)
    else:
        data = load_dataset(part, sensitive=SENSITIVE[part], include_sensitive=True)
        network = PaperNetwork(SOURCES[part].hidden, OUTPUTS[part])
    if scale.rows is not None:
        data = data.subset(np.random.default_rng(0).permutation(len(data))[: scale.rows])
    loss = squared_error if part == PUBLISHED else None
    return PaperSetting(OneDataset(data), network, scale=scale, loss=loss)
