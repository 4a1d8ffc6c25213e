"""The command ``fairneuron repair``; free of torch, so that help is instant."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from fairneuron.commands.common import at_work, print_json, resumable, table_of
from fairneuron.errors import require_range
from fairneuron.io import require_free
from fairneuron.limits import check_limit
from fairneuron.options import (
    AsJson,
    Interactive,
    Limits,
    Overwrite,
    checked,
    class_weight_of,
    limits_of,
    numbers_of,
    with_subject,
)
from fairneuron.report.terminal import print_repair, to_stdout
from fairneuron.settings import make_settings
from fairneuron.subject import Subject


def _setting(recipe: str, name: str) -> Callable[[Any], Any]:
    """A callback that refuses a value which is no setting of the recipe."""
    return checked(lambda text: make_settings(recipe, {name: numbers_of(name, text)}))


def _seconds(time_budget: float) -> None:
    require_range("time_budget", time_budget, 0, math.inf, open_low=True, open_high=True)


@with_subject
def repair(
    subject: Subject,
    out: Annotated[
        Path,
        typer.Option(help="Folder to write, new or empty: weights, result.json, report.html, …"),
    ],
    limit: Limits = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="conflict (retrain the neurons that carry the gap) or paper (Algorithm 1 of the "
            "FairNeuron paper).",
            callback=checked(lambda name: make_settings(name, {})),
        ),
    ] = "conflict",
    neuron_share: Annotated[
        str | None,
        typer.Option(
            help="conflict: the largest share of the hidden neurons to retrain, in (0, 1]; several "
            "with commas.",
            show_default="0.3,1",
            callback=_setting("conflict", "neuron_share"),
        ),
    ] = None,
    strengths: Annotated[
        str | None,
        typer.Option(
            help="conflict: λ, the weight of the gap beside the loss; several with commas.",
            show_default="0.7, and 2.8 where that does not close the gap",
            callback=_setting("conflict", "strengths"),
        ),
    ] = None,
    gamma: Annotated[
        str | None,
        typer.Option(
            help="paper: slicing threshold, in (0, 1]: the share of a neuron's value that its "
            "activation path explains; several with commas.",
            show_default="0.9",
            callback=_setting("paper", "gamma"),
        ),
    ] = None,
    theta: Annotated[
        str | None,
        typer.Option(
            help="paper: clustering threshold, in [0, 1]: a path is rare up to this share of the "
            "largest count; several with commas.",
            show_default="0.001",
            callback=_setting("paper", "theta"),
        ),
    ] = None,
    dropout: Annotated[
        str | None,
        typer.Option(
            help="paper: dropout probability of the samples with rare paths; several with commas.",
            show_default="0.1",
            callback=_setting("paper", "dropout"),
        ),
    ] = None,
    drop_neurons: Annotated[
        str | None,
        typer.Option(
            help="paper: which neurons are dropped, random or outside_path (those that are not on "
            "the sample's path).",
            show_default="random",
            callback=checked(lambda text: make_settings("paper", {"drop": text})),
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of each retraining.",
            show_default="conflict: 5, more on small data; paper: 50",
            callback=checked(lambda number: make_settings("conflict", {"epochs": number})),
        ),
    ] = None,
    class_weight: Annotated[
        str | None,
        typer.Option(
            help="How much samples count by label: balanced, or CLASS=WEIGHT such as 0=1,1=3.",
            callback=checked(class_weight_of),
        ),
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(
            help="Seconds after which no further candidate is trained.", callback=checked(_seconds)
        ),
    ] = None,
    interactive: Interactive = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Shrink a network's gap between groups by retraining what carries it; prove it on test data.

    Exit code 0: improved on test data; 1: no reliable improvement, or the limit is not met; 2: bad
    input; 3: internal error; 130: interrupted. What is trained is kept in the folder until all is
    done: 'fairneuron resume', or the same command, goes on after a stop.
    """
    limits = check_limit(limits_of(limit or ["dp=0.05"]))
    numbers = {
        "neuron_share": neuron_share,
        "strengths": strengths,
        "gamma": gamma,
        "theta": theta,
        "dropout": dropout,
    }
    given: dict[str, Any] = {name: numbers_of(name, text) for name, text in numbers.items()}
    given |= {"drop": drop_neurons, "epochs": epochs}
    changes = {name: value for name, value in given.items() if value is not None}
    make_settings(recipe, changes)
    training = {"class_weight": class_weight_of(class_weight), "time_budget": time_budget}
    require_free(out, overwrite=overwrite)
    table = table_of(subject)

    from fairneuron.runs import run_repair

    with resumable(out, anew=overwrite) as state:
        with at_work() as progress:
            run = run_repair(
                subject,
                table=table,
                recipe=recipe,
                options=changes | training,
                limit=limits,
                state=state,
                progress=progress,
            )
        run.write(out, overwrite=overwrite, interactive=interactive)
    finish(run.to_dict(), out, as_json=as_json)


def finish(result: dict[str, Any], folder: Path, *, as_json: bool) -> NoReturn:
    """Prints a repair and exits as its verdict on test data says."""
    if as_json:
        print_json(result)
    else:
        print_repair(result, folder)
        if (folder / "front.html").exists():
            to_stdout(f"Front: {folder / 'front.html'}")
    raise typer.Exit(0 if result["verdicts"]["test"]["outcome"] == "improved" else 1)
