"""Choosing among the configurations of a record, by their validation figures alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairneuron.compare.records import Record
from fairneuron.compare.statistics import Floats, hypervolume
from fairneuron.limits import ROUNDING

Configuration = dict[str, Any]
EPSILONS = (0.01, 0.02, 0.05, 0.10)


def chosen(record: Record, epsilon: float) -> tuple[Configuration, bool] | None:
    """The most accurate configuration with a validation gap of at most ε.

    If there is none, the one with the lowest validation gap. Of equals the first one, after the
    lower gap or the higher accuracy.

    Args:
        record: Of a method, a seed and a criterion.
        epsilon: ε.

    Returns:
        The configuration, and whether its gap is larger than ε; None if there is nothing to choose.
    """
    criterion, usable = record["criterion"], eligible(record)

    def gap(configuration: Configuration) -> float:
        return float(configuration["valid"][criterion])

    def accuracy(configuration: Configuration) -> float:
        return float(configuration["valid"]["accuracy"])

    within = [c for c in usable if gap(c) <= epsilon + ROUNDING]
    if within:
        return max(within, key=lambda c: (accuracy(c), -gap(c))), False
    return (min(usable, key=lambda c: (gap(c), -accuracy(c))), True) if usable else None


def eligible(record: Record) -> list[Configuration]:
    """Those that may be chosen: they did not diverge, and the gap is defined."""
    criterion = record["criterion"]
    return [
        c
        for c in record["configurations"]
        if c["rejected"] is None and c["valid"] is not None and c["valid"][criterion] is not None
    ]


def front(record: Record) -> list[Configuration]:
    """Those that none beats in both validation accuracy and gap, the smallest gap first."""
    criterion = record["criterion"]
    ordered = sorted(
        eligible(record), key=lambda c: (c["valid"][criterion], -c["valid"]["accuracy"])
    )
    best: list[Configuration] = []
    for configuration in ordered:
        if not best or configuration["valid"]["accuracy"] > best[-1]["valid"]["accuracy"]:
            best.append(configuration)
    return best


def volume(record: Record) -> float | None:
    """Hypervolume of the test points of the front that was selected on validation data.

    The reference is the accuracy of the majority class and the base model's gap, on test data.

    Returns:
        At least 0, and 0 for a method that failed; None if the base model's gap is undefined.
    """
    criterion, base = record["criterion"], record["base"]
    if base["test"][criterion] is None:
        return None
    points: Floats = np.array(
        [
            (c["test"]["accuracy"], c["test"][criterion])
            for c in front(record)
            if c["test"] is not None and c["test"][criterion] is not None
        ],
        dtype=np.float64,
    ).reshape(-1, 2)
    return hypervolume(points, (base["majority"], base["test"][criterion]))
