"""Candidates in the plane of gap and accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairneuron.markup import Html, el
from fairneuron.report.figures.drawing import Axis, grid, svg, tenth, text, tick, turned


class Point(NamedTuple):
    """A candidate: its place, what it is ("chosen", "original", "front", "other"), its name."""

    x: float
    y: float
    kind: str
    name: str
    number: int
    on_front: bool = False


@dataclass(frozen=True)
class Plane:
    """What is drawn of candidates.

    Attributes:
        points: The candidates.
        joined: Whether a line joins those on the front.
        limit: Of the metric on the x axis.
        at_least: Whether the limit is one from below.
        x: What the x axis shows.
        y: What the y axis shows.
    """

    points: Sequence[Point]
    joined: bool
    limit: float
    at_least: bool
    x: str
    y: str


def candidate_plot(title: str, says: str, plane: Plane) -> Html:
    """Accuracy against gap of the candidates, their front, the chosen one and the limit."""
    points = plane.points
    left, right, top, bottom = 70, 600, 50, 330
    xs = [p.x for p in points] + [plane.limit]
    ys = [p.y for p in points]
    low = min(xs) if plane.at_least else 0.0
    x = Axis.around(low, max(xs), left, right)
    margin = max(max(ys) - min(ys), 0.01) * 0.08
    y = Axis.around(min(ys) - margin, max(ys) + margin, bottom, top)
    drawn = [*_candidate_legend(plane), *grid(x, top, bottom, plane.x)]
    for place, number in y.ticks():
        drawn.append(el("line", x1=left, y1=tenth(place), x2=right, y2=tenth(place), class_="grid"))
        drawn.append(text(left - 8, place + 4, number, "end", class_="muted"))
    drawn.append(turned(18, (top + bottom) / 2, plane.y))
    drawn.append(tick(x(plane.limit), top, bottom, "limit"))
    if plane.joined:
        front = sorted((p for p in points if p.on_front), key=lambda p: p.x)
        line = " ".join(f"{tenth(x(p.x))},{tenth(y(p.y))}" for p in front)
        drawn.append(el("polyline", points=line, class_="front"))
    order = {"other": 0, "front": 1, "original": 2, "chosen": 3}
    for point in sorted(points, key=lambda p: order[p.kind]):
        drawn.append(candidate_mark(point, x(point.x), y(point.y)))
    return svg(title, says, right + 40, bottom + 44, drawn)


_CANDIDATES = {
    "chosen": "chosen",
    "original": "original",
    "front": "front",
    "other": "other candidate",
}


def _candidate_legend(plane: Plane) -> Iterator[Html]:
    x, points = 70.0, plane.points
    kept = any(p.kind == "chosen" and p.number == 0 for p in points)
    for kind, title in _CANDIDATES.items():
        if any(point.kind == kind for point in points):
            name = "the original, chosen" if kept and kind == "chosen" else title
            yield candidate_mark(Point(0, 0, kind, name, 0), x + 6, 20)
            yield text(x + 20, 24, name)
            x += 36 + 7 * len(name)
    yield tick(x + 4, 12, 28, "limit")
    yield text(x + 12, 24, f"limit {'≥' if plane.at_least else '≤'} {plane.limit:g}")


def candidate_mark(point: Point, x: float, y: float) -> Html:
    """A star for the chosen one, a square for the original; the others are circles."""
    name = el("title", point.name)
    if point.kind == "chosen":
        corners = " ".join(
            f"{tenth(x + r * math.sin(math.pi * i / 5))},{tenth(y - r * math.cos(math.pi * i / 5))}"
            for i, r in enumerate((10, 4.2) * 5)
        )
        return el("polygon", name, points=corners, class_="mark chosen")
    if point.kind == "original":
        return el(
            "rect", name, x=tenth(x - 5), y=tenth(y - 5), width=10, height=10, class_="mark before"
        )
    return el("circle", name, cx=tenth(x), cy=tenth(y), r=4.5, class_=f"mark {point.kind}")
