"""Post-processing: the trained network stays; another rule turns its scores into decisions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from fairneuron.baselines.protocol import Tuned, listed_shares
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import DataError, ModelError, OptionError
from fairneuron.limits import DEFAULT_LIMIT, Limit
from fairneuron.models import Network, Probabilities
from fairneuron.trials import Candidate

Scores = npt.NDArray[np.float64]
Rule = Callable[[Scores, Dataset], Scores]
"""Maps the network's P(y = 1) ``(n,)`` and the data to scores ``(n,)``; class 1 from .5 on."""
CONDITIONS: dict[str, tuple[int | None, ...]] = {"dp": (None,), "eo": (1,), "eodds": (1, 0)}
"""The labels given which a criterion compares the groups' rates of class 1; None: any label."""


@dataclass(eq=False)
class PostProcessed:
    """A network with a rule for its decisions, at a threshold of .5.

    Attributes:
        model: The network as it was given.
        rule: What makes scores of its probabilities.
        needs_sensitive: Whether the rule reads groups. Then it decides on people of the groups that
            it was fitted on; on others the network does.
        group_names: Of the data that the rule was fitted on.
        fitted: Whether it was fitted on each group, ``(groups,)``.
    """

    model: nn.Module
    rule: Rule
    needs_sensitive: bool
    group_names: tuple[str, ...]
    fitted: Mask

    def predict(self, data: Dataset) -> Probabilities:
        """Scores ``(n, 2)`` that sum to 1.

        Raises:
            DataError: If the rule reads groups and the data have other ones.
        """
        scores = positive_scores(self.model, data)
        if not self.needs_sensitive:
            return as_probabilities(self.rule(scores, data))
        if data.group_names != self.group_names:
            raise DataError(
                "data-groups",
                "Decisions that depend on the group need the groups that they were fitted on",
                got=f"{list(data.group_names)} for {list(self.group_names)}",
                cure="Encode the data as those that it was fitted on.",
            )
        known = np.flatnonzero(self.fitted[data.group])
        if len(known):
            scores[known] = self.rule(scores[known], data.subset(known))
        return as_probabilities(scores)


class PostProcessing(Tuned):
    """A mitigator that leaves the network as it is, and tries rules for its decisions."""

    @abstractmethod
    def rules(
        self, model: nn.Module, train: Dataset, valid: Dataset, fitted: Mask, *, seed: int
    ) -> Iterator[tuple[dict[str, float], Rule]]:
        """The settings and the rule of each configuration.

        Args:
            model: As for ``fit``.
            train: As for ``fit``.
            valid: As for ``fit``.
            fitted: ``(groups,)`` which groups rules can be fitted on.
            seed: As for ``fit``.
        """

    def candidates(
        self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int
    ) -> Iterator[Candidate]:
        """The network with each rule.

        Raises:
            ModelError: For networks of more than two classes.
            DataError: For fewer than two groups, or too few with a label that the gap is of.
        """
        fitted = fitted_groups(train)
        for settings, rule in self.rules(model, train, valid, fitted, seed=seed):
            done = PostProcessed(model, rule, self.needs_sensitive, train.group_names, fitted)
            yield settings, done, True


class OneGap(PostProcessing):
    """Rules that read the group, and leave shares of the network's gap on the training rows.

    Args:
        limit: As in ``repair``, on one gap.
        shares: What to leave of it, each in [0, 1].

    Raises:
        OptionError: For limits on several gaps, and shares out of range.
    """

    needs_sensitive = True
    SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.0)

    def __init__(self, limit: Limit = DEFAULT_LIMIT, *, shares: Sequence[float] = SHARES) -> None:
        super().__init__(limit)
        self.shares = listed_shares(shares)
        self.criterion = one_criterion(type(self).__name__, self.criteria)

    def rules(
        self, model: nn.Module, train: Dataset, valid: Dataset, fitted: Mask, *, seed: int
    ) -> Iterator[tuple[dict[str, float], Rule]]:
        """A rule per share."""
        known = train.subset(fitted[train.group])
        self.check(known)
        scores = positive_scores(model, known)
        gap = float(measured_gap(scores >= 0.5, known, self.criterion))
        for share, rule in zip(self.shares, self.fit_rules(scores, known, gap, seed), strict=True):
            yield {"share": share}, rule

    def check(self, known: Dataset) -> None:
        """Refuses data in which too few groups have the rates that the gap is of."""
        require_rates(known, CONDITIONS[self.criterion])

    @abstractmethod
    def fit_rules(self, scores: Scores, known: Dataset, gap: float, seed: int) -> Iterator[Rule]:
        """A rule per share.

        Args:
            scores: ``(n,)`` the network's P(y = 1) of the rows.
            known: The training rows of the groups that rules are fitted on.
            gap: The network's own gap on them.
            seed: Of what a rule draws.
        """


