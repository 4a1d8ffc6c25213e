"""What the HTML reports of repairs and audits share: figures, tables and words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fairneuron.markup import FEW, Html, el, signed, table
from fairneuron.metrics.definitions import METRICS, wilson
from fairneuron.report import figures
from fairneuron.report.figures import Mark, Row
from fairneuron.report.page import figure, paragraph
from fairneuron.report.scope import scope_of

Values = dict[str, Any]
MEANS = {
    "dp": "the largest difference of two groups' shares of people who are predicted y = 1",
    "dpr": "the lowest of the groups' shares of people who are predicted y = 1, divided by the "
    "highest; 1 is equality",
    "eo": "the largest difference of two groups' shares of people who are predicted y = 1, among "
    "those who have y = 1 (true positive rates)",
    "eodds": "the larger one of two differences of shares of people who are predicted y = 1: the "
    "largest among those who have y = 1, and the largest among those who do not (true positive "
    "and false positive rates)",
    "cv": "the variance of the accuracies of the classes",
    "mcd": "the largest difference of the accuracies of two classes",
}
"""The metrics that can be limited, in words."""
RATES = {
    "selection_rate": "selection rate",
    "tpr": "true positive rate",
    "fpr": "false positive rate",
    "accuracy": "accuracy",
}
SAYS_RATE = {
    "selection_rate": "share of people who are predicted y = 1",
    "tpr": "share of people who are predicted y = 1, among those who have y = 1",
    "fpr": "share of people who are predicted y = 1, among those who do not have y = 1",
    "accuracy": "share of people who are predicted right",
}
_GAPS = ("dp", "eo", "eodds", "abcc")
_SMALL = 100
ALONE = 0.99  # share of rare paths from which there is nothing to compare them with
REFERENCE = "accuracy of always predicting the most frequent class"


def reference_accuracy(audited: Values) -> float:
    """The ``REFERENCE`` on the people of an audit: what a model without inputs can come to."""
    if "classes" in audited:
        counts = [one["n"] for one in audited["classes"]]
    else:
        positive = sum(group["positive"] for group in audited["groups"])
        counts = [positive, audited["n"] - positive]
    return float(max(counts) / audited["n"])


def reference_text(audited: Values) -> str:
    """That a model is no better than a constant answer, in a sentence; empty if it is better."""
    accuracy, reference = audited["metrics"]["accuracy"], reference_accuracy(audited)
    if accuracy is None or accuracy > reference:
        return ""
    return (
        f"By its accuracy ({number(accuracy)}) the model is no better than always predicting the "
        f"most frequent class ({number(reference)})."
    )


def reading(audited: Values) -> str:
    """What intervals and noise floors are."""
    return (
        "Intervals are 95 % intervals. Noise floor: the gap that a model which treats all "
        f"{scope_of(audited).alike} alike would show on average on so few samples. A gap below it "
        "is no finding; one a little above it may be none either."
    )


def labels_of(audited: Values, data: Values) -> tuple[str, str]:
    """What the labels mean, as a term with its text: y = 1, or the classes where no one counts."""
    scope = scope_of(audited)
    if not scope.several:
        return "y = 1", f"{data['positive_means']}."
    if scope.groups:
        return "y = 1", f"{data['positive_means']}, one of {len(scope.classes)} classes."
    return "Classes", f"{listed(scope.classes)}."


def each_class(result: Values) -> list[tuple[Values, Values, Values | None]]:
    """Every class of a repair: before, after, and the change; older results have none."""
    before, after = result["before"]["classes"], result["after"]["classes"]
    changes = result["verdicts"]["test"].get("classes") or [None] * len(before)
    return list(zip(before, after, changes, strict=True))


def changed(change: Values) -> str:
    """A change with its interval, and whether it is reliable."""
    if change["before"] is None or change["after"] is None:
        return "undefined"
    moved = signed(change["after"] - change["before"])
    if change["interval"] is None:
        return moved
    low, high = change["interval"]
    reliable = ", reliable" if low > 0 or high < 0 else ""
    return f"{moved} ({signed(low)} to {signed(high)}){reliable}"


def loss_text(outcome: str | None) -> str:
    """When a changed rate is a loss to people, by what ``y = 1`` is to them."""
    if outcome is None:
        return "Whether a rise or a fall is a loss to a group depends on what y = 1 means."
    worse = "falls" if outcome == "favourable" else "rises"
    accuracy = "" if worse == "falls" else "; of accuracy, falls are"
    return f"Since y = 1 is the {outcome} outcome, {worse} are losses to a group{accuracy}."


def sizes(groups: Sequence[Values]) -> str:
    """The groups with their sizes; of more than 12 the number."""
    named = [f"{g['group']} (n = {g['n']:,})" for g in groups[:12]]
    more = [f"{len(groups) - 12} more"] if len(groups) > 12 else []
    return f"{', '.join([*named, *more])}."


def groups_text(audited: Values) -> str:
    """The groups that are compared, with their sizes."""
    return sizes(audited["groups"]) if scope_of(audited).groups else "None given."


def gap_figures(audits: Mapping[str, Values], limit: Mapping[str, float]) -> Iterator[Html]:
    """Differences in one plot, ratios with a limit in another one."""
    first = next(iter(audits.values()))
    names = [name for name in _GAPS if first["metrics"][name] is not None]
    for shown, axis in ((names, "gap (0 is equality)"), (["dpr"], "ratio (1 is equality)")):
        if axis.startswith("ratio") and "dpr" not in limit:
            continue
        rows = [
            Row(
                METRICS[name].title,
                [Mark(k, a["metrics"][name], a["intervals"][name]) for k, a in audits.items()],
                first["noise_floor"].get(name),
                limit.get(name),
            )
            for name in shown
        ]
        if rows:
            caption = f"Gaps between the groups: {' and '.join(audits)}"
            yield figure(
                figures.interval_plot(caption, _said(rows), rows, axis),
                f"{caption}, with 95 % intervals.",
            )


def rate_figure(audits: Mapping[str, Values], rate: str) -> Html:
    """A rate of every group, with intervals, of each audit."""
    first = next(iter(audits.values()))
    rows = [
        Row(
            f"{figures.short(group['group'], 24)} (n = {base_of(group, rate):,})",
            [
                Mark(kind, audited["groups"][g][rate], bounds_of(audited["groups"][g], rate))
                for kind, audited in audits.items()
            ],
        )
        for g, group in enumerate(first["groups"])
        if group["n"]
    ]
    caption = f"{RATES[rate].capitalize()} by group: {SAYS_RATE[rate]}"
    left = len(rows) - figures.ROWS
    more = f" {left} more groups stand in the table alone." if left > 0 else ""
    drawn = figures.interval_plot(caption, _said(rows[: figures.ROWS]), rows, RATES[rate])
    return figure(drawn, f"{caption}, with 95 % intervals.{more}")


def class_figure(audits: Mapping[str, Values]) -> Html:
    """The accuracy of every class, with intervals, of each audit."""
    each = zip(*(audited["classes"] for audited in audits.values()), strict=True)
    rows = [
        Row(
            f"{figures.short(found[0]['class'], 24)} (n = {found[0]['n']:,})",
            [
                Mark(kind, one["accuracy"], one["interval"])
                for kind, one in zip(audits, found, strict=True)
            ],
        )
        for found in each
        if found[0]["n"]
    ]
    caption = "Accuracy by class: share of the samples of a class that are predicted right"
    left = len(rows) - figures.ROWS
    more = f" {left} more classes stand in the table alone." if left > 0 else ""
    drawn = figures.interval_plot(caption, _said(rows[: figures.ROWS]), rows, "accuracy")
    return figure(drawn, f"{caption}, with 95 % intervals.{more}")


def _said(rows: Iterable[Row]) -> str:
    """The values of a plot in words."""
    each = (
        f"{row.label}: " + ", ".join(f"{m.kind} {number(m.value)}" for m in row.marks)
        for row in rows
    )
    return f"{'; '.join(each)}."


def base_of(group: Values, rate: str) -> int:
    """Of how many people a rate is."""
    positive: int = group["positive"]
    n: int = group["n"]
    return {"tpr": positive, "fpr": n - positive}.get(rate, n)


def bounds_of(group: Values, rate: str) -> list[float] | None:
    """Wilson's interval of a rate, 95 %."""
    n = base_of(group, rate)
    if group[rate] is None or not n:
        return None
    return [float(bound) for bound in wilson(np.array(round(group[rate] * n)), np.array(n))]


