"""Reject option: near the decision boundary the group decides, as in aif360."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairneuron.baselines.postprocess import (
    CONDITIONS,
    OneGap,
    Rule,
    Scores,
    membership,
    needs_library,
    require_rates,
)
from fairneuron.data.dataset import Dataset
from fairneuron.errors import require_range, require_whole
from fairneuron.limits import DEFAULT_LIMIT, Limit

METRICS = {
    "dp": "Statistical parity difference",
    "eo": "Equal opportunity difference",
    "eodds": "Average odds difference",
}


class RejectOption(OneGap):
    """People whose score is within a margin of .5 get class 1 in the group that has it less often.

    Kamiran, Karim and Zhang, *Decision Theory for Discrimination-Aware Classification* (ICDM 2012,
    section III-A), as aif360's RejectOptionClassification finds the margin: the one of the best
    balanced accuracy among those that keep the metric within a bound, on the training rows. The
    threshold is .5, as in the paper: aif360 would also search for one, by balanced accuracy,
    which costs much of the accuracy where classes are not balanced. A bound that no margin keeps
    gets the margin of the one before it.

    With more than two groups those whose rate is below everybody's stand against the others. Where
    no rate is below it, there is no gap, and the network's scores stay.

    Args:
        limit: As in ``repair``, on one gap. For equalised odds aif360 bounds the mean of the
            differences of both rates.
        shares: The bounds to try, in shares of the network's own gap, each in [0, 1]; the largest
            first.
        margins: How many margins are searched, from 0 to .5.

    Raises:
        OptionError: Without the library, for limits on several gaps, and settings out of range.
    """

    SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02)

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        shares: Sequence[float] = SHARES,
        margins: int = 100,
    ) -> None:
        super().__init__(limit, shares=shares)
        require_whole("margins", margins)
        require_range("margins", margins, 2, np.inf)
        self.margins = margins

    def fit_rules(self, scores: Scores, known: Dataset, gap: float, _seed: int) -> Iterator[Rule]:
        """A rule per share."""
        favoured = _favoured(scores, known, self.criterion)
        tables = self._tables(scores, known, favoured) if gap > 0 else None
        if tables:
            sides = (favoured[known.group] > 0).astype(np.int64)[:, None]
            split = replace(known, sensitive=sides, sensitive_levels=(("below", "above"),))
            require_rates(split, CONDITIONS[self.criterion])
        option = None
        for share in self.shares:
            option = (self._fit(tables, share * gap) or option) if tables else None
            yield _Reject(option, favoured) if option else _base

    def _fit(self, tables: tuple[Any, Any], bound: float) -> Any:
        """A fitted RejectOptionClassification; None if no margin keeps the bound."""
        option = _library()[0](
            unprivileged_groups=[{"favoured": 0.0}],
            privileged_groups=[{"favoured": 1.0}],
            low_class_thresh=0.5,
            high_class_thresh=0.6,
            num_class_thresh=1,  # .5 alone
            num_ROC_margin=self.margins,
            metric_name=METRICS[self.criterion],
            metric_ub=bound,
            metric_lb=-bound,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            option.fit(*tables)
        return None if any("Unable to satisy" in str(w.message) for w in caught) else option

    def _tables(self, scores: Scores, data: Dataset, favoured: Scores) -> tuple[Any, Any]:
        """What aif360 fits on: true and predicted labels.

        Rows that all margins treat alike are one, with their number, or weight, as its weight.
        """
        margins = np.linspace(0, 0.5, self.margins)
        between = np.digitize(scores, np.union1d(0.5 - margins, 0.5 + margins), right=True)
        cells = np.stack([between, favoured[data.group], data.y], axis=1)
        _, first, cell = np.unique(cells, axis=0, return_index=True, return_inverse=True)
        weight = np.bincount(cell.ravel(), data.gap_weight).astype(np.float64)
        alike, member = scores[first], favoured[data.group[first]]
        return (
            _table(data.y[first], alike, member, weight),
            _table(alike >= 0.5, alike, member, weight),
        )


def _base(scores: Scores, _data: Dataset) -> Scores:
    """The network's own scores."""
    return scores


@dataclass(frozen=True, eq=False)
class _Reject:
    """aif360's decisions.

    Attributes:
        option: A fitted RejectOptionClassification.
        favoured: ``(groups,)`` 1 for those that lose class 1 within the margin, 0 for the others.
    """

    option: Any
    favoured: Scores

    def __call__(self, scores: Scores, data: Dataset) -> Scores:
        table = _table(scores >= 0.5, scores, self.favoured[data.group], None)
        decisions: Scores = self.option.predict(table).labels[:, 0]
        return decisions


def _favoured(scores: Scores, data: Dataset, criterion: str) -> Scores:
    """Which groups have a rate of class 1 of at least everybody's, ``(groups,)`` 0 or 1."""
    decisions = (scores >= 0.5).astype(np.float64)
    above = np.zeros(len(data.group_names))
    for label in CONDITIONS[criterion]:
        given = data.y == label if label is not None else np.ones(len(data), dtype=bool)
        above += decisions @ membership(data, label) - decisions[given].mean()
    return (above >= 0).astype(np.float64)


def _table(labels: Any, scores: Scores, favoured: Scores, weight: Scores | None) -> Any:
    """A BinaryLabelDataset of aif360."""
    import pandas as pd

    _, dataset = _library()
    table = pd.DataFrame({"label": labels, "score": scores, "favoured": favoured}, dtype=np.float64)
    if weight is not None:
        table["weight"] = weight
    return dataset(
        df=table,
        label_names=["label"],
        scores_names=["score"],
        protected_attribute_names=["favoured"],
        instance_weights_name=None if weight is None else "weight",
    )


def _library() -> tuple[Any, Any]:
    """aif360's classes of the method and of its tables.

    Their import tells of the library's own optional ones, which play no part here.
    """
    root, silent = logging.getLogger(), logging.NullHandler()
    with contextlib.ExitStack() as stack:
        root.addHandler(silent)
        stack.callback(root.removeHandler, silent)
        stack.callback(root.setLevel, root.level)
        root.setLevel(logging.ERROR)
        try:
            from aif360.algorithms.postprocessing import RejectOptionClassification
            from aif360.datasets import BinaryLabelDataset
        except ImportError as error:
            raise needs_library("RejectOption", "aif360") from error
    return RejectOptionClassification, BinaryLabelDataset
