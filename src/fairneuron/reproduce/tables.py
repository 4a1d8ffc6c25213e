"""The page of an experiment: the paper's figures beside ours, as plain values and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairneuron.compare.records import Record
from fairneuron.compare.selection import chosen
from fairneuron.compare.statistics import lower
from fairneuron.errors import printable
from fairneuron.reproduce import paper
from fairneuron.reproduce.experiments import (
    FIGURE4,
    FIGURE5,
    PUBLISHED,
    Configuration,
    figures_of_configuration,
)
from fairneuron.reproduce.figures import METRICS, TITLES, over_seeds
from fairneuron.reproduce.images import HOW
from fairneuron.reproduce.sources import Source

EPSILON = 0.05
"""Table 4 shows the most accurate configuration whose DP on validation data is at most this."""
FIGURE5_METRICS = ("accuracy", "dp", "eo", "dpr_directed")
Cell = dict[str, Any]
Section = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Found:
    """What there is of a source.

    Attributes:
        source: Which records they are.
        setup: What they agree in.
        records: In the order of seeds and names.
    """

    source: Source
    setup: dict[str, Any]
    records: tuple[Record, ...]

    @property
    def data(self) -> str:
        """The paper's data set."""
        return self.source.part.removesuffix("-published")

    @property
    def title(self) -> str:
        """For people."""
        how = ", published pipeline" * (self.source.part == PUBLISHED)
        return f"{self.data}{how}"

    def of(self, name: str) -> list[Record]:
        """The records of a method or measure that did not fail."""
        return [r for r in self.records if r["method"] == name and r["error"] is None]

    def each(self, name: str) -> list[Configuration]:
        """All configurations of a method or measure, over all seeds."""
        return [c for record in self.of(name) for c in record["configurations"]]

    def failures(self) -> list[str]:
        """What failed, each with its first error."""
        failed: dict[str, list[Record]] = {}
        for record in self.records:
            if record["error"] is not None:
                failed.setdefault(record["method"], []).append(record)
        return [
            f"{self.title}: {name} failed on {len(of)} seeds; seed {of[0]['seed']}: "
            f"`{printable(of[0]['error']).replace('`', '´')}`"
            for name, of in failed.items()
        ]


def ours(values: Iterable[float | None]) -> Cell:
    """A cell of our figures over seeds, and of how many they would be if all were defined."""
    listed = list(values)
    return {"ours": over_seeds(listed) | {"of": len(listed)}}


def sections(name: str, found: Sequence[Found]) -> list[Section]:
    """The tables of an experiment, as plain values."""
    makers: dict[str, Callable[[Sequence[Found]], list[Section]]] = {
        "table2": _table2,
        "table3": _table3,
        "table4": _table4,
        "table5": _table5,
        "table6": _table6,
        "figure4": _figure4,
        "figure5": _figure5,
    }
    return makers[name](found)


def section(
    title: str,
    columns: dict[str, str],
    rows: Sequence[tuple[str, dict[str, Cell]]],
    notes: Sequence[str] = (),
) -> Section:
    """A table: column key to title, and rows of a label and cells by key."""
    table = [{"label": label, "cells": cells} for label, cells in rows]
    return {"title": title, "columns": columns, "rows": table, "notes": list(notes)}


def data_sets(described: Sequence[dict[str, Any]]) -> list[Section]:
    """Table 1, from what settings and data say of themselves; see ``run``."""
    columns = {
        "rows": "rows",
        "parts": "training / validation / test",
        "features": "inputs",
        "groups": "groups",
        "positive": "y = 1",
        "network": "network",
    }
    rows = [(each["name"], {key: {"text": each[key]} for key in columns}) for each in described]
    return [section("", columns, rows)]


