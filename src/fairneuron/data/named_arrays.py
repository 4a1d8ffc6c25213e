"""Data from arrays with names, as ``.npz`` files have them: x, y, sensitive and what may go along.

Arrays x of two dimensions are tables; those of more are images.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fairneuron.data.arrays import COLOURS, Array, channels_first, numbered, require_shapes
from fairneuron.data.columns import FEW
from fairneuron.data.csvfile import duplicate_column
from fairneuron.data.groups import require_groups
from fairneuron.data.parts import part_of_array
from fairneuron.data.tables import EXACT, UNKNOWN
from fairneuron.errors import DataError, did_you_mean, printable, require_known, warn

if TYPE_CHECKING:
    from fairneuron.data.dataset import Dataset


_OF_ROWS, _PARTS = ("x", "y", "sensitive", "group", "weight"), ("train", "valid", "test")
_NAMES = (
    *_OF_ROWS,
    *("sensitive_names", "feature_names", "class_names", "split"),
    *(f"{key}_{part}" for key in _OF_ROWS for part in _PARTS),
)


def dataset_of_arrays(
    arrays: Mapping[str, Array],
    *,
    sensitive: Sequence[str] = (),
    positive: str | None = None,
    name: str = "data",
) -> Dataset:
    """Makes a dataset of named arrays.

    Args:
        arrays: "x" ``(n, features)``, "y" ``(n,)`` and "sensitive" (or "group") ``(n,)`` or ``(n,
            k)``; and, if wanted, "sensitive_names", "feature_names", "class_names", "weight" and
            "split". Images x are ``(n, channels, height, width)`` or ``(n, height, width,
            channels)``, bytes or numbers, or ``(n, height, width)`` of bytes, and need no
            "sensitive". Parts can have
            arrays of their own: "x_train", "y_train", "x_test", …
        sensitive: Which of the sensitive columns to compare; all unless given.
        positive: The label of ``y = 1``; may be left out for labels 0, 1, ….
        name: What to call the data in reports.

    Raises:
        DataError: For missing arrays, and all that ``Dataset.from_arrays`` refuses.
    """
    from fairneuron.data.dataset import Dataset

    _warn_unread(arrays)
    arrays = _whole(arrays)
    images = "x" in arrays and arrays["x"].ndim > 2
    for key in ("x", "y") if images and not sensitive else ("x", "y", "sensitive"):
        if key not in arrays:
            raise DataError(
                "data-no-column",
                "The arrays must be named x, y and sensitive",
                got=f"no {key!r}",
                cure=did_you_mean(key, arrays),
            )
    x, y = np.asarray(arrays["x"]), np.asarray(arrays["y"])
    features, classes = _names(arrays.get("feature_names")), _names(arrays.get("class_names"))
    if images:
        x, y = channels_first(x), y[:, 0] if y.shape[1:] == (1,) else y
        features = features or COLOURS.get(x.shape[1])
    groups = np.asarray(arrays["sensitive"]) if "sensitive" in arrays else None
    require_shapes(x, y, groups, filled=True)
    _require_plain(y, groups)
    labels, meant = _labels(y, positive)
    if positive is not None:
        classes = [next(v for v in np.unique(label_texts(y)).tolist() if v != positive), positive]
    elif classes and len(classes) > 1:
        meant = classes[1]
    _require_no_copy(x, labels)
    table, known = _groups(groups, arrays.get("sensitive_names"), sensitive)
    data = Dataset.from_arrays(
        x,
        labels,
        table,
        sensitive_names=known,
        feature_names=features,
        sample_weight=arrays.get("weight"),
        name=name,
        positive=meant,
        class_names=classes or (),
    )
    split = arrays.get("split")
    return data if split is None else replace(data, part=part_of_array(split, len(data)))


def _warn_unread(arrays: Mapping[str, Array]) -> None:
    """Warns of arrays whose names say nothing to us: a misspelt one would be missed in silence."""
    for name in arrays:
        if name not in _NAMES:
            near = difflib.get_close_matches(name[:100], _NAMES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            warn("data-unread", f"The array {printable(name[:100])!r} is not read{hint}")


def _whole(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays of parts (x_train, …) one below the other, with "split"; "group" as "sensitive"."""
    found = {key: np.asarray(array) for key, array in arrays.items()}
    if "x" not in found and {"x_train", "x_test"} <= set(found):
        parts = [p for p in _PARTS if f"x_{p}" in found]
        counts = [len(np.atleast_1d(found[f"x_{p}"])) for p in parts]
        for key in _OF_ROWS:
            pieces = [found.pop(f"{key}_{p}") for p in parts if f"{key}_{p}" in found]
            if pieces and (
                len(pieces) < len(parts) or len({(a.shape[1:], a.dtype.kind) for a in pieces}) > 1
            ):
                raise DataError(
                    "data-shape",
                    f"The parts of {key} must be alike",
                    got=", ".join(f"{a.dtype} {a.shape}" for a in pieces),
                    cure=f"Give {', '.join(f'{key}_{p}' for p in parts)}.",
                )
            if pieces and pieces[0].ndim:
                found[key] = np.concatenate(pieces)
        found["split"] = np.repeat(parts, counts)
    if "group" in found:
        found.setdefault("sensitive", found.pop("group"))
    return found


