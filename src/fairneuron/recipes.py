"""The two recipes: how to slice, cluster and retrain."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from fairneuron.clustering import PathSummary, rare_paths, summarise_paths
from fairneuron.conflict import (
    ConflictExplanation,
    Neuron,
    conflict_neurons,
    explain_conflict,
    gap_penalty,
    incoming_weights,
    neuron_pulls,
)
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.paths import Paths
from fairneuron.settings import ConflictSettings, PaperSettings, change, make_settings
from fairneuron.slicing import activation_paths
from fairneuron.terms import Terms
from fairneuron.tracing import trace
from fairneuron.training import PLAIN, Progress, quiet, train
from fairneuron.trials import Retrained

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
        terms: The caller's loss, optimiser and time for retraining.
    """

    model: nn.Module
    train: Dataset
    valid: Dataset
    criteria: tuple[str, ...]
    seed: int
    progress: Progress = quiet
    terms: Terms = PLAIN


class Recipe(Protocol):
    """The three steps; each recipe is a dataclass of its settings."""

    @property
    def candidates(self) -> int:
        """How many models ``retrain`` gives."""
        ...

    def slice(self, task: Task) -> Any:
        """Takes the network's behaviour apart."""
        ...

    def cluster(self, sliced: Any) -> Any:
        """Separates what carries the disparity from the rest."""
        ...

    def retrain(self, task: Task, carriers: Any) -> Iterator[Retrained]:
        """Retrains copies of the model where it matters."""
        ...

    def explain(self, task: Task, sliced: Any, carriers: Any) -> Explanation:
        """Says what was found, in figures."""
        ...


@dataclass(frozen=True)
class Paper(PaperSettings):
    """The published recipe (Algorithm 1); its settings are those of ``PaperSettings``."""

    @property
    def candidates(self) -> int:
        """One."""
        return 1

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

    def retrain(self, task: Task, biased: Mask) -> Iterator[Retrained]:
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
            terms=task.terms,
            progress=lambda _, done, of: task.progress("retraining", done, of),
        )
        yield {"gamma": self.gamma, "theta": self.theta, "dropout": self.dropout}, model, finite

    def explain(self, task: Task, sliced: Paths, _biased: Mask) -> PathSummary:
        """Counts paths, biased samples and the groups among them."""
        return summarise_paths(sliced, task.train, self.theta)


@dataclass(frozen=True)
class Conflict(ConflictSettings):
    """The default recipe; its settings are those of ``ConflictSettings``."""

    @property
    def candidates(self) -> int:
        """One for each λ."""
        return len(self.strengths)

    def slice(self, task: Task) -> list[Neuron]:
        """Finds how strongly the gap pulls each hidden neuron."""
        return neuron_pulls(trace(task.model), task.train, task.criteria, task.terms.task_loss)

    def cluster(self, sliced: list[Neuron]) -> list[Neuron]:
        """Picks the neurons that are pulled most."""
        return conflict_neurons(sliced, self.neuron_share)

    def retrain(self, task: Task, chosen: list[Neuron]) -> Iterator[Retrained]:
        """Trains their incoming weights alone on loss + λ · gap, from the original for each λ.

        Under a time budget the λ come in an order that is spread over their range from the start.
        """
        strengths = self.strengths if task.terms.budget is None else spread(self.strengths)
        only = incoming_weights(trace(task.model), chosen)
        for number, strength in enumerate(strengths, start=1):
            model = copy.deepcopy(task.model)
            finite = train(
                model,
                task.train,
                task.valid,
                self.schedule,
                only=only,
                penalty=gap_penalty(task.criteria),
                strength=strength,
                terms=task.terms,
                seed=task.seed,
            )
            task.progress("retraining", number, len(strengths))
            yield {"strength": strength, "neuron_share": self.neuron_share}, model, finite

    def explain(
        self, task: Task, _sliced: list[Neuron], chosen: list[Neuron]
    ) -> ConflictExplanation:
        """Measures how much of the gap the chosen neurons carry."""
        return explain_conflict(
            trace(task.model), task.train, chosen, task.criteria, seed=task.seed
        )


def spread(values: Sequence[float]) -> tuple[float, ...]:
    """The same values: the middle one first, then the middles of both halves, and so on."""
    ordered, found = sorted(values), []
    parts = [(0, len(ordered))]
    for low, high in parts:  # it grows meanwhile
        if low < high:
            middle = (low + high) // 2
            found.append(ordered[middle])
            parts += [(low, middle), (middle + 1, high)]
    return tuple(found)


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
