"""The report of a repair as Markdown, from the plain values of ``result.json`` alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from fairneuron.errors import printable
from fairneuron.markup import signed
from fairneuron.metrics.definitions import METRICS
from fairneuron.report.command import command_of
from fairneuron.report.governance import (
    CARD_TITLE,
    IMPACT_TITLE,
    NOTICE,
    READING,
    SCORING,
    card_pairs,
    impact_grids,
    impact_of,
    repair_card,
    selected_text,
)
from fairneuron.report.parts import (
    ONE_CLASS,
    REFERENCE,
    alone_text,
    each_class,
    labels_of,
    loss_text,
    neuron_of,
    reference_accuracy,
    reference_text,
    small_classes,
    undefined_texts,
)
from fairneuron.report.scope import scope_of

SHOWN = (
    "accuracy",
    "balanced_accuracy",
    "auc",
    "worst_group_accuracy",
    "dp",
    "dpr",
    "eo",
    "eodds",
    "abcc",
)
"""The metrics of every report; ``shown_metrics`` has more."""
CHANGE_COLUMNS = ("change in", "selection rate", "TPR", "FPR", "accuracy")
CLASS_COLUMNS = ("class", "n", "accuracy before", "accuracy after", "change")


def report(result: dict[str, Any]) -> str:
    """Returns the report of a run; ``result`` is what ``Run.to_dict`` gives."""
    scope = scope_of(result["before"])
    sections = [
        "# FairNeuron report",
        f"**{_escape(result['verdicts']['test']['sentence'])}**",
        _choice(result),
        "## Before and after, on test data",
        before_and_after(result),
        f"Brackets: 95 % bootstrap intervals. Noise floor: what a model that treats all "
        f"{scope.alike} equally would show on average on so few samples; a difference below it is "
        "no finding, one a little above may be none either.",
        *(_classes(result) if scope.classes else []),
        *(_groups(result) if scope.groups else []),
        *_columns(result["data"]),
        "## What carries the disparity",
        *_explanation(result["explanation"]),
        "## Candidates",
        _candidates(result),
        *([f"## {IMPACT_TITLE}", *_impact(result)] if scope.groups else []),
        "## Read this with care",
        *_caveats(result),
        f"## {CARD_TITLE}",
        _card(result),
        "## How to reproduce",
        _reproduce(result),
    ]
    return "\n\n".join(sections) + "\n"


def metric_rows(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name of the metric, before, after and noise floor, as texts."""
    before, after = result["before"], result["after"]
    rows = [
        (
            name,
            _with_interval(before, name),
            _with_interval(after, name),
            _number(before["noise_floor"].get(name)) if name in before["noise_floor"] else "",
        )
        for name in shown_metrics(result)
    ]
    reference = _number(reference_accuracy(before))
    rows.insert(1, (REFERENCE, reference, reference, ""))  # beside accuracy
    return rows


def shown_metrics(result: dict[str, Any]) -> list[str]:
    """The metrics that have a row: those of every report, and what a limit or a verdict names."""
    worse = [name for verdict in result["verdicts"].values() for name in verdict["worse"]]
    asked = (*result["configuration"]["limit"], *worse)
    left_out = scope_of(result["before"]).left_out(asked)
    return [name for name in dict.fromkeys((*SHOWN, *asked)) if name not in left_out]


def change_rows(result: dict[str, Any], *, brackets: bool = True) -> list[tuple[str, ...]]:
    """Name of the group and the changes of its rates on test data, as texts."""
    rows: dict[str, list[str]] = {}
    for change in result["verdicts"]["test"]["groups"]:
        rows.setdefault(change["group"], []).append(_change(change, brackets=brackets))
    return [(group, *changes) for group, changes in rows.items()]


def class_rows(result: dict[str, Any], *, brackets: bool = True) -> list[tuple[str, ...]]:
    """Class, n, accuracy before and after, and its change on test data, as texts."""
    return [
        (
            old["class"],
            str(old["n"]),
            *(_within(one["accuracy"], one["interval"]) for one in (old, new)),
            "" if change is None else _change(change, brackets=brackets),
        )
        for old, new, change in each_class(result)
    ]


def before_and_after(result: dict[str, Any]) -> str:
    """The table of ``metric_rows``, with the names in full."""
    rows = [
        (METRICS[name].title if name in METRICS else name, *rest)
        for name, *rest in metric_rows(result)
    ]
    return _table(("metric", "before", "after", "noise floor"), rows)


def which_counts(result: dict[str, Any]) -> str:
    """What the two verdicts are for, where they differ; empty where they agree."""
    validation, test = (result["verdicts"][on]["outcome"] for on in ("validation", "test"))
    if validation == test:
        return ""
    return (
        f"The verdicts differ ({validation} on validation data, {test} on test data): validation "
        "data served to choose the model, test data played no part in that and prove what it is "
        "worth, so the verdict on test data counts."
    )


