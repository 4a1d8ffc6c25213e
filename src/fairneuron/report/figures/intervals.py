"""Values with their intervals, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fairneuron.markup import Html, el, joined
from fairneuron.report.figures.drawing import (
    Axis,
    Interval,
    grid,
    shape,
    short,
    svg,
    tenth,
    text,
    tick,
)

ROWS = 30  # of a figure; tables have more
_LABEL, _CHARACTER = 36, 7  # most characters of a label, and how wide one is


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


def interval_plot(title: str, says: str, rows: Sequence[Row], axis_title: str) -> Html:
    """A line per row: values as marks, 95 % intervals as bars, noise floors and limits as ticks."""
    shown = rows[:ROWS]
    kinds = list(dict.fromkeys(mark.kind for row in shown for mark in row.marks))
    left = 24 + _CHARACTER * max((len(short(row.label, _LABEL)) for row in shown), default=0)
    right, top, apart = left + 420, 46, 14
    each = apart * len(kinds) + 16
    values = [v for row in shown for v in _values(row)]
    axis = Axis.around(0, max(values, default=1.0), left, right)
    bottom = top + each * len(shown)
    drawn = [*_legend(shown, kinds, left), *grid(axis, top, bottom, axis_title)]
    for number, row in enumerate(shown):
        y = top + each * number + 8
        drawn.append(
            text(left - 12, y + apart * len(kinds) / 2 + 4, short(row.label, _LABEL), "end")
        )
        for line, kind in ((row.floor, "floor"), (row.limit, "limit")):
            if line is not None:
                drawn.append(tick(axis(line), y - 4, y + apart * len(kinds) + 4, kind))
        for line, mark in enumerate(row.marks):
            if mark.value is not None:
                drawn.append(_marked(mark, axis, y + apart * (line + 0.5)))
    return svg(title, says, right + 60, bottom + 44, drawn)


def _values(row: Row) -> Iterator[float]:
    for mark in row.marks:
        yield from (v for v in (mark.value, *(mark.interval or ())) if v is not None)
    yield from (v for v in (row.floor, row.limit) if v is not None)


def _legend(rows: Sequence[Row], kinds: Sequence[str], left: float) -> Iterator[Html]:
    x = left
    for kind in kinds:
        yield shape(kind, x + 5, 16)
        yield text(x + 16, 20, kind)
        x += 28 + 7 * len(kind)
    for kind, name in (("floor", "noise floor"), ("limit", "limit")):
        if any(getattr(row, kind) is not None for row in rows):
            yield tick(x + 5, 8, 24, kind)
            yield text(x + 14, 20, name)
            x += 28 + 7 * len(name)
    yield text(x, 20, "bars: 95 % intervals", class_="muted")


def _marked(mark: Mark, axis: Axis, y: float) -> Html:
    assert mark.value is not None  # noqa: S101  # the caller knows
    number = f"{mark.value:.3f}"
    end = axis(mark.value) + 6
    bar = None
    if mark.interval is not None:
        low, high = map(axis, mark.interval)
        end = max(end, high)
        bar = el(
            "line",
            x1=tenth(low),
            y1=tenth(y),
            x2=tenth(high),
            y2=tenth(y),
            class_=f"bar {mark.kind}",
        )
    spot = shape(mark.kind, axis(mark.value), y)
    return joined((bar, spot, text(end + 6, y + 4, number, class_="small")))
