"""Records that were found, and tables of them with the paper's figures beside ours.

A table is plain values: see ``section``. A cell has "ours" (a summary over seeds, with how many
there would be if all were defined), "paper" where there may be a figure of the paper's, or "text".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fairneuron.compare.records import Record
from fairneuron.errors import printable
from fairneuron.reproduce import paper
from fairneuron.reproduce.figures import METRICS, TITLES, figures_of_configuration, over_seeds
from fairneuron.reproduce.methods import Configuration
from fairneuron.reproduce.setting import PUBLISHED
from fairneuron.reproduce.sources import Source

Cell = dict[str, Any]
Section = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Found:
    """What there is of a source.

    Attributes:
        source: Which records they are.
        setup: What they agree in.
        records: In the order of seeds and names.
    """

    source: Source
    setup: dict[str, Any]
    records: tuple[Record, ...]

    @property
    def data(self) -> str:
        """The paper's data set."""
        return self.source.part.removesuffix("-published")

    @property
    def title(self) -> str:
        """For people."""
        how = ", published pipeline" * (self.source.part == PUBLISHED)
        return f"{self.data}{how}"

    def of(self, name: str) -> list[Record]:
        """The records of a method or measure that did not fail."""
        return [r for r in self.records if r["method"] == name and r["error"] is None]

    def each(self, name: str) -> list[Configuration]:
        """All configurations of a method or measure, over all seeds."""
        return [c for record in self.of(name) for c in record["configurations"]]

    def failures(self) -> list[str]:
        """What failed, each with its first error."""
        failed: dict[str, list[Record]] = {}
        for record in self.records:
            if record["error"] is not None:
                failed.setdefault(record["method"], []).append(record)
        return [
            f"{self.title}: {name} failed on {len(of)} seeds; seed {of[0]['seed']}: "
            f"`{printable(of[0]['error']).replace('`', '´')}`"
            for name, of in failed.items()
        ]


def ours(values: Iterable[float | None]) -> Cell:
    """A cell of our figures over seeds, and of how many they would be if all were defined."""
    listed = list(values)
    return {"ours": over_seeds(listed) | {"of": len(listed)}}


def section(
    title: str,
    columns: dict[str, str],
    rows: Sequence[tuple[str, dict[str, Cell]]],
    notes: Sequence[str] = (),
) -> Section:
    """A table: column key to title, and rows of a label and cells by key."""
    table = [{"label": label, "cells": cells} for label, cells in rows]
    return {"title": title, "columns": columns, "rows": table, "notes": list(notes)}


def columns_of(metrics: Iterable[str]) -> dict[str, str]:
    """The columns of a table of figures: key to title."""
    return {name: TITLES[name] for name in metrics}


def cells_of(
    configurations: Sequence[Configuration], row: tuple[str, str, str] | None = None
) -> dict[str, Cell]:
    """Our figures over seeds, and the paper's.

    Args:
        configurations: One for each seed.
        row: Of the paper's figures: experiment, data set and method, if there is one.
    """
    figures = [figures_of_configuration(c) for c in configurations]
    cells = {metric: ours(f[metric] for f in figures) for metric in (*METRICS, "flip_rate")}
    if row is not None:
        for metric in METRICS:
            cells[metric]["paper"] = paper.known(*row, metric)
    return cells