def original_kept(result: dict[str, Any]) -> str:
    """Why the original model is the one that was chosen."""
    candidates = [trial["rejected"] for trial in result["trials"] if trial["number"]]
    if candidates and set(candidates) == {"diverged"}:
        return (
            f"All candidates ({len(candidates)}) diverged: their loss was not finite. The original "
            "is kept. Scaled inputs or smaller steps can help."
        )
    reasons = ", ".join(
        f"{candidates.count(reason)} {reason}" for reason in dict.fromkeys(candidates) if reason
    )
    left_out = f" Not to be chosen: {reasons}." if reasons else ""
    return f"No candidate beat the original on validation data, so it is kept.{left_out}"


def _choice(result: dict[str, Any]) -> str:
    trial = result["trials"][result["chosen"]]
    sentences = (result["verdicts"]["validation"]["sentence"], which_counts(result))
    validation = _escape(" ".join(filter(None, sentences)))
    if trial["number"] == 0:
        return f"{original_kept(result)} {validation}"
    settings = ", ".join(f"{name} {value:g}" for name, value in trial["settings"].items())
    return (
        f"Candidate {trial['number']} ({_escape(settings)}) was chosen by validation figures "
        f"alone. {validation}"
    )


def _classes(result: dict[str, Any]) -> list[str]:
    term, text = labels_of(result["before"], result["data"])
    return [
        "## Classes",
        f"{term}: {_escape(text)}",
        _table(CLASS_COLUMNS, class_rows(result)),
        "Accuracy: the share of the samples of a class that are predicted right, with its 95 % "
        "interval; change: after minus before, with its interval, \\* where that leaves out zero.",
    ]


def _groups(result: dict[str, Any]) -> list[str]:
    term, text = labels_of(result["before"], result["data"])
    return [
        "## Groups",
        f"{term}: {_escape(text)}",
        _rates(result),
        "Change of each rate, after minus before, with its 95 % interval; \\* where the interval "
        f"leaves out zero. {loss_text(result['data'].get('outcome'))}",
        _table(CHANGE_COLUMNS, change_rows(result)),
    ]


def _rates(result: dict[str, Any]) -> str:
    flips = {flip["group"]: flip for flip in result["verdicts"]["test"]["flips"]}
    rows = []
    for old, new in zip(result["before"]["groups"], result["after"]["groups"], strict=True):
        flip = flips[old["group"]]
        rows.append(
            (
                old["group"],
                str(old["n"]),
                str(old["positive"]),
                *(
                    f"{_number(old[rate])} → {_number(new[rate])}"
                    for rate in ("selection_rate", "tpr", "fpr", "accuracy")
                ),
                f"{flip['to_positive']} / {flip['from_positive']}",
            )
        )
    columns = (
        "group",
        "n",
        "y = 1",
        "selection rate",
        "TPR",
        "FPR",
        "accuracy",
        "flipped to 1 / to 0",
    )
    return _table(columns, rows)


def _change(change: dict[str, Any], *, brackets: bool) -> str:
    if change["before"] is None or change["after"] is None:
        return "undefined"
    text = signed(change["after"] - change["before"])
    if change["interval"] is None:
        return text
    low, high = map(signed, change["interval"])
    reliable = change["interval"][0] > 0 or change["interval"][1] < 0
    inside = f" [{low}, {high}]" if brackets else ""
    return f"{text}{inside}{'*' if reliable else ''}"


def _columns(data: dict[str, Any]) -> list[str]:
    """What was read of a table, and what was not."""
    if "inputs" not in data:
        return []
    made = data.get("encoded")
    by = (
        [f"{len(made['features'])} inputs are made by {_escape(made['by'])} of the other columns."]
        if made
        else []
    )
    rows = [
        (
            c["column"],
            "number" if c["type"] == "number" else f"category ({c['categories']} values)",
        )
        for c in data["inputs"]
    ]
    rows += [(c["column"], f"no input: {c['why']}") for c in data["unused"]]
    return ["## Columns", *by, _table(("column", "read as"), rows)]


def _explanation(found: dict[str, Any]) -> list[str]:
    if "neurons" in found:
        table = _neurons(found)
    else:
        alone = alone_text(found)
        table = [alone] if alone else _makeup(found["makeup"])
    return [_escape(found["sentence"]), *table]


