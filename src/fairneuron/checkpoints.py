"""Named tensors in files: safetensors and checkpoints read, safetensors written.

Nothing that is in a file runs. This is the only place of the package where torch reads one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fairneuron.archives import checked_checkpoint
from fairneuron.errors import ModelError, printable
from fairneuron.preflight import (
    AGAIN,
    SAVE,
    is_safetensors,
    open_file,
    refuse,
    refuse_safetensors,
    safetensors_metadata,
    sniff,
)

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_NUMBERS = {
    *FLOATS,
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.bool),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
}
_HEAD = 1024  # bytes that tell most kinds of files


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Reads a ``.safetensors`` file, or a checkpoint of ``torch.save(module.state_dict())``.

    The content decides which of them it is, not the name. What is checked are the very bytes that
    are then read.

    Returns:
        Metadata (empty for checkpoints), and dense tensors of real numbers on the CPU by name;
        tensors that shared memory when they were saved may share it again.

    Raises:
        ModelError: ``model-file`` and longer codes that begin with it, for all other files.
    """
    content = _content(path)
    metadata: dict[str, str] = {}
    if is_safetensors(content):
        try:
            tensors = dict(sorted(load(content).items()))  # the library has them in random order
            metadata = safetensors_metadata(content)
        except (SafetensorError, LookupError, ValueError, RuntimeError, AssertionError):
            refuse_safetensors(content, path)
    else:
        tensors = _checkpoint(checked_checkpoint(content, path), path)
    return metadata, {name: _checked(name, value, path) for name, value in tensors.items()}


def tensor_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Named tensors as a safetensors file, the same bytes for the same tensors and metadata.

    Each name gets its own values, also where tensors share memory.

    Raises:
        ModelError: For what is no dense tensor of real numbers.
    """
    for name, value in tensors.items():
        unsuitable = _unsuitable(value)
        if unsuitable:
            raise ModelError(
                "model-state",
                "A state_dict must have dense tensors of real numbers alone",
                got=f"{unsuitable} at {_short(name)}",
                cure="Convert it, or leave it out.",
            )
    dense = torch.contiguous_format
    content = save({n: v.detach().cpu().clone(memory_format=dense) for n, v in tensors.items()})
    if not metadata:
        return content
    end = 8 + int.from_bytes(content[:8], "little")  # the library writes metadata in random order
    entries = {"__metadata__": dict(sorted(metadata.items())), **json.loads(content[8:end])}
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def tensors_in(content: bytes) -> dict[str, torch.Tensor] | None:
    """Reads what ``tensor_bytes`` made; None for anything else."""
    try:
        return load(content)
    except (SafetensorError, LookupError, ValueError, RuntimeError, AssertionError):
        return None


def _content(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            head = file.read(_HEAD)
            sniff(head, path)  # before the rest takes memory
            return head + file.read()
    except (OSError, MemoryError) as error:
        refuse(path, ("", f"a file that cannot be read ({type(error).__name__})", AGAIN))


def _checkpoint(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything, and its text advises unsafe loading
        failure = type(error).__name__
    return refuse(path, ("", f"a checkpoint that torch cannot read ({failure})", SAVE))


def _checked(name: str, value: torch.Tensor, path: Path) -> torch.Tensor:
    unsuitable = _unsuitable(value)
    if unsuitable:
        refuse(path, ("", f"a file with {unsuitable} at {_short(name)}", SAVE))
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        what = f"{tuple(value.shape)} at {_short(name)} from less memory (an expanded tensor)"
        refuse(path, ("-bomb", what, "Save a copy: tensor.clone()."))
    return value.detach()


def _unsuitable(value: object) -> str:
    """What keeps a value from being a dense tensor of real numbers; "" if nothing does."""
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}, no tensor,"
    if value.is_quantized or value.dtype not in _NUMBERS:
        return f"numbers of type {str(value.dtype).removeprefix('torch.')}"
    if value.layout != torch.strided or value.is_nested:
        return "a sparse tensor"
    return "a tensor without values" if value.is_meta else ""


def _short(name: str) -> str:
    return repr(printable(str(name))[:60])
