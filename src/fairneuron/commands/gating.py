"""Limits that an audit must keep: exit code, lines, JUnit, annotations."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fairneuron.errors import OptionError
from fairneuron.gate import Held, annotation, compare_limits, is_junit, junit
from fairneuron.io import require_free_file, write_file
from fairneuron.limits import check_limit
from fairneuron.options import checked, limits_of
from fairneuron.report.terminal import to_stderr, to_stdout

GATE = {"rich_help_panel": "Gate"}
GateLimits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        help="METRIC=VALUE that must hold, such as dp=0.05, or the exit code is 1; may be "
        "repeated.",
        callback=checked(lambda texts: check_limit(limits_of(texts))),
        **GATE,
    ),
]
JUnit = Annotated[
    Path | None,
    typer.Option("--junit", help="JUnit XML file to write: a test case per limit.", **GATE),
]
Annotations = Annotated[
    bool,
    typer.Option(
        "--annotations", help="Print violated limits as GitHub workflow commands too.", **GATE
    ),
]


@dataclass(frozen=True)
class Gate:
    """What was asked for.

    Attributes:
        limits: Metric to the worst accepted value; empty without a gate.
        file: JUnit XML to write, if any.
        say: Prints a workflow command; None if none are wanted. With JSON on stdout it prints to
            stderr, which GitHub reads too.
        token: Ends the part of the output in which GitHub reads no commands.
    """

    limits: Mapping[str, float]
    file: Path | None
    say: Callable[[str], None] | None
    token: str

    @classmethod
    def asked(
        cls, texts: Sequence[str] | None, file: Path | None, *, annotations: bool, as_json: bool
    ) -> Gate:
        """Reads the options, before any work.

        With annotations GitHub is told to read no commands from here on: a name in the data could
        look like one.

        Raises:
            OptionError: For what is no limit, and for forms of a gate without one.
            OutputError: If the file cannot be written, or is none of ours.
        """
        for option, given in (("--junit", file is not None), ("--annotations", annotations)):
            if given and not texts:
                raise OptionError(
                    "option-limit",
                    f"{option} tells how limits hold",
                    got="no limit",
                    cure="Give --limit too, for example --limit dp=0.05.",
                )
        limits = check_limit(limits_of(texts)) if texts else {}
        if file is not None:
            require_free_file(file, overwrite=_is_ours(file))
        say = (to_stderr if as_json else to_stdout) if annotations else None
        gate = cls(limits, file, say, secrets.token_hex(16))
        if say is not None:
            say(f"::stop-commands::{gate.token}")
        return gate

    def compare(self, found: Mapping[str, Any], title: str) -> list[Held]:
        """Compares an audit with the limits, and writes the file."""
        held = compare_limits(found, self.limits)
        if self.file is not None:
            write_file(self.file, junit(held, title), overwrite=_is_ours(self.file))
        return held

    def leave(self, held: Sequence[Held]) -> None:
        """Prints the workflow commands, after all else, and exits with 1 if a limit is violated."""
        broken = violated(held)
        if self.say is not None:
            for line in (f"::{self.token}::", *map(annotation, broken)):
                self.say(line)
        if broken:
            raise typer.Exit(1)


def violated(held: Sequence[Held]) -> list[Held]:
    """The limits that do not hold."""
    return [one for one in held if not one.holds]


def _is_ours(file: Path) -> bool:
    try:
        if not file.is_file():  # pipes are not opened
            return False
        with file.open("rb") as content:
            return is_junit(content.read(200))
    except (OSError, ValueError):
        return False
