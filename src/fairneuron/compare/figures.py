"""The figures of a comparison, from its records: what the tables and plots show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fairneuron.compare.records import Record
from fairneuron.compare.selection import EPSILONS, chosen, eligible, volume
from fairneuron.compare.statistics import ENOUGH, holm, lower, mean_ranks, summary

LEVEL = 0.05
Figures = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Points:
    """What a method came to at one ε, by seed; test figures of what validation data chose.

    Attributes:
        accuracy: Test accuracy.
        gap: Test gap.
        signed: Test gap with its sign, for two groups.
        flagged: Whether no configuration was within ε on validation data.
        valid_accuracy: Validation accuracy.
        valid_gap: Validation gap, which was to be at most ε.
    """

    accuracy: dict[int, float]
    gap: dict[int, float]
    signed: dict[int, float]
    flagged: dict[int, bool]
    valid_accuracy: dict[int, float] = field(default_factory=dict)
    valid_gap: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Sequence[Record], epsilon: float) -> Points:
        """Those of one method and criterion; seeds without a usable configuration are left out."""
        found = cls({}, {}, {}, {})
        for record in records:
            choice, criterion = chosen(record, epsilon), record["criterion"]
            test = choice[0]["test"] if choice else None
            if choice is None or test is None or test[criterion] is None:
                continue
            seed = record["seed"]
            found.accuracy[seed], found.gap[seed] = test["accuracy"], test[criterion]
            found.flagged[seed] = choice[1]
            valid = choice[0]["valid"]
            found.valid_accuracy[seed], found.valid_gap[seed] = valid["accuracy"], valid[criterion]
            if test["signed"].get(criterion) is not None:
                found.signed[seed] = test["signed"][criterion]
        return found

    def to_dict(self) -> Figures:
        """Their summary over seeds."""
        flags = list(self.flagged.values())
        return {
            "accuracy": summary(list(self.accuracy.values())),
            "gap": summary(list(self.gap.values())),
            "signed_gap": float(np.mean(list(self.signed.values()))) if self.signed else None,
            "flagged": sum(flags) / len(flags) if flags else None,
            "validation": {
                "accuracy": _mean([*self.valid_accuracy.values()]),
                "gap": _mean([*self.valid_gap.values()]),
            },
        }


@dataclass(frozen=True, eq=False)
class Criterion:
    """All methods under one criterion.

    Attributes:
        name: The gap that was lowered.
        records: Those of this criterion.
        reference: The method that the others are compared with.
    """

    name: str
    records: tuple[Record, ...]
    reference: str

    @cached_property
    def by_method(self) -> dict[str, list[Record]]:
        """Each method's records, in the order of the seeds."""
        found: dict[str, list[Record]] = {}
        for record in self.records:
            found.setdefault(record["method"], []).append(record)
        return {name: sorted(each, key=lambda r: r["seed"]) for name, each in found.items()}

    @cached_property
    def aware(self) -> dict[str, bool]:
        """Whether a method reads the sensitive attribute to predict."""
        return {name: any(r["needs_sensitive"] for r in rs) for name, rs in self.by_method.items()}

    def to_dict(self) -> Figures:
        """All figures of the criterion, as plain values."""
        base = {record["seed"]: record["base"] for record in self.records}
        gaps = [b["test"][self.name] for b in base.values() if b["test"][self.name] is not None]
        signs = [b["test"]["signed"].get(self.name) for b in base.values()]
        floors = [b["noise_floor"][self.name] for b in base.values()]
        return {
            "criterion": self.name,
            "reference": self.reference,
            "base": {
                "accuracy": summary([b["test"]["accuracy"] for b in base.values()]),
                "gap": summary(gaps),
                "signed_gap": _mean(signs),
                "majority": _mean([b["majority"] for b in base.values()]),
                "noise_floor": _mean(floors),
            },
            "methods": self._methods(),
            "at": [self._at(epsilon) for epsilon in EPSILONS],
        }

    def _methods(self) -> dict[str, Figures]:
        """What does not depend on ε."""
        volumes = {
            name: {r["seed"]: v for r in records if (v := volume(r)) is not None}
            for name, records in self.by_method.items()
        }
        ranks: dict[str, float] = {}
        for aware in (False, True):
            peers = {n: v for n, v in volumes.items() if self.aware[n] == aware}
            shared = sorted(set.intersection(*(set(v) for v in peers.values())) if peers else set())
            ranks |= mean_ranks({n: [v[seed] for seed in shared] for n, v in peers.items()})
        return {
            name: {
                "needs_sensitive": self.aware[name],
                "seeds": len(records),
                "configurations": max(len(r["configurations"]) for r in records),
                "unusable": sum(len(r["configurations"]) - len(eligible(r)) for r in records),
                "failed": {str(r["seed"]): r["error"] for r in records if r["error"] is not None},
                "hypervolume": summary(list(volumes[name].values())),
                "rank": ranks.get(name),
                "cost": _cost(records, "seconds"),
                "cpu_cost": _cost(records, "cpu_seconds"),
                "seconds": _median([r["seconds"] for r in records if r["error"] is None]),
            }
            for name, records in self.by_method.items()
        }

    def _at(self, epsilon: float) -> Figures:
        """Every method at one ε, with the comparisons with the reference."""
        points = {name: Points.of(rs, epsilon) for name, rs in self.by_method.items()}
        methods = {name: each.to_dict() for name, each in points.items()}
        others = [name for name in points if name != self.reference]
        for aware in (False, True):  # compared apart, so corrected apart
            peers = [name for name in others if self.aware[name] == aware]
            if self.reference in points:
                ours = points[self.reference]
                for_us = worse({name: (ours, points[name]) for name in peers})
                for_them = worse({name: (points[name], ours) for name in peers})
                for name in peers:
                    methods[name]["reference_is_worse"] = for_us[name]
                    methods[name]["is_worse"] = for_them[name]
        return {"epsilon": epsilon, "methods": methods}


