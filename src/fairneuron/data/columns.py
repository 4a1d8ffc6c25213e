"""What a column of a table can be: labels, groups, numbers, categories; and what it cannot."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairneuron.data.csvfile import LEADING_ZEROS, duplicate_column
from fairneuron.data.tables import (
    EXACT,
    NOT_FINITE,
    NUMBER,
    UNKNOWN,
)
from fairneuron.errors import DataError, Problems, did_you_mean, warn

TYPES = ("number", "category")
MOST_GROUPS = 20  # numbers with more values are no groups
_MOST_INTERSECTIONS = 200
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


def describe_columns(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What each column would be as an input, with its problem if it has one; for printing."""
    for name, column in frame.items():
        problem, kind = "", "category"
        try:
            fitted = fit_input(column, None, quiet=True)
            kind = "left out: a value per row" if fitted is None else fitted.type
        except DataError as error:
            problem = str(error)
        distinct = column.dropna().astype(str).unique()
        yield {
            "column": str(name),
            "type": kind if not problem else "",
            "distinct": len(distinct),
            "missing": int(column.isna().sum()),
            "examples": [str(value) for value in distinct[:3]],
            "problem": problem,
        }


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
                    "A named column must exist",
                    got=repr(name),
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


def fit_groups(column: pd.Series[Any], kind: str | None = None) -> Column:
    """The groups of a sensitive column."""
    levels = set(as_text(column.dropna()))
    if len(levels) > MOST_GROUPS and kind != "category" and _all_numbers(levels):
        raise DataError(
            "data-sensitive-continuous",
            f"A sensitive column must have at most {MOST_GROUPS} groups",
            got=f"{len(levels)} numbers in {column.name!r}",
            cure="Bin it, for example with pandas.cut; or declare it a category.",
        )
    if len(levels) > max(MOST_GROUPS, len(column) // 2):
        raise DataError(
            "data-sensitive-continuous",
            "A sensitive column must have groups of several people",
            got=f"{len(levels)} values in {len(column)} rows of {column.name!r}",
            cure="Choose another column.",
        )
    if UNKNOWN in levels:
        rows = int((as_text(column.dropna()) == UNKNOWN).sum())
        warn(
            "data-group-missing",
            f"{rows} rows of {column.name!r} say {UNKNOWN!r}: listed, not compared; write it "
            "otherwise to compare them",
        )
    if column.isna().any():
        warn(
            "data-group-missing",
            f"{int(column.isna().sum())} rows without {column.name!r}: listed as {UNKNOWN!r}, "
            "not compared",
        )
        levels.add(UNKNOWN)
    if len(levels - {UNKNOWN}) < 2:
        raise DataError(
            "data-single-group",
            f"The sensitive column {column.name!r} must have two groups or more",
            got=f"only {sorted(levels)}",
            cure="Choose another column.",
        )
    _warn_alike(column.name, levels)
    return Column(str(column.name), tuple(sorted(levels)))


def _all_numbers(levels: Collection[str]) -> bool:
    """Whether these texts are numbers, as those of a CSV file may be."""
    return bool(pd.Index(sorted(levels), dtype="str").str.strip().str.fullmatch(NUMBER).all())


def require_few_groups(sizes: Iterable[int]) -> None:
    """Raises a ``DataError`` if sensitive columns of so many values make too many groups."""
    groups = math.prod(sizes)
    if groups > _MOST_INTERSECTIONS:
        raise DataError(
            "data-too-many-groups",
            f"The sensitive columns can have at most {_MOST_INTERSECTIONS} intersections",
            got=str(groups),
            cure="Name fewer columns, or bin their values.",
        )


def _warn_alike(name: object, levels: set[str]) -> None:
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


def fit_input(column: pd.Series[Any], kind: str | None, *, quiet: bool = False) -> Column | None:
    """The fitted input, or None for a column to leave out."""
    name = str(column.name)
    _require_plain(column)
    numeric = pd.api.types.is_numeric_dtype(column) or column.dtype.kind == "b"
    if numeric if kind is None else kind == "number":
        numbers = numbers_of(column, name)
        if not quiet and len(numbers) > 1 and (numbers == numbers[0]).all():
            warn("data-constant", f"The input {name!r} has one value alone: {column.iloc[0]}")
        return Column(name)
    levels = set(as_text(column.dropna()))
    declared = kind is not None or isinstance(column.dtype, pd.CategoricalDtype)
    if not declared:
        if _reads_as_numbers(column, name, levels, quiet=quiet):
            return fit_input(column, "number", quiet=quiet)
        if len(levels) > max(FEW, len(column) / 2):
            if not quiet:
                warn(
                    "data-identifier",
                    f"The column {name!r} has {len(levels)} values in {len(column)} rows and is "
                    f"left out; to keep it, declare it a category ({_as_category(name)})",
                )
            return None
    if column.isna().any():
        levels.add(UNKNOWN)
    if not quiet:
        _warn_alike(name, levels)
        if len(levels) == 1 and len(column) > 1:
            warn("data-constant", f"The input {name!r} has one value alone: {min(levels)}")
    return Column(name, tuple(sorted(levels)))


def _require_plain(column: pd.Series[Any]) -> None:
    """Refuses what is neither numbers nor texts."""
    name = column.name
    if isinstance(column.dtype, pd.SparseDtype):
        raise DataError(
            "data-sparse",
            f"The input {name!r} must be dense",
            got=str(column.dtype),
            cure="Use .sparse.to_dense().",
        )
    if np.iscomplexobj(column):
        raise DataError(
            "data-complex",
            f"The input {name!r} must hold real numbers",
            got="complex ones",
            cure="Split them into two columns.",
        )
    held = pd.api.types.infer_dtype(column) if column.dtype == object else ""
    times = ("date", "datetime", "time", "timedelta", "period")
    if column.dtype.kind in "mM" or isinstance(column.dtype, pd.PeriodDtype) or held in times:
        raise DataError(
            "data-type",
            f"The input {name!r} must hold numbers or texts",
            got=f"times ({held or column.dtype})",
            cure="Turn them into numbers, such as days since a date, or drop the column.",
        )


def _reads_as_numbers(column: pd.Series[Any], name: str, levels: set[str], *, quiet: bool) -> bool:
    """Whether objects are numbers, or texts are with some not finite; refuses texts among numbers.

    Texts that all are finite numbers come from a library in which somebody declared them texts, or
    would lose their leading zeros: they are categories.
    """
    held = pd.api.types.infer_dtype(column)
    if held in ("integer", "floating", "mixed-integer-float", "decimal"):
        return True
    values = pd.Index(sorted(levels), dtype="str").str.strip()
    plain = values.str.fullmatch(NUMBER)
    if values.str.fullmatch(LEADING_ZEROS).any() and plain.all():
        if not quiet:
            warn(
                "data-leading-zeros",
                f"Numbers of {name!r} have leading zeros: read as categories, so that none is lost",
            )
        return False
    if plain.all():
        return False
    others = values[~plain]
    written = others.str.replace(r"[\s,'_%$€£]", "", regex=True)
    if written.str.fullmatch(NUMBER).all():
        raise DataError(
            "data-number-format",
            f"Numbers of {name!r} must be written plainly",
            got=repr(others[0]),
            cure="Write 1234.5, without separators, signs or units; "
            f"or declare it a category ({_as_category(name)}).",
        )
    if not plain.any():
        return False
    if others.str.fullmatch(NOT_FINITE).all():
        return True
    rows = int(column.map(str).isin(set(pd.Index(sorted(levels))[~plain])).sum())
    raise DataError(
        "data-mixed",
        f"Values of {name!r} must be numbers or texts, not both",
        got=f"{', '.join(map(repr, others[:3]))} in {rows} of {len(column)} rows, numbers in the "
        "others",
        cure=f"Fill or drop these, or declare it a category ({_as_category(name)}).",
    )


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def _huge(name: str, value: object) -> DataError:
    return DataError(
        "data-huge-integer",
        f"Whole numbers of {name!r} must lie within ±2^53",
        got=str(value),
        cure=f"Drop it if it is an identifier, or declare it a category ({_as_category(name)}).",
    )


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


def _as_category(name: str) -> str:
    """How a column is declared a category, on the command line and in Python."""
    return f"--type {shlex.quote(f'{name}=category')}, types={{{name!r}: 'category'}}"


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


def encode_input(column: pd.Series[Any], fitted: Column) -> npt.NDArray[np.float32]:
    """``(n, 1)`` numbers or ``(n, categories)`` zeros and ones."""
    if fitted.categories:
        flags = np.zeros((len(column), len(fitted.categories)), dtype=np.float32)
        flags[np.arange(len(column)), codes_of(column, fitted)] = 1
        return flags
    _require_plain(column)
    return numbers_of(column, fitted.name).astype(np.float32)[:, None]


def numbers_of(column: pd.Series[Any], name: str) -> npt.NDArray[np.float64]:
    """Finite numbers ``(n,)`` that float32 can hold."""
    try:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    except OverflowError as error:  # objects of hundreds of digits
        raise _huge(name, "one of more than 300 digits") from error
    huge = np.abs(numbers) > EXACT
    if huge.any() and pd.api.types.infer_dtype(column) == "integer":
        raise _huge(name, column[huge].iloc[0])
    bad = ~(np.abs(numbers) <= np.finfo(np.float32).max)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            "data-nonfinite",
            f"Every value of the input {name!r} must be a finite number",
            got=f"{_shown(column.iloc[row])} in row {row} (the first is 0)"
            + (f" and {int(bad.sum()) - 1} more" if bad.sum() > 1 else ""),
            cure="Fill or drop these rows.",
        )
    return numbers
