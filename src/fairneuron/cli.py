"""The command line: parse, call, print.

Nothing that needs torch is imported before a command runs.
"""

from __future__ import annotations

import math
import sys
import traceback
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer

from fairneuron.commands.common import (
    INTERRUPTED,
    at_work,
    fail,
    in_place_of,
    print_json,
    resumable,
    table_of,
)
from fairneuron.commands.compare import compare
from fairneuron.commands.data import data_app
from fairneuron.commands.gating import Annotations, Gate, GateLimits, JUnit, violated
from fairneuron.commands.pages import AuditReport, ReplaceReport, ReportFile
from fairneuron.commands.reproduce import reproduce
from fairneuron.commands.search import search
from fairneuron.data.tables import require_file
from fairneuron.errors import (
    FairNeuronError,
    FairNeuronWarning,
    OptionError,
    require_known,
    require_range,
)
from fairneuron.io import require_free, require_free_file, write_file
from fairneuron.limits import check_limit
from fairneuron.options import (
    AsJson,
    Delimiter,
    Encode,
    Factory,
    Gamma,
    Limits,
    Overwrite,
    Part,
    Theta,
    class_weight_of,
    limits_of,
    numbers_of,
    part_of,
    with_subject,
)
from fairneuron.report.terminal import (
    print_audit,
    print_paths,
    print_repair,
    to_stderr,
    to_stdout,
)
from fairneuron.settings import make_settings
from fairneuron.state import stopped_command
from fairneuron.subject import ModelChoice, Subject, require_path

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
    """Audit a network for group fairness, find what carries the gap, retrain only that."""


