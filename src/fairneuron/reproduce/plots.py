"""Figures 4 and 5 as SVG that is the same for the same records."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fairneuron.compare.plots import require_matplotlib
from fairneuron.reproduce import paper
from fairneuron.reproduce.figures import TITLES
from fairneuron.reproduce.found import Found, Section
from fairneuron.reproduce.measures import FIGURE4
from fairneuron.reproduce.tables import FIGURE5_METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OURS, _NAIVE, _EA, _PAPER = "#000000", "#D55E00", "#0072B2", "#E5E5E5"
_LOOK: dict[Any, Any] = {
    "svg.hashsalt": "fairneuron",  # names inside the file do not change from run to run
    "svg.fonttype": "path",  # no font is needed to show it
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def plots_of(
    name: str, found: Sequence[Found], sections: Sequence[Section], *, quick: bool
) -> dict[str, bytes]:
    """File name to SVG; none for tables, and for records that all failed.

    Args:
        name: Of the experiment.
        found: Its records.
        sections: Its tables.
        quick: Whether to say that it is a quick run.

    Raises:
        OptionError: Without matplotlib.
    """
    if name == "figure4":
        measured = found[0].each("paths")
        counts = measured[0]["counts_of_paths"] if measured else None
        return {"figure4.svg": _svg(_figure4, counts, quick)} if counts else {}
    if name == "figure5":
        return {
            f"figure5-{each['over']}-{each['part']}.svg": _svg(_figure5, each, quick)
            for each in sections
            if len(each["rows"]) > 2
        }
    return {}


def _svg(draw: Any, what: Any, quick: bool) -> bytes:
    require_matplotlib()
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_LOOK)
        figure = draw(what)
        if quick:
            figure.suptitle("quick run: its figures say nothing", size=9)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _figure4(counts: Sequence[Sequence[int]]) -> Figure:
    """Paths by their samples, the most frequent first, and samples up to a count; first seed."""
    from matplotlib.figure import Figure as New

    samples, paths = np.array(counts).T  # ascending by samples, (k,) each
    largest = int(samples.max())
    limit = max(FIGURE4["theta"] * largest, 1)
    figure = New(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_path = np.repeat(samples[::-1], paths[::-1])
    left.plot(np.arange(1, len(by_path) + 1), by_path, color=_OURS, drawstyle="steps-mid")
    left.set(xlabel="activation paths, sorted", ylabel="training samples", xscale="log")
    left.set_yscale("log")
    left.axhline(limit, color=_NAIVE, ls="--", label=f"max(θ · M, 1) = {limit:.3g}")
    left.legend(frameon=False)
    share = np.cumsum(samples * paths) / (samples * paths).sum()
    right.plot(samples, share, color=_OURS, marker=".", drawstyle="steps-post")
    right.axvline(limit, color=_NAIVE, ls="--")
    right.set(
        xlabel="samples on a path", ylabel="share of samples, cumulative", xscale="log", ylim=(0, 1)
    )
    return figure


def _figure5(each: Section) -> Figure:
    """A panel per metric; FairNeuron, horizontal lines for the others, the paper's range."""
    from matplotlib.figure import Figure as New

    figure = New(figsize=(9.6, 5.6), layout="constrained")
    for ax, metric in zip(figure.subplots(2, 2).flat, FIGURE5_METRICS, strict=True):
        _panel(ax, each, metric)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8.5)
    return figure


def _panel(ax: Axes, each: Section, metric: str) -> None:
    over = each["over"]
    sign = {"theta": "θ", "gamma": "γ"}[over]
    rows = {row["label"]: row["cells"][metric] for row in each["rows"]}
    low, high = paper.RANGES[over, metric]
    ax.axhspan(low, high, color=_PAPER, lw=0, label="FairNeuron, as plotted in the paper")
    own = {float(k.partition("= ")[2]): c["ours"] for k, c in rows.items() if k.startswith(sign)}
    defined = {value: found for value, found in own.items() if found["mean"] is not None}
    means = [found["mean"] for found in defined.values()]
    ax.errorbar(
        list(defined),
        means,
        yerr=[found["sd"] or 0 for found in defined.values()],
        color=_OURS,
        marker="o",
        ms=4,
        lw=1.4,
        elinewidth=0.7,
        label="FairNeuron here, ± sd",
    )
    naive, ea = rows["naive"]["ours"]["mean"], rows[paper.EA]
    if naive is not None:
        ax.axhline(naive, color=_NAIVE, ls="-.", label="naive here")
    if ea["ours"]["mean"] is not None:
        ax.axhline(ea["ours"]["mean"], color=_EA, label="Ethical Adversaries here")
    if ea.get("paper") is not None:
        ax.axhline(ea["paper"], color=_EA, ls=":", label="Ethical Adversaries in the paper")
    ax.set(xlabel=sign, ylabel=TITLES[metric])
    if over == "theta":
        ax.set_xscale("log")
