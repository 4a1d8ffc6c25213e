"""The command line: parse, call, print.

Nothing that needs torch is imported before a command runs.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer

from fairneuron.errors import (
    FairNeuronError,
    FairNeuronWarning,
    OptionError,
    require_known,
    require_range,
)
from fairneuron.io import require_free
from fairneuron.limits import check_limit
from fairneuron.report.terminal import (
    print_audit,
    print_paths,
    print_repair,
    print_source,
    print_sources,
    progress_shown,
    to_stderr,
)
from fairneuron.settings import make_settings
from fairneuron.subject import Subject

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The data sets that come with the package.", no_args_is_help=True)
app.add_typer(data_app, name="data")


_INTERRUPTED = 130  # what typer returns after Ctrl-C


def _version(asked: bool) -> None:
    if asked:
        from fairneuron import __version__

        typer.echo(__version__)
        raise typer.Exit


Data = Annotated[
    str, typer.Option(help="A data set that comes with the package; see 'fairneuron data list'.")
]
Sensitive = Annotated[
    list[str] | None,
    typer.Option(help="A sensitive column to compare; give it again for intersections."),
]
IncludeSensitive = Annotated[
    bool,
    typer.Option("--include-sensitive", help="Let the network read the sensitive columns too."),
]
Hidden = Annotated[
    str, typer.Option(help="Widths of the base model's hidden layers, such as 32,32,32.")
]
Outputs = Annotated[
    int, typer.Option(help="Outputs of the base model: 1 logit, or 2 class logits.")
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Weights that fairneuron wrote, instead of training a base model."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Same seed, same result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Part = Annotated[str, typer.Option(help="Which part of the data: train, valid or test.")]
Gamma = Annotated[
    float, typer.Option(help="In (0, 1]: share of a neuron's value that its path explains.")
]
Theta = Annotated[
    float, typer.Option(help="In [0, 1]: a path is rare up to this share of the largest count.")
]


@app.callback()
def options(
    version: Annotated[  # handled by the callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Audit a network for group fairness, find what carries the gap, retrain only that."""


@app.command()
def repair(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder to write: weights, result.json, report.md.")],
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="METRIC=VALUE to reach, such as dp=0.05; may be repeated.", show_default="dp=0.05"
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="conflict (retrain the neurons that carry the gap) or paper (Algorithm 1)."
        ),
    ] = "conflict",
    neuron_share: Annotated[
        float | None,
        typer.Option(help="conflict: the largest share of neurons to retrain.", show_default="0.1"),
    ] = None,
    gamma: Annotated[
        float | None, typer.Option(help="paper: slicing threshold.", show_default="0.9")
    ] = None,
    theta: Annotated[
        float | None, typer.Option(help="paper: clustering threshold.", show_default="0.001")
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(help="paper: dropout probability.", show_default="0.1")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of each retraining.", show_default="10 or more; paper 50"),
    ] = None,
    sensitive: Sensitive = None,
    include_sensitive: IncludeSensitive = False,
    hidden: Hidden = "",
    outputs: Outputs = 1,
    weights: Weights = None,
    seed: Seed = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run folder.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Shrink a network's gap between groups by retraining what carries it; prove it on test data.

    Exit code 0: improved on test data; 1: no reliable improvement, or the limit is not met; 2: bad
    input; 3: internal error.
    """
    limits = check_limit(_limits(limit or ["dp=0.05"]))
    given = {
        "neuron_share": neuron_share,
        "gamma": gamma,
        "theta": theta,
        "dropout": dropout,
        "epochs": epochs,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    make_settings(recipe, changes)
    subject = Subject(
        data, tuple(sensitive or ()), include_sensitive, _widths(hidden), outputs, weights, seed
    )
    require_free(out, overwrite=overwrite)

    from fairneuron.runs import run_repair

    with progress_shown() as progress:
        run = run_repair(subject, recipe=recipe, options=changes, limit=limits, progress=progress)
    run.write(out, overwrite=overwrite)
    result = run.to_dict()
    if as_json:
        _print_json(result)
    else:
        print_repair(result, out)
    raise typer.Exit(0 if run.verdict.outcome == "improved" else 1)


@app.command()
def audit(
    data: Data,
    part: Part = "test",
    sensitive: Sensitive = None,
    include_sensitive: IncludeSensitive = False,
    hidden: Hidden = "",
    outputs: Outputs = 1,
    weights: Weights = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure how unequally a network treats groups."""
    subject = Subject(
        data, tuple(sensitive or ()), include_sensitive, _widths(hidden), outputs, weights, seed
    )
    index = _part(part)

    from fairneuron.audit import audit as run_audit

    with progress_shown() as progress:
        parts = subject.parts()
        model = subject.model(parts[0], parts[1], progress)
    result = run_audit(model, parts[index], seed=seed).to_dict()
    if as_json:
        _print_json({"data": parts[index].describe() | {"part": part}, "seed": seed, **result})
    else:
        print_audit(result, f"{data}, {part} part")


