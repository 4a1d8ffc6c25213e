"""The command ``fairneuron init``; free of torch until the table is found good."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairneuron.configuration import FILE
from fairneuron.data.builtin import SOURCES
from fairneuron.errors import FairNeuronWarning, OptionError, require_known
from fairneuron.io import require_free_file, write_file
from fairneuron.limits import OUTCOMES
from fairneuron.options import Delimiter
from fairneuron.report.terminal import to_stderr, to_stdout
from fairneuron.subject import ARRAY_FILES, DataChoice, Subject

if TYPE_CHECKING:
    import pandas as pd

    from fairneuron.data.roles import Role
    from fairneuron.draft import Draft


def init(
    table: Annotated[Path, typer.Argument(help="Your table: .csv, .csv.gz or .parquet.")],
    target: Annotated[str | None, typer.Option(help="The column with the label.")] = None,
    positive: Annotated[str | None, typer.Option(help="The label that counts as y = 1.")] = None,
    outcome: Annotated[
        str | None, typer.Option(help="What y = 1 is to a person: favourable or harmful.")
    ] = None,
    sensitive: Annotated[
        list[str] | None,
        typer.Option(help="A sensitive column to compare; several (sex,race) for intersections."),
    ] = None,
    delimiter: Delimiter = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path(FILE),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write fairneuron.toml for a table: its label, sensitive columns and inputs, to be checked.

    What cannot be told from the table is asked on a terminal; elsewhere the options say it.
    """
    if outcome is not None:
        require_known("option-outcome", "outcome", outcome, OUTCOMES)
    _require_table(table)
    require_free_file(out, overwrite=overwrite)

    from fairneuron.data.tables import read_table

    frame = read_table(table, delimiter=delimiter or ",")
    path = str(table) if table.is_absolute() else os.path.relpath(table, out.parent)
    draft = _drafted(frame, path, target, positive, outcome, sensitive or [], delimiter)
    _require_good(draft, table)
    write_file(out, draft.to_toml().encode(), overwrite=overwrite)
    _print(draft, out)


def _require_table(table: Path) -> None:
    """Refuses what is none."""
    if str(table) in SOURCES:
        raise OptionError(
            "option-data",
            "The file is made for a table of your own",
            got=f"{table}, a data set of ours",
            cure=f"Try 'fairneuron data export {table} {table}.csv', then with that table.",
        )
    if table.suffix.lower() in ARRAY_FILES:
        raise OptionError(
            "option-data", "The file is made for a table", got=str(table), cure="Arrays have no "
            "columns: name what they hold on the command line.",
        )  # fmt: skip
    DataChoice(str(table), target="-", sensitive=("-",))  # refuses what is no file


def _drafted(
    frame: pd.DataFrame,
    path: str,
    target: str | None,
    positive: str | None,
    outcome: str | None,
    sensitive: Sequence[str],
    delimiter: str | None,
) -> Draft:
    """Finds out what each column is, and asks what only a person knows."""
    from fairneuron.data.columns import fit_labels, require_columns
    from fairneuron.data.roles import copies, find_roles
    from fairneuron.draft import Draft
    from fairneuron.loading import resolved

    named = resolved(sensitive, frame)
    require_columns(frame, [*([] if target is None else [target]), *named])
    roles = find_roles(frame)
    unclear: list[OptionError] = []
    labels = ("", "")
    with _collected(unclear):
        _require_label(target, roles, named)
        target = target or _target(roles, named)
        labels = fit_labels(frame[target], positive) if positive else _labels(frame, target)
    with _collected(unclear):
        named = named or _sensitive([role for role in roles if role.name != target])
    if target is None or unclear:
        raise _joined(unclear)
    splits = [role.name for role in roles if role.split and role.name not in (target, *named)]
    split = splits[0] if splits else None
    taken = {target, split, *named}
    drop = {role.name: role.left for role in roles if role.left and role.name not in taken}
    others = [role for role in roles if role.name not in taken | {*drop}]
    drop |= dict.fromkeys(copies(frame, others, target), f"says the same as {target}")
    drop |= dict.fromkeys(splits[1:], "names parts of the data")
    return Draft(
        data=path,
        rows=len(frame),
        roles=roles,
        target=target,
        positive=labels[1],
        negative=labels[0],
        outcome=outcome,
        sensitive=named,
        drop=drop,
        split=split,
        delimiter=delimiter,
    )


