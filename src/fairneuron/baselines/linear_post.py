"""Optimal linear post-processing: the network's score less a multiple of the groups'.

The most accurate decisions on x under a bound on the gap are a linear threshold rule in the
probabilities of the label and of the groups given x: Xian, Yin and Zhao, *Fair and Optimal
Classification via Post-Processing* (ICML 2023); Xian and Zhao, *A Unified Post-Processing Framework
for Group Fairness in Classification* (arXiv 2405.04025, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from scipy.optimize import linprog
from torch import nn

from fairneuron.baselines.postprocess import (
    CONDITIONS,
    PostProcessing,
    Rule,
    Scores,
    measured_gap,
    membership,
    positive_scores,
    require_rates,
)
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import FairNeuronError, require_range, require_whole
from fairneuron.limits import DEFAULT_LIMIT, Limit
from fairneuron.models import Probabilities, probabilities
from fairneuron.training import train_classifier

KNOTS = 10  # linear programs from the network's own gap to none
BEYOND = 3.0  # how far the search for the least measured gap goes, where 1 is the last program


class LinearPost(PostProcessing):
    """Class 1 where 2 P(y = 1 | x) − 1 ≥ Σ λ_cg P(c, g | x) / P(c, g).

    c is the condition of the criterion: none, y = 1, or y = 1 and y = 0. The multipliers λ are the
    duals of the linear program that maximises the expected accuracy over all (randomised) decisions
    on the training rows under a bound on the expected gap; they sum to 0 over the groups.
    Tightening the bound gives a path of λ from 0 on. ``strengths`` are places on that path, on
    which 1 is where the measured gap on the training rows is least. The scores of a rule are
    P(y = 1 | x) less half the right-hand side, so they are for a threshold of .5.

    P(y | x) is the given network's. Blind, P(g | x) is the mean of several networks of the same
    widths that predict the group, and P(y, g | x) = P(y | x) P(g | x): in our measurements networks
    that predict y and g together gave no better trade-off, and one network a worse one than the
    mean of three. Aware, it is 1 for a person's group, and 0 for the others.

    The multipliers are fitted on the training rows: the networks stop early, so their probabilities
    are nearly calibrated there, and validation data are several times fewer.

    Args:
        limit: As in ``repair``.
        aware: Whether predictions may read the group.
        strengths: Places on the path to try, at least 0.
        networks: How many networks predict the group.

    Raises:
        OptionError: For what is no limit, strength or number.
    """

    STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        aware: bool = False,
        strengths: Sequence[float] = STRENGTHS,
        networks: int = 3,
    ) -> None:
        super().__init__(limit)
        for strength in strengths:
            require_range("strengths", strength, 0, np.inf, open_high=True)
        require_whole("networks", networks)
        require_range("networks", networks, 1, np.inf)
        self.needs_sensitive, self.networks = aware, networks
        self.strengths = tuple(strengths)

    def rules(
        self, model: nn.Module, train: Dataset, valid: Dataset, _fitted: Mask, *, seed: int
    ) -> Iterator[tuple[dict[str, float], Rule]]:
        """A rule per strength.

        Raises:
            FairNeuronError: If a linear program is not solved.
        """
        require_rates(train, _labels(self.criteria))
        scores = positive_scores(model, train)
        groups: Callable[[Dataset], Probabilities] = (
            _own_group
            if self.needs_sensitive
            else GroupNetworks.fit(model, train, valid, networks=self.networks, seed=seed)
        )
        member = groups(train)
        path = _Path.fit(scores, member, train, self.criteria)
        nearest = path.nearest(scores, member, train, self.criteria)
        for strength in self.strengths:
            rule = LinearRule(groups, path.terms, path.at(strength * nearest))
            yield {"strength": strength}, rule


@dataclass(frozen=True, eq=False)
class GroupNetworks:
    """P(g | x) as the mean of several networks.

    Attributes:
        models: They have an output per group.
    """

    models: tuple[nn.Module, ...]

    @classmethod
    def fit(
        cls, model: nn.Module, train: Dataset, valid: Dataset, *, networks: int, seed: int
    ) -> GroupNetworks:
        """Trains networks from scratch that have the hidden widths of ``model``."""
        data, other = (replace(part, y=part.group) for part in (train, valid))
        linear = [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)]
        seeds = np.random.SeedSequence(seed).generate_state(networks)
        return cls(
            tuple(
                train_classifier(
                    data,
                    other,
                    hidden=linear[:-1],
                    outputs=max(2, len(train.group_names)),
                    seed=int(own),
                )
                for own in seeds
            )
        )

    def __call__(self, data: Dataset) -> Probabilities:
        """``(n, groups)``."""
        return np.mean([probabilities(model, data.x) for model in self.models], axis=0)


def _labels(criteria: Sequence[str]) -> list[int | None]:
    """What the rates of all criteria are given, each once."""
    return list(dict.fromkeys(chain(*(CONDITIONS[c] for c in criteria))))


def _own_group(data: Dataset) -> Probabilities:
    return np.eye(len(data.group_names))[data.group]


@dataclass(frozen=True)
class Term:
    """A group's rate under a condition, as an expectation over all rows.

    Attributes:
        label: The label it is given; None if it is given none.
        group: The group.
        share: P(label, group), the mean of its probabilities over the fitting rows.
    """

    label: int | None
    group: int
    share: float


def _columns(scores: Scores, member: Probabilities, terms: Sequence[Term]) -> Scores:
    """``(n, terms)`` P(label, group | x) / P(label, group)."""
    given = {None: np.ones(len(scores)), 1: scores, 0: 1 - scores}
    return np.stack([given[t.label] * member[:, t.group] / t.share for t in terms], axis=1)


@dataclass(frozen=True, eq=False)
class LinearRule:
    """The network's score less the multipliers' part.

    Attributes:
        groups: Gives P(g | x), ``(n, groups)``.
        terms: What the multipliers are of.
        multipliers: ``(terms,)``.
    """

    groups: Callable[[Dataset], Probabilities]
    terms: tuple[Term, ...]
    multipliers: Scores

    def __call__(self, scores: Scores, data: Dataset) -> Scores:
        """``(n,)``; P(y = 1 | x) itself where all multipliers are 0."""
        return scores - _columns(scores, self.groups(data), self.terms) @ self.multipliers / 2


@dataclass(frozen=True, eq=False)
class _Path:
    """Multipliers from no bound on the gap (place 0) to no gap (place 1) and beyond.

    Attributes:
        terms: What they are of.
        knots: ``(knots, terms)``; the path is linear between them, and goes on as a ray.
    """

    terms: tuple[Term, ...]
    knots: Scores

    @classmethod
    def fit(
        cls, scores: Scores, member: Probabilities, data: Dataset, criteria: Sequence[str]
    ) -> _Path:
        """Solves the linear programs."""
        weight = np.ones(len(data)) if data.relative_weight is None else data.relative_weight
        weight = weight / weight.sum()
        labels = _labels(criteria)
        terms = []
        for label in labels:
            given = {None: 1.0, 1: scores, 0: 1 - scores}[label]
            share = (weight * given) @ member
            present = np.flatnonzero(membership(data, label).any(0) & (share > 0))
            terms += [Term(label, int(g), float(share[g])) for g in present if len(present) > 1]
        rates = _columns(scores, member, terms).T * weight  # (terms, n): a decision's part in each
        block = np.array([labels.index(term.label) for term in terms])
        gain = (2 * scores - 1) * weight
        own = rates @ (scores >= 0.5)
        gap = {label: np.ptp(own[block == i]) for i, label in enumerate(labels)}
        bound = [
            min(
                max(gap[c] for c in CONDITIONS[name])
                for name in criteria
                if label in CONDITIONS[name]
            )
            for label in labels
        ]
        shares = 1 - np.arange(1, KNOTS + 1) / KNOTS
        found = [_multipliers(gain, rates, block, share * np.array(bound)) for share in shares]
        return cls(tuple(terms), np.stack([np.zeros(len(terms)), *found]))

    def at(self, place: float) -> Scores:
        """The multipliers ``(terms,)`` there."""
        last = len(self.knots) - 1
        if place >= 1:
            return self.knots[last] * place
        low = int(place * last)
        part = place * last - low
        between: Scores = (1 - part) * self.knots[low] + part * self.knots[low + 1]
        return between

    def nearest(
        self, scores: Scores, member: Probabilities, data: Dataset, criteria: Sequence[str]
    ) -> float:
        """The place whose measured gaps, summed, are least; above 0."""
        places = np.linspace(0, BEYOND, 61)[1:]
        columns = _columns(scores, member, self.terms)
        multipliers = np.stack([self.at(place) for place in places], axis=1)  # (terms, places)
        decisions = (2 * scores - 1)[:, None] >= columns @ multipliers
        gaps = sum(measured_gap(decisions.T, data, criterion) for criterion in criteria)
        return float(places[np.argmin(gaps)])


def _multipliers(gain: Scores, rates: Scores, block: Scores, bound: Scores) -> Scores:
    """The duals of max gain · h, 0 ≤ h ≤ 1, low_b ≤ rates_t · h ≤ low_b + bound_b.

    Args:
        gain: ``(n,)`` what deciding for class 1 adds to accuracy.
        rates: ``(terms, n)`` what it adds to each group's rate.
        block: ``(terms,)`` the condition of each.
        bound: ``(conditions,)`` on the gap under each.

    Returns:
        ``(terms,)``: h = 1 where gain > multipliers · rates, 0 where it is below.

    Raises:
        FairNeuronError: If the solver finds no optimum.
    """
    n, free = len(gain), len(bound)
    low = np.eye(free)[block]  # (terms, conditions)
    result = linprog(
        np.concatenate([-gain, np.zeros(free)]),
        A_ub=np.block([[rates, -low], [-rates, low]]),
        b_ub=np.concatenate([bound[block], np.zeros(len(block))]),
        bounds=[(0, 1)] * n + [(None, None)] * free,
        method="highs-ds",
    )
    if result.status != 0:
        raise FairNeuronError(
            "data-linear-program",
            "The linear program of the multipliers must have an optimum",
            got=f"status {result.status} of scipy's linprog: {result.message}",
            cure="Report this with the data, or use another mitigator.",
        )
    above, below = -result.ineqlin.marginals.reshape(2, -1)
    multipliers: Scores = above - below
    return multipliers
