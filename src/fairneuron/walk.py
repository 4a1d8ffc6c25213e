"""Between two networks: the way from a trained one to its retrained copy, and where to stop on it.

A copy that was retrained for a short time lies so near to the original that the networks on the
straight line between their weights behave like mixtures of both (Wortsman et al., *Robust
fine-tuning of zero-shot models*, CVPR 2022, section 4). So one retraining that closes the gap gives
every smaller repair as well.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fairneuron.data.dataset import Dataset, Floats
from fairneuron.forward import evaluation, logits, one_thread, placed, rows_at_once
from fairneuron.gaps import soft_gap
from fairneuron.metrics.definitions import POSITIVE
from fairneuron.models import positive_score

AMOUNTS = np.linspace(0, 1.5, 16)
"""How far one may go: 0 is the original, 1 the copy, and beyond it the direction goes on."""


def mix(original: nn.Module, retrained: nn.Module, amount: float) -> nn.Module:
    """A copy of the original that has gone so much of the way to the retrained one."""
    return _mix(copy.deepcopy(original), original, retrained, amount)


@torch.no_grad()
def _mix(mixed: nn.Module, original: nn.Module, retrained: nn.Module, amount: float) -> nn.Module:
    """The same in a copy that is there, whose weights are overwritten."""
    networks = (network.parameters() for network in (mixed, original, retrained))
    for into, own, other in zip(*networks, strict=True):
        if own.is_floating_point():
            torch.lerp(own, other, amount, out=into)  # exact at both ends
    return mixed


@one_thread()
def gaps_between(
    original: nn.Module,
    retrained: nn.Module,
    data: Dataset,
    criteria: Sequence[str],
    *,
    threshold: float = 0.5,
    amounts: Floats = AMOUNTS,
) -> Floats:
    """The gap of the decisions on some data, after each part of the way, ``(amounts,)``."""
    y, group = torch.from_numpy(data.y), torch.from_numpy(data.group)
    weight, everyone = (
        None if w is None else torch.from_numpy(w) for w in (data.gap_weight, data.relative_weight)
    )
    gaps, network = [], copy.deepcopy(original)
    x = placed(network, data.x)
    for amount in amounts:
        _mix(network, original, retrained, float(amount))
        with evaluation(network):
            parts = [logits(network, part) for part in x.split(rows_at_once(x))]
            out = torch.cat(parts).double().cpu()
        if out.ndim == 2 and out.shape[1] > 2:
            decided = out.argmax(1)
        else:
            decided = (positive_score(out) >= threshold).long()
        positive, true = (decided == POSITIVE).double(), (decided == y).double()
        gap = soft_gap(positive, y, group, criteria, weight, true=true, everyone=everyone)
        gaps.append(float(gap))
    return np.array(gaps)


def amounts_to(gaps: Floats, left: Sequence[float], *, amounts: Floats = AMOUNTS) -> list[float]:
    """How far to go for the gap to fall to given shares of the original one.

    Args:
        gaps: After each of the amounts, at least 0; the first is the original's.
        left: Shares of it in [-1, 1]; below 0 the gap is turned round by so much, beyond the amount
            of the smallest gap.
        amounts: From 0 on.

    Returns:
        For each share the first amount at which the gap is as small, or, turned round, as large
        again; between two of the given amounts as if it changed evenly. Where it never is, the
        amount of the smallest gap, or the last amount. Each once and without 0; 1 if that leaves
        none.
    """
    smallest = int(gaps.argmin())
    there, back = slice(None, smallest + 1), slice(smallest, None)
    found = [
        _first(-gaps[there], amounts[there], -share * gaps[0])
        if share >= 0
        else _first(gaps[back], amounts[back], -share * gaps[0])
        for share in left
    ]
    rounded = dict.fromkeys(round(amount, 4) for amount in found)
    return [amount for amount in rounded if amount > 0] or [1.0]


def _first(values: Floats, amounts: Floats, wanted: float) -> float:
    """The first amount at which a value is as large as wanted; the last one if none is."""
    large = np.flatnonzero(values >= wanted)
    if not len(large):
        return float(amounts[-1])
    if large[0] == 0:
        return float(amounts[0])
    a, b = large[0] - 1, large[0]
    part = (wanted - values[a]) / (values[b] - values[a])
    return float(amounts[a] + part * (amounts[b] - amounts[a]))
