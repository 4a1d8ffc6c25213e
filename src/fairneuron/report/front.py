"""The page on which the candidates of a repair can be looked at one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fairneuron.markup import Html, el, signed, table
from fairneuron.metrics.definitions import METRICS, wilson
from fairneuron.report.candidates import FRONT, FRONT_OF_SUMS, choice, point_of, settings_of
from fairneuron.report.figures import Board, Line, Look, Point, Spot
from fairneuron.report.interactive import View, interactive_page
from fairneuron.report.page import note, paragraph
from fairneuron.report.parts import (
    Values,
    between,
    limit_text,
    number,
    title_of,
    with_interval,
)

FILE = "front.html"
_SERIES = (
    ("chosen", Look("star", "s0")),
    ("original", Look("square", "s1", hollow=True)),
    ("front", Look("circle", "s4")),
    ("other candidates", Look("circle", "s4", hollow=True)),
    ("test data (no part in the choice)", Look("diamond", "s3")),
)
_TEST = 4
_KINDS = {"chosen": 0, "original": 1, "front": 2, "other": 3}


def front_page(result: Values, proofs: Mapping[str, Any]) -> bytes:
    """The page.

    Args:
        result: What ``Run.to_dict`` gives.
        proofs: By number, what the candidates came to that can be chosen; as in ``front.json``.
    """
    limit = result["configuration"]["limit"]
    views = [view for name in limit if (view := _view(result, proofs, name)) is not None]
    return interactive_page(
        f"Candidates of a repair on {result['data']['name']}",
        [
            el("p", choice(result), class_="lead"),
            paragraph(
                "Choose by validation data. Test figures are there to report what was chosen: who "
                "picks a candidate by them needs other data to say what it is worth."
            ),
        ],
        views,
    )


def _view(result: Values, proofs: Mapping[str, Any], name: str) -> View | None:
    trials, limit = result["trials"], result["configuration"]["limit"]
    points = [(t, p) for t in trials if (p := point_of(result, t, name)) is not None]
    if not points:
        return None
    on_top = ("other", "front", "original", "chosen")  # where they lie on each other
    points.sort(key=lambda pair: (pair[1].x, on_top.index(pair[1].kind)))
    proved = [(t, proofs[str(t["number"])]) for t, _ in points if str(t["number"]) in proofs]
    tested = [(t, one) for t, one in proved if one["after"]["metrics"][name] is not None]
    tested.sort(key=lambda pair: pair[1]["after"]["metrics"][name])
    metric = METRICS[name]
    counts = "lower" if metric.best else "larger"
    return View(
        title=f"Accuracy and {metric.title}",
        board=Board(
            spots=[
                *(_spot(result, t, point) for t, point in points),
                *(_test_spot(result, t, one, name) for t, one in tested),
            ],
            lines=[*_lines(result, proofs, name)],
            joined=[(_KINDS["front"], "s4", [(p.x, p.y) for _, p in points if p.on_front])]
            if len(limit) == 1
            else [],
            x=f"{name}: the {counts} one of validation and training data",
            y="accuracy",
            from_zero=not metric.best,
            hidden=frozenset({_TEST}),
        ),
        series=_SERIES,
        facts=[
            *(_facts(result, t, proofs.get(str(t["number"])), name) for t, _ in points),
            *(_test_facts(t, one, name) for t, one in tested),
        ],
        words=[
            paragraph(
                f"{title_of(name)}, {limit_text(limit, name)}. The gap that counts is the "
                f"{counts} one of those on validation and on training data; accuracy is that on "
                "validation data. Test data have their own marks, which are hidden at first."
            ),
            note(FRONT if len(limit) == 1 else FRONT_OF_SUMS),
        ],
        table=_table(result, proofs, name),
    )


def _spot(result: Values, trial: Values, point: Point) -> Spot:
    series = _KINDS[point.kind]
    return Spot(
        point.x,
        point.y,
        _SERIES[series][1],
        series,
        _named(trial),
        y_interval=_accuracy_bounds(result, trial),
    )


def _accuracy_bounds(result: Values, trial: Values) -> list[float]:
    """Wilson's interval of the validation accuracy, 95 %."""
    n = result["verdicts"]["validation"]["n"]
    right = np.array(round(trial["validation"]["accuracy"] * n))
    return [float(bound) for bound in wilson(right, np.array(n))]


