"""Audits of predictions that somebody else made; no model is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairneuron.audit import Audit, audit_scores, tiny_groups
from fairneuron.data.columns import as_text, require_columns
from fairneuron.data.dataset import Dataset
from fairneuron.data.named_arrays import label_texts
from fairneuron.data.tables import read_table
from fairneuron.errors import DataError, OptionError, did_you_mean, require_range, warn
from fairneuron.loading import Table, load_whole, read_arrays
from fairneuron.metrics.definitions import group_counts
from fairneuron.subject import DataChoice, Subject

if TYPE_CHECKING:
    from fairneuron.data.dataset import Ints

LABELS, SCORES = "prediction", "score"


def audit_predictions(
    data: Dataset,
    predicted: npt.ArrayLike | None = None,
    scores: npt.ArrayLike | None = None,
    *,
    threshold: float = 0.5,
    seed: int = 0,
) -> Audit:
    """Audits predicted classes, or probabilities, of labelled data with groups.

    Args:
        data: Labels and groups; its inputs play no part.
        predicted: ``(n,)`` predicted classes; those that the scores and the threshold make unless
            given.
        scores: ``(n,)`` probabilities of class 1, in [0, 1]. AUC and ABCC are undefined without.
        threshold: On the scores.
        seed: Of the bootstrap and the noise floor.

    Raises:
        DataError: For other lengths, missing predictions, classes that are none, or scores that
            are no probabilities.
        OptionError: For a threshold outside [0, 1].
    """
    require_range("threshold", threshold, 0, 1)
    if predicted is None and scores is None:
        raise DataError(
            "data-predictions",
            "There must be predicted classes or scores",
            got="neither",
            cure="Give one of them.",
        )
    probability = None if scores is None else _probabilities(np.asarray(scores), len(data))
    found = _audited(data, predicted, probability, threshold=threshold, seed=seed)
    if tiny := tiny_groups(found):
        warn("data-group-tiny", tiny)
    return found


def _audited(
    data: Dataset,
    predicted: npt.ArrayLike | None,
    scores: npt.NDArray[np.float64] | None,
    *,
    threshold: float,
    seed: int,
) -> Audit:
    size = max(2, int(data.y.max(initial=0)) + 1)
    given = np.zeros((len(data), size))  # P(y = k); of labels alone only the shape is used
    if scores is not None:
        given[:, 1], given[:, 0] = scores, 1 - scores
    found = audit_scores(given, data, threshold=threshold, seed=seed)
    if predicted is None:
        return found
    classes = _classes(np.asarray(predicted), data)
    _require_direction(classes, scores)
    size = max(size, int(classes.max(initial=0)) + 1)
    counts = group_counts(data.y, classes, data.group, len(data.group_names), size)
    if scores is None:
        return replace(found, counts=counts, histograms=None, halves=None)
    return replace(found, counts=counts)


def audit_predictions_file(
    subject: Subject,
    table: Table | None,
    path: Path,
    *,
    prediction: str | None = None,
    score: str | None = None,
) -> tuple[Dataset, Audit]:
    """Audits a file of predictions: a row per row of the subject's data.

    Args:
        subject: Labels and groups.
        table: The user's table, read before; None for other data.
        path: CSV or Parquet. It may be the table itself.
        prediction: Its column of predicted labels; "prediction" unless given, if it is there.
        score: Its column of probabilities; "score" unless given, if it is there.

    Raises:
        DataError: For columns that are not there, other lengths, and what are no predictions.
    """
    data = load_whole(subject, table)
    delimiter = subject.data.delimiter or ","
    frame = read_table(path, delimiter=delimiter)
    chosen: dict[str, str | None] = {LABELS: prediction, SCORES: score}
    if prediction is None and score is None:  # whichever are there
        chosen = {kind: kind if kind in frame.columns else None for kind in chosen}
    require_columns(frame, [name for name in chosen.values() if name is not None])
    if chosen[LABELS] is None and chosen[SCORES] is None:
        raise DataError(
            "data-no-column",
            "The file of predictions must have a column of labels or scores",
            got=f"neither {LABELS!r} nor {SCORES!r}",
            cure=f"Name one with --prediction or --score. {did_you_mean(LABELS, frame.columns)}",
        )
    if len(frame) != len(data):
        raise DataError(
            "data-lengths",
            "There must be a prediction for each row of the data",
            got=f"{len(frame)} for {len(data)} rows",
            cure="Predict every row, in the order of the data.",
        )
    labels, given_scores = chosen[LABELS], chosen[SCORES]
    if subject.threshold != 0.5 and given_scores is not None:
        labels = None  # the scores and the threshold say more than the labels of another one
    elif subject.threshold != 0.5:
        raise OptionError(
            "option-threshold",
            "A threshold needs scores",
            got="predicted labels alone",
            cure="Name their column with --score, or leave --threshold out.",
        )
    return data, audit_predictions(
        data,
        None if labels is None else _labels(frame[labels], _known(subject.data, data)),
        None if given_scores is None else _numeric(frame[given_scores]),
        threshold=subject.threshold,
        seed=subject.seed,
    )


def _known(choice: DataChoice, data: Dataset) -> dict[str, int]:
    """The labels of the data, as texts, with their classes."""
    if data.schema is not None:
        return {data.schema.negative: 0, data.schema.positive: 1}
    if data.class_names:
        return {name: k for k, name in enumerate(data.class_names)}
    if choice.positive is None:
        return {str(k): k for k in range(int(data.y.max(initial=0)) + 1)}
    labels = label_texts(np.asarray(read_arrays(choice.files[0])["y"]))
    return {str(label): int(label == choice.positive) for label in np.unique(labels)}


def _require_direction(classes: Ints, scores: npt.NDArray[np.float64] | None) -> None:
    """Refuses scores that are lower for those who are predicted 1 than for the others."""
    one = classes == 1
    if scores is None or one.all() or not one.any():
        return
    inside, outside = scores[one].mean(), scores[~one].mean()
    if inside < outside:
        raise DataError(
            "data-predictions",
            "Scores must be probabilities of y = 1",
            got=f"a mean score of {inside:.2f} where 1 is predicted and {outside:.2f} elsewhere",
            cure="Give 1 - score, or check which label counts as 1.",
        )


def _labels(column: pd.Series[Any], known: Mapping[str, int]) -> Ints:
    """Predicted labels as classes."""
    if column.isna().any():
        raise _missing(column)
    texts = as_text(column)
    unknown = texts[~texts.isin(list(known))]
    if len(unknown):
        numbers = pd.to_numeric(texts, errors="coerce")
        inside = bool(((numbers >= 0) & (numbers <= 1)).all())
        probable = inside and bool(((numbers > 0) & (numbers < 1)).any())
        raise DataError(
            "data-predictions",
            f"Predicted labels in {column.name!r} must be {' or '.join(map(repr, known))}",
            got=f"{unknown.iloc[0]!r}" + (", which looks like a probability" if probable else ""),
            cure=f"Give probabilities as --score {column.name}."
            if probable
            else "Predict the labels of the data.",
        )
    return np.asarray(texts.map(known)).astype(np.int64)


def _numeric(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    if column.isna().any():
        raise _missing(column)
    plain = pd.api.types.is_numeric_dtype(column)  # objects may be integers of 400 digits
    numbers = pd.to_numeric(column if plain else column.map(str), errors="coerce")
    if numbers.isna().any():
        raise DataError(
            "data-predictions",
            f"Scores in {column.name!r} must be numbers",
            got=repr(column[numbers.isna()].iloc[0]),
            cure=f"Give labels as --prediction {column.name}.",
        )
    return numbers.to_numpy(dtype=np.float64)


def _missing(column: pd.Series[Any]) -> DataError:
    return DataError(
        "data-predictions",
        "Every row needs a prediction",
        got=f"{int(column.isna().sum())} missing in {column.name!r}",
        cure="Predict these rows, or drop them from the data.",
    )


def _probabilities(scores: npt.NDArray[Any], rows: int) -> npt.NDArray[np.float64]:
    _require_length(scores, rows)
    try:
        numbers = scores.astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.full(rows, np.nan)
    if not np.isfinite(numbers).all():
        raise DataError(
            "data-predictions",
            "Scores must be finite numbers",
            got=f"{int((~np.isfinite(numbers)).sum())} of {rows} that are none",
            cure="Look for NaN in the model's outputs.",
        )
    outside = (numbers < 0) | (numbers > 1)
    if outside.any():
        raise DataError(
            "data-predictions",
            "Scores must be probabilities in [0, 1]",
            got=f"{numbers[outside][0]:g} and {int(outside.sum()) - 1} more outside; "
            "they look like logits",
            cure="Apply sigmoid (or softmax) first.",
        )
    return numbers


def _classes(predicted: npt.NDArray[Any], data: Dataset) -> Ints:
    _require_length(predicted, len(data))
    whole = predicted.dtype.kind in "biuf" and bool(np.isin(predicted, range(1 << 16)).all())
    if not whole:
        shares = predicted.dtype.kind == "f" and bool(((predicted >= 0) & (predicted <= 1)).all())
        raise DataError(
            "data-predictions",
            "Predicted classes must be 0, 1, …",
            got=str(np.unique(predicted)[:3].tolist())
            + (", which look like probabilities" if shares else ""),
            cure="Give probabilities as scores." if shares else "Encode them.",
        )
    return predicted.astype(np.int64)


def _require_length(values: npt.NDArray[Any], rows: int) -> None:
    if values.shape != (rows,):
        raise DataError(
            "data-lengths",
            "There must be one prediction per row",
            got=f"{values.shape} for {rows} rows",
            cure="Give an array (n,).",
        )
