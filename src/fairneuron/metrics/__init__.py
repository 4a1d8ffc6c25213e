"""Fairness metrics as functions of labels, predictions and groups, with fairlearn's names.

An audit measures the same of group confusion counts: ``fairneuron.metrics.definitions``.
"""

from fairneuron.metrics.functions import (
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equal_opportunity_ratio,
    equalized_odds_difference,
    equalized_odds_ratio,
)

__all__ = [
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equal_opportunity_difference",
    "equal_opportunity_ratio",
    "equalized_odds_difference",
    "equalized_odds_ratio",
]
