"""Files: written whole or not at all. Free of torch, so that a bad folder is refused at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fairneuron.errors import OutputError

MANIFEST = "manifest.json"
_KIND = "fairneuron run"
_LONGEST = 200  # bytes of a name: file systems take 255, and ours get a prefix


def to_json(value: Any) -> bytes:
    """Indented JSON with a final newline; NaN and infinity are refused."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes its JSON escape


def require_free(folder: Path, *, overwrite: bool = False) -> None:
    """Checks, before any work, that a run folder can be written.

    Raises:
        OutputError: If it exists (and is not a run folder of ours to overwrite), or its parent
            cannot be written.
    """
    ours = _is_run_folder(folder)
    if os.path.lexists(folder) and not (overwrite and ours):
        raise OutputError(
            "output-exists",
            "The output folder must not exist yet",
            got=str(folder),
            cure="Choose another name" + (", or give --overwrite." if ours else "."),
        )
    parent = _first_existing(folder)
    longest = max(map(len, map(os.fsencode, folder.parts)), default=0)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK) or longest > _LONGEST:
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
    manifest = to_json({"kind": _KIND, "sha256": sums})
    keep = _first_existing(folder)
    try:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                new, old = temporary / "new", temporary / "old"
                new.mkdir(mode=0o755)
                for name, content in {**files, MANIFEST: manifest}.items():
                    _write(new / name, content)
                _sync(new)
                _swap(folder, new, old)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except BaseException:
            _remove_empty(folder.parent, keep)
            raise
    except OSError as error:
        raise OutputError(
            "output-failed",
            f"The folder {folder} must be writable",
            got=error.strerror or str(error),
            cure="Nothing was written.",
        ) from error
    with suppress(OSError):  # the folder is in place; not every file system syncs folders
        _sync(folder.parent)


def _swap(folder: Path, new: Path, old: Path) -> None:
    """Puts the new folder in place; what was there goes to ``old``, or back if that fails."""
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise


def _is_run_folder(folder: Path) -> bool:
    """Whether it is a folder, not a link to one, with a manifest of ours and nothing else."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = {path.name for path in folder.iterdir()}
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(manifest, dict) or manifest.get("kind") != _KIND or folder.is_symlink():
        return False
    return files <= {MANIFEST, *manifest.get("sha256", ())}


def _first_existing(folder: Path) -> Path:
    """The nearest parent that exists."""
    parent = folder.absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    return parent


def _remove_empty(folder: Path, keep: Path) -> None:
    """Removes the empty parents that were made."""
    folder = folder.absolute()
    while folder != keep and folder.is_relative_to(keep):
        with suppress(OSError):
            folder.rmdir()
        folder = folder.parent


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