def by_column(audits: Mapping[str, Values]) -> Iterator[Html]:
    """The gaps of each column alone, where there are several."""
    first = next(iter(audits.values()))
    rows = []
    for column in first.get("by_column", ()):
        for name in ("dp", "dpr", "eo", "eodds"):
            found = [a["by_column"].get(column) for a in audits.values()]
            cells = ["" if one is None else with_interval(one, name) for one in found]
            floor = floor_of(first["by_column"][column], name)
            rows.append((f"{column}: {METRICS[name].title}", *cells, floor))
    if rows:
        yield el("h3", "By one column alone")
        yield table(
            "Gaps between the groups of one sensitive column, the others left aside",
            ("column and metric", *audits, "noise floor"),
            rows,
        )


def caveats(audited: Sequence[Values]) -> list[str]:
    """What to keep in mind of audits of the same groups: small groups, undefined metrics, rates."""
    scope = scope_of(audited[0])
    groups = audited[0]["groups"] if scope.groups else []
    compared = [g for g in groups if g["compared"] and g["n"]]
    small = [f"{g['group']} ({g['n']})" for g in compared if g["n"] < _SMALL]
    aside = [g["group"] for g in groups if g["n"] and not g["compared"]]
    empty = [g["group"] for g in groups if not g["n"]]
    notes = [reference_text(audited[-1]), _conflict(compared) if scope.groups else ""]
    notes = [*filter(None, notes)]
    if small:
        notes.append(
            f"Groups of fewer than {_SMALL} samples: {listed(small)}. Their rates are uncertain."
        )
    notes += small_classes(audited[0])
    if empty:
        notes.append(f"Groups without samples here: {listed(empty)}.")
    if aside:
        notes.append(f"Shown, but not compared, since a value is unknown: {listed(aside)}.")
    notes += undefined_texts(audited)
    notes += [ONE_CLASS] if scope.several else []
    notes.append(
        "All figures are of samples such as these; they say nothing about data of another kind, "
        "and nothing about whether the labels themselves are just."
    )
    return notes


