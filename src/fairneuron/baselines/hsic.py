"""HSIC as the unfairness: a kernel measure of how much scores depend on groups.

Gretton et al., *Measuring Statistical Dependence with Hilbert-Schmidt Norms* (ALT 2005), as a
regulariser in Pérez-Suay et al., *Fair Kernel Learning* (ECML PKDD 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import one_hot

from fairneuron.baselines.gradient import FineTuning
from fairneuron.errors import require_range
from fairneuron.limits import DEFAULT_LIMIT, Limit
from fairneuron.models import Penalty, Scores
from fairneuron.settings import Schedule
from fairneuron.terms import Loss, MakeOptimiser

BANDWIDTH = 0.25
_PRECISION = 1e-8  # of a kernel value, which is at most 1


class HSIC(FineTuning):
    """All weights of the trained model are retrained on loss + λ · HSIC(score, group).

    For equal opportunity it is HSIC among those with y = 1, for equalised odds the sum of that and
    the same among the others.

    Args:
        limit: As in ``repair``; it also says which dependence is lowered.
        bandwidth: In [0.05, inf): σ of the RBF kernel on scores, which lie in [0, 1].
        strengths: The λ to try, each at least 0.
        schedule: Of each training.
        loss: As in ``repair``.
        optimiser: As in ``repair``.
    """

    strengths = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        bandwidth: float = BANDWIDTH,
        strengths: Sequence[float] | None = None,
        schedule: Schedule | None = None,
        loss: Loss | None = None,
        optimiser: MakeOptimiser | None = None,
    ) -> None:
        super().__init__(
            limit, strengths=strengths, schedule=schedule, loss=loss, optimiser=optimiser
        )
        require_range("bandwidth", bandwidth, 0.05, math.inf, open_high=True)
        self.bandwidth = bandwidth

    def penalty(self) -> Penalty:
        """HSIC under the limit's criteria."""
        return hsic_penalty(self.criteria, self.bandwidth)


def hsic_penalty(criteria: Sequence[str], bandwidth: float = BANDWIDTH) -> Penalty:
    """HSIC of scores and groups as what is added to a task loss.

    Args:
        criteria: "dp": over everybody; "eo": over those with y = 1; "eodds": the sum of that and
            the same over the others. Several are added.
        bandwidth: As in ``hsic``.
    """

    def penalty(
        scores: Scores, y: torch.Tensor, group: torch.Tensor, weight: torch.Tensor | None
    ) -> torch.Tensor:
        positive = scores.positive
        parts = {"dp": [torch.ones_like(y, dtype=torch.bool)], "eo": [y == 1]}
        parts["eodds"] = [y == 1, y != 1]
        terms = [
            hsic(
                positive[..., rows],
                group[rows],
                None if weight is None else weight[rows],
                bandwidth,
            )
            for criterion in criteria
            for rows in parts[criterion]
        ]
        return torch.stack(terms).sum(0)

    return penalty


def hsic(
    scores: torch.Tensor,
    group: torch.Tensor,
    weight: torch.Tensor | None = None,
    bandwidth: float = BANDWIDTH,
) -> torch.Tensor:
    """The biased estimator tr(K H L H) / (n − 1)² (Gretton et al. 2005, empirical HSIC).

    K is the RBF kernel exp(−(s − t)² / 2σ²) of the scores, L the delta kernel of the groups, H the
    centring matrix. K is expanded in powers of the scores and L in group membership, so time and
    memory are linear in n.

    Args:
        scores: ``(..., n)`` in [0, 1], for example of several networks.
        group: ``(n,)``.
        weight: ``(n,)`` how much each sample counts in every mean; all alike unless given. Samples
            without weight play no part.
        bandwidth: σ.

    Returns:
        ``(...)``, at least 0; 0 for fewer than two samples.
    """
    if weight is None:
        weight = scores.new_ones(scores.shape[-1])
    n = int((weight > 0).sum())
    if n < 2:
        return 0 * scores.sum(-1)
    share = weight / weight.sum()
    member = one_hot(group).to(scores)  # (n, groups)
    centred = member - share @ member
    features = _rbf_features(scores, bandwidth)  # (..., n, terms)
    cross = features.mT @ (share[:, None] * centred)  # (..., terms, groups)
    return cross.square().sum((-2, -1)) * (n / (n - 1)) ** 2


def _rbf_features(scores: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """Vectors ``(..., n, terms)`` whose inner products are the RBF kernel of scores in [0, 1].

    exp(−(u − v)²/2) = Σ_m φ_m(u) φ_m(v) with φ_m(u) = exp(−u²/2) u^m / √m!, where u and v are the
    scores less 1/2 over σ; the terms that can matter are kept.
    """
    u = (scores - 0.5) / bandwidth
    largest = (0.5 / bandwidth) ** 2
    features, size = [(-u.square() / 2).exp()], 1.0
    while size > _PRECISION or len(features) < largest:
        size *= largest / len(features)
        features.append(features[-1] * u / math.sqrt(len(features)))
    return torch.stack(features, -1)
