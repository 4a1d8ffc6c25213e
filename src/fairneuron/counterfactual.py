"""Counterfactual flip rate: do predictions change when only the stated group does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fairneuron.data.dataset import Dataset, Ints
from fairneuron.errors import DataError, require_range
from fairneuron.models import Predictor, predict, predicted_classes


def counterfactual_flip_rate(
    model: nn.Module | Predictor, data: Dataset, *, threshold: float = 0.5
) -> float:
    """Share of the predictions that change when people are said to be of another group.

    The inputs that state the sensitive columns, and the columns themselves for predictors that
    read them, are switched; all else stays, also what depends on the group in the world. So 0 does
    not mean equal treatment: inputs that go with the group stay. After the flip tests of Kusner et
    al., *Counterfactual Fairness* (2017), without their causal model.

    Args:
        model: A module that maps ``x`` to logits, or what a mitigator gave.
        data: Whose inputs ``x (n, features)`` include the sensitive columns, each alike for all
            rows of a value: one-hot or one number.
        threshold: On the probability of class 1.

    Returns:
        In [0, 1]: over all pairs of a person and another group that is compared and has people.

    Raises:
        DataError: If a sensitive column is no input, or its inputs differ within a value, as an
            exact age does within an age group; for fewer than two groups.
        ModelError: If the model does not give finite logits.
    """
    require_range("threshold", threshold, 0, 1)
    stated = [_inputs_of(data, k) for k in range(len(data.sensitive_names))]
    groups = np.flatnonzero((data.group_counts > 0) & data.compared)
    if len(groups) < 2:
        raise DataError(
            "data-single-group",
            "Switching the group needs two groups or more with people",
            got=f"{len(groups)}",
            cure="Choose another sensitive column, or more data.",
        )
    before = predicted_classes(predict(model, data), threshold)  # (n,)
    flipped = pairs = 0
    for group in groups.tolist():
        one = int(np.flatnonzero(data.group == group)[0])
        x, others = data.x.clone(), data.group != group
        for columns in stated:
            x[:, columns] = data.x[one, columns]
        sensitive: Ints = np.broadcast_to(data.sensitive[one], data.sensitive.shape).copy()
        switched = replace(data, x=x, sensitive=sensitive)
        after = predicted_classes(predict(model, switched), threshold)
        flipped += int((after != before)[others].sum())
        pairs += int(others.sum())
    return flipped / pairs


def stating_inputs(data: Dataset) -> list[int]:
    """Columns of ``x`` that are named after a sensitive column, as ``sex`` or ``sex=female``."""
    return [
        i
        for i, feature in enumerate(data.feature_names)
        if feature.partition("=")[0] in data.sensitive_names
    ]


def _inputs_of(data: Dataset, k: int) -> torch.Tensor:
    """The columns of ``x`` that state sensitive column k, ``(columns,)``."""
    name = data.sensitive_names[k]
    columns = torch.tensor(
        [i for i in stating_inputs(data) if data.feature_names[i].partition("=")[0] == name],
        dtype=torch.int64,
    )
    if not len(columns):
        raise DataError(
            "data-counterfactual",
            "To be switched, a sensitive column must be an input",
            got=f"{name!r} among none of the inputs",
            cure="Load the data with include_sensitive=True.",
        )
    for code in np.unique(data.sensitive[:, k]).tolist():
        rows = data.x[torch.from_numpy(data.sensitive[:, k] == code)][:, columns]
        if not bool((rows == rows[0]).all()):
            raise DataError(
                "data-counterfactual",
                "To be switched, a sensitive column must be alike for all rows of a value",
                got=f"inputs that differ within {name} = {data.sensitive_levels[k][code]!r}",
                cure="State the group itself to the network.",
            )
    return columns
