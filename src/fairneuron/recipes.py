"""The two recipes: how to slice, cluster and retrain."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from fairneuron.clustering import PathSummary, rare_paths, summarise_paths
from fairneuron.conflict import Neuron, conflict_neurons, incoming_weights, neuron_pulls
from fairneuron.data.dataset import Dataset, Floats, Mask
from fairneuron.explanation import ConflictExplanation, explain_conflict
from fairneuron.gaps import gap_penalty
from fairneuron.models import Penalty
from fairneuron.paths import Means, Paths
from fairneuron.progress import Progress, quiet
from fairneuron.search.muting import OnPath, neurons_on_paths
from fairneuron.search.together import Job, train_together
from fairneuron.settings import (
    ConflictSettings,
    PaperSettings,
    Schedule,
    change,
    make_settings,
    several,
)
from fairneuron.slicing import activation_paths
from fairneuron.terms import Terms
from fairneuron.tracing import trace
from fairneuron.training import PLAIN, Keep, at_once
from fairneuron.trials import Retrained
from fairneuron.walk import amounts_to, gaps_between, mix

Explanation = ConflictExplanation | PathSummary
Masks = Mapping[float, Mapping[str, torch.Tensor]]
"""By share of neurons, which elements may change, by parameter name."""
STRENGTH, RAISED = 0.7, 2.8  # λ, and the one to try where that does not close the gap


@dataclass(frozen=True, eq=False)
class Task:
    """What a recipe works on.

    Attributes:
        model: The original; recipes copy it.
        train: To slice, cluster and retrain on.
        valid: For the learning rate.
        criteria: The differentiable gaps that stand for the limited metrics.
        seed: Of everything random.
        threshold: On the probability of class 1.
        progress: Told of each step.
        terms: The caller's loss, optimiser and time for retraining.
        keep: Called around each training, by a name that is its own in this task.
    """

    model: nn.Module
    train: Dataset
    valid: Dataset
    criteria: tuple[str, ...]
    seed: int
    threshold: float = 0.5
    progress: Progress = quiet
    terms: Terms = PLAIN
    keep: Keep = at_once


class Recipe(Protocol):
    """The three steps; each recipe is a dataclass of its settings."""

    def slice(self, task: Task) -> Any:
        """Takes the network's behaviour apart."""
        ...

    def cluster(self, sliced: Any) -> Any:
        """Separates what carries the disparity from the rest."""
        ...

    def retrain(self, task: Task, carriers: Any) -> Iterator[Retrained]:
        """Retrains copies of the model where it matters, all at once."""
        ...

    def explain(
        self, task: Task, sliced: Any, carriers: Any, chosen: Mapping[str, float]
    ) -> Explanation:
        """Says what was found, in figures, for the settings of the chosen candidate."""
        ...


@dataclass(frozen=True, eq=False)
class Split:
    """The training samples apart: those with rare paths, and the others.

    Attributes:
        gamma: That the paths were sliced with.
        theta: That the rare ones were told from the others by.
        biased: ``(n,)`` whether a sample's path is rare.
        means: That the activations are relative to.
    """

    gamma: float
    theta: float
    biased: Mask
    means: Means


@dataclass(frozen=True)
class Paper(PaperSettings):
    """The published recipe (Algorithm 1); its settings are those of ``PaperSettings``."""

    def slice(self, task: Task) -> dict[float, Paths]:
        """Finds the activation path of each training sample (lines 12 to 28), once for each γ."""
        return {
            gamma: activation_paths(
                task.model,
                task.train.x,
                gamma=gamma,
                progress=task.progress,
                **self.path_options,
            )
            for gamma in several(self.gamma)
        }

    def cluster(self, sliced: dict[float, Paths]) -> list[Split]:
        """Marks the biased samples (lines 29 to 41); thresholds that mark the same ones are one.

        If paths say what is muted, they must be the same too.
        """
        splits: dict[tuple[bytes, float | None], Split] = {}
        for gamma, paths in sliced.items():
            for theta in several(self.theta):
                biased = rare_paths(paths, theta, similar=paths.sketches is not None)
                key = biased.tobytes(), gamma if self.drop == "outside_path" else None
                splits.setdefault(key, Split(gamma, theta, biased, paths.means))
        return list(splits.values())

    def retrain(self, task: Task, splits: list[Split]) -> Iterator[Retrained]:
        """Trains benign samples without, then biased ones with dropout (lines 7 to 11)."""
        rates = several(self.dropout)
        own = rates if self.has_rate(task.model) else rates[:1]
        return self.train_all(task, list(product(splits, own)))

    def has_rate(self, model: nn.Module) -> bool:
        """Whether the dropout rate plays a part in the retraining of a model."""
        return self.drop == "random" and not trace(model).has_dropout

    def train_all(self, task: Task, tried: list[tuple[Split, float]]) -> Iterator[Retrained]:
        """Trains a copy of the model for each split and dropout rate, all at once."""
        muted = self.drop == "outside_path"
        on_path = self._on_path(task, [split for split, _ in tried]) if muted else {}
        jobs = [
            Job(
                copy.deepcopy(task.model),
                dropped=split.biased,
                dropout=rate,
                on_path=on_path.get(split.gamma),
            )
            for split, rate in tried
        ]
        trained = _train(task, jobs, self.schedule)
        for (split, rate), job, finite in zip(tried, jobs, trained, strict=False):
            settings = {"gamma": split.gamma, "theta": split.theta}
            yield settings if muted else settings | {"dropout": rate}, job.model, finite

    def _on_path(self, task: Task, splits: list[Split]) -> dict[float, OnPath]:
        """By γ, the neurons on the paths of all samples that are biased by some θ."""
        found = {}
        for gamma in dict.fromkeys(split.gamma for split in splits):
            own = [split for split in splits if split.gamma == gamma]
            biased = np.any([split.biased for split in own], axis=0)
            found[gamma] = neurons_on_paths(
                task.model,
                task.train.x,
                np.flatnonzero(biased),
                gamma=gamma,
                contribution=self.contribution,
                means=own[0].means,
            )
        return found

    def explain(
        self,
        task: Task,
        sliced: dict[float, Paths],
        splits: list[Split],
        chosen: Mapping[str, float],
    ) -> PathSummary:
        """Counts paths, biased samples and the groups among them."""
        gamma = chosen.get("gamma", splits[0].gamma)
        return summarise_paths(sliced[gamma], task.train, chosen.get("theta", splits[0].theta))


