"""The published COMPAS pipeline, leaks and all, to see what its figures come from.

Seen in the authors' repository (github.com/Antimony5292/FairNeuron, FN/run.py, FN/Evaluate.py,
FN/FairNeuron.py): a network regresses COMPAS's own ``decile_score`` (1 to 10), and a prediction
above 4 counts as positive. Accuracy is against ``two_year_recid``, while ``is_recid``, which nearly
states it, and race are inputs. EO is over people with ``decile_score`` 1. θ and γ are chosen by
DP + EO + (1 − DPR) − 0.01 · accuracy, whose DPR is unfolded.

Unlike the release this starts from the biased model (Algorithm 1, line 7), slices as we do, trains
benign samples first, and slices and retrains on the training part when it searches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fairneuron.data.dataset import Dataset, Floats, Ints
from fairneuron.data.schema import Schema
from fairneuron.errors import DataError
from fairneuron.forward import evaluation, logits
from fairneuron.metrics.definitions import group_counts
from fairneuron.reproduce.figures import figures_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

THRESHOLD = 4
"""Predicted scores above it are positive."""
INPUTS = (
    "sex,age_cat,race,juv_fel_count,juv_misd_count,juv_other_count,priors_count,"
    "days_b_screening_arrest,jail_days,c_charge_degree,is_recid"
).split(",")
_NEEDED = (*INPUTS, "decile_score", "two_year_recid")


def published_data(table: pd.DataFrame) -> Dataset:
    """What the published network regresses and reads.

    Args:
        table: With the columns of ``INPUTS``, ``decile_score`` (1 to 10) and ``two_year_recid`` (0
            or 1).

    Returns:
        ``y`` is the decile score. The columns of ``sensitive`` are race and ``two_year_recid``: so
        the outcome stays with its row in every split, and splits are stratified on it.

    Raises:
        DataError: For missing columns, and scores or outcomes out of range.
    """
    missing = [name for name in _NEEDED if name not in table.columns]
    bad = [] if missing else [c for c, known in _KNOWN.items() if not table[c].isin(known).all()]
    if missing or bad:
        raise DataError(
            "data-column",
            "The published pipeline needs ProPublica's columns: scores of 1 to 10, outcomes 0 or 1",
            got=f"no column {missing[0]!r}" if missing else f"other values in {bad[0]!r}",
            cure="Take the COMPAS table that comes with the package.",
        )
    schema = Schema.fit(
        table,
        target="two_year_recid",
        positive="1",
        sensitive=["race"],
        inputs=list(INPUTS),
        types={"is_recid": "number"},
    )
    return Dataset.from_arrays(
        schema.inputs_of(table),
        table["decile_score"].to_numpy(dtype=np.int64),
        table[["race", "two_year_recid"]].astype(str).to_numpy(),
        sensitive_names=["race", "two_year_recid"],
        feature_names=schema.feature_names,
        name="compas-published",
        positive=f"decile score above {THRESHOLD}",
    )


_KNOWN = {"decile_score": range(1, 11), "two_year_recid": (0, 1)}


def squared_error(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Per sample, ``(n,)``: of outputs ``(n,)`` and scores ``(n,)``."""
    return (out - y.to(out.dtype)) ** 2


@dataclass(frozen=True)
class Outcome:
    """What the published evaluation counts.

    Attributes:
        counts: ``(races, 2, 2)``: race, ``two_year_recid``, predicted above the threshold.
        eo_counts: The same by whether the decile score is 1, which the release calls positive.
    """

    counts: Ints
    eo_counts: Ints

    def figures(self) -> dict[str, float | None]:
        """Accuracy, DP, DPR folded and directed, EO, as published."""
        return figures_of(self.counts, self.eo_counts)

    def objective(self) -> float:
        """What the release minimises over θ and γ; infinite where a part of it is undefined."""
        f = self.figures()
        dp, eo, dpr, accuracy = f["dp"], f["eo"], f["dpr_directed"], f["accuracy"]
        if dp is None or eo is None or dpr is None or accuracy is None:
            return float("inf")
        return dp + eo + (1 - dpr) - 0.01 * accuracy

    def to_dict(self) -> dict[str, Any]:
        """For a record."""
        return {"counts": self.counts.tolist(), "eo_counts": self.eo_counts.tolist()}


def evaluate(scores: Floats, data: Dataset) -> Outcome:
    """Counts predicted scores ``(n,)`` as the published evaluation does."""
    race, code = data.sensitive.T
    recid = np.array(data.sensitive_levels[1], dtype=np.int64)[code]  # the texts "0" and "1"
    above = (scores > THRESHOLD).astype(np.int64)
    races = len(data.sensitive_levels[0])
    lowest = (data.y == 1).astype(np.int64)
    return Outcome(
        group_counts(recid, above, race, races, 2), group_counts(lowest, above, race, races, 2)
    )


def regressed(model: nn.Module, data: Dataset) -> Floats:
    """Predicted decile scores, ``(n,)``."""
    with evaluation(model):
        found: Floats = logits(model, data.x).double().numpy()
    return found
