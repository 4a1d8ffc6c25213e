"""The options of the command line: those of all commands in one place, and how texts are read.

Free of torch and pandas, so that help is instant.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fairneuron.configured import configured, declare
from fairneuron.data.builtin import SOURCES
from fairneuron.errors import OptionError, require_known, require_range
from fairneuron.limits import OUTCOMES, check_limit
from fairneuron.subject import DataChoice, ModelChoice, Subject, require_path, require_source


def checked(read: Callable[[Any], object]) -> Callable[[Any], Any]:
    """A callback of an option: refuses a bad value before it is told which options are missing.

    Args:
        read: Raises an ``OptionError`` for a bad value; what it returns is not used.
    """

    def callback(value: Any) -> Any:
        if value not in (None, "", []):
            read(value)
        return value

    return callback


Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        help="METRIC=VALUE to reach: dp=0.05 is a demographic parity difference of at most 0.05; "
        "also eo, eodds, cv, mcd, and dpr=0.8, a ratio of at least 0.8. May be repeated.",
        show_default="dp=0.05",
        callback=checked(lambda texts: check_limit(limits_of(texts))),
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run folder.")]
Interactive = Annotated[
    bool,
    typer.Option(
        "--interactive",
        help="Write front.html, too: accuracy and gap of what was tried, to hover, tap and toggle.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Part = Annotated[str, typer.Option(help="Which part of the data: train, valid, test or all.")]
Gamma = Annotated[
    float, typer.Option(help="In (0, 1]: share of a neuron's value that its path explains.")
]
Theta = Annotated[
    float, typer.Option(help="In [0, 1]: a path is rare up to this share of the largest count.")
]
Factory = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="MODULE:FUNCTION that makes your network, without arguments. Imports your code.",
        rich_help_panel="Model",
        callback=checked(lambda text: require_path("model", text)),
    ),
]
Encode = Annotated[
    str | None,
    typer.Option(
        help="MODULE:FUNCTION that makes x of the table, for a model with its own layout. "
        "Imports your code.",
        rich_help_panel="Data",
        callback=checked(lambda text: require_path("encode", text)),
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="Between the fields of a CSV file.",
        show_default=",",
        rich_help_panel="Data",
        callback=lambda text: "\t" if text in ("\\t", "tab") else text,
    ),
]
DATA, MODEL = {"rich_help_panel": "Data"}, {"rich_help_panel": "Model"}


def subject_of(
    data: Annotated[
        str | None,
        typer.Option(
            help="A data set of ours ('fairneuron data list'), a table (.csv, .csv.gz, .parquet), "
            "arrays (.npz, .safetensors, .pt with x, y, sensitive), or a folder of images.",
            callback=checked(require_source),
            **DATA,
        ),
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Instead of --data: your training table.", **DATA)
    ] = None,
    valid: Annotated[
        Path | None, typer.Option(help="Your validation table; else a part of --train.", **DATA)
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Your test table; goes with --train.", **DATA)
    ] = None,
    split_column: Annotated[
        str | None,
        typer.Option(help="The column of --data that says of a row train, valid or test.", **DATA),
    ] = None,
    target: Annotated[str | None, typer.Option(help="The column with the label.", **DATA)] = None,
    positive: Annotated[
        str | None, typer.Option(help="The label that counts as y = 1.", **DATA)
    ] = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            help="What y = 1 is to a person, favourable or harmful: whom impact ratios count as "
            "selected, and which changes count as losses.",
            show_default="not stated",
            callback=checked(
                lambda text: require_known("option-outcome", "outcome", text, OUTCOMES)
            ),
            **DATA,
        ),
    ] = None,
    sensitive: Annotated[
        list[str] | None,
        typer.Option(
            help="A sensitive column to compare; several (sex,race) for intersections.", **DATA
        ),
    ] = None,
    include_sensitive: Annotated[
        bool,
        typer.Option(
            "--include-sensitive", help="Let the network read the sensitive columns too.", **DATA
        ),
    ] = False,
    drop: Annotated[
        list[str] | None,
        typer.Option(help="A column that is no input; or several, with commas.", **DATA),
    ] = None,
    column_type: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            help="COLUMN=number or COLUMN=category, where the detected type is wrong.",
            callback=checked(types_of),
            **DATA,
        ),
    ] = None,
    weight_column: Annotated[
        str | None, typer.Option(help="The column with sample weights, for training.", **DATA)
    ] = None,
    delimiter: Delimiter = None,
    encode: Encode = None,
    model: Factory = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Trained weights (.safetensors, or .pt with a state_dict): of --model, or of a "
            "network that fairneuron trained. Without them a network is trained here.",
            **MODEL,
        ),
    ] = None,
    hidden: Annotated[
        str,
        typer.Option(
            help="Without a model of yours: widths of the hidden layers of the one that is "
            "trained, such as 32,32,32.",
            callback=checked(lambda text: ModelChoice(hidden=widths_of(text))),
            **MODEL,
        ),
    ] = "",
    outputs: Annotated[
        int,
        typer.Option(
            help="Without a model of yours: outputs of the one that is trained, 1 logit or 2 class "
            "logits.",
            callback=checked(lambda value: ModelChoice(outputs=value)),
            **MODEL,
        ),
    ] = 1,
    threshold: Annotated[
        float,
        typer.Option(
            help="The probability of y = 1 from which on y = 1 is predicted.",
            callback=checked(lambda value: require_range("threshold", value, 0, 1)),
            **MODEL,
        ),
    ] = 0.5,
    intended_use: Annotated[
        str | None,
        typer.Option(
            help="What the model is for, in your words; for the model card of reports.",
            show_default="not stated",
            **MODEL,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Same seed, same result.")] = 0,
) -> Subject:
    """The options that say what is audited or repaired, in one place for all commands."""
    listed = sensitive or []
    return Subject(
        DataChoice(
            data=data,
            train=train,
            valid=valid,
            test=test,
            split_column=split_column,
            target=target,
            positive=positive,
            outcome=outcome,
            sensitive=tuple(_pieces(listed) if data in SOURCES else listed),
            include_sensitive=include_sensitive,
            drop=tuple(drop or ()),
            types=types_of(column_type or []),
            weight=weight_column,
            delimiter=delimiter,
            encode=encode,
        ),
        ModelChoice(model, weights, widths_of(hidden), outputs),
        seed,
        threshold,
        intended_use,
    )


def with_subject(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of ``subject_of``, and what it makes of them as ``subject``.

    An option that the command declares itself takes the place of the one of the same name.
    """
    options = inspect.signature(subject_of, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters

    @functools.wraps(command)
    def run(**given: Any) -> None:
        chosen = {name: given[name] if name in own else given.pop(name) for name in options}
        if chosen["data"] is None and chosen["train"] is None and given.get("predictions"):
            chosen["data"] = str(given["predictions"])  # a table of their own
        command(subject=subject_of(**chosen), **given)

    others = [p for p in options.values() if p.name not in own]
    declare(run, [*(p for p in own.values() if p.name != "subject"), *others])
    return configured(run, shared=[p.name for p in others])


def widths_of(text: str) -> tuple[int, ...]:
    """The numbers of "32,32,32"."""
    try:
        return tuple(int(width) for width in text.split(",")) if text else ()
    except ValueError:
        raise OptionError(
            "option-hidden", "--hidden must list widths", got=repr(text), cure="For example 32,32."
        ) from None


def names_of(text: str) -> list[str]:
    """The names of "naive,fairneuron", each once."""
    return list(dict.fromkeys(filter(None, _pieces([text]))))


def numbers_of(name: str, text: str | None) -> float | tuple[float, ...] | None:
    """The number of "0.1", or the numbers of "0.1,0.3"."""
    if text is None:
        return None
    try:
        numbers = tuple(float(piece) for piece in _pieces([text]))
    except ValueError:
        raise OptionError(
            "option-range",
            f"--{name.replace('_', '-')} must be a number, or several with commas",
            got=repr(text),
            cure="For example 0.1 or 0.1,0.3.",
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def _pieces(texts: Sequence[str]) -> list[str]:
    return [piece.strip() for text in texts for piece in text.split(",")]


def types_of(texts: Sequence[str]) -> dict[str, str]:
    """Column to type, of "zip=category"."""
    types = {}
    for text in texts:
        name, equals, kind = text.rpartition("=")
        if not equals or not name:
            raise OptionError(
                "option-type",
                "--type must be COLUMN=TYPE",
                got=repr(text),
                cure="For example zip=category.",
            )
        require_known("option-type", "type of a column", kind, ("number", "category"))
        types[name] = kind
    return types


def class_weight_of(text: str | None) -> Any:
    """Class to weight, of "0=1,1=3"; or "balanced"."""
    if text is None or text == "balanced":
        return text
    try:
        pairs = [piece.split("=") for piece in text.split(",")]
        weights = {int(label): float(weight) for label, weight in pairs}
    except ValueError:
        weights = {}
    if not weights or any(not 0 < w < math.inf for w in weights.values()):
        raise OptionError(
            "option-class-weight",
            "--class-weight must be balanced or CLASS=WEIGHT",
            got=repr(text),
            cure="For example 0=1,1=3.",
        )
    return weights


def limits_of(texts: Sequence[str]) -> dict[str, float]:
    """Metric to bound, of "dp=0.05"."""
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


def part_of(name: str) -> int:
    """Position of train, valid, test, all."""
    parts = ("train", "valid", "test", "all")
    require_known("option-part", "part", name, parts)
    return parts.index(name)
