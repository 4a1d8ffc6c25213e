"""Limits: which gap is accepted. Free of torch and numpy, so that a bad one is refused at once."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

from fairneuron.errors import OptionError, require_known

ROUNDING = 1e-9  # .525 − .475 is a little above .05

Limit = Mapping[str, float]
"""Metric name to the worst value that is accepted: at most it for gaps, at least it for ratios."""
DEFAULT_LIMIT: Limit = {"dp": 0.05}
OUTCOMES = ("favourable", "harmful")
"""What ``y = 1`` can be to a person."""


def check_limit(limit: Limit, *, classes: bool = True) -> dict[str, float]:
    """Returns the limit as a plain dict.

    Args:
        limit: To check.
        classes: Whether metrics that compare classes may be limited too.

    Raises:
        OptionError: For metrics that compare neither groups nor classes, or bounds outside [0, 1].
    """
    from fairneuron.metrics.definitions import METRICS

    known = [
        name
        for name, metric in METRICS.items()
        if (metric.between_groups or (classes and metric.between_classes))
        and metric.source == "counts"
    ]
    if not limit or not isinstance(limit, Mapping):
        raise OptionError(
            "option-limit",
            "A limit must name a metric",
            got=repr(limit),
            cure='For example {"dp": 0.05}.',
        )
    for name, bound in limit.items():
        require_known("option-limit", "limited metric", name, known)
        if isinstance(bound, bool) or not isinstance(bound, Real) or not 0 <= bound <= 1:
            raise OptionError(
                "option-limit",
                f"The limit of {name} must lie in [0, 1]",
                got=repr(bound),
                cure="Change it.",
            )
    return {name: float(bound) for name, bound in limit.items()}


def compares_groups(limit: Limit) -> bool:
    """Whether a limited metric needs groups; the others compare classes."""
    from fairneuron.metrics.definitions import METRICS

    return any(METRICS[name].between_groups for name in limit)


def violation(metric: str, value: float, bound: float) -> float:
    """How far a value lies beyond its limit; 0 within, and at it up to rounding."""
    from fairneuron.metrics.definitions import METRICS

    best = METRICS[metric]
    beyond = best.shortfall(value) - best.shortfall(bound)
    return 0.0 if beyond < ROUNDING else beyond