def _table2(found: Sequence[Found]) -> list[Section]:
    made = []
    for each in found:
        summaries = [c["clusters"] for c in each.each("clusters")]
        right = [c["right"] for c in each.each("clusters")]
        rows: dict[str, list[float | None]] = {
            "distinct paths": [s["paths"] for s in summaries],
            "samples on the most frequent path": [s["largest"] for s in summaries],
            "share of samples that are biased": [s["biased_share"] for s in summaries],
        }
        for i, group in enumerate(summaries[0]["makeup"] if summaries else ()):
            inside = [s["makeup"][i] for s in summaries]
            rows[f"the same, of {group['group']}"] = [_share(g["biased"], g["n"]) for g in inside]
        for side in ("biased", "benign"):
            positives = [
                _share(*(sum(g[n] for g in s["makeup"]) for n in (f"{side}_positive", side)))
                for s in summaries
            ]
            rows[f"share of y = 1 among {side} ones"] = positives
            rows[f"training accuracy on {side} ones"] = [r[side] for r in right]
        lines = [(label, {"value": ours(values)}) for label, values in rows.items()]
        made.append(section(each.title, {"value": "value"}, lines, each.failures()))
    return made


def _share(some: int, of: int) -> float | None:
    return some / of if of else None


def _table3(found: Sequence[Found]) -> list[Section]:
    made = []
    for each in found:
        tried = each.each("ablations")
        names = dict.fromkeys(c["settings"]["trained"] for c in tried)
        of = {name: [c for c in tried if c["settings"]["trained"] == name] for name in names}
        rows = [(name, _cells(configurations)) for name, configurations in of.items()]
        made.append(section(each.title, _columns(METRICS), rows, each.failures()))
    return made


def _columns(metrics: Iterable[str]) -> dict[str, str]:
    return {name: TITLES[name] for name in metrics}


def _cells(
    configurations: Sequence[Configuration], known: Callable[[str], float | None] | None = None
) -> dict[str, Cell]:
    """Our figures over seeds, and the paper's if there is a way to know them."""
    figures = [figures_of_configuration(c) for c in configurations]
    cells = {metric: ours(f[metric] for f in figures) for metric in (*METRICS, "flip_rate")}
    if known is not None:
        for metric in METRICS:
            cells[metric]["paper"] = known(metric)
    return cells


def _table4(found: Sequence[Found]) -> list[Section]:
    made, changes = [], []
    for each in found:
        published = each.source.part == PUBLISHED
        columns = _columns(METRICS if published else (*METRICS, "flip_rate"))
        cells = {}
        for method in each.source.names:

            def known(metric: str, method: str = method) -> float | None:
                return paper.known("table4", each.data, method, metric)  # noqa: B023  # used at once

            cells[method] = _cells([*_chosen(each, method).values()], known)
        notes = [*each.failures(), *_flagged(each), *_noise(each), *_remarks(each)]
        made.append(section(each.title, columns, list(cells.items()), notes))
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


def _chosen(found: Found, method: str) -> dict[int, Configuration]:
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
    choices = [c for name in names for c in _chosen(found, name).values()]
    reasons = dict.fromkeys(c["no_flip_rate"] for c in choices if "no_flip_rate" in c)
    return [
        *(f"{found.title}: {name} reads the sensitive attribute to predict." for name in aware),
        *(f"{found.title}: no flip rate. {reason}." for reason in reasons),
    ]


def _changes(found: Found) -> dict[str, Cell]:
    """By how much FairNeuron's mean gap lies below the naive model's, and whether by chance."""
    naive, own = (_chosen(found, method) for method in ("naive", paper.OURS))
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


def _table5(found: Sequence[Found]) -> list[Section]:
    names = dict.fromkeys(name for each in found for name in each.source.names)
    columns = {each.source.part: each.title for each in found}
    rows = [
        (
            name,
            {
                each.source.part: ours(
                    r["cpu_seconds"] / r["base"]["cpu_seconds"] for r in each.of(name)
                )
                for each in found
            },
        )
        for name in names
    ]
    seconds = {each.source.part: _base_seconds(each) for each in found}
    notes = [f for each in found for f in each.failures()]
    notes += paper.claims("table5")
    return [
        section("With all configurations that are tried", columns, rows, notes),
        section("Ordinary training, seconds of CPU", columns, [("naive", seconds)]),
    ]


