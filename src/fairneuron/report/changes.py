"""What a repair changed: metrics, rates and predictions before and after, on test data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fairneuron.markup import Html, el, table
from fairneuron.metrics.definitions import METRICS
from fairneuron.report.markdown import shown_metrics
from fairneuron.report.page import bullets, note
from fairneuron.report.parts import (
    RATES,
    REFERENCE,
    SAYS_RATE,
    Values,
    base_of,
    between,
    bounds_of,
    by_column,
    changed,
    class_figure,
    each_class,
    floor_of,
    gap_figures,
    limit_text,
    loss_text,
    number,
    rate_figure,
    reading,
    reference_accuracy,
    title_of,
    with_interval,
)
from fairneuron.report.scope import scope_of
from fairneuron.verdict import EQUALISED, one_sided_title


def before_and_after(result: Values) -> Iterator[Html]:
    """Metrics and rates of the groups, with intervals and noise floors."""
    before, after = result["before"], result["after"]
    limit = result["configuration"]["limit"]
    rows = [
        (
            METRICS[name].title,
            *(with_interval(audited, name) for audited in (before, after)),
            floor_of(before, name),
            limit_text(limit, name),
        )
        for name in shown_metrics(result)
    ]
    reference = number(reference_accuracy(before))
    rows.insert(1, (REFERENCE, reference, reference, "", ""))  # beside accuracy
    head = ("metric", "before", "after", "noise floor", "limit")
    yield table(f"Metrics on test data, n = {before['n']:,}", head, rows)
    yield note(reading(before))
    both, scope = {"before": before, "after": after}, scope_of(before)
    if scope.groups:
        yield from gap_figures(both, limit)
    if scope.classes:
        yield el("h3", "By class")
        yield class_figure(both)
        yield table(
            "Accuracy: share of the samples of a class that are predicted right",
            ("class", "n", "before", "after", "change"),
            [
                (
                    old["class"],
                    f"{old['n']:,}",
                    *(between(one["accuracy"], one["interval"]) for one in (old, new)),
                    "" if change is None else changed(change),
                )
                for old, new, change in each_class(result)
            ],
        )
    if not scope.groups:
        return
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
                "not compared" if change is None else changed(change),
            )
        )
    caption = f"{RATES[rate].capitalize()}: {SAYS_RATE[rate]}"
    return table(caption, ("group", "n", "before", "after", "change"), rows)


def _changes_by(result: Values) -> dict[tuple[str, str], Values]:
    return {(c["group"], c["rate"]): c for c in result["verdicts"]["test"]["groups"]}


def what_else_changed(result: Values) -> Iterator[Html]:
    """Flips, what got worse, levelling down, and groups and classes that lost accuracy."""
    test, scope = result["verdicts"]["test"], scope_of(result["before"])
    if scope.groups or not scope.several:
        yield _flips(test)
    worse = [(title_of(name), test["changes"][name]) for name in test["worse"]]
    told = [
        f"{title} got reliably worse: {number(c['before'])} to {number(c['after'])}."
        for title, c in worse
    ] or ["No metric without a limit got reliably worse."]
    if scope.groups:
        told += _of_groups(result)
    if scope.classes:
        lost = [
            f"class {c['class']} ({changed(c)})"
            for c in test.get("classes", ())
            if c["interval"] and c["interval"][1] < 0
        ]
        told.append(_lost("class", lost))
    yield bullets(told)
    if scope.groups:
        yield note(loss_text(result["data"].get("outcome")))


def _flips(test: Values) -> Html:
    return table(
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


def _of_groups(result: Values) -> Iterator[str]:
    """One-sided changes of rates, and groups that lost accuracy, in sentences."""
    changes = _changes_by(result)
    for down, (moved, against) in ((True, ("fell", "rose")), (False, ("rose", "fell"))):
        rates = one_sided(result, down=down)
        title = one_sided_title(down=down, positive_outcome=result["data"].get("outcome"))
        for rate in rates:
            groups = [
                f"{c['group']} ({number(c['before'])} to {number(c['after'])})"
                for (_, of), c in changes.items()
                if of == rate
                and c["interval"]
                and (c["interval"][1] < 0 if down else c["interval"][0] > 0)
            ]
            yield (
                f"{title}: the {RATES[rate]} {moved}, and reliably {against} in no group; {moved} "
                f"in {', '.join(groups)}."
            )
        if not rates:
            yield f"No limited gap shrank by {'falls' if down else 'rises'} alone."
    lost = result["verdicts"]["test"]["lost_accuracy"]
    yield _lost("group", [f"{g} ({changed(changes[g, 'accuracy'])})" for g in lost])


def _lost(kind: str, names: list[str]) -> str:
    return f"Accuracy reliably fell in {', '.join(names) or f'no {kind}'}."


def one_sided(result: Values, *, down: bool) -> list[str]:
    """The rates whose gap on test data shrank by falls alone, or by rises alone."""
    rates: list[str] = result["verdicts"]["test"]["levelled_down" if down else "only_raised"]
    return rates


def _counted(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else f"{part:,}"
