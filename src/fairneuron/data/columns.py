"""Columns of a table: those that are asked for, their values as texts, and the label.

What a sensitive column must be is in ``groups``, what an input must be in ``inputs``.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairneuron.data.csvfile import duplicate_column
from fairneuron.data.tables import UNKNOWN
from fairneuron.errors import DataError, Problems, did_you_mean, warn

TYPES = ("number", "category")
FEW = 20  # rows: in fewer, a value per row or a copy of the label may be chance


@dataclass(frozen=True)
class Column:
    """A column of a table; a column without categories is numeric."""

    name: str
    categories: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """One of "number" and "category"."""
        return TYPES[bool(self.categories)]

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of ``x`` that it becomes."""
        return tuple(f"{self.name}={c}" for c in self.categories) or (self.name,)


def require_columns(frame: pd.DataFrame, wanted: Sequence[str]) -> None:
    """Raises a ``DataError`` unless the table has rows and these columns, each once."""
    if not frame.columns.is_unique:
        raise duplicate_column([str(name) for name in frame.columns])
    strange = [name for name in frame.columns if not isinstance(name, str)]
    if strange:
        raise DataError(
            "data-column-name",
            "Column names must be texts",
            got=repr(strange[0]),
            cure="For example frame.columns = frame.columns.map(str).",
        )
    problems = Problems()
    for name in dict.fromkeys(wanted):
        if name not in frame.columns:
            problems.found.append(
                DataError(
                    "data-no-column",
                    f"The table must have the column {name!r}",
                    got="none of that name",
                    cure=did_you_mean(name, frame.columns),
                )
            )
    problems.settle()
    if len(frame) == 0:
        raise DataError(
            "data-empty", "The table must have rows", got="none", cure="Check the file."
        )


def as_text(column: pd.Series[Any]) -> pd.Series[str]:
    """Values as texts; a whole number held as a float (1.0) reads as 1."""
    return column.map({value: _value(value) for value in _distinct(column)})


def _distinct(column: pd.Series[Any]) -> Any:
    try:
        return column.unique()
    except TypeError as error:  # lists and dicts
        raise DataError(
            "data-type",
            f"Values of {column.name!r} must be numbers or texts",
            got=repr(type(column.iloc[0]).__name__),
            cure="Take them apart into columns, or drop the column.",
        ) from error


def _value(value: object) -> str:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def fit_labels(column: pd.Series[Any], positive: object) -> tuple[str, str]:
    """The negative and the positive label of a target column, as texts."""
    if column.isna().any():
        raise DataError(
            "data-label-missing",
            "Every row needs a label",
            got=f"{int(column.isna().sum())} missing in {column.name!r}",
            cure="Drop these rows.",
        )
    values = sorted(set(as_text(column)))
    if len(values) != 2:
        shown = ", ".join(values[:5]) + (", …" if len(values) > 5 else "")
        raise DataError(
            "data-labels",
            f"The target {column.name!r} must have two values",
            got=f"{len(values)}: {shown}",
            cure="Give rows of both classes."
            if len(values) == 1
            else "Binarise it, or choose another target.",
        )
    if positive is None and values not in (["0", "1"], ["False", "True"]):
        raise DataError(
            "data-positive",
            f"The positive label of {column.name!r} must be named",
            got=f"values {values[0]!r} and {values[1]!r}",
            cure="Say which one counts as y = 1, for example --positive "
            f"{shlex.quote(values[1])}, in Python positive={values[1]!r}.",
        )
    chosen = values[1] if positive is None else _value(positive)
    if chosen not in values:
        raise DataError(
            "data-positive",
            f"The positive label must be a value of {column.name!r}",
            got=repr(chosen),
            cure=did_you_mean(chosen, values),
        )
    return values[values.index(chosen) - 1], chosen


def require_no_copy(column: pd.Series[Any], target: pd.Series[Any]) -> None:
    """Refuses an input that states the label."""
    if len(column) < FEW or column.nunique() != 2 or target.nunique() != 2:
        return
    pairs = pd.DataFrame({"input": as_text(column), "label": as_text(target)})
    if len(pairs.drop_duplicates()) == 2:
        raise DataError(
            "data-target-used",
            "No input may state the label",
            got=f"{column.name!r}, which has one value for each of {target.name!r}",
            cure="Drop it.",
        )


def codes_of(column: pd.Series[Any], fitted: Column) -> npt.NDArray[np.int64]:
    """Positions in the fitted categories, ``(n,)``."""
    text = as_text(column.dropna()).astype(object).reindex(column.index, fill_value=UNKNOWN)
    codes = pd.Index(fitted.categories).get_indexer(pd.Index(text))
    if (codes < 0).any():
        raise DataError(
            "data-unseen-category",
            f"Values of {fitted.name!r} must be among those the schema was fitted on",
            got=repr(text.iloc[int(np.argmin(codes))]),
            cure=f"Known: {', '.join(fitted.categories[:20])}.",
        )
    return codes.astype(np.int64)


def warn_alike(name: object, levels: set[str]) -> None:
    """Warns of values that differ in case or spaces alone."""
    alike: dict[str, list[str]] = {}
    for level in sorted(levels):
        alike.setdefault(" ".join(level.split()).casefold(), []).append(level)
    pairs = [" and ".join(map(repr, found)) for found in alike.values() if len(found) > 1]
    if pairs:
        warn(
            "data-alike",
            f"Values of {name!r} differ in case or spaces alone, and are kept apart: "
            + "; ".join(pairs[:5]),
        )