ONE_CLASS = (
    "F1 and AUC tell y = 1 from everything else, so with more than two classes they have a row "
    "only where a verdict names them."
)


def small_classes(audited: Values) -> list[str]:
    """A sentence on classes of few samples, if there are any."""
    few = [f"{c['class']} ({c['n']})" for c in audited.get("classes", ()) if c["n"] < _SMALL]
    if not few:
        return []
    told = f"Classes of fewer than {_SMALL} samples: {listed(few)}."
    return [f"{told} Their accuracies are uncertain."]


def undefined_texts(
    audited: Sequence[Values], metrics: Collection[str] = tuple(METRICS)
) -> list[str]:
    """A sentence for every reason why some metrics are undefined."""
    names: dict[str, list[str]] = {}
    for name, why in {k: why for one in audited for k, why in one["undefined"].items()}.items():
        if name in metrics:
            names.setdefault(why, []).append(METRICS[name].title)
    return [
        f"{sentence_case(', '.join(titles))} {'are' if len(titles) > 1 else 'is'} undefined: {why}."
        for why, titles in names.items()
    ]


def left_out_texts(audited: Sequence[Values]) -> list[str]:
    """Why metrics are left out of the tables of these audits."""
    scope = scope_of(audited[0])
    one_class = [ONE_CLASS] if scope.several else []
    return [*undefined_texts(audited, scope.left_out()), *one_class]


