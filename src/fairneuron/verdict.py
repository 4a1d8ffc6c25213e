"""Verdict: did the repair help, on paired before and after predictions of the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np

from fairneuron.audit import RATE_TITLES
from fairneuron.limits import OUTCOMES, ROUNDING, Limit, check_limit, violation
from fairneuron.markup import signed
from fairneuron.metrics.bootstrap import Interval
from fairneuron.metrics.definitions import (
    METRICS,
    Counts,
    Floats,
    false_positive_rate,
    group_accuracy,
    selection_rate,
    true_positive_rate,
)

IMPROVED = "improved"
NOT_RELIABLE = "no reliable improvement"
NOT_MET = "limit not met"
RATES: dict[str, Callable[[Counts], Floats]] = {
    "selection_rate": selection_rate,
    "tpr": true_positive_rate,
    "fpr": false_positive_rate,
    "accuracy": group_accuracy,
}
EQUALISED = {
    "dp": ("selection_rate",),
    "dpr": ("selection_rate",),
    "eo": ("tpr",),
    "eodds": ("tpr", "fpr"),
    "mcd": (),
    "cv": (),
}
"""Which rates of the groups are equal where a limited metric is at its best."""


def is_loss(*, down: bool, positive_outcome: str | None) -> bool | None:
    """Whether rates that only fell, or only rose, are a loss to people: that is levelling down.

    Args:
        down: Whether they fell.
        positive_outcome: What ``y = 1`` is to a person, "favourable" or "harmful".

    Returns:
        None where nobody said what ``y = 1`` is.
    """
    return None if positive_outcome is None else down == (positive_outcome == "favourable")


def one_sided_title(*, down: bool, positive_outcome: str | None) -> str:
    """What to call them; see ``is_loss``."""
    moved = "Only lowered" if down else "Only raised"
    loss = is_loss(down=down, positive_outcome=positive_outcome)
    if loss is None:
        return f"{moved} (levelled down if y = 1 is {'favourable' if down else 'harmful'})"
    title = "Levelled down" if loss else f"{moved}, no levelling down"
    return f"{title} (y = 1 is the {positive_outcome} outcome)"


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

    @classmethod
    def from_dict(cls, metric: str, fields: Mapping[str, Any]) -> Change:
        """Restores what ``Verdict.to_dict`` has of a metric."""
        optional = {
            name: _optional(fields[name]) for name in ("before", "after", "gain", "noise_floor")
        }
        limit = _number(fields["limit"]) if "limit" in fields else None
        return cls(metric, interval=_interval(fields["interval"]), limit=limit, **optional)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; without the name of the metric."""
        return {
            "before": self.before,
            "after": self.after,
            "gain": self.gain,
            "interval": None if self.interval is None else list(self.interval),
            "noise_floor": self.noise_floor,
            **({"limit": self.limit, "met": self.met} if self.limit is not None else {}),
        }

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
            text += f" (change {signed(low)} to {signed(high)})"
        return text


class _Moved:
    """What a paired interval says of after - before."""

    interval: Interval | None

    @property
    def rose(self) -> bool:
        """Whether it reliably rose: the interval lies above zero."""
        return self.interval is not None and self.interval[0] > 0

    @property
    def fell(self) -> bool:
        """Whether it reliably fell: the interval lies below zero."""
        return self.interval is not None and self.interval[1] < 0


@dataclass(frozen=True)
class GroupChange(_Moved):
    """A rate of one group before and after.

    Attributes:
        group: The group.
        rate: "selection_rate", "tpr", "fpr" or "accuracy".
        before: Of the original model; None if undefined.
        after: Of the repaired one.
        interval: 95 % interval of after - before, paired bootstrap; None if undefined.
    """

    group: str
    rate: str
    before: float | None
    after: float | None
    interval: Interval | None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> GroupChange:
        """Restores what ``to_dict`` gave."""
        if not isinstance(fields["group"], str):
            raise TypeError("a group must have a name")
        if fields["rate"] not in RATES:
            raise ValueError(f"a rate is one of {', '.join(RATES)}")
        before, after = _optional(fields["before"]), _optional(fields["after"])
        return cls(fields["group"], fields["rate"], before, after, _interval(fields["interval"]))

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        bounds = None if self.interval is None else list(self.interval)
        return {
            "group": self.group,
            "rate": self.rate,
            "before": self.before,
            "after": self.after,
            "interval": bounds,
        }

    def sentence(self) -> str:
        """It in a few words, for a rate that is defined."""
        return f"{self.group} ({self.before:.3f} → {self.after:.3f})"