def _test_spot(result: Values, trial: Values, proof: Values, name: str) -> Spot:
    after = proof["after"]
    chosen = trial["number"] == result["chosen"]
    return Spot(
        after["metrics"][name],
        after["metrics"]["accuracy"],
        Look("diamond", "s3", hollow=not chosen),
        _TEST,
        f"{_named(trial)}, on test data",
        after["intervals"][name],
        after["intervals"]["accuracy"],
    )


def _lines(result: Values, proofs: Mapping[str, Any], name: str) -> Iterator[Line]:
    limit = result["configuration"]["limit"]
    sign = "≥" if METRICS[name].best else "≤"
    yield Line(limit[name], "limit", f"limit {sign} {limit[name]:g}")
    original = proofs.get("0")
    if original is not None:
        floor = original["validation"]["changes"][name]["noise_floor"]
        if floor is not None:
            yield Line(floor, "floor", "noise floor, validation data")
    floor = result["before"]["noise_floor"].get(name)
    if floor is not None:
        yield Line(floor, f"floor {_SERIES[_TEST][1].colour}", "noise floor, test data", _TEST)


def _named(trial: Values) -> str:
    return f"Candidate {trial['number']}" if trial["number"] else "The original"


def _facts(result: Values, trial: Values, proof: Values | None, name: str) -> list[tuple[str, str]]:
    """What is told of a candidate: settings and validation data, nothing of test data."""
    training = trial["training"] or {}
    told = [
        ("settings", settings_of(trial)),
        (
            "accuracy, validation data",
            between(trial["validation"]["accuracy"], _accuracy_bounds(result, trial)),
        ),
        (f"{name}, validation data", number(trial["validation"][name])),
        (f"{name}, training data", number(training.get(name))),
    ]
    if proof is not None and trial["number"]:
        change = proof["validation"]["changes"][name]
        if change["interval"] is not None:
            low, high = change["interval"]
            told.append(
                (
                    f"gain in {name}, validation data",
                    f"{signed(change['gain'])} ({signed(low)} to {signed(high)})",
                )
            )
    if trial["number"] == result["chosen"]:
        told.append(("choice", "this one is chosen"))
    return told


def _test_facts(trial: Values, proof: Values, name: str) -> list[tuple[str, str]]:
    after = proof["after"]
    return [
        ("settings", settings_of(trial)),
        ("accuracy, test data", with_interval(after, "accuracy")),
        (f"{name}, test data", with_interval(after, name)),
        ("noise floor, test data", number(after["noise_floor"].get(name))),
        ("verdict on test data", str(proof["test"]["outcome"])),
    ]


def _table(result: Values, proofs: Mapping[str, Any], name: str) -> Html:
    rows = []
    for trial in result["trials"]:
        valid, training = trial["validation"] or {}, trial["training"] or {}
        proof = proofs.get(str(trial["number"]))
        tested = (
            ("", "")
            if proof is None
            else tuple(
                between(proof["after"]["metrics"][n], proof["after"]["intervals"].get(n))
                for n in ("accuracy", name)
            )
        )
        chosen = trial["number"] == result["chosen"]
        rows.append(
            (
                f"{trial['number']}: {settings_of(trial)}",
                number(valid.get("accuracy")),
                number(valid.get(name)),
                number(training.get(name)),
                *tested,
                "chosen" if chosen else "front" if trial["on_front"] else trial["rejected"] or "",
            )
        )
    return table(
        f"Candidates: accuracy and {METRICS[name].title}; test figures, with 95 % intervals, of "
        "those that some limit could choose",
        (
            *("candidate", "validation accuracy", f"validation {name}", f"training {name}"),
            *("test accuracy", f"test {name}", "note"),
        ),
        rows,
    )
