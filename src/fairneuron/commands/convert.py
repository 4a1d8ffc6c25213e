"""The command ``fairneuron convert``; free of torch, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairneuron.commands.common import print_json
from fairneuron.options import AsJson
from fairneuron.report.terminal import to_stdout


def convert(
    file: Annotated[Path, typer.Argument(help="A pickled model, TorchScript or other checkpoint.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    sha256: Annotated[str, typer.Option(help="The sum of the file, from somebody you trust.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take the weights out of a file that runs code when it is opened.

    The file is opened in a process of its own, which can do all that you can: convert only what you
    trust. Its sha256 sum says that it is the file you mean.
    """
    from fairneuron.convert import convert as run_convert

    found = run_convert(file, sha256, out, overwrite=overwrite)
    if as_json:
        print_json(found)
    else:
        to_stdout(f"{found['tensors']} tensors, {found['parameters']} numbers: {out}")
