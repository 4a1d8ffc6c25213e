"""Table 4: every method's figures, chosen on validation data, and by how much the gap shrinks."""

from __future__ import annotations

from collections.abc import Sequence

from fairneuron.compare.selection import chosen
from fairneuron.compare.statistics import lower
from fairneuron.reproduce import paper
from fairneuron.reproduce.figures import METRICS, figures_of_configuration, number, over_seeds
from fairneuron.reproduce.found import Cell, Found, Section, cells_of, columns_of, ours, section
from fairneuron.reproduce.methods import Configuration
from fairneuron.reproduce.setting import PUBLISHED

EPSILON = 0.05
"""The most accurate configuration is shown whose DP on validation data is at most this."""


def table4(found: Sequence[Found]) -> list[Section]:
    """A table of all methods for each part, and one of FairNeuron's changes."""
    made, changes = [], []
    for each in found:
        published = each.source.part == PUBLISHED
        columns = columns_of(METRICS if published else (*METRICS, "flip_rate"))
        rows = [
            (method, cells_of([*chosen_of(each, method).values()], ("table4", each.data, method)))
            for method in each.source.names
        ]
        notes = [*each.failures(), *_flagged(each), *_noise(each), *_remarks(each)]
        made.append(section(each.title, columns, rows, notes))
        changes.append((each.title, _changes(each)))
    title = "FairNeuron's reduction of the naive model's gap, %"
    made.append(section(title, {"dp": "DP", "p_dp": "p", "eo": "EO", "p_eo": "p"}, changes))
    made[-1]["notes"] = [
        "p: one-sided Wilcoxon test, paired over seeds, that the gap is lower; it needs 10 seeds. "
        "Not corrected for the number of tests.",
        *paper.claims("table4"),
        f"The paper's percentages: {'; '.join(paper.sources('improvement'))}, which does not say "
        "how they are computed.",
        "fairneuron-paper is recipe paper (Algorithm 1); fairneuron is the package's default, and "
        "unawareness the naive model trained without the sensitive column: rows of our own.",
    ]
    return made


def chosen_of(found: Found, method: str) -> dict[int, Configuration]:
    """For each seed the configuration that validation data choose; test data play no part."""
    choices: dict[int, Configuration] = {}
    for record in found.of(method):
        tried = record["configurations"]
        if tried and (found.source.part == PUBLISHED or len(tried) == 1):
            choices[record["seed"]] = tried[0]
        elif (choice := chosen(record, EPSILON)) is not None:
            choices[record["seed"]] = choice[0]
    return {seed: choice for seed, choice in choices.items() if "counts" in choice}


def _flagged(found: Found) -> list[str]:
    """How often there was nothing to choose, or nothing within the bound on validation data."""
    if found.source.part == PUBLISHED:
        return [
            "The release's COMPAS pipeline: decile scores are regressed and cut at 4, accuracy is "
            "against two_year_recid, is_recid is an input, EO is over people with decile score 1. "
            "Training starts from the naive model, and slicing is ours."
        ]
    notes = []
    for method in found.source.names:
        records = found.of(method)
        if all(len(r["configurations"]) <= 1 for r in records):  # it has nothing to choose
            continue
        choices = [c for c in (chosen(r, EPSILON) for r in records) if c is not None]
        beyond, none = sum(flag for _, flag in choices), len(records) - len(choices)
        if none:
            notes.append(
                f"{found.title}: {method} has nothing to choose on {none} of {len(records)} seeds: "
                "its configurations diverged, predict one class alone, or have no DP."
            )
        if beyond:
            notes.append(
                f"{found.title}: {method} has no configuration with a validation DP of at most "
                f"{EPSILON:g} on {beyond} of {len(choices)} seeds; there the one with the lowest."
            )
    return notes


def _noise(found: Found) -> list[str]:
    """What gap equal treatment would show, where records have it."""
    floors = [r["base"]["noise_floor"] for r in found.records if "noise_floor" in r["base"]]
    means = {metric: over_seeds([f[metric] for f in floors])["mean"] for metric in ("dp", "eo")}
    if None in means.values():
        return []
    return [
        f"{found.title}: a model that treats the groups equally would show a DP of "
        f"{number(means['dp'])} and an EO of {number(means['eo'])} on average; a difference below "
        "that is no finding."
    ]


def _remarks(found: Found) -> list[str]:
    """Who reads the sensitive attribute to predict, and why there are no flip rates."""
    names = found.source.names
    aware = [n for n in names if any(r.get("needs_sensitive") for r in found.of(n))]
    choices = [c for name in names for c in chosen_of(found, name).values()]
    reasons = dict.fromkeys(c["no_flip_rate"] for c in choices if "no_flip_rate" in c)
    return [
        *(f"{found.title}: {name} reads the sensitive attribute to predict." for name in aware),
        *(f"{found.title}: no flip rate. {reason}." for reason in reasons),
    ]


def _changes(found: Found) -> dict[str, Cell]:
    """By how much FairNeuron's mean gap lies below the naive model's, and whether by chance."""
    naive, own = (chosen_of(found, method) for method in ("naive", paper.OURS))
    made: dict[str, Cell] = {}
    for metric in ("dp", "eo"):
        both = [
            (figures_of_configuration(naive[seed])[metric], figures_of_configuration(c)[metric])
            for seed, c in own.items()
            if seed in naive
        ]
        pairs = [(a, b) for a, b in both if a is not None and b is not None]
        before, after = (float(sum(of)) for of in zip(*pairs, strict=True)) if pairs else (0, 0)
        made[metric] = ours([100 * (1 - after / before) if before else None]) | {
            "paper": paper.known("improvement", found.data, paper.OURS, metric)
        }
        made[f"p_{metric}"] = ours([lower([b for _, b in pairs], [a for a, _ in pairs])])
    return made
