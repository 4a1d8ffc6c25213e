"""Options that are not typed: from the environment, and from ``fairneuron.toml``.

A command looks for an option among its words, then in the variables ``FAIRNEURON_…``, then in the
file: the one of ``--config``, or the one in the current folder. Nobody may know that the latter is
there, so it never says what code is imported, who gets data, or what is written (``ASKED``).

Free of torch and pandas.
"""

from __future__ import annotations

import difflib
import io
import itertools
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairneuron.data.builtin import KNOWN
from fairneuron.errors import OptionError, printable, require_known

FILE = "fairneuron.toml"
SHARED = "shared"
"""The section of what is audited or repaired; the other sections are commands."""
PREFIX = "FAIRNEURON_"
ASKED = ("model", "encode", "on", "out", "report", "junit", "overwrite")
"""Keys that only a file that was named gives: they import code, send data, or write files."""

_OTHERS = tuple(
    f"{PREFIX}{name}" for name in ("CONFIG", "DATA_FOLDER", "KERNEL")
)  # variables of ours that are no options
_LARGEST = 1 << 18
_ENTRIES = 1000  # of a folder, where a near name is looked for
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_WORDS: ContextVar[tuple[str, ...]] = ContextVar("words", default=())


@dataclass(frozen=True)
class Option:
    """What an option takes.

    Attributes:
        kind: ``bool`` for a flag, else ``int``, ``float``, ``str`` or ``Path``.
        several: Whether it may be repeated.
        shared: Whether it means the same in other commands.
    """

    kind: type
    several: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Given:
    """A value as it would be typed, and where it is from."""

    value: str | list[str] | bool
    place: str


Known = Mapping[str, Mapping[str, Option]]  # section to key to what it takes
Layer = dict[str, dict[str, Given]]


def options_given(command: str, known: Known, named: str | None) -> dict[str, Given]:
    """The options of a command that the environment and the file give, by key.

    Args:
        command: Which.
        known: What every command takes, and ``SHARED``.
        named: The file that was asked for; "" for none at all; None for that of the folder, if any.

    Raises:
        OptionError: For unknown sections, keys and variables, for values of another kind, and for
            files that cannot be read.
    """
    if named is None:
        named = os.environ.get(f"{PREFIX}CONFIG") or None
    layers = [from_environment(os.environ, known)]
    if named or (named is None and os.path.lexists(FILE)):
        layers.insert(0, from_file(named or FILE, known, named=bool(named)))
    own = known[command]
    found: dict[str, Given] = {}
    for layer in layers:
        shared = layer.get(SHARED, {})
        found |= {key: one for key, one in shared.items() if key in own and own[key].shared}
        found |= layer.get(command, {})
    return found


def from_file(path: str, known: Known, *, named: bool = True) -> Layer:
    """What a file gives, by section and key; its paths are relative to its folder.

    Args:
        path: The file.
        known: Its sections, and what their keys take.
        named: Whether somebody asked for this file.
    """
    layer: Layer = {}
    for section, content in _parsed(path, named=named).items():
        if not isinstance(content, dict) and section not in known:
            raise _refused(
                f"Options stand in sections of {path}",
                f"{section!r} outside of them",
                f"Write it below [{SHARED}] or a command, such as [repair].",
            )
        require_known("option-config", f"section of {path}", section, known)
        if not isinstance(content, dict):
            raise _refused(f"{section} of {path} must be a section", _kind(content), "[section]")
        layer[section] = {}
        for key, raw in content.items():
            require_known("option-config", f"key in [{section}] of {path}", key, known[section])
            if key in ASKED and not named:
                raise _refused(
                    f"A {FILE} that was not asked for says nothing of code that is imported, of "
                    "who gets data, or of what is written",
                    f"{key!r} in [{section}] of {path}",
                    f"Give --{key}, or, if you trust the file, --config {path}.",
                )
            place = f"{key} in [{section}] of {path}"
            value = _worded(known[section][key], raw, place)
            if isinstance(value, str) and _is_path(key, known[section][key], value):
                value = os.path.join(os.path.dirname(path), value)  # noqa: PTH118, PTH120  # ./x stays ./x
            layer[section][key] = Given(value, path)
    return layer


def from_environment(variables: Mapping[str, str], known: Known) -> Layer:
    """What variables give; those of commands have its name: ``FAIRNEURON_REPAIR_EPOCHS``."""
    names = {_variable(section, key): (section, key) for section in known for key in known[section]}
    layer: Layer = {}
    for name, text in variables.items():
        if not name.startswith(PREFIX) or not text or name in _OTHERS:
            continue
        require_known("option-environment", f"variable {PREFIX}…", name, [*names, *_OTHERS])
        section, key = names[name]
        option = known[section][key]
        value: str | list[str] | bool = text
        if option.kind is bool:
            require_known("option-environment", f"value of {name}", text.lower(), (*_YES, *_NO))
            value = text.lower() in _YES
        elif option.several:
            value = [piece.strip() for piece in text.split(",")]
        layer.setdefault(section, {})[key] = Given(value, name)
    return layer


