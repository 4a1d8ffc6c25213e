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

from fairneuron.audit import audit_scores, predict
from fairneuron.conflict import CRITERIA
from fairneuron.data.dataset import Dataset
from fairneuron.errors import require_range
from fairneuron.forward import in_precision_of, trainable
from fairneuron.limits import DEFAULT_LIMIT, Limit, check_limit
from fairneuron.models import Network
from fairneuron.recipes import Explanation, Recipe, Settings, Task, make_recipe
from fairneuron.terms import (
    Budget,
    ClassWeight,
    Loss,
    MakeOptimiser,
    Terms,
    check_class_weight,
    class_weighted,
)
from fairneuron.training import Progress, quiet, require_classes, require_trainable
from fairneuron.trials import Trial, choose, front, run_trial
from fairneuron.verdict import Verdict, judge


def repair(
    model: nn.Module,
    train: Dataset,
    valid: Dataset,
    *,
    recipe: str | Settings = "conflict",
    limit: Limit = DEFAULT_LIMIT,
    threshold: float = 0.5,
    class_weight: ClassWeight = None,
    loss: Loss | None = None,
    optimiser: MakeOptimiser | None = None,
    time_budget: float | None = None,
    seed: int = 0,
    progress: Progress = quiet,
    **options: Any,
) -> Repair:
    """Shrinks a trained network's gap between groups by retraining only what carries it.

    Args:
        model: A trained, traceable classifier; it is not changed.
        train: The data it was trained on, as it reads them. Rows count by their ``weight``, in the
            loss and in the gap; rows of the group "unknown" count in the loss alone.
        valid: Other data, to choose among the candidates.
        recipe: "conflict" or "paper", or one of their settings objects ``Conflict`` and ``Paper``.
        limit: Metric name ("dp", "dpr", "eo", "eodds") to the worst value that is accepted.
        threshold: On the probability of class 1, where candidates are audited and judged.
        class_weight: Factors of the weights by class, for example {0: 1, 1: 3}; "balanced" for
            n / (classes · count).
        loss: Maps logits ``(n,)``, or ``(n, classes)`` of a model with class logits, and int64
            labels to a differentiable scalar or ``(n,)``, which weights need. Cross entropy unless
            given.
        optimiser: Maps the list of parameters to a ``torch.optim.Optimizer`` of them; its learning
            rate is its own. Adam unless given.
        time_budget: Seconds for retraining. When they have passed, no candidate is begun and the
            one in training stops after its epoch, so the same seed need not give the same result.
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
        OptionError: For unknown recipes, options or limits, and values out of range.
        ModelError: For networks that cannot be traced.
        DataError: For fewer than two groups or classes, and labels that the model has no output
            for.
    """
    settings, bounds = make_recipe(recipe, options), check_limit(limit)
    require_range("threshold", threshold, 0, 1)
    terms = Terms(loss, optimiser, None if time_budget is None else Budget(time_budget))
    check_class_weight(class_weight)
    steps: Recipe = settings
    criteria = tuple(dict.fromkeys(CRITERIA[name] for name in bounds))
    Network(model).check(train, retrained=True)
    require_classes(train, valid)
    train, valid = class_weighted(train, valid, class_weight)
    task = Task(trainable(model), train, valid, criteria, seed, progress, terms)
    require_trainable(task.model, train, valid, terms)
    audit_scores(predict(model, train), train)  # refuses fewer than two groups
    trials = [run_trial(0, ({}, model, True), valid, bounds, threshold)]

    sliced = steps.slice(task)
    carriers = steps.cluster(sliced)
    for tried, retrained, finite in terms.in_time(steps.retrain(task, carriers)):
        candidate = (tried, in_precision_of(model, retrained), finite)
        trials.append(run_trial(len(trials), candidate, valid, bounds, threshold))

    chosen = choose(trials, bounds)
    repaired = chosen.model if chosen.number else copy.deepcopy(model)
    assert isinstance(repaired, nn.Module)  # noqa: S101  # as recipes give them
    return Repair(
        model=repaired,
        front=front(trials, bounds),
        explanation=steps.explain(task, sliced, carriers),
        verdict=judge(
            model, repaired, valid, bounds, on="validation", threshold=threshold, seed=seed
        ),
        chosen=chosen,
        trials=tuple(trials),
        limit=bounds,
        recipe=settings,
        seed=seed,
        threshold=threshold,
        stopped=terms.stopped(len(trials) - 1, steps.candidates),
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
        threshold: On the probability of class 1.
        stopped: What the time budget kept from happening; None if nothing.
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
    threshold: float = 0.5
    stopped: str | None = None


class FairNeuron:
    """``repair`` as a mitigator.

    Args:
        recipe: As in ``repair``.
        limit: As in ``repair``.
        threshold: As in ``repair``.
        class_weight: As in ``repair``.
        loss: As in ``repair``.
        optimiser: As in ``repair``.
        time_budget: As in ``repair``.
        **options: As in ``repair``.
    """

    def __init__(
        self,
        recipe: str | Settings = "conflict",
        *,
        limit: Limit = DEFAULT_LIMIT,
        threshold: float = 0.5,
        class_weight: ClassWeight = None,
        loss: Loss | None = None,
        optimiser: MakeOptimiser | None = None,
        time_budget: float | None = None,
        **options: Any,
    ) -> None:
        self.recipe, self.limit = make_recipe(recipe, options), check_limit(limit)
        require_range("threshold", threshold, 0, 1)
        check_class_weight(class_weight)
        Terms(loss, optimiser, None if time_budget is None else Budget(time_budget))
        self.threshold, self.class_weight, self.time_budget = threshold, class_weight, time_budget
        self.loss, self.optimiser = loss, optimiser
        self.result: Repair | None = None

    def fit(self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int) -> Network:
        """Repairs a copy of the model; all that was found stays in ``result``."""
        self.result = repair(
            model,
            train,
            valid,
            recipe=self.recipe,
            limit=self.limit,
            threshold=self.threshold,
            class_weight=self.class_weight,
            loss=self.loss,
            optimiser=self.optimiser,
            time_budget=self.time_budget,
            seed=seed,
        )
        return Network(self.result.model)
