"""The command ``search``: settings of recipe ``paper``, and the command that repairs with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fairneuron.commands.common import On, at_work, print_json, table_of
from fairneuron.errors import OptionError, require_range
from fairneuron.io import require_free_file, to_json, write_file
from fairneuron.options import AsJson, numbers_of, with_subject
from fairneuron.report.terminal import to_stderr
from fairneuron.search.cluster import check_place, check_resources
from fairneuron.search.space import (
    SAMPLES,
    SCORED,
    SHARE,
    combined,
    drawn,
    full_weights,
)
from fairneuron.settings import make_settings, several
from fairneuron.subject import ModelChoice, Subject

_SHOWN = 10


@with_subject
def search(
    subject: Subject,
    samples: Annotated[
        int | None,
        typer.Option(help="How many candidates are drawn.", show_default=str(SAMPLES)),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Try all combinations instead of drawing.")
    ] = False,
    theta: Annotated[
        str | None,
        typer.Option(
            help="Clustering threshold: LOWEST,HIGHEST; with --grid the values.",
            show_default="0.0001,1",
        ),
    ] = None,
    gamma: Annotated[
        str | None,
        typer.Option(
            help="Slicing threshold: LOWEST,HIGHEST; with --grid the values.", show_default="0.5,1"
        ),
    ] = None,
    dropout: Annotated[str, typer.Option(help="Dropout probability; several with commas.")] = "0.1",
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of each retraining.", show_default="50")
    ] = None,
    share: Annotated[float, typer.Option(help="Of the training rows to search on.")] = SHARE,
    score_weights: Annotated[
        str | None,
        typer.Option(
            help="METRIC=WEIGHT in the score, with commas, such as eo=2,dp=0.5; the metrics are "
            f"{', '.join(SCORED)}.",
            show_default="1 each",
        ),
    ] = None,
    on: On = "process",
    resources: Annotated[
        str | None,
        typer.Option(help="What a trial on Ray takes, such as CPU=2.", show_default="CPU=1"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write: all candidates.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search θ and γ of recipe paper on a share of the training data, as the paper does.

    Candidates are scored on validation data. Exit code 0: one wins; 1: none can; 2: bad input; 3:
    internal error.
    """
    given = _space(samples, grid=grid, theta=theta, gamma=gamma, dropout=dropout)
    given["weights"] = full_weights(_amounts("score-weights", score_weights))
    given["resources"] = check_resources(_amounts("resources", resources) or None)
    require_range("share", share, 0, 1, open_low=True)
    check_place(on)
    more: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    make_settings("paper", more)
    if out is not None:
        require_free_file(out, overwrite=overwrite)
    table = table_of(subject)

    from fairneuron.loading import load_model, load_parts
    from fairneuron.tuning import search as run_search

    with at_work() as progress:
        parts = load_parts(subject, table)
        model = load_model(subject, parts, progress)
        found = run_search(
            model,
            train=parts[0],
            valid=parts[1],
            share=share,
            on=on,
            threshold=subject.threshold,
            seed=subject.seed,
            progress=progress,
            **given,
            **more,
        )
    result = {"data": subject.data.name, **found.to_dict()}
    best = None if found.winner is None else found.best
    result["command"] = None if best is None else _repair_command(subject, best)
    if out is not None:
        write_file(out, to_json(result), overwrite=overwrite)
        to_stderr(f"All candidates: {out}")
    if as_json:
        print_json(result)
    else:
        order = [candidate.number for candidate in found.ranked]
        _print(result, order)
    raise typer.Exit(0 if best else 1)


def _space(samples: int | None, *, grid: bool, dropout: str, **texts: str | None) -> dict[str, Any]:
    """The options of the space as ``search`` takes them, found good."""
    numbers = {name: numbers_of(name, text) for name, text in texts.items()}
    named = {name: values for name, values in numbers.items() if values is not None}
    rates = numbers_of("dropout", dropout)
    given: dict[str, Any] = {"dropout": rates}
    if not grid:
        given |= named | {"samples": SAMPLES if samples is None else samples}
        drawn(**given)
        return given
    if samples is not None:
        raise OptionError(
            "option-grid",
            "A grid is tried in full",
            got=f"--grid with --samples {samples}",
            cure="Leave one out.",
        )
    lists = {name: several(values) for name, values in named.items()}
    combined(lists, **given)
    return given | {"grid": lists}


