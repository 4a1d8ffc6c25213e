"""The candidates of a repair, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterator

from fairneuron.markup import Html, table
from fairneuron.metrics.definitions import METRICS
from fairneuron.report import figures
from fairneuron.report.page import figure, paragraph
from fairneuron.report.parts import Values, number

FRONT = "Front: those that no other one beats in both; the line joins them."
FRONT_OF_SUMS = (
    "Front: those that no other one beats in both accuracy and the sum of the limited gaps."
)


def candidates(result: Values) -> Iterator[Html]:
    """How the choice was made, a plot for each limited metric, and a table of all."""
    limit = result["configuration"]["limit"]
    tried = len(result["trials"]) - 1
    yield paragraph(
        f"{tried} candidate{'s were' if tried != 1 else ' was'} made. {choice(result)} Within the "
        "limit the most accurate one is chosen, else the one nearest to it; the gap that counts is "
        "the larger one of those on validation and on training data."
    )
    for name in limit:
        points = [
            p for trial in result["trials"] if (p := point_of(result, trial, name)) is not None
        ]
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
                f"{caption}. {FRONT if len(limit) == 1 else FRONT_OF_SUMS}",
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


def point_of(result: Values, trial: Values, name: str) -> figures.Point | None:
    """Where a candidate lies; None if it has no place, or was never to be chosen."""
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
        f"{named} ({settings_of(trial)})",
        trial["number"],
        trial["on_front"],
    )


def _candidate(result: Values, trial: Values) -> tuple[object, ...]:
    limit = result["configuration"]["limit"]
    metrics, training = trial["validation"] or {}, trial["training"] or {}
    chosen = trial["number"] == result["chosen"]
    return (
        f"{trial['number']}: {settings_of(trial)}",
        *(number(metrics.get(name)) for name in ("accuracy", *limit)),
        *(number(training.get(name)) for name in limit),
        "chosen" if chosen else "front" if trial["on_front"] else trial["rejected"] or "",
    )


def settings_of(trial: Values) -> str:
    """What was tried, in words."""
    each = (f"{name.replace('_', ' ')} {value:g}" for name, value in trial["settings"].items())
    return ", ".join(each) or "the original"


def choice(result: Values) -> str:
    """What was chosen, in a sentence."""
    trial = result["trials"][result["chosen"]]
    if trial["number"] == 0:
        return "The original model is kept; test data played no part in that."
    return (
        f"Candidate {trial['number']} of {len(result['trials']) - 1} ({settings_of(trial)}) was "
        "chosen by validation and training data; test data played no part in that."
    )