def positive_scores(model: nn.Module, data: Dataset) -> Scores:
    """P(y = 1) of a network for two classes, ``(n,)``.

    Raises:
        ModelError: For networks with more classes, and as ``fairneuron.models.probabilities``.
    """
    scores = Network(model).predict(data)
    if scores.shape[1] != 2:
        raise ModelError(
            "model-output",
            "Post-processing is for models of two classes",
            got=f"{scores.shape[1]} outputs",
            cure="Give a model with one logit or two.",
        )
    return scores[:, 1].copy()


def as_probabilities(scores: Scores) -> Probabilities:
    """Scores of class 1 ``(n,)`` as probabilities of both classes ``(n, 2)``, clipped to [0, 1]."""
    clipped = np.clip(scores, 0, 1)
    return np.stack([1 - clipped, clipped], axis=1)


def fitted_groups(data: Dataset) -> Mask:
    """Which groups a rule can be fitted on, ``(groups,)``: compared ones with rows.

    Raises:
        DataError: If there are fewer than two.
    """
    fitted: Mask = data.compared & (data.group_counts > 0)
    if fitted.sum() < 2:
        raise DataError(
            "data-single-group",
            "Two or more groups must have training samples",
            got=f"{data.group_counts.tolist()} samples of {list(data.group_names)}",
            cure="Choose another sensitive column, or more data.",
        )
    return fitted


def require_rates(data: Dataset, labels: Sequence[int | None], *, groups: int = 2) -> None:
    """Refuses data in which too few groups have a rate to compare, before any work.

    Args:
        data: Rows count by their ``gap_weight``.
        labels: Each is given in turn; None for none.
        groups: How many groups must have rows with each label.

    Raises:
        DataError: If there are fewer.
    """
    for label in labels:
        present = membership(data, label).any(0)
        if present.sum() < groups:
            which = "samples" if label is None else f"samples of class {label}"
            counts = dict(zip(data.group_names, _counts(data, label), strict=True))
            raise DataError(
                "data-too-few",
                f"{groups} groups must have training {which}",
                got=", ".join(f"{count} of {name}" for name, count in counts.items()),
                cure="Give more data, or choose another metric or sensitive column.",
            )


def _counts(data: Dataset, label: int | None) -> list[int]:
    """How many rows of each group count and have the label."""
    those = np.ones(len(data), dtype=bool) if label is None else (data.y == 1) == label
    if data.gap_weight is not None:
        those &= data.gap_weight > 0
    counts: list[int] = np.bincount(data.group[those], minlength=len(data.group_names)).tolist()
    return counts


def one_criterion(mitigator: str, criteria: tuple[str, ...]) -> str:
    """The only gap that is lowered, for methods that know one; equalised odds contain "eo".

    Raises:
        OptionError: For limits on demographic parity and on another one.
    """
    if len(criteria) == 1:
        return criteria[0]
    if set(criteria) == {"eo", "eodds"}:
        return "eodds"
    raise OptionError(
        "option-limit",
        f"{mitigator} lowers one gap",
        got=f"limits on {' and '.join(criteria)}",
        cure="Limit one of them.",
    )


def needs_library(mitigator: str, library: str) -> OptionError:
    """What to raise without an optional library."""
    return OptionError(
        "option-extra",
        f"The mitigator {mitigator} needs the library {library}",
        got="none",
        cure="pip install 'fairneuron[peers]'.",
    )


def measured_gap(decisions: npt.ArrayLike, data: Dataset, criterion: str) -> Scores:
    """The gaps of several classifiers between the groups that are compared.

    Args:
        decisions: ``(..., n)`` 0 or 1.
        data: Rows count by their ``gap_weight``.
        criterion: A key of ``CONDITIONS``.

    Returns:
        ``(...)`` largest difference of two groups' rates of class 1, in [0, 1]; the largest of the
        conditions'. 0 where fewer than two groups have a rate.
    """
    chosen = np.asarray(decisions, dtype=np.float64)
    gap = np.zeros(chosen.shape[:-1])
    for label in CONDITIONS[criterion]:
        member = membership(data, label)
        rate = chosen @ member[:, member.any(0)]  # (..., groups)
        if rate.shape[-1] > 1:
            gap = np.maximum(gap, rate.max(-1) - rate.min(-1))
    return gap


def membership(data: Dataset, label: int | None) -> Scores:
    """``(n, groups)`` what each row counts in its group's rate: columns sum to 1, or are 0.

    Args:
        data: Rows count by their ``gap_weight``.
        label: The rates are of the rows with this label; of all rows if None.
    """
    weight = np.ones(len(data)) if data.gap_weight is None else data.gap_weight
    if label is not None:
        weight = weight * ((data.y == 1) == label)
    member = np.zeros((len(data), len(data.group_names)))
    member[np.arange(len(data)), data.group] = weight
    total = member.sum(0)
    return member / np.where(total > 0, total, 1)
