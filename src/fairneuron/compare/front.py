"""The page on which the methods of a comparison can be shown, hidden and looked at one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fairneuron.compare.html import overview, sentence
from fairneuron.compare.words import Figures, count, label, number, ordered, verdict
from fairneuron.markup import el
from fairneuron.metrics.definitions import METRICS
from fairneuron.report.figures import Board, Line, Look, Spot, look_of
from fairneuron.report.interactive import View, interactive_page
from fairneuron.report.page import paragraph
from fairneuron.report.parts import between, title_of

_BASE = "naive"  # the method that is the base model
_SHOWN = 8  # methods at first, where there are more
_NEAR = 1.5  # how far off the base model may be to be drawn
_BASE_LOOK = Look("star", "s4", hollow=True)


def comparison_front(result: Figures) -> bytes:
    """The page; ``result`` is what ``Comparison.to_dict`` gives."""
    names = dict.fromkeys(name for one in result["criteria"] for name, _ in ordered(one))
    looks = {name: look_of(i) for i, name in enumerate(n for n in names if n != _BASE)}
    return interactive_page(
        f"Methods compared on {result['setup']['data']}",
        [
            *(el("p", sentence(figures, result), class_="lead") for figures in result["criteria"]),
            paragraph(
                "All marks are means over seeds of figures on test data, of what was chosen for "
                "each ε by validation data alone; those of validation data stand beside them. Who "
                "picks a method by the test figures needs other data to say what it is worth."
            ),
        ],
        [view for one in result["criteria"] if (view := _view(one, looks)) is not None],
    )


def _view(figures: Figures, looks: Mapping[str, Look]) -> View | None:
    """None where nothing can be shown."""
    criterion, base = figures["criterion"], figures["base"]
    methods = [(name, one) for name, one in ordered(figures) if name != _BASE]
    series = [(label(name, one), looks[name]) for name, one in methods]
    marks = [
        (_spot(figures, own, series[i], i), _facts(figures, name, own))
        for i, (name, _) in enumerate(methods)
        for own in _distinct(figures, name)
    ]
    if not marks:
        return None
    far = max(*(spot.x for spot, _ in marks), *(at["epsilon"] for at in figures["at"]))
    words = "A mark per ε, joined for each method; better is up and to the left."
    if base["gap"]["mean"] <= _NEAR * far:
        marks.append((_base_spot(figures, len(series)), _base_facts(figures)))
        series.append(("base model", _BASE_LOOK))
    else:
        words += (
            f" The base model is further off: accuracy {number(base['accuracy']['mean'])} at "
            f"{number(base['gap']['mean'])}."
        )
    spots = [spot for spot, _ in marks]
    return View(
        title=f"Accuracy and {METRICS[criterion].title}",
        board=Board(
            spots=spots,
            lines=[*_lines(figures)],
            joined=[
                (i, look.colour, [(s.x, s.y) for s in spots if s.series == i])
                for i, (_, look) in enumerate(series)
            ],
            x=f"{criterion}, test data",
            y="accuracy, test data",
            hidden=frozenset(range(_SHOWN, len(methods))),
        ),
        series=series,
        facts=[facts for _, facts in marks],
        words=[
            paragraph(
                f"{title_of(criterion)}. {words} Hollow: most seeds have no configuration within ε "
                "on validation data."
            )
        ],
        table=overview(figures),
    )


def _distinct(figures: Figures, name: str) -> list[list[Figures]]:
    """A method's figures at each ε; those of several ε that are one place come together."""
    places: dict[tuple[float, float], list[Figures]] = {}
    for at in figures["at"]:
        one = at["methods"][name]
        if one["gap"]["mean"] is not None:
            here = places.setdefault((one["gap"]["mean"], one["accuracy"]["mean"]), [])
            here.append({**one, "epsilon": at["epsilon"]})
    return list(places.values())


def _spot(figures: Figures, own: Sequence[Figures], named: tuple[str, Look], series: int) -> Spot:
    first, (title, look) = own[0], named
    wanted = ", ".join(f"{one['epsilon']:g}" for one in own)
    beyond = all((one["flagged"] or 0) > 0.5 for one in own)
    return Spot(
        first["gap"]["mean"],
        first["accuracy"]["mean"],
        look._replace(hollow=beyond),
        series,
        f"{title}, {figures['criterion']} ≤ {wanted}",
        first["gap"]["interval"],
        first["accuracy"]["interval"],
    )


def _facts(figures: Figures, name: str, own: Sequence[Figures]) -> list[tuple[str, str]]:
    first, criterion, seeds = own[0], figures["criterion"], figures["methods"][name]["seeds"]
    told = [
        ("accuracy, test data", _mean(first["accuracy"])),
        (f"{criterion}, test data", _mean(first["gap"])),
        ("accuracy, validation data", number(first["validation"]["accuracy"])),
        (f"{criterion}, validation data", number(first["validation"]["gap"])),
        ("seeds", count(first, seeds)),
        (
            "reads the sensitive attribute",
            "yes" if figures["methods"][name]["needs_sensitive"] else "no",
        ),
    ]
    for one in own:
        if one["flagged"]:
            told.append((f"beyond ε = {one['epsilon']:g}", f"{one['flagged']:.0%} of the seeds"))
    reference = figures["reference"]
    for key, says in (
        ("is_worse", f"worse than {reference}"),
        ("reference_is_worse", f"{reference} is worse"),
    ):
        said = list(dict.fromkeys(verdict(one.get(key), p="p ") for one in own))
        if said != [""]:
            told.append((says, "; ".join(said)))
    return told


def _base_spot(figures: Figures, series: int) -> Spot:
    base = figures["base"]
    return Spot(
        base["gap"]["mean"],
        base["accuracy"]["mean"],
        _BASE_LOOK,
        series,
        "base model",
        base["gap"]["interval"],
        base["accuracy"]["interval"],
    )


def _base_facts(figures: Figures) -> list[tuple[str, str]]:
    base = figures["base"]
    return [
        ("accuracy, test data", _mean(base["accuracy"])),
        (f"{figures['criterion']}, test data", _mean(base["gap"])),
        ("noise floor", number(base["noise_floor"])),
        ("always the larger class", f"accuracy {number(base['majority'])}"),
    ]


def _lines(figures: Figures) -> Iterator[Line]:
    for at in figures["at"]:
        yield Line(at["epsilon"], "limit", f"ε = {at['epsilon']:g}")
    floor = figures["base"]["noise_floor"]
    if floor is not None:
        yield Line(floor, "floor", "noise floor")


def _mean(found: Figures) -> str:
    """A mean over seeds with its interval."""
    return between(found["mean"], found["interval"])