@contextmanager
def _collected(unclear: list[OptionError]) -> Iterator[None]:
    """Keeps an ``OptionError`` that is raised inside for later."""
    try:
        yield
    except OptionError as error:
        unclear.append(error)


def _joined(unclear: Sequence[OptionError]) -> OptionError:
    if len(unclear) == 1:
        return unclear[0]
    return OptionError("option-init", f"{len(unclear)} things must be clear", problems=unclear)


def _require_label(target: str | None, roles: Sequence[Role], named: Sequence[str]) -> None:
    """Refuses a sensitive column as the label."""
    if target is not None and target in _no_labels(roles, named):
        by_name = "" if target in named else ", by its name a sensitive column"
        raise OptionError(
            "option-target",
            "The label cannot be a sensitive column",
            got=f"{target!r}{by_name or ' as --target and as --sensitive'}",
            cure="Name the column that the model predicts. If it does predict this one, give "
            f"--target {shlex.quote(target)} to the other commands themselves."
            if by_name
            else "Name the column that the model predicts as --target.",
        )


def _no_labels(roles: Sequence[Role], named: Sequence[str]) -> set[str]:
    """The columns that are sensitive: those that were named, and those called like one."""
    return {role.name for role in roles if role.sensitive} | set(named)


def _target(roles: Sequence[Role], named: Sequence[str]) -> str:
    from fairneuron.data.roles import targets

    found = [role for role in targets(roles) if role.name not in named]
    if len(found) == 1:
        return found[0].name
    if found:
        question = "Which column is the label, which the model predicts?"
        names, sensitive = [role.name for role in roles], _no_labels(roles, named)
        answer = _asked(question, _described(found), _one(names, sensitive))
        if answer:
            return answer[0]
    raise OptionError(
        "option-target",
        "It must be clear which column is the label",
        got=f"{len(found)} that could be it: {'; '.join(_described(found).values())}"
        if found
        else "none of two values",
        cure="Name it, for example --target " + shlex.quote(found[0].name) + "."
        if found
        else "Make a column of two values, such as yes and no, and name it: --target COLUMN.",
    )


def _labels(frame: pd.DataFrame, target: str) -> tuple[str, str]:
    """The negative and the positive label; asks which is which, unless the values say so."""
    from fairneuron.data.columns import as_text, fit_labels

    values = sorted(set(as_text(frame[target].dropna())))
    if len(values) != 2 or values in (["0", "1"], ["False", "True"]):
        return fit_labels(frame[target], None)
    question = f"Which value of {target} counts as y = 1?"
    answer = _asked(question, {value: value for value in values}, _one(values))
    if answer:
        return fit_labels(frame[target], answer[0])
    raise OptionError(
        "option-positive",
        f"It must be clear which value of {target!r} counts as y = 1",
        got=f"{values[0]!r} and {values[1]!r}",
        cure=f"Name it, for example --positive {shlex.quote(values[1])}.",
    )


def _sensitive(roles: Sequence[Role]) -> list[str]:
    found = [role for role in roles if role.sensitive and role.groups]
    if len(found) == 1:
        return [found[0].name]
    question = "Which columns' groups are compared? Several with commas, for intersections too."
    answer = _asked(question, _described(found), _some([r.name for r in roles if r.groups]))
    if answer:
        return answer
    raise OptionError(
        "option-sensitive",
        "It must be clear whose groups are compared",
        got=f"{len(found)} columns that could be it: {'; '.join(_described(found).values())}"
        if found
        else "no column that by its name and its groups is sensitive",
        cure="Name one, or several: --sensitive "
        + shlex.quote(found[0].name if found else "sex")
        + ".",
    )


