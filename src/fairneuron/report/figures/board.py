"""A plane of gap and accuracy whose points a script can find again: see ``report.interactive``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairneuron.markup import Html, el, joined
from fairneuron.report.figures.drawing import Axis, Interval, grid, svg, tenth, text, tick, turned

WIDTH, HEIGHT = 500, 316  # of all, and of the plane
_ROW, _CHARACTER = 20, 8  # of the legend, in the larger letters of narrow screens
LOOKS = 24  # of series: a shape and a colour each; after that they come again
_SHAPES = ("circle", "square", "triangle", "diamond")
_COLOURS = 6


class Look(NamedTuple):
    """How a point is drawn.

    Attributes:
        shape: "circle", "square", "triangle", "diamond" or "star".
        colour: A class of the style sheet.
        hollow: Whether it is not filled.
    """

    shape: str
    colour: str
    hollow: bool = False


def look_of(series: int) -> Look:
    """A look for each of ``LOOKS`` series."""
    return Look(_SHAPES[series % len(_SHAPES)], f"s{series % _COLOURS}")


class Spot(NamedTuple):
    """A point with its intervals, and the series that it belongs to."""

    x: float
    y: float
    look: Look
    series: int
    name: str
    x_interval: Interval = None
    y_interval: Interval = None


class Line(NamedTuple):
    """A vertical line: "floor" or "limit", and a colour if it has its own; of a series, or all."""

    x: float
    kind: str
    words: str
    series: int | None = None


@dataclass(frozen=True)
class Board:
    """What is drawn.

    Attributes:
        spots: The points, in the order in which the keyboard reaches them.
        lines: Noise floors and limits.
        joined: Series, colour and places of each line that joins points.
        x: What the x axis shows.
        y: What the y axis shows.
        from_zero: Whether the x axis begins at 0.
        hidden: Series that are not shown at first.
    """

    spots: Sequence[Spot]
    lines: Sequence[Line]
    joined: Sequence[tuple[int, str, Sequence[tuple[float, float]]]]
    x: str
    y: str
    from_zero: bool = True
    hidden: frozenset[int] = frozenset()


def board_plot(title: str, says: str, board: Board) -> Html:
    """The plane; parts of a series say which one, and points their number."""
    left, right = 78, WIDTH - 24
    legend = [*_legend(board, left, right)]
    top = 14 + _ROW * (legend[-1][1] if legend else 0)
    bottom = top + HEIGHT
    xs = [s.x for s in board.spots] + [line.x for line in board.lines]
    ys = [s.y for s in board.spots]
    x = Axis.around(0.0 if board.from_zero else min(xs), max(xs), left, right, most=5)
    margin = max(max(ys) - min(ys), 0.01) * 0.08
    y = Axis.around(min(ys) - margin, max(ys) + margin, bottom, top)
    drawn = [*(entry for entry, _ in legend), *grid(x, top, bottom, board.x)]
    for place, number in y.ticks():
        drawn.append(el("line", x1=left, y1=tenth(place), x2=right, y2=tenth(place), class_="grid"))
        drawn.append(text(left - 6, place + 4, number, "end", class_="muted"))
    drawn.append(turned(14, (top + bottom) / 2, board.y))
    drawn += [_line(board, line, tick(x(line.x), top, bottom, line.kind)) for line in board.lines]
    for series, colour, places in board.joined:
        points = " ".join(f"{tenth(x(a))},{tenth(y(b))}" for a, b in places)
        drawn.append(
            _of(
                series,
                board.hidden,
                el("polyline", points=points, class_=f"front {colour}"),
                "join",
            )
        )
    for i, spot in enumerate(board.spots):
        parts = (el("title", spot.name), *_bars(spot, x, y), mark(spot.look, x(spot.x), y(spot.y)))
        drawn.append(_of(spot.series, board.hidden, joined(parts), "spot", i))
    return svg(title, says, WIDTH, bottom + 50, drawn)


def mark(look: Look, x: float, y: float, size: float = 5.5) -> Html:
    """A point."""
    class_ = f"mark {look.colour} {'hollow' if look.hollow else 'full'}"
    if look.shape == "circle":
        return el("circle", cx=tenth(x), cy=tenth(y), r=tenth(size - 0.5), class_=class_)
    corners = {
        "square": [(size - 1, 45 + 90 * i) for i in range(4)],
        "diamond": [(size + 0.5, 90 * i) for i in range(4)],
        "triangle": [(size + 1, 120 * i) for i in range(3)],
        "star": [(2 * size if i % 2 == 0 else 0.85 * size, 36 * i) for i in range(10)],
    }[look.shape]
    grown = math.sqrt(2) if look.shape == "square" else 1
    turned_by = ((r * grown, math.radians(angle)) for r, angle in corners)
    points = (f"{tenth(x + r * math.sin(a))},{tenth(y - r * math.cos(a))}" for r, a in turned_by)
    return el("polygon", points=" ".join(points), class_=class_)


def swatch(look: Look) -> Html:
    """A point alone, for a button."""
    return el("svg", mark(look, 8, 8), viewBox="0 0 16 16", width=16, height=16, aria_hidden="true")


def _of(
    series: int, hidden: frozenset[int], drawn: Html, class_: str, spot: int | None = None
) -> Html:
    """Something of a series."""
    return el(
        "g",
        drawn,
        class_=f"{class_} off" if series in hidden else class_,
        data_series=series,
        data_spot=spot,
    )


def _line(board: Board, line: Line, drawn: Html) -> Html:
    """A line, or its words; of a series it goes with that."""
    return drawn if line.series is None else _of(line.series, board.hidden, drawn, "lines")


def _legend(board: Board, left: float, right: float) -> Iterator[tuple[Html, int]]:
    """What the lines are, above the plane, where nothing crosses it; each with its row from 1.

    Lines that look alike and have a name in common ("ε = 0.01", "ε = 0.02") are told together.
    """
    told: dict[tuple[str, int | None, str], list[str]] = {}
    for line in board.lines:
        name, equals, value = line.words.partition(" = ")
        told.setdefault((line.kind, line.series, name + equals), []).append(value)
    at, row = left, 1
    for (kind, series, name), values in told.items():
        words = name + ", ".join(filter(None, values))
        wide = 26 + _CHARACTER * len(words)
        if at > left and at + wide > right:
            at, row = left, row + 1
        y = _ROW * row - 2
        entry = joined((tick(at + 3, y - 11, y + 3, kind), text(at + 12, y, words)))
        yield _line(board, Line(0, kind, words, series), entry), row
        at += wide


def _bars(spot: Spot, x: Axis, y: Axis) -> Iterator[Html]:
    """The intervals, cut at the ends of the axes; the style shows those of the point in hand."""

    def cut(axis: Axis, value: float) -> str:
        return tenth(axis(min(max(value, axis.low), axis.high)))

    at, height = tenth(x(spot.x)), tenth(y(spot.y))
    class_ = f"bar {spot.look.colour}"
    if spot.x_interval is not None:
        a, b = (cut(x, v) for v in spot.x_interval)
        yield el("line", x1=a, y1=height, x2=b, y2=height, class_=class_)
    if spot.y_interval is not None:
        a, b = (cut(y, v) for v in spot.y_interval)
        yield el("line", x1=at, y1=a, x2=at, y2=b, class_=class_)
