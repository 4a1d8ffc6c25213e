"""Reductions: fairlearn's ExponentiatedGradient over weighted retrainings of the network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import nn

from fairneuron.baselines.postprocess import (
    CONDITIONS,
    Scores,
    as_probabilities,
    fitted_groups,
    measured_gap,
    needs_library,
    one_criterion,
    positive_scores,
)
from fairneuron.baselines.protocol import Tuned, listed_shares
from fairneuron.data.dataset import Dataset
from fairneuron.errors import require_range, require_whole
from fairneuron.forward import in_precision_of, trainable
from fairneuron.limits import DEFAULT_LIMIT, Limit
from fairneuron.models import Network, Probabilities
from fairneuron.settings import Schedule
from fairneuron.training import require_trainable
from fairneuron.training import train as train_network
from fairneuron.trials import Candidate

MOMENTS = {"dp": "DemographicParity", "eo": "TruePositiveRateParity", "eodds": "EqualizedOdds"}
ORACLE = Schedule(epochs=1, batch_size=1024, learning_rate=0.005, plateau=None, min_steps=60)


class ExponentiatedGradient(Tuned):
    """A mixture of networks, each retrained on weights and labels that the multipliers give.

    Agarwal et al., *A Reductions Approach to Fair Classification* (ICML 2018, Algorithm 1), as in
    fairlearn. The oracle retrains a copy of the given network for a few epochs. Each person's
    decision is that of a member drawn by weight, as in the paper (section 3): the bound holds for
    these decisions, and not for those of the members' majority. The draw is by the seed and a
    person's place in the data. Decisions are 0 or 1, for a threshold of .5. The rows' own weights
    play no part.

    Args:
        limit: As in ``repair``, on one gap.
        shares: The bounds on the gap to try, in shares of the network's own, each in [0, 1].
        iterations: Of the algorithm, at most, for each of them.
        eps: The multipliers sum to at most 1 / eps.
        schedule: Of each retraining.

    Raises:
        OptionError: Without the library, for limits on several gaps, and settings out of range.
    """

    SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.0)

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        shares: Sequence[float] = SHARES,
        iterations: int = 5,
        eps: float = 0.02,
        schedule: Schedule = ORACLE,
    ) -> None:
        super().__init__(limit)
        require_whole("iterations", iterations)
        require_range("iterations", iterations, 1, np.inf)
        require_range("eps", eps, 0, 1, open_low=True)
        self.shares, self.iterations, self.eps = listed_shares(shares), iterations, eps
        self.schedule = schedule
        self.criterion = one_criterion("ExponentiatedGradient", self.criteria)

    def candidates(
        self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int
    ) -> Iterator[Candidate]:
        """A mixture per share.

        Raises:
            ModelError: For networks of more than two classes, or that cannot be retrained.
            DataError: For fewer than two groups, and as ``require_trainable``.
        """
        Network(model).check(train, retrained=True)
        require_trainable(model, train, valid)
        fitted = fitted_groups(train)
        known = train.subset(fitted[train.group])
        gap = float(measured_gap(positive_scores(model, known) >= 0.5, known, self.criterion))
        oracle = _Oracle(model, replace(known, weight=None), valid, self.schedule, seed)
        for share in self.shares:
            mixture, finite = self._fit(oracle, known, share * gap, seed)
            yield {"share": share}, mixture, finite

    def _fit(self, oracle: _Oracle, data: Dataset, bound: float, seed: int) -> tuple[Mixture, bool]:
        """The mixture under a bound on the gap, and whether every member's loss was finite."""
        try:
            from fairlearn import reductions
        except ImportError as error:
            raise needs_library("ExponentiatedGradient", "fairlearn") from error
        moment = getattr(reductions, MOMENTS[self.criterion])
        found = reductions.ExponentiatedGradient(
            oracle,
            moment(difference_bound=max(_distance(bound, data, self.criterion), 1e-3)),
            eps=self.eps,
            max_iter=self.iterations,
        )
        with warnings.catch_warnings():  # of pandas, at fairlearn's own tables
            for kind in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", "Setting an? ", kind)
            found.fit(data.x.cpu().numpy(), data.y, sensitive_features=data.group)
        used = [i for i, weight in found.weights_.items() if weight > 0]
        members = tuple(_member(found.predictors_[i]) for i in used)
        weights = np.array([found.weights_[i] for i in used])
        finite = all(getattr(found.predictors_[i], "finite", True) for i in used)
        return Mixture(members, weights / weights.sum(), seed), finite