def _described(roles: Sequence[Role]) -> dict[str, str]:
    return {role.name: f"{role.name} ({', '.join(role.levels) or role.distinct})" for role in roles}


# Asking


def _asked(
    question: str, shown: dict[str, str], read: Callable[[list[str]], list[str] | str]
) -> list[str]:
    """Asks until there is an answer; nothing where nobody is at a terminal.

    Args:
        question: What is asked.
        shown: Answers to choose from, each with what is told of it.
        read: Takes the pieces of an answer; gives the names, or what is wrong with it.
    """
    if not sys.stdin.isatty():
        return []
    names = [*shown]
    lines = (f"  {i}. {text}" for i, text in enumerate(shown.values(), start=1))
    to_stderr("\n".join([question, *lines, "The number, or a name:"]))
    for line in sys.stdin:
        pieces = [piece.strip() for piece in line.split(",") if piece.strip()]
        numbers = {str(i): name for i, name in enumerate(names, start=1)}
        found = read([numbers.get(piece, piece) for piece in pieces])
        if not isinstance(found, str):
            return found
        to_stderr(f"{found} The number, or a name:")
    return []


def _one(
    known: Sequence[str], sensitive: Collection[str] = ()
) -> Callable[[list[str]], list[str] | str]:
    """Reads one name, which is not sensitive; a name may have a comma."""

    def read(pieces: list[str]) -> list[str] | str:
        name = ", ".join(pieces)
        if name in sensitive:
            return f"The label cannot be a sensitive column, as {name!r} is."
        return [name] if name in known else _nearest(name, known)

    return read


def _some(known: Sequence[str]) -> Callable[[list[str]], list[str] | str]:
    """Reads one or several names."""

    def read(pieces: list[str]) -> list[str] | str:
        unknown = [piece for piece in pieces if piece not in known]
        if pieces and not unknown:
            return list(dict.fromkeys(pieces))
        return _nearest(unknown[0], known) if unknown else "At least one, please."

    return read


def _nearest(name: str, known: Sequence[str]) -> str:
    """That a name is none of those known, and which are like it."""
    folded = {one.casefold(): one for one in known[:1000]}
    close = difflib.get_close_matches(name.casefold()[:100], folded, n=3)
    hint = f" Nearest: {', '.join(folded[one] for one in close)}." if close else ""
    return f"{name!r} is none of them.{hint}"


# The end


def _require_good(draft: Draft, table: Path) -> None:
    """Refuses, as the next command would, a table that cannot be used so."""
    from fairneuron.loading import load_parts, read_own_table

    choice = DataChoice(
        str(table),
        target=draft.target,
        positive=draft.positive,
        sensitive=tuple(draft.sensitive),
        drop=tuple(draft.drop),
        split_column=draft.split,
        delimiter=draft.delimiter,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairNeuronWarning)  # the next command says it
        load_parts(Subject(choice), read_own_table(choice))


def _print(draft: Draft, out: Path) -> None:
    """What was found, what is guessed, and what comes next."""
    outcome = f", {draft.outcome}" if draft.outcome else ""
    to_stdout(f"{draft.data}: {draft.rows} rows, {len(draft.roles)} columns")
    to_stdout(f"target: {draft.target}; y = 1: {draft.positive}{outcome}, y = 0: {draft.negative}")
    to_stdout(f"sensitive: {', '.join(draft.sensitive)}")
    if draft.split is not None:
        to_stdout(f"parts: {draft.split}")
    to_stdout(f"inputs: {', '.join(role.name for role in draft.inputs)}")
    for name, why in draft.drop.items():
        to_stdout(f"no input: {name} ({why})")
    to_stdout(f"\nCheck {out}, then for example:")
    config = "" if out == Path(FILE) else f" --config {shlex.quote(str(out))}"
    to_stdout(f"fairneuron repair{config} --out runs/first")
