"""Draws the pictures of the documentation, from runs through the public interface.

``python docs/pictures.py`` writes ``docs/pictures/*.svg`` and prints the figures in their captions.
It takes half a minute. Everything is COMPAS with race among the inputs, one split (seed 0), hidden
layers of 32; but for the example of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import fairneuron as fn

FOLDER = Path(__file__).parent / "pictures"
INK, FAINT, GROUND, MARK, OTHER = "#1f2937", "#c3c9d2", "#ffffff", "#c2410c", "#1d4ed8"
HIDDEN = (32, 32, 32)
BOUND = 0.05
WORDS = {"va": "center", "color": INK, "fontsize": 9}


def main() -> None:
    """Runs what is drawn, and draws it."""
    data = fn.load_dataset("compas", sensitive="race", include_sensitive=True)
    train, valid, test = data.split(seed=0)
    net = fn.train_classifier(train, valid, hidden=HIDDEN, seed=0)
    paths = fn.activation_paths(net, train.x, gamma=0.9)
    few = fn.repair(net, train, valid, limit={"dp": BOUND}, neuron_share=0.1, seed=0)
    whole = fn.repair(net, train, valid, limit={"dp": BOUND}, seed=0)
    every = fn.repair(net, train, valid, limit={"dp": BOUND}, neuron_share=1.0, seed=0)
    before, after = fn.audit(net, test), fn.audit(few.model, test)

    for name, figure in {
        "overview": overview(before, after, few),
        "figure2": example_of_the_paper(),
        "path": path_of_a_sample(net, train, paths),
        "frequency": frequency(paths),
        "neurons": neurons(every, few),
        "way": way(whole),
    }.items():
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None, "Creator": None})

    print(f"overview: {few.explanation.sentence()}")
    for said, audit in (("before", before), ("after", after)):
        print(f"  {said}: DP {audit.metrics['dp']:.3f}, accuracy {audit.metrics['accuracy']:.3f}")
    print(f"  {fn.judge(net, few.model, test, {'dp': BOUND}, on='test').sentence()}")
    rare = fn.rare_paths(paths, theta=1e-3)
    print(f"frequency: {paths}; {paths.counts[:3]}; rare {rare.mean():.3f} of the samples")
    print(f"way: {whole.verdict.sentence()}")


def overview(before: fn.Audit, after: fn.Audit, result: fn.Repair) -> Figure:
    """How often each group is predicted y = 1, before and after; and which neurons did it."""
    figure = _figure(9, 3.1)
    rates, network = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for i, audit in enumerate((before, after)):
        ends = [(group["selection_rate"], group["group"]) for group in audit.groups]
        rates.plot([rate for rate, _ in ends], [1 - i] * 2, color=FAINT, linewidth=5, zorder=1)
        for k, (rate, _) in enumerate(ends):
            rates.scatter(rate, 1 - i, s=70, color=(MARK, OTHER)[k], zorder=2)
        gap = audit.metrics["dp"]
        rates.text(0.02, 1.28 - i, f"{('before', 'after')[i]}: gap {gap:.3f}", **WORDS)
    for k, group in enumerate(before.groups):
        rates.scatter(0.02, -0.72 - 0.28 * k, s=40, color=(MARK, OTHER)[k], clip_on=False)
        rates.text(0.05, -0.72 - 0.28 * k, group["group"], **WORDS)
    rates.set(
        xlim=(0, 0.6),
        ylim=(-1.15, 1.6),
        yticks=[],
        title="Share predicted “charged again”, test data",
    )
    rates.spines[["left", "right", "top"]].set_visible(False)
    rates.xaxis.set_major_formatter("{x:.0%}")

    chosen = {(n.layer, n.unit) for n in result.explanation.neurons}
    layers = result.explanation.layers
    _dots(network, [*layers.values()], marked=[_units(chosen, layer) for layer in layers])
    title = f"Retrained: {len(chosen)} of {result.explanation.hidden} hidden neurons"
    network.set_title(title, pad=18)
    return figure


def example_of_the_paper() -> Figure:
    """Figure 2 of the paper: x = (3, 1), γ = 0.8, means 0."""
    weights = [
        [[2.0, -1.0], [1.0, -2.0], [1.0, 3.0]],
        [[1.0, 2.0, -1.0], [-1.0, -1.0, 2.0], [-1.0, 1.0, 1.0]],
        [[2.0, 1.0, -4.0], [3.0, 2.0, -3.0]],
    ]
    net = nn.Sequential(*(nn.Linear(len(w[0]), len(w), bias=False) for w in weights))
    with torch.no_grad():
        for layer, weight in zip(net, weights, strict=True):
            layer.weight.copy_(torch.tensor(weight))
    x = torch.tensor([[3.0, 1.0]])
    sums = fn.activation_paths(net, x).means.sums
    zero = fn.Means({index: torch.zeros_like(total) for index, total in sums.items()}, 1)
    kept = _kept(net, x, gamma=0.8, means=zero)

    values = [x[0].tolist()]
    for layer in net:
        x = layer(x)
        values.append(x[0].tolist())
    figure = _figure(7.5, 4)
    axes = figure.subplots()
    for k, rows in enumerate(weights):
        for unit, row in enumerate(rows):
            for source, weight in enumerate(row):
                on = (k, unit, source) in kept
                ends = _place(k, source, len(row)), _place(k + 1, unit, len(rows))
                _line(axes, *ends, on=on, wide=2.5)
                (x1, y1), (x2, y2) = ends
                words = f"{weight:+.0f}".replace("-", "\N{MINUS SIGN}")
                at = 0.25 * x1 + 0.75 * x2, 0.25 * y1 + 0.75 * y2
                box = {"facecolor": GROUND, "edgecolor": "none", "pad": 0.8}
                colour = MARK if on else "#6b7280"
                axes.text(*at, words, ha="center", va="center", fontsize=8, color=colour, bbox=box)
    used = {(k, source) for k, _, source in kept} | {(k + 1, unit) for k, unit, _ in kept}
    for k, column in enumerate(values):
        for unit, value in enumerate(column):
            on = (k, unit) in used
            place = _place(k, unit, len(column))
            edge = MARK if on else FAINT
            axes.scatter(*place, s=620, color=GROUND, edgecolor=edge, linewidth=2, zorder=3)
            text = f"{value:.0f}".replace("-", "\N{MINUS SIGN}")
            axes.text(*place, text, ha="center", va="center", color=INK, zorder=4)
    _bare(axes, ["inputs", "layer 1", "layer 2", "outputs"])
    axes.set_ylim(-1.3, 1.7)
    return figure


def path_of_a_sample(net: nn.Module, train: fn.Dataset, paths: fn.Paths) -> Figure:
    """The synapses of the most frequent path; columns are the inputs, hidden layers, output."""
    row = paths.first[[0]]
    kept = _kept(net, train.x[row], gamma=paths.gamma, means=paths.means)
    figure = _figure(8, 4.6)
    axes = figure.subplots()
    widths = [train.x.shape[1], *HIDDEN, 1]
    for k, unit, source in sorted(kept):
        _line(axes, _place(k, source, widths[k]), _place(k + 1, unit, widths[k + 1]), on=True)
    used = {(k, source) for k, _, source in kept} | {(k + 1, unit) for k, unit, _ in kept}
    marked = [{unit for layer, unit in used if layer == k} for k in range(len(widths))]
    _dots(axes, widths, marked=marked, names=["", *(f"{w} neurons" for w in HIDDEN), "output"])
    for unit, name in enumerate(train.feature_names):
        x, y = _place(0, unit, widths[0])
        shade = INK if unit in marked[0] else "#9ca3af"
        axes.text(x - 0.07, y, name, ha="right", va="center", fontsize=8, color=shade)
    axes.set_xlim(-1.1, 4.3)
    return figure


def frequency(paths: fn.Paths) -> Figure:
    """How many samples share each path, the most frequent first."""
    figure = _figure(7, 3)
    axes = figure.subplots()
    counts, paths_of = torch.tensor(paths.counts).unique(return_counts=True)
    edges = [1.0, *(1 + paths_of.flip(0).cumsum(0)).tolist()]
    axes.stairs(counts.flip(0).tolist(), edges, baseline=0.8, fill=True, color=MARK, alpha=0.35)
    alone = int((paths.counts == 1).sum())
    words = f"{alone:,} paths have one sample each"
    axes.text(len(paths.counts), 1.5, words, ha="right", fontsize=9, color=INK)
    axes.set(xscale="log", yscale="log", xlim=(1, len(paths.counts)), ylim=(0.8, None))
    axes.set(xlabel="path, the most frequent first", ylabel="samples on it")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["right", "top"]].set_visible(False)
    return figure


def neurons(every: fn.Repair, few: fn.Repair) -> Figure:
    """All hidden neurons: how strongly the gap pulls, and how far across the loss's direction."""
    figure = _figure(8, 3.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    chosen = {(n.layer, n.unit) for n in few.explanation.neurons}
    found = every.explanation.neurons
    for on in (False, True):
        part = [n for n in found if ((n.layer, n.unit) in chosen) == on]
        where = [n.conflict for n in part], [n.pull for n in part]
        left.scatter(*where, s=26, color=MARK if on else FAINT, label=_legend(len(part), on=on))
    left.set(xlabel="conflict: gap against loss", ylabel="pull of the gap", xticks=(-1, 0, 1))
    left.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
    left.legend(frameon=False, fontsize=8, loc="upper left")
    left.spines[["right", "top"]].set_visible(False)

    e = few.explanation
    rows = [
        ("as it is", e.gap),
        (f"{len(chosen)} random neurons\nheld at their mean", e.gap_without_random),
        (f"the {len(chosen)} chosen neurons\nheld at their mean", e.gap_without),
    ]
    for i, (_, gap) in enumerate(rows):
        right.barh(-i, gap, color=MARK if i == 2 else FAINT, height=0.6)
        right.text(gap + 0.002, -i, f"{gap:.3f}", **WORDS)
    right.set(yticks=[0, -1, -2], yticklabels=[name for name, _ in rows], xticks=(0, 0.05, 0.1))
    right.set_xlim(0, e.gap * 1.2)
    right.set_title("Score gap, training data")
    right.spines[["right", "top"]].set_visible(False)
    return figure


def way(result: fn.Repair) -> Figure:
    """The candidates of a repair: accuracy against gap on validation data, from the original on."""
    figure = _figure(7, 3.4)
    axes = figure.subplots()
    original, *trials = result.trials
    start = original.audit.metrics["dp"], original.audit.metrics["accuracy"]
    for share, colour in zip(_shares(trials), (OTHER, MARK), strict=True):
        part = [t.audit.metrics for t in trials if t.settings["neuron_share"] == share]
        at = [start, *((m["dp"], m["accuracy"]) for m in part)]
        name = "all neurons" if share == 1 else f"{share:.0%} of the neurons"
        axes.plot(*zip(*at, strict=True), "o-", color=colour, linewidth=1.3, label=name)
    axes.scatter(*start, s=70, color=INK, zorder=3)
    axes.annotate("original", start, (-8, 8), textcoords="offset points", ha="right", fontsize=9)
    end = result.chosen.audit.metrics["dp"], result.chosen.audit.metrics["accuracy"]
    axes.scatter(*end, s=150, facecolor="none", edgecolor=INK, zorder=3)
    axes.annotate("chosen", end, (-10, -3), textcoords="offset points", ha="right", fontsize=9)
    axes.axvspan(0, BOUND, color="#16a34a", alpha=0.12, linewidth=0, label=f"limit: DP ≤ {BOUND}")
    axes.set(xlabel="DP: gap between the groups", ylabel="accuracy", xlim=(0, None))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["right", "top"]].set_visible(False)
    return figure


