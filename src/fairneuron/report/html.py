"""HTML reports of repairs and audits, from the plain values of ``result.json`` and of audits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fairneuron.markup import Html, el, table
from fairneuron.metrics.definitions import METRICS
from fairneuron.report import figures
from fairneuron.report.markdown import SHOWN, command_of
from fairneuron.report.page import (
    bullets,
    document,
    facts,
    figure,
    note,
    paragraph,
    section,
    verbatim,
)
from fairneuron.report.parts import (
    MEANS,
    RATES,
    READING,
    SAYS_RATE,
    Values,
    all_of,
    base_of,
    between,
    bounds_of,
    by_column,
    caveats,
    floor_of,
    gap_figures,
    limit_text,
    number,
    origin,
    rate_figure,
    signed,
    sizes,
    title_of,
    with_interval,
)
from fairneuron.verdict import EQUALISED

_FRONT = "Front: those that no other one beats in both; the line joins them."
_FRONT_OF_SUMS = (
    "Front: those that no other one beats in both accuracy and the sum of the limited gaps."
)
_HEADLINES = {
    "improved": "The gap became reliably smaller and is within the limit",
    "limit not met": "The gap became reliably smaller, but is not within the limit",
    "no reliable improvement": "No reliable improvement was found",
}
_SEVERAL = _HEADLINES | {
    "improved": "At least one gap became reliably smaller, and all are within their limits",
    "limit not met": "At least one gap became reliably smaller, but not all are within their "
    "limits",
}


def repair_page(result: Values) -> bytes:
    """The page of a repair; ``result`` is what ``Run.to_dict`` gives."""
    test = result["verdicts"]["test"]
    return document(
        f"Repair of a model on {result['data']['name']}: {test['outcome']}",
        [
            el("p", lead(result), class_="lead"),
            *([el("p", price(result), class_="lead")] if price(result) else []),
            facts(_glance(result)),
        ],
        [
            section("Before and after", *_before_and_after(result)),
            section("Candidates and the choice", *_candidates(result)),
            section("What carries the gap", *_carriers(result["explanation"])),
            section("What else changed", *_changes(result)),
            section("Read this with care", bullets(_caveats(result))),
            section("How to reproduce", *_reproduce(result)),
        ],
    )


def lead(result: Values) -> str:
    """What was found, under which definition, on which data, in one sentence."""
    data, test = result["data"], result["verdicts"]["test"]
    limited = {name: c for name, c in test["changes"].items() if "limit" in c}
    headlines = _HEADLINES if len(limited) == 1 else _SEVERAL
    went = "; ".join(_went(name, change) for name, change in limited.items())
    kept = "; no candidate was better on validation data, so the original is kept"
    return (
        f"{headlines[test['outcome']]}: on test data of {data['name']} (n = {test['n']:,}, groups "
        f"by {all_of(data['sensitive'])}), {went}{kept if result['chosen'] == 0 else ''}."
    )


def price(result: Values) -> str:
    """What got reliably worse, in a sentence or two; empty if nothing did."""
    test = result["verdicts"]["test"]
    worse = [
        f"{METRICS[name].title} ({number(c['before'])} to {number(c['after'])})"
        for name in test["worse"]
        for c in [test["changes"][name]]
    ]
    rates = " and ".join(RATES[rate] for rate in test["levelled_down"])
    told = [f"Reliably worse: {', '.join(worse)}."] if worse else []
    if rates:
        told.append(f"Levelled down: {rates} fell, and reliably rose in no group.")
    return " ".join(told)


def _went(name: str, change: Values) -> str:
    metric = METRICS[name]
    if change["gain"] is None:
        return f"the {metric.title} is undefined before or after"
    moved = round(change["after"], 3) - round(change["before"], 3)
    went = (
        f"{'fell' if moved < 0 else 'rose'} from {change['before']:.3f} to {change['after']:.3f}"
        if moved
        else f"stayed at {change['after']:.3f}"
    )
    bounds = ""
    if change["interval"] is not None:
        low, high = change["interval"]
        low, high = (low, high) if metric.best else (-high, -low)
        bounds = f" (95 % interval of the change: {signed(low)} to {signed(high)})"
    sign = "at least" if metric.best else "at most"
    return f"the {metric.title} {went}{bounds}, where {sign} {change['limit']:g} was wanted"


def _glance(result: Values) -> Iterator[tuple[str, object]]:
    data, test = result["data"], result["verdicts"]["test"]
    for name in result["configuration"]["limit"]:
        yield "Definition", f"{title_of(name)}: {MEANS[name]}."
    yield "y = 1", f"{data['positive_means']}."
    yield "Groups", sizes(result["before"]["groups"])
    accuracy = test["changes"]["accuracy"]
    yield "Accuracy", f"{number(accuracy['before'])} before, {number(accuracy['after'])} after."
    yield "In full", test["sentence"]
    yield "Choice", _chosen(result)


def _chosen(result: Values) -> str:
    trial = result["trials"][result["chosen"]]
    if trial["number"] == 0:
        return "The original model is kept; test data played no part in that."
    return (
        f"Candidate {trial['number']} of {len(result['trials']) - 1} ({_settings(trial)}) was "
        "chosen by validation and training data; test data played no part in that."
    )


def _before_and_after(result: Values) -> Iterator[Html]:
    before, after = result["before"], result["after"]
    limit = result["configuration"]["limit"]
    rows = [
        (
            METRICS[name].title,
            *(with_interval(audited, name) for audited in (before, after)),
            floor_of(before, name),
            limit_text(limit, name),
        )
        for name in (*SHOWN, *(n for n in limit if n not in SHOWN))
    ]
    head = ("metric", "before", "after", "noise floor", "limit")
    yield table(f"Metrics on test data, n = {before['n']:,}", head, rows)
    yield note(READING)
    both = {"before": before, "after": after}
    yield from gap_figures(both, limit)
    yield el("h3", "By group")
    rates = list(dict.fromkeys(rate for name in limit for rate in EQUALISED[name]))
    changes = _changes_by(result)
    for rate in dict.fromkeys((*rates, *RATES)):
        yield _rate_table(before, after, rate, changes)
        if rate in rates:
            yield rate_figure(both, rate)
    yield from by_column(both)


def _rate_table(before: Values, after: Values, rate: str, changes: Mapping[Any, Values]) -> Html:
    rows = []
    for old, new in zip(before["groups"], after["groups"], strict=True):
        change = changes.get((old["group"], rate))
        rows.append(
            (
                old["group"],
                f"{base_of(old, rate):,}",
                *(between(row[rate], bounds_of(row, rate)) for row in (old, new)),
                "not compared" if change is None else _changed(change),
            )
        )
    caption = f"{RATES[rate].capitalize()}: {SAYS_RATE[rate]}"
    return table(caption, ("group", "n", "before", "after", "change"), rows)


def _changes_by(result: Values) -> dict[tuple[str, str], Values]:
    return {(c["group"], c["rate"]): c for c in result["verdicts"]["test"]["groups"]}


def _changed(change: Values) -> str:
    if change["before"] is None or change["after"] is None:
        return "undefined"
    moved = signed(change["after"] - change["before"])
    if change["interval"] is None:
        return moved
    low, high = change["interval"]
    reliable = ", reliable" if low > 0 or high < 0 else ""
    return f"{moved} ({signed(low)} to {signed(high)}){reliable}"


def _candidates(result: Values) -> Iterator[Html]:
    limit = result["configuration"]["limit"]
    tried = len(result["trials"]) - 1
    yield paragraph(
        f"{tried} candidate{'s were' if tried != 1 else ' was'} made. {_chosen(result)} Within the "
        "limit the most accurate one is chosen, else the one nearest to it; the gap that counts is "
        "the larger one of those on validation and on training data."
    )
    for name in limit:
        points = [p for trial in result["trials"] if (p := _point(result, trial, name)) is not None]
        if points:
            caption = f"Candidates: accuracy and {METRICS[name].title}"
            plane = figures.Plane(
                points,
                len(limit) == 1,
                limit[name],
                bool(METRICS[name].best),
                f"{METRICS[name].title}, the larger one of validation and training data"
                if METRICS[name].best == 0
                else f"{METRICS[name].title}, the lower one of validation and training data",
                "accuracy, validation data",
            )
            says = "; ".join(f"{p.name}: {p.y:.3f} at {p.x:.3f}" for p in points)
            yield figure(
                figures.candidate_plot(caption, f"{says}.", plane),
                f"{caption}. {_FRONT if len(limit) == 1 else _FRONT_OF_SUMS}",
            )
    yield table(
        "All candidates",
        (
            *("candidate", "validation accuracy"),
            *(f"validation {name}" for name in limit),
            *(f"training {name}" for name in limit),
            "note",
        ),
        [_candidate(result, trial) for trial in result["trials"]],
    )


def _point(result: Values, trial: Values, name: str) -> figures.Point | None:
    if trial["validation"] is None or trial["validation"][name] is None or trial["rejected"]:
        return None
    known = [trial["validation"][name], (trial["training"] or {}).get(name)]
    counts = max((v for v in known if v is not None), key=METRICS[name].shortfall)
    kind = (
        "chosen"
        if trial["number"] == result["chosen"]
        else "original"
        if trial["number"] == 0
        else "front"
        if trial["on_front"]
        else "other"
    )
    named = f"candidate {trial['number']}" if trial["number"] else "the original"
    return figures.Point(
        counts,
        trial["validation"]["accuracy"],
        kind,
        f"{named} ({_settings(trial)})",
        trial["number"],
        trial["on_front"],
    )


def _candidate(result: Values, trial: Values) -> tuple[object, ...]:
    limit = result["configuration"]["limit"]
    metrics, training = trial["validation"] or {}, trial["training"] or {}
    chosen = trial["number"] == result["chosen"]
    return (
        f"{trial['number']}: {_settings(trial)}",
        *(number(metrics.get(name)) for name in ("accuracy", *limit)),
        *(number(training.get(name)) for name in limit),
        "chosen" if chosen else "front" if trial["on_front"] else trial["rejected"] or "",
    )


def _settings(trial: Values) -> str:
    each = (f"{name.replace('_', ' ')} {value:g}" for name, value in trial["settings"].items())
    return ", ".join(each) or "the original"


def _carriers(found: Values) -> Iterator[Html]:
    yield paragraph(found["sentence"])
    yield from _neurons(found) if "neurons" in found else _paths(found)


def _neurons(found: Values) -> Iterator[Html]:
    by_layer: dict[str, list[int]] = {}
    for neuron in found["neurons"]:
        by_layer.setdefault(neuron["layer"], []).append(neuron["unit"])
    if "layers" in found:
        columns = [
            figures.Column(name, size, by_layer.get(name, ()))
            for name, size in found["layers"].items()
        ]
        where = ", ".join(f"{len(c.highlighted)} of {c.neurons} in layer {c.name}" for c in columns)
        title = "The network, and the neurons that the gap pulls most"
        yield figure(
            figures.network_plot(title, f"Highlighted neurons: {where}.", columns),
            "The hidden neurons, a dot each, by layer. Large dots with a name (layer.unit) are "
            f"those with the most leverage on the gap: {where}.",
        )
    same = found["retrained"] == len(found["neurons"])
    which = (
        "Only the incoming weights of these neurons are retrained."
        if same
        else f"In what was chosen the incoming weights of {found['retrained']} neurons were "
        "retrained; those shown have the most leverage."
    )
    yield note(
        f"{which} Held at its mean, a neuron says nothing of a person any more. Pull: norm of the "
        "gradient of the gap with respect to the incoming weights. Conflict: above 0, lowering "
        "the gap and lowering the loss pull the neuron in opposite directions. Active: on what "
        "share of the samples it is not 0."
    )
    rows = [
        (
            f"{n['layer']}.{n['unit']}",
            f"{n['pull']:.4f}",
            signed(n["conflict"], 2),
            f"{n['active']:.0%}",
        )
        for n in found["neurons"][:20]
    ]
    left = len(found["neurons"]) - len(rows)
    yield table(
        "Neurons with the most leverage on the gap", ("neuron", "pull", "conflict", "active"), rows
    )
    if left:
        yield note(f"{left} more stand in result.json.")


def _paths(found: Values) -> Iterator[Html]:
    if found.get("frequencies"):
        most = found["frequencies"][0][0]
        title = "How many samples share an activation path"
        says = (
            f"{found['paths']:,} paths of {found['samples']:,} samples; the most frequent one has "
            f"{most:,}; {found['alone']:,} have one sample alone."
        )
        rare = max(found["theta"] * most, 1)
        yield figure(
            figures.frequency_plot(title, says, found["frequencies"], rare),
            f"{title}; both axes are logarithmic. {says}",
        )
    rows = [
        (
            g["group"],
            f"{g['n']:,}",
            f"{g['biased']:,}",
            f"{g['benign']:,}",
            _share(g["biased"], g["n"]),
            _share(g["biased_positive"], g["biased"]),
            _share(g["benign_positive"], g["benign"]),
        )
        for g in found["makeup"]
    ]
    yield table(
        "Make-up of the two clusters, on training data",
        (
            *("group", "n", "biased samples", "benign samples", "share biased"),
            *("y = 1 among biased", "y = 1 among benign"),
        ),
        rows,
    )
    yield note(
        "Biased is the paper's word for a sample whose activation path is rare; it says nothing "
        "of the person."
    )


def _changes(result: Values) -> Iterator[Html]:
    test = result["verdicts"]["test"]
    yield table(
        f"Predictions that changed, on test data, n = {test['n']:,}",
        ("group", "n", "changed to y = 1", "changed away from y = 1", "unchanged"),
        [
            (
                flip["group"],
                f"{flip['n']:,}",
                _counted(flip["to_positive"], flip["n"]),
                _counted(flip["from_positive"], flip["n"]),
                f"{flip['n'] - flip['to_positive'] - flip['from_positive']:,}",
            )
            for flip in test["flips"]
        ],
    )
    worse = [(title_of(name), test["changes"][name]) for name in test["worse"]]
    told = [
        f"{title} got reliably worse: {number(c['before'])} to {number(c['after'])}."
        for title, c in worse
    ] or ["No metric without a limit got reliably worse."]
    changes = _changes_by(result)
    for key, says in (
        ("levelled_down", "Levelled down: the {} fell, and reliably rose in no group; fell in {}."),
        ("only_raised", "Only raised: the {} rose, and reliably fell in no group; rose in {}."),
    ):
        down = key == "levelled_down"
        for rate in test[key]:
            moved = [
                f"{c['group']} ({number(c['before'])} to {number(c['after'])})"
                for (_, of), c in changes.items()
                if of == rate
                and c["interval"]
                and (c["interval"][1] < 0 if down else c["interval"][0] > 0)
            ]
            told.append(says.format(RATES[rate], ", ".join(moved)))
        if not test[key]:
            told.append(
                "No levelling down: no gap shrank by falls alone."
                if down
                else "No gap shrank by rises alone."
            )
    lost = [f"{g} ({_changed(changes[g, 'accuracy'])})" for g in test["lost_accuracy"]]
    told.append(
        f"Accuracy reliably fell in {', '.join(lost)}."
        if lost
        else "Accuracy reliably fell in no group."
    )
    yield bullets(told)
    yield note("Whether a rise or a fall is a loss to a group depends on what y = 1 means.")


def _caveats(result: Values) -> list[str]:
    notes = [
        "The repair reduces a measured gap under the stated definition, on data like these. A "
        "smaller gap is no proof that people are treated as they should be."
    ]
    if result.get("stopped"):
        notes.append(f"Not all was tried: {result['stopped']}.")
    return notes + caveats([result["before"], result["after"]])


def _reproduce(result: Values) -> Iterator[Html]:
    yield paragraph("Run, where the files are as they were:")
    yield verbatim(command_of(result))
    yield from origin(result)


def audit_page(audited: Values) -> bytes:
    """The page of an audit.

    Args:
        audited: What ``Audit.to_dict`` gives, with ``data`` (name, part, positive_means and where
            they are from), ``model`` (what was audited, in words), ``limits`` and whether they
            hold, ``command``, ``versions``.
    """
    data = audited["data"]
    return document(
        f"Audit of {audited['model']} on {data['name']}",
        [
            el(
                "p",
                " ".join([audit_sentence(audited, data["name"]), *_held(audited["limits"])]),
                class_="lead",
            ),
            facts(
                [
                    ("Definition", f"{title_of('dp')}: {MEANS['dp']}."),
                    ("y = 1", f"{data['positive_means']}."),
                    ("Data", f"{data['name']}, {_part(data['part'])}, n = {audited['n']:,}."),
                    ("Groups", sizes(audited["groups"])),
                    ("Accuracy", f"{with_interval(audited, 'accuracy')}."),
                    *(("Limit", f"{one['reason']}.") for one in audited["limits"] if one["reason"]),
                ]
            ),
        ],
        [
            section("What was measured", *_measured(audited)),
            section("Read this with care", bullets(caveats([audited]))),
            section(
                "How to reproduce",
                paragraph("Run, where the files are as they were:"),
                verbatim(audited["command"]),
                *origin(audited),
            ),
        ],
    )


def _held(limits: Sequence[Values]) -> list[str]:
    """Whether limits hold, in a sentence each."""
    return [
        f"The limit for the {METRICS[one['metric']].title} ("
        f"{limit_text({one['metric']: one['limit']}, one['metric'])}) "
        + ("holds." if one["holds"] else "does not hold.")
        for one in limits
    ]


def audit_sentence(audited: Values, name: str | None = None) -> str:
    """What an audit found for demographic parity, in one sentence."""
    by, where = all_of(audited["sensitive"]), "" if name is None else f" on {name}"
    value, floor = audited["metrics"]["dp"], audited["noise_floor"].get("dp")
    if value is None:
        return f"The demographic parity difference between groups by {by} is undefined{where}."
    bounds = audited["intervals"]["dp"]
    inside = "" if bounds is None else f" (95 % interval {bounds[0]:.3f} to {bounds[1]:.3f})"
    noise = (
        ""
        if floor is None
        else f"; a model that treats all groups alike would show {floor:.3f} on average on so few "
        f"samples{', so this is no finding' if value <= floor else ''}"
    )
    return (
        f"The shares of people who are predicted y = 1 differ by up to {value:.3f}{inside} between "
        f"groups by {by}{where} (demographic parity difference, n = {audited['n']:,}){noise}."
    )


def _part(part: str) -> str:
    return "all rows" if part == "all" else f"{part} part"


def metric_table(audited: Values) -> Html:
    """The metrics of an audit with intervals and noise floors."""
    names = [name for name in METRICS if name in audited["metrics"]]
    rows = [(title_of(n), with_interval(audited, n), floor_of(audited, n)) for n in names]
    return table(f"Metrics, n = {audited['n']:,}", ("metric", "value", "noise floor"), rows)


def _measured(audited: Values) -> Iterator[Html]:
    yield metric_table(audited)
    yield note(READING)
    one = {"measured": audited}
    yield from gap_figures(one, {held["metric"]: held["limit"] for held in audited["limits"]})
    yield el("h3", "By group")
    yield table(
        "Rates of the groups, with 95 % intervals",
        ("group", "n", "y = 1", *RATES.values()),
        [
            (
                g["group"],
                f"{g['n']:,}",
                f"{g['positive']:,}",
                *(between(g[rate], bounds_of(g, rate)) for rate in RATES),
            )
            for g in audited["groups"]
        ],
    )
    yield bullets(f"{name.capitalize()}: {SAYS_RATE[rate]}." for rate, name in RATES.items())
    for rate in ("selection_rate", "tpr", "fpr"):
        yield rate_figure(one, rate)
    yield from by_column(one)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _counted(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else f"{part:,}"