def words_of(given: Mapping[str, Given]) -> list[str]:
    """Options as the words of a command."""
    words = []
    for key, one in given.items():
        if isinstance(one.value, bool):
            words += [f"--{key}"] if one.value else []
            continue
        for text in one.value if isinstance(one.value, list) else [one.value]:
            words += [f"--{key}", text]
    return words


def command_words() -> list[str]:
    """The words of this command: those typed, and those that stand for options given elsewhere."""
    return list(_WORDS.get() or sys.argv[1:])


def says_all() -> bool:
    """Whether the words of this command say all of its options."""
    return bool(_WORDS.get())


@contextmanager
def in_place_of(words: Sequence[str]) -> Iterator[None]:
    """While a command runs with other words than those typed."""
    token = _WORDS.set(tuple(words))
    try:
        yield
    finally:
        _WORDS.reset(token)


def _variable(section: str, key: str) -> str:
    words = key if section == SHARED else f"{section}_{key}"
    return PREFIX + words.upper().replace("-", "_")


def _parsed(path: str, *, named: bool) -> dict[str, Any]:
    """The sections of a file; one that was not asked for is never read through a link."""
    file = Path(path)
    try:
        regular = file.is_file() and (named or not file.is_symlink())
        with file.open("rb") if regular else io.BytesIO() as content:
            found = content.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _refused("The options must be in a file", f"{path}: {reason}", "Check it.") from error
    if not os.path.lexists(file):
        rule, got = "The file with options must exist", f"{path}, which does not exist"
        raise _refused(rule, got, _near(file) or "Check the path, or make one: fairneuron init.")
    if not regular or len(found) > _LARGEST:
        got = f"more than {_LARGEST >> 10} KiB" if regular else _kind_of(file)
        raise _refused("The options must be in a file of text", f"{path}, {got}", "Check the path.")
    try:
        return tomllib.loads(found.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        line = (
            str(error).splitlines()[0][:200] if not isinstance(error, UnicodeError) else "no text"
        )
        raise _refused(
            "The options must be TOML in UTF-8",
            f"{path}: {line}",
            f"For example [{SHARED}], and below it target = 'income'.",
        ) from error


def _near(file: Path) -> str:
    """A cure: the file of its folder with the most similar name; empty if there is none."""
    try:
        names = [entry.name for entry in itertools.islice(file.parent.iterdir(), _ENTRIES)]
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(file.name[:100], names, n=1)
    return f"Did you mean {printable(str(file.parent / close[0]))}?" if close else ""


def _kind_of(file: Path) -> str:
    """What is there in the place of a file."""
    if file.is_symlink():
        return "a link" if file.exists() else "a link to a file that does not exist"
    return "a folder" if file.is_dir() else "a pipe or device"


def _worded(option: Option, raw: Any, place: str) -> str | list[str] | bool:
    """A value of a file as it would be typed."""
    if option.kind is bool:
        if not isinstance(raw, bool):
            raise _refused(f"{place} must be true or false", _kind(raw), "Write one of them.")
        return raw
    if isinstance(raw, list) and not option.several:
        raise _refused(f"{place} takes one value", "a list", "Write it as on the command line.")
    kinds, cure = {
        int: ((int,), "a whole number, such as 5"),
        float: ((int, float), "a number, such as 0.5"),
    }.get(option.kind, ((str, int, float), 'a text in quotes, such as "sex"'))
    for one in raw if isinstance(raw, list) else [raw]:
        if isinstance(one, bool) or not isinstance(one, kinds):
            raise _refused(f"{place} must be {cure}", _kind(one), "Write it so.")
    return [str(one) for one in raw] if isinstance(raw, list) else str(raw)


def _kind(raw: Any) -> str:
    """A value for a message: short ones as they are."""
    if isinstance(raw, (dict, list)):
        return "a section" if isinstance(raw, dict) else "a list"
    return repr(raw) if isinstance(raw, str) else str(raw).lower()[:40]


def _is_path(key: str, option: Option, text: str) -> bool:
    return option.kind is Path or (key == "data" and text not in KNOWN)


def _refused(rule: str, got: str, cure: str) -> OptionError:
    return OptionError("option-config", rule, got=got, cure=cure)
