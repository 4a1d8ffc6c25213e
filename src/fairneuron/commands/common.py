"""What commands share: the user's table, progress, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import typer

from fairneuron.report.terminal import columns_line, progress_shown, to_stderr
from fairneuron.subject import Subject


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
    with progress_shown() as progress, redirect_stdout(sys.stderr):
        yield progress


def print_json(value: Any) -> None:
    """Prints JSON to stdout; NaN and infinity are refused."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
