"""The commands on what a repair wrote: ``predict``, ``choose`` and ``resume``; free of torch."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from fairneuron.commands.repair import finish
from fairneuron.configuration import in_place_of
from fairneuron.data.tables import require_file
from fairneuron.io import require_free_file, write_file
from fairneuron.limits import check_limit
from fairneuron.options import (
    AsJson,
    Delimiter,
    Encode,
    Factory,
    Interactive,
    checked,
    limits_of,
)
from fairneuron.report.terminal import to_stderr
from fairneuron.state import stopped_command
from fairneuron.subject import require_path


def predict(
    folder: Annotated[Path, typer.Argument(help="A run folder that 'fairneuron repair' wrote.")],
    data: Annotated[
        Path,
        typer.Argument(
            help="A table, arrays or a folder of images (by class or not), as for the repair; no "
            "labels."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="CSV file to write.", show_default="standard output"),
    ] = None,
    original: Annotated[
        bool, typer.Option("--original", help="Predict with the model as it was before the repair.")
    ] = False,
    model: Factory = None,
    encode: Encode = None,
    delimiter: Delimiter = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Predict new data with a repaired model, encoded as for its repair.

    The answer is CSV. Of images it has their file, of arrays the row, from 0. prediction is the
    label or class by its name. score is the probability of y = 1; of more than two classes there is
    probability instead, that of the prediction.
    """
    from fairneuron.saved import Saved

    require_path("model", model)
    require_path("encode", encode)
    saved = Saved.read(folder)
    saved.require_code(model=model, encode=encode)
    if not data.is_dir() or saved.encoding.get("kind") != "arrays":
        require_file(data)
    if out is not None:
        require_free_file(out, overwrite=overwrite)
    with redirect_stdout(sys.stderr):
        content = saved.predict(
            data, model=model, encode=encode, delimiter=delimiter, original=original
        )
    if out is None:
        typer.echo(content, nl=False)
    else:
        write_file(out, content.encode(), overwrite=overwrite)
        to_stderr(f"Predictions: {out}")


def choose(
    folder: Annotated[Path, typer.Argument(help="A run folder that 'fairneuron repair' wrote.")],
    limit: Annotated[
        list[str],
        typer.Option(
            help="METRIC=VALUE to reach, such as dp=0.02; may be repeated.",
            callback=checked(lambda texts: check_limit(limits_of(texts))),
        ),
    ],
    interactive: Interactive = False,
    as_json: AsJson = False,
) -> None:
    """Choose another candidate of a repair, under another limit, without retraining.

    The choice is made on validation data, as the first one was, and written into the folder. Exit
    codes as for 'fairneuron repair'.
    """
    limits = check_limit(limits_of(limit))

    from fairneuron.saved import Saved

    result = Saved.read(folder).choose(limits, interactive=interactive)
    finish(result, folder, as_json=as_json)


def resume(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The --out folder of a command that was stopped.")],
    model: Factory = None,
    encode: Encode = None,
    on: Annotated[
        str | None, typer.Option(help="Where it runs, if that is not this process.")
    ] = None,
) -> None:
    """Go on with a repair, comparison or experiment that was stopped, to the same result.

    Run it where the command was begun. Code of yours that it was given must be named again, and a
    cluster: a file never says what is imported, or who gets your data. Exit codes as for the
    command.
    """
    words = stopped_command(folder, {"--model": model, "--encode": encode, "--on": on})
    with in_place_of(words):
        raise typer.Exit(context.find_root().command.main(words, standalone_mode=False) or 0)
