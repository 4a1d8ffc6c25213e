"""What a run has done so far, in an SQLite file of its folder: a run that was stopped goes on.

A step is a name and bytes with their sha256 sum. Each is written whole or not at all, also where
the process is killed or the disk is full; a step that is damaged is as one that was never done. One
process at a time has the file. Nothing that it says is imported (``stopped_command``).

Free of torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fairneuron.errors import OptionError, OutputError, printable, warn

FILE = "state.sqlite"
JOURNAL = f"{FILE}-journal"
FILES = frozenset({FILE, JOURNAL})
COMMANDS = ("repair", "compare", "reproduce")
ASKED = ("--model", "--encode", "--on")
"""Options that are given again: a file never says what is imported, or which machines get data."""

_KIND = 0x464E5331  # "FNS1": the application_id of our files
_SHOWN = 5  # differences in a message
_OF = "of/"  # steps that say what a run is of, and are nothing to keep alone
_COMMAND = f"{_OF}command"


class State:
    """The state of the run in a folder, open in this process alone; a context manager.

    Args:
        folder: Made if it is not there; gone again at the end if nothing was kept in it.
        words: Of the command that goes on with it, without ``--out``; None outside of commands.
        anew: Whether the steps of a run that does not agree go.

    Raises:
        OptionError: If another process has it, or it is damaged.
        OutputError: If it cannot be written.
    """

    def __init__(
        self, folder: Path, words: Sequence[str] | None = None, *, anew: bool = False
    ) -> None:
        self.folder, self._words, self._anew = folder, words, anew
        self._made, self._done = not folder.exists(), False
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._database = _opened(folder / FILE)
            except BaseException:
                self._leave_nothing()
                raise
        try:
            with _told(folder):
                _found_good(self._database, folder)
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> State:
        """The state itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()

    def done(self) -> None:
        """The run is complete, and all that it came to is in other files: the state can go."""
        self._done = True

    def close(self) -> None:
        """Gives it free; it goes if it is done or has no step, and the folder if that is empty."""
        with suppress(sqlite3.Error):
            kept = any(not name.startswith(_OF) for name in self.names())
            self._database.close()
            if self._done or not kept:
                for name in (JOURNAL, FILE):
                    (self.folder / name).unlink(missing_ok=True)
        self._database.close()
        self._leave_nothing()

    def _leave_nothing(self) -> None:
        """Removes a file that nothing was written to, and a folder that was made and is empty."""
        file = self.folder / FILE
        with suppress(OSError):
            if file.stat().st_size == 0:
                file.unlink()
        if self._made:
            with suppress(OSError):
                self.folder.rmdir()

    def agree(self, name: str, value: Mapping[str, Any]) -> None:
        """Keeps what a run is of, or compares it with what an earlier one was of.

        The command is kept once they agree.

        Args:
            name: Of it.
            value: Plain values, as JSON has them.

        Raises:
            OptionError: If they differ, with the differences.
        """
        wanted = json.loads(json.dumps(value))
        name = f"{_OF}{name}"
        content = self.get(name)
        found = None if content is None else json.loads(content)
        if self._anew and found != wanted:
            self._forget()
        elif content is None and self.has(name):  # nobody can say whether it is the same
            raise _damaged(self.folder, f"another {name!r} than was written")
        if not self.has(name):
            self.put(name, json.dumps(wanted).encode())
        elif found != wanted:
            raise OptionError(
                "option-out",
                "A run that was stopped goes on with the same data, options and versions",
                got=f"in {self.folder} {_differences(found, wanted)}",
                cure="Choose another --out, or go back to what it was.",
            )
        if self._words is not None:
            command = {"words": [*self._words], "folder": os.fspath(Path.cwd())}
            self.put(_COMMAND, json.dumps(command).encode())

    def _forget(self) -> None:
        with _told(self.folder):
            self._database.execute("DELETE FROM steps WHERE name != ?", [_COMMAND])

    def has(self, name: str) -> bool:
        """Whether something was kept under a name, be it damaged."""
        with _told(self.folder):
            return bool(
                self._database.execute("SELECT 1 FROM steps WHERE name = ?", [name]).fetchone()
            )

    def get(self, name: str) -> bytes | None:
        """What was kept of a step; None if nothing was, or it is damaged."""
        with _told(self.folder):
            row = self._database.execute(
                "SELECT value, sha256 FROM steps WHERE name = ?", [name]
            ).fetchone()
        if row is None:
            return None
        value, wanted = row
        if not isinstance(value, bytes) or hashlib.sha256(value).hexdigest() != wanted:
            warn(
                "output-damaged", f"What {self.folder / FILE} has of {name!r} is damaged, and left"
            )
            return None
        return value

    def put(self, name: str, value: bytes) -> None:
        """Keeps a step, in place of what there was of it; it is on the disk afterwards."""
        self._done = False
        with _told(self.folder):
            self._write(name, value)

    def names(self, prefix: str = "") -> list[str]:
        """The names of the steps that begin so, in the order in which they were first kept."""
        with _told(self.folder):
            rows = self._database.execute("SELECT name FROM steps ORDER BY rowid").fetchall()
        return [str(name) for (name,) in rows if str(name).startswith(prefix)]

    def _write(self, name: str, value: bytes) -> None:
        self._database.execute(
            "INSERT INTO steps VALUES (?, ?, ?) ON CONFLICT (name) "
            "DO UPDATE SET value = excluded.value, sha256 = excluded.sha256",
            [name, value, hashlib.sha256(value).hexdigest()],
        )


