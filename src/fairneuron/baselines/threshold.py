"""Thresholds per group: fairlearn's ThresholdOptimizer on the network's scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairneuron.baselines.postprocess import OneGap, Rule, Scores, needs_library, require_rates
from fairneuron.data.dataset import Dataset

CONSTRAINTS = {
    "dp": "demographic_parity",
    "eo": "true_positive_rate_parity",
    "eodds": "equalized_odds",
}


class ThresholdOptimizer(OneGap):
    """Each group gets its own, partly random threshold, by which the gap is bounded.

    Hardt, Price and Srebro, *Equality of Opportunity in Supervised Learning* (NeurIPS 2016,
    section 4), as in fairlearn; fitted, as there, on the training rows, which count alike.
    fairlearn's ``tol`` bounds the gap; for equalised odds, which it cannot relax, its decision is
    taken for a random part of the people and the network's for the others.

    Decisions are drawn by the seed and a person's place in the data. They are 0 or 1, for a
    threshold of .5; where they are the network's, they are its decisions at .5.

    Args:
        limit: As in ``repair``, on one gap.
        shares: What is left of the network's own gap on the training rows, each in [0, 1].

    Raises:
        OptionError: Without the library, for limits on several gaps, and shares out of range.
    """

    def check(self, known: Dataset) -> None:
        """Refuses groups without samples of both classes, whatever their weight."""
        groups = len(np.unique(known.group))
        require_rates(replace(known, weight=None), (1, 0), groups=groups)

    def fit_rules(self, scores: Scores, known: Dataset, gap: float, seed: int) -> Iterator[Rule]:
        """A rule per share."""
        for share in self.shares:
            relaxed = None if self.criterion == "eodds" else share * gap
            yield _Thresholds(
                _fit(scores, known, self.criterion, relaxed),
                1.0 if relaxed is not None else 1 - share,
                seed,
            )


@dataclass(frozen=True, eq=False)
class _Thresholds:
    """fairlearn's decisions for a random part of the people, the network's for the others.

    Attributes:
        optimiser: A fitted ThresholdOptimizer.
        share: Of the people, in [0, 1].
        seed: Of what is drawn.
    """

    optimiser: Any
    share: float
    seed: int

    def __call__(self, scores: Scores, data: Dataset) -> Scores:
        first, second = np.random.SeedSequence(self.seed).generate_state(2)
        chosen = self.optimiser.predict(
            scores[:, None], sensitive_features=data.group, random_state=int(first)
        )
        those = np.random.default_rng(second).random(len(scores)) < self.share
        return np.where(those, chosen, scores >= 0.5).astype(np.float64)


class _Scores:
    """Scores as an estimator that is fitted."""

    def predict_proba(self, x: Scores) -> Scores:
        """Both classes' probabilities, of those of class 1, ``(n, 1)``."""
        return np.hstack([1 - x, x])

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import Tags, TargetTags

        return Tags(estimator_type="classifier", target_tags=TargetTags(required=False))

    def fit(self, x: Scores, y: Scores) -> _Scores:
        """There is nothing to fit."""
        return self


def _fit(scores: Scores, data: Dataset, criterion: str, gap: float | None) -> Any:
    """A fitted ThresholdOptimizer of fairlearn."""
    try:
        from fairlearn.postprocessing import ThresholdOptimizer as Optimizer
    except ImportError as error:
        raise needs_library("ThresholdOptimizer", "fairlearn") from error
    optimiser = Optimizer(
        estimator=_Scores(),
        constraints=CONSTRAINTS[criterion],
        objective="accuracy_score",
        prefit=True,
        predict_method="predict_proba",
        **({} if gap is None else {"tol": gap}),
    )
    return optimiser.fit(scores[:, None], data.y, sensitive_features=data.group)
