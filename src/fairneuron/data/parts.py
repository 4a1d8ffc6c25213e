"""Which rows are for training, for validation and for test: splits, drawn or given.

A part is a number per row, ``(n,)``: 0 for training, 1 for validation, 2 for test.
"""

from __future__ import annotations

from math import isclose
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairneuron.data.tables import UNKNOWN
from fairneuron.errors import DataError, OptionError, did_you_mean, require_range, warn

if TYPE_CHECKING:
    import pandas as pd

    from fairneuron.data.dataset import Dataset, Ints, Mask

PARTS = ("training", "validation", "test")
_WORDS = {"train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2}


def drawn(cell: Ints, fractions: tuple[float, float, float], seed: int) -> Ints:
    """Draws the part of each row, stratified.

    Args:
        cell: ``(n,)``; each value's rows are spread over the parts, by at most two rows off.
        fractions: Of the rows for each part.
        seed: Another seed, another split.

    Raises:
        OptionError: For fractions that do not sum to 1, and a seed out of range.
    """
    if min(fractions) <= 0 or not isclose(sum(fractions), 1):
        raise OptionError(
            "option-fractions",
            "The three fractions must be positive and sum to 1",
            got=str(fractions),
            cure="For example (0.7, 0.1, 0.2).",
        )
    require_range("seed", seed, 0, 2**63 - 1)
    order = _by_cell(cell, seed)
    in_test = _every(len(order), fractions[2])
    rest = order[~in_test]
    in_valid = _every(len(rest), fractions[1] / (fractions[0] + fractions[1]))
    part = np.zeros(len(cell), dtype=np.int64)
    part[rest[in_valid]], part[order[in_test]] = 1, 2
    return part


def with_validation(part: Ints, cell: Ints, fraction: float, seed: int) -> Ints:
    """Puts a fraction of the training rows, stratified by their cells, into the validation part."""
    order = _by_cell(cell, seed)
    order = order[part[order] == 0]
    changed = part.copy()
    changed[order[_every(len(order), fraction)]] = 1
    return changed


def _by_cell(cell: Ints, seed: int) -> Ints:
    """All rows in random order, sorted by cell."""
    order = np.random.default_rng(seed).permutation(len(cell))
    return order[np.argsort(cell[order], kind="stable")]


def _every(n: int, fraction: float) -> Mask:
    """Marks a fraction of n positions, as evenly spaced as can be."""
    steps = np.floor(np.arange(n + 1) * fraction + 0.5)
    return np.diff(steps) > 0


def part_of_array(split: npt.NDArray[Any], n: int) -> Ints:
    """0, 1 or 2 per row, of these numbers or of words such as train, valid and test."""
    import pandas as pd

    words = pd.Series(split.reshape(-1), name="split")
    if words.dtype.kind in "iu" and words.isin([0, 1, 2]).all():
        words = words.map({0: "train", 1: "valid", 2: "test"})
    if len(words) != n:
        raise DataError(
            "data-lengths",
            "split must have an entry per row",
            got=f"{len(words)} for {n} rows",
            cure="Check how it was cut.",
        )
    return part_of_words(words)


def part_of_words(column: pd.Series[Any]) -> Ints:
    """0, 1 or 2 per row, from words such as train, valid and test.

    Raises:
        DataError: For other words, and where there are no train or no test rows.
    """
    words = column.astype(str).str.strip().str.lower()
    unknown = words[~words.isin(list(_WORDS))]
    if len(unknown):
        raise DataError(
            "data-split-column",
            f"The split column {column.name!r} must say train, valid or test",
            got=repr(column.loc[unknown.index[0]]),
            cure=did_you_mean(str(unknown.iloc[0]), _WORDS),
        )
    part: Ints = np.asarray(words.map(_WORDS)).astype(np.int64)
    if not {0, 2} <= set(part.tolist()):
        raise DataError(
            "data-split-column",
            f"The split column {column.name!r} must have train and test rows",
            got=", ".join(sorted(set(words))),
            cure="Leave the option out to let us split.",
        )
    return part


def require_levels(data: Dataset, part: Ints) -> None:
    """Raises a ``DataError`` if a part misses a value of a sensitive column."""
    columns = zip(data.sensitive_names, data.sensitive_levels, data.sensitive.T, strict=True)
    for column, levels, codes in columns:
        for number, title in enumerate(PARTS):
            found = set(codes[part == number].tolist())
            lost = sorted(set(codes.tolist()) - found)
            lost = [i for i in lost if levels[i] != UNKNOWN]
            if lost and found:
                raise DataError(
                    "data-group-absent",
                    "Each part of a split needs people of every group",
                    got=f"nobody of {column} = {levels[lost[0]]!r} in the {title} part",
                    cure="Give one table and let us split it by label and group.",
                )


def check_part(whole: Dataset, part: Dataset, title: str) -> None:
    """Refuses a part that misses a class; a group that it misses is a warning."""
    if not len(part) or len(np.unique(part.y)) < len(np.unique(whole.y)):
        raise DataError(
            "data-too-few",
            "Each part of a split needs samples of every class",
            got=f"{len(part)} {title} rows",
            cure="Give more data.",
        )
    lost = np.flatnonzero((whole.group_counts > 0) & (part.group_counts == 0) & whole.compared)
    if len(lost):
        warn(
            "data-group-absent",
            f"The {title} part has nobody of {[whole.group_names[g] for g in lost]}; "
            "its rates are undefined there",
        )
