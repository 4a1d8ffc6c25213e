"""What the command line prints for people: tables, sentences, progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from fairneuron.errors import printable

if TYPE_CHECKING:
    from fairneuron.data.builtin import Source
    from fairneuron.data.schema import Schema


_OVER_REPRESENTED = (
    "Over-represented neurons: on a larger share of the paths inside than outside; of groups, by "
    "more than chance explains (Fisher's exact test, adjusted over all neurons, p ≤ 0.05). The "
    "cluster was chosen by its paths and is described, not tested: rare paths have rare neurons, "
    "and more of them. None of it says what causes a gap. An input is on a path by how it differs "
    "from its mean, so race=X can be on the paths of people without it."
)
_REFERENCE = "most frequent class"
_SAYS_REFERENCE = "Most frequent class: the accuracy of always predicting it."
BY_COLUMN = ("dp", "dpr", "eo", "eodds")


def to_stdout(text: str) -> None:
    """Prints a line to stdout, without control characters."""
    typer.echo("\n".join(map(printable, text.split("\n"))))


def to_stderr(text: str) -> None:
    """Prints a line to stderr, without control characters."""
    typer.echo("\n".join(map(printable, text.split("\n"))), err=True)


def print_paths(summary: dict[str, Any]) -> None:
    """Path counts, the groups among biased and benign samples, neurons, and a path."""
    console = Console()
    console.print(_text(summary["sentence"]))
    table = _table("group", "n", "biased", "benign", "share", "y=1 biased", "y=1 benign")
    for row in summary["makeup"]:
        shares = [
            _share(row["biased"], row["n"]),
            _share(row["biased_positive"], row["biased"]),
            _share(row["benign_positive"], row["benign"]),
        ]
        table.add_row(
            *(
                _text(str(v))
                for v in (row["group"], row["n"], row["biased"], row["benign"], *shares)
            )
        )
    console.print(table)
    if "over_represented" in summary:
        _print_neurons(console, summary["over_represented"])
    if "path" in summary:
        _print_path(console, summary["path"])


def _print_neurons(console: Console, compared: Sequence[dict[str, Any]]) -> None:
    """Over-represented neurons of clusters and groups, with counts."""
    console.print(_text(_OVER_REPRESENTED), end="\n\n")
    for side in compared:
        kind, neurons = side["kind"], side["neurons"]
        name = f"{kind} {side['inside']}" if kind == "group" else "biased cluster (rare paths)"
        title = f"{name}, against the {side['outside']}"
        if side["undefined"] or not neurons:
            why = side["undefined"] or "no share is larger"
            console.print(_text(f"{title}: none, {why}"), end="\n\n")
            continue
        if kind == "group" and not neurons[0]["finding"]:
            title += ": no finding, chance explains these"
        console.print(_text(title, style="bold"))
        table = _table("layer", "neuron", "inside", "share", "outside", "share", "diff")
        for use in neurons:
            table.add_row(
                *(_text(text) for text in (use["layer"], use["feature"] or str(use["unit"]))),
                f"{use['count']}/{use['n']}", f"{use['share']:.1%}",
                f"{use['others_count']}/{use['others_n']}", f"{use['others_share']:.1%}",
                f"{100 * use['difference']:+.1f}",
            )  # fmt: skip
        console.print(table)


def _print_path(console: Console, path: dict[str, Any]) -> None:
    """The synapses of a path, neuron by neuron."""
    shared = "1 sample" if path["samples"] == 1 else f"{path['samples']} samples"
    title = f"Path {path['id']} ({shared}): {path['synapses']} synapses, from output to input"
    console.print(_text(title, style="bold"))
    table = _table("layer", "neuron", "from layer", "neurons", left=True)
    for neuron in path["neurons"]:
        for source in neuron["predecessors"]:
            names = ", ".join(map(str, source.get("features", source["units"])))
            table.add_row(
                *map(_text, (neuron["layer"], str(neuron["unit"]), source["layer"], names))
            )
    console.print(table)


def print_sources(sources: Mapping[str, Source]) -> None:
    """The data sets that come with the package."""
    table = _table("name", "what it asks", "sensitive columns", left=True)
    for name, source in sources.items():
        table.add_row(name, source.title, ", ".join(source.sensitive))
    Console().print(table)


def print_image_sets(rows: Sequence[tuple[str, str, str]]) -> None:
    """Known sets of images: their names, what they are, and where they are on this machine."""
    table = _table("images", "what they show", "here", left=True)
    for row in rows:
        table.add_row(*map(_text, row))
    Console().print(table)


def print_source(facts: dict[str, Any], groups: dict[str, Any]) -> None:
    """One of them."""
    console = Console()
    for key, value in facts.items():
        console.print(_text(f"{key}: {value}"))
    if not groups:
        return
    table = _table("sensitive column", "group", "n", "y = 1")
    for column, rows in groups.items():
        for row in rows:
            table.add_row(column, row["group"], str(row["n"]), f"{row['positive'] / row['n']:.1%}")
    console.print(table)


def columns_line(name: str, rows: int, schema: Schema) -> str:
    """What was read of a table, in a line."""
    numbers = ", ".join(c.name for c in schema.inputs if not c.categories)
    categories = ", ".join(f"{c.name} ({len(c.categories)})" for c in schema.inputs if c.categories)
    told = [(c, why) for c, why in schema.unused if schema.inputs or why != "dropped"]
    unused = ", ".join(f"{column} ({why})" for column, why in told)
    parts = {"numbers": numbers, "categories": categories, "no inputs": unused}
    found = "; ".join(f"{title}: {names}" for title, names in parts.items() if names)
    return printable(f"{name}: {rows} rows; {found}")


def print_columns(title: str, columns: Sequence[dict[str, Any]]) -> None:
    """The columns of a table, and what is wrong with them."""
    console = Console()
    console.print(_text(title))
    table = _table("column", "read as", "distinct", "missing", "such as", left=True)
    for c in columns:
        examples = ", ".join(c["examples"])
        table.add_row(
            *map(
                _text,
                (c["column"], c["type"] or "?", str(c["distinct"]), str(c["missing"]), examples),
            )
        )
    console.print(table)
    for c in columns:
        if c["problem"]:
            console.print(_text(c["problem"]))


def print_repair(result: dict[str, Any], out: Path) -> None:
    """Before and after, verdicts, and where the report is."""
    from fairneuron.report.markdown import metric_rows, original_kept, which_counts
    from fairneuron.report.parts import REFERENCE, reference_text

    console = Console()
    console.print(_text(result["explanation"]["sentence"]))
    table = _table("on test data", "before", "after", "noise floor")
    for name, *figures in metric_rows(result):
        table.add_row(*map(_text, (_REFERENCE if name == REFERENCE else name, *figures)))
    console.print(table)
    console.print(_SAYS_REFERENCE)
    _print_changes(console, result)
    if result["chosen"] == 0:
        console.print(_text(original_kept(result)))
    for data in ("validation", "test"):
        verdict = result["verdicts"][data]
        style = "bold green" if verdict["outcome"] == "improved" else "bold yellow"
        console.print(_text(verdict["sentence"], style=style if data == "test" else ""))
    for told in (which_counts(result), reference_text(result["after"])):
        if told:
            console.print(_text(told))
    console.print(_text(f"Report: {out / 'report.md'}, {out / 'report.html'}"), soft_wrap=True)


def _print_changes(console: Console, result: dict[str, Any]) -> None:
    """What happened to every class and every group, and why metrics are left out."""
    from fairneuron.report.markdown import CHANGE_COLUMNS, CLASS_COLUMNS, change_rows, class_rows
    from fairneuron.report.parts import left_out_texts
    from fairneuron.report.scope import scope_of

    scope = scope_of(result["before"])
    for told in left_out_texts([result["before"], result["after"]]):
        console.print(_text(told))
    if scope.classes:
        _print_rows(console, CLASS_COLUMNS, class_rows(result, brackets=False))
    if scope.groups:
        _print_rows(console, CHANGE_COLUMNS, change_rows(result, brackets=False))
    console.print("* Reliable: its 95 % interval leaves out zero.")


def _print_rows(console: Console, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = _table(*head)
    for cells in rows:
        table.add_row(*map(_text, cells))
    console.print(table)


def print_audit(result: dict[str, Any], title: str) -> None:
    """Metrics with intervals and noise floors, and the rates of each group."""
    from fairneuron.report.parts import left_out_texts, reference_text

    console = Console()
    _print_metrics(console, result, title)
    console.print(_SAYS_REFERENCE)
    for told in filter(None, (reference_text(result), *left_out_texts([result]))):
        console.print(_text(told))
    _print_groups(console, result)
    if "by_column" in result:
        columns = _table("groups of one column alone", *BY_COLUMN)
        for column, audited in result["by_column"].items():
            columns.add_row(_text(column), *(_number(audited["metrics"][m]) for m in BY_COLUMN))
        console.print(columns)


def _print_metrics(console: Console, result: dict[str, Any], title: str) -> None:
    """The metrics of an audit that say something of its data."""
    from fairneuron.metrics.definitions import METRICS
    from fairneuron.report.parts import reference_accuracy
    from fairneuron.report.scope import scope_of

    table = _table(title, "value", "95 % interval", "noise floor")
    left_out = scope_of(result).left_out()
    for name, value in result["metrics"].items():
        if name in left_out:
            continue
        bounds, floor = result["intervals"][name], result["noise_floor"].get(name)
        table.add_row(
            METRICS[name].title,
            _number(value),
            result["undefined"][name]
            if value is None
            else ""
            if bounds is None
            else f"{bounds[0]:.3f} to {bounds[1]:.3f}",
            "" if floor is None else f"{floor:.3f}",
        )
        if name == "accuracy":
            table.add_row(_REFERENCE, _number(reference_accuracy(result)), "", "")
    console.print(table)


def _print_groups(console: Console, result: dict[str, Any]) -> None:
    """The rates of each group, and the accuracy of each class."""
    if result["sensitive"]:
        rates = ("selection_rate", "tpr", "fpr", "accuracy")
        groups = _table("group", "n", "y = 1", *rates)
        for row in result["groups"]:
            values = [_number(row[rate]) for rate in rates]
            groups.add_row(_text(row["group"]), str(row["n"]), str(row["positive"]), *values)
        console.print(groups)
    if "classes" in result:
        classes = _table("class", "n", "accuracy", "95 % interval")
        for row in result["classes"]:
            low, high = row["interval"] or (None, None)
            bounds = "" if low is None else f"{low:.3f} to {high:.3f}"
            classes.add_row(_text(row["class"]), str(row["n"]), _number(row["accuracy"]), bounds)
        console.print(classes)


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)


def _table(*columns: str, left: bool = False) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        justify: JustifyMethod = "left" if i == 0 or left else "right"
        table.add_column(_text(column), justify=justify, overflow="fold")
    return table


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
