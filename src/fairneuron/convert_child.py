"""The process that reads a trusted file for ``convert``: the only place where a file's code runs.

Everything else reads files as numbers and text.
"""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import torch
from torch import nn

from fairneuron.checkpoints import tensor_bytes
from fairneuron.preflight import LEGACY

_NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "network")
_LONGEST = 300  # letters of a message


def main(path: str, sha256: str, out: str) -> None:
    """Checks the sum of the very bytes that are then read, and writes their state_dict."""
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256.lower():
        raise ValueError("the file has changed since its sum was taken")
    torch.storage._load_from_bytes = _on_cpu
    Path(out).write_bytes(tensor_bytes(state_of(unpickled(content)), {}))


def unpickled(content: bytes) -> Any:
    """What the file holds. Its code runs."""
    file = io.BytesIO(content)
    if zipfile.is_zipfile(file) and content.startswith(b"PK"):
        names = zipfile.ZipFile(file).namelist()
        file.seek(0)
        if any(name.endswith("/archive_format") for name in names):
            raise ValueError("an exported program (.pt2); save the state_dict of its module")
        if any(name.endswith("/constants.pkl") for name in names):
            return torch.jit.load(file, map_location="cpu")
        return torch.load(file, map_location="cpu", weights_only=False)
    file.seek(0)
    if content.startswith(LEGACY):
        return torch.load(file, map_location="cpu", weights_only=False)
    return joblib.load(file)  # plain pickles too


def state_of(value: object) -> dict[str, torch.Tensor]:
    """The state_dict of a module, or of a checkpoint with one in it."""
    if isinstance(value, nn.Module):
        return dict(value.state_dict())
    if not isinstance(value, Mapping):
        raise TypeError(f"it holds a {type(value).__name__}, no module and no state_dict")
    for name in _NESTED:
        if isinstance(value.get(name), (Mapping, nn.Module)):
            return state_of(value[name])
    state = {
        name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in value.items()
    }
    if not state or not all(isinstance(name, str) for name in state):
        raise TypeError("it holds a dict, but no state_dict")
    return state


def _on_cpu(content: bytes) -> Any:
    """Storages within plain pickles, which say nothing of where they go."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        sys.exit(text[:_LONGEST])
