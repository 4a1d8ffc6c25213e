"""The records of a comparison: a line of JSON per seed, method and criterion, kept as they come.

Free of torch, so that a folder that cannot be used is refused at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fairneuron.errors import OptionError, OutputError
from fairneuron.io import require_new_or_ours

FILE = "records.jsonl"
FILES = (FILE, "comparison.md", "comparison.json")
Record = dict[str, Any]
Key = tuple[int, str, str]
"""Seed, method, criterion."""


def key(record: Record) -> Key:
    """What a record is of."""
    return record["seed"], record["method"], record["criterion"]


def require_folder(folder: Path) -> None:
    """Checks, before any work, that a folder is new or one of a comparison, and can be written.

    Raises:
        OutputError: If it is neither.
    """
    require_new_or_ours(folder, _ours, "an earlier comparison")


def _ours(folder: Path) -> bool:
    return (folder / FILE).is_file() or not any(folder.iterdir())


class Records:
    """The records so far, also in a file if there is a folder.

    A last line that was not written to its end, because the run was stopped, is dropped.

    Args:
        setup: What all records must agree in; plain values.
        folder: Where ``records.jsonl`` is or will be; nowhere if None.

    Raises:
        OptionError: For records of another comparison, and lines that are no records.
        OutputError: If the file cannot be written.
    """

    def __init__(self, setup: dict[str, Any], folder: Path | None = None) -> None:
        self.setup, self._path = setup, None if folder is None else folder / FILE
        self._found: dict[Key, Record] = {}
        if self._path is not None:
            self._start(self._path)

    def missing(self, wanted: Iterable[Key]) -> list[Key]:
        """Those of the wanted ones that are not there, or failed."""
        return [k for k in wanted if k not in self._found or self._found[k]["error"] is not None]

    def of(self, wanted: Iterable[Key]) -> tuple[Record, ...]:
        """Those that are there of the wanted ones, in that order."""
        return tuple(self._found[one] for one in wanted if one in self._found)

    def base(self, seed: int) -> dict[str, Any] | None:
        """The figures of a seed's base model, if it was trained before."""
        of_seed = (r["base"] for (s, _, _), r in self._found.items() if s == seed)
        return next(of_seed, None)

    def add(self, record: Record) -> None:
        """Keeps a record; in the file at once, unless it is there."""
        if self._found.get(key(record)) == record:
            return
        self._found[key(record)] = record
        if self._path is not None:
            self._append(self._path, record)

    def _start(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                with path.open("r+b") as file:
                    file.truncate(len(whole))
        except OSError as error:
            raise _unwritable(path, error) from error
        lines = [self._read(path, n, line) for n, line in enumerate(whole.splitlines(), start=1)]
        if not lines:
            self._append(path, {"setup": self.setup})
        elif lines[0].get("setup") != self.setup:
            raise _other(path, lines[0].get("setup"), self.setup)
        for record in lines[1:]:
            self._found[key(record)] = record

    def _read(self, path: Path, number: int, line: bytes) -> Record:
        try:
            record = json.loads(line)
            if number > 1:
                key(record), record["base"], record["error"], record["configurations"]
            elif "setup" not in record:
                raise KeyError("setup")
        except (ValueError, KeyError, TypeError) as error:
            raise OptionError(
                "option-out",
                "Records must be as they were written",
                got=f"line {number} of {path}: {type(error).__name__} {error}",
                cure="Remove that line, or choose another --out.",
            ) from error
        found: Record = record
        return found

    def _append(self, path: Path, record: Record) -> None:
        try:
            with path.open("ab") as file:
                file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise _unwritable(path, error) from error


def _other(path: Path, found: Any, wanted: dict[str, Any]) -> OptionError:
    there = found if isinstance(found, dict) else {}
    names = [n for n in {**wanted, **there} if there.get(n) != wanted.get(n)]
    return OptionError(
        "option-out",
        "The folder must have records of the same comparison: data, splits, base model",
        got=f"another {', '.join(names)} in {path}",
        cure="Choose another --out; the files of this one can be compared by hand.",
    )


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        "output-failed",
        f"The file {path} must be writable",
        got=error.strerror or str(error),
        cure="What was written before is kept.",
    )
