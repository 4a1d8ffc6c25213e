"""Which part each column of a table may play: guesses by name and by values, for people to check.

Free of torch.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fairneuron.data.columns import FEW, as_text, require_no_copy
from fairneuron.data.groups import fit_groups
from fairneuron.data.inputs import describe_columns
from fairneuron.data.parts import part_of_words
from fairneuron.errors import DataError, FairNeuronWarning

SENSITIVE = frozenset(
    "sex gender race racial ethnicity ethnic age religion religious disability disabled "
    "nationality citizenship native birthplace caste veteran marital pregnancy pregnant "
    "orientation".split()
)
"""Words in names of columns that may be sensitive."""
_LABELS = frozenset(
    "target label labels class outcome y decision income risk default approved accepted admitted "
    "hired recid churn".split()
)
_COUNTS = frozenset("id ids identifier index key uuid guid no nr".split())
_WEIGHTS = frozenset("weight weights".split())
_DATE = re.compile(r"(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}([-/.])\d{1,2}\3\d{4})(?!\d)")
_MOST_PARTS = 3
_MOST_LEVELS, _FEWEST_ROWS = 12, 10  # levels are told if there are few, each of several people


@dataclass(frozen=True)
class Role:
    """What was found of a column.

    Attributes:
        name: Of the column.
        type: How it would be read: "number", "category", or "" if it cannot be an input.
        distinct: How many values it has.
        levels: Its values, where there are few; those of few rows are only counted.
        sensitive: Whether its name says so.
        groups: Whether its values are groups that can be compared.
        split: Whether it says of each row which part of the data it belongs to.
        weight: Whether it may hold sample weights.
        left: Why it is better no input; "" if nothing speaks against it.
    """

    name: str
    type: str
    distinct: int
    levels: tuple[str, ...]
    sensitive: bool
    groups: bool
    split: bool
    weight: bool
    left: str


def find_roles(frame: pd.DataFrame) -> list[Role]:
    """Looks at each column of a table."""
    return [
        _role(frame[found["column"]], found["type"], found["distinct"], found["problem"])
        for found in describe_columns(frame)
    ]


def targets(roles: Sequence[Role]) -> list[Role]:
    """The columns that may be the label: of two values, and not sensitive by name.

    Those that are called like one come first.
    """
    found = [r for r in roles if r.distinct == 2 and not (r.sensitive or r.split)]
    return sorted(found, key=lambda role: not set(_words(role.name)) & _LABELS)


def copies(frame: pd.DataFrame, roles: Sequence[Role], target: str) -> list[str]:
    """The columns that state the label in other words."""
    found = []
    for role in roles:
        try:
            if role.name != target:
                require_no_copy(frame[role.name], frame[target])
        except DataError:
            found.append(role.name)
    return found


def _role(column: pd.Series[Any], kind: str, distinct: int, problem: str) -> Role:
    name = str(column.name)
    words = set(_words(name))
    split = _is_split(column, distinct)
    return Role(
        name=name,
        type=kind if kind in ("number", "category") else "",
        distinct=distinct,
        levels=_levels(column, distinct),
        sensitive=bool(words & SENSITIVE),
        groups=_are_groups(column),
        split=split,
        weight=kind == "number" and bool(words & _WEIGHTS),
        left="" if split else _left(column, kind, distinct, problem, words),
    )


def _words(name: str) -> list[str]:
    """The words of "ageGroup" or "AGE_GROUP"."""
    return re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).casefold())


def _is_split(column: pd.Series[Any], distinct: int) -> bool:
    try:
        return distinct <= _MOST_PARTS and len(part_of_words(column)) > 0
    except DataError:
        return False


def _are_groups(column: pd.Series[Any]) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FairNeuronWarning)
            fit_groups(column)
    except DataError:
        return False
    return True


def _levels(column: pd.Series[Any], distinct: int) -> tuple[str, ...]:
    if distinct > _MOST_LEVELS:
        return ()
    sizes = as_text(column.dropna()).value_counts()
    told = sorted(str(level) for level, rows in sizes.items() if rows >= _FEWEST_ROWS)
    rare = len(sizes) - len(told)
    return (*told, f"and {rare} of fewer than {_FEWEST_ROWS} rows") if rare else tuple(told)


def _are_dates(column: pd.Series[Any]) -> bool:
    return bool(as_text(column.dropna()).str.strip().str.match(_DATE).all())


def _left(
    column: pd.Series[Any], kind: str, distinct: int, problem: str, words: Collection[str]
) -> str:
    if problem:
        return "cannot be read; 'fairneuron data show' says why"
    if not kind or kind.startswith("left out"):
        return "a value per row"
    if distinct == 1 and len(column) > 1:
        return "one value alone"
    if kind == "category" and distinct > _MOST_LEVELS and _are_dates(column):
        return "dates, each a category of its own"
    whole = column.dtype.kind in "iu"
    if len(column) >= FEW and distinct == len(column):
        counted = whole and int(column.max()) - int(column.min()) == len(column) - 1
        if counted or set(words) & _COUNTS:
            return "counts the rows" if counted else "an identifier"
    return ""
