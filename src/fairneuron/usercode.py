"""The user's own code: a factory of networks, an encoder of tables; imported where it is named.

Nothing else in the package imports code of others, and no file ever says what is imported.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairneuron.errors import DataError, FairNeuronError, ModelError, OptionError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


def given_model(factory: str | None, weights: Path | None) -> nn.Module:
    """Builds the user's network (imports their code) and loads weights into it.

    Without a factory, the weights must be a file that fairneuron wrote.
    """
    from fairneuron.checks import require_module
    from fairneuron.weights import load_into, load_mlp

    if factory is None:
        assert weights is not None  # noqa: S101  # the choice is a given one
        return load_mlp(weights)
    made = _called(named_function(factory, "model"), "model-factory", factory, ModelError)
    require_module(made)
    model: nn.Module = made
    return model if weights is None else load_into(model, weights)


def named_function(text: str, option: str) -> Callable[..., Any]:
    """Imports ``module:function``, also from the current folder.

    Raises:
        OptionError: If there is none, or its module cannot be imported.
    """
    module_name, _, name = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise OptionError(
            f"option-{option}",
            f"The module of --{option} must be importable",
            got=f"{text}: {type(error).__name__}: {error}",
            cure=_nearby(module_name, error)
            or "Run from the folder that holds it, or install it, and mend it if it fails.",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise OptionError(
            f"option-{option}",
            f"--{option} must name a function of {module_name}",
            got=repr(name),
            cure=did_you_mean(name, public),
        )
    return function


def _nearby(module: str, error: BaseException) -> str:
    """A cure for a module that is not there: the nearest one in its place."""
    lost = error.name if isinstance(error, ModuleNotFoundError) else None
    if lost is None or not f"{module}.".startswith(f"{lost}."):
        return ""
    parent, dot, _ = lost.rpartition(".")
    places = getattr(sys.modules.get(parent), "__path__", []) if parent else [str(Path.cwd())]
    known = [f"{parent}{dot}{found.name}" for found in pkgutil.iter_modules(places)]
    return did_you_mean(lost, known) if known else ""


def own_inputs(
    encode: str, frame: pd.DataFrame, hidden: Collection[str] = ()
) -> tuple[Any, tuple[str, ...]]:
    """Calls the user's encoding function on a table; imports their code.

    The function gets neither the label nor dropped columns, and must encode a row by itself: a half
    of the rows is encoded once more and compared.

    Args:
        encode: ``module:function``.
        frame: The table.
        hidden: Columns that the function does not get.

    Returns:
        ``(n, features)`` float32 and the names of the columns.

    Raises:
        DataError: If it fails, does not give a row of finite numbers per row, or gives a row other
            numbers in other company.
        OptionError: If there is no such function.
    """
    frame = frame.drop(columns=[name for name in hidden if name in frame.columns])
    x, names = _own_inputs(encode, frame)
    half = len(frame) // 2
    if half:
        again = _own_inputs(encode, frame.iloc[:half])[0]
        if again.shape[1] != x.shape[1] or not np.allclose(again, x[:half], rtol=1e-4, atol=1e-5):
            raise DataError(
                "data-encode",
                f"{encode} must encode each row by itself",
                got="other numbers for the first half of the rows when it is alone",
                cure="Keep means, scales and categories of the training data in the function "
                "instead of taking those of the table it gets.",
            )
    return x, names


def _own_inputs(encode: str, frame: pd.DataFrame) -> tuple[Any, tuple[str, ...]]:
    function = named_function(encode, "encode")
    made = _called(function, "data-encode", encode, DataError, frame.copy())
    names = tuple(map(str, made.columns)) if hasattr(made, "columns") else ()
    try:
        array = made.detach().cpu().numpy() if hasattr(made, "detach") else np.asarray(made)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"values of type {array.dtype}")
        with np.errstate(over="ignore"):
            x = np.array(array, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            "data-encode",
            f"{encode} must return numbers",
            got=f"{type(made).__name__}: {error}",
            cure="Return an array (n, features).",
        ) from error
    if x.ndim != 2 or len(x) != len(frame) or not np.isfinite(x).all():
        raise DataError(
            "data-encode",
            f"{encode} must return (n, features) finite numbers",
            got=f"{x.shape} for {len(frame)} rows"
            + ("" if np.isfinite(x).all() else ", some not finite"),
            cure="Correct the function.",
        )
    index = made.index if hasattr(made, "sort_index") else frame.index
    if not index.equals(frame.index) and index.is_unique and index.isin(frame.index).all():
        raise DataError(
            "data-encode",
            f"{encode} must keep the rows in their order",
            got="an index in another order",
            cure="Do not sort or shuffle in it.",
        )
    named = len(names) == x.shape[1]
    return x, names if named else tuple(f"x{i}" for i in range(x.shape[1]))


def _called(
    function: Callable[..., Any],
    code: str,
    text: str,
    kind: type[FairNeuronError],
    *arguments: object,
) -> Any:
    try:
        return function(*arguments)
    except FairNeuronError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's function raises
        raise kind(
            code,
            f"{text} must not fail",
            got=f"{type(error).__name__}: {error}",
            cure="It is called without arguments."
            if not arguments
            else "It is called with the table as a pandas DataFrame.",
        ) from error