def stopped_command(folder: Path, asked: Mapping[str, str | None]) -> list[str]:
    """The words of the command that a folder's state is of, with ``--out`` for where it is now.

    Args:
        folder: Where the state is.
        asked: What the user gives for the options of ``ASKED``; None where nothing.

    Raises:
        OptionError: For folders without a command that was stopped, from another working folder,
            and where the command was given one of these options and the user does not.
    """
    if not (folder / FILE).is_file():
        raise OptionError(
            "option-run",
            "The folder must be of a command that was stopped",
            got=_without_state(folder),
            cure="Give the --out folder of 'fairneuron repair', 'compare' or 'reproduce'.",
        )
    with State(folder) as state:
        content = state.get(_COMMAND)
    if content is None:
        raise OptionError(
            "option-run",
            "The folder must say which command it is of",
            got=f"{folder}, which a script wrote, or which was stopped before that",
            cure="Run the script, or the command, again.",
        )
    words, where = _command(content, folder)
    if where != os.fspath(Path.cwd()):
        raise OptionError(
            "option-run",
            "A command goes on where it was begun, since paths are read from there",
            got=os.fspath(Path.cwd()),
            cure=f"Go to {printable(where)}, or give the command again.",
        )
    for option in ASKED:
        used, given = _values_of(option, words), asked.get(option)
        if used and given is None and used != ["process"]:
            raise OptionError(
                f"option-{option.strip('-')}",
                f"The command was given {option}, which is never taken from a file",
                got="none",
                cure=f"If you trust it, give {option} {printable(used[-1])}.",
            )
        words = without_option(option, words) + ([] if given is None else [option, given])
    return [*words, "--out", os.fspath(folder)]


def _without_state(folder: Path) -> str:
    """What a folder without a state is: finished, or one that no command began."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        return f"{folder}, which is no folder ({error.strerror})"
    if not names:
        return f"{folder}, which is empty: nothing was begun in it, or it was stopped before that"
    results = {path.stem for path in folder.glob("*.json")}
    if "manifest.json" in names or any(f"{name}.md" in names for name in results):
        return f"{folder}, which is finished: all of its results are there"
    return f"{folder} without {FILE}: nothing was begun in it"


def without_option(option: str, words: Sequence[str]) -> list[str]:
    """The words of a command without an option and its value."""
    left, skipped = [], False
    for word in words:
        if skipped:
            skipped = False
        elif word == option:
            skipped = True
        elif not word.startswith(f"{option}="):
            left.append(word)
    return left


def _command(content: bytes, folder: Path) -> tuple[list[str], str]:
    """The words of a command, and the folder where it was begun."""
    try:
        command = json.loads(content)
        words, where = command["words"], command["folder"]
        if words[0] not in COMMANDS or not all(isinstance(word, str) for word in [where, *words]):
            raise ValueError("another command")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(folder, f"a command that is none: {type(error).__name__}") from error
    return [*words], where


def _values_of(option: str, words: Sequence[str]) -> list[str]:
    """What a command was given for an option, each time."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    return [
        following if word == option else word.partition("=")[2]
        for word, following in pairs
        if word == option or word.startswith(f"{option}=")
    ]


def _opened(path: Path) -> sqlite3.Connection:
    """The database, locked until it is closed, or this process ends."""
    database = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN EXCLUSIVE")
        (kind,) = database.execute("PRAGMA application_id").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if kind == 0 and tables == 0:
            database.execute(f"PRAGMA application_id = {_KIND}")
            database.execute(
                "CREATE TABLE steps (name TEXT PRIMARY KEY, value BLOB NOT NULL, "
                "sha256 TEXT NOT NULL)"
            )
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _found_good(database: sqlite3.Connection, folder: Path) -> None:
    (kind,) = database.execute("PRAGMA application_id").fetchone()
    (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
    columns = [row[1] for row in database.execute("PRAGMA table_info(steps)")]
    if kind != _KIND or said != "ok" or columns != ["name", "value", "sha256"]:
        raise _damaged(folder, "another file" if said == "ok" else str(said).splitlines()[-1])


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Errors of the database and the disk in our words."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise OptionError(
                "option-busy",
                "One process at a time can run into a folder",
                got=f"another one at work in {folder}",
                cure="Wait for it, or choose another --out.",
            ) from error
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")):
            raise _unwritable(folder, str(error)) from error
        raise _damaged(folder, str(error)) from error
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error


def _unwritable(folder: Path, got: str) -> OutputError:
    return OutputError(
        "output-failed",
        f"The file {folder / FILE} must be writable",
        got=got,
        cure="What was kept before is there; make room, then the same command goes on.",
    )


def _damaged(folder: Path, got: str) -> OptionError:
    return OptionError(
        "option-state",
        f"The file {folder / FILE} must be as it was written",
        got=got,
        cure="Put back a copy, or remove it to begin again.",
    )


def _differences(found: Any, wanted: Any) -> str:
    """What two sets of plain values differ in, by the names of where."""
    there, here = dict(_leaves(found)), dict(_leaves(wanted))
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    shown = [
        f"{name} was {_short(there.get(name))}, is {_short(here.get(name))}"
        for name in names[:_SHOWN]
    ]
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return "; ".join([*shown, *more])


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{name}.{key}" if name else key)


def _short(value: Any) -> str:
    text = "not there" if value is None else json.dumps(value)
    return printable(text if len(text) <= 80 else f"{text[:77]}...")
