"""Conversion of files that run code when they are read, for those who trust them.

Only here does anything of a file run, in a child process, and only if its SHA-256 is the one that
was given. Free of torch, so that a wrong sum is refused at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from fairneuron.errors import ModelError, OptionError, OutputError, printable, require_range
from fairneuron.io import require_free_file, write_file
from fairneuron.preflight import open_file

_KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE"),
    *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"),
)
_LONGEST, _SHOWN, _LAST = 300, 5, 4096  # letters of a message, names, bytes of the child's text


def convert(
    path: Path, sha256: str, out: Path, *, overwrite: bool = False, timeout: float = 600
) -> dict[str, Any]:
    """Turns a pickled module or checkpoint into a ``.safetensors`` file of its weights.

    For whole modules, TorchScript, Lightning and other nested checkpoints, files of torch before
    1.6, pickles and joblib files. **Reading such a file runs the code in it, with all your
    rights**: it can read, change and send what you can. A process of its own keeps accidents away
    from this one; it is no protection against malice. Give a sum only from someone you trust.

    Args:
        path: The file.
        sha256: The SHA-256 that whoever gave you the file has for it, 64 hexadecimal digits.
        out: Where the weights go; it must end in ``.safetensors``.
        overwrite: Whether to replace a file that is there; else it must not exist yet.
        timeout: Seconds that the conversion may take.

    Returns:
        ``tensors`` and ``parameters``, their numbers; ``keys``, the first names; and
        ``sha256_out``, the sum of what was written.

    Raises:
        OptionError: If the sum is not that of the file, or is none; nothing has run then.
        OutputError: If the output cannot be written.
        ModelError: If the file gives no weights, or weights that are not finite.
    """
    _require_sum(sha256)
    require_range("timeout", timeout, 0, 7 * 24 * 3600, open_low=True)
    if out.suffix != ".safetensors":
        raise OutputError(
            "output-suffix",
            "The output must end in .safetensors",
            got=printable(str(out)),
            cure="Change its name.",
        )
    require_free_file(out, overwrite=overwrite)
    _require_same(path, sha256)
    with tempfile.TemporaryDirectory(prefix="fairneuron-") as folder:
        made = Path(folder, "weights.safetensors")
        _run(path, sha256, made, timeout)
        content, tensors = _checked(made)
    write_file(out, content, overwrite=overwrite)
    return {
        "tensors": len(tensors),
        "parameters": sum(tensors.values()),
        "keys": [*tensors][:_SHOWN],
        "sha256_out": hashlib.sha256(content).hexdigest(),
    }


def _require_sum(sha256: str) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise OptionError(
            "option-sha256",
            "The sum must be a SHA-256 of 64 hexadecimal digits",
            got=repr(sha256[:80]),
            cure="Ask whoever gave you the file for its sum.",
        )


def _require_same(path: Path, sha256: str) -> None:
    with open_file(path) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():  # the one found is not shown: copied, it would prove nothing
        raise OptionError(
            "option-sha256",
            "The file must have the SHA-256 that is given",
            got=f"another one for {printable(str(path))}",
            cure="It is not the file that was meant. Ask whoever gave it to you for its sum.",
        )


def _run(path: Path, sha256: str, made: Path, timeout: float) -> None:
    """Runs the child; it ends, with its group of processes, before this returns."""
    # Not with -I: the classes of a pickled module may live in the current folder.
    command = [sys.executable, "-B", "-m", "fairneuron.convert_child"]
    with made.with_name("stderr").open("w+b") as said:
        child = subprocess.Popen(  # noqa: S603  # what it runs was asked for, by its sum
            [*command, str(path.absolute()), sha256, str(made)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
            start_new_session=True,
        )
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise _failed(f"no result after {timeout:g} seconds") from None
        finally:
            with suppress(OSError):  # nothing is left to end
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if status:
            size = said.seek(0, os.SEEK_END)
            said.seek(max(0, size - _LAST))
            raise _failed(_last_line(said.read()) or f"{_ending(status)} without a word")


def _checked(made: Path) -> tuple[bytes, dict[str, int]]:
    """Reads what the child made like any other file; returns it, and the sizes by name."""
    from fairneuron.checkpoints import read_tensors, tensor_bytes

    try:
        _, tensors = read_tensors(made)
    except ModelError as error:
        raise _failed("a file without weights") from error
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise ModelError(
                "model-nonfinite",
                "Weights must be finite",
                got=f"NaN or infinity in {printable(name)!r}",
                cure="Train the model again.",
            )
    sizes = {name: value.numel() for name, value in tensors.items()}
    return tensor_bytes(tensors, {}), sizes


def _failed(got: str) -> ModelError:
    return ModelError(
        "model-convert",
        "Reading the file must give a module or a state_dict",
        got=got,
        cure="The classes that it needs must be importable here: run this where its code is.",
    )


def _last_line(text: bytes) -> str:
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines()]
    return printable(next((line for line in reversed(lines) if line), ""))[:_LONGEST]


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit code {status}"
