"""What all figures are drawn with: axes, lines, marks and texts of SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairneuron.markup import Html, el

Interval = Sequence[float] | None


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


def grid(axis: Axis, top: float, bottom: float, title: str) -> Iterator[Html]:
    """Vertical lines at the ticks of an axis, with numbers and what it shows below them."""
    for x, number in axis.ticks():
        yield el("line", x1=tenth(x), y1=top, x2=tenth(x), y2=tenth(bottom), class_="grid")
        yield text(x, bottom + 20, number, "middle", class_="muted")
    yield text((axis.start + axis.end) / 2, bottom + 40, title, "middle")


def shape(kind: str, x: float, y: float, size: float = 4.5) -> Html:
    """Hollow circles before, filled squares after, filled circles for other things."""
    if kind == "after":
        return el(
            "rect",
            x=tenth(x - size),
            y=tenth(y - size),
            width=tenth(2 * size),
            height=tenth(2 * size),
            class_="mark after",
        )
    return el("circle", cx=tenth(x), cy=tenth(y), r=tenth(size), class_=f"mark {kind}")


def tick(x: float, y1: float, y2: float, kind: str) -> Html:
    """A dashed line: a noise floor or a limit."""
    return el("line", x1=tenth(x), y1=tenth(y1), x2=tenth(x), y2=tenth(y2), class_=f"tick {kind}")


def svg(title: str, says: str, width: float, height: float, drawn: Sequence[Any]) -> Html:
    """A drawing with its name and, in words, what it shows."""
    return el(
        "svg",
        el("title", title),
        el("desc", says),
        *drawn,
        role="img",
        viewBox=f"0 0 {tenth(width)} {tenth(height)}",
        width=tenth(width),
        height=tenth(height),
    )


def text(
    x: float, y: float, words: str, anchor: str | None = None, class_: str | None = None
) -> Html:
    """Words."""
    return el("text", words, x=tenth(x), y=tenth(y), text_anchor=anchor, class_=class_)


def turned(x: float, y: float, words: str) -> Html:
    """A text from below to above."""
    turn = f"rotate(-90 {tenth(x)} {tenth(y)})"
    return el("text", words, x=tenth(x), y=tenth(y), text_anchor="middle", transform=turn)


def short(words: str, most: int) -> str:
    """A text of at most so many characters."""
    return words if len(words) <= most else f"{words[: most - 1]}…"


def short_end(words: str, most: int) -> str:
    """The end of a text, of at most so many characters: of paths, what tells them apart."""
    return words if len(words) <= most else f"…{words[len(words) - most + 1 :]}"


def tenth(value: float) -> str:
    """A place to a tenth, without what says nothing."""
    return f"{value:.1f}".removesuffix(".0")
