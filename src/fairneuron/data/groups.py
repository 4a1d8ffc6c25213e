"""Sensitive columns: which values are groups, and how many there may be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt
import pandas as pd

from fairneuron.data.columns import Column, as_text, warn_alike
from fairneuron.data.tables import NUMBER, UNKNOWN
from fairneuron.errors import DataError, warn

MOST_GROUPS = 20  # numbers with more values are no groups
_MOST_INTERSECTIONS = 200


def fit_groups(column: pd.Series[Any], kind: str | None = None) -> Column:
    """The groups of a sensitive column."""
    levels = set(as_text(column.dropna()))
    texts = pd.Index(sorted(levels), dtype="str").str.strip()  # numbers of a CSV file may be texts
    if len(levels) > MOST_GROUPS and kind != "category" and texts.str.fullmatch(NUMBER).all():
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
    warn_alike(column.name, levels)
    return Column(str(column.name), tuple(sorted(levels)))


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


def require_groups(columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raises a ``DataError`` unless each column has two groups or more, and no endless number.

    Args:
        columns: The distinct known values of each, by what messages call it.
    """
    for title, values in columns.items():
        if len(values) < 2:
            raise DataError(
                "data-single-group",
                f"{title} must have two groups or more",
                got=f"only {values.tolist()}",
                cure="Choose another column.",
            )
        if values.dtype.kind in "iuf" and len(values) > MOST_GROUPS:
            raise DataError(
                "data-sensitive-continuous",
                f"{title} must have at most {MOST_GROUPS} groups",
                got=f"{len(values)} numbers",
                cure="Bin it, for example with numpy.digitize.",
            )
    require_few_groups(map(len, columns.values()))
