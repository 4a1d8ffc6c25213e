"""The algorithm: slice, cluster, retrain.

Two recipes for the same three steps:

==============  ==========================================
=============================================== step            ``paper`` (Gao et al., Algorithm 1)
``conflict`` (what their sections 1 and 2.3 argue for)
==============  ==========================================
=============================================== slice           each sample's prediction into its
path      the gap into the pull on each neuron cluster         samples with rare paths, and the
others     the neurons pulled most, and the others retrain         the rare ones with dropout
those neurons alone, on loss + λ · gap
==============  ==========================================
===============================================
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from fairneuron.clustering import PathSummary, rare_paths, summarise_paths
from fairneuron.conflict import (
    CRITERIA,
    ConflictExplanation,
    Neuron,
    conflict_neurons,
    explain_conflict,
    incoming_weights,
    neuron_pulls,
    soft_gap,
)
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import OptionError, did_you_mean, require_known, require_range
from fairneuron.models import Network, positive_score, task_loss
from fairneuron.slicing import Paths, activation_paths
from fairneuron.tracing import trace
from fairneuron.training import Progress, Schedule, quiet
from fairneuron.training import train as train_model
from fairneuron.trials import Candidate, Trial, choose, front, run_trial
from fairneuron.verdict import Limit, Verdict, check_limit, judge

DEFAULT_LIMIT: Limit = {"dp": 0.05}
Explanation = ConflictExplanation | PathSummary


@dataclass(frozen=True)
class Paper:
    """The published recipe: samples with rare paths are retrained with dropout (Algorithm 1).

    Attributes:
        gamma: In (0, 1]: share of a neuron's value that its synapses on the path explain.
        theta: In [0, 1]: a path is rare if its count is at most theta times the largest count, or
            1.
        dropout: In (0, 1): dropout probability, for networks without dropout layers of their own.
        contribution: "signed" or "absolute"; see ``activation_paths``.
        schedule: Of the retraining.
    """

    gamma: float = 0.9
    theta: float = 1e-3
    dropout: float = 0.1
    contribution: str = "signed"
    schedule: Schedule = field(default=Schedule(epochs=50, batch_size=128, learning_rate=0.01))

    def __post_init__(self) -> None:
        require_range("gamma", self.gamma, 0, 1, open_low=True)
        require_range("theta", self.theta, 0, 1)
        require_range("dropout", self.dropout, 0, 1, open_low=True, open_high=True)

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
        finite = train_model(
            model,
            task.train,
            task.valid,
            self.schedule,
            dropped=biased,
            run=trace(model).with_dropout(self.dropout),
            seed=task.seed,
            progress=task.progress,
        )
        yield {"gamma": self.gamma, "theta": self.theta, "dropout": self.dropout}, model, finite

    def explain(self, task: Task, sliced: Paths, _biased: Mask) -> PathSummary:
        """Counts paths, biased samples and the groups among them."""
        return summarise_paths(sliced, task.train, self.theta)


@dataclass(frozen=True)
class Conflict:
    """The default recipe: neurons that carry the gap are retrained on loss + λ · gap.

    Attributes:
        neuron_share: In (0, 1]: the largest share of hidden neurons whose incoming weights may
            change.
        strengths: The λ to try.
        schedule: Of each retraining; in large batches, as each must show the gap.
    """

    neuron_share: float = 0.1
    strengths: tuple[float, ...] = (
        0.1,
        0.13,
        0.16,
        0.2,
        0.26,
        0.33,
        0.42,
        0.54,
        0.68,
        0.87,
        1.1,
        1.4,
    )
    schedule: Schedule = field(
        default=Schedule(
            epochs=10, batch_size=512, learning_rate=0.002, plateau=None, min_steps=200
        )
    )

    def __post_init__(self) -> None:
        require_range("neuron_share", self.neuron_share, 0, 1, open_low=True)
        for strength in self.strengths:
            require_range("strengths", strength, 0, 1e6, open_low=True)

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
            finite = train_model(
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


Settings = Conflict | Paper
RECIPES: dict[str, type[Conflict] | type[Paper]] = {"conflict": Conflict, "paper": Paper}


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


@dataclass(frozen=True, eq=False)
class Repair:
    """The result of a repair.

    Attributes:
        model: The chosen candidate; a copy of the original only if no candidate beats it on
            validation data.
        front: The trials that no other one beats in both validation accuracy and gap, the smallest
            gap first.
        explanation: Which neurons, or which paths and samples, carry the disparity.
        verdict: On validation data.
        chosen: The trial that ``model`` is from.
        trials: All of them; number 0 is the original.
        limit: What was asked for.
        recipe: With all its settings.
        seed: Of everything random.
    """

    model: nn.Module
    front: tuple[Trial, ...]
    explanation: Explanation
    verdict: Verdict
    chosen: Trial
    trials: tuple[Trial, ...]
    limit: dict[str, float]
    recipe: Settings
    seed: int


def repair(
    model: nn.Module,
    train: Dataset,
    valid: Dataset,
    *,
    recipe: str | Settings = "conflict",
    limit: Limit = DEFAULT_LIMIT,
    seed: int = 0,
    progress: Progress = quiet,
    **options: Any,
) -> Repair:
    """Shrinks a trained network's gap between groups by retraining only what carries it.

    Args:
        model: A trained, traceable classifier; it is not changed.
        train: The data it was trained on, as it reads them.
        valid: Other data, to choose among the candidates.
        recipe: "conflict" or "paper", or one of their settings objects ``Conflict`` and ``Paper``.
        limit: Metric name ("dp", "dpr", "eo", "eodds") to the worst value that is accepted.
        seed: Same seed, same result.
        progress: Told of each step.
        **options: Settings of the recipe by name, for example ``neuron_share=0.1`` or
            ``theta=0.01``.

    Returns:
        The chosen model and what else was found. Under the limit the most accurate candidate on
        validation data is chosen, or else the one nearest to it. Candidates that diverged, predict
        one class alone, or have an undefined limited metric are never chosen.

    Raises:
        OptionError: For unknown recipes, options or limits.
        ModelError: For networks that cannot be traced.
        DataError: For fewer than two groups.
    """
    settings, bounds = _recipe(recipe, options), check_limit(limit)
    plan: Recipe = settings
    criteria = tuple(dict.fromkeys(CRITERIA[name] for name in bounds))
    task = Task(Network(model).model, train, valid, criteria, seed, progress)
    trials = [run_trial(0, ({}, model, True), valid, bounds)]

    sliced = plan.slice(task)
    carriers = plan.cluster(sliced)
    for candidate in plan.retrain(task, carriers):
        trials.append(run_trial(len(trials), candidate, valid, bounds))

    chosen = choose(trials, bounds)
    repaired = copy.deepcopy(model) if chosen.number == 0 else chosen.model
    return Repair(
        model=repaired,
        front=front(trials, bounds),
        explanation=plan.explain(task, sliced, carriers),
        verdict=judge(model, repaired, valid, bounds, on="validation", seed=seed),
        chosen=chosen,
        trials=tuple(trials),
        limit=bounds,
        recipe=settings,
        seed=seed,
    )


def _recipe(recipe: str | Settings, options: Mapping[str, Any]) -> Settings:
    if isinstance(recipe, str):
        require_known("option-recipe", "recipe", recipe, RECIPES)
        kind = RECIPES[recipe]
        known = [*(f.name for f in dataclasses.fields(kind)), "epochs"]
        for name in options:
            if name not in known:
                raise OptionError(
                    "option-unknown",
                    f"The recipe {recipe} has no such option",
                    got=repr(name),
                    cure=did_you_mean(name, known),
                )
        recipe = kind()
    changes = dict(options)
    if "epochs" in changes:  # the one setting of the schedule that people change
        schedule = changes.get("schedule", recipe.schedule)
        changes["schedule"] = dataclasses.replace(
            schedule, epochs=changes.pop("epochs"), min_steps=0
        )
    return dataclasses.replace(recipe, **changes)


class FairNeuron:
    """``repair`` as a mitigator.

    Args:
        recipe: As in ``repair``.
        limit: As in ``repair``.
        **options: As in ``repair``.
    """

    def __init__(
        self, recipe: str | Settings = "conflict", *, limit: Limit = DEFAULT_LIMIT, **options: Any
    ) -> None:
        self.recipe, self.limit = _recipe(recipe, options), check_limit(limit)
        self.result: Repair | None = None

    def fit(self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int) -> Network:
        """Repairs a copy of the model; all that was found stays in ``result``."""
        self.result = repair(model, train, valid, recipe=self.recipe, limit=self.limit, seed=seed)
        return Network(self.result.model)
