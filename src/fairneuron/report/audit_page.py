"""The HTML report of an audit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fairneuron.markup import Html, el, table
from fairneuron.metrics.definitions import METRICS
from fairneuron.report.governance import audit_card, card_section, impact_section
from fairneuron.report.page import bullets, document, facts, note, paragraph, section, verbatim
from fairneuron.report.parts import (
    MEANS,
    RATES,
    REFERENCE,
    SAYS_RATE,
    Values,
    all_of,
    between,
    bounds_of,
    by_column,
    caveats,
    floor_of,
    gap_figures,
    groups_text,
    labels_of,
    limit_text,
    number,
    origin,
    rate_figure,
    reading,
    reference_accuracy,
    sentence_case,
    title_of,
    with_interval,
)
from fairneuron.report.scope import scope_of


def audit_page(audited: Values) -> bytes:
    """The page of an audit.

    Args:
        audited: What ``Audit.to_dict`` gives, with ``data`` (name, part, positive_means and where
            they are from), ``model`` (what was audited, in words), ``limits`` and whether they
            hold, ``command``, ``versions``.
    """
    data, gap = audited["data"], "dp" if audited["sensitive"] else "mcd"
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
                    ("Definition", f"{title_of(gap)}: {MEANS[gap]}."),
                    labels_of(audited, data),
                    ("Data", f"{data['name']}, {_part(data['part'])}, n = {audited['n']:,}."),
                    ("Groups", groups_text(audited)),
                    (
                        "Accuracy",
                        f"{with_interval(audited, 'accuracy')}; {REFERENCE}: "
                        f"{number(reference_accuracy(audited))}.",
                    ),
                    *(("Limit", f"{one['reason']}.") for one in audited["limits"] if one["reason"]),
                ]
            ),
        ],
        [
            section("What was measured", *_measured(audited)),
            *([impact_section({"measured": audited}, data)] if audited["sensitive"] else []),
            section("Read this with care", bullets(caveats([audited]))),
            card_section(audit_card(audited)),
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
    """What an audit found for demographic parity, without groups for classes, in one sentence."""
    gap = "dp" if audited["sensitive"] else "mcd"
    by, where = all_of(audited["sensitive"]), "" if name is None else f" on {name}"
    value, floor = audited["metrics"][gap], audited["noise_floor"].get(gap)
    if value is None:
        of = f"demographic parity difference between groups by {by}" if by else METRICS[gap].title
        return f"The {of} is undefined{where}."
    bounds = audited["intervals"][gap]
    inside = "" if bounds is None else f" (95 % interval {bounds[0]:.3f} to {bounds[1]:.3f})"
    noise = (
        ""
        if floor is None
        else f"; a model that treats all {'groups' if by else 'classes'} alike would show "
        f"{floor:.3f} on average on so few "
        f"samples{', so this is no finding' if value <= floor else ''}"
    )
    if not by:
        return (
            f"The accuracies of the classes differ by up to {value:.3f}{inside}{where} "
            f"(n = {audited['n']:,}){noise}."
        )
    return (
        f"The shares of people who are predicted y = 1 differ by up to {value:.3f}{inside} between "
        f"groups by {by}{where} (demographic parity difference, n = {audited['n']:,}){noise}."
    )


def _part(part: str) -> str:
    return "all rows" if part == "all" else f"{part} part"


def metric_table(audited: Values) -> Html:
    """The metrics of an audit with intervals and noise floors."""
    left_out = scope_of(audited).left_out([one["metric"] for one in audited.get("limits", ())])
    names = [n for n in METRICS if n in audited["metrics"] and n not in left_out]
    rows = [(title_of(n), with_interval(audited, n), floor_of(audited, n)) for n in names]
    rows.insert(1, (sentence_case(REFERENCE), number(reference_accuracy(audited)), ""))
    return table(f"Metrics, n = {audited['n']:,}", ("metric", "value", "noise floor"), rows)


def _measured(audited: Values) -> Iterator[Html]:
    yield metric_table(audited)
    yield note(reading(audited))
    one = {"measured": audited}
    yield from gap_figures(one, {held["metric"]: held["limit"] for held in audited["limits"]})
    if "classes" in audited:
        yield el("h3", "By class")
        yield table(
            "Accuracies of the classes, with 95 % intervals",
            ("class", "n", "accuracy"),
            [
                (c["class"], f"{c['n']:,}", between(c["accuracy"], c["interval"]))
                for c in audited["classes"]
            ],
        )
    if not audited["sensitive"]:
        return
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
