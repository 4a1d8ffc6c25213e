"""The page of a comparison as Markdown, from the plain values of ``comparison.json`` alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fairneuron.compare.words import Figures, count, label, mean_sd, number, ordered, pair, verdict
from fairneuron.errors import printable
from fairneuron.markup import signed
from fairneuron.metrics.definitions import METRICS

_READ_THIS = """\
For each ε: the most accurate configuration whose gap on validation data is at most ε; where there
is none, the one with the lowest (the share of such seeds stands under "beyond ε"). Accuracy and gap
are those on test data, which played no part in that choice: mean ± sd over seeds, in brackets the
95 % bootstrap interval of the mean. Signed gap: mean of the second group's rate minus the first
one's; far from 0, it says that a method leaves, or overturns, the same difference each time. Gaps
are absolute values: a model that treats the groups equally would show the noise floor on average.

Worse: test accuracy significantly lower while the test gap is not significantly lower (one-sided
Wilcoxon tests, paired over seeds, at 5 %; in brackets p of accuracy and of the gap). Accuracy is
corrected over the methods of a table (Holm), the gap is not. The four ε, both directions and the
tables are not corrected for one another.

A seed on which a method failed, or has nothing to choose, is left out of its means: then the number
of seeds stands beside them. Its hypervolume is 0 there.

Hypervolume: area between a method's test points and the corner of majority-class accuracy and the
base model's gap, × 1000, of the configurations that no other one beats on validation data; rank:
its mean rank over seeds, 1 is best. Cost: seconds with all tuning, as a ratio to training the base
model once; the median."""


def page(result: Figures) -> str:
    """Returns the page; ``result`` is what ``Comparison.to_dict`` gives."""
    setup = result["setup"]
    sections = [f"# Comparison on {_code(setup['data'])}", _setting(result), _READ_THIS]
    for figures in result["criteria"]:
        sections += [f"## {METRICS[figures['criterion']].title.capitalize()}", overview(figures)]
        sections += _failures(figures)
        for at in figures["at"]:
            sections += [f"### {figures['criterion']} ≤ {at['epsilon']:g}", *_tables(figures, at)]
    versions = [
        "With " + ", ".join(f"{n} {v}" for n, v in each.items()) for each in result["versions"]
    ]
    return "\n\n".join([*sections, *(f"{text}." for text in versions)]) + "\n"


def overview(figures: Figures) -> str:
    """All methods of a criterion in one table: accuracy / gap at each ε, hypervolume, cost."""
    criterion, base = figures["criterion"], figures["base"]
    head = ["accuracy / gap", *(f"{criterion} ≤ {at['epsilon']:g}" for at in figures["at"])]
    rows = [
        (
            label(name, one),
            *(pair(at["methods"][name], one["seeds"]) for at in figures["at"]),
            number(one["hypervolume"]["mean"], scale=1000, digits=2),
            number(one["rank"], digits=1),
            _cost(one["cost"], one["seconds"]),
            _cost(one["cpu_cost"], None),
        )
        for name, one in ordered(figures)
    ]
    sentence = (
        f"Base model: accuracy {mean_sd(base['accuracy'])}, {criterion} {mean_sd(base['gap'])}; "
        f"noise floor {number(base['noise_floor'])}; majority class {number(base['majority'])}."
    )
    aware = any(one["needs_sensitive"] for one in figures["methods"].values())
    note = "(sensitive): reads the sensitive attribute to predict; ranked apart." if aware else ""
    table = _table([*head, "hypervolume", "rank", "cost", "CPU cost"], rows)
    return "\n\n".join(filter(None, [sentence, table, note]))


def _setting(result: Figures) -> str:
    setup, seeds = result["setup"], result["seeds"]
    inputs = ", ".join(map(_code, setup["sensitive_inputs"])) or "none"
    parts = " / ".join(map(str, setup["rows"]))
    lines = [
        f"{len(seeds)} seeds ({seeds[0]} to {seeds[-1]})" if seeds else "No seeds",
        f"{parts} rows for training, validation and test",
        f"groups: {', '.join(map(_code, setup['groups']))} of "
        f"{', '.join(map(_code, setup['sensitive']))}; sensitive columns that are inputs: {inputs}",
        f"y = 1 is {_code(setup['positive'])}, at a probability of {setup['threshold']:g} or more",
        f"base model: {_code(setup['model'])}",
    ]
    if setup["model"].startswith("given "):
        lines.append(
            "there is one split and one trained model: the seeds vary the methods alone, so the "
            "intervals say nothing about other data"
        )
    elif setup["fixed_split"]:
        lines.append(
            "the test part is the same for all seeds, which vary the training alone, so the "
            "intervals say nothing about other data"
        )
    if len(seeds) < 10:
        lines.append("too few seeds for tests, which need 10")
    return "\n".join(f"- {line}." for line in lines)


def _failures(figures: Figures) -> list[str]:
    notes = []
    for name, one in figures["methods"].items():
        if one["failed"]:
            seed, error = next(iter(one["failed"].items()))
            notes.append(
                f"- {name} failed on {len(one['failed'])} of {one['seeds']} seeds, which are left "
                f"out of its means; seed {seed}: "
                f"{_code(error)}"
            )
        if one["unusable"]:
            notes.append(
                f"- {name}: {one['unusable']} configurations, of all seeds, diverged, predict one "
                "class alone or have no gap; they are never chosen."
            )
    return ["\n".join(notes)] if notes else []


def _tables(figures: Figures, at: Figures) -> list[str]:
    """Methods at one ε; those that read the sensitive attribute to predict have their own table."""
    blind = [name for name, one in ordered(figures) if not one["needs_sensitive"]]
    aware = [name for name, one in ordered(figures) if one["needs_sensitive"]]
    tables = [_detail(figures, at, blind)] if blind else []
    if aware:
        reference = [figures["reference"]] if figures["reference"] in blind else []
        tables += [
            "Methods that read the sensitive attribute to predict:",
            _detail(figures, at, [*reference, *aware]),
        ]
    return tables


def _detail(figures: Figures, at: Figures, names: Sequence[str]) -> str:
    reference = figures["reference"]
    head = (
        "method",
        "seeds",
        "accuracy",
        "gap",
        "signed gap",
        "beyond ε",
        f"worse than {reference}",
        f"{reference} is worse",
    )
    rows = []
    for name in names:
        one = at["methods"][name]
        rows.append(
            (
                name,
                count(one, figures["methods"][name]["seeds"]),
                _full(one["accuracy"]),
                _full(one["gap"]),
                _signed(one["signed_gap"]),
                "" if one["flagged"] is None else f"{one['flagged']:.0%}",
                verdict(one.get("is_worse"), p="p "),
                verdict(one.get("reference_is_worse"), p="p "),
            )
        )
    return _table(head, rows)


def _full(found: Figures) -> str:
    bounds = found["interval"]
    shown = "" if bounds is None else f" [{bounds[0]:.3f}, {bounds[1]:.3f}]"
    return mean_sd(found) + shown


def _signed(value: float | None) -> str:
    return "" if value is None else signed(value)


def _cost(ratio: float | None, seconds: float | None) -> str:
    if ratio is not None:
        return f"{ratio:.2f} ×"
    return "" if seconds is None else f"{seconds:.1f} s"


def _code(text: object) -> str:
    """Text from users as code: no markup, no table cells, no control characters."""
    return f"`{printable(str(text)).replace('`', '´').replace('|', '¦')}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(head))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
