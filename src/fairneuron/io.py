"""Files: written whole or not at all, read without running anything that is in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from fairneuron.errors import ModelError, OutputError
from fairneuron.models import mlp

MANIFEST = "manifest.json"
_ARCHITECTURE = "fairneuron.mlp"


def to_json(value: Any) -> bytes:
    """Indented JSON with a final newline; NaN and infinity are refused."""
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def require_free(folder: Path, *, overwrite: bool = False) -> None:
    """Checks, before any work, that a run folder can be written.

    Raises:
        OutputError: If it exists (and is not a run folder of ours to overwrite), or its parent
            cannot be written.
    """
    if folder.exists() and not (overwrite and (folder / MANIFEST).is_file()):
        ours = (folder / MANIFEST).is_file()
        raise OutputError(
            "output-exists",
            "The output folder must not exist yet",
            got=str(folder),
            cure="Choose another name" + (", or give --overwrite." if ours else "."),
        )
    parent = folder.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            "output-readonly",
            "The output folder must be writable",
            got=str(folder),
            cure="Choose another place.",
        )


def write_folder(folder: Path, files: Mapping[str, bytes], *, overwrite: bool = False) -> None:
    """Writes a run folder atomically: it appears complete or not at all; a manifest has sums.

    Args:
        folder: Where; its parents are made.
        files: Name to content.
        overwrite: Whether to replace a run folder of ours.

    Raises:
        OutputError: If it exists, or cannot be written; nothing is left behind then.
    """
    require_free(folder, overwrite=overwrite)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for name, content in {**files, MANIFEST: to_json({"sha256": sums})}.items():
                _write(new / name, content)
            new.chmod(0o755)
            _sync(new)
            old = new.with_name(new.name + "-old")
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            _sync(folder.parent)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    except OSError as error:
        raise OutputError(
            "output-failed",
            f"The folder {folder} must be writable",
            got=error.strerror or str(error),
            cure="Nothing was written.",
        ) from error


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    return to_safetensors(state, {_ARCHITECTURE: json.dumps(shape)})


def load_mlp(path: Path) -> nn.Sequential:
    """Loads what ``mlp_weights`` made; a safetensors file holds numbers alone and runs nothing.

    Raises:
        ModelError: For other files, and for weights that do not fit or are not finite.
    """
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError:
        regular = False
    if not regular:
        raise ModelError(
            "model-file", "The weights must be a file", got=str(path), cure="Check the path."
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            "model-file",
            "The weights must be a .safetensors file",
            got=f"{path}: {error}",
            cure="Save them with safetensors.torch.save_file.",
        ) from error
    model = _build(metadata.get(_ARCHITECTURE), path)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise ModelError(
            "model-keys",
            f"The weights must be {', '.join(expected)}",
            got=f"missing, unexpected or misshapen: {', '.join(wrong[:5])}",
            cure="Check that the file is whole.",
        )
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise ModelError(
            "model-nonfinite", "Weights must be finite", got=f"NaN or infinity in {path}", cure=""
        )
    model.load_state_dict(state)
    return model.eval()


def _build(header: str | None, path: Path) -> nn.Sequential:
    try:
        shape = json.loads(header or "")
        inputs, outputs, dropout = (
            int(shape["inputs"]),
            int(shape["outputs"]),
            float(shape["dropout"]),
        )
        hidden = [int(width) for width in shape["hidden"]]
        widths = [inputs, *hidden, outputs]
        if not 0 <= dropout < 1 or min(widths) < 1 or max(widths) > 1 << 16 or len(hidden) > 64:
            raise ValueError(shape)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "model-file",
            "The weights must say which network they belong to",
            got=f"{path} without a valid {_ARCHITECTURE!r} entry in its header",
            cure="Use a file that fairneuron wrote.",
        ) from error
    return mlp(inputs, hidden, outputs=outputs, dropout=dropout)
