"""Trials: candidates with their validation audits, and the choice among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from fairneuron.audit import Audit, audit
from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError
from fairneuron.limits import Limit, violation
from fairneuron.metrics.definitions import METRICS

Candidate = tuple[dict[str, float], nn.Module, bool]
"""What was tried, the retrained copy, and whether its loss stayed finite."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate and its validation audit.

    Attributes:
        number: 0 is the original model.
        settings: What was tried.
        model: The retrained copy.
        audit: On validation data; None if it diverged.
        rejected: Why it cannot be chosen, or None.
    """

    number: int
    settings: dict[str, float]
    model: nn.Module
    audit: Audit | None
    rejected: str | None

    @property
    def accuracy(self) -> float:
        """Validation accuracy, 0 if it diverged."""
        return (self.audit.metrics["accuracy"] or 0.0) if self.audit else 0.0

    def gap(self, limit: Limit) -> float:
        """How far the limited metrics are from their best values, summed."""
        return sum(METRICS[name].shortfall(self._value(name)) for name in limit)

    def violation(self, limit: Limit) -> float:
        """How far the limited metrics lie beyond their limits, summed."""
        return sum(self.violations(limit).values())

    def violations(self, limit: Limit) -> dict[str, float]:
        """How far each of them lies beyond its limit."""
        return {name: violation(name, self._value(name), bound) for name, bound in limit.items()}

    def _value(self, name: str) -> float:
        value = self.audit.metrics[name] if self.audit else None
        return float("nan") if value is None else value


def run_trial(number: int, candidate: Candidate, valid: Dataset, limit: Limit) -> Trial:
    """Audits a candidate on validation data and says whether it may be chosen."""
    settings, model, finite = candidate
    try:
        audited = audit(model, valid) if finite else None
    except ModelError as error:
        if number == 0 or error.code != "model-nonfinite":
            raise
        audited = None
    if audited is None:
        rejected: str | None = "diverged"
    elif np.count_nonzero(audited.counts.sum((0, 1))) < 2:
        rejected = "predicts one class alone"
    else:
        undefined = [name for name in limit if name in audited.undefined]
        rejected = (
            f"{undefined[0]} is undefined: {audited.undefined[undefined[0]]}" if undefined else None
        )
    return Trial(number, settings, model, audited, rejected)


def choose(trials: list[Trial], limit: Limit) -> Trial:
    """Returns the most accurate trial within the limit, or else the one nearest to it.

    The first trial, the original, stays unless another one is better. One with a larger gap never
    is, nor one that breaks a limit which the original keeps; with several limits gaps and
    violations are summed.
    """
    original = trials[0]
    eligible = [trial for trial in trials if trial.rejected is None]
    if original.rejected is None:
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


def front(trials: list[Trial], limit: Limit) -> tuple[Trial, ...]:
    """Returns the trials that none beats in both accuracy and gap, the smallest gap first."""
    best: list[Trial] = []
    eligible = [trial for trial in trials if trial.rejected is None]
    for trial in sorted(eligible, key=lambda t: (t.gap(limit), -t.accuracy)):
        if not best or trial.accuracy > best[-1].accuracy:
            best.append(trial)
    return tuple(best)
