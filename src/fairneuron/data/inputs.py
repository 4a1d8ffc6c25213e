"""Input columns of a table: numbers or categories, as they are found or declared; and encoded."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairneuron.data.columns import FEW, Column, as_text, codes_of, warn_alike
from fairneuron.data.csvfile import LEADING_ZEROS
from fairneuron.data.tables import EXACT, NOT_FINITE, NUMBER, UNKNOWN
from fairneuron.errors import DataError, warn


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
        warn_alike(name, levels)
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


def _as_category(name: str) -> str:
    """How a column is declared a category, on the command line and in Python."""
    return f"--type {shlex.quote(f'{name}=category')}, types={{{name!r}: 'category'}}"


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


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def _huge(name: str, value: object) -> DataError:
    return DataError(
        "data-huge-integer",
        f"Whole numbers of {name!r} must lie within ±2^53",
        got=str(value),
        cure=f"Drop it if it is an identifier, or declare it a category ({_as_category(name)}).",
    )