def _require_plain(y: Array, groups: Array | None) -> None:
    for key, array in (("y", y), ("sensitive", y if groups is None else groups)):
        if array.dtype.kind not in "biufSU":
            raise DataError(
                "data-type",
                f"{key} must hold numbers or texts",
                got=str(array.dtype),
                cure="Convert it, for example with array.astype(str).",
            )


def _groups(
    groups: Array | None, names: Array | None, sensitive: Sequence[str]
) -> tuple[Array | None, list[str]]:
    """The sensitive columns that are wanted, ``(n, k)``, and their names."""
    if groups is None:
        return None, []
    table = _decoded(groups[:, None] if groups.ndim == 1 else groups)
    known = _names(names) or numbered("sensitive", table.shape[1])
    if sensitive and len(known) == table.shape[1]:
        for column in sensitive:
            require_known("data-no-column", "sensitive column", column, known)
        table = table[:, [known.index(column) for column in sensitive]]
        known = list(sensitive)
    missing = np.isnan(table) if table.dtype.kind == "f" else table == UNKNOWN
    require_groups(
        {
            f"Column {k} of sensitive": np.unique(column[~gone])
            for k, (column, gone) in enumerate(zip(table.T, missing.T, strict=True))
        }
    )
    return table, known


def _names(array: Array | None) -> list[str] | None:
    """Texts of an array of names, each once."""
    if array is None:
        return None
    names = [str(name) for name in _decoded(array.reshape(-1))]
    if len(set(names)) < len(names):
        raise duplicate_column(names)
    return names


def _decoded(array: Array) -> Array:
    """Bytes as texts; different ones stay different."""
    if array.dtype.kind != "S":
        return array
    return np.asarray(np.char.decode(array, "utf-8", "backslashreplace"))


def label_texts(y: Array) -> Array:
    """Labels as texts; a whole number held as a float (1.0) reads as 1."""
    y = _decoded(y)
    whole = (
        y.dtype.kind == "f" and bool((y == np.floor(y)).all()) and float(np.abs(y).max()) < EXACT
    )
    return y.astype(np.int64).astype(str) if whole else y.astype(str)


def _labels(y: Array, positive: str | None) -> tuple[Array, str]:
    """Labels with 1 for the positive one, and what it is called."""
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise DataError(
            "data-label-missing",
            "Every row needs a label",
            got=f"{int(np.isnan(y).sum())} missing in y",
            cure="Drop these rows.",
        )
    values = np.unique(label_texts(y))
    if len(values) == 1:
        raise DataError(
            "data-labels",
            "y must have two classes or more",
            got=f"only {values[0]}",
            cure="Give rows of both classes.",
        )
    if positive is None:
        numbers = y.dtype.kind in "biuf"
        if len(values) == 2 and not (numbers and set(y.tolist()) == {0, 1}):
            raise DataError(
                "data-positive",
                "The positive label must be named",
                got=f"values {values[0]} and {values[1]}",
                cure=f"For example --positive {shlex.quote(str(values[1]))}, in Python "
                f"positive={str(values[1])!r}.",
            )
        return y, "1"
    known = [str(value) for value in values]
    if len(known) != 2 or positive not in known:
        raise DataError(
            "data-positive",
            "The positive label must be one of two values of y",
            got=repr(positive),
            cure=did_you_mean(positive, known[:20]),
        )
    return (label_texts(y) == positive).astype(np.int64), positive


def _require_no_copy(x: Array, y: Array) -> None:
    """Refuses an input that is the label itself."""
    if x.ndim != 2 or x.dtype.kind not in "biuf" or len(x) != len(y) or len(y) < FEW:
        return
    wide = y[:, None]
    opposite = (x == 1 - wide).all(0) if set(np.unique(y).tolist()) == {0, 1} else False
    same = np.flatnonzero((x == wide).all(0) | opposite)
    if len(same):
        raise DataError(
            "data-target-used",
            "No input may state the label",
            got=f"column {same[0]} of x, which is y or its opposite",
            cure="Drop it.",
        )
