"""The algorithm: slice, cluster, retrain.

A recipe says how. ``paper`` is Algorithm 1 of Gao et al.: it slices predictions into activation
paths, clusters samples into those with rare paths and the others, and retrains the rare ones with
dropout. ``conflict``, the default, is what their sections 1 and 2.3 argue for: it slices the gap
into the pull on each neuron, picks the neurons that are pulled most, and retrains those alone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import nn

from fairneuron.audit import audit
from fairneuron.conflict import CRITERIA
from fairneuron.data.dataset import Dataset
from fairneuron.limits import Limit, check_limit
from fairneuron.models import Network
from fairneuron.recipes import Explanation, Recipe, Settings, Task, make_recipe
from fairneuron.training import Progress, quiet
from fairneuron.trials import Trial, choose, front, run_trial
from fairneuron.verdict import Verdict, judge

DEFAULT_LIMIT: Limit = {"dp": 0.05}


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
        one class alone, have an undefined limited metric or a larger gap than the original are
        never chosen.

    Raises:
        OptionError: For unknown recipes, options or limits.
        ModelError: For networks that cannot be traced.
        DataError: For fewer than two groups.
    """
    settings, bounds = make_recipe(recipe, options), check_limit(limit)
    steps: Recipe = settings
    criteria = tuple(dict.fromkeys(CRITERIA[name] for name in bounds))
    task = Task(Network(model).model, train, valid, criteria, seed, progress)
    audit(model, train)  # refuses what cannot be trained on, before any work
    trials = [run_trial(0, ({}, model, True), valid, bounds)]

    sliced = steps.slice(task)
    carriers = steps.cluster(sliced)
    for candidate in steps.retrain(task, carriers):
        trials.append(run_trial(len(trials), candidate, valid, bounds))

    chosen = choose(trials, bounds)
    repaired = copy.deepcopy(model) if chosen.number == 0 else chosen.model
    return Repair(
        model=repaired,
        front=front(trials, bounds),
        explanation=steps.explain(task, sliced, carriers),
        verdict=judge(model, repaired, valid, bounds, on="validation", seed=seed),
        chosen=chosen,
        trials=tuple(trials),
        limit=bounds,
        recipe=settings,
        seed=seed,
    )


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
        self.recipe, self.limit = make_recipe(recipe, options), check_limit(limit)
        self.result: Repair | None = None

    def fit(self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int) -> Network:
        """Repairs a copy of the model; all that was found stays in ``result``."""
        self.result = repair(model, train, valid, recipe=self.recipe, limit=self.limit, seed=seed)
        return Network(self.result.model)
