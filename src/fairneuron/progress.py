"""Progress of long work: what is told of it, and how it is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fairneuron.errors import printable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and of how many."""

_EVERY = 30.0  # seconds between two lines about the same work


def quiet(_what: str, _done: int, _of: int) -> None:
    """No progress shown."""


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Shows the progress of what is given the function that it yields.

    Bars on a terminal; elsewhere (a pipe, a notebook) a line at the start of each kind of work, and
    one every half minute while it lasts. All of it goes to stderr.

    Example:
        ``with fn.show_progress() as progress: fn.repair(net, train, valid, progress=progress)``
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def step(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=of or None)
            bar.update(tasks[what], completed=done, total=of or None)

        yield step


def _lines() -> Progress:
    """Plain lines, few of them."""
    begun: dict[str, float] = {}
    told: dict[str, tuple[float, int]] = {}

    def line(what: str, done: int, of: int) -> None:
        now = time.monotonic()
        last, before = told.get(what, (now, done + 1))
        if done < before:  # begun, or begun again
            begun[what] = now
            _say(f"{what} ({of} steps)" if of else what)
        elif now - last >= _EVERY and done != of:
            minutes, seconds = divmod(round(now - begun[what]), 60)
            _say(f"{what}: {done}{f' of {of}' if of else ''} after {minutes}:{seconds:02}")
        else:
            now = last
        told[what] = now, done

    return line


def _say(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()
