"""Table 7: accuracy, CV and MCD over classes, and whether MCD falls at what cost."""

from __future__ import annotations

from collections.abc import Sequence

from fairneuron.compare.records import Record
from fairneuron.compare.statistics import holm, lower
from fairneuron.limits import ROUNDING
from fairneuron.reproduce import paper
from fairneuron.reproduce.figures import number
from fairneuron.reproduce.found import Cell, Found, Section, ours, section
from fairneuron.reproduce.images import (
    ALL_LAYERS,
    DEFAULT,
    FAIRNEURON,
    GENTLE,
    ORDINARY,
    RANDOM,
    SIMILAR,
)
from fairneuron.reproduce.methods import Configuration

LOSS = 0.005
"""Half a point of accuracy: what a smaller gap may cost."""
_COLUMNS = {"accuracy": "accuracy", "mcd": "MCD", "cv": "CV · 1000"}
BySeed = dict[int, dict[str, float | None]]
_RIVALS = ("naive", RANDOM, ORDINARY, GENTLE)


def table7(found: Sequence[Found]) -> list[Section]:
    """A table of figures and one of tests for each set of images."""
    return [each for one in found for each in (_figures(one), _tests(one))]


def least_gap(record: Record) -> Configuration | None:
    """The configuration with the lowest validation MCD of those that cost half a point at most.

    If there is none, the most accurate one. It reads validation figures alone.

    Args:
        record: Of a method and a seed.

    Returns:
        None if there is nothing to choose.
    """
    usable = [c for c in record["configurations"] if c["rejected"] is None and c["valid"]]
    least = record["base"]["valid"]["accuracy"] - LOSS - ROUNDING
    cheap = [c for c in usable if c["valid"]["accuracy"] >= least]
    if cheap:
        return min(cheap, key=lambda c: (c["valid"]["mcd"], -c["valid"]["accuracy"]))
    return max(usable, key=lambda c: c["valid"]["accuracy"], default=None)


def chosen_figures(found: Found, method: str) -> BySeed:
    """Test figures of what is chosen, by seed."""
    choices = {record["seed"]: least_gap(record) for record in found.of(method)}
    return {seed: c["test"] for seed, c in choices.items() if c is not None and c["test"]}


def _figures(found: Found) -> Section:
    rows: list[tuple[str, dict[str, Cell]]] = []
    for method in found.source.names:
        figures = chosen_figures(found, method).values()
        cells = {name: ours(f[name] for f in figures) for name in ("accuracy", "mcd")}
        for name, cell in cells.items():
            cell["paper"] = paper.known("table7", found.data, method, name)
        cells["cv"] = ours(None if f["cv"] is None else 1000 * f["cv"] for f in figures)
        times = [r["cpu_seconds"] / r["base"]["cpu_seconds"] for r in found.of(method)]
        rows.append((method, {**cells, "time": ours([] if method == "naive" else times)}))
    seeds = len({record["seed"] for record in found.records})
    notes = [*_small(found, seeds), *found.failures(), *_without(found), *_floor(found), *_LEGEND]
    return section(found.title, _COLUMNS | {"time": "time, in naive trainings"}, rows, notes)


_LEGEND = (
    "fairneuron-paper: recipe paper with paths through the last layer alone, as in the paper; "
    f"{ALL_LAYERS}: through all layers (nearly every sample is alone on its path there, so that "
    f"nearly all are trained with dropout); {SIMILAR}: sets of units, similar ones counted as one.",
    f"{DEFAULT}: our default recipe with a limit of MCD. {ORDINARY}: training continued as before; "
    f"{GENTLE}: as the default recipe trains, without its choice of neurons and without the gap. "
    "Both are controls of our own.",
)


def _small(found: Found, seeds: int) -> list[str]:
    if found.source.kind != "sample":
        return []
    rows = " + ".join(str(n) for n in found.setup["rows"])
    return [
        f"**Small sample: {rows} images, {seeds} seed{'s' * (seeds != 1)}, a ResNet-18 of a "
        "quarter of the width, few epochs. It shows that everything runs, and supports no claim; "
        "the paper's figures are those of all images.**"
    ]


def _without(found: Found) -> list[str]:
    """Which methods have nothing to choose, and on how many seeds."""
    lost = {m: len(found.of(m)) - len(chosen_figures(found, m)) for m in found.source.names}
    return [
        f"{method} has nothing to choose on {n} of {len(found.of(method))} seeds: its "
        "configurations diverged, or predict one class alone."
        for method, n in lost.items()
        if n
    ]


def _floor(found: Found) -> list[str]:
    """What gap equal class accuracies would show."""
    floors = {r["seed"]: r["base"]["noise_floor"]["mcd"] for r in found.records}
    if not floors:
        return []
    mean = ours(floors.values())["ours"]["mean"]
    return [
        f"A classifier of one accuracy for all classes, the naive one's, would show an MCD of "
        f"{number(mean)} on so many test images."
    ]


def _tests(found: Found) -> Section:
    """Whether each FairNeuron's MCD is lower, seed by seed, and what accuracy it costs."""
    figures = {method: chosen_figures(found, method) for method in found.source.names}
    p = holm({f"{a} {b}": _lower(figures[a], figures[b]) for a in FAIRNEURON for b in _RIVALS})
    rows = []
    for method in FAIRNEURON:
        own, naive = figures[method], figures["naive"]
        both = [seed for seed in own if seed in naive]
        gains = [_minus(own[seed]["accuracy"], naive[seed]["accuracy"]) for seed in both]
        cells = {rival: ours([p[f"{method} {rival}"]]) for rival in _RIVALS}
        gain = ours(gains)
        cells |= {"accuracy": gain, "met": {"text": _met(cells, gain)}}
        rows.append((method, cells))
    columns = {rival: f"p, {rival}" for rival in _RIVALS}
    columns |= {"accuracy": "accuracy gained", "met": "met"}
    notes = [
        "p: one-sided Wilcoxon test, paired over seeds, that the MCD is lower than that method's; "
        "it needs 10 seeds. Holm's correction for all tests of this table.",
        "Met: MCD below that of naive and of random dropout (p below .05), accuracy at most half a "
        "point below naive's on average. Where a control does as well, it is the training that "
        "helps, not what FairNeuron adds to it.",
    ]
    return section(f"{found.title}: is MCD lower?", columns, rows, notes)


def _lower(a: BySeed, b: BySeed) -> float | None:
    pairs = [(a[seed]["mcd"], b[seed]["mcd"]) for seed in a if seed in b]
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    return lower([x for x, _ in known], [y for _, y in known])


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _met(cells: dict[str, Cell], gain: Cell) -> str:
    p = [cells[rival]["ours"]["mean"] for rival in ("naive", RANDOM)]
    if None in p or gain["ours"]["mean"] is None:
        return "not tested"
    return "yes" if max(p) < 0.05 and gain["ours"]["mean"] >= -LOSS else "no"
