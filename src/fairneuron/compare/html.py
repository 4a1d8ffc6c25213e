"""The page of a comparison as HTML, from the plain values of ``comparison.json`` alone.

Times are left out, so that a comparison that was stopped and gone on with gives the same page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fairneuron.compare.words import Figures, label, mean_sd, number, ordered, pair, verdict
from fairneuron.markup import Html, el, joined, table
from fairneuron.metrics.definitions import METRICS
from fairneuron.report.figures import Cross, Panel
from fairneuron.report.page import (
    bullets,
    document,
    facts,
    note,
    panels,
    paragraph,
    section,
)
from fairneuron.report.parts import MEANS, title_of

_SHOWN = 0.05  # the ε of the sentence at the top
_REACH = 2.0  # how far the panels go, as multiples of the reference's


def comparison_page(result: Figures) -> bytes:
    """The page; ``result`` is what ``Comparison.to_dict`` gives."""
    setup = result["setup"]
    return document(
        f"Comparison of methods on {setup['data']}",
        [
            *(el("p", sentence(figures, result), class_="lead") for figures in result["criteria"]),
            facts(_glance(result)),
        ],
        [
            *(
                section(title_of(figures["criterion"]), *_criterion(figures))
                for figures in result["criteria"]
            ),
            section("Read this with care", bullets(_caveats(result))),
            section("How to reproduce", *_reproduce(result)),
        ],
    )


def sentence(figures: Figures, result: Figures) -> str:
    """What was found under one criterion, in one sentence."""
    at = min(figures["at"], key=lambda each: abs(each["epsilon"] - _SHOWN))
    name, base, seeds = figures["reference"], figures["base"], len(result["seeds"])
    metric = METRICS[figures["criterion"]].title
    start = (
        f"With {_a(metric)} of at most {at['epsilon']:g} wanted (chosen on validation data, "
        f"measured on test data of {result['setup']['data']}, {_seeds(seeds)})"
    )
    if name not in at["methods"] or at["methods"][name]["gap"]["mean"] is None:
        return f"{start}, {name} came to nothing that can be measured."
    own = at["methods"][name]
    found = (
        f"{start}, {name} came to an accuracy of {number(own['accuracy']['mean'])} at a gap of "
        f"{number(own['gap']['mean'])}, from {number(base['accuracy']['mean'])} at "
        f"{number(base['gap']['mean'])}"
    )
    if own["gap"]["mean"] > at["epsilon"]:
        found += ", which is beyond what was wanted"
    peers = [n for n in at["methods"] if n != name and not figures["methods"][n]["needs_sensitive"]]
    ours = [at["methods"][n]["reference_is_worse"]["verdict"] for n in peers]
    worse = [at["methods"][n]["is_worse"]["verdict"] for n in peers].count("worse")
    if not peers or "too few seeds" in ours:
        return f"{found}; {'seeds are too few for tests' if peers else 'nothing is beside it'}."
    return (
        f"{found}; by the tests it is worse than {ours.count('worse')} of the {len(peers)} other "
        f"methods that do not read the sensitive attribute to predict, and {worse} of them "
        f"{'is' if worse == 1 else 'are'} worse than it."
    )


def _glance(result: Figures) -> Iterator[tuple[str, object]]:
    setup = result["setup"]
    for figures in result["criteria"]:
        name = figures["criterion"]
        yield "Definition", f"{title_of(name)} ({name}): {MEANS[name]}."
    at = f"it is predicted at a probability of {setup['threshold']:g} or more"
    yield "y = 1", f"The label is {setup['positive']}; {at}."
    yield "Groups", f"{', '.join(setup['groups'])} of {', '.join(setup['sensitive'])}."
    inputs = ", ".join(setup["sensitive_inputs"]) or "none"
    yield "Inputs", f"{setup['features']} features; sensitive columns among them: {inputs}."
    parts = " / ".join(f"{n:,}" for n in setup["rows"])
    yield "Rows", f"{parts} for training, validation and test."
    fixed = setup["fixed_split"] or setup["model"].startswith("given ")
    each = "" if fixed else "; each is another split and base model"
    yield "Seeds", f"{_seeds(len(result['seeds']))}{each}."


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _seeds(n: int) -> str:
    return f"{n} seed{'s' if n != 1 else ''}"


def _criterion(figures: Figures) -> Iterator[Html]:
    base, criterion = figures["base"], figures["criterion"]
    yield paragraph(
        f"Base model: accuracy {mean_sd(base['accuracy'])}, {criterion} {mean_sd(base['gap'])}; "
        f"noise floor {number(base['noise_floor'])}; always the larger class: accuracy "
        f"{number(base['majority'])}."
    )
    yield overview(figures)
    crosses = {name: _crosses(figures, name) for name in figures["methods"]}
    shared = _shared(figures, crosses)
    if shared is not None:
        yield panels(_panels(figures, crosses, shared))
        yield note(_reading(figures, shared))
    for at in figures["at"]:
        yield el("h3", f"{criterion} ≤ {at['epsilon']:g}")
        yield _detail(figures, at)


def overview(figures: Figures) -> Html:
    """All methods of a criterion in one table: accuracy / gap at each ε, hypervolume, rank."""
    head = ("method", *(f"{figures['criterion']} ≤ {at['epsilon']:g}" for at in figures["at"]))
    rows = [
        (
            label(name, one),
            *(pair(at["methods"][name], one["seeds"]) for at in figures["at"]),
            number(one["hypervolume"]["mean"], scale=1000, digits=2),
            number(one["rank"], digits=1) if one["rank"] is not None else "",
        )
        for name, one in ordered(figures)
    ]
    aware = any(one["needs_sensitive"] for one in figures["methods"].values())
    mark = "; (sensitive): reads the sensitive attribute to predict" if aware else ""
    caption = f"Accuracy / {figures['criterion']} on test data, means over seeds{mark}"
    return table(caption, (*head, "hypervolume", "rank"), rows)


def _detail(figures: Figures, at: Figures) -> Html:
    reference = figures["reference"]
    rows = []
    for name, one in ordered(figures):
        here = at["methods"][name]
        rows.append(
            (
                label(name, one),
                str(here["gap"]["n"]),
                _full(here["accuracy"]),
                _full(here["gap"]),
                "" if here["flagged"] is None else f"{here['flagged']:.0%}",
                verdict(here.get("is_worse")),
                verdict(here.get("reference_is_worse")),
            )
        )
    return table(
        f"Test figures of what was chosen for {figures['criterion']} ≤ {at['epsilon']:g} on "
        "validation data: mean ± standard deviation (95 % interval of the mean)",
        (
            *("method", "seeds", "accuracy", "gap", "beyond ε"),
            *(f"worse than {reference}", f"{reference} is worse"),
        ),
        rows,
    )


def _reading(figures: Figures, shared: Panel) -> str:
    base = figures["base"]
    inside = shared.base is not None and shared.base[0] <= shared.x[1]
    return (
        "Test accuracy against test gap of each method, a dot per ε, bars: 95 % intervals of the "
        "mean over seeds; better is up and to the left. Hollow: most seeds have no configuration "
        f"within ε on validation data. Line: {figures['reference']}. Dotted: noise floor. "
        + (
            "Square: the base model."
            if inside
            else f"The base model is further off: {number(base['accuracy']['mean'])} at "
            f"{number(base['gap']['mean'])}."
        )
    )


def _shared(figures: Figures, crosses: Mapping[str, Sequence[Cross]]) -> Panel | None:
    """The part of the plane that all panels show; None where nothing can be shown.

    That is: where the reference is; what is far off is said in words.
    """
    own = crosses.get(figures["reference"]) or [p for each in crosses.values() for p in each]
    base = figures["base"]
    if not own or base["gap"]["mean"] is None:
        return None
    star = base["gap"]["mean"], base["accuracy"]["mean"]
    wide = max(*(_REACH * p.x for p in own), 0.01)
    low = star[1] - _REACH * max(star[1] - min(p.y for p in own), 0.005)
    near = [p for each in crosses.values() for p in each if p.x <= wide and p.y >= low]
    bottom, top = min(p.y for p in near), max(star[1], *(p.y for p in near))
    right = max(p.x for p in near) * 1.05
    return Panel(
        (0.0, max(right, star[0]) if star[0] <= wide else right),
        (bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom)),
        star,
        own if figures["reference"] in crosses else [],
        base["noise_floor"],
    )


def _panels(
    figures: Figures, crosses: Mapping[str, Sequence[Cross]], shared: Panel
) -> Iterator[tuple[str, Html]]:
    """A panel per method."""
    for name, one in ordered(figures):
        if name == "naive":  # it is the base model
            continue
        said = [
            f"{figures['criterion']} ≤ {at['epsilon']:g}: {pair(at['methods'][name], 0)}"
            for at in figures["at"]
        ]
        title = f"{name}: accuracy against {METRICS[figures['criterion']].title}"
        drawn = shared.draw(title, f"Accuracy / gap. {'; '.join(said)}.", crosses[name])
        yield label(name, one), drawn


def _crosses(figures: Figures, name: str) -> list[Cross]:
    found = [at["methods"][name] for at in figures["at"] if name in at["methods"]]
    return [
        Cross(
            one["gap"]["mean"],
            one["accuracy"]["mean"],
            one["gap"]["interval"],
            one["accuracy"]["interval"],
            (one["flagged"] or 0) > 0.5,
        )
        for one in found
        if one["gap"]["mean"] is not None
    ]


def _caveats(result: Figures) -> Iterator[object]:
    setup = result["setup"]
    yield (
        "For each ε the most accurate configuration whose gap on validation data is at most ε was "
        "taken; where there is none, the one with the lowest gap (their share stands under “beyond "
        "ε”). Test data played no part in that."
    )
    yield (
        "Worse: test accuracy significantly lower while the test gap is not significantly lower "
        "(one-sided Wilcoxon tests, paired over seeds, at 5 %; in brackets p of accuracy, "
        "corrected over methods, and of the gap). “Not worse” is no proof of “as good”."
    )
    yield (
        "Gaps are absolute values: a model that treats the groups alike would show the noise floor "
        "on average."
    )
    yield (
        "Hypervolume: area, × 1000, between a method's points and the corner of the larger class's "
        "accuracy and the base model's gap; rank: its mean rank by that, 1 is best."
    )
    if len(result["seeds"]) < 10:
        yield "These seeds are too few for tests, which need 10."
    if setup["model"].startswith("given "):
        yield (
            "There is one split and one trained model: the seeds vary the methods alone, so the "
            "intervals say nothing about other data."
        )
    elif setup["fixed_split"]:
        yield (
            "The test part is the same for all seeds, which vary the training alone, so the "
            "intervals say nothing about other data."
        )
    yield from _failures(result)
    yield (
        "Definitions of fairness conflict: where the groups' shares of y = 1 differ, equal "
        "selection rates and equal error rates cannot both hold, unless predictions do not depend "
        "on y at all. A method that is good under one definition need not be under another one."
    )


def _failures(result: Figures) -> Iterator[str]:
    for figures in result["criteria"]:
        for name, one in figures["methods"].items():
            if one["failed"]:
                seed, error = next(iter(one["failed"].items()))
                yield (
                    f"{figures['criterion']}: {name} failed on {len(one['failed'])} of "
                    f"{one['seeds']} seeds, which are left out of its means; seed {seed}: {error}"
                )
            if one["unusable"]:
                yield (
                    f"{figures['criterion']}: {one['unusable']} configurations of {name}, of all "
                    "seeds, diverged, predict one class alone or have no gap; they are never "
                    "chosen."
                )


def _reproduce(result: Figures) -> Iterator[Html]:
    setup, seeds = result["setup"], result["seeds"]
    methods = list(dict.fromkeys(n for f in result["criteria"] for n in f["methods"]))
    yield table(
        "Configuration",
        ("what", "value"),
        [
            ("data", setup["data"]),
            ("sum of the encoded data (SHA-256)", el("code", setup["data_sum"])),
            ("base model", setup["model"]),
            ("methods", ", ".join(methods)),
            ("criteria", ", ".join(f["criterion"] for f in result["criteria"])),
            ("seeds", ", ".join(map(str, seeds))),
            ("reference", ", ".join(dict.fromkeys(f["reference"] for f in result["criteria"]))),
            ("protocol", str(setup["protocol"])),
            *(
                ("versions", ", ".join(f"{n} {v}" for n, v in each.items()))
                for each in result["versions"]
            ),
        ],
        words=True,
    )


def notebook(result: Figures) -> Html:
    """A sentence and a table per criterion."""
    return joined(
        el("div", el("p", sentence(figures, result)), overview(figures))
        for figures in result["criteria"]
    )


def _full(found: Figures) -> str:
    bounds = found["interval"]
    inside = "" if bounds is None else f" ({bounds[0]:.3f} to {bounds[1]:.3f})"
    return mean_sd(found) + inside
