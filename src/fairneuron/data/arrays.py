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

from fairneuron.data.tables import require_file
from fairneuron.errors import DataError, did_you_mean, require_known

if TYPE_CHECKING:
    from fairneuron.data.dataset import Dataset

Array = npt.NDArray[Any]
KEYS = ("x", "y", "sensitive", "sensitive_names", "feature_names", "weight", "split")
_FREE_BYTES, _MOST_RATIO = 64 << 20, 200
_FEW = 20


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
            most = max(_FREE_BYTES, _MOST_RATIO * path.stat().st_size)
            if sum(member.file_size for member in members) > most:
                raise DataError(
                    "data-bomb",
                    "A packed file must unpack to a size that fits it",
                    got=f"{sum(m.file_size for m in members)} bytes from {path}",
                    cure="Save the arrays with numpy.savez.",
                )
            return {
                member.filename.removesuffix(".npy"): _array(member.filename, file.read(member))
                for member in members
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
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
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
    x, groups = arrays["x"], arrays["sensitive"]
    labels, meant = _labels(np.asarray(arrays["y"]), positive)
    _require_no_copy(x, labels)
    table = groups[:, None] if groups.ndim == 1 else groups
    names = arrays.get("sensitive_names")
    known = (
        numbered("sensitive", table.shape[-1])
        if names is None
        else [str(n) for n in names.reshape(-1)]
    )
    if sensitive and table.ndim == 2 and len(known) == table.shape[1]:
        for column in sensitive:
            require_known("data-no-column", "sensitive column", column, known)
        table = table[:, [known.index(column) for column in sensitive]]
        known = list(sensitive)
    if table.dtype.kind == "f" and any(len(np.unique(column)) > 20 for column in table.T):
        raise DataError(
            "data-sensitive-continuous",
            "A sensitive column must have at most 20 groups",
            got="more numbers than that",
            cure="Bin it, for example with numpy.digitize.",
        )
    features = arrays.get("feature_names")
    return Dataset.from_arrays(
        x,
        labels,
        np.char.decode(table, "utf-8", "replace") if table.dtype.kind == "S" else table,
        sensitive_names=known,
        feature_names=None if features is None else [str(f) for f in features.reshape(-1)],
        sample_weight=arrays.get("weight"),
        name=name,
        positive=meant,
    )


def _labels(y: Array, positive: str | None) -> tuple[Array, str]:
    """Labels with 1 for the positive one, and what it is called."""
    values = np.unique(y)
    if len(values) == 1:
        raise DataError(
            "data-labels",
            "y must have two classes or more",
            got=f"only {values[0]}",
            cure="Give rows of both classes.",
        )
    if positive is None:
        if len(values) == 2 and y.dtype.kind in "biufU" and set(values.tolist()) != {0, 1}:
            raise DataError(
                "data-positive",
                "The positive label must be named",
                got=f"values {values[0]} and {values[1]}",
                cure=f"For example --positive {values[1]}.",
            )
        return y, "1"
    texts = y.astype(str)
    known = list(np.unique(texts))
    if len(known) != 2 or positive not in known:
        raise DataError(
            "data-positive",
            "The positive label must be one of two values of y",
            got=repr(positive),
            cure=did_you_mean(positive, known[:20]),
        )
    return (texts == positive).astype(np.int64), positive


def _require_no_copy(x: Array, y: Array) -> None:
    """Refuses an input that is the label itself."""
    if x.ndim != 2 or x.dtype.kind not in "biuf" or len(x) != len(y) or len(y) < _FEW:
        return
    same = np.flatnonzero((x == y[:, None]).all(0))
    if len(same):
        raise DataError(
            "data-target-used",
            "No input may state the label",
            got=f"column {same[0]} of x, which is y",
            cure="Drop it.",
        )
