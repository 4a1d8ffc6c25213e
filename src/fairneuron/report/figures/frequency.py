"""How often activation paths occur."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fairneuron.markup import Html, el
from fairneuron.report.figures.drawing import svg, tenth, text, turned


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
                drawn.append(
                    el("line", x1=tenth(at), y1=top, x2=tenth(at), y2=bottom, class_="grid")
                )
                drawn.append(text(at, bottom + 16, number, "middle", class_="muted"))
            else:
                at = place(10**power, largest, bottom, top)
                drawn.append(
                    el("line", x1=left, y1=tenth(at), x2=right, y2=tenth(at), class_="grid")
                )
                drawn.append(text(left - 8, at + 4, number, "end", class_="muted"))
    corners, rank = [], 1
    for count, many in frequencies:
        y = tenth(place(count, most, bottom, top))
        corners += [f"{tenth(place(r, paths, left, right))},{y}" for r in (rank, rank + many)]
        rank += many
    threshold = place(rare, most, bottom, top)
    drawn.append(
        el("line", x1=left, y1=tenth(threshold), x2=right, y2=tenth(threshold), class_="tick limit")
    )
    drawn.append(text(left + 8, threshold - 6, "rare: at or below this line"))
    drawn.append(el("polyline", points=" ".join(corners), class_="curve"))
    drawn.append(text((left + right) / 2, bottom + 36, "paths, the most frequent first", "middle"))
    drawn.append(turned(18, (top + bottom) / 2, "samples that share the path"))
    return svg(title, says, right + 40, bottom + 44, drawn)