@app.command()
def paths(
    data: Data,
    gamma: Gamma = 0.9,
    theta: Theta = 1e-3,
    contribution: Annotated[str, typer.Option(help="signed or absolute.")] = "signed",
    part: Part = "train",
    sensitive: Sensitive = None,
    include_sensitive: IncludeSensitive = False,
    hidden: Hidden = "",
    outputs: Outputs = 1,
    weights: Weights = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Count the activation paths of samples, and see whose paths are rare."""
    require_range("gamma", gamma, 0, 1, open_low=True)
    require_range("theta", theta, 0, 1)
    require_known("option-contribution", "contribution", contribution, ("signed", "absolute"))
    subject = Subject(
        data, tuple(sensitive or ()), include_sensitive, _widths(hidden), outputs, weights, seed
    )
    index = _part(part)

    from fairneuron.clustering import summarise_paths
    from fairneuron.slicing import activation_paths

    with progress_shown() as progress:
        parts = subject.parts()
        model = subject.model(parts[0], parts[1], progress)
        found = activation_paths(
            model, parts[index].x, gamma=gamma, contribution=contribution, progress=progress
        )
    summary = summarise_paths(found, parts[index], theta).to_dict()
    if as_json:
        _print_json({"data": data, "part": part, "seed": seed, **summary})
        return
    print_paths(summary)


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """List the data sets."""
    from fairneuron.data.builtin import SOURCES

    if as_json:
        _print_json(
            {
                name: {"title": s.title, "sensitive": list(s.sensitive)}
                for name, s in SOURCES.items()
            }
        )
        return
    print_sources(SOURCES)


@data_app.command("show")
def data_show(name: str, as_json: AsJson = False) -> None:
    """Show a data set: rows, groups, licence and whom to cite."""
    from fairneuron.data.builtin import SOURCES

    require_known("option-data", "data set", name, SOURCES)
    source = SOURCES[name]

    from fairneuron.data.builtin import load_dataset

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
        _print_json({"name": name, **facts, "groups": groups})
        return
    print_source(facts, groups)


def main() -> None:
    """Runs the command line; our errors become one message and their exit code."""
    warnings.showwarning = _show_warning
    try:
        exit_code = app(standalone_mode=False) or 0
    except FairNeuronError as error:
        _fail(error.code, str(error), error.exit_code)
    except Exception as error:
        if hasattr(error, "format_message"):  # what typer raises for words it cannot read
            if not error.format_message():  # no words at all: it has printed the help
                sys.exit(2)
            _fail("usage", error.format_message(), 2)
        traceback.print_exc()
        _fail("internal", "This is a bug in fairneuron; please report it.", 3)
    if exit_code == _INTERRUPTED:
        _fail("interrupted", "Nothing was written.", _INTERRUPTED)
    sys.exit(exit_code)


def _fail(code: str, message: str, exit_code: int) -> NoReturn:
    if "--json" in sys.argv:
        _print_json({"error": {"code": code, "message": message}})
    to_stderr(f"error[{code}]: {message}")
    sys.exit(exit_code)


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(",")) if text else ()
    except ValueError:
        raise OptionError(
            "option-hidden", "--hidden must list widths", got=repr(text), cure="For example 32,32."
        ) from None


def _limits(texts: list[str]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for text in texts:
        name, _, bound = text.partition("=")
        if name in limits:
            raise OptionError(
                "option-limit", "A metric can have one limit", got=repr(text), cure="Drop one."
            )
        try:
            limits[name] = float(bound)
        except ValueError:
            raise OptionError(
                "option-limit",
                "--limit must be METRIC=VALUE",
                got=repr(text),
                cure="For example dp=0.05.",
            ) from None
    return limits


def _part(name: str) -> int:

    parts = ("train", "valid", "test")
    require_known("option-part", "part", name, parts)
    return parts.index(name)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


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
