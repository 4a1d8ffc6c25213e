"""Impact ratios and the model card of a report: as plain values, as texts for tables, as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from fairneuron.governance import FOUR_FIFTHS, SMALL, impact_tables
from fairneuron.markup import Html, table
from fairneuron.metrics.definitions import METRICS
from fairneuron.report.page import bullets, facts, note, paragraph, section
from fairneuron.report.parts import (
    MEANS,
    all_of,
    between,
    labels_of,
    limit_text,
    number,
    sizes,
    title_of,
)
from fairneuron.report.scope import scope_of

Values = dict[str, Any]
IMPACT_TITLE = "Impact ratios: a calculation, not an audit"
CARD_TITLE = "Model card"
NOT_STATED = "not stated"
NOTICE = (
    "Local Law 144 of New York City asks for a bias audit by an independent auditor. This is none: "
    "it calculates the ratios of that law's rules from the data of this report, and says nothing "
    "about whether a law is kept."
)
READING = (
    "Impact ratio: the selection rate of a group, divided by that of the most selected group; 95 % "
    f"intervals (Katz). Groups of less than {SMALL} % of the people are listed and left out of the "
    "ratios. Since the most selected group is found in the same data, the lowest ratio is below 1 "
    "for equal groups too.",
    f"Four-fifths rule (29 CFR 1607.4 D): below {FOUR_FIFTHS:g} is a reason to look closer, no "
    "finding; nor is “no” a proof of equal treatment. p: Fisher's exact test of equal rates "
    "in the group and in the most selected one, two-sided, not corrected for the number of groups. "
    "“1 person turns it”: had one person (or two) of the two groups been decided otherwise, the "
    "flag would be another one.",
)
SCORING = (
    "Scoring rate: the share of a group with a better score than the median of all people's scores."
)
_TERMS = {
    "intended_use": "Intended use",
    "model": "Model",
    "data": "Data",
    "groups": "Groups",
    "metrics": "Metrics",
    "repair": "What the repair did",
    "limits": "Limits",
}


class Grid(NamedTuple):
    """A table as texts, with what stands below it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    says: str


def impact_of(audits: Mapping[str, Values], data: Values) -> Values:
    """The impact ratios of audits of the same people.

    Args:
        audits: "before" and "after", or "measured", to what ``Audit.to_dict`` gives.
        data: Of the result: ``outcome`` is what ``y = 1`` is to a person, or None.

    Returns:
        As plain values; without groups there are no tables.
    """
    outcome = data.get("outcome")
    harmful = outcome == "harmful"
    return {
        "notice": NOTICE,
        "outcome": outcome,
        "selected": "not predicted y = 1" if harmful else "predicted y = 1",
        "four_fifths": FOUR_FIFTHS,
        "left_out_below_percent": SMALL,
        "tables": [
            {"model": model, **one}
            for model, audited in audits.items()
            if scope_of(audited).groups
            for one in impact_tables(audited, harmful=harmful)
        ],
    }


def selected_text(impact: Values) -> str:
    """Who counts as selected, and why."""
    if impact["outcome"] is None:
        return (
            "Selected: who is predicted y = 1. It was not stated whether that is the favourable "
            "outcome; if it is the harmful one, give --outcome harmful."
        )
    return f"Selected: who is {impact['selected']}, since y = 1 is the {impact['outcome']} outcome."


def impact_grids(impact: Values) -> Iterator[Grid]:
    """A table per sensitive column and for all together, the models side by side."""
    by: dict[tuple[str, ...], dict[str, Values]] = {}
    for one in impact["tables"]:
        by.setdefault(tuple(one["by"]), {})[one["model"]] = one
    for columns, models in by.items():
        first = next(iter(models.values()))
        unknown = f"; {first['unknown']:,} of unknown groups counted apart" * bool(first["unknown"])
        of = f"by {all_of(columns)}, n = {first['n']:,}{unknown}"
        selection = {model: one["selection"] for model, one in models.items()}
        yield Grid(
            f"Impact ratios {of}",
            ("group", "n", *_head(models, "selected (rate)", "impact ratio")),
            _rows(selection, (_rate, _ratio)),
            _lowest(selection),
        )
        if any(one["reference"] is not None for one in selection.values()):
            yield Grid(
                f"Four-fifths rule {of}",
                ("group", "n", *_head(models, "impact ratio below 0.8")),
                _rows(selection, (_flag,)),
                _below(selection),
            )
        if all(one["scoring"] for one in models.values()):
            scoring = {model: one["scoring"] for model, one in models.items()}
            yield Grid(
                f"Scoring rates {of}",
                ("group", "n", *_head(models, "better score (rate)", "impact ratio")),
                _rows(scoring, (_rate, _ratio)),
                _lowest(scoring),
            )


