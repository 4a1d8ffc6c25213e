"""Losses of the library fairret as the unfairness.

Buyl et al., *fairret: a Framework for Differentiable Fairness Regularization Terms* (ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import one_hot

from fairneuron.baselines.gradient import FineTuning
from fairneuron.errors import OptionError
from fairneuron.models import Penalty, Scores

STATISTICS = {
    "dp": ("PositiveRate",),
    "eo": ("TruePositiveRate",),
    "eodds": ("TruePositiveRate", "FalsePositiveRate"),
}
"""Which of the library's statistics are equal under a criterion."""


class Fairret(FineTuning):
    """All weights of the trained model are retrained on loss + λ · the library's ``NormLoss``.

    That is the sum over the groups of ``|group's statistic / overall statistic − 1|``, with the
    positive rate for demographic parity, the true positive rate for equal opportunity, and the sum
    for both the true and the false positive rate for equalised odds.

    Its arguments are those of ``FineTuning``.

    Raises:
        OptionError: Without the library.
    """

    strengths = (0.01, 0.02, 0.03, 0.05, 0.07, 0.09, 0.11, 0.13, 0.2, 0.35, 0.7, 1.3)

    def penalty(self) -> Penalty:
        """The library's loss under the limit's criteria."""
        return fairret_penalty(self.criteria)


def fairret_penalty(criteria: Sequence[str]) -> Penalty:
    """The library's ``NormLoss`` (p = 1) as what is added to a task loss.

    Groups' memberships are scaled by the weights, and the overall statistic is taken over those
    with weight, so weights count as in ``fairneuron.gaps.soft_gap``. Groups whose statistic has
    no denominator in the batch are left out; 0 is added where fewer than two are left, or nobody is
    predicted positive.

    Args:
        criteria: Keys of ``STATISTICS``. Several are added.

    Raises:
        OptionError: Without the library.
    """
    try:
        from fairret import statistic as statistics
        from fairret.loss import NormLoss
    except ImportError as error:
        raise OptionError(
            "option-extra",
            "The mitigator Fairret needs the library fairret",
            got="none",
            cure="pip install 'fairneuron[peers]'.",
        ) from error
    names = [name for criterion in criteria for name in STATISTICS[criterion]]
    losses = [(name, NormLoss(getattr(statistics, name)())) for name in names]

    def penalty(
        batch: Scores, y: torch.Tensor, group: torch.Tensor, weight: torch.Tensor | None
    ) -> torch.Tensor:
        scores = batch.positive
        member = one_hot(group).to(scores)  # (n, groups)
        if weight is not None:
            member = member * weight[:, None]
        label = (y == 1).to(scores)[:, None]
        networks = scores.reshape(-1, scores.shape[-1], 1)  # (networks, n, 1)
        total = scores.new_zeros(len(networks))
        for name, loss in losses:
            arguments = () if name == "PositiveRate" else (label,)
            counted = {"TruePositiveRate": label, "FalsePositiveRate": 1 - label}.get(name)
            inside = member if counted is None else member * counted
            present = member[:, inside.sum(0) > 0]
            if present.shape[1] < 2:
                continue
            values = [_violation(loss, s, present, arguments) for s in networks]
            total = total + torch.stack(values)
        return total.reshape(scores.shape[:-1])

    return penalty


def _violation(
    loss: Any,
    scores: torch.Tensor,
    member: torch.Tensor,
    arguments: Sequence[torch.Tensor],
) -> torch.Tensor:
    """The library's loss of one network's scores ``(n, 1)``.

    The library raises exceptions for scores of NaN and overall statistics of 0.
    """
    if not scores.isfinite().all():
        return scores.sum()  # not finite either, as training has to see
    everybody = member.sum(1, keepdim=True)
    target = loss.statistic(scores, everybody, *arguments)
    if not target > 0:
        return 0 * scores.sum()
    return loss(scores, member, *arguments, pred_as_logit=False, target_statistic=target)
