"""What commands share: the user's table, progress, JSON."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from fairneuron.configuration import command_words
from fairneuron.errors import FairNeuronError
from fairneuron.io import remove_leftovers
from fairneuron.progress import show_progress
from fairneuron.report.terminal import columns_line, to_stderr
from fairneuron.state import FILE, State, without_option
from fairneuron.subject import Subject

INTERRUPTED = 130  # what typer returns after Ctrl-C
On = Annotated[str, typer.Option(help="Where: process, ray (this machine) or ray://HOST:PORT.")]


def table_of(subject: Subject, *, inputs: bool = True) -> Any:
    """The user's table, read and found good before torch is imported; None for other data."""
    if subject.data.kind != "table":
        return None
    from fairneuron.loading import read_own_table

    table = read_own_table(subject.data, inputs=inputs)
    to_stderr(columns_line(subject.data.name, len(table.frame), table.schema))
    return table


@contextmanager
def at_work() -> Iterator[Callable[[str, int, int], None]]:
    """Progress is shown; what the user's code prints goes to stderr: stdout is for the answer."""
    with show_progress() as progress, redirect_stdout(sys.stderr):
        yield progress


@contextmanager
def resumable(out: Path, *, anew: bool = False) -> Iterator[State]:
    """The state of the run in a folder; who interrupts it is told how it goes on.

    Args:
        out: The folder.
        anew: Whether a stopped run with other options goes.
    """
    try:
        with State(out, without_option("--out", command_words()), anew=anew) as state:
            remove_leftovers(out)
            yield state
    except KeyboardInterrupt:
        kept = (out / FILE).exists()
        cure = f"What is done is kept: fairneuron resume {shlex.quote(os.fspath(out))}"
        fail("interrupted", cure if kept else "Nothing was written.", INTERRUPTED)


def print_json(value: Any) -> None:
    """Prints JSON to stdout; NaN and infinity are refused."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def fail(
    code: str, message: str, exit_code: int, problems: Sequence[FairNeuronError] = ()
) -> NoReturn:
    """Says what went wrong, as JSON on stdout too if that was asked for, and exits."""
    if "--json" in sys.argv:
        each = [{"code": problem.code, "message": str(problem)} for problem in problems]
        error = {"code": code, "message": message, **({"problems": each} if each else {})}
        print_json({"error": error})
    to_stderr(f"error[{code}]: {message}")
    sys.exit(exit_code)