def impact_section(audits: Mapping[str, Values], data: Values) -> Html:
    """The impact ratios as a section of a page; see ``impact_of``."""
    impact = impact_of(audits, data)
    grids = list(impact_grids(impact))
    scored = any(one["scoring"] for one in impact["tables"])
    return section(
        IMPACT_TITLE,
        paragraph(NOTICE),
        paragraph(selected_text(impact)),
        *(part for g in grids for part in (table(g.caption, g.head, g.rows), note(g.says))),
        *(note(text) for text in (*READING, *([SCORING] if scored else []))),
    )


def _head(models: Mapping[str, Values], *names: str) -> Iterator[str]:
    for name in names:
        for model in models:
            yield name if model == "measured" else f"{name}, {model}"


def _rows(models: Mapping[str, Values], cells: Sequence[Any]) -> list[list[str]]:
    sides = list(models.values())
    return [
        [
            row["group"],
            f"{row['n']:,}",
            *(cell(side["groups"][g], side) for cell in cells for side in sides),
        ]
        for g, row in enumerate(sides[0]["groups"])
    ]


def _rate(row: Values, _: Values) -> str:
    return "" if row["rate"] is None else f"{row['selected']:,} ({row['rate']:.3f})"


def _ratio(row: Values, side: Values) -> str:
    if row["impact_ratio"] is None:
        return "undefined" if side["reference"] is None or not row["n"] else "left out"
    return between(row["impact_ratio"], row["impact_interval"])


def _flag(row: Values, side: Values) -> str:
    if row["below_four_fifths"] is None:
        return _ratio(row, side)
    if row["group"] == side["reference"]:
        return "most selected"
    p = "p < 0.001" if row["p_value"] < 0.001 else f"p = {row['p_value']:.3f}"
    turns = {None: "", 1: "; 1 person turns it", 2: "; 2 persons turn it"}[row["flips_with"]]
    return f"{'below' if row['below_four_fifths'] else 'no'}, {p}{turns}"


def _below(models: Mapping[str, Values]) -> str:
    """Which groups are below four fifths."""
    told = []
    for model, one in models.items():
        below = [row["group"] for row in one["groups"] if row["below_four_fifths"]]
        if one["reference"] is not None:
            told.append(f"Below four fifths{_when(model)}: {', '.join(below) or 'no group'}.")
    return " ".join(told)


def _lowest(models: Mapping[str, Values]) -> str:
    """The lowest ratios with their noise floors, and why ratios are missing."""
    told = []
    for model, one in models.items():
        if one["reference"] is None:
            reasons = dict.fromkeys(r["undefined"] for r in one["groups"] if r["undefined"])
            told.append(f"No ratios{_when(model)}: {'; '.join(reasons) or 'nobody is compared'}.")
    found = {k: one for k, one in models.items() if one["noise_floor"] is not None}
    if found:
        lowest = ", ".join(f"{number(one['lowest'])}{_when(k)}" for k, one in found.items())
        floors = ", ".join(dict.fromkeys(number(one["noise_floor"]) for one in found.values()))
        alike = f"a model that treats all groups alike would show {floors} on average"
        told.append(f"Lowest ratio: {lowest}; {alike}.")
    return " ".join(told)


def _when(model: str) -> str:
    return "" if model == "measured" else f" {model}"


