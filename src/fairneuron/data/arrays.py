"""Ready arrays from ``.npz`` files, read without pickles and without unpacking bombs.

Arrays x of two dimensions are tables; those of more are images.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    import pandas as pd

    from fairneuron.data.dataset import Dataset, Ints

Array = npt.NDArray[Any]
_PART = {"train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2}
COLOURS = {1: ["grey"], 3: ["red", "green", "blue"]}


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
        arrays: "x" ``(n, features)``, "y" ``(n,)`` and "sensitive" (or "group") ``(n,)`` or ``(n,
            k)``; and, if wanted, "sensitive_names", "feature_names", "class_names", "weight" and
            "split". Images x are ``(n, height, width)``, ``(n, height, width, channels)`` or ``(n,
            channels, height, width)``, bytes or numbers, and need no "sensitive". Parts can have
            arrays of their own: "x_train", "y_train", "x_test", …
        sensitive: Which of the sensitive columns to compare; all unless given.
        positive: The label of ``y = 1``; may be left out for labels 0, 1, ….
        name: What to call the data in reports.

    Raises:
        DataError: For missing arrays, and all that ``Dataset.from_arrays`` refuses.
    """
    from fairneuron.data.dataset import Dataset

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
    _require_shapes(x, y, groups)
    labels, meant = _labels(y, positive)
    if images and positive is not None:
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
    return data if split is None else replace(data, part=_part_of(split, len(data)))


def _whole(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays of parts (x_train, …) one below the other, with "split"; "group" as "sensitive"."""
    found = {key: np.asarray(array) for key, array in arrays.items()}
    if "x" not in found and {"x_train", "x_test"} <= set(found):
        parts = [p for p in ("train", "valid", "test") if f"x_{p}" in found]
        counts = [len(np.atleast_1d(found[f"x_{p}"])) for p in parts]
        for key in ("x", "y", "sensitive", "group", "weight"):
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


def channels_first(x: Array) -> Array:
    """Images as ``(n, channels, height, width)``.

    Args:
        x: Also ``(n, height, width)`` of bytes, or with 1 or 3 channels at the end.
    """
    if x.ndim == 3 and x.dtype == np.uint8:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] not in COLOURS and x.shape[3] in COLOURS:
        return x.transpose(0, 3, 1, 2)
    return x


def as_read(x: Array) -> Array:
    """Numbers as a network reads them: float32, bytes with channels as value / 255; a copy."""
    own = np.array(x, dtype=np.float32, order="K" if x.ndim < 3 else "C")
    if x.dtype == np.uint8 and x.ndim > 2:
        own /= 255
    return own


def _part_of(split: Array, n: int) -> Ints:
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
    unknown = words[~words.isin(list(_PART))]
    if len(unknown):
        raise DataError(
            "data-split-column",
            f"The split column {column.name!r} must say train, valid or test",
            got=repr(column.loc[unknown.index[0]]),
            cure=did_you_mean(str(unknown.iloc[0]), _PART),
        )
    part: Ints = np.asarray(words.map(_PART)).astype(np.int64)
    if not {0, 2} <= set(part.tolist()):
        raise DataError(
            "data-split-column",
            f"The split column {column.name!r} must have train and test rows",
            got=", ".join(sorted(set(words))),
            cure="Leave the option out to let us split.",
        )
    return part


def _groups(
    groups: Array | None, names: Array | None, sensitive: Sequence[str]
) -> tuple[Array | None, list[str]]:
    """The sensitive columns that are wanted, ``(n, k)``, and their names."""
    from fairneuron.data.dataset import numbered

    if groups is None:
        return None, []
    table = _decoded(groups[:, None] if groups.ndim == 1 else groups)
    known = _names(names) or numbered("sensitive", table.shape[1])
    if sensitive and len(known) == table.shape[1]:
        for column in sensitive:
            require_known("data-no-column", "sensitive column", column, known)
        table = table[:, [known.index(column) for column in sensitive]]
        known = list(sensitive)
    _require_groups(table)
    return table, known


def _require_shapes(x: Array, y: Array, groups: Array | None) -> None:
    sides = (1,) if groups is None else groups.shape
    if x.ndim < 2 or y.ndim != 1 or len(sides) not in (1, 2) or 0 in x.shape[1:] + sides:
        raise DataError(
            "data-shape",
            "x must be (n, features) or (n, channels, …), y (n,) and sensitive (n,) or (n, k)",
            got=f"{x.shape}, {y.shape}{'' if groups is None else f' and {groups.shape}'}",
            cure="Reshape them.",
        )
    if not len(x) == len(y) == len(y if groups is None else groups):
        raise DataError(
            "data-lengths",
            "x, y and sensitive must have as many rows as each other",
            got=f"{len(x)}, {len(y)}{'' if groups is None else f' and {len(groups)}'}",
            cure="Check how they were cut.",
        )
    for key, array in (("y", y), ("sensitive", y if groups is None else groups)):
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
