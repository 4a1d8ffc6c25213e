"""Methods side by side, a panel each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairneuron.markup import Html, el, joined
from fairneuron.report.figures.candidates import Point, candidate_mark
from fairneuron.report.figures.drawing import Axis, Interval, grid, svg, tenth, text, tick


class Cross(NamedTuple):
    """Mean gap and accuracy with their intervals, and whether it is hollow."""

    x: float
    y: float
    x_interval: Interval
    y_interval: Interval
    hollow: bool


@dataclass(frozen=True)
class Panel:
    """What all panels of a comparison share.

    Attributes:
        x: Bounds of the gaps that are shown.
        y: Bounds of the accuracies that are shown.
        base: Gap and accuracy of the base model.
        reference: The points of the reference.
        floor: The noise floor of the gap.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    base: tuple[float, float] | None
    reference: Sequence[Cross]
    floor: float | None

    def draw(self, title: str, says: str, own: Sequence[Cross]) -> Html:
        """The panel of a method; what lies outside is said."""
        left, right, top, bottom = 50, 250, 12, 150
        x = Axis.around(*self.x, left, right, most=4)
        y = Axis.around(*self.y, bottom, top, most=4)
        drawn = [*grid(x, top, bottom, "gap")]
        for place, number in y.ticks():
            drawn.append(
                el("line", x1=left, y1=tenth(place), x2=right, y2=tenth(place), class_="grid")
            )
            drawn.append(text(left - 6, place + 4, number, "end", class_="muted"))
        if self.floor is not None and self.floor <= x.high:
            drawn.append(tick(x(self.floor), top, bottom, "floor"))

        def inside(p: Cross) -> bool:
            return x.low <= p.x <= x.high and y.low <= p.y <= y.high

        if self.base is not None and x.low <= self.base[0] <= x.high:
            base = Point(*self.base, "original", "base model", 0)
            drawn.append(candidate_mark(base, x(base.x), y(base.y)))
        shown = [p for p in self.reference if inside(p)]
        line = " ".join(f"{tenth(x(p.x))},{tenth(y(p.y))}" for p in shown)
        drawn.append(el("polyline", points=line, class_="reference"))
        for point in (p for p in own if inside(p)):
            drawn.append(_cross(point, x, y))
        far = [p for p in own if not inside(p)]
        words = f"further off: {', '.join(f'{p.y:.2f} at {p.x:.2f}' for p in far[:2])}"
        if far:
            drawn.append(text(left + 4, bottom - 6, words, class_="small"))
        return svg(title, says, right + 14, bottom + 44, drawn)


def _cross(point: Cross, x: Axis, y: Axis) -> Html:
    """A dot with both intervals, cut at the ends of the axes."""

    def cut(axis: Axis, value: float) -> float:
        return axis(min(max(value, axis.low), axis.high))

    at, bars = (x(point.x), y(point.y)), []
    if point.x_interval is not None:
        a, b = (tenth(cut(x, v)) for v in point.x_interval)
        bars.append(
            el("line", x1=a, y1=tenth(at[1]), x2=b, y2=tenth(at[1]), class_="bar thin after")
        )
    if point.y_interval is not None:
        a, b = (tenth(cut(y, v)) for v in point.y_interval)
        bars.append(
            el("line", x1=tenth(at[0]), y1=a, x2=tenth(at[0]), y2=b, class_="bar thin after")
        )
    dot = el(
        "circle",
        cx=tenth(at[0]),
        cy=tenth(at[1]),
        r=4,
        class_="mark " + ("hollow" if point.hollow else "full"),
    )
    return joined((*bars, dot))
