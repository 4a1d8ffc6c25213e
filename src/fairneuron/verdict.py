"""Verdict: did the repair help, on paired before and after predictions of the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from fairneuron.audit import Interval, audit, interval, predict, resample
from fairneuron.data.dataset import Dataset
from fairneuron.limits import Limit, check_limit, violation
from fairneuron.metrics.definitions import METRICS
from fairneuron.models import Predictor, predicted_classes

IMPROVED = "improved"
NOT_RELIABLE = "no reliable improvement"
NOT_MET = "limit not met"


@dataclass(frozen=True)
class Change:
    """A metric before and after.

    Attributes:
        metric: Its name.
        before: Of the original model; None if undefined.
        after: Of the repaired one.
        gain: How much nearer to its best value it came; negative if further away.
        interval: 95 % interval of the gain, paired bootstrap; None if undefined.
        noise_floor: What an equal model's gap would show; None for metrics that compare no groups.
        limit: The worst accepted value, if one was asked for.
    """

    metric: str
    before: float | None
    after: float | None
    gain: float | None
    interval: Interval | None
    noise_floor: float | None = None
    limit: float | None = None

    @property
    def better(self) -> bool:
        """Whether the gain is reliable: its interval above zero, and it above the noise floor."""
        return self.interval is not None and self.interval[0] > 0 and self._notable()

    @property
    def worse(self) -> bool:
        """Whether the loss is reliable, likewise."""
        return self.interval is not None and self.interval[1] < 0 and self._notable()

    @property
    def met(self) -> bool:
        """Whether the limit holds after the repair; True if there is none."""
        return self.limit is None or (
            self.after is not None and violation(self.metric, self.after, self.limit) == 0
        )

    def _notable(self) -> bool:
        floor = (
            0.0 if self.noise_floor is None else METRICS[self.metric].shortfall(self.noise_floor)
        )
        return self.gain is not None and abs(self.gain) >= floor

    def sentence(self) -> str:
        """It in one sentence."""
        if self.gain is None:
            return f"{self.metric} is undefined before or after"
        text = f"{self.metric} {self.before:.3f} → {self.after:.3f}"
        if self.interval is not None:
            low, high = (
                (-self.interval[1], -self.interval[0])
                if METRICS[self.metric].best == 0
                else self.interval
            )
            text += f" (change {round(low, 3) + 0:+.3f} to {round(high, 3) + 0:+.3f})"
        return text


@dataclass(frozen=True)
class Verdict:
    """Whether a repair helped on some data.

    Attributes:
        outcome: "improved", "no reliable improvement" or "limit not met".
        on: Which data: "validation" or "test".
        n: Samples.
        changes: Before and after for every metric over counts.
        flips: Per group how many predictions changed, to 1 and away from 1.
    """

    outcome: str
    on: str
    n: int
    changes: dict[str, Change]
    flips: tuple[dict[str, Any], ...]

    @property
    def limits(self) -> tuple[Change, ...]:
        """Those with a limit."""
        return tuple(c for c in self.changes.values() if c.limit is not None)

    @cached_property
    def worse(self) -> tuple[Change, ...]:
        """The other metrics, those without a limit, that got reliably worse."""
        return tuple(c for c in self.changes.values() if c.worse and c.limit is None)

    def sentence(self) -> str:
        """It in a few words: outcome, figures against limits, and what got worse."""
        sign = {name: "≥" if METRICS[name].best else "≤" for name in self.changes}
        limits = "; ".join(
            f"{c.sentence()}, limit {sign[c.metric]} {c.limit:g} {'met' if c.met else 'not met'}"
            for c in self.limits
        )
        worse = "; ".join(c.sentence() for c in self.worse)
        lost = f" Got worse: {worse}." if worse else " No other metric got reliably worse."
        return f"{self.outcome.capitalize()} on {self.on} data (n = {self.n}): {limits}.{lost}"

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "outcome": self.outcome,
            "on": self.on,
            "n": self.n,
            "sentence": self.sentence(),
            "changes": {
                name: {
                    "before": c.before,
                    "after": c.after,
                    "gain": c.gain,
                    "interval": None if c.interval is None else list(c.interval),
                    "noise_floor": c.noise_floor,
                    **({"limit": c.limit, "met": c.met} if c.limit is not None else {}),
                }
                for name, c in self.changes.items()
            },
            "worse": [c.metric for c in self.worse],
            "flips": list(self.flips),
        }


def judge(
    before: nn.Module | Predictor,
    after: nn.Module | Predictor,
    data: Dataset,
    limit: Limit,
    *,
    on: str,
    threshold: float = 0.5,
    seed: int = 0,
) -> Verdict:
    """Compares two models on the same samples.

    Args:
        before: The original model.
        after: The repaired one.
        data: Labelled data with groups.
        limit: What was asked for.
        on: What to call the data: "validation" or "test".
        threshold: On the probability of class 1.
        seed: Of the bootstrap.

    Returns:
        "improved" if a limited metric got reliably better, none of them reliably worse, and all
        limits hold.
    """
    scores = [predict(model, data) for model in (before, after)]
    first, second = (predicted_classes(s, threshold) for s in scores)
    groups, classes = len(data.group_names), max(s.shape[1] for s in scores)
    shape = (groups, classes, classes, classes)
    cell = np.ravel_multi_index((data.group, data.y, first, second), shape)
    joint = np.bincount(cell, minlength=int(np.prod(shape))).reshape(
        shape
    )  # (group, label, before, after)
    floor = audit(before, data, threshold=threshold, seed=seed).noise_floor
    changes = _changes(joint, check_limit(limit), floor, np.random.default_rng([seed, 3]))
    limited = [c for c in changes.values() if c.limit is not None]
    if not any(c.better for c in limited) or any(c.worse for c in limited):
        outcome = NOT_RELIABLE
    elif not all(c.met for c in limited):
        outcome = NOT_MET
    else:
        outcome = IMPROVED
    return Verdict(outcome, on, len(data), changes, _flips(joint, data.group_names))


def _changes(
    joint: npt.NDArray[np.int64],
    limit: Limit,
    floor: Mapping[str, float | None],
    rng: np.random.Generator,
) -> dict[str, Change]:
    draws = resample(rng, joint)
    changes = {}
    for name, metric in METRICS.items():
        if metric.source != "counts":
            continue
        before, after = (metric.of(joint.sum(axis)) for axis in (3, 2))
        drawn_before, drawn_after = (metric.of(draws.sum(axis)) for axis in (4, 3))
        defined = bool(np.isfinite(before) and np.isfinite(after))
        changes[name] = Change(
            metric=name,
            before=float(before) if np.isfinite(before) else None,
            after=float(after) if np.isfinite(after) else None,
            gain=metric.shortfall(float(before)) - metric.shortfall(float(after))
            if defined
            else None,
            interval=interval(
                np.abs(drawn_before - metric.best) - np.abs(drawn_after - metric.best)
            )
            if defined
            else None,
            noise_floor=floor.get(name),
            limit=limit.get(name),
        )
    return changes


def _flips(joint: npt.NDArray[np.int64], names: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    moves = joint.sum(1)  # (group, before, after)
    return tuple(
        {
            "group": name,
            "n": int(moves[g].sum()),
            "to_positive": int(moves[g, :, 1].sum() - moves[g, 1, 1]),
            "from_positive": int(moves[g, 1, :].sum() - moves[g, 1, 1]),
        }
        for g, name in enumerate(names)
    )
