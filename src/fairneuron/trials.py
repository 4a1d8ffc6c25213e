"""Trials: candidates with their validation audits, and the choice among them.

A validation part is small, and who picks the most accurate candidate within a limit picks
favourable noise with it. The margin for that noise: the gap that counts is the larger one of those
on validation and on training data. The training part is several times as large and its noise is
another one; validation data guard against a gap that is small on training data alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from fairneuron.audit import Audit, audit_scores
from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError
from fairneuron.limits import Limit, violation
from fairneuron.metrics.definitions import METRICS
from fairneuron.models import Predictor, predict

Retrained = tuple[dict[str, Any], nn.Module, bool]
"""What was tried, the retrained copy, and whether its loss stayed finite."""
Candidate = Retrained | tuple[dict[str, Any], Predictor, bool]
"""The same of any mitigator."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate and its figures; these alone decide what is chosen.

    Attributes:
        number: 0 is the original model.
        settings: What was tried.
        metrics: On validation data, by name; None if it diverged.
        rejected: Why it cannot be chosen, or None.
        model: The retrained copy or other predictor, where it is at hand.
        audit: The audit that ``metrics`` are from, likewise.
        training: The limited metrics on training data; None if they play no part.
    """

    number: int
    settings: dict[str, Any]
    metrics: dict[str, float | None] | None
    rejected: str | None
    model: nn.Module | Predictor | None = None
    audit: Audit | None = None
    training: dict[str, float | None] | None = None

    def __repr__(self) -> str:
        shown = ("accuracy", *(self.training or ("dp", "eo")))
        metrics = {name: (self.metrics or {}).get(name) for name in shown}
        found = ", ".join(f"{name} {v:.3f}" for name, v in metrics.items() if v is not None)
        return f"Trial({'; '.join(filter(None, (self.title, found, self.rejected)))})"

    @property
    def title(self) -> str:
        """Its number and settings in words."""
        if self.number == 0:
            return "0, the original"
        each = (
            f"{name.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}"
            for name, value in self.settings.items()
        )
        return f"{self.number}: {', '.join(each)}"

    @property
    def accuracy(self) -> float:
        """Validation accuracy, 0 if it diverged."""
        return (self.metrics["accuracy"] or 0.0) if self.metrics else 0.0

    def defined(self, limit: Limit) -> bool:
        """Whether all limited metrics are."""
        return self.metrics is not None and all(self.metrics[name] is not None for name in limit)

    def eligible(self, limit: Limit) -> bool:
        """Whether it may be chosen: not rejected, and all limited metrics defined."""
        return self.rejected is None and self.defined(limit)

    def gap(self, limit: Limit) -> float:
        """How far the limited metrics are from their best values, summed."""
        return sum(METRICS[name].shortfall(self._worst(name)) for name in limit)

    def violation(self, limit: Limit) -> float:
        """How far the limited metrics lie beyond their limits, summed."""
        return sum(self.violations(limit).values())

    def violations(self, limit: Limit) -> dict[str, float]:
        """How far each of them lies beyond its limit."""
        return {name: violation(name, self._worst(name), bound) for name, bound in limit.items()}

    def _worst(self, name: str) -> float:
        """A metric on validation or training data, whichever is further from its best value."""
        values = [
            figures.get(name) for figures in (self.metrics, self.training) if figures is not None
        ]
        defined = [value for value in values if value is not None]
        if self.metrics is None or self.metrics[name] is None:
            return float("nan")
        return max(defined, key=METRICS[name].shortfall)


def run_trial(
    number: int,
    candidate: Candidate,
    valid: Dataset,
    limit: Limit,
    threshold: float = 0.5,
    *,
    train: Dataset | None = None,
    original: Trial | None = None,
) -> Trial:
    """Audits a candidate on validation data, and on training data if given.

    It says whether it may be chosen: not if it has given up telling the labels apart, which closes
    any gap.

    Args:
        number: As in ``Trial``.
        candidate: What was tried.
        valid: To choose on.
        limit: Metric to the worst value that is accepted.
        threshold: On the probability of class 1.
        train: More data, for the gaps.
        original: The original's trial: a candidate must be more accurate than a constant answer if
            that is, and keep a tenth of what its balanced accuracy has beyond chance.
    """
    settings, model, finite = candidate
    parts = [part for part in (valid, train) if part is not None]
    try:
        scores = [predict(model, part) for part in parts] if finite else []
    except ModelError as error:
        if number == 0 or error.code != "model-nonfinite":
            raise
        scores = []
    if not scores:
        return Trial(number, settings, None, "diverged", model)
    audited, *others = (
        audit_scores(p, part, threshold=threshold) for p, part in zip(scores, parts, strict=True)
    )
    training = {name: others[0].metrics[name] for name in limit} if others else None
    trial = Trial(number, settings, audited.metrics, None, model, audited, training)
    return replace(trial, rejected=_rejected(trial, limit, original))


def _rejected(trial: Trial, limit: Limit, original: Trial | None) -> str | None:
    """Why a trial cannot be chosen."""
    audited = trial.audit
    assert audited is not None  # noqa: S101  # just made
    if np.count_nonzero(audited.counts.sum((0, 1))) < 2:
        return "predicts one class alone"
    if original is not None:
        constant = audited.counts.sum((0, 2)).max() / audited.counts.sum()
        if trial.accuracy <= constant < original.accuracy:
            return "no more accurate than always predicting the most frequent class"
        if _beyond_chance(original) > 0 and _beyond_chance(trial) < _beyond_chance(original) / 10:
            return "hardly tells the classes apart"
    undefined = [name for name in limit if name in audited.undefined]
    return f"{undefined[0]} is undefined: {audited.undefined[undefined[0]]}" if undefined else None


def _beyond_chance(trial: Trial) -> float:
    """Balanced accuracy less that of a constant answer; 0 where it is undefined."""
    assert trial.audit is not None and trial.metrics is not None  # noqa: S101, PT018  # just made
    value = trial.metrics["balanced_accuracy"]
    return 0.0 if value is None else value - 1 / trial.audit.counts.shape[1]


def choose(trials: Sequence[Trial], limit: Limit) -> Trial:
    """Returns the most accurate trial within the limit, or else the one nearest to it.

    It reads the trials' figures alone, so it also works on trials without models.
    The first trial, the original, stays unless another one is better. One with a larger gap never
    is, nor one that breaks a limit which the original keeps; with several limits gaps and
    violations are summed.
    """
    original = trials[0]
    eligible = [trial for trial in trials if trial.eligible(limit)]
    if original.defined(limit):
        held = {
            name: bound
            for name, bound in limit.items()
            if not original.violations({name: bound})[name]
        }
        eligible = [
            trial
            for trial in eligible
            if trial.gap(limit) <= original.gap(limit) and not trial.violation(held)
        ]
    return max(eligible, key=lambda t: (-t.violation(limit), t.accuracy), default=original)


def within_reach(trials: Sequence[Trial], limit: Limit) -> tuple[Trial, ...]:
    """Returns the trials that ``choose`` could return under some limit of the same metrics.

    It never returns one that another is at least as good as in accuracy and every limited metric,
    and better than in accuracy or before it in the list.
    """
    eligible = [trial for trial in trials if trial.eligible(limit)]

    def beats(a: Trial, b: Trial) -> bool:
        as_good = all(a.gap({name: 0}) <= b.gap({name: 0}) for name in limit)
        before = a.accuracy == b.accuracy and a.number < b.number
        return as_good and (a.accuracy > b.accuracy or before)

    return tuple(b for b in eligible if not any(beats(a, b) for a in eligible))


def front(trials: Sequence[Trial], limit: Limit) -> tuple[Trial, ...]:
    """Returns the trials that none beats in both accuracy and gap, the smallest gap first."""
    best: list[Trial] = []
    eligible = [trial for trial in trials if trial.eligible(limit)]
    for trial in sorted(eligible, key=lambda t: (t.gap(limit), -t.accuracy)):
        if not best or trial.accuracy > best[-1].accuracy:
            best.append(trial)
    return tuple(best)
