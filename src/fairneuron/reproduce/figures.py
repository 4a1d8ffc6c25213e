"""Figures of confusion counts as the paper states them, and their summary over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fairneuron.compare.statistics import summary
from fairneuron.metrics import definitions as m

METRICS = ("accuracy", "dp", "dpr", "dpr_directed", "eo")
TITLES = {
    "accuracy": "accuracy",
    "dp": "DP",
    "dpr": "DPR, folded",
    "dpr_directed": "DPR, directed",
    "eo": "EO",
    "flip_rate": "flip rate",
}
Counts = npt.NDArray[np.int64]


def directed_ratio(counts: Counts) -> float | None:
    """The paper's DPR (equation 6) of two groups: selection rate of the second over the first's.

    The authors' code takes groups in alphabetical order, and so do we. Unlike ``metrics.dpr`` it is
    not folded into [0, 1]: it is at least 0, has no upper end, and above 1 the second group is the
    one selected more often.

    Args:
        counts: ``(2, classes, classes)``: group, label, prediction.

    Returns:
        None for other than two groups, and where the first one's rate is undefined or 0.
    """
    if len(counts) != 2:
        return None
    first, second = m.selection_rate(counts)
    value = float(m.ratio(second, first))
    return value if np.isfinite(value) else None


def figures_of(counts: object, eo_counts: object = None) -> dict[str, float | None]:
    """Accuracy, DP, DPR folded and directed, EO.

    Args:
        counts: ``(groups, 2, 2)``, as nested lists or an array.
        eo_counts: Those that EO is of, if they are others.

    Returns:
        Name to value; None where it is undefined.
    """
    c = np.asarray(counts, dtype=np.int64)
    of_eo = c if eo_counts is None else np.asarray(eo_counts, dtype=np.int64)
    values = {"accuracy": m.accuracy(c), "dp": m.dp(c), "dpr": m.dpr(c), "eo": m.eo(of_eo)}
    found = {name: float(v) if np.isfinite(v) else None for name, v in values.items()}
    return {name: (found | {"dpr_directed": directed_ratio(c)})[name] for name in METRICS}


def figures_of_configuration(configuration: Mapping[str, Any]) -> dict[str, float | None]:
    """Those of its test counts, and its flip rate."""
    found = figures_of(configuration["counts"], configuration.get("eo_counts"))
    return found | {"flip_rate": configuration.get("flip_rate")}


def over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    """``n``, ``mean``, ``sd`` and ``interval`` of the values that are defined."""
    return summary([value for value in values if value is not None])


def number(value: float | None) -> str:
    """With three digits behind the point below 10, two below 100; whole numbers with none."""
    if value is None:
        return "–"
    if value == int(value) and abs(value) > 1:
        return f"{value:.0f}"
    return f"{value:.{3 if abs(value) < 10 else 2 if abs(value) < 100 else 0}f}"
