"""Pages with points that one can hover, tap and reach by keyboard: one file, one small script.

All that the script adds also stands in tables, so the page says the same without it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from fairneuron.errors import printable
from fairneuron.markup import Html, el
from fairneuron.report.figures import Board, Look, board_plot, swatch
from fairneuron.report.page import document, section

_HOW = (
    "Point at a mark, tap it, or go there with the tab and arrow keys to see what it is; bars are "
    "95 % intervals, cut at the edges. Escape puts the box away. The buttons show and hide marks. "
    "The table has the figures, too."
)


@dataclass(frozen=True)
class View:
    """A plane with what is told of its points.

    Attributes:
        title: Heading, and name of the drawing.
        board: What is drawn.
        series: Name and look of each series.
        facts: For each point of the board terms with what they are.
        words: What stands before the drawing.
        table: The same figures.
    """

    title: str
    board: Board
    series: Sequence[tuple[str, Look]]
    facts: Sequence[Sequence[tuple[str, str]]]
    words: Sequence[Html]
    table: Html


def interactive_page(title: str, lead: Sequence[Html], views: Sequence[View]) -> bytes:
    """A page of such planes."""
    told = [
        [
            {"name": printable(spot.name), "facts": [[*map(printable, fact)] for fact in facts]}
            for spot, facts in zip(view.board.spots, view.facts, strict=True)
        ]
        for view in views
    ]
    return document(
        title,
        lead,
        [section(view.title, *view.words, _plot(view), view.table) for view in views],
        script=_script(),
        data=data_block(told),
    )


def data_block(value: object) -> Html:
    """JSON for a script to read; no text in it can end the element or begin another one."""
    shown = json.dumps(value, allow_nan=False)  # ASCII alone
    for character in "<>&":
        shown = shown.replace(character, f"\\u{ord(character):04x}")
    return el("script", Html(shown), type="application/json", id="points")


def _plot(view: View) -> Html:
    board = view.board
    says = "; ".join(f"{s.name}: {s.y:.3f} at {s.x:.3f}" for s in board.spots)
    buttons = (
        el(
            "button",
            swatch(look),
            name,
            type="button",
            aria_pressed="false" if number in board.hidden else "true",
            data_series=number,
        )
        for number, (name, look) in enumerate(view.series)
    )
    return el(
        "figure",
        el("div", *buttons, class_="toggles", role="group", aria_label="Show", hidden=""),
        board_plot(view.title, f"{says}.", board),
        el("div", class_="tip", hidden="", aria_hidden="true"),
        el("figcaption", _HOW),
        class_="plot",
    )


@cache
def _script() -> Html:
    """The script; it is ours, and has nothing that ends a script element."""
    file = resources.files("fairneuron.report") / "front.js"
    return Html("\n" + file.read_text(encoding="utf-8"))