def _neurons(found: dict[str, Any]) -> list[str]:
    neurons, most = found["neurons"], 20
    rows = [
        (
            *neuron_of(found, n),
            f"{n['pull']:.4f}",
            f"{n['conflict']:+.2f}",
            f"{n['active']:.0%}",
        )
        for n in neurons[:most]
    ]
    more = [f"… and {len(neurons) - most} more in `result.json`."] if len(neurons) > most else []
    which = (
        "Only the incoming weights of these neurons are retrained."
        if found["retrained"] == len(neurons)
        else f"The incoming weights of {found['retrained']} neurons are retrained; these have the "
        "most leverage."
    )
    return [
        f"{which} Pull: norm of the gradient of the gap with respect to them. Conflict: above 0, "
        "lowering the gap and lowering the loss pull the neuron in opposite "
        "directions. Active: on how many samples it is not 0. The order is that of the leverage: "
        "the part of the pull that leaves the loss as it is, times active.",
        _table(("layer", "neuron", "pull", "conflict", "active"), rows),
        *more,
    ]


def _makeup(groups: list[dict[str, Any]]) -> list[str]:
    rows = [
        (g["group"], str(g["n"]), str(g["biased"]), str(g["benign"]), _share(g["biased"], g["n"]))
        for g in groups
    ]
    return [_table(("group", "n", "biased samples", "benign samples", "share biased"), rows)]


def _candidates(result: dict[str, Any]) -> str:
    limited = list(result["configuration"]["limit"])
    rows = []
    for trial in result["trials"]:
        metrics, training = trial["validation"] or {}, trial["training"] or {}
        settings = ", ".join(f"{k} {v:g}" for k, v in trial["settings"].items()) or "the original"
        note = (
            "chosen"
            if trial["number"] == result["chosen"]
            else "front"
            if trial["on_front"]
            else trial["rejected"] or ""
        )
        rows.append(
            (
                str(trial["number"]),
                settings,
                *(_number(metrics.get(name)) for name in ("accuracy", *limited)),
                *(_number(training.get(name)) for name in limited),
                note,
            )
        )
    return _table(
        (
            *("", "settings", "validation accuracy"),
            *(f"validation {name}" for name in limited),
            *(f"training {name}" for name in limited),
            "",
        ),
        rows,
    )


def _impact(result: dict[str, Any]) -> list[str]:
    both = {"before": result["before"], "after": result["after"]}
    impact = impact_of(both, result["data"])
    parts = [NOTICE, selected_text(impact)]
    for grid in impact_grids(impact):
        parts += [f"{_escape(grid.caption)}:", _table(grid.head, grid.rows), _escape(grid.says)]
    scored = any(one["scoring"] for one in impact["tables"])
    return [*parts, *READING, *([SCORING] if scored else [])]


def _card(result: dict[str, Any]) -> str:
    pairs = card_pairs(repair_card(result))
    return "\n".join(f"- {term}: {_escape(text)}" for term, text in pairs)


def _caveats(result: dict[str, Any]) -> list[str]:
    stopped, scope = result.get("stopped"), scope_of(result["before"])
    small = [g["group"] for g in result["before"]["groups"] if scope.groups and g["n"] < 100]
    notes = [
        "The repair reduces a measured gap under the stated definition, on data like these."
        + " Definitions of fairness conflict: shrinking one gap can widen another, and the table "
        "above shows several." * scope.groups,
        *map(_escape, small_classes(result["before"])),
    ]
    notes += filter(None, [reference_text(result["after"])])
    if small:
        notes.append(
            f"Groups of fewer than 100 test samples: {', '.join(map(_escape, small))}. "
            "Their rates are uncertain."
        )
    if stopped:
        notes.append(f"Not all was tried: {_escape(stopped)}.")
    notes += map(_escape, undefined_texts([result["before"], result["after"]]))
    notes += [ONE_CLASS] if scope.several else []
    return ["\n".join(f"- {note}" for note in notes)]


def _reproduce(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    command = command_of(result)
    fence = max(("```", *(f"{ticks}`" for ticks in re.findall("`{3,}", command))), key=len)
    return f"{fence}\n{command}\n{fence}\n\nWith {_escape(versions)}."


def _with_interval(audited: dict[str, Any], name: str) -> str:
    return _within(audited["metrics"][name], audited["intervals"].get(name))


def _within(value: float | None, bounds: Sequence[float] | None) -> str:
    text = _number(value)
    return text if bounds is None else f"{text} [{bounds[0]:.2f}, {bounds[1]:.2f}]"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_escape, line)) + " |" for line in lines)


def _escape(text: str) -> str:
    """Makes text from users inert in Markdown: no markup, no table cells, no control characters."""
    text = printable(str(text))
    special = r"([\\`*\[\]<>|$&]|(?<![^\W_])_|_(?![^\W_]))"
    return re.sub(special, r"\\\1", text) if text != "---" else text
