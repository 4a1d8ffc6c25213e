"""Weights in safetensors files: read without running anything that is in them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save
from torch import nn

from fairneuron.errors import ModelError
from fairneuron.models import mlp

_ARCHITECTURE = "fairneuron.mlp"
_REAL = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_MOST_UNITS, _MOST_LAYERS = 1 << 16, 64


def mlp_weights(model: nn.Sequential) -> bytes:
    """The weights of an ``mlp`` as safetensors; its widths stand in the header."""
    linear = [m for m in model if isinstance(m, nn.Linear)]
    dropout = next((m.p for m in model if isinstance(m, nn.Dropout)), 0.0)
    shape = {
        "inputs": linear[0].in_features,
        "hidden": [m.out_features for m in linear[:-1]],
        "outputs": linear[-1].out_features,
        "dropout": dropout,
    }
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    return save(state, {_ARCHITECTURE: json.dumps(shape)})


def load_mlp(path: Path) -> nn.Sequential:
    """Loads what ``mlp_weights`` made; a safetensors file holds numbers alone and runs nothing.

    Raises:
        ModelError: For other files, and for weights that do not fit or are not finite.
    """
    metadata, state = _read(path)
    with torch.device("meta"):  # no memory before the shapes are known to fit
        model = _build(metadata.get(_ARCHITECTURE), path)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items() if value.dtype in _REAL}
    if expected != found:
        names = sorted(expected.keys() | state.keys())
        wrong = [name for name in names if expected.get(name) != found.get(name)]
        raise ModelError(
            "model-keys",
            f"The weights must be {', '.join(expected)}",
            got=f"missing, unexpected, misshapen or not real: {', '.join(wrong[:5])}",
            cure="Check that the file is whole.",
        )
    real = {name: value.to(torch.float32, copy=True) for name, value in state.items()}
    if not all(bool(torch.isfinite(value).all()) for value in real.values()):
        raise ModelError(
            "model-nonfinite",
            "Weights must be finite",
            got=f"NaN or infinity in {path}",
            cure="Train the model again.",
        )
    model.load_state_dict(real, assign=True)
    return model.eval()


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        regular = False
    if not regular:
        raise ModelError(
            "model-file", "The weights must be a file", got=str(path), cure="Check the path."
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            "model-file",
            "The weights must be a .safetensors file",
            got=f"{path}: {error}",
            cure="Use a file that fairneuron wrote.",
        ) from error


def _build(header: str | None, path: Path) -> nn.Sequential:
    try:
        shape = json.loads(header or "")
        hidden = [int(width) for width in shape["hidden"]]
        widths = [int(shape["inputs"]), *hidden, int(shape["outputs"])]
        dropout = float(shape["dropout"])
        if not 0 <= dropout < 1 or min(widths) < 1:
            raise ValueError(shape)
        if max(widths) > _MOST_UNITS or len(hidden) > _MOST_LAYERS:
            raise ValueError(shape)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelError(
            "model-file",
            "The weights must say which network they belong to",
            got=f"{path} without a valid {_ARCHITECTURE!r} entry in its header",
            cure="Use a file that fairneuron wrote.",
        ) from error
    return mlp(widths[0], hidden, outputs=widths[-1], dropout=dropout)