def repair_card(result: Values) -> Values:
    """The model card of a repair; ``result`` is what ``Run.to_dict`` gives."""
    made, data = result["configuration"], result["data"]
    chosen, found = result["trials"][result["chosen"]], result["explanation"]
    limit = made["limit"]
    if chosen["number"] == 0:
        did = "No candidate was better on validation data: the model is as it was."
    else:
        settings = ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in chosen["settings"].items())
        did = (
            f"Recipe {made['recipe']}: candidate {chosen['number']} of "
            f"{len(result['trials']) - 1} ({settings}). {found['sentence']}"
        )
    return {
        "intended_use": made.get("intended_use") or NOT_STATED,
        "model": f"{_model(made)}; {_predicts(made['threshold'], result['before'])}.",
        "data": _data(data, result["before"]),
        "groups": _groups(result["before"], made.get("include_sensitive")),
        "metrics": "; ".join(
            f"{title_of(name)}, {limit_text(limit, name)} wanted: {MEANS[name]}" for name in limit
        )
        + ". Accuracy beside it.",
        "repair": f"{did} {result['verdicts']['test']['sentence']}",
        "limits": _limits(data, result["before"]),
    }


def audit_card(audited: Values) -> Values:
    """The model card of an audit, of what ``audit_page`` gets."""
    data = audited["data"]
    model = audited["model"]
    left_out = scope_of(audited).left_out()
    return {
        "intended_use": audited.get("intended_use") or NOT_STATED,
        "model": f"{model[0].upper()}{model[1:]}.",
        "data": _data(data, audited),
        "groups": _groups(audited, None),
        "metrics": ", ".join(METRICS[n].title for n in audited["metrics"] if n not in left_out)
        + ".",
        "limits": _limits(data, audited),
    }


def card_pairs(card: Values) -> list[tuple[str, str]]:
    """Terms of a model card with their texts."""
    return [
        (term, " ".join(card[key]) if isinstance(card[key], list) else card[key])
        for key, term in _TERMS.items()
        if key in card
    ]


def card_section(card: Values) -> Html:
    """A model card as a section of a page."""
    limits = card["limits"]
    pairs = [(term, text) for term, text in card_pairs(card) if term != _TERMS["limits"]]
    return section(CARD_TITLE, facts([*pairs, (_TERMS["limits"], bullets(limits))]))


def _model(made: Values) -> str:
    file = f", weights of {PurePath(made['weights']).name}" if made.get("weights") else ""
    if made.get("model"):
        return f"The network that {made['model']} makes{file}"
    if file:
        return f"A network that fairneuron trained{file}"
    return "A network that fairneuron trained for this report"


def _predicts(threshold: float, audited: Values) -> str:
    if scope_of(audited).several:
        return "the class of the highest probability is predicted"
    return f"y = 1 is predicted at a probability of {threshold:g}"


def _data(data: Values, audited: Values) -> str:
    term, means = labels_of(audited, data)
    part = "all rows" if data["part"] == "all" else f"{data['part']} part"
    return f"{data['name']}, {part}, n = {audited['n']:,}, {_inputs(data)}. {term}: {means}"


def _inputs(data: Values) -> str:
    if "shape" in data:
        return f"inputs of the shape {' × '.join(map(str, data['shape']))}"
    return f"{data['features']:,} inputs"


def _groups(audited: Values, read: bool | None) -> str:
    if not scope_of(audited).groups:
        return "None given."
    inputs = "" if read is None else f" They are {'' if read else 'not '}among the inputs."
    return f"By {all_of(audited['sensitive'])}: {sizes(audited['groups'])}{inputs}"


def _limits(data: Values, audited: Values) -> list[str]:
    groups = audited["groups"] if scope_of(audited).groups else []
    small = [g["group"] for g in groups if g["compared"] and 0 < g["n"] < 100]
    few = ", ".join(small[:12]) + (f" and {len(small) - 12} more" if len(small) > 12 else "")
    return [
        f"Measured once, on the {data['part']} part of these data; people elsewhere or later, and "
        "uses other than the intended one, are not covered.",
        "Only the groups above were compared; others may be treated worse."
        if groups
        else "No groups were compared; some may be treated worse.",
        *([f"Fewer than 100 people: {few}; their rates are uncertain."] if small else []),
        "Labels are taken as they are; whether they are just was not examined.",
    ]
