"""The HTML report of a repair, from the plain values of ``result.json``."""

from __future__ import annotations

from collections.abc import Iterator

from fairneuron.markup import Html, el, signed
from fairneuron.metrics.definitions import METRICS
from fairneuron.report.candidates import candidates, choice
from fairneuron.report.carriers import carriers
from fairneuron.report.changes import before_and_after, one_sided, what_else_changed
from fairneuron.report.command import command_of
from fairneuron.report.governance import card_section, impact_section, repair_card
from fairneuron.report.markdown import which_counts
from fairneuron.report.page import bullets, document, facts, paragraph, section, verbatim
from fairneuron.report.parts import (
    MEANS,
    RATES,
    REFERENCE,
    Values,
    all_of,
    caveats,
    groups_text,
    labels_of,
    number,
    origin,
    reference_accuracy,
    reference_text,
    title_of,
)
from fairneuron.report.scope import scope_of
from fairneuron.verdict import is_loss, one_sided_title

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
    outcome = result["verdicts"]["test"]["outcome"]
    cost = ", at a price" if outcome == "improved" and _costs(result) else ""
    return document(
        f"Repair of a model on {result['data']['name']}: {outcome}{cost}",
        [
            el("p", lead(result), class_="lead"),
            *([el("p", price(result), class_="lead")] if price(result) else []),
            facts(_glance(result)),
        ],
        [
            section("Before and after", *before_and_after(result)),
            section("Candidates and the choice", *candidates(result)),
            section(
                "What carries the gap", *carriers(result["explanation"], result.get("pathways"))
            ),
            section("What else changed", *what_else_changed(result)),
            *_impact(result),
            section("Read this with care", bullets(_caveats(result))),
            card_section(repair_card(result)),
            section("How to reproduce", *_reproduce(result)),
        ],
    )


def _impact(result: Values) -> Iterator[Html]:
    if scope_of(result["before"]).groups:
        yield impact_section({"before": result["before"], "after": result["after"]}, result["data"])


def lead(result: Values) -> str:
    """What was found, under which definition, on which data, in one sentence."""
    data, test = result["data"], result["verdicts"]["test"]
    limited = {name: c for name, c in test["changes"].items() if "limit" in c}
    headlines = _HEADLINES if len(limited) == 1 else _SEVERAL
    went = "; ".join(_went(name, change) for name, change in limited.items())
    kept = "; no candidate was better on validation data, so the original is kept"
    by = f", groups by {all_of(data['sensitive'])}" if data["sensitive"] else ""
    return (
        f"{headlines[test['outcome']]}: on test data of {data['name']} (n = {test['n']:,}{by}), "
        f"{went}{kept if result['chosen'] == 0 else ''}."
    )


def price(result: Values) -> str:
    """What got reliably worse or may be a loss, and whether accuracy is that of a constant."""
    test = result["verdicts"]["test"]
    worse = [
        f"{METRICS[name].title} ({number(c['before'])} to {number(c['after'])})"
        for name in test["worse"]
        for c in [test["changes"][name]]
    ]
    told = [f"Reliably worse: {', '.join(worse)}."] if worse else []
    means = result["data"].get("outcome")
    for down, (moved, against) in ((True, ("fell", "rose")), (False, ("rose", "fell"))):
        rates = " and ".join(RATES[rate] for rate in one_sided(result, down=down))
        if rates and is_loss(down=down, positive_outcome=means) is not False:
            title = one_sided_title(down=down, positive_outcome=means)
            told.append(f"{title}: {rates} {moved}, and reliably {against} in no group.")
    told += filter(None, [reference_text(result["after"])])
    return " ".join(told)


def _costs(result: Values) -> bool:
    """Whether something surely got worse for people."""
    means = result["data"].get("outcome")
    lost = (
        one_sided(result, down=down) and is_loss(down=down, positive_outcome=means)
        for down in (True, False)
    )
    return bool(result["verdicts"]["test"]["worse"]) or any(lost)


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
    yield labels_of(result["before"], data)
    yield "Groups", groups_text(result["before"])
    accuracy = test["changes"]["accuracy"]
    yield (
        "Accuracy",
        f"{number(accuracy['before'])} before, {number(accuracy['after'])} after; "
        f"{REFERENCE}: {number(reference_accuracy(result['before']))}.",
    )
    yield "In full", test["sentence"]
    if which_counts(result):
        yield "Validation data", which_counts(result)
    yield "Choice", choice(result)


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
