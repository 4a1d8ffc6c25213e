"""A ``fairneuron.toml`` made from a table: what its columns are, as comments and as options."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fairneuron.configuration import PREFIX, SHARED
from fairneuron.data.roles import Role
from fairneuron.errors import printable

_LINE = 100


@dataclass(frozen=True)
class Draft:
    """What was found out, and chosen.

    Attributes:
        data: The path of the table, seen from the file's folder.
        rows: How many it has.
        roles: What was found of its columns.
        target: The column with the label.
        positive: Its label of ``y = 1``.
        negative: The other one.
        outcome: What ``y = 1`` is to a person; None if nobody said so.
        sensitive: The columns to compare.
        drop: Column to why it is no input.
        split: The column that says which part a row belongs to, if there is one.
        delimiter: Between the fields, if it is no comma.
    """

    data: str
    rows: int
    roles: Sequence[Role]
    target: str
    positive: str
    negative: str
    outcome: str | None
    sensitive: Sequence[str]
    drop: Mapping[str, str]
    split: str | None
    delimiter: str | None

    @property
    def inputs(self) -> list[Role]:
        """The columns that the network reads."""
        others = {self.target, self.split, *self.sensitive, *self.drop}
        return [role for role in self.roles if role.name not in others]

    def to_toml(self) -> str:
        """The file."""
        return "\n".join([*self._head(), *self._shared(), *self._commands()]) + "\n"

    def _head(self) -> Iterator[str]:
        yield f"# Options of fairneuron, from {printable(self.data)} ({self.rows} rows)."
        yield "# Keys are the options of the command line; 'fairneuron repair --help' lists them."
        yield "# The command line goes before this file, and so do variables:"
        yield f"# {PREFIX}SEED for all commands, {PREFIX}REPAIR_EPOCHS for one."
        yield "# Paths are relative to the folder of this file."
        yield ""

    def _shared(self) -> Iterator[str]:
        yield f"[{SHARED}]  # what is audited or repaired, for every command that is about that"
        yield f"data = {_text(self.data)}"
        if self.delimiter is not None:
            yield f"delimiter = {_text(self.delimiter)}"
        yield ""
        yield "# The column with the label, and the label that counts as y = 1;"
        yield f"# {_shown(self.negative)} is y = 0."
        yield f"target = {_text(self.target)}"
        yield f"positive = {_text(self.positive)}"
        yield "# What y = 1 is to a person: favourable or harmful."
        yield f"{'' if self.outcome else '# '}outcome = {_text(self.outcome or 'favourable')}"
        yield ""
        yield "# The columns whose groups are compared; of several also their intersections."
        for name in self.sensitive:
            yield from _comment(f"{_shown(name)}: {self._levels_of(name)}")
        others = [r for r in self.roles if r.sensitive and r.name not in self.sensitive]
        for role in (role for role in others if role.name != self.target):
            fit = "" if role.groups else f"; its {role.distinct} values are no groups: bin them"
            yield from _comment(f"By its name sensitive, too: {_shown(role.name)}{fit}")
        yield f"sensitive = {_texts(self.sensitive)}"
        yield "# Whether the network reads the sensitive columns, too."
        yield "# include-sensitive = true"
        yield ""
        if self.split is not None:
            yield "# The column that says which rows are for training, validation and test."
            yield f"split-column = {_text(self.split)}"
            yield ""
        yield "# Columns that are no inputs."
        for name, why in self.drop.items():
            yield from _comment(f"{_shown(name)}: {why}")
        yield f"drop = {_texts([*self.drop])}"
        yield ""
        yield from self._inputs()
        yield "# Your trained network; without one, one is trained here."
        yield '# weights = "model.safetensors"'
        yield "# The code of your own network is imported only if you name it (--model), or this"
        yield "# file (--config)."
        yield ""
        yield "# Same seed, same result."
        yield "seed = 0"
        yield ""

    def _inputs(self) -> Iterator[str]:
        yield "# The inputs:"
        for kind in ("number", "category"):
            names = [_shown(role.name) for role in self.inputs if role.type == kind]
            if names:
                yield from _comment(f"{kind}: {', '.join(names)}")
        for role in self.inputs:
            if role.type == "category" and role.levels:
                yield from _comment(f"{_shown(role.name)}: {', '.join(map(_shown, role.levels))}")
        codes = [r.name for r in self.inputs if r.type == "number" and 2 < r.distinct <= 20]
        yield "# A type that was read wrong, such as a number that is a code:"
        if codes:
            yield from _comment(f"Numbers with few values: {', '.join(map(_shown, codes))}")
        example = codes[0] if codes else "zip"
        yield f"# type = {_texts([f'{example}=category'])}"
        for role in (role for role in self.inputs if role.weight):
            yield "# If these are sample weights, for training:"
            yield f"# weight-column = {_text(role.name)}"
        yield ""

    def _commands(self) -> Iterator[str]:
        yield "[repair]"
        yield "# The gap to reach: dp is demographic parity, eo equal opportunity. One or several."
        yield 'limit = ["dp=0.05"]'
        yield ""
        yield "[audit]"
        yield "# With a limit an audit is a gate: its exit code is 1 where a limit does not hold."
        yield '# limit = ["dp=0.1"]'

    def _levels_of(self, name: str) -> str:
        (role,) = (role for role in self.roles if role.name == name)
        return ", ".join(map(_shown, role.levels)) or f"{role.distinct} values"


def _text(text: str) -> str:
    """A TOML string; what is not printable is escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(
        c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 1 << 16 else f"\\U{ord(c):08x}"
        for c in quoted
    )


def _texts(texts: Sequence[str]) -> str:
    line = f"[{', '.join(map(_text, texts))}]"
    if len(line) < _LINE:
        return line
    return "\n".join(["[", *(f"  {_text(text)}," for text in texts), "]"])


def _shown(text: str) -> str:
    """A name or a value in a comment."""
    return printable(text if len(text) <= 80 else f"{text[:77]}...")


def _comment(text: str) -> Iterator[str]:
    """Comment lines that are not too long."""
    line = "#"
    for word in text.split(" "):
        if len(line) + len(word) >= _LINE and line != "#":
            yield line
            line = "#  "
        line += f" {word}"
    yield line
