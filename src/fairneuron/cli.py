"""The command line: its commands, and how errors end.

Nothing that needs torch is imported before a command runs.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from typing import Annotated, TextIO

import typer

from fairneuron.commands.audit import audit
from fairneuron.commands.common import INTERRUPTED, fail
from fairneuron.commands.compare import compare
from fairneuron.commands.convert import convert
from fairneuron.commands.data import data_app
from fairneuron.commands.folders import choose, predict, resume
from fairneuron.commands.init import init
from fairneuron.commands.paths import paths
from fairneuron.commands.repair import repair
from fairneuron.commands.reproduce import reproduce
from fairneuron.commands.search import search
from fairneuron.errors import FairNeuronError, FairNeuronWarning
from fairneuron.report.terminal import to_stderr

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")


def _version(asked: bool) -> None:
    if asked:
        from fairneuron import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # handled by the callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Audit a network for group fairness, find what carries the gap, retrain only that.

    What is not typed is taken from variables (FAIRNEURON_SEED for all commands,
    FAIRNEURON_REPAIR_EPOCHS for one), then from a file: that of --config, or
    fairneuron.toml in this folder, as init writes it.
    """


for _command in (
    init,
    repair,
    audit,
    paths,
    resume,
    compare,
    search,
    reproduce,
    predict,
    choose,
    convert,
):
    app.command()(_command)


def main() -> None:
    """Runs the command line; our errors become one message and their exit code."""
    warnings.showwarning = _show_warning
    try:
        exit_code = app(standalone_mode=False) or 0
    except FairNeuronError as error:
        fail(error.code, str(error), error.exit_code, error.problems)
    except Exception as error:
        if hasattr(error, "format_message"):  # what typer raises for words it cannot read
            if not error.format_message():  # no words at all: it has printed the help
                sys.exit(2)
            fail("usage", error.format_message(), 2)
        traceback.print_exc()
        fail("internal", "This is a bug in fairneuron; please report it.", 3)
    if exit_code == INTERRUPTED:
        fail("interrupted", "Nothing was written.", INTERRUPTED)
    sys.exit(exit_code)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    ours = issubclass(category, FairNeuronWarning)
    text = warnings.formatwarning(message, category, filename, lineno).rstrip()
    to_stderr(f"warning: {message}" if ours else text)
