"""Commands that take options from the environment and a file too.

Free of torch and pandas, so that help is instant.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

import typer

from fairneuron.configuration import (
    FILE,
    PREFIX,
    SHARED,
    Given,
    Option,
    command_words,
    in_place_of,
    options_given,
    says_all,
    words_of,
)
from fairneuron.errors import OptionError
from fairneuron.report.terminal import to_stderr
from fairneuron.state import without_option


def configured(command: Callable[..., None], shared: Sequence[str] = ()) -> Callable[..., None]:
    """Lets a command take options from the environment and a file, and gives it ``--config``.

    While it runs, ``command_words`` has these options too.

    Args:
        command: A function of keywords.
        shared: Its parameters that mean the same in other commands.
    """

    @functools.wraps(command)
    def run(*, context: typer.Context, config: str | None, **given: Any) -> None:
        used = _used(context)
        if not used:
            return command(**given)
        to_stderr(_told(used))
        typed = without_option("--config", command_words())
        with in_place_of([*typed[:1], *words_of(used), *typed[1:]]):
            return command(**given)

    own = inspect.signature(command, eval_str=True).parameters
    file = typer.Option(
        "--config",
        help="TOML file with options; '' for none.",
        show_default=f"{FILE}, if it is there",
        is_eager=True,  # before the others, which it gives their defaults
        callback=_configure,
        metavar="FILE",
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    more = (
        inspect.Parameter("config", keyword, default=None, annotation=Annotated[str | None, file]),
        inspect.Parameter("context", keyword, annotation=typer.Context),
    )
    declare(run, [*own.values(), *more])
    run.shared = frozenset(shared)  # type: ignore[attr-defined]
    return run


def declare(run: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> None:
    """Says which parameters a function has that takes any."""
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in keyword_only}


def _configure(context: typer.Context, config: str | None) -> str | None:
    """Makes what the environment and the file give the defaults of a command's other options."""
    if says_all() or context.resilient_parsing:
        return config
    given = options_given(str(context.info_name), known_options(context), config)
    named = _named(context.command)
    for key, one in given.items():
        try:
            named[key].process_value(context, one.value)
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            where = one.place if one.place.startswith(PREFIX) else f"{key} in {one.place}"
            raise OptionError(
                "option-config",
                f"{where} must be a value of --{key}",
                got=repr(one.value),
                cure=error.format_message(),
            ) from error
    context.default_map = {named[key].name: one.value for key, one in given.items()}
    context.meta[SHARED] = given
    return config


def _used(context: typer.Context) -> dict[str, Given]:
    """What a command has from the environment and the file, as it was not typed."""
    named = _named(context.command)
    return {
        key: one
        for key, one in context.meta.get(SHARED, {}).items()
        if getattr(context.get_parameter_source(named[key].name), "name", "") == "DEFAULT_MAP"
    }


def _told(used: Mapping[str, Given]) -> str:
    """The options that were not typed, in a line."""
    places: dict[str, list[str]] = {}
    for key, one in used.items():
        if one.value != []:
            of_file = "" if one.place.startswith(PREFIX) else " (--config '' for none)"
            places.setdefault(f"{one.place}{of_file}", []).append(f"--{key}")
    return "; ".join(f"{place}: {' '.join(keys)}" for place, keys in places.items())


def known_options(context: typer.Context) -> dict[str, dict[str, Option]]:
    """What each command takes from the environment and a file, and what they share."""
    known: dict[str, dict[str, Option]] = {SHARED: {}}
    app: Any = context.find_root().command
    for name, command in getattr(app, "commands", {}).items():  # none of a command by itself
        named = _named(command)
        if "config" not in named:
            continue
        types = inspect.signature(command.callback, eval_str=True).parameters
        shared = command.callback.shared
        known[name] = {
            key: _option(types[p.name].annotation, shared=p.name in shared)
            for key, p in named.items()
            if key not in ("config", "help", "json")
        }
        known[SHARED] |= {key: option for key, option in known[name].items() if option.shared}
    return known


def _named(command: Any) -> dict[str, Any]:
    """The options of a command, by what is typed."""
    return {p.opts[0].removeprefix("--"): p for p in command.params if p.opts[0].startswith("--")}


def _option(annotation: Any, *, shared: bool) -> Option:
    """What a parameter of this type takes."""
    held = get_args(annotation)[0]
    kinds = [kind for kind in get_args(held) or (held,) if kind is not type(None)]
    several = list in (held, get_origin(held), get_origin(kinds[0]))
    return Option(str if several else kinds[0], several, shared)
