"""Equalised odds by a derived predictor: decisions are drawn anew, by group and decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

from fairneuron.baselines.postprocess import CONDITIONS, OneGap, Rule, Scores, membership
from fairneuron.data.dataset import Dataset
from fairneuron.errors import FairNeuronError


class EqualizedOdds(OneGap):
    """Who gets class 1 is drawn with a probability that depends on group and decision alone.

    Hardt, Price and Srebro, *Equality of Opportunity in Supervised Learning* (NeurIPS 2016), where
    they derive a predictor from a binary one: the probabilities are those of the highest expected
    accuracy whose expected rates are equal between groups, a linear program. Theirs are equalised
    odds and equal opportunity; the same program does it for demographic parity. Here a gap may be
    left, which gives the way from the network's own decisions to theirs. ``ThresholdOptimizer`` is
    what they derive from scores.

    Probabilities are fitted on the training rows, which count by their weight. Decisions are drawn
    by the seed and a person's place in the data; they are 0 or 1, for a threshold of .5.

    Args:
        limit: As in ``repair``, on one gap.
        shares: What is left of the network's own gap on the training rows, each in [0, 1]; 0 is the
            paper's method.

    Raises:
        OptionError: For limits on several gaps, and shares out of range.
    """

    def fit_rules(self, scores: Scores, known: Dataset, gap: float, seed: int) -> Iterator[Rule]:
        """A rule per share.

        Raises:
            FairNeuronError: If a linear program is not solved.
        """
        gain, rates = cells(scores >= 0.5, known, self.criterion)
        for share in self.shares:
            yield Redrawn(mixing(gain, rates, share * gap), seed)


@dataclass(frozen=True, eq=False)
class Redrawn:
    """Decisions that are drawn by group and the network's decision.

    Attributes:
        probability: ``(groups, 2)`` of class 1, where the network decides 0 and 1.
        seed: Of what is drawn.
    """

    probability: Scores
    seed: int

    def __call__(self, scores: Scores, data: Dataset) -> Scores:
        """``(n,)`` 0 or 1."""
        drawn = np.random.default_rng(self.seed).random(len(scores))
        chosen = self.probability[data.group, (scores >= 0.5).astype(np.int64)]
        return (drawn < chosen).astype(np.float64)


def cells(decisions: npt.ArrayLike, data: Dataset, criterion: str) -> tuple[Scores, list[Scores]]:
    """What deciding for class 1 gives, in the cells of group and the network's decision.

    Args:
        decisions: ``(n,)`` 0 or 1.
        data: Rows count by their ``gap_weight``.
        criterion: A key of ``CONDITIONS``.

    Returns:
        ``(groups, 2)`` the gain of accuracy, and for each condition of the criterion, over the
        groups with a rate, ``(groups, 2)`` the parts of their rate of class 1: the rows of a group
        with a rate sum to 1, those of others are 0.
    """
    one = np.asarray(decisions, dtype=np.float64)
    chosen = np.stack([1 - one, one], axis=1)  # (n, 2)
    weight = np.ones(len(data)) if data.gap_weight is None else data.gap_weight
    member = np.zeros((len(data), len(data.group_names)))
    member[np.arange(len(data)), data.group] = weight / max(weight.sum(), 1e-300)
    gain = (member * np.where(data.y == 1, 1, -1)[:, None]).T @ chosen
    return gain, [membership(data, label).T @ chosen for label in CONDITIONS[criterion]]


def mixing(gain: Scores, rates: Sequence[Scores], bound: float) -> Scores:
    """Probabilities of class 1 of the highest gain under a bound on the gap.

    max Σ gain · p over 0 ≤ p ≤ 1 where, for each condition c, the expected rates Σ_d rates_c[g, d]
    p[g, d] of all groups g that have a rate lie within [low_c, low_c + bound] for some low_c. With
    bound 0 it is the program of Hardt et al. (2016), for any number of groups.

    Args:
        gain: ``(groups, 2)`` of deciding for class 1, by the network's decision.
        rates: For each condition ``(groups, 2)``, as ``cells`` gives them.
        bound: In [0, 1].

    Returns:
        ``(groups, 2)`` in [0, 1]; in cells without weight the network's own decision.

    Raises:
        FairNeuronError: If the solver finds no optimum.
    """
    groups = len(gain)
    rows = []  # of expected rate − low_c, over the unknowns p and low
    for condition, rate in enumerate(rates):
        for group in np.flatnonzero(rate.any(1)):
            row = np.zeros(2 * groups + len(rates))
            row[[2 * group, 2 * group + 1]] = rate[group]
            row[2 * groups + condition] = -1
            rows.append(row)
    above = np.array(rows)
    found = linprog(
        np.concatenate([-gain.ravel(), np.zeros(len(rates))]),
        A_ub=np.concatenate([above, -above]),
        b_ub=np.repeat([bound, 0.0], len(above)),
        bounds=[(0, 1)] * (2 * groups) + [(None, None)] * len(rates),
        method="highs-ds",
    )
    if found.status != 0:
        raise FairNeuronError(
            "data-linear-program",
            "The linear program of the mixing rates must have an optimum",
            got=f"status {found.status} of scipy's linprog: {found.message}",
            cure="Report this with the data, or use another mitigator.",
        )
    probability: Scores = np.clip(found.x[: 2 * groups], 0, 1).reshape(groups, 2)
    empty = (gain == 0) & ~np.any(rates, axis=0)  # (groups, 2), where nothing says what to draw
    return np.where(empty, [0.0, 1.0], probability)
