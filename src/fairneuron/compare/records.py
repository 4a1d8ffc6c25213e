"""The records of a comparison: a line of JSON per seed, method and criterion.

Free of torch, so that a folder that cannot be used is refused at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fairneuron import state
from fairneuron.errors import OptionError, OutputError
from fairneuron.io import require_new_or_ours
from fairneuron.state import State

FILE = "records.jsonl"
FILES = (FILE, "comparison.md", "comparison.json", "report.json", "report.html")
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
    names = {path.name for path in folder.iterdir()}
    return not names or FILE in names or state.FILE in names


class Records:
    """The records so far: those of an earlier run, and those that a run adds.

    While a run is at work they are in its state, each as it comes; when all is done they are in
    ``records.jsonl``.

    Args:
        setup: What all records must agree in; plain values.
        versions: What computes them; all records must be of the same.
        run: The state of the run, to find records in and to keep them; None to keep none.
        folder: Where ``records.jsonl`` of an earlier run may be.
        space: What the names of their steps in the state begin with.

    Raises:
        OptionError: For records of another comparison or other versions, and lines that are no
            records.
        OutputError: If the state cannot be written.
    """

    def __init__(
        self,
        setup: dict[str, Any],
        versions: dict[str, str],
        run: State | None = None,
        folder: Path | None = None,
        space: str = "",
    ) -> None:
        self.setup, self._run, self._space = setup, run, f"{space}record "
        self._found: dict[Key, Record] = {}
        if folder is not None and (folder / FILE).exists():
            self._read(folder / FILE, versions)
        if run is not None:
            run.agree(f"{space}records", {"setup": setup, "versions": versions})
            for name in run.names(self._space):
                content = run.get(name)
                if content is not None:
                    record = json.loads(content)
                    self._found[key(record)] = record

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
        """Keeps a record, in the place of one that failed; in the state at once."""
        if self._found.get(key(record)) == record:
            return
        self._found[key(record)] = record
        if self._run is not None:
            name = self._space + json.dumps(key(record))
            self._run.put(name, json.dumps(record, allow_nan=False).encode())

    def lines(self) -> bytes:
        """The content of ``records.jsonl``: the setup, and the records in the order they came."""
        each = [{"setup": self.setup}, *self._found.values()]
        return "".join(json.dumps(one, allow_nan=False) + "\n" for one in each).encode()

    def _read(self, path: Path, versions: dict[str, str]) -> None:
        """Takes in what an earlier run wrote; a last line without an end is left."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise OutputError(
                "output-failed",
                f"The file {path} must be readable",
                got=error.strerror or str(error),
                cure="Choose another --out.",
            ) from error
        whole = content[: content.rfind(b"\n") + 1]
        lines = [_parsed(path, n, line) for n, line in enumerate(whole.splitlines(), start=1)]
        if lines and lines[0]["setup"] != self.setup:
            raise _other(path, lines[0]["setup"], self.setup)
        for record in lines[1:]:
            if record["versions"] != versions:
                raise _other(path, record["versions"], versions)
            self._found[key(record)] = record


def _parsed(path: Path, number: int, line: bytes) -> Record:
    try:
        record = json.loads(line)
        if not isinstance(record, dict):
            raise TypeError("no record")
        if number > 1:
            key(record), record["base"], record["error"], record["configurations"]
            record["versions"]
        elif "setup" not in record:
            raise KeyError("setup")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OptionError(
            "option-out",
            "Records must be as they were written",
            got=f"line {number} of {path}: {type(error).__name__} {error}",
            cure="Remove that line, or choose another --out.",
        ) from error
    found: Record = record
    return found


def _other(path: Path, found: Any, wanted: dict[str, Any]) -> OptionError:
    there = found if isinstance(found, dict) else {}
    names = [n for n in {**wanted, **there} if there.get(n) != wanted.get(n)]
    return OptionError(
        "option-out",
        "The folder must have records of the same comparison: data, splits, base model, versions",
        got=f"another {', '.join(names)} in {path}",
        cure="Choose another --out; the files of this one can be compared by hand.",
    )