def _base_seconds(found: Found) -> Cell:
    """Seconds of CPU of ordinary training, once per seed."""
    return ours({r["seed"]: r["base"]["cpu_seconds"] for r in found.records}.values())


def _table6(found: Sequence[Found]) -> list[Section]:
    names = ("slicing", "clustering", "training", "search")
    rows = []
    for each in found:
        cells = {
            name: ours(
                c["cpu_seconds"] / record["base"]["cpu_seconds"]
                for record in each.of("steps")
                for c in record["configurations"]
                if c["settings"]["step"] == name
            )
            for name in names
        }
        rows.append((each.title, cells | {"seconds": _base_seconds(each)}))
    columns = dict(zip(names, names, strict=True)) | {"seconds": "ordinary training, CPU s"}
    notes = [
        "Search: all configurations of table 4, each with its share of slicing and clustering.",
        *(f for each in found for f in each.failures()),
    ]
    return [section("", columns, rows, notes)]


def _figure4(found: Sequence[Found]) -> list[Section]:
    (each,) = found
    pairs = [np.array(c["counts_of_paths"]) for c in each.each("paths")]  # (k, 2) each
    largest = [int(p[:, 0].max()) for p in pairs]
    limits = [max(FIGURE4["theta"] * m, 1) for m in largest]
    biased = [
        float(p[p[:, 0] <= limit].prod(1).sum() / p.prod(1).sum())
        for p, limit in zip(pairs, limits, strict=True)
    ]
    rows: list[tuple[str, dict[str, Cell]]] = [
        ("distinct paths", {"value": ours(int(p[:, 1].sum()) for p in pairs)}),
        ("samples on the most frequent path, M", {"value": ours(largest)}),
        ("threshold max(θ · M, 1)", {"value": ours(limits)}),
        ("share of samples at or below it", {"value": ours(biased)}),
    ]
    for _, cells in rows:
        cells["value"]["paper"] = None
    rows[1][1]["value"]["paper"] = paper.known("figure4", each.data, paper.OURS, "largest")
    title = f"{each.title}, γ = {FIGURE4['gamma']:g}, θ = {FIGURE4['theta']:g}"
    return [section(title, {"value": "value"}, rows, each.failures())]


def _figure5(found: Sequence[Found]) -> list[Section]:
    peers = [each for each in found if each.source.kind == "methods"]
    swept = [each for each in found if each.source.kind != "methods"]
    return [_swept(each, peers, over) for each in swept for over in ("theta", "gamma")]


def _swept(found: Found, peers: Sequence[Found], over: str) -> Section:
    """FairNeuron over θ or γ, between the naive model and Ethical Adversaries."""
    sign, fixed = {"theta": ("θ", "gamma"), "gamma": ("γ", "theta")}[over]
    published, tried = found.source.part == PUBLISHED, found.each(over)
    naive = [c for c in tried if "naive" in c["settings"]]
    rows = [("naive", _cells(naive))]
    for value in dict.fromkeys(c["settings"].get(over) for c in tried if c not in naive):
        of = [c for c in tried if c["settings"].get(over) == value]
        rows.append((f"{sign} = {value:g}", _cells(of)))
    rows.append((paper.EA, _ea([] if published else peers)))
    bounds = "; ".join(
        f"{TITLES[metric]} {low:.3f} to {high:.3f}"
        for (what, metric), (low, high) in paper.RANGES.items()
        if what == over
    )
    notes = [f"FairNeuron in the paper's figure, over all {sign}: {bounds}."]
    notes.append(
        "The range is that of the plotted values. Before it plots them the release's script adds "
        "constants to its means over θ (+.06, −.28, −.1, +.5); its file of those over γ looks as "
        "if it had them too."
    )
    if not published:
        notes.append("The paper's values are those of its own pipeline, with its leaks.")
    title = f"{found.title}, over {sign} ({fixed} = {FIGURE5[fixed]:g})"
    made = section(title, _columns(FIGURE5_METRICS), rows, [*notes, *found.failures()])
    return made | {"over": over, "part": found.source.part}


