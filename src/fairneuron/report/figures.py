"""Figures of the reports as SVG inside HTML: drawn by hand, the same for the same figures.

Colours come from the page's style by class, so that they follow light and dark; no meaning is in a
colour alone, and each figure says in words what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fairneuron.markup import Html, el, joined

Interval = Sequence[float] | None
ROWS = 30  # of a figure; tables have more
CELLS, HIGH = 512, 32  # dots of a layer, and of a column of them


class Mark(NamedTuple):
    """A value with its interval, and how it is drawn: "before" or "after"."""

    kind: str
    value: float | None
    interval: Interval


class Row(NamedTuple):
    """What a line of a plot shows; ``floor`` and ``limit`` are ticks on it."""

    label: str
    marks: Sequence[Mark]
    floor: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Axis:
    """Maps values to places; its ends are round numbers.

    Attributes:
        low: The value at ``start``.
        high: The value at ``end``.
        start: A place.
        end: A place.
        step: Between ticks.
    """

    low: float
    high: float
    start: float
    end: float
    step: float = field(default=0.1)

    @classmethod
    def around(cls, low: float, high: float, start: float, end: float, *, most: int = 6) -> Axis:
        """One with at most ``most`` steps between round numbers that hold ``low`` and ``high``."""
        span = max(high - low, 1e-3)
        power = 10.0 ** math.floor(math.log10(span / most))
        step = next(m * power for m in (1, 2, 5, 10, 20) if span / (m * power) <= most)
        first = math.floor(low / step + 1e-9) * step
        last = math.ceil(high / step - 1e-9) * step
        return cls(first, max(last, first + step), start, end, step)

    def __call__(self, value: float) -> float:
        """The place of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Places and their texts."""
        digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
        for i in range(round((self.high - self.low) / self.step) + 1):
            value = self.low + i * self.step
            yield self(value), f"{value + 0:.{digits}f}"


def interval_plot(title: str, says: str, rows: Sequence[Row], axis_title: str) -> Html:
    """A line per row: values as marks, 95 % intervals as bars, noise floors and limits as ticks."""
    shown = rows[:ROWS]
    kinds = list(dict.fromkeys(mark.kind for row in shown for mark in row.marks))
    left, right, top, apart = 260, 680, 46, 14
    each = apart * len(kinds) + 16
    values = [v for row in shown for v in _values(row)]
    axis = Axis.around(0, max(values, default=1.0), left, right)
    bottom = top + each * len(shown)
    drawn = [*_legend(shown, kinds), *_grid(axis, top, bottom, axis_title)]
    for number, row in enumerate(shown):
        y = top + each * number + 8
        drawn.append(_text(left - 12, y + apart * len(kinds) / 2 + 4, short(row.label, 36), "end"))
        for tick, kind in ((row.floor, "floor"), (row.limit, "limit")):
            if tick is not None:
                drawn.append(_tick(axis(tick), y - 4, y + apart * len(kinds) + 4, kind))
        for line, mark in enumerate(row.marks):
            if mark.value is not None:
                drawn.append(_marked(mark, axis, y + apart * (line + 0.5)))
    return _svg(title, says, right + 60, bottom + 44, drawn)


def _values(row: Row) -> Iterator[float]:
    for mark in row.marks:
        yield from (v for v in (mark.value, *(mark.interval or ())) if v is not None)
    yield from (v for v in (row.floor, row.limit) if v is not None)


def _legend(rows: Sequence[Row], kinds: Sequence[str]) -> Iterator[Html]:
    x = 260.0
    for kind in kinds:
        yield _shape(kind, x + 5, 16)
        yield _text(x + 16, 20, kind)
        x += 28 + 7 * len(kind)
    for kind, name in (("floor", "noise floor"), ("limit", "limit")):
        if any(getattr(row, kind) is not None for row in rows):
            yield _tick(x + 5, 8, 24, kind)
            yield _text(x + 14, 20, name)
            x += 28 + 7 * len(name)
    yield _text(x, 20, "bars: 95 % intervals", class_="muted")


def _grid(axis: Axis, top: float, bottom: float, title: str) -> Iterator[Html]:
    for x, number in axis.ticks():
        yield el("line", x1=_n(x), y1=top, x2=_n(x), y2=_n(bottom), class_="grid")
        yield _text(x, bottom + 16, number, "middle", class_="muted")
    yield _text((axis.start + axis.end) / 2, bottom + 36, title, "middle")


def _marked(mark: Mark, axis: Axis, y: float) -> Html:
    assert mark.value is not None  # noqa: S101  # the caller knows
    number = f"{mark.value:.3f}"
    end = axis(mark.value) + 6
    bar = None
    if mark.interval is not None:
        low, high = map(axis, mark.interval)
        end = max(end, high)
        bar = el("line", x1=_n(low), y1=_n(y), x2=_n(high), y2=_n(y), class_=f"bar {mark.kind}")
    spot = _shape(mark.kind, axis(mark.value), y)
    return joined((bar, spot, _text(end + 6, y + 4, number, class_="small")))


def _shape(kind: str, x: float, y: float, size: float = 4.5) -> Html:
    """Hollow circles before, filled squares after, filled circles for other things."""
    if kind == "after":
        return el(
            "rect",
            x=_n(x - size),
            y=_n(y - size),
            width=_n(2 * size),
            height=_n(2 * size),
            class_="mark after",
        )
    return el("circle", cx=_n(x), cy=_n(y), r=_n(size), class_=f"mark {kind}")


def _tick(x: float, y1: float, y2: float, kind: str) -> Html:
    return el("line", x1=_n(x), y1=_n(y1), x2=_n(x), y2=_n(y2), class_=f"tick {kind}")


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
    drawn = [*_candidate_legend(points), *_grid(x, top, bottom, plane.x)]
    for place, number in y.ticks():
        drawn.append(el("line", x1=left, y1=_n(place), x2=right, y2=_n(place), class_="grid"))
        drawn.append(_text(left - 8, place + 4, number, "end", class_="muted"))
    drawn.append(_turned(18, (top + bottom) / 2, plane.y))
    drawn.append(_tick(x(plane.limit), top, bottom, "limit"))
    sign = "≥" if plane.at_least else "≤"
    place, beyond = x(plane.limit), x(plane.limit) > right - 90
    words, anchor = f"limit {sign} {plane.limit:g}", "end" if beyond else None
    drawn.append(_text(place - 6 if beyond else place + 6, top + 14, words, anchor))
    if plane.joined:
        front = sorted((p for p in points if p.on_front), key=lambda p: p.x)
        line = " ".join(f"{_n(x(p.x))},{_n(y(p.y))}" for p in front)
        drawn.append(el("polyline", points=line, class_="front"))
    order = {"other": 0, "front": 1, "original": 2, "chosen": 3}
    for point in sorted(points, key=lambda p: order[p.kind]):
        drawn.append(_candidate(point, x(point.x), y(point.y)))
    return _svg(title, says, right + 40, bottom + 44, drawn)


_CANDIDATES = {
    "chosen": "chosen",
    "original": "original",
    "front": "front",
    "other": "other candidate",
}


def _candidate_legend(points: Sequence[Point]) -> Iterator[Html]:
    x = 70.0
    kept = any(p.kind == "chosen" and p.number == 0 for p in points)
    for kind, title in _CANDIDATES.items():
        if any(point.kind == kind for point in points):
            name = "the original, chosen" if kept and kind == "chosen" else title
            yield _candidate(Point(0, 0, kind, name, 0), x + 6, 20)
            yield _text(x + 20, 24, name)
            x += 36 + 7 * len(name)


def _candidate(point: Point, x: float, y: float) -> Html:
    """A star for the chosen one, a square for the original; the others are circles."""
    name = el("title", point.name)
    if point.kind == "chosen":
        corners = " ".join(
            f"{_n(x + r * math.sin(math.pi * i / 5))},{_n(y - r * math.cos(math.pi * i / 5))}"
            for i, r in enumerate((10, 4.2) * 5)
        )
        return el("polygon", name, points=corners, class_="mark chosen")
    if point.kind == "original":
        return el("rect", name, x=_n(x - 5), y=_n(y - 5), width=10, height=10, class_="mark before")
    return el("circle", name, cx=_n(x), cy=_n(y), r=4.5, class_=f"mark {point.kind}")


class Column(NamedTuple):
    """A hidden layer: its name, how many neurons it has, and which are highlighted."""

    name: str
    neurons: int
    highlighted: Sequence[int]


def network_plot(title: str, says: str, columns: Sequence[Column]) -> Html:
    """Layers as columns of dots; highlighted neurons are larger, filled and named."""
    x, top, pitch, drawn = 20.0, 62, 14, []
    ends = 0.0
    high = max((min(HIGH, _cells(c)) for c in columns), default=1) * pitch
    drawn.append(_block(x, top, high, "inputs"))
    x += 64
    for column in columns:
        cells, many = _cells(column), math.ceil(column.neurons / CELLS)
        across = math.ceil(cells / HIGH)
        named = across <= 4
        wide = 46 if named else 16
        width = max(across * wide, 110)
        drawn.append(_arrow(x - 22, top + high / 2))
        drawn.append(_text(x, 26, f"layer {short(column.name, 12)}"))
        count = f"{len(column.highlighted)} of {column.neurons}"
        drawn.append(_text(x, 44, count, class_="muted"))
        chosen = {unit // many for unit in column.highlighted}
        places = [(x + 6 + c // HIGH * wide, top + 6 + c % HIGH * pitch) for c in range(cells)]
        plain = "".join(
            f"M{_n(px)} {_n(py)}h0" for c, (px, py) in enumerate(places) if c not in chosen
        )
        drawn.append(el("path", d=plain or "M0 0", class_="dots"))
        for cell in sorted(chosen):
            px, py = places[cell]
            name = f"{short(column.name, 12)}.{cell * many}"
            drawn.append(el("circle", el("title", name), cx=_n(px), cy=_n(py), r=5, class_="hit"))
            if named and many == 1:
                label = name if len(name) <= 6 else f".{cell}"
                drawn.append(_text(px + 8, py + 4, label, class_="small"))
        ends = max(ends, top + min(HIGH, cells) * pitch)
        x += width + 34
    drawn.append(_arrow(x - 22, top + high / 2))
    drawn.append(_block(x, top, high, "output"))
    return _svg(title, says, x + 60, max(ends, top + high) + 12, drawn)


def _cells(column: Column) -> int:
    return math.ceil(column.neurons / math.ceil(column.neurons / CELLS))


def _block(x: float, top: float, high: float, name: str) -> Html:
    box = el("rect", x=_n(x - 10), y=top, width=30, height=_n(high), rx=4, class_="block")
    return joined((box, _turned(x + 9, top + high / 2, name)))


def _arrow(x: float, y: float) -> Html:
    line = f"M{_n(x - 8)} {_n(y)}h14m-5 -4l5 4l-5 4"
    return el("path", d=line, class_="arrow")


def frequency_plot(
    title: str, says: str, frequencies: Sequence[Sequence[int]], rare: float
) -> Html:
    """How many samples share a path, by the rank of the path; both axes are logarithmic."""
    left, right, top, bottom = 70, 600, 24, 300
    paths = sum(many for _, many in frequencies)
    most = frequencies[0][0]

    def place(value: float, largest: float, start: float, end: float) -> float:
        return start + math.log10(max(value, 1)) / max(math.log10(max(largest, 10)), 1) * (
            end - start
        )

    drawn: list[Html] = []
    for largest, across in ((paths, True), (most, False)):
        for power in range(math.floor(math.log10(max(largest, 10)) + 1e-9) + 1):
            number = f"{10**power:,}"
            if across:
                at = place(10**power, largest, left, right)
                drawn.append(el("line", x1=_n(at), y1=top, x2=_n(at), y2=bottom, class_="grid"))
                drawn.append(_text(at, bottom + 16, number, "middle", class_="muted"))
            else:
                at = place(10**power, largest, bottom, top)
                drawn.append(el("line", x1=left, y1=_n(at), x2=right, y2=_n(at), class_="grid"))
                drawn.append(_text(left - 8, at + 4, number, "end", class_="muted"))
    corners, rank = [], 1
    for count, many in frequencies:
        y = _n(place(count, most, bottom, top))
        corners += [f"{_n(place(r, paths, left, right))},{y}" for r in (rank, rank + many)]
        rank += many
    threshold = place(rare, most, bottom, top)
    drawn.append(
        el("line", x1=left, y1=_n(threshold), x2=right, y2=_n(threshold), class_="tick limit")
    )
    drawn.append(_text(left + 8, threshold - 6, "rare: at or below this line"))
    drawn.append(el("polyline", points=" ".join(corners), class_="curve"))
    drawn.append(_text((left + right) / 2, bottom + 36, "paths, the most frequent first", "middle"))
    drawn.append(_turned(18, (top + bottom) / 2, "samples that share the path"))
    return _svg(title, says, right + 40, bottom + 44, drawn)


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
        drawn = [*_grid(x, top, bottom, "gap")]
        for place, number in y.ticks():
            drawn.append(el("line", x1=left, y1=_n(place), x2=right, y2=_n(place), class_="grid"))
            drawn.append(_text(left - 6, place + 4, number, "end", class_="muted"))
        if self.floor is not None and self.floor <= x.high:
            drawn.append(_tick(x(self.floor), top, bottom, "floor"))

        def inside(p: Cross) -> bool:
            return x.low <= p.x <= x.high and y.low <= p.y <= y.high

        if self.base is not None and x.low <= self.base[0] <= x.high:
            base = Point(*self.base, "original", "base model", 0)
            drawn.append(_candidate(base, x(base.x), y(base.y)))
        shown = [p for p in self.reference if inside(p)]
        line = " ".join(f"{_n(x(p.x))},{_n(y(p.y))}" for p in shown)
        drawn.append(el("polyline", points=line, class_="reference"))
        for point in (p for p in own if inside(p)):
            drawn.append(_cross(point, x, y))
        far = [p for p in own if not inside(p)]
        words = f"further off: {', '.join(f'{p.y:.2f} at {p.x:.2f}' for p in far[:2])}"
        if far:
            drawn.append(_text(left + 4, bottom - 6, words, class_="small"))
        return _svg(title, says, right + 14, bottom + 44, drawn)


def _cross(point: Cross, x: Axis, y: Axis) -> Html:
    """A dot with both intervals, cut at the ends of the axes."""

    def cut(axis: Axis, value: float) -> float:
        return axis(min(max(value, axis.low), axis.high))

    at, bars = (x(point.x), y(point.y)), []
    if point.x_interval is not None:
        a, b = (_n(cut(x, v)) for v in point.x_interval)
        bars.append(el("line", x1=a, y1=_n(at[1]), x2=b, y2=_n(at[1]), class_="bar thin after"))
    if point.y_interval is not None:
        a, b = (_n(cut(y, v)) for v in point.y_interval)
        bars.append(el("line", x1=_n(at[0]), y1=a, x2=_n(at[0]), y2=b, class_="bar thin after"))
    dot = el(
        "circle",
        cx=_n(at[0]),
        cy=_n(at[1]),
        r=4,
        class_="mark " + ("hollow" if point.hollow else "full"),
    )
    return joined((*bars, dot))


def _svg(title: str, says: str, width: float, height: float, drawn: Sequence[Any]) -> Html:
    return el(
        "svg",
        el("title", title),
        el("desc", says),
        *drawn,
        role="img",
        viewBox=f"0 0 {_n(width)} {_n(height)}",
        width=_n(width),
        height=_n(height),
    )


def _text(
    x: float, y: float, words: str, anchor: str | None = None, class_: str | None = None
) -> Html:
    return el("text", words, x=_n(x), y=_n(y), text_anchor=anchor, class_=class_)


def _turned(x: float, y: float, words: str) -> Html:
    """A text from below to above."""
    turn = f"rotate(-90 {_n(x)} {_n(y)})"
    return el("text", words, x=_n(x), y=_n(y), text_anchor="middle", transform=turn)


def short(words: str, most: int) -> str:
    """A text of at most so many characters."""
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _n(value: float) -> str:
    """A place to a tenth, without what says nothing."""
    return f"{value:.1f}".removesuffix(".0")
