"""The two recipes: how to slice, cluster and retrain."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from fairneuron.clustering import PathSummary, rare_paths, summarise_paths
from fairneuron.conflict import (
    ConflictExplanation,
    Neuron,
    conflict_neurons,
    explain_conflict,
    incoming_weights,
    neuron_pulls,
    soft_gap,
)
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.models import positive_score, task_loss
from fairneuron.settings import ConflictSettings, PaperSettings, change, make_settings
from fairneuron.slicing import Paths, activation_paths
from fairneuron.tracing import trace
from fairneuron.training import Progress, train
from fairneuron.trials import Candidate

Explanation = ConflictExplanation | PathSummary


@dataclass(frozen=True, eq=False)
class Task:
    """What a recipe works on.

    Attributes:
        model: The original; recipes copy it.
        train: To slice, cluster and retrain on.
        valid: For the learning rate.
        criteria: The differentiable gaps that stand for the limited metrics.
        seed: Of everything random.
        progress: Told of each step.
    """

    model: nn.Module
    train: Dataset
    valid: Dataset
    criteria: tuple[str, ...]
    seed: int
    progress: Progress


class Recipe(Protocol):
    """The three steps; each recipe is a dataclass of its settings."""

    def slice(self, task: Task) -> Any:
        """Takes the network's behaviour apart."""
        ...

    def cluster(self, sliced: Any) -> Any:
        """Separates what carries the disparity from the rest."""
        ...

    def retrain(self, task: Task, carriers: Any) -> Iterator[Candidate]:
        """Retrains copies of the model where it matters."""
        ...

    def explain(self, task: Task, sliced: Any, carriers: Any) -> Explanation:
        """Says what was found, in figures."""
        ...


@dataclass(frozen=True)
class Paper(PaperSettings):
    """The published recipe (Algorithm 1); its settings are those of ``PaperSettings``."""

    def slice(self, task: Task) -> Paths:
        """Finds the activation path of each training sample (lines 12 to 28)."""
        return activation_paths(
            task.model,
            task.train.x,
            gamma=self.gamma,
            contribution=self.contribution,
            progress=task.progress,
        )

    def cluster(self, sliced: Paths) -> Mask:
        """Marks the biased samples (lines 29 to 41)."""
        return rare_paths(sliced, self.theta)

    def retrain(self, task: Task, biased: Mask) -> Iterator[Candidate]:
        """Trains benign samples without, then biased ones with dropout (lines 7 to 11)."""
        model = copy.deepcopy(task.model)
        finite = train(
            model,
            task.train,
            task.valid,
            self.schedule,
            dropped=biased,
            run=trace(model).with_dropout(self.dropout),
            seed=task.seed,
            progress=lambda _, done, of: task.progress("retraining", done, of),
        )
        yield {"gamma": self.gamma, "theta": self.theta, "dropout": self.dropout}, model, finite

    def explain(self, task: Task, sliced: Paths, _biased: Mask) -> PathSummary:
        """Counts paths, biased samples and the groups among them."""
        return summarise_paths(sliced, task.train, self.theta)


@dataclass(frozen=True)
class Conflict(ConflictSettings):
    """The default recipe; its settings are those of ``ConflictSettings``."""

    def slice(self, task: Task) -> list[Neuron]:
        """Finds how strongly the gap pulls each hidden neuron."""
        return neuron_pulls(trace(task.model), task.train, task.criteria)

    def cluster(self, sliced: list[Neuron]) -> list[Neuron]:
        """Picks the neurons that are pulled most."""
        return conflict_neurons(sliced, self.neuron_share)

    def retrain(self, task: Task, chosen: list[Neuron]) -> Iterator[Candidate]:
        """Trains their incoming weights alone on loss + λ · gap, from the original for each λ."""
        only = incoming_weights(trace(task.model), chosen)
        for number, strength in enumerate(self.strengths, start=1):
            model = copy.deepcopy(task.model)
            finite = train(
                model,
                task.train,
                task.valid,
                self.schedule,
                only=only,
                objective=partial(_loss_and_gap, strength=strength, criteria=task.criteria),
                seed=task.seed,
            )
            task.progress("retraining", number, len(self.strengths))
            yield {"strength": strength, "neuron_share": self.neuron_share}, model, finite

    def explain(
        self, task: Task, _sliced: list[Neuron], chosen: list[Neuron]
    ) -> ConflictExplanation:
        """Measures how much of the gap the chosen neurons carry."""
        return explain_conflict(
            trace(task.model), task.train, chosen, task.criteria, seed=task.seed
        )


def _loss_and_gap(
    out: torch.Tensor,
    y: torch.Tensor,
    group: torch.Tensor,
    *,
    strength: float,
    criteria: tuple[str, ...],
) -> torch.Tensor:
    return task_loss(out, y) + strength * soft_gap(positive_score(out), y, group, criteria)


Settings = Conflict | Paper
RECIPES: dict[str, type[Conflict] | type[Paper]] = {"conflict": Conflict, "paper": Paper}


def make_recipe(recipe: str | Settings, options: Mapping[str, Any]) -> Settings:
    """Resolves a recipe's name and changes its settings.

    Raises:
        OptionError: For unknown names and values out of range.
    """
    if isinstance(recipe, str):
        settings = make_settings(recipe, options)
        fields = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
        return RECIPES[recipe](**fields)
    return change(recipe, options)