def worse(pairs: Mapping[str, tuple[Points, Points]]) -> dict[str, Figures]:
    """Whether the first of each pair is worse than the second.

    That is: its test accuracy is significantly lower while its test gap is not significantly lower.
    One-sided Wilcoxon tests, paired over the seeds that both have. Accuracy is corrected over the
    pairs (Holm); the gap is not: a larger p would make it easier to call something worse.

    Args:
        pairs: Name to the two.

    Returns:
        Name to ``verdict`` ("worse", "not worse" or "too few seeds"), ``seeds``, mean differences
        of accuracy and gap (first minus second), and p values, that of accuracy adjusted.
    """
    shared = {name: sorted(a.gap.keys() & b.gap.keys()) for name, (a, b) in pairs.items()}

    def columns(name: str, figure: str) -> list[list[float]]:
        return [[getattr(side, figure)[seed] for seed in shared[name]] for side in pairs[name]]

    p = {
        figure: {name: lower(*columns(name, figure)) for name in pairs}
        for figure in ("accuracy", "gap")
    }
    p["accuracy"] = holm(p["accuracy"])
    found: dict[str, Figures] = {}
    for name in pairs:
        accuracy, gap = p["accuracy"][name], p["gap"][name]
        if accuracy is None or gap is None:
            verdict = "too few seeds"
        else:
            verdict = "worse" if accuracy < LEVEL <= gap else "not worse"
        found[name] = {
            "verdict": verdict,
            "seeds": len(shared[name]),
            **{f"{f}_difference": _difference(*columns(name, f)) for f in ("accuracy", "gap")},
            **{f"{f}_p": p[f][name] for f in ("accuracy", "gap")},
        }
    return found


def enough(records: Sequence[Record]) -> bool:
    """Whether there are seeds enough for tests."""
    return len({record["seed"] for record in records}) >= ENOUGH


def _difference(a: Sequence[float], b: Sequence[float]) -> float | None:
    return float(np.mean(np.subtract(a, b))) if a else None


def _cost(records: Sequence[Record], clock: str) -> float | None:
    """Median ratio of the method's seconds to those of training the base model once."""
    done = [r for r in records if r["error"] is None and r["base"][clock]]  # a given model: None
    return _median([r[clock] / r["base"][clock] for r in done])


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
