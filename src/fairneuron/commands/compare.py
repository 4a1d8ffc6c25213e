"""The command ``fairneuron compare``; free of torch, so that help is instant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fairneuron.commands.common import On, at_work, print_json, resumable, table_of
from fairneuron.compare.methods import CRITERIA, criteria_named, methods_named, reference_named
from fairneuron.compare.records import require_folder
from fairneuron.options import AsJson, Interactive, checked, names_of, with_subject
from fairneuron.report.terminal import to_stdout
from fairneuron.search.cluster import check_place
from fairneuron.subject import Subject


@with_subject
def compare(
    subject: Subject,
    methods: Annotated[
        str,
        typer.Option(
            help="What to compare, with commas: fairneuron,naive,reweighing, …",
            callback=checked(lambda text: methods_named(names_of(text))),
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for records, tables and plots; what an earlier run left there is not "
            "computed again."
        ),
    ],
    seeds: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many splits; tests need 10.")
    ] = 10,
    seed: Annotated[
        int, typer.Option("--first-seed", min=0, max=2**31, help="The first of them.")
    ] = 0,
    criteria: Annotated[
        str,
        typer.Option(
            help="The gaps to lower in turn, with commas.",
            callback=checked(lambda text: criteria_named(names_of(text))),
        ),
    ] = ",".join(CRITERIA),
    reference: Annotated[
        str | None,
        typer.Option(help="Which to compare the others with.", show_default="fairneuron"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="Processes or, on Ray, seeds at once.",
            show_default="one per core",
        ),
    ] = None,
    on: On = "process",
    no_plots: Annotated[
        bool, typer.Option("--no-plots", help="Draw nothing; plots need matplotlib.")
    ] = False,
    interactive: Interactive = False,
    as_json: AsJson = False,
) -> None:
    """Compare FairNeuron with other methods on your data: same splits, same base models.

    Every method chooses on validation data. What is done is kept in the folder as it comes:
    'fairneuron resume', or the same command, goes on after a stop, and one with more seeds or
    methods adds what is missing.
    """
    chosen = methods_named(names_of(methods), subject.threshold)
    named = criteria_named(names_of(criteria))
    compared_with = reference_named(reference, list(chosen))
    check_place(on)
    require_folder(out)
    table = table_of(subject)

    from fairneuron.compare.comparison import run_comparison, seeds_of
    from fairneuron.compare.setting import subject_setting
    from fairneuron.compare.tables import overview

    with resumable(out) as run, at_work() as progress:
        found = run_comparison(
            subject_setting(subject, table),
            methods=chosen,
            seeds=seeds_of(seeds, seed),
            criteria=named,
            reference=compared_with,
            run=run,
            plots=not no_plots,
            interactive=interactive,
            workers=workers or (os.cpu_count() if on == "process" else None),
            on=on,
            progress=progress,
        )
    result = found.to_dict()
    if as_json:
        print_json(result)
        return
    for figures in result["criteria"]:
        typer.echo(overview(figures) + "\n")
    to_stdout(f"Page: {out / 'comparison.md'}, {out / 'report.html'}")
    if (out / "front.html").exists():
        to_stdout(f"Front: {out / 'front.html'}")
