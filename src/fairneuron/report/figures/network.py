"""The network, and the neurons that carry the gap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fairneuron.markup import Html, el, joined
from fairneuron.report.figures.drawing import short_end, svg, tenth, text, turned

CELLS, HIGH = 512, 32  # dots of a layer, and of a column of them
TOP, PITCH = 62, 14
NAME, CHARACTER = 26, 7  # most characters of a name, and how wide one is
Places = dict[tuple[str | None, int], tuple[float, float]]


class Column(NamedTuple):
    """A hidden layer: its name, how many neurons it has, which are highlighted, and their kind."""

    name: str
    neurons: int
    highlighted: Sequence[int]
    heads: bool = False


class Link(NamedTuple):
    """A synapse.

    Attributes:
        read: Layer and unit that it comes from; the layer of an input is None.
        reads: Layer and unit that it leads into; the layer of an output is None.
        kind: "biased" or "benign": whose paths have it more often.
        difference: By how much, in (0, 1].
    """

    read: tuple[str | None, int]
    reads: tuple[str | None, int]
    kind: str
    difference: float


def network_plot(
    title: str, says: str, columns: Sequence[Column], links: Sequence[Link] = ()
) -> Html:
    """Layers as columns of dots, with synapses; highlighted neurons are larger, filled, named."""
    high = max((min(HIGH, _cells(c)) for c in columns), default=1) * PITCH
    drawn, x = [_block(20, high, "inputs")], 84.0
    inputs = sorted({link.read[1] for link in links if link.read[0] is None})
    at: Places = {
        (None, unit): (40, TOP + high * (i + 0.5) / len(inputs)) for i, unit in enumerate(inputs)
    }
    layers: list[Html] = []
    arrows: list[Html] = []
    for column in columns:
        many, wide = _shares(column), 46 if _named(column) else 16
        across = math.ceil(_cells(column) / HIGH)
        places = [
            (x + 6 + cell // HIGH * wide, TOP + 6 + cell % HIGH * PITCH)
            for cell in range(_cells(column))
        ]
        at |= {(column.name, unit): places[unit // many] for unit in range(column.neurons)}
        layers += [*_column(column, x, places)]
        arrows.append(_arrow(x - 22, TOP + high / 2))
        x += max(across * wide, 110, CHARACTER * (len(_name(column)) + 1)) + 34
    layers.append(_block(x, high, "output"))
    arrows.append(_arrow(x - 22, TOP + high / 2))
    drawn += [_link(link, at, (x - 10, TOP + high / 2)) for link in links] or arrows
    return svg(title, says, x + 60, TOP + high + 12, [*drawn, *layers])


def _column(column: Column, x: float, places: Sequence[tuple[float, float]]) -> Iterator[Html]:
    """A layer: its name, its dots, and those that are highlighted."""
    many = _shares(column)
    yield text(x, 26, _name(column))
    of = f"{len(column.highlighted)} of " if column.highlighted else ""
    yield text(x, 44, f"{of}{column.neurons}{' heads' * column.heads}", class_="muted")
    chosen = {unit // many for unit in column.highlighted}
    plain = "".join(
        f"M{tenth(px)} {tenth(py)}h0" for cell, (px, py) in enumerate(places) if cell not in chosen
    )
    yield el("path", d=plain or "M0 0", class_="dots")
    for cell in sorted(chosen):
        px, py = places[cell]
        own = f"{column.name}.{cell * many}"
        yield el("circle", el("title", own), cx=tenth(px), cy=tenth(py), r=5, class_="hit")
        if _named(column) and many == 1:
            label = own if len(own) <= 6 else f".{cell}"
            yield text(px + 8, py + 4, label, class_="small")


def _link(link: Link, at: Places, output: tuple[float, float]) -> Html:
    """A line between two neurons, as thick as the difference is large."""
    x1, y1 = at[link.read]
    x2, y2 = output if link.reads[0] is None else at[link.reads]
    return el(
        "line",
        x1=tenth(x1),
        y1=tenth(y1),
        x2=tenth(x2),
        y2=tenth(y2),
        stroke_width=tenth(1 + 4 * link.difference),
        class_=f"link {link.kind}",
    )


def _name(column: Column) -> str:
    name = short_end(column.name, NAME)
    return f"layer {name}" if len(name) <= 8 else name


def _named(column: Column) -> bool:
    """Whether there is room for names."""
    return _cells(column) <= 4 * HIGH


def _shares(column: Column) -> int:
    """How many neurons a dot stands for."""
    return math.ceil(column.neurons / CELLS)


def _cells(column: Column) -> int:
    return math.ceil(column.neurons / _shares(column))


def _block(x: float, high: float, name: str) -> Html:
    box = el("rect", x=tenth(x - 10), y=TOP, width=30, height=tenth(high), rx=4, class_="block")
    return joined((box, turned(x + 9, TOP + high / 2, name)))


def _arrow(x: float, y: float) -> Html:
    line = f"M{tenth(x - 8)} {tenth(y)}h14m-5 -4l5 4l-5 4"
    return el("path", d=line, class_="arrow")
