"""Ready arrays from ``.npz`` files, read without pickles and without unpacking bombs."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairneuron.data.columns import FEW, MOST_GROUPS, require_few_groups
from fairneuron.data.csvfile import duplicate_column
from fairneuron.data.tables import EXACT, UNKNOWN, most_unpacked, require_file
from fairneuron.errors import DataError, did_you_mean, require_known

if TYPE_CHECKING:
    from fairneuron.data.dataset import Dataset

Array = npt.NDArray[Any]


def read_npz(path: Path) -> dict[str, Array]:
    """Reads the arrays of a ``.npz`` file.

    Raises:
        DataError: For other and damaged files, arrays of objects, and files that would unpack to
            far more than their size.
    """
    require_file(path)
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names):
                raise duplicate_column(names)
            most = most_unpacked(path)
            if sum(member.file_size for member in members) > most:
                raise DataError(
                    "data-bomb",
                    "A packed file must unpack to a size that fits it",
                    got=f"{sum(m.file_size for m in members)} bytes from {path}",
                    cure="Save the arrays with numpy.savez.",
                )
            return {
                name: _array(name, file.read(member))
                for name, member in zip(names, members, strict=True)
            }
    except DataError:
        raise
    except Exception as error:  # zipfile and numpy raise many kinds for damaged files
        raise DataError(
            "data-file",
            "Arrays must be in a whole .npz file",
            got=f"{path}: {type(error).__name__}: {error}",
            cure="Save them with numpy.savez(path, x=..., y=..., sensitive=...).",
        ) from error


def _array(name: str, content: bytes) -> Array:
    file = BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = read_header[version](file)
    if dtype.hasobject:
        raise DataError(
            "data-type",
            f"The array {name!r} must hold numbers or texts",
            got="Python objects, which only a pickle can hold",
            cure="Convert it, for example with array.astype(str), before saving.",
        )
    size = math.prod(shape) * dtype.itemsize
    if size != len(content) - file.tell() or min(shape, default=0) < 0 or not dtype.itemsize:
        raise DataError(
            "data-bomb",
            "An array must be as large as its header says",
            got=f"{shape} of {dtype} in {len(content)} bytes of {name!r}",
            cure="Save it again.",
        )
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def dataset_of_arrays(
    arrays: Mapping[str, Array],
    *,
    sensitive: Sequence[str] = (),
    positive: str | None = None,
    name: str = "data",
) -> Dataset:
    """Makes a dataset of named arrays.

    Args:
        arrays: "x" ``(n, features)``, "y" ``(n,)`` and "sensitive" ``(n,)`` or ``(n, k)``; and, if
            wanted, "sensitive_names", "feature_names" and "weight".
        sensitive: Which of the sensitive columns to compare; all unless given.
        positive: The label of ``y = 1``; may be left out for labels 0, 1, ….
        name: What to call the data in reports.

    Raises:
        DataError: For missing arrays, and all that ``Dataset.from_arrays`` refuses.
    """
    from fairneuron.data.dataset import Dataset, numbered

    for key in ("x", "y", "sensitive"):
        if key not in arrays:
            raise DataError(
                "data-no-column",
                "The arrays must be named x, y and sensitive",
                got=f"no {key!r}",
                cure=did_you_mean(key, arrays),
            )
    x, y, groups = (np.asarray(arrays[key]) for key in ("x", "y", "sensitive"))
    _require_shapes(x, y, groups)
    labels, meant = _labels(y, positive)
    _require_no_copy(x, labels)
    table = _decoded(groups[:, None] if groups.ndim == 1 else groups)
    known = _names(arrays.get("sensitive_names")) or numbered("sensitive", table.shape[1])
    if sensitive and len(known) == table.shape[1]:
        for column in sensitive:
            require_known("data-no-column", "sensitive column", column, known)
        table = table[:, [known.index(column) for column in sensitive]]
        known = list(sensitive)
    _require_groups(table)
    return Dataset.from_arrays(
        x,
        labels,
        table,
        sensitive_names=known,
        feature_names=_names(arrays.get("feature_names")),
        sample_weight=arrays.get("weight"),
        name=name,
        positive=meant,
    )


def _require_shapes(x: Array, y: Array, groups: Array) -> None:
    if x.ndim != 2 or y.ndim != 1 or groups.ndim not in (1, 2) or 0 in x.shape[1:] + groups.shape:
        raise DataError(
            "data-shape",
            "x must be (n, features), y (n,) and sensitive (n,) or (n, k)",
            got=f"{x.shape}, {y.shape} and {groups.shape}",
            cure="Reshape them.",
        )
    if not len(x) == len(y) == len(groups):
        raise DataError(
            "data-lengths",
            "x, y and sensitive must have as many rows as each other",
            got=f"{len(x)}, {len(y)} and {len(groups)}",
            cure="Check how they were cut.",
        )
    for key, array in (("y", y), ("sensitive", groups)):
        if array.dtype.kind not in "biufSU":
            raise DataError(
                "data-type",
                f"{key} must hold numbers or texts",
                got=str(array.dtype),
                cure="Convert it, for example with array.astype(str).",
            )


def _require_groups(table: Array) -> None:
    """Each sensitive column of ``(n, k)`` has two groups or more, and no endless number of them."""
    missing = np.isnan(table) if table.dtype.kind == "f" else table == UNKNOWN
    values = [np.unique(column[~gone]) for column, gone in zip(table.T, missing.T, strict=True)]
    for k, found in enumerate(values):
        if len(found) < 2:
            raise DataError(
                "data-single-group",
                f"Column {k} of sensitive must have two groups or more",
                got=f"only {found.tolist()}",
                cure="Choose another column.",
            )
        if table.dtype.kind in "iuf" and len(found) > MOST_GROUPS:
            raise DataError(
                "data-sensitive-continuous",
                f"Column {k} of sensitive must have at most {MOST_GROUPS} groups",
                got=f"{len(found)} numbers",
                cure="Bin it, for example with numpy.digitize.",
            )
    require_few_groups(map(len, values))


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
                cure=f"For example --positive {values[1]}.",
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