# Parts


def _figure(width: float, height: float) -> Figure:
    mpl.rcParams["svg.hashsalt"] = "fairneuron"
    mpl.rcParams["axes.titlesize"] = 10
    mpl.rcParams["axes.edgecolor"] = "#6b7280"
    mpl.rcParams["font.size"] = 9
    return Figure(figsize=(width, height), layout="constrained", facecolor=GROUND)


def _kept(net: nn.Module, x: torch.Tensor, **options: Any) -> set[tuple[int, int, int]]:
    """The synapses of a sample's path: position of the layer, its neuron, the one before."""
    found = fn.path_synapses(net, x, **options)[::-1]
    layers = sorted({s.layer for s in found}, key=int)
    return {
        (layers.index(s.layer), int(unit), int(source))
        for s in found
        for unit, source in zip(s.unit, s.predecessor, strict=True)
    }


def _place(layer: int, unit: int, width: int) -> tuple[float, float]:
    """Where a neuron is drawn: columns are layers, centred."""
    step = 1 if width < 5 else 4 / width
    return float(layer), ((width - 1) / 2 - unit) * step


def _line(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], *, on: bool, wide: float = 1
) -> None:
    across, along = zip(start, end, strict=True)
    axes.plot(across, along, color=MARK if on else FAINT, linewidth=wide if on else 1, zorder=on)


def _dots(
    axes: Axes, widths: Sequence[int], *, marked: Sequence[set[int]], names: Sequence[str] = ()
) -> None:
    for k, width in enumerate(widths):
        for unit in range(width):
            on = unit in marked[k]
            axes.scatter(*_place(k, unit, width), s=26, color=MARK if on else FAINT, zorder=2)
    _bare(axes, names or [f"layer {k + 1}" for k in range(len(widths))])


def _bare(axes: Axes, names: Sequence[str]) -> None:
    axes.axis("off")
    axes.margins(0.12)
    for k, name in enumerate(names):
        axes.text(k, 1, name, ha="center", fontsize=9, transform=axes.get_xaxis_transform())
    axes.set_ylim(-2.3, 2.5)


def _units(chosen: set[tuple[str, int]], layer: str) -> set[int]:
    return {unit for name, unit in chosen if name == layer}


def _legend(count: int, *, on: bool) -> str:
    return f"the {count} with the most leverage" if on else f"the other {count}"


def _shares(trials: Sequence[Any]) -> list[float]:
    return sorted({trial.settings["neuron_share"] for trial in trials})


if __name__ == "__main__":
    main()
