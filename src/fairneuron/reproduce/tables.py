"""The tables of each experiment as plain values: the paper's figures beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fairneuron.reproduce import paper
from fairneuron.reproduce.figures import METRICS, TITLES
from fairneuron.reproduce.found import Cell, Found, Section, cells_of, columns_of, ours, section
from fairneuron.reproduce.measures import FIGURE4, FIGURE5
from fairneuron.reproduce.setting import PUBLISHED
from fairneuron.reproduce.table4 import chosen_of, table4
from fairneuron.reproduce.table7 import table7

FIGURE5_METRICS = ("accuracy", "dp", "eo", "dpr_directed")


def sections(name: str, found: Sequence[Found]) -> list[Section]:
    """The tables of an experiment, as plain values."""
    makers: dict[str, Callable[[Sequence[Found]], list[Section]]] = {
        "table2": _table2,
        "table3": _table3,
        "table4": table4,
        "table5": _table5,
        "table6": _table6,
        "table7": table7,
        "figure4": _figure4,
        "figure5": _figure5,
    }
    return makers[name](found)


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
        rows = [(name, cells_of(configurations)) for name, configurations in of.items()]
        made.append(section(each.title, columns_of(METRICS), rows, each.failures()))
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
    rows = [("naive", cells_of(naive))]
    for value in dict.fromkeys(c["settings"].get(over) for c in tried if c not in naive):
        of = [c for c in tried if c["settings"].get(over) == value]
        rows.append((f"{sign} = {value:g}", cells_of(of)))
    own = [] if published else [c for each in peers for c in chosen_of(each, paper.EA).values()]
    rows.append((paper.EA, cells_of(own, ("figure5", "compas", paper.EA))))
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
    made = section(title, columns_of(FIGURE5_METRICS), rows, [*notes, *found.failures()])
    return made | {"over": over, "part": found.source.part}
