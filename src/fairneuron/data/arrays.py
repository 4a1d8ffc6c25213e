"""Arrays of somebody's: what they must be to become a ``Dataset``, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairneuron.errors import DataError

if TYPE_CHECKING:
    import torch

    from fairneuron.data.dataset import Floats

Array = npt.NDArray[Any]
COLOURS = {1: ["grey"], 3: ["red", "green", "blue"]}


def require_shapes(
    x: Array | torch.Tensor, y: Array, groups: Array | None, *, filled: bool = False
) -> None:
    """Raises a ``DataError`` unless arrays are ``(n, …)``, ``(n,)`` and ``(n,)`` or ``(n, k)``.

    Args:
        x: The inputs.
        y: The labels.
        groups: The sensitive columns, if there are any.
        filled: Whether there must be a row and an input.
    """
    sides = (1,) if groups is None else groups.shape
    empty = 0 in (*x.shape[2:], *sides[1:]) or (filled and 0 in x.shape)
    if x.ndim < 2 or y.ndim != 1 or len(sides) not in (1, 2) or empty:
        raise DataError(
            "data-shape",
            "x must be (n, features) or (n, channels, …), y (n,) and sensitive (n,) or (n, k)",
            got=f"{tuple(x.shape)}, {y.shape}{'' if groups is None else f' and {groups.shape}'}",
            cure="Reshape them.",
        )
    if not len(x) == len(y) == len(y if groups is None else groups):
        raise DataError(
            "data-lengths",
            "x, y and sensitive must have as many rows as each other",
            got=f"{len(x)}, {len(y)}{'' if groups is None else f' and {len(groups)}'}",
            cure="Check how they were cut.",
        )


def require_labels(labels: Array, class_names: Sequence[str]) -> None:
    """Raises a ``DataError`` unless these are 0, 1, …, with a name for each if there are names."""
    whole = labels.dtype.kind in "biuf" and bool(np.isin(labels, range(1 << 16)).all())
    if not whole:
        raise DataError(
            "data-labels",
            "y must hold the integers 0, 1, …",
            got=str(np.unique(labels)[:5].tolist()),
            cure="Encode the labels; 1 is the class whose rates are compared.",
        )
    if class_names and labels.max(initial=0) >= len(class_names):
        raise DataError(
            "data-labels",
            "Every label needs a name, if they have names",
            got=f"{len(class_names)} names, and labels up to {labels.max()}",
            cure="Name them all.",
        )


def on_host(values: Any) -> Any:
    """The values of a tensor, wherever it is, for numpy; anything else as it is."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def missing_in(sensitive: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which values are None, NaN or pandas.NA; their texts, such as "nan", are not."""
    import pandas as pd

    return np.asarray(pd.isna(np.asarray(sensitive, dtype=object)))


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


def as_weights(values: npt.ArrayLike) -> Floats:
    """Weights as float64, a copy; raises a ``DataError`` unless some of them count."""
    try:
        if np.iscomplexobj(values):
            raise TypeError
        weights = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise _weight_error("something else than numbers") from None
    if weights.size and not weights.any():
        raise _weight_error("zeros alone")
    return weights


def require_weights(weights: Floats, n: int) -> None:
    """Raises a ``DataError`` unless there is a finite weight, at least 0, for each of n rows."""
    if np.shape(weights) != (n,):
        raise _weight_error(f"{np.shape(weights)} for {n} rows")
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        row = int(np.argmax(bad))
        raise _weight_error(f"{weights[row]:g} in row {row}")


def _weight_error(got: str) -> DataError:
    return DataError(
        "data-weights",
        "There must be a finite weight for each row, at least 0 and not all 0",
        got=got,
        cure="Correct the weights, or drop the rows that shall not count.",
    )


def numbered(name: str, n: int) -> list[str]:
    """The name, or n of it with numbers."""
    return [name] if n == 1 else [f"{name}{i + 1}" for i in range(n)]
