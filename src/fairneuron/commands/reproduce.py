"""The command ``fairneuron reproduce``; free of torch, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairneuron.commands.common import On, at_work, print_json, resumable
from fairneuron.configured import configured
from fairneuron.errors import OptionError, require_known
from fairneuron.options import AsJson, checked, names_of
from fairneuron.report.terminal import to_stdout
from fairneuron.reproduce.paper import TITLES
from fairneuron.reproduce.place import require_place
from fairneuron.search.cluster import check_place

ALL = "all"


@configured
def reproduce(  # typer reads options from a function's parameters
    name: Annotated[
        str,
        typer.Argument(
            help="; ".join(f"{name}: {title}" for name, title in TITLES.items())
            + f"; or {ALL}: all whose data come with the package.",
            callback=checked(
                lambda name: require_known("option-reproduce", "experiment", name, (*TITLES, ALL))
            ),
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for records, page and plots; what an earlier run left there is not "
            "computed again."
        ),
    ],
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="How many times all is done, each with another seed.",
            show_default="10; with --quick 1",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Which data, with commas: census, credit, compas, compas-published (the label and "
            "the inputs of the published code); of table7 mnist, cifar10, which 'fairneuron data "
            "get' downloads.",
            show_default="all of them",
        ),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            help="table7: a file with some images of CIFAR-10 (.npz with x and y) in the place of "
            "all of them, which need a GPU."
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="One seed, few rows and epochs: only to see that it runs."),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="Processes or, on Ray, jobs at once.",
            show_default="1; on Ray one per CPU",
        ),
    ] = None,
    on: On = "process",
    no_plots: Annotated[
        bool, typer.Option("--no-plots", help="Draw nothing; plots need matplotlib.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run an experiment of the FairNeuron paper again, with the paper's figures beside ours.

    It takes minutes to hours; --quick shows first whether it runs. What is done stays in the folder
    as it comes; 'fairneuron resume', or the same command, goes on after a stop.
    """
    require_known("option-reproduce", "experiment", name, (*TITLES, ALL))
    if quick and seeds not in (None, 1):
        raise OptionError(
            "option-seeds",
            "--quick is of one seed",
            got=f"--seeds {seeds}",
            cure="Leave one of the two out.",
        )
    check_place(on)
    require_place(out)

    from fairneuron.compare.plots import require_matplotlib
    from fairneuron.reproduce.run import experiments_of, require_possible, run_experiment

    parts = None if data is None else names_of(data)
    names = experiments_of(parts) if name == ALL else [name]
    require_possible(names, data=parts, sample=sample, quick=quick)
    if not no_plots and any(each.startswith("figure") for each in names):
        require_matplotlib()  # before the tables, which take hours
    with resumable(out) as run, at_work() as progress:
        found = [
            run_experiment(
                each,
                run,
                seeds=seeds or 10,
                data=parts,
                sample=sample,
                quick=quick,
                plots=not no_plots,
                workers=workers,
                on=on,
                progress=progress,
            )
            for each in names
        ]
    if as_json:
        each = [one.to_dict() for one in found]
        print_json(each if name == ALL else each[0])
        return
    for one in found:
        typer.echo(one.to_markdown())
        to_stdout(f"Page: {out / f'{one.name}.md'}")
