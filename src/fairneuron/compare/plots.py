"""Plots of a comparison: accuracy against gap, as SVG that is the same for the same figures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple

from fairneuron.errors import OptionError, printable
from fairneuron.metrics.definitions import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Figures = dict[str, Any]
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D1F", "#7F7F7F")
"""After Okabe and Ito, Color Universal Design (2008): told apart with any colour vision."""
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))  # another one when the colours are used up
_REFERENCE = "#000000"
REACH = 2.0  # how far the plot goes


def require_matplotlib() -> None:
    """Raises an ``OptionError`` without matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise OptionError(
            "option-plots",
            "Plots need matplotlib",
            got="an environment without it",
            cure="pip install 'fairneuron[plots]', or go without plots.",
        ) from error


def front_plot(figures: Figures, data: str) -> bytes:
    """Test accuracy against test gap of every method at each ε, with intervals, as an SVG file.

    Args:
        figures: Those of one criterion, from ``Comparison.to_dict``.
        data: Name of the data.

    Raises:
        OptionError: Without matplotlib.
    """
    return render(figures, data, "svg")


def render(figures: Figures, data: str, kind: str) -> bytes:
    """The plot as a file of a kind such as "svg" or "png"; see ``front_plot``."""
    require_matplotlib()
    import matplotlib as mpl

    look: dict[Any, Any] = {
        "svg.hashsalt": "fairneuron",  # names inside the file do not change from run to run
        "svg.fonttype": "path",  # no font is needed to show it
        "font.family": "DejaVu Sans",  # comes with matplotlib
        "font.size": 9.0,
        "text.parse_math": False,  # names of users are texts
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(look)
        figure = _figure(figures, data)
        file = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if kind == "svg" else None
        figure.savefig(file, format=kind, metadata=metadata, dpi=130)
    return file.getvalue()


def _figure(figures: Figures, data: str) -> Figure:
    from matplotlib.figure import Figure as New

    panels = [
        aware
        for aware in (False, True)
        if any(one["needs_sensitive"] == aware for one in figures["methods"].values())
    ]
    figure = New(figsize=(4.6 * len(panels) + 2.4, 4.4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    criterion = figures["criterion"]
    for ax, aware in zip(axes, panels, strict=True):
        _panel(ax, figures, aware)
        if len(panels) > 1:
            what = "reads" if aware else "does not read"
            ax.set_title(f"{what} the sensitive attribute to predict", size=9)
        ax.set_xlabel(f"{METRICS[criterion].title}, test data")
    _zoom(axes, figures)
    axes[0].set_ylabel("accuracy, test data")
    figure.suptitle(f"{printable(data)}: better is up and to the left", size=10)
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles, loc="outside right upper", frameon=False, fontsize=8.5)
    return figure


def _panel(ax: Axes, figures: Figures, aware: bool) -> None:
    """Methods of one kind; the reference is in both."""
    base, reference = figures["base"], figures["reference"]
    if base["noise_floor"] is not None:
        ax.axvspan(0, base["noise_floor"], color="#EEEEEE", lw=0, label="below the noise floor")
    for at in figures["at"]:
        ax.axvline(at["epsilon"], color="#BBBBBB", lw=0.7, ls=":", zorder=0, label="ε")
    if base["gap"]["mean"] is not None:
        gap, accuracy = base["gap"]["mean"], base["accuracy"]["mean"]
        star: Figures = {"marker": "*", "ms": 11, "color": "#444444", "ls": "none", "zorder": 5}
        ax.plot(gap, accuracy, label="base model", **star)
    hollow: Figures = {"marker": "o", "mfc": "white", "mec": "#444444", "ls": "none", "ms": 5}
    ax.plot([], [], label="hollow: mostly beyond ε\non validation data", **hollow)
    _line(ax, figures, reference, _Look("o", _REFERENCE, "-", bold=True))
    others = [name for name in figures["methods"] if name not in (reference, "naive")]
    for number, name in enumerate(others):  # "naive" is the base model
        if figures["methods"][name]["needs_sensitive"] == aware:
            marker, colour = (of[number % len(of)] for of in (_MARKERS, _COLOURS))
            dashes = _DASHES[number // len(_COLOURS) % len(_DASHES)]
            _line(ax, figures, name, _Look(marker, colour, dashes))
    ax.set_xlim(left=0)


def _zoom(axes: Sequence[Axes], figures: Figures) -> None:
    """Shows where the reference is; what lies far off is named below it.

    That is below the base model by more than ``REACH`` times what the reference loses at most, or
    at more than ``REACH`` times its largest gap.
    """
    points, base = _points(figures), figures["base"]
    own = [(gap, accuracy) for name, gap, accuracy in points if name == figures["reference"]]
    if not own or base["gap"]["mean"] is None:
        return
    star = base["gap"]["mean"], base["accuracy"]["mean"]
    wide = REACH * max(gap for gap, _ in own)
    low = star[1] - REACH * max(star[1] - min(accuracy for _, accuracy in own), 0.005)
    near = [(g, a) for _, g, a in points if g <= wide and a >= low]
    top = max(star[1], *(a for _, a in near))
    bottom = min(a for _, a in near)
    margin = 0.15 * (top - bottom)
    for ax, aware in zip(axes, (False, True)[-len(axes) :], strict=True):
        ax.set_ylim(bottom - margin, top + margin)
        if star[0] > wide:
            ax.set_xlim(0, 1.15 * max(g for g, _ in near))
        far = {
            name: (g, a)
            for name, g, a in points
            if (g > wide or a < low) and figures["methods"][name]["needs_sensitive"] == aware
        }
        if star[0] > wide:
            far = {"base model": star, **far}
        lines = [
            f"{printable(name)}: gap {g:.3f}, accuracy {a:.3f}" for name, (g, a) in far.items()
        ]
        if lines:
            told = [ax.get_xlabel(), "further off:", *lines]  # below the plane: nothing crosses it
            ax.set_xlabel("\n".join(told))


def _points(figures: Figures) -> list[tuple[str, float, float]]:
    """Method, gap and accuracy of all that is drawn."""
    return [
        (name, one["gap"]["mean"], one["accuracy"]["mean"])
        for at in figures["at"]
        for name, one in at["methods"].items()
        if name != "naive" and one["gap"]["mean"] is not None
    ]


class _Look(NamedTuple):
    """How a method is drawn."""

    marker: str
    colour: str
    dashes: Any
    bold: bool = False


def _line(ax: Axes, figures: Figures, name: str, look: _Look) -> None:
    """A method's points at each ε; hollow where most seeds had no configuration within ε."""
    found = [at["methods"][name] for at in figures["at"] if name in at["methods"]]
    shown = [one for one in found if one["gap"]["mean"] is not None]
    if not shown:
        return
    x, y = ([one[figure]["mean"] for one in shown] for figure in ("gap", "accuracy"))
    above, size = (10, 7.0) if look.bold else (3, 5.0)
    line: Figures = {
        "ls": look.dashes,
        "lw": 2.2 if look.bold else 1.0,
        "zorder": above,
        "label": printable(name),
    }
    mark: Figures = {"marker": look.marker, "ms": size, "mec": look.colour}
    bars: Figures = {"elinewidth": 1.2 if look.bold else 0.6, "alpha": 1.0 if look.bold else 0.55}
    ax.plot(x, y, color=look.colour, **line, **mark)
    for one, gap, accuracy in zip(shown, x, y, strict=True):
        ax.errorbar(
            gap,
            accuracy,
            xerr=_bar(one["gap"]),
            yerr=_bar(one["accuracy"]),
            fmt="none",
            ecolor=look.colour,
            zorder=above - 1,
            **bars,
        )
        if (one["flagged"] or 0) > 0.5:
            ax.plot(gap, accuracy, mfc="white", ls="none", zorder=above + 1, **mark)


def _bar(found: Figures) -> list[list[float]] | None:
    """How far the interval reaches below and above the mean."""
    if found["interval"] is None:
        return None
    low, high = found["interval"]
    return [[max(0.0, found["mean"] - low)], [max(0.0, high - found["mean"])]]
