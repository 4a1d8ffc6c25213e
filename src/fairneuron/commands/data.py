"""The commands ``fairneuron data …``; free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairneuron.commands.common import print_json
from fairneuron.data.builtin import SOURCES
from fairneuron.data.imagesets import IMAGE_SETS, ImageSet, data_folders, place_of
from fairneuron.errors import OptionError, require_known
from fairneuron.io import require_free_file, write_file
from fairneuron.options import AsJson, Delimiter
from fairneuron.progress import show_progress
from fairneuron.report.terminal import (
    print_columns,
    print_image_sets,
    print_source,
    print_sources,
    to_stdout,
)
from fairneuron.subject import ARRAY_FILES, DataChoice

data_app = typer.Typer(
    help="The data sets that come with the package, and known sets of images.", no_args_is_help=True
)


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """List the data sets."""
    if as_json:
        tables = {
            name: {"title": s.title, "sensitive": list(s.sensitive)} for name, s in SOURCES.items()
        }
        images = {
            name: {"title": known.title, "sensitive": [], "here": place_of(name) is not None}
            for name, known in IMAGE_SETS.items()
        }
        print_json(tables | images)
        return
    print_sources(SOURCES)
    print_image_sets([(name, known.title, _where(name)) for name, known in IMAGE_SETS.items()])


@data_app.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A data set of ours, or a table (.csv, .parquet).")],
    delimiter: Delimiter = None,
    as_json: AsJson = False,
) -> None:
    """Show a data set: rows, groups, licence and whom to cite; of your own table the columns."""
    from fairneuron.data.builtin import load_dataset

    if name in IMAGE_SETS:
        _show_images(name, IMAGE_SETS[name], as_json=as_json)
        return
    if name not in SOURCES:
        if Path(name).suffix.lower() in ARRAY_FILES or Path(name).is_dir():
            raise OptionError(
                "option-data",
                "Columns are shown of tables",
                got=name,
                cure="Arrays and images have none.",
            )
        DataChoice(name, target="-", sensitive=("-",))  # refuses what is no file
        _show_columns(Path(name), delimiter, as_json=as_json)
        return
    DataChoice(name, delimiter=delimiter)  # refuses what is for tables alone
    source = SOURCES[name]
    described = [load_dataset(name, sensitive=column).describe() for column in source.sensitive]
    facts = {
        "title": source.title,
        "rows": described[0]["rows"],
        "y = 1": source.positive_means,
        "licence": source.licence,
        "cite": source.citation,
    }
    groups = {column: d["groups"] for column, d in zip(source.sensitive, described, strict=True)}
    if as_json:
        print_json({"name": name, **facts, "groups": groups})
        return
    print_source(facts, groups)


@data_app.command("export")
def data_export(
    name: str,
    out: Annotated[Path, typer.Argument(help="The CSV file to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write a data set of ours as a CSV table, to try things on."""
    require_known("option-data", "data set", name, SOURCES)
    require_free_file(out, overwrite=overwrite)
    table = SOURCES[name].read()
    write_file(out, table.to_csv(index=False).encode(), overwrite=overwrite)
    to_stdout(f"{len(table)} rows: {out}")


@data_app.command("get")
def data_get(
    name: Annotated[
        str,
        typer.Argument(
            help="Which: "
            + ", ".join(
                f"{name} ({known.title}, {known.download.size / 1e6:.0f} MB)"
                for name, known in IMAGE_SETS.items()
            )
            + "."
        ),
    ],
) -> None:
    """Download a set of images, so that --data NAME finds it. No other command downloads anything.

    The file is kept in the folder that the variable FAIRNEURON_DATA_FOLDER names, or else in the
    folder fairneuron of your cache, and only if its SHA-256 is the known one. One that is there is
    not fetched again; a download that was stopped goes on where it was.
    """
    from fairneuron.data.download import fetch

    require_known("option-data", "set of images", name, IMAGE_SETS)
    wanted = IMAGE_SETS[name].download
    with show_progress() as progress:
        path = fetch(wanted, data_folders()[0], progress=progress)
    to_stdout(f"{name}: {path}")


def _where(name: str) -> str:
    return "yes" if place_of(name) is not None else f"no: fairneuron data get {name}"


def _show_images(name: str, known: ImageSet, *, as_json: bool) -> None:
    training, test = known.parts
    place = place_of(name)
    facts = {
        "title": known.title,
        "rows": training + test,
        "parts": f"{training} for training, {test} for testing",
        "classes": ", ".join(known.classes),
        "shape": " × ".join(map(str, known.shape)),
        "licence": known.licence,
        "cite": known.citation,
        "here": "no" if place is None else str(place),
        "file": f"{known.download.name}, {known.download.size} bytes, "
        f"SHA-256 {known.download.sha256}",
    }
    if as_json:
        print_json({"name": name, **facts})
    else:
        print_source(facts, {})


def _show_columns(path: Path, delimiter: str | None, *, as_json: bool) -> None:
    from fairneuron.data.inputs import describe_columns
    from fairneuron.data.tables import read_table

    frame = read_table(path, delimiter=delimiter or ",")
    columns = list(describe_columns(frame))
    if as_json:
        print_json({"name": str(path), "rows": len(frame), "columns": columns})
    else:
        print_columns(f"{path}: {len(frame)} rows", columns)
