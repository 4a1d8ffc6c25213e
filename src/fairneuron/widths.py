"""Which features a model expects, by their names and by the widths of its layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import torch
from torch import nn

from fairneuron.errors import ModelError, printable

_SHOWN = 20  # names in a message


def require_names(model: nn.Module, names: Sequence[str]) -> None:
    """Raises a ``ModelError`` if the model knows its features by other names or in another order.

    It does in ``feature_names_in_`` or ``feature_names``. Data named x0, x1, … have no names.
    """
    own = _own_names(model)
    if own is None or list(names) in (own, [f"x{i}" for i in range(len(names))]):
        return
    missing, extra = [n for n in own if n not in names], [n for n in names if n not in own]
    if not missing and not extra and len(own) == len(names):
        first = next(i for i, pair in enumerate(zip(own, names, strict=True)) if len({*pair}) > 1)
        raise ModelError(
            "model-feature-order",
            "The data's features must come in the model's order",
            got=f"{_text(names[first])} in place {first}, where the model has {_text(own[first])}",
            cure="Reorder the columns as in the model's feature_names.",
        )
    raise ModelError(
        "model-width" if len(own) != len(names) else "model-feature-names",
        f"The model expects {len(own)} inputs",
        got=f"data with {len(names)}; missing: {_listed(missing)}; too many: {_listed(extra)}",
        cure="Encode the data as for its training, the sensitive columns included or not.",
    )


def _own_names(model: nn.Module) -> list[str] | None:
    for attribute in ("feature_names_in_", "feature_names"):
        found = None
        with suppress(Exception):  # whatever a property of the user's raises
            found = getattr(model, attribute, None)
        names = list(found) if isinstance(found, (list, tuple, np.ndarray)) else []
        if names and all(isinstance(name, str) for name in names):
            return names
    return None


def _widths(module: nn.Module, value: torch.Tensor, *, image: bool) -> tuple[int, int]:
    """How many columns or channels a layer expects, and how many it gets."""
    if isinstance(module, nn.Linear):
        return module.in_features, value.shape[-1]
    if isinstance(module, nn.BatchNorm1d) and value.ndim > 1:
        return module.num_features, value.shape[1]
    if isinstance(module, nn.Conv2d) and value.ndim == 4 and image:
        return module.in_channels, value.shape[1]
    return 0, 0


@contextmanager
def watched_widths(
    model: nn.Module, shape: Sequence[int], names: Sequence[str], left_out: Sequence[str]
) -> Iterator[None]:
    """Refuses, while inside, a layer that gets another number of columns than it expects.

    Args:
        model: Whose layers are watched.
        shape: Of a sample: ``(features,)``, or ``(channels, …)``.
        names: Of the features, for messages.
        left_out: As in ``check_model``.
    """
    width, image = shape[0], " × ".join(map(str, shape)) if len(shape) > 1 else ""

    def look(
        module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], name: str
    ) -> None:
        value = next((v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)), None)
        if value is None or value.ndim == 0:
            return
        expected, got = _widths(module, value, image=bool(image))
        if expected == got:
            return
        if image:
            what = "channels" if isinstance(module, nn.Conv2d) else "inputs"
            raise ModelError(
                "model-width",
                f"{f'Its layer {name!r}' if name else 'The model'} expects {expected} {what}",
                got=f"{got}, from data of {image}",
                cure="Give data of the size and the channels that it was trained on.",
            )
        asked = "The model" if got == width else f"Its layer {name!r}"
        of_data = f"data with {width}" if got == width else f"{got}, from data with {width}"
        absent = f"No inputs are: {_listed(left_out)}. " if left_out else ""
        raise ModelError(
            "model-width",
            f"{asked} expects {expected} inputs",
            got=f"{of_data}: {_listed(names)}" if names else of_data,
            cure=f"{absent}Encode the data as for its training, the sensitive columns "
            "included or not.",
        )

    handles = []
    for path, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.BatchNorm1d, nn.Conv2d)):
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, a, k, path=path: look(m, a, k, path), with_kwargs=True
                )
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _listed(names: Sequence[str]) -> str:
    """Names in a message, the first of many."""
    shown = ", ".join(_text(name) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return (f"{shown} … and {more} more" if more > 0 else shown) or "none"


def _text(name: str) -> str:
    return printable(str(name))