def _ea(peers: Sequence[Found]) -> dict[str, Cell]:
    """Ours, if there is one, and the paper's line."""
    own = [c for each in peers for c in _chosen(each, paper.EA).values()]

    def known(metric: str) -> float | None:
        return paper.known("figure5", "compas", paper.EA, metric)

    return _cells(own, known)


# Markdown


def page(result: dict[str, Any]) -> str:
    """The page; ``result`` is what ``Reproduction.to_dict`` gives."""
    name = result["name"]
    lines = [f"# {_numbered(name)}: {result['title']}"]
    if result["quick"]:
        lines.append(
            "**Quick run: one seed, few rows and epochs. It shows that everything runs; its "
            "figures say nothing.**"
        )
    lines.append(_head(result))
    for each in result["sections"]:
        lines += [f"## {each['title']}"] if each["title"] else []
        lines.append(_section(each))
        if each["notes"]:
            lines.append("\n".join(f"- {note}" for note in each["notes"]))
    versions = [", ".join(f"{n} {v}" for n, v in each.items()) for each in result["versions"]]
    return "\n\n".join([*lines, *(f"With {text}." for text in versions)]) + "\n"


_HOW = (
    "splits 7:1:2; networks and training as in the paper's section 4.1; the sensitive column is an "
    "input."
)


def _head(result: dict[str, Any]) -> str:
    name, seeds = result["name"], result["seeds"]
    lines = ["Gao et al., *FairNeuron* (ICSE 2022, arXiv 2204.02567), and what this package gives."]
    if name in paper.ASSIGNED:
        lines.append(
            f"What the paper shows as {_numbered(name)} is not known here: content and number are "
            "our choice."
        )
    if name != "table1":
        how = HOW if name == "table7" else _HOW
        lines.append(f"{len(seeds)} seed{'s' * (len(seeds) != 1)}: mean ± sd; {how}")
    if name == "table4":
        lines.append(
            f"Configurations are chosen on validation data: the most accurate one with a DP of at "
            f"most {EPSILON:g}; in the published pipeline by the release's objective. DPR, "
            "directed: the second group's selection rate over the first one's, as in the paper. "
            "Flip rate: share of predictions that change with the stated group alone."
        )
    known = paper.sources(name)
    beside = "; ".join(known) if known else "not known here"
    lines.append(
        f"The paper's figures: {beside}. A dash: not known here, or undefined; (n of m): of the n "
        "of m seeds on which it is defined."
    )
    return "\n".join(f"- {line}" for line in lines)


def _numbered(name: str) -> str:
    return f"{name[:-1].capitalize()} {name[-1]}"


def _section(each: Section) -> str:
    cells = [(key, row["cells"].get(key, {})) for row in each["rows"] for key in each["columns"]]
    paired = {key for key, cell in cells if "paper" in cell}
    head = [""]
    for key, title in each["columns"].items():
        head += [title, "paper"] if key in paired else [title]
    lines = []
    for row in each["rows"]:
        line = [printable(row["label"])]
        for key in each["columns"]:
            cell = row["cells"].get(key, {})
            line.append(_ours(cell))
            if key in paired:
                line.append(number(cell.get("paper")))
        lines.append(line)
    widths = [max(3, *(len(line[i]) for line in [head, *lines])) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *lines]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _ours(cell: Cell) -> str:
    if "text" in cell:
        return printable(str(cell["text"])).replace("|", "¦")
    found = cell.get("ours")
    if found is None or found["mean"] is None:
        return "–"
    sd = "" if found["sd"] is None else f" ± {number(found['sd'])}"
    some = f" ({found['n']} of {found['of']})" if found["n"] < found["of"] else ""
    return number(found["mean"]) + sd + some


def number(value: float | None) -> str:
    """With three digits behind the point below 10, two below 100; whole numbers with none."""
    if value is None:
        return "–"
    if value == int(value) and abs(value) > 1:
        return f"{value:.0f}"
    return f"{value:.{3 if abs(value) < 10 else 2 if abs(value) < 100 else 0}f}"
