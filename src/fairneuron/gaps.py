"""Differentiable gaps, which training can lower: what stands for the limited metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fairneuron.data.dataset import Dataset, Floats
from fairneuron.models import Penalty, Scores

CRITERIA = {"dp": "dp", "dpr": "dp", "eo": "eo", "eodds": "eodds", "mcd": "mcd", "cv": "cv"}
"""Which differentiable gap stands for a limited metric."""
BY_CLASS = {"mcd", "cv"}
"""Gaps between classes, whatever the group."""


def soft_gap(
    scores: torch.Tensor,
    y: torch.Tensor,
    group: torch.Tensor,
    criteria: Sequence[str],
    weight: torch.Tensor | None = None,
    *,
    true: torch.Tensor | None = None,
    everyone: torch.Tensor | None = None,
) -> torch.Tensor:
    """The differentiable gap: largest difference of two groups' mean scores.

    Args:
        scores: ``(..., n)`` probabilities of class 1, for example of several networks.
        y: ``(n,)`` labels.
        group: ``(n,)`` groups.
        criteria: "dp": over everybody; "eo": over those with y = 1; "eodds": the larger of that and
            the same over the others; "mcd": between the classes' means of the scores of their own
            class; "cv": the variance of these. Several are added.
        weight: ``(n,)`` how much each sample counts in its group's mean; all alike unless given.
            A group without weight is left out.
        true: ``(..., n)`` probabilities of the label, for "mcd" and "cv".
        everyone: ``(n,)`` the weights for these, which leave no group out.

    Returns:
        ``(...)``, at least 0; 0 where fewer than two groups have samples.
    """
    gaps = []
    for criterion in criteria:
        if criterion in BY_CLASS:
            assert true is not None  # noqa: S101  # whoever asks for these has it
            means = _means(true, y, everyone)
            gaps.append(_range(means) if criterion == "mcd" else means.var(-1, unbiased=False))
        else:
            gaps.append(_soft_gap(scores, y, group, criterion, weight))
    return torch.stack(gaps).sum(0)


def gap_penalty(criteria: Sequence[str]) -> Penalty:
    """The differentiable gap as what is added to a task loss."""

    def penalty(
        scores: Scores,
        y: torch.Tensor,
        group: torch.Tensor,
        weight: torch.Tensor | None,
    ) -> torch.Tensor:
        true = scores.true if BY_CLASS & {*criteria} else None
        return soft_gap(
            scores.positive, y, group, criteria, weight, true=true, everyone=scores.weight
        )

    return penalty


def _soft_gap(
    scores: torch.Tensor,
    y: torch.Tensor,
    group: torch.Tensor,
    criterion: str,
    weight: torch.Tensor | None,
) -> torch.Tensor:
    if criterion == "dp":
        return _range(_means(scores, group, weight))

    def among(rows: torch.Tensor) -> torch.Tensor:
        part = scores[..., rows]
        return _range(_means(part, group[rows], None if weight is None else weight[rows]))

    positive = y == 1
    gap = among(positive)
    return gap if criterion == "eo" else torch.maximum(gap, among(~positive))


def _means(scores: torch.Tensor, group: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Means ``(..., groups)`` of scores ``(..., n)`` over the groups that have samples."""
    part = scores if weight is None else scores * weight
    count = torch.bincount(group, weight)  # (groups,)
    there = count > 0
    if not there.any():
        return part.sum(-1, keepdim=True)
    total = part.new_zeros(*part.shape[:-1], len(count)).index_add(-1, group, part)
    return total[..., there] / count[there]


def _range(means: torch.Tensor) -> torch.Tensor:
    """The largest less the smallest, ``(...)``."""
    return means.amax(-1) - means.amin(-1)


def data_gap(
    positive: torch.Tensor, true: torch.Tensor, data: Dataset, criteria: Sequence[str]
) -> torch.Tensor:
    """The gap of all the data, by weights, between the groups that are compared.

    Args:
        positive: ``(n,)`` probabilities of class 1.
        true: ``(n,)`` probabilities of the label.
        data: Whose.
        criteria: As in ``soft_gap``.
    """
    y, group = torch.from_numpy(data.y), torch.from_numpy(data.group)
    weight, everyone = (_tensor(w, positive) for w in (data.gap_weight, data.relative_weight))
    return soft_gap(positive, y, group, criteria, weight, true=true, everyone=everyone)


def _tensor(values: Floats | None, like: torch.Tensor) -> torch.Tensor | None:
    return None if values is None else torch.from_numpy(values).to(like)
