"""The algorithm: slice, cluster, retrain.

A recipe says how. ``paper`` is Algorithm 1 of Gao et al.: it slices predictions into activation
paths, clusters samples into those with rare paths and the others, and retrains the rare ones with
dropout. ``conflict``, the default, is what their sections 1 and 2.3 argue for: it slices the gap
into the pull on each neuron, picks the neurons with the most leverage, and retrains those alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from fairneuron.audit import audit_scores
from fairneuron.data.dataset import Dataset
from fairneuron.errors import require_range
from fairneuron.forward import in_precision_of, trainable
from fairneuron.gaps import CRITERIA
from fairneuron.judging import judge
from fairneuron.limits import DEFAULT_LIMIT, Limit, check_limit, compares_groups
from fairneuron.markup import signed, snippet, table
from fairneuron.metrics.definitions import METRICS
from fairneuron.models import Network, predict
from fairneuron.progress import Progress, quiet
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
from fairneuron.training import Keep, at_once, require_classes, require_trainable
from fairneuron.trials import Retrained, Trial, choose, front, run_trial
from fairneuron.verdict import Verdict


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
        validation data is chosen, or else the one nearest to it. Candidates that diverged, have an
        undefined limited metric or a larger gap than the original, or are no more accurate than a
        constant answer (if the original is), are never chosen.

    Raises:
        OptionError: For unknown recipes, options or limits, and values out of range.
        ModelError: For networks that cannot be traced.
        DataError: For fewer than two groups or classes, and labels that the model has no output
            for.
    """
    mitigator = FairNeuron(
        recipe,
        limit=limit,
        threshold=threshold,
        class_weight=class_weight,
        loss=loss,
        optimiser=optimiser,
        time_budget=time_budget,
        **options,
    )
    return mitigator.repair(model, train, valid, seed=seed, progress=progress)


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

    def __repr__(self) -> str:
        made = (
            f"{len(self.trials) - 1} candidates, {len(self.front)} on the front; chosen "
            f"{self.chosen.title}"
        )
        lines = filter(None, (made, self.verdict.sentence(), self.stopped))
        return "Repair({})".format("\n  ".join(lines))

    def _repr_html_(self) -> str:
        rows = [
            (
                METRICS[name].title,
                *("undefined" if v is None else f"{v:.3f}" for v in (c.before, c.after)),
                "" if c.interval is None else " to ".join(map(signed, c.interval)),
                "" if c.noise_floor is None else f"{c.noise_floor:.3f}",
            )
            for name, c in self.verdict.changes.items()
        ]
        head = ("metric", "before", "after", "gain, 95 % interval", "noise floor")
        return snippet(
            f"{self.verdict.sentence()} {self.explanation.sentence()}",
            table("On validation data", head, rows),
        )


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

    Attributes:
        result: All that the last ``fit`` found; None before.
    """

    needs_sensitive = False

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
        self.result = self.repair(model, train, valid, seed=seed)
        return Network(self.result.model)

    def candidates(
        self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int
    ) -> Iterator[Retrained]:
        """What each configuration gives: its settings, a network, whether its loss was finite."""
        task = self._task(model, train, valid, seed=seed)
        yield from self._retrained(model, task, self._recipe.cluster(self._recipe.slice(task)))

    def repair(
        self,
        model: nn.Module,
        train: Dataset,
        valid: Dataset,
        *,
        seed: int,
        keep: Keep = at_once,
        progress: Progress = quiet,
    ) -> Repair:
        """Slices, clusters, retrains, and chooses among what came of it; see ``repair``.

        Args:
            model: As in ``repair``.
            train: As in ``repair``.
            valid: As in ``repair``.
            seed: As in ``repair``.
            keep: Called around each training, unless there is a time budget: what an earlier run
                came to in its time need not be what this one would.
            progress: As in ``repair``.
        """
        limit = self.limit
        task = self._task(model, train, valid, seed=seed, keep=keep, progress=progress)
        judged = partial(
            run_trial, valid=task.valid, limit=limit, threshold=self.threshold, train=task.train
        )
        trials = [judged(0, ({}, model, True))]

        sliced = self._recipe.slice(task)
        carriers = self._recipe.cluster(sliced)
        for candidate in self._retrained(model, task, carriers):
            trials.append(judged(len(trials), candidate, original=trials[0]))

        chosen = choose(trials, limit)
        repaired = chosen.model if chosen.number else copy.deepcopy(model)
        assert isinstance(repaired, nn.Module)  # noqa: S101  # as recipes give them
        return Repair(
            model=repaired,
            front=front(trials, limit),
            explanation=self._recipe.explain(task, sliced, carriers, chosen.settings),
            verdict=judge(
                *(model, repaired, task.valid, limit),
                on="validation",
                threshold=self.threshold,
                seed=seed,
            ),
            chosen=chosen,
            trials=tuple(trials),
            limit=limit,
            recipe=self.recipe,
            seed=seed,
            threshold=self.threshold,
            stopped=task.terms.stopped,
        )

    @property
    def _recipe(self) -> Recipe:
        return self.recipe

    def _task(
        self,
        model: nn.Module,
        train: Dataset,
        valid: Dataset,
        *,
        seed: int,
        keep: Keep = at_once,
        progress: Progress = quiet,
    ) -> Task:
        """What the recipe works on, once it has been found good."""
        budget = None if self.time_budget is None else Budget(self.time_budget)
        terms = Terms(self.loss, self.optimiser, budget)
        if compares_groups(self.limit):
            train.require_groups()
        Network(model).check(train, retrained=True)
        require_classes(train, valid)
        train, valid = class_weighted(train, valid, self.class_weight)
        own = trainable(model)
        require_trainable(own, train, valid, terms)
        audit_scores(predict(model, train), train)  # refuses fewer than two groups
        return Task(
            model=own,
            train=train,
            valid=valid,
            criteria=tuple(dict.fromkeys(CRITERIA[name] for name in self.limit)),
            seed=seed,
            threshold=self.threshold,
            progress=progress,
            terms=terms,
            keep=keep if budget is None else at_once,
        )

    def _retrained(self, model: nn.Module, task: Task, carriers: Any) -> Iterator[Retrained]:
        """What comes of retraining what carries the gap, in the precision of the original."""
        if task.terms.budget is not None:
            task.terms.budget.start()
        for settings, retrained, finite in self._recipe.retrain(task, carriers):
            yield settings, in_precision_of(model, retrained), finite
