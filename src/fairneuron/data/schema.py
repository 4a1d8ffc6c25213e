"""How a table becomes a Dataset: fitted once, applied to any later table of the same columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from fairneuron.data.dataset import Dataset
from fairneuron.errors import DataError, did_you_mean, warn

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Column:
    """A column of a table; a column without categories is numeric."""

    name: str
    categories: tuple[str, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of ``x`` that it becomes."""
        return tuple(f"{self.name}={c}" for c in self.categories) or (self.name,)


@dataclass(frozen=True)
class Schema:
    """How a table becomes a Dataset.

    Attributes:
        target: The column with the label.
        negative: The label of ``y = 0``, as text.
        positive: The label of ``y = 1``, as text.
        sensitive: The sensitive columns with their groups.
        inputs: The columns that the network reads, in this order.
    """

    target: str
    negative: str
    positive: str
    sensitive: tuple[Column, ...]
    inputs: tuple[Column, ...]

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        *,
        target: str,
        positive: object = None,
        sensitive: Sequence[str],
        inputs: Sequence[str],
    ) -> Schema:
        """Learns categories and labels from a table.

        Args:
            frame: The table.
            target: The column with the label.
            positive: The label of ``y = 1``; may be left out for 0/1 and boolean labels.
            sensitive: The columns whose groups are compared.
            inputs: The columns that the network reads.

        Raises:
            DataError: For columns that are not there or cannot play their part.
        """
        require_columns(frame, [target, *sensitive, *inputs])
        frame = frame.reset_index(drop=True)
        if not sensitive or len(set(sensitive)) < len(sensitive):
            raise DataError(
                "data-no-sensitive",
                "A sensitive column must be named, each once",
                got=", ".join(sensitive) or "none",
                cure="Name the columns whose groups are compared.",
            )
        if target in sensitive or target in inputs:
            raise DataError(
                "data-target-used",
                "The target cannot be an input or a sensitive column",
                got=repr(target),
                cure="Name another one.",
            )
        negative, positive_text = _labels(frame[target], positive)
        if not inputs:
            raise DataError(
                "data-no-inputs",
                "At least one column must be left as an input",
                got=f"columns {list(frame.columns)}",
                cure="Drop fewer columns.",
            )
        return cls(
            target=target,
            negative=negative,
            positive=positive_text,
            sensitive=tuple(_sensitive(frame[name]) for name in sensitive),
            inputs=tuple(_input(frame[name]) for name in inputs),
        )

    def encode(self, frame: pd.DataFrame, *, name: str = "data") -> Dataset:
        """Applies the schema.

        Args:
            frame: A table with the columns of this schema; others are ignored.
            name: What to call the data in reports.

        Raises:
            DataError: For missing columns, missing numbers, labels or categories that the schema
                does not know.
        """
        require_columns(frame, [self.target, *(c.name for c in self.sensitive + self.inputs)])
        frame = frame.reset_index(drop=True)
        labels = _text(frame[self.target])
        known = labels.isin([self.negative, self.positive])
        if not known.all():
            raise DataError(
                "data-labels",
                f"Labels must be {self.negative!r} or {self.positive!r}",
                got=repr(labels[~known].iloc[0]),
                cure="Correct or drop these rows.",
            )
        sensitive = np.stack([_codes(frame[c.name], c) for c in self.sensitive], axis=1)
        blocks = [_encode(frame[c.name], c) for c in self.inputs]
        return Dataset(
            x=torch.from_numpy(np.concatenate(blocks, axis=1)),
            y=np.asarray(labels == self.positive, dtype=np.int64),
            sensitive=sensitive,
            sensitive_names=tuple(c.name for c in self.sensitive),
            sensitive_levels=tuple(c.categories for c in self.sensitive),
            feature_names=tuple(f for c in self.inputs for f in c.features),
            name=name,
            positive=self.positive,
            schema=self,
        )

    def to_dict(self) -> dict[str, Any]:
        """The schema as plain lists and texts, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Schema:
        """Restores what ``to_dict`` gave."""
        columns = {
            key: tuple(Column(c["name"], tuple(c["categories"])) for c in fields[key])
            for key in ("sensitive", "inputs")
        }
        return cls(**{**fields, **columns})


def require_columns(frame: pd.DataFrame, wanted: Sequence[str]) -> None:
    """Raises a ``DataError`` unless the table has rows and these columns, each once."""
    if not frame.columns.is_unique:
        raise DataError(
            "data-duplicate-column",
            "Column names must differ",
            got=repr(frame.columns[frame.columns.duplicated()][0]),
            cure="Rename one of them.",
        )
    for name in wanted:
        if name not in frame.columns:
            raise DataError(
                "data-no-column",
                "A named column must exist",
                got=repr(name),
                cure=did_you_mean(name, frame.columns),
            )
    if len(frame) == 0:
        raise DataError(
            "data-empty", "The table must have rows", got="none", cure="Check the file."
        )


def _text(column: pd.Series[Any]) -> pd.Series[str]:
    """Values as texts; a whole number held as a float (1.0) reads as 1."""
    return column.map({value: _value(value) for value in column.unique()})


def _value(value: object) -> str:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _labels(column: pd.Series[Any], positive: object) -> tuple[str, str]:
    if column.isna().any():
        raise DataError(
            "data-label-missing",
            "Every row needs a label",
            got=f"{int(column.isna().sum())} missing in {column.name!r}",
            cure="Drop these rows.",
        )
    values = sorted(set(_text(column)))
    if len(values) != 2:
        raise DataError(
            "data-labels",
            f"The target {column.name!r} must have two values",
            got=f"{len(values)}: {', '.join(values[:5])}",
            cure="Binarise it, or choose another target.",
        )
    if positive is None and values not in (["0", "1"], ["False", "True"]):
        raise DataError(
            "data-positive",
            f"The positive label of {column.name!r} must be named",
            got=f"values {values[0]!r} and {values[1]!r}",
            cure="Say which one counts as y = 1, for example positive=" + repr(values[1]) + ".",
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


def _sensitive(column: pd.Series[Any]) -> Column:
    most = 20
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > most:
        raise DataError(
            "data-sensitive-continuous",
            f"A sensitive column must have at most {most} groups",
            got=f"{column.nunique()} numbers in {column.name!r}",
            cure="Bin it, for example with pandas.cut.",
        )
    levels = set(_text(column.dropna()))
    if column.isna().any():
        warn(
            "data-group-missing",
            f"{int(column.isna().sum())} rows without {column.name!r}: a group of their own",
        )
        levels.add(UNKNOWN)
    if len(levels) < 2:
        raise DataError(
            "data-single-group",
            f"The sensitive column {column.name!r} must have two groups or more",
            got=f"only {sorted(levels)}",
            cure="Choose another column.",
        )
    return Column(str(column.name), tuple(sorted(levels)))


def _input(column: pd.Series[Any]) -> Column:
    if pd.api.types.is_numeric_dtype(column):
        return Column(str(column.name))
    levels = set(column.dropna().astype(str))
    return Column(
        str(column.name), tuple(sorted(levels | ({UNKNOWN} if column.isna().any() else set())))
    )


def _codes(column: pd.Series[Any], fitted: Column) -> npt.NDArray[np.int64]:
    """Positions in the fitted categories, ``(n,)``."""
    text = _text(column.dropna()).reindex(column.index).fillna(UNKNOWN)
    codes = pd.Index(fitted.categories).get_indexer(pd.Index(text))
    if (codes < 0).any():
        raise DataError(
            "data-unseen-category",
            f"Values of {fitted.name!r} must be among those the schema was fitted on",
            got=repr(text.iloc[int(np.argmin(codes))]),
            cure=f"Known: {', '.join(fitted.categories[:20])}.",
        )
    return codes.astype(np.int64)


def _encode(column: pd.Series[Any], fitted: Column) -> npt.NDArray[np.float32]:
    """``(n, 1)`` numbers or ``(n, categories)`` zeros and ones."""
    if fitted.categories:
        return np.eye(len(fitted.categories), dtype=np.float32)[_codes(column, fitted)]
    if np.iscomplexobj(column):
        raise DataError(
            "data-complex",
            f"The input {fitted.name!r} must hold real numbers",
            got="complex ones",
            cure="Split them into two columns.",
        )
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~(np.abs(numbers) <= np.finfo(np.float32).max)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            "data-nonfinite",
            f"Every value of the input {fitted.name!r} must be a finite number",
            got=f"{column.iloc[row]!r} in row {row} and {int(bad.sum()) - 1} more",
            cure="Fill or drop these rows.",
        )
    return numbers.astype(np.float32)[:, None]
