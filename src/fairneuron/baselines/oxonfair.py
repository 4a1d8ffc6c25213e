"""Thresholds per group, known or inferred: oxonfair's FairPredictor on the network's scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from fairneuron.baselines.linear_post import GroupNetworks
from fairneuron.baselines.postprocess import (
    PostProcessing,
    Rule,
    Scores,
    measured_gap,
    needs_library,
    positive_scores,
)
from fairneuron.baselines.protocol import listed_shares
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import OptionError, require_range, require_whole
from fairneuron.limits import DEFAULT_LIMIT, Limit

MOST_GROUPS = 6
CERTAIN = 2 / 3  # the library's own


class OxonFair(PostProcessing):
    """Offsets of the scores by group, searched on a grid for the best accuracy within a bound.

    Delaney et al., *OxonFair: A Flexible Toolkit for Algorithmic Fairness* (NeurIPS 2024, section
    3). Aware, the offsets are of people's groups. Blind, they are of the groups that networks
    infer from x, as in ``LinearPost``, and "uncertain" is a group of its own; rates are compared
    between the true groups.

    The grid is evaluated on the training rows, which count alike, at a threshold of .5. With limits
    on several gaps their largest is bounded.

    Args:
        limit: As in ``repair``.
        aware: Whether predictions may read the group.
        shares: The bounds to try, in shares of the network's own gap, each in [0, 1].
        networks: How many networks infer the group.

    Raises:
        OptionError: For what is no limit, share or number.
    """

    SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02)

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        aware: bool = False,
        shares: Sequence[float] = SHARES,
        networks: int = 3,
    ) -> None:
        super().__init__(limit)
        require_whole("networks", networks)
        require_range("networks", networks, 1, np.inf)
        self.needs_sensitive, self.networks, self.shares = aware, networks, listed_shares(shares)

    def rules(
        self, model: nn.Module, train: Dataset, valid: Dataset, fitted: Mask, *, seed: int
    ) -> Iterator[tuple[dict[str, float], Rule]]:
        """A rule per share.

        Raises:
            OptionError: Without the library, and for more than six groups: its grid grows with the
                power of their number.
        """
        if fitted.sum() > MOST_GROUPS:
            raise OptionError(
                "option-groups",
                f"OxonFair searches a grid over at most {MOST_GROUPS} groups",
                got=str(fitted.sum()),
                cure="Choose fewer sensitive columns.",
            )
        predictor, metrics = _library()
        known = train.subset(fitted[train.group])
        scores = positive_scores(model, known)
        infer = (
            None
            if self.needs_sensitive
            else _Inferred.fit(model, train, valid, networks=self.networks, seed=seed)
        )
        fair = predictor(
            _scores_of,
            _table(scores, known, infer),
            inferred_groups=_groups_of if infer else False,
            threshold=infer.certain if infer else 0,
        )
        fair.fit(metrics.accuracy, self._constraint(metrics), 1.0)
        gap = max(float(measured_gap(scores >= 0.5, known, c)) for c in self.criteria)
        for share in self.shares:
            fair.fit(metrics.accuracy, fair.objective2, share * gap, recompute=False)
            yield {"share": share}, _Offsets(fair, np.array(fair.offset), infer)

    def _constraint(self, metrics: Any) -> Any:
        """The largest of the gaps that are bounded."""
        gaps = {
            "dp": metrics.pos_pred_rate.max_diff,
            "eo": metrics.true_pos_rate.max_diff,
            "eodds": metrics.equalized_odds_max,
        }
        wanted = [gaps[criterion] for criterion in self.criteria]
        return reduce(lambda one, other: metrics.MaxGroupMetrics(one, other, "gap"), wanted)


@dataclass(frozen=True, eq=False)
class _Inferred:
    """Groups as networks infer them.

    Attributes:
        networks: They give P(g | x).
        columns: The groups that are the most likely one of somebody in the training rows.
        certain: Below this probability a group is uncertain; 0 if that is not to be a group.
    """

    networks: GroupNetworks
    columns: npt.NDArray[np.int64]
    certain: float

    @classmethod
    def fit(
        cls, model: nn.Module, train: Dataset, valid: Dataset, *, networks: int, seed: int
    ) -> _Inferred:
        """Trains the networks. The library needs somebody in each inferred group."""
        fitted = GroupNetworks.fit(model, train, valid, networks=networks, seed=seed)
        chances = fitted(train)
        columns = np.unique(chances.argmax(1))
        highest, sure = chances[:, columns].max(1), chances[:, columns].max(0)
        uncertain = (highest < CERTAIN).any() and (sure >= CERTAIN).all()
        return cls(fitted, columns, CERTAIN if uncertain else 0)

    def __call__(self, data: Dataset) -> Scores:
        return self.networks(data)[:, self.columns]


@dataclass(frozen=True, eq=False)
class _Offsets:
    """oxonfair's decisions.

    Attributes:
        fair: A FairPredictor.
        offset: By group, as it was fitted.
        infer: What infers groups; None if they are known.
    """

    fair: Any
    offset: Scores
    infer: _Inferred | None

    def __call__(self, scores: Scores, data: Dataset) -> Scores:
        self.fair.set_threshold(self.offset)
        changed = self.fair.predict_proba(_table(scores, data, self.infer))
        margin: Scores = changed[:, 1] - changed[:, 0]
        return 0.5 + margin / 2


def _table(scores: Scores, data: Dataset, infer: _Inferred | None) -> Any:
    """Data as oxonfair takes them: a column of scores, and more with the inferred groups."""
    columns = [scores[:, None]] if infer is None else [scores[:, None], infer(data)]
    return {"data": np.hstack(columns), "target": data.y, "groups": data.group}


def _scores_of(table: Scores) -> Scores:
    return np.hstack([1 - table[:, :1], table[:, :1]])


def _groups_of(table: Scores) -> Scores:
    return table[:, 1:]


def _library() -> tuple[Any, Any]:
    """The class FairPredictor and the library's metrics."""
    try:
        from oxonfair import FairPredictor
        from oxonfair.utils import group_metrics
    except ImportError as error:
        raise needs_library("OxonFair", "oxonfair") from error
    return FairPredictor, group_metrics
