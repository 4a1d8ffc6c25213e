"""Files: written whole or not at all. Free of torch, so that a bad folder is refused at once."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fairneuron import state
from fairneuron.errors import OptionError, OutputError

MANIFEST = "manifest.json"
_KIND = "fairneuron run"
_MOVED = {"new", "old"}  # in a folder of `_beside`
_LONGEST = 200  # bytes of a name: file systems take 255, and ours get a prefix


def to_json(value: Any) -> bytes:
    """Indented JSON with a final newline; NaN and infinity are refused."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes its JSON escape


def require_free(folder: Path, *, overwrite: bool = False) -> None:
    """Checks, before any work, that a run folder can be written.

    Raises:
        OutputError: If it exists (and is neither a run that was stopped nor a run folder of ours to
            overwrite), or its parent cannot be written.
    """
    ours = _is_run_folder(folder)
    if os.path.lexists(folder) and not (overwrite and ours) and not is_unfinished(folder):
        raise OutputError(
            "output-exists",
            "The output folder must be new or empty",
            got=str(folder),
            cure="Choose another name"
            + (
                ", or give --overwrite."
                if ours
                else "; it holds other things than a run, so it is never overwritten."
                if overwrite
                else "."
            ),
        )
    _require_writable(folder, "folder")


def _require_writable(target: Path, kind: str) -> None:
    parent = _first_existing(target)
    names = [os.fsencode(name) for name in target.parts]
    good = all(len(name) <= _LONGEST and b"\0" not in name for name in names)
    if not good or not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            "output-readonly",
            f"The output {kind} must be writable",
            got=str(target),
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
    with _beside(folder, "folder") as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir(mode=0o755)
        for name, content in {**files, MANIFEST: manifest}.items():
            _write(new / name, content)
        _sync(new)
        _swap(folder, new, old)
    with suppress(OSError):  # the folder is in place; not every file system syncs folders
        _sync(folder.parent)


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a run folder, as they were written.

    Raises:
        OptionError: For folders of others, and files that are not what the manifest says.
    """
    try:
        sums = _manifest(folder)
    except (OSError, ValueError) as error:
        raise OptionError(
            "option-run",
            "The folder must be a run that fairneuron wrote",
            got=str(folder),
            cure="Give the --out folder of 'fairneuron repair'.",
        ) from error
    try:
        files = {name: _content(folder / name) for name in sums}
    except (OSError, ValueError) as error:
        raise OptionError(
            "option-run",
            "All files of the run must be there",
            got=f"{folder}: {error}",
            cure="Repair again.",
        ) from error
    changed = [n for n, content in files.items() if hashlib.sha256(content).hexdigest() != sums[n]]
    if changed:
        raise OptionError(
            "option-run",
            "The files of a run must be as they were written",
            got=f"a changed {', '.join(map(repr, changed))} in {folder}",
            cure="Repair again, or restore the folder.",
        )
    return files


def require_new_or_ours(folder: Path, ours: Callable[[Path], bool], what: str) -> None:
    """Checks, before any work, that a folder is new, or one of ours to go on with, and writable.

    Args:
        folder: Where results will be.
        ours: Whether a folder that there is has nothing but what we wrote.
        what: What it would be of, for the message.

    Raises:
        OutputError: If it is neither, or cannot be written.
    """
    if not os.path.lexists(folder):
        require_free(folder)
        return
    if not folder.is_dir() or not ours(folder):
        raise OutputError(
            "output-exists",
            f"The output folder must be new, or one of {what} to go on with",
            got=str(folder),
            cure="Choose another name.",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            "output-readonly",
            "The output folder must be writable",
            got=str(folder),
            cure="Choose another place.",
        )


def require_free_file(path: Path, *, overwrite: bool = False) -> None:
    """Checks, before any work, that a file can be written.

    Raises:
        OutputError: If it exists (and is no file, or must not be overwritten), or its folder cannot
            be written.
    """
    file = os.path.isfile(path) and not os.path.islink(path)  # noqa: PTH113, PTH114  # no names fail
    if os.path.lexists(path) and not (overwrite and file):
        raise OutputError(
            "output-exists",
            "The output file must not exist yet",
            got=str(path),
            cure="Choose another name" + (", or give --overwrite." if file else "."),
        )
    _require_writable(path, "file")


def write_file(path: Path, content: bytes, *, overwrite: bool = False) -> None:
    """Writes a file atomically: it appears complete or not at all.

    Args:
        path: Where; its folders are made.
        content: What.
        overwrite: Whether to replace a file that is there.

    Raises:
        OutputError: If it exists, or cannot be written; nothing is left behind then.
    """
    require_free_file(path, overwrite=overwrite)
    with _beside(path, "file") as temporary:
        _write(temporary / "new", content)
        (temporary / "new").replace(path)
    with suppress(OSError):
        _sync(path.parent)


@contextmanager
def _beside(target: Path, kind: str) -> Iterator[Path]:
    """A folder beside the target for what will be moved there; gone again in any case."""
    keep = _first_existing(target)
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except BaseException:
            _remove_empty(target.parent, keep)
            raise
    except OSError as error:
        raise OutputError(
            "output-failed",
            f"The {kind} {target} must be writable",
            got=error.strerror or str(error),
            cure="Nothing was written.",
        ) from error


def _swap(folder: Path, new: Path, old: Path) -> None:
    """Puts the new folder in place, at once where the system can exchange two folders.

    Elsewhere what was there goes to ``old``, or back if that fails.
    """
    if folder.exists() and _exchanged(folder, new):
        return
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise


def remove_leftovers(target: Path) -> None:
    """Removes what writers that were killed left beside a target, and in it if it is a folder.

    Only while nobody else writes there.
    """
    places = (target.parent, f".{target.name}-*"), (target, ".*-*")
    for folder, names in places:
        for path in folder.glob(names) if folder.is_dir() else ():
            ours = re.search(r"-[a-z0-9_]{8}$", path.name) and path.is_dir()
            if ours and not path.is_symlink() and {p.name for p in path.iterdir()} <= _MOVED:
                shutil.rmtree(path, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two folders have changed places: Linux can do that in one step."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(call(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def is_unfinished(folder: Path) -> bool:
    """Whether it is a folder with nothing, or the state of a run, in it, that can be replaced."""
    if folder.is_dir() and (folder.resolve() == Path.cwd() or folder.is_mount()):
        return False
    names = _regular_files(folder)
    return names is not None and names <= state.FILES


def _is_run_folder(folder: Path) -> bool:
    """Whether it is a folder, not a link to one, with a manifest of ours and nothing else."""
    try:
        sums = _manifest(folder)
    except (OSError, ValueError):
        return False
    names = _regular_files(folder)
    return names is not None and names <= {MANIFEST, *sums, *state.FILES}


def _regular_files(folder: Path) -> set[str] | None:
    """The names of its files; None if it is no folder, or a link, or holds anything else."""
    try:
        paths = None if folder.is_symlink() else [*folder.iterdir()]
        if paths is None or not all(stat.S_ISREG(path.lstat().st_mode) for path in paths):
            return None
    except (OSError, ValueError):
        return None
    return {path.name for path in paths}


def _manifest(folder: Path) -> dict[str, str]:
    """The sums of a run's files by their plain names; a ValueError for what is no such manifest."""
    try:
        manifest = json.loads(_content(folder / MANIFEST))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    sums = manifest.get("sha256", {}) if isinstance(manifest, dict) else None
    if not isinstance(sums, dict) or manifest.get("kind") != _KIND:
        raise ValueError("no manifest of a run")
    if not all(re.fullmatch(r"\w[\w.-]*", name) and isinstance(sums[name], str) for name in sums):
        raise ValueError("a manifest with other names than those of files")
    return sums


def _content(path: Path) -> bytes:
    """The content of a regular file; links, pipes and devices are not opened."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path.name} is no regular file")
    return path.read_bytes()


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
