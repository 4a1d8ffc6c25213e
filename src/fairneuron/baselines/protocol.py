"""What every mitigator promises, and how those with something to tune choose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from torch import nn

from fairneuron.data.dataset import Dataset
from fairneuron.errors import OptionError, require_range, require_whole
from fairneuron.gaps import CRITERIA
from fairneuron.limits import DEFAULT_LIMIT, Limit, check_limit
from fairneuron.models import Network, Predictor
from fairneuron.trials import Candidate, choose, run_trial

CONFIGURATIONS = 12
"""How many configurations each mitigator with something to tune tries unless told otherwise."""


@runtime_checkable
class Mitigator(Protocol):
    """A way to make a trained network treat groups more equally."""

    def fit(self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int) -> Predictor:
        """Mitigates.

        Args:
            model: A trained network; it stays as it is.
            train: The data it was trained on.
            valid: Other data, to choose by.
            seed: Same seed, same result.

        Returns:
            A predictor. One that is a network has the class, the forward and the state_dict keys of
            ``model``.
        """
        ...


class Tuned(ABC):
    """A mitigator that tries configurations and chooses among them on validation data.

    Its predictors are fitted, and audited for the choice, at a threshold of .5: class 1 from a
    score of .5 on.

    Args:
        limit: As in ``repair``; it also says which gap is lowered.

    Attributes:
        needs_sensitive: Whether its predictors read the sensitive columns.
    """

    needs_sensitive = False

    def __init__(self, limit: Limit = DEFAULT_LIMIT) -> None:
        self.limit = check_limit(limit, classes=False)

    @property
    def criteria(self) -> tuple[str, ...]:
        """The gaps that stand for the limited metrics: "dp", "eo", "eodds"."""
        return tuple(dict.fromkeys(CRITERIA[name] for name in self.limit))

    @abstractmethod
    def candidates(
        self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int
    ) -> Iterator[Candidate]:
        """What each configuration gives: its settings, a predictor, whether its loss was finite."""

    def fit(self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int) -> Predictor:
        """Tries all configurations and the model as it is, and chooses as ``repair`` does.

        The gaps that count are those of decisions at a threshold of .5; other thresholds on the
        scores of what is chosen give other gaps.
        """
        judged = partial(run_trial, valid=valid, limit=self.limit, train=train)
        trials = [judged(0, ({}, model, True))]
        for candidate in self.candidates(model, train, valid, seed=seed):
            trials.append(judged(len(trials), candidate, original=trials[0]))
        chosen = choose(trials, self.limit).model
        assert chosen is not None  # noqa: S101  # trials made here have theirs
        return Network(chosen) if isinstance(chosen, nn.Module) else chosen


def listed(
    name: str,
    values: Sequence[float],
    low: float = 0,
    high: float = 1,
    *,
    open_low: bool = False,
    open_high: bool = False,
    whole: bool = False,
    cure: str = "Give one or more.",
) -> tuple[float, ...]:
    """What is to be tried of a setting, as a tuple.

    Raises:
        OptionError: For no number, or one out of range.
    """
    if not isinstance(values, (tuple, list)) or not values:
        raise OptionError("option-range", f"{name} must list numbers", got=repr(values), cure=cure)
    for value in values:
        if whole:
            require_whole(name, value)
        require_range(name, value, low, high, open_low=open_low, open_high=open_high)
    return tuple(values)


def listed_shares(shares: Sequence[float]) -> tuple[float, ...]:
    """Shares of a gap in [0, 1], as ``listed``."""
    return listed("shares", shares, cure="From 0 to 1.")


def listed_strengths(strengths: Sequence[float]) -> tuple[float, ...]:
    """Strengths in [0, 1e6], as ``listed``."""
    return listed("strengths", strengths, high=1e6, cure="At least 0.")