@dataclass(frozen=True)
class ClassChange(_Moved):
    """The accuracy on the samples of one class before and after.

    Attributes:
        name: The class.
        n: Its samples.
        before: Of the original model; None without samples.
        after: Of the repaired one.
        interval: 95 % interval of after - before, paired bootstrap; None if undefined.
    """

    name: str
    n: int
    before: float | None
    after: float | None
    interval: Interval | None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ClassChange:
        """Restores what ``to_dict`` gave."""
        name, n = fields["class"], fields["n"]
        if not isinstance(name, str) or type(n) is not int:
            raise TypeError("a class must have a name and a number of samples")
        before, after = _optional(fields["before"]), _optional(fields["after"])
        return cls(name, n, before, after, _interval(fields["interval"]))

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "class": self.name,
            "n": self.n,
            "before": self.before,
            "after": self.after,
            "interval": None if self.interval is None else list(self.interval),
        }

    def sentence(self) -> str:
        """It in a few words, for a class with samples."""
        return f"class {self.name} ({self.before:.3f} → {self.after:.3f})"


@dataclass(frozen=True)
class Verdict:
    """Whether a repair helped on some data.

    Attributes:
        outcome: "improved", "no reliable improvement" or "limit not met".
        on: Which data: "validation" or "test".
        n: Samples.
        changes: Before and after for every metric.
        flips: Per group how many predictions changed, to 1 and away from 1.
        groups: Before and after for every rate of every group that is compared.
        positive_outcome: What ``y = 1`` is to a person, "favourable" or "harmful"; None if unknown.
        classes: Before and after for the accuracy of every class.
    """

    outcome: str
    on: str
    n: int
    changes: dict[str, Change]
    flips: tuple[dict[str, Any], ...]
    groups: tuple[GroupChange, ...]
    positive_outcome: str | None = None
    classes: tuple[ClassChange, ...] = ()

    def __repr__(self) -> str:
        return f"Verdict({self.sentence()})"

    @property
    def limits(self) -> tuple[Change, ...]:
        """Those with a limit."""
        return tuple(c for c in self.changes.values() if c.limit is not None)

    @cached_property
    def worse(self) -> tuple[Change, ...]:
        """The other metrics, those without a limit, that got reliably worse."""
        return tuple(c for c in self.changes.values() if c.worse and c.limit is None)

    @cached_property
    def levelled_down(self) -> tuple[GroupChange, ...]:
        """The falls that alone brought rates nearer to each other.

        Of the rates that a limit asks to be equal, those whose gap shrank while the rate of a
        group that had not the lowest one reliably fell, and that of no group reliably rose
        (Mittelstadt, Wachter and Russell, The Unfairness of Fair Machine Learning, 2023). Whether a
        fall is a loss depends on what y = 1 means: ``is_loss``.
        """
        return self._one_sided(down=True)

    @cached_property
    def only_raised(self) -> tuple[GroupChange, ...]:
        """The opposite: the rises that alone did, which is the harm where y = 1 is one."""
        return self._one_sided(down=False)

    @property
    def lost_accuracy(self) -> tuple[GroupChange, ...]:
        """The groups whose accuracy reliably fell."""
        return tuple(c for c in self.groups if c.rate == "accuracy" and c.fell)

    def _one_sided(self, *, down: bool) -> tuple[GroupChange, ...]:
        found: list[GroupChange] = []
        for rate in dict.fromkeys(rate for c in self.limits for rate in EQUALISED[c.metric]):
            changes = [c for c in self.groups if c.rate == rate]
            before = [c.before for c in changes if c.before is not None]
            after = [c.after for c in changes if c.after is not None]
            if not before or np.ptp(before) - np.ptp(after) <= ROUNDING:
                continue
            moved = [c for c in changes if (c.fell if down else c.rose)]
            against = any(c.rose if down else c.fell for c in changes)
            outermost = min(before) if down else max(before)
            if not against and any(c.before != outermost for c in moved):
                found += moved
        return tuple(found)

    def sentence(self) -> str:
        """It in a few words: outcome, figures against limits, what got worse, one-sided changes."""
        sign = {name: "≥" if METRICS[name].best else "≤" for name in self.changes}
        limits = "; ".join(
            f"{c.sentence()}, limit {sign[c.metric]} {c.limit:g} {'met' if c.met else 'not met'}"
            for c in self.limits
        )
        worse = "; ".join(c.sentence() for c in self.worse)
        lost = f" Got worse: {worse}." if worse else " No other metric got reliably worse."
        return (
            f"{self.outcome.capitalize()} on {self.on} data (n = {self.n}): {limits}.{lost}"
            + self._told(self.levelled_down, down=True)
            + self._told(self.only_raised, down=False)
            + self._told_accuracy()
        )

    def _told(self, changes: tuple[GroupChange, ...], *, down: bool) -> str:
        """A sentence for every rate of one-sided changes."""
        title = one_sided_title(down=down, positive_outcome=self.positive_outcome)
        moved, against = ("fell", "rose") if down else ("rose", "fell")
        return "".join(
            f" {title}: the {RATE_TITLES[rate]} {moved} in "
            f"{', '.join(c.sentence() for c in changes if c.rate == rate)}, "
            f"and reliably {against} in no group."
            for rate in _rates(changes)
        )

    def _told_accuracy(self) -> str:
        """Whose accuracy fell: groups, if there are several; classes, if a limit is theirs."""
        lost: list[GroupChange | ClassChange] = []
        if len({c.group for c in self.groups}) > 1:
            lost += self.lost_accuracy
        if any(METRICS[c.metric].between_classes for c in self.limits):
            lost += (c for c in self.classes if c.fell)
        return f" Accuracy fell in {', '.join(c.sentence() for c in lost)}." if lost else ""

    def under(self, limit: Limit) -> Verdict:
        """The same figures, judged under another limit.

        Raises:
            OptionError: For what is no limit.
        """
        bounds = check_limit(limit)
        changes = {name: replace(c, limit=bounds.get(name)) for name, c in self.changes.items()}
        return replace(self, outcome=outcome_of(changes), changes=changes)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "outcome": self.outcome,
            "on": self.on,
            "n": self.n,
            "sentence": self.sentence(),
            "changes": {name: change.to_dict() for name, change in self.changes.items()},
            "worse": [c.metric for c in self.worse],
            "flips": list(self.flips),
            "groups": [c.to_dict() for c in self.groups],
            "levelled_down": _rates(self.levelled_down),
            "only_raised": _rates(self.only_raised),
            "lost_accuracy": [c.group for c in self.lost_accuracy],
            "positive_outcome": self.positive_outcome,
            "classes": [c.to_dict() for c in self.classes],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Verdict:
        """Restores what ``to_dict`` gave; anything else is a KeyError, ValueError or TypeError."""
        if "groups" not in fields:
            raise ValueError("a verdict without changes of the groups, as before format 3")
        changes = {name: Change.from_dict(name, fields["changes"][name]) for name in METRICS}
        flips = tuple(_flip(flip) for flip in fields["flips"])
        groups = tuple(GroupChange.from_dict(group) for group in fields["groups"])
        newer = {"positive_outcome", "classes"}  # older results have none
        classes = tuple(ClassChange.from_dict(one) for one in fields.get("classes", ()))
        means = fields.get("positive_outcome")
        if means not in (None, *OUTCOMES):
            raise ValueError(f"y = 1 is one of {', '.join(OUTCOMES)}")
        on, n = str(fields["on"]), int(fields["n"])
        found = cls(outcome_of(changes), on, n, changes, flips, groups, means, classes)
        expected = found.to_dict()
        if set(fields) | newer != set(expected):
            raise ValueError(f"a verdict has {', '.join(expected)}")
        for name in expected:
            if name in fields and name != "sentence" and expected[name] != fields[name]:
                raise ValueError(f"{name} does not follow from the figures")
        return found


def _flip(fields: Mapping[str, Any]) -> dict[str, Any]:
    counts = ("n", "to_positive", "from_positive")
    if not isinstance(fields["group"], str) or any(type(fields[k]) is not int for k in counts):
        raise TypeError("flips must count predictions per group")
    return {"group": fields["group"], **{k: fields[k] for k in counts}}


def _rates(changes: tuple[GroupChange, ...]) -> list[str]:
    return list(dict.fromkeys(c.rate for c in changes))


def _optional(value: Any) -> float | None:
    return None if value is None else _number(value)


def _interval(value: Any) -> Interval | None:
    if value is None:
        return None
    low, high = map(_number, value)
    return low, high


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    if not isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    return float(value)


def outcome_of(changes: Mapping[str, Change]) -> str:
    """What follows from the changes of the limited metrics."""
    limited = [c for c in changes.values() if c.limit is not None]
    if not any(c.better for c in limited) or any(c.worse for c in limited):
        return NOT_RELIABLE
    return IMPROVED if all(c.met for c in limited) else NOT_MET