def _conflict(groups: Sequence[Values]) -> str:
    """Why definitions cannot all hold, with the groups' shares of y = 1."""
    shares = [f"{g['positive'] / g['n']:.3f} ({g['group']})" for g in groups]
    if len({g["positive"] / g["n"] for g in groups}) == 1:
        return "Definitions of fairness differ: shrinking one gap can widen another."
    return (
        f"Definitions of fairness conflict. The share of people with y = 1 is {listed(shares)}. "
        "Where these base rates differ, equal selection rates (demographic parity) and equal "
        "error rates (equalised odds) cannot both hold, unless predictions do not depend on y at "
        "all; and with equal selection rates and equal true positive rates (equal opportunity) "
        "the false positive rates differ. Which definition fits is a decision about the use of "
        "the model, which no measurement makes."
    )


def origin(result: Values) -> Iterator[Html]:
    """Versions, sums and columns of the data."""
    versions, data = result["versions"], result["data"]
    yield paragraph(f"With {', '.join(f'{name} {number}' for name, number in versions.items())}.")
    sums = data.get("sha256")
    if sums:
        each = [(name, el("code", total)) for name, total in sums.items()]
        yield table("SHA-256 sums of the data files", ("file", "SHA-256"), each, words=True)
    if data.get("comes_with", not sums):
        yield paragraph(f"The data {data['name']} come with this version of fairneuron.")
    if "encoded" in data:
        made = data["encoded"]
        many = len(made["features"])
        yield paragraph(f"{many} inputs are made by {made['by']} of the other columns.")
    if "inputs" in data:
        rows = [
            (
                c["column"],
                "number" if c["type"] == "number" else f"category ({c['categories']} values)",
            )
            for c in data["inputs"]
        ]
        rows += [(c["column"], f"no input: {c['why']}") for c in data["unused"]]
        yield table("Columns", ("column", "read as"), rows, words=True)


def alone_text(paths: Values) -> str:
    """That (nearly) everybody has a rare path, and what to do about it; empty if not."""
    if paths["biased_share"] < ALONE:
        return ""
    benign = paths["samples"] - sum(row["biased"] for row in paths["makeup"])
    return (
        f"The {paths['samples']:,} samples take {paths['paths']:,} paths of synapses, so "
        f"{f'only {benign:,} of them share' if benign else 'none of them shares'} a frequent one, "
        "and there are no clusters to compare: fairneuron paths counts coarser ones with --level "
        "units, and with --similarity beside it similar ones together."
    )


def neuron_of(found: Values, neuron: Values) -> tuple[str, str]:
    """The layer of a neuron, and which of its neurons it is: "head 3" of attention, else "3"."""
    kind = found.get("kinds", {}).get(neuron["layer"])  # older results have none
    return neuron["layer"], f"{'head ' * (kind == 'head')}{neuron['unit']}"


def title_of(name: str) -> str:
    """A metric's name in full, as a sentence begins."""
    return sentence_case(METRICS[name].title)


def sentence_case(words: str) -> str:
    """Words as a sentence begins."""
    return words[0].upper() + words[1:]


def with_interval(audited: Values, name: str) -> str:
    """A metric of an audit with its interval."""
    return between(audited["metrics"][name], audited["intervals"].get(name))


def between(value: float | None, bounds: Sequence[float] | None) -> str:
    """A value with its interval."""
    inside = "" if bounds is None else f" ({bounds[0]:.3f} to {bounds[1]:.3f})"
    return f"{number(value)}{inside}"


def floor_of(audited: Values, name: str) -> str:
    """The noise floor of a metric; empty if it has none."""
    floors = audited["noise_floor"]
    return number(floors[name]) if name in floors else ""


def limit_text(limit: Mapping[str, float], name: str) -> str:
    """The limit of a metric in words; empty if it has none."""
    if name not in limit:
        return ""
    return f"{'at least' if METRICS[name].best else 'at most'} {limit[name]:g}"


def number(value: float | None) -> str:
    """A value to three digits."""
    return "undefined" if value is None else f"{value:.3f}"


def listed(words: Sequence[str]) -> str:
    """Words with commas; of many the first ones, and how many more."""
    more = [f"{len(words) - FEW} more"] if len(words) > FEW else []
    return ", ".join([*words[:FEW], *more])


def all_of(words: Sequence[str]) -> str:
    """Words joined by "and"."""
    return " and ".join(words)