def _distance(gap: float, data: Dataset, criterion: str) -> float:
    """How far a group's rate may be from everybody's, which fairlearn bounds, to keep a gap.

    Of two groups that have shares p ≥ q of the rows, the one of share q is p · gap away. With more
    groups two of them may be away on both sides.
    """
    factors = []
    for label in CONDITIONS[criterion]:
        given = data.group if label is None else data.group[(data.y == 1) == label]
        counts = np.bincount(given)
        two = np.count_nonzero(counts) == 2
        factors.append(counts.max() / counts.sum() if two else 0.5)
    return gap * float(min(factors))


@dataclass(frozen=True, eq=False)
class Mixture:
    """Networks and constant decisions, of which one is drawn for each person by weight.

    It reads ``data.x`` alone.

    Attributes:
        members: Each a network, or the class that it always gives.
        weights: ``(members,)`` that sum to 1.
        seed: Of the draw.
    """

    members: tuple[nn.Module | int, ...]
    weights: Scores
    seed: int

    needs_sensitive = False

    def predict(self, data: Dataset) -> Probabilities:
        """Decisions ``(n, 2)``, 0 or 1."""
        drawn = np.random.default_rng(self.seed).random(len(data)) < self.shares(data)
        return as_probabilities(drawn.astype(np.float64))

    def shares(self, data: Dataset) -> Scores:
        """The share of the members, by weight, that decide for class 1, ``(n,)``."""
        decisions = np.stack([_decisions(member, data) for member in self.members])
        return np.round(self.weights @ decisions, 12)


def _decisions(member: nn.Module | int, data: Dataset) -> Scores:
    """``(n,)`` 0 or 1."""
    if isinstance(member, nn.Module):
        return (positive_scores(member, data) >= 0.5).astype(np.float64)
    return np.full(len(data), float(member))


def _member(predictor: Any) -> nn.Module | int:
    """What fairlearn keeps: our oracle, or where all labels were alike a constant."""
    return predictor.model if isinstance(predictor, _Oracle) else int(predictor.constant)


class _Oracle:
    """An estimator for fairlearn, which copies and fits it. Copies share what they have found.

    Args:
        model: What retraining starts from.
        data: The rows; fairlearn gives labels and weights.
        valid: As in ``fairneuron.training.train``.
        schedule: Of the retraining.
        seed: Of the retraining.
    """

    def __init__(
        self, model: nn.Module, data: Dataset, valid: Dataset, schedule: Schedule, seed: int
    ) -> None:
        self.model, self.data, self.valid = model, data, valid
        self.schedule, self.seed, self.finite = schedule, seed, True
        self.found: dict[bytes, tuple[nn.Module, bool]] = {}

    def __deepcopy__(self, _memo: object) -> _Oracle:
        return copy.copy(self)

    def fit(self, _x: object, y: Any, sample_weight: Any) -> _Oracle:
        """Retrains a copy of the network on labels and weights ``(n,)``."""
        labels, weight = np.array(y, dtype=np.int64), np.array(sample_weight, dtype=np.float64)
        data = replace(self.data, y=labels, weight=weight)
        key = sha256(labels.tobytes() + weight.tobytes()).digest()
        if key not in self.found:  # fairlearn asks again for the same multipliers
            own = copy.deepcopy(trainable(self.model))
            finite = train_network(own, data, self.valid, self.schedule, seed=self.seed)
            self.found[key] = in_precision_of(self.model, own), finite
        self.model, self.finite = self.found[key]
        return self

    def predict(self, x: Any) -> Scores:
        """Decisions ``(n,)`` on rows of ``x``."""
        rows = replace(self.data, x=torch.from_numpy(np.array(x, dtype=np.float32)))
        return _decisions(self.model, rows) if self.finite else np.zeros(len(rows))
