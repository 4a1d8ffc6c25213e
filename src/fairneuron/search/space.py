"""The space of a search, and the score of its candidates.

Gao et al., sections 3.4 and 4: θ is drawn log-uniformly, γ uniformly, and what counts is a weighted
sum of accuracy and fairness. Free of torch, so that a bad option is refused at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from fairneuron.errors import OptionError, require_known, require_range, require_whole
from fairneuron.settings import Numbers, PaperSettings, several

SAMPLES = 36
THETA, GAMMA = (1e-4, 1.0), (0.5, 1.0)
SHARE = 0.1
SCORED = ("accuracy", "dp", "dpr", "eo")
MOST = 10_000  # candidates
_STEPS = 6  # values of a range in a grid: as many combinations as samples


class Point(NamedTuple):
    """What a candidate is retrained with; see ``Paper``."""

    gamma: float
    theta: float
    dropout: float


def drawn(
    samples: int = SAMPLES,
    *,
    theta: tuple[float, float] = THETA,
    gamma: tuple[float, float] = GAMMA,
    dropout: Numbers = 0.1,
    seed: int = 0,
) -> list[Point]:
    """Draws candidates; the first ones of many are those of few.

    Args:
        samples: How many, 1 to 10,000.
        theta: Lowest and highest value in (0, 1], drawn log-uniformly.
        gamma: Likewise, drawn uniformly.
        dropout: In (0, 1); of several each is as likely.
        seed: Same seed, same candidates.

    Raises:
        OptionError: For values out of range.
    """
    import numpy as np

    require_whole("samples", samples)
    require_range("samples", samples, 1, MOST)
    (low, high), (least, most) = _range("theta", theta), _range("gamma", gamma)
    rates = several(PaperSettings(dropout=dropout).dropout)
    chance = np.random.default_rng(seed).random((samples, 3))
    return [
        Point(
            gamma=min(least + (most - least) * u, most),
            theta=min(low * (high / low) ** v, high),
            dropout=rates[int(w * len(rates))],
        )
        for u, v, w in chance.tolist()
    ]


def combined(
    grid: Mapping[str, Sequence[float]],
    *,
    theta: tuple[float, float] = THETA,
    gamma: tuple[float, float] = GAMMA,
    dropout: Numbers = 0.1,
) -> list[Point]:
    """All combinations of a grid.

    Args:
        grid: "theta", "gamma" and "dropout" to the values to try. What is left out has six values
            of its range, evenly spaced (θ: on the logarithmic scale), or the given dropout.
        theta: Range, as for ``drawn``.
        gamma: Likewise.
        dropout: In (0, 1), one or several.

    Raises:
        OptionError: For unknown names, values out of range, or more than 10,000 combinations.
    """
    if not isinstance(grid, Mapping):
        raise OptionError(
            "option-grid",
            "A grid must map names to values",
            got=repr(grid),
            cure='For example {"gamma": [0.5, 0.9]}.',
        )
    for name, values in grid.items():
        require_known("option-grid", "name in a grid", name, Point._fields)
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise OptionError(
                "option-grid",
                f"A grid must list the values of {name}",
                got=repr(values),
                cure="For example [0.5, 0.9].",
            )
    import numpy as np

    (low, high), (least, most) = _range("theta", theta), _range("gamma", gamma)
    steps = {
        "gamma": np.linspace(least, most, _STEPS).tolist(),
        "theta": [min(t, high) for t in np.geomspace(low, high, _STEPS).tolist()],
        "dropout": several(PaperSettings(dropout=dropout).dropout),
    }
    chosen: dict[str, Any] = {n: tuple(grid.get(n, values)) for n, values in steps.items()}
    settings = PaperSettings(**chosen)
    axes = [several(getattr(settings, name)) for name in Point._fields]
    require_range("combinations of the grid", math.prod(map(len, axes)), 1, MOST)
    return [Point(*values) for values in product(*axes)]


def _range(name: str, given: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value of a range in (0, 1]."""
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 2:
        raise OptionError(
            "option-range",
            f"{name} must be a range, its lowest and highest value",
            got=repr(given),
            cure="For example 0.5 and 1; single values belong into a grid.",
        )
    low, high = given
    require_range(f"lowest {name}", low, 0, 1, open_low=True)
    require_range(f"highest {name}", high, low, 1)
    return float(low), float(high)


def full_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of all scored metrics; 1 where none is given.

    Raises:
        OptionError: For unknown metrics, negative or infinite weights, or if all are 0.
    """
    if not isinstance(weights, Mapping):
        raise OptionError(
            "option-weights",
            "Weights must map metrics to numbers",
            got=repr(weights),
            cure='For example {"eo": 2}.',
        )
    for name, weight in weights.items():
        require_known("option-weights", "scored metric", name, SCORED)
        require_range(f"weight of {name}", weight, 0, math.inf, open_high=True)
    full = {name: float(weights.get(name, 1)) for name in SCORED}
    if not any(full.values()):
        raise OptionError(
            "option-weights", "Something must count", got="weights of 0", cure="Raise one."
        )
    return full


def score(metrics: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """The weighted sum of accuracy, 1 − DP, DPR and 1 − EO; larger is better.

    DPR is the lowest selection rate over the highest, so all four lie in [0, 1]. The weight of EO
    is the paper's cure for its fluctuation (section 4).

    Args:
        metrics: By name, as an audit gives them.
        weights: By name; at least 0.

    Returns:
        In [0, sum of the weights]; None if a metric that counts is undefined.
    """
    from fairneuron.metrics.definitions import METRICS

    total = 0.0
    for name, weight in weights.items():
        value = metrics[name]
        if weight and value is None:
            return None
        total += weight * (1 - METRICS[name].shortfall(value or 0.0))
    return total