@dataclass(frozen=True, eq=False)
class Way:
    """The way from the original to a retrained network.

    Attributes:
        share: Of the neurons that were retrained.
        strength: λ.
        end: The retrained network.
        gaps: On training data, along the way; see ``gaps_between``.
        finite: Whether the loss stayed finite.
    """

    share: float
    strength: float
    end: nn.Module
    gaps: Floats
    finite: bool

    @property
    def closed(self) -> bool:
        """Whether the gap goes somewhere on the way, but for a tenth."""
        return bool(self.finite and self.gaps.min() <= 0.1 * self.gaps[0])


@dataclass(frozen=True)
class Conflict(ConflictSettings):
    """The default recipe; its settings are those of ``ConflictSettings``."""

    def slice(self, task: Task) -> list[Neuron]:
        """Finds how strongly the gap pulls each hidden neuron."""
        return neuron_pulls(trace(task.model), task.train, task.criteria, task.terms.task_loss)

    def cluster(self, sliced: list[Neuron]) -> dict[float, list[Neuron]]:
        """Picks the neurons with the most leverage; shares that pick the same ones are one."""
        picked = {
            tuple(conflict_neurons(sliced, share)): share
            for share in sorted(several(self.neuron_share), reverse=True)
        }
        return {share: list(neurons) for neurons, share in reversed(picked.items())}

    def retrain(self, task: Task, picked: dict[float, list[Neuron]]) -> Iterator[Retrained]:
        """Trains their incoming weights alone on loss + λ · gap, and stops on the way there."""
        graph = trace(task.model)
        masks = {s: incoming_weights(graph, task.train, n) for s, n in picked.items()}
        strengths = (STRENGTH,) if self.strengths is None else several(self.strengths)
        ways = self._ways(task, masks, list(product(masks, strengths)))
        if self.strengths is None:
            self._raise(task, masks, ways)
        for way in ways:
            settings = {"neuron_share": way.share, "strength": way.strength}
            for amount in amounts_to(way.gaps, several(self.stops)) if way.finite else ():
                yield settings | {"amount": amount}, mix(task.model, way.end, amount), True
            if not way.finite:
                yield settings, way.end, False

    def _raise(self, task: Task, masks: Masks, ways: list[Way]) -> None:
        """Puts longer ways, with a larger λ, in place of those on which the gap does not go.

        If it goes on none, the first one stays: a large λ alone would leave no small repairs.
        """
        short = [i for i, way in enumerate(ways) if way.finite and not way.closed]
        if len(short) == len(ways) > 1:
            del short[0]
        if not short or not task.terms.has_time:
            return
        tried = [(ways[i].share, RAISED) for i in short]
        for i, longer in zip(short, self._ways(task, masks, tried), strict=False):
            if longer.finite:
                ways[i] = longer

    def _ways(
        self,
        task: Task,
        masks: Masks,
        tried: list[tuple[float, float]],
    ) -> list[Way]:
        """Retrains for shares and strengths; the ways there, of those that were begun in time."""
        jobs = [Job(copy.deepcopy(task.model), masks[share], strength) for share, strength in tried]
        name = "; ".join(f"share {share!r}, λ {strength!r}" for share, strength in tried)
        trained = _train(task, jobs, self.schedule, gap_penalty(task.criteria), name=name)
        ways = []
        for (share, strength), job, finite in zip(tried, jobs, trained, strict=False):
            gaps = (
                gaps_between(
                    task.model, job.model, task.train, task.criteria, threshold=task.threshold
                )
                if finite
                else np.zeros(1)
            )
            ways.append(Way(share, strength, job.model, gaps, finite))
        return ways

    def explain(
        self,
        task: Task,
        _sliced: list[Neuron],
        picked: dict[float, list[Neuron]],
        chosen: Mapping[str, float],
    ) -> ConflictExplanation:
        """Measures how much of the gap the chosen neurons carry."""
        smallest = min(picked)
        share = chosen.get("neuron_share", smallest)
        retrained = picked[share]
        return explain_conflict(
            trace(task.model),
            task.train,
            retrained if share < 1 else picked[smallest],
            task.criteria,
            retrained=len(retrained),
            seed=task.seed,
        )


def _train(
    task: Task,
    jobs: list[Job],
    schedule: Schedule,
    penalty: Penalty | None = None,
    *,
    name: str = "candidates",
) -> list[bool]:
    """Trains all jobs; whether each stayed finite, for those that were begun in time."""
    return train_together(
        jobs,
        task.train,
        task.valid,
        schedule,
        seed=task.seed,
        penalty=penalty,
        terms=task.terms,
        keep=lambda part, *training: task.keep(f"retraining {part}: {name}", *training),
        progress=lambda _, done, of: task.progress("retraining", done, of),
    )


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