def _amounts(option: str, text: str | None) -> dict[str, float]:
    """Name to number, of "eo=2,dp=1"."""
    amounts: dict[str, float] = {}
    for piece in text.split(",") if text is not None else ():
        name, equals, number = (part.strip() for part in piece.partition("="))
        try:
            value = float(number)
        except ValueError:
            equals = ""
        if not equals or not name or name in amounts:
            raise OptionError(
                f"option-{option}",
                f"--{option} must be NAME=NUMBER, each name once",
                got=repr(text),
                cure="Several with commas.",
            )
        amounts[name] = value
    return amounts


def _print(result: Mapping[str, Any], order: list[int]) -> None:
    """The best candidates, the original, the winner, and how to use it."""
    tried = {figures["number"]: figures for figures in result["candidates"]}
    terms = {"dp": "(1 − dp)", "eo": "(1 − eo)"}
    formula = " + ".join(
        f"{w:g} · {terms.get(name, name)}" for name, w in result["weights"].items()
    )
    typer.echo(
        f"{len(tried)} candidates, retrained on {result['rows']} rows of {result['data']}; "
        f"on validation data:\n"
    )
    typer.echo(f"{'':>8} {'γ':>7} {'θ':>9} {'dropout':>7} {'biased':>7} {_cells(SCORED)} score")
    for number in order[:_SHOWN]:
        typer.echo(_row(tried[number]))
    typer.echo(_row(result["original"]))
    typer.echo(f"\nscore = {formula}; biased: share of the rows with rare paths")
    lost = len(tried) - len(order)
    if lost:
        typer.echo(f"{lost} cannot win: they diverged, predict one class or are undefined.")
    if result["winner"] is None:
        return
    typer.echo(f"Candidate {result['winner']} wins.")
    if (result["original"]["score"] or 0) >= tried[result["winner"]]["score"]:
        typer.echo("The original, as it is, has no lower score.")
    typer.echo(f"\n{result['command']}")


def _row(figures: Mapping[str, Any]) -> str:
    metrics, score = figures["metrics"] or {}, figures["score"]
    settings = figures["settings"]
    name = str(figures["number"] or "original")
    tried = (
        f"{settings['gamma']:>7.4f} {settings['theta']:>9.3g} {settings['dropout']:>7g} "
        f"{figures['biased']:>7.1%}"
        if settings
        else " " * 33
    )
    cells = _cells("?" if metrics.get(n) is None else f"{metrics[n]:.3f}" for n in SCORED)
    return f"{name:>8} {tried} {cells} {'?' if score is None else f'{score:.3f}':>5}"


def _cells(texts: Any) -> str:
    return " ".join(f"{text:>8}" for text in texts)


def _repair_command(subject: Subject, best: Mapping[str, Any]) -> str:
    """The command that repairs the same subject with these settings."""
    from fairneuron.report.command import shell_word

    words = ["fairneuron", "repair", "--recipe", "paper", *words_of(subject)]
    for name, value in best.items():
        words += [f"--{name}", repr(value)]
    return " ".join(map(shell_word, [*words, "--out", "runs/paper"]))


def words_of(subject: Subject) -> list[str]:
    """The options that name a subject on the command line; the inverse of ``subject_of``."""
    data, model = subject.data, subject.model
    default = ModelChoice()
    named: dict[str, Any] = {
        "data": data.data,
        "train": data.train,
        "valid": data.valid,
        "test": data.test,
        "split-column": data.split_column,
        "target": data.target,
        "positive": data.positive,
        "outcome": data.outcome,
        "weight-column": data.weight,
        "delimiter": data.delimiter,
        "encode": data.encode,
        "model": model.model,
        "weights": model.weights,
        "hidden": ",".join(map(str, model.hidden)) or None,
        "outputs": None if model.outputs == default.outputs else model.outputs,
        "threshold": None if subject.threshold == 0.5 else subject.threshold,
        "seed": subject.seed or None,
        "intended-use": subject.intended_use,
    }
    words = [w for n, value in named.items() if value is not None for w in (f"--{n}", str(value))]
    several = {
        "sensitive": data.sensitive,
        "drop": data.drop,
        "type": [f"{column}={kind}" for column, kind in data.types.items()],
    }
    words += [w for n, values in several.items() for value in values for w in (f"--{n}", value)]
    return [*words, "--include-sensitive"] if data.include_sensitive else words