@app.command()
@with_subject
def repair(
    subject: Subject,
    out: Annotated[Path, typer.Option(help="Folder to write: weights, result.json, report.html.")],
    limit: Limits = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="conflict (retrain the neurons that carry the gap) or paper (Algorithm 1)."
        ),
    ] = "conflict",
    neuron_share: Annotated[
        str | None,
        typer.Option(
            help="conflict: the largest share of neurons to retrain; several with commas.",
            show_default="0.3,1",
        ),
    ] = None,
    strengths: Annotated[
        str | None,
        typer.Option(
            help="conflict: λ, the weight of the gap beside the loss; several with commas.",
            show_default="0.7, and 2.8 where that does not close the gap",
        ),
    ] = None,
    gamma: Annotated[
        str | None,
        typer.Option(
            help="paper: slicing threshold; several with commas, as the next two.",
            show_default="0.9",
        ),
    ] = None,
    theta: Annotated[
        str | None, typer.Option(help="paper: clustering threshold.", show_default="0.001")
    ] = None,
    dropout: Annotated[
        str | None, typer.Option(help="paper: dropout probability.", show_default="0.1")
    ] = None,
    drop_neurons: Annotated[
        str | None,
        typer.Option(
            help="paper: which neurons are dropped, random or outside_path.",
            show_default="random",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of each retraining.", show_default="5 or more; paper 50"),
    ] = None,
    class_weight: Annotated[
        str | None, typer.Option(help="balanced, or CLASS=WEIGHT such as 0=1,1=3.")
    ] = None,
    time_budget: Annotated[
        float | None, typer.Option(help="Seconds after which no further candidate is trained.")
    ] = None,
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
    if time_budget is not None:
        require_range("time_budget", time_budget, 0, math.inf, open_low=True, open_high=True)
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
        run.write(out, overwrite=overwrite)
    _finish(run.to_dict(), out, as_json=as_json)


@app.command()
@with_subject
def audit(
    subject: Subject,
    part: Annotated[
        str | None,
        typer.Option(
            help="Which part of the data: train, valid, test or all.", show_default="test"
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="A CSV or Parquet file with your model's predictions: a row per row of --data, or "
            "with the label and the sensitive columns in itself.",
            rich_help_panel="Model",
        ),
    ] = None,
    prediction: Annotated[
        str | None,
        typer.Option(
            help="Its column of predicted labels.",
            show_default="prediction",
            rich_help_panel="Model",
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Its column of probabilities of y = 1.",
            show_default="score",
            rich_help_panel="Model",
        ),
    ] = None,
    limit: GateLimits = None,
    junit: JUnit = None,
    annotations: Annotations = False,
    report: ReportFile = None,
    overwrite: ReplaceReport = False,
    as_json: AsJson = False,
) -> None:
    """Measure how unequally a network, or given predictions, treat groups.

    With --limit the exit code is 1 if a limit is violated or its metric undefined.
    """
    gate = Gate.asked(limit, junit, annotations=annotations, as_json=as_json)
    page = AuditReport.asked(report, overwrite=overwrite)
    part = part or ("test" if predictions is None else "all")
    index = part_of(part)
    if predictions is None:
        for option, value in (("--prediction", prediction), ("--score", score)):
            if value is not None:
                raise OptionError(
                    "option-predictions",
                    f"{option} names a column of --predictions",
                    got="no such file",
                    cure="Give --predictions too.",
                )
    else:
        if part != "all" or subject.model != ModelChoice():
            raise OptionError(
                "option-predictions",
                "Predictions are given for all rows, and need no model",
                got="--predictions with --part" if part != "all" else "--predictions and a model",
                cure="Leave that out.",
            )
        require_file(predictions)
    table = table_of(subject, inputs=predictions is None)

    if predictions is not None:
        from fairneuron.predictions import audit_predictions_file

        data, result = audit_predictions_file(
            subject, table, predictions, prediction=prediction, score=score
        )
    else:
        from fairneuron.audit import audit as run_audit
        from fairneuron.loading import load_model, load_parts, part_at

        with at_work() as progress:
            parts = load_parts(subject, table)
            model = load_model(subject, parts, progress)
            data = part_at(parts, index)
            result = run_audit(model, data, threshold=subject.threshold, seed=subject.seed)
    title = f"{subject.data.name}, {'all rows' if part == 'all' else f'{part} part'}"
    found = result.to_dict()
    held = gate.compare(found, title)
    limits = [one.to_dict() for one in held]
    page.write(subject, data, found, part=part, predictions=predictions, limits=limits)
    if as_json:
        described = data.describe() | {"part": part}
        compared = {"limits": limits} if held else {}
        print_json({"data": described, "seed": subject.seed, **found, **compared})
    else:
        print_audit(found, title)
        for one in violated(held):
            to_stdout(f"violated: {one.reason}")
    gate.leave(held)


@app.command()
@with_subject
def paths(
    subject: Subject,
    gamma: Gamma = 0.9,
    theta: Theta = 1e-3,
    contribution: Annotated[str, typer.Option(help="signed or absolute.")] = "signed",
    part: Part = "train",
    top: Annotated[
        int | None,
        typer.Option(
            help="Over-represented neurons to list of each cluster and group.",
            show_default="5; with --json 20",
        ),
    ] = None,
    show: Annotated[
        int | None,
        typer.Option(help="List the synapses of the path with this id; 0 is the most frequent."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count the activation paths of samples; see whose are rare, and which neurons are on them."""
    require_range("gamma", gamma, 0, 1, open_low=True)
    require_range("theta", theta, 0, 1)
    require_known("option-contribution", "contribution", contribution, ("signed", "absolute"))
    top = (20 if as_json else 5) if top is None else top
    require_range("top", top, 1, math.inf, open_high=True)
    require_range("show", show or 0, 0, math.inf, open_high=True)
    index = part_of(part)
    table = table_of(subject)

    from fairneuron.clustering import summarise_paths
    from fairneuron.loading import load_model, load_parts, part_at
    from fairneuron.path_views import describe_path, summarise_neurons
    from fairneuron.slicing import activation_paths

    with at_work() as progress:
        parts = load_parts(subject, table)
        model = load_model(subject, parts, progress)
        data = part_at(parts, index)
        found = activation_paths(
            model, data.x, gamma=gamma, contribution=contribution, progress=progress
        )
        shown = {} if show is None else {"path": describe_path(model, data, found, show)}
        used = summarise_neurons(model, data, found, theta, top=top, progress=progress)
    summary = summarise_paths(found, data, theta).to_dict() | {"over_represented": used} | shown
    if as_json:
        name, seed = subject.data.name, subject.seed
        print_json({"data": name, "part": part, "seed": seed, **summary})
        return
    print_paths(summary)


@app.command()
def resume(
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
        raise typer.Exit(app(words, standalone_mode=False) or 0)


app.command()(compare)
app.command()(search)
app.command()(reproduce)


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(help="A run folder that 'fairneuron repair' wrote.")],
    data: Annotated[Path, typer.Argument(help="A table or arrays, as for the repair; no labels.")],
    out: Annotated[
        Path | None,
        typer.Option(help="CSV file to write: prediction, score.", show_default="standard output"),
    ] = None,
    original: Annotated[
        bool, typer.Option("--original", help="Predict with the model as it was before the repair.")
    ] = False,
    model: Factory = None,
    encode: Encode = None,
    delimiter: Delimiter = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Predict new data with a repaired model, encoded as for its repair."""
    from fairneuron.saved import Saved

    require_path("model", model)
    require_path("encode", encode)
    saved = Saved.read(folder)
    saved.require_code(model=model, encode=encode)
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


@app.command()
def choose(
    folder: Annotated[Path, typer.Argument(help="A run folder that 'fairneuron repair' wrote.")],
    limit: Annotated[
        list[str], typer.Option(help="METRIC=VALUE to reach, such as dp=0.02; may be repeated.")
    ],
    as_json: AsJson = False,
) -> None:
    """Choose another candidate of a repair, under another limit, without retraining.

    The choice is made on validation data, as the first one was, and written into the folder. Exit
    codes as for 'fairneuron repair'.
    """
    limits = check_limit(limits_of(limit))

    from fairneuron.saved import Saved

    result = Saved.read(folder).choose(limits)
    _finish(result, folder, as_json=as_json)


@app.command()
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


def _finish(result: dict[str, Any], folder: Path, *, as_json: bool) -> NoReturn:
    """Prints a repair and exits as its verdict on test data says."""
    if as_json:
        print_json(result)
    else:
        print_repair(result, folder)
    raise typer.Exit(0 if result["verdicts"]["test"]["outcome"] == "improved" else 1)


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
