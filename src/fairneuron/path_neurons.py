"""Neurons of activation paths: which are over-represented in a cluster or group, with counts.

A neuron is on a sample's path if one of the path's synapses leads into it or comes from it. The
neurons are the units of ``x`` (its columns) and those of the hidden layers with weights. An
activation, dropout or norm is the same neuron as what it reads; a residual sum, or a head of
attention, is none of its own, since the path goes on through it to the neurons whose values it
adds. The output neurons are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fairneuron.batches import Batches, Samples
from fairneuron.data.dataset import Floats, Ints
from fairneuron.errors import DataError, OptionError, require_range
from fairneuron.paths import Means
from fairneuron.progress import Progress, quiet
from fairneuron.slicing import make_slicer

LEVEL = 0.05
"""Adjusted p up to which a neuron's over-representation is a finding."""

_MOST_CELLS = 1 << 16
Cell = int | Sequence[int]


@dataclass(frozen=True)
class NeuronUse:
    """On how many paths a neuron is, inside a cell and among the other samples.

    Attributes:
        layer: Name of its linear layer, or of the input.
        unit: Its position there; of the input, the column of ``x``.
        is_input: Whether it is a column of ``x``.
        count: Samples inside whose path has it.
        n: Samples inside.
        others_count: Other samples whose path has it.
        others_n: Other samples.
        p: Chance of at least ``count`` inside, if it had nothing to do with the cell: Fisher's
            exact test, one-sided. None where nothing was tested.
        p_adjusted: By Benjamini and Hochberg, over all neurons of the network.
    """

    layer: str
    unit: int
    is_input: bool
    count: int
    n: int
    others_count: int
    others_n: int
    p: float | None
    p_adjusted: float | None

    @property
    def share(self) -> float:
        """Share of the paths inside that have it."""
        return self.count / self.n

    @property
    def others_share(self) -> float:
        """Share of the others' paths that have it."""
        return self.others_count / self.others_n

    @property
    def difference(self) -> float:
        """How far the share inside exceeds that of the others, in [-1, 1]."""
        return self.share - self.others_share

    @property
    def ratio(self) -> float | None:
        """The share inside by that of the others; None where no other path has it."""
        return self.share / self.others_share if self.others_count else None

    @property
    def finding(self) -> bool:
        """Whether it was tested, and the adjusted p is at most 0.05."""
        return self.p_adjusted is not None and self.p_adjusted <= LEVEL

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        derived = ("share", "others_share", "difference", "ratio", "finding")
        return asdict(self) | {name: getattr(self, name) for name in derived}


@dataclass(frozen=True, eq=False)
class PathNeurons:
    """On how many paths each neuron is, by cell; counts alone, no rows.

    Attributes:
        layers: Names of the layers of neurons: the input, then the hidden ones with weights. Layers
            that share their weights are one.
        counts: For each of them ``(cells, units)``: samples whose path has the neuron.
        cells: Names of the cells.
        samples: ``(cells,)`` samples per cell.
    """

    layers: tuple[str, ...]
    counts: tuple[Ints, ...]
    cells: tuple[str, ...]
    samples: Ints

    def __repr__(self) -> str:
        cells = ", ".join(f"{c} {n}" for c, n in zip(self.cells[:20], self.samples, strict=False))
        more = f" and {len(self.cells) - 20} more" if len(self.cells) > 20 else ""
        layers = ", ".join(
            f"{layer} {counts.shape[1]}"
            for layer, counts in zip(self.layers, self.counts, strict=True)
        )
        return f"PathNeurons(samples by cell: {cells}{more}; neurons by layer: {layers})"

    def over_represented(
        self, cell: Cell, *, against: Cell | None = None, top: int = 10, tested: bool = True
    ) -> list[NeuronUse]:
        """Lists neurons that are on a larger share of the cell's paths than of the others'.

        Those whose adjusted p is at most 0.05 are findings; they come by their difference of
        shares, the largest first, and nothing else comes with them. If there is no finding, the
        largest positive differences come instead, each with ``finding`` False: counts to look at,
        which chance explains well enough.

        The test takes samples for independent draws, and cells for given. The rare paths were
        chosen by looking at the paths, and have rare neurons and more of them in noise too: leave
        the test out there.

        Args:
            cell: Position of the cell, or of several that are taken together.
            against: Those to compare with; all others unless given.
            top: Neurons to list, at most.
            tested: False lists the largest positive differences, without p.

        Returns:
            Fewer than ``top`` if there are no more; none where ``undefined`` has a reason.

        Raises:
            OptionError: For cells that do not exist or are on both sides, or ``top`` below 1.
        """
        require_range("top", top, 1, math.inf, open_high=True)
        inside, outside = self._sides(cell, against)
        if self.undefined(cell, against=against):
            return []
        n, m = int(self.samples[inside].sum()), int(self.samples[outside].sum())
        a, b = (
            np.concatenate([count[side].sum(0) for count in self.counts])
            for side in (inside, outside)
        )  # (neurons,) each
        p, adjusted = _tested(a, n, b, m)
        difference = a / n - b / m
        finding = (adjusted <= LEVEL) & (difference > 0) & tested
        listed = finding if finding.any() else difference > 0
        order = np.argsort(-difference, kind="stable")  # the earlier neuron first among equals
        widths = [count.shape[1] for count in self.counts]
        layer = np.repeat(np.arange(len(widths)), widths)
        unit = np.concatenate([np.arange(width) for width in widths])
        return [
            NeuronUse(
                layer=self.layers[layer[i]],
                unit=int(unit[i]),
                is_input=bool(layer[i] == 0),
                count=int(a[i]),
                n=n,
                others_count=int(b[i]),
                others_n=m,
                p=float(p[i]) if tested else None,
                p_adjusted=float(adjusted[i]) if tested else None,
            )
            for i in order[listed[order]][:top]
        ]

    def undefined(self, cell: Cell, *, against: Cell | None = None) -> str | None:
        """Why there is nothing to compare, if so: nobody inside, or nobody else.

        Args:
            cell: As in ``over_represented``.
            against: As there.
        """
        inside, outside = self._sides(cell, against)
        if not self.samples[inside].sum():
            return "nobody is inside"
        return None if self.samples[outside].sum() else "nobody is outside"

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        cells = zip(self.cells, self.samples.tolist(), strict=True)
        layers = zip(self.layers, self.counts, strict=True)
        return {
            "cells": [{"cell": name, "samples": n} for name, n in cells],
            "layers": [{"layer": name, "counts": counts.tolist()} for name, counts in layers],
        }

    def _sides(self, cell: Cell, against: Cell | None) -> tuple[Ints, Ints]:
        every = np.arange(len(self.cells))
        inside = np.atleast_1d(np.asarray(cell, dtype=np.int64))
        rest = np.setdiff1d(every, inside)
        outside = rest if against is None else np.atleast_1d(np.asarray(against, dtype=np.int64))
        both = np.concatenate([inside, outside])
        if not np.isin(both, every).all() or len(np.unique(both)) < len(both):
            raise OptionError(
                "option-cell",
                f"Cells must be different ones of 0 to {len(every) - 1}",
                got=both.tolist(),
                cure="PathNeurons.cells has their names in order.",
            )
        return inside, outside


def path_neurons(
    model: nn.Module,
    x: Samples,
    by: npt.ArrayLike,
    *,
    names: Sequence[str] | None = None,
    gamma: float = 0.9,
    contribution: str = "signed",
    layers: str = "all",
    means: Means | None = None,
    batch_size: int | None = None,
    progress: Progress = quiet,
) -> PathNeurons:
    """Counts, for each cell and neuron, the samples whose activation path has the neuron.

    ``path_neurons(model, x, rare_paths(paths), means=paths.means).over_represented(1)`` are the
    neurons of the biased cluster. Like the paths, the counts depend neither on the order of the
    samples, nor on the batch size, threads or device; memory grows with the batch.

    Args:
        model: As for ``activation_paths``.
        x: As for ``activation_paths``.
        by: ``(n,)`` integers from 0, or bools: the cell (cluster, group) of each sample.
        names: Of the cells, those without a sample too; their numbers unless given.
        gamma: As for ``activation_paths``.
        contribution: As for ``activation_paths``.
        layers: As for ``activation_paths``.
        means: As for ``activation_paths``; those of the paths, if the cells were made from them.
        batch_size: As for ``activation_paths``.
        progress: Told after each batch; of how many samples, if that is known, else 0.

    Returns:
        Counts per layer.

    Raises:
        OptionError: For gamma outside (0, 1].
        DataError: For cells that are not integers from 0, have no name, or are not as many as the
            samples; for samples that cannot be read twice, or not in a fixed order.
        ModelError: As for ``activation_paths``.
    """
    cell, cells = _numbered(by, names)
    batches = Batches(x, batch_size, once=means is not None)
    _require_as_many(cell, batches.samples or len(cell))
    slicer = make_slicer(model, batches.peek(), gamma, contribution, layers)
    slicer.relative_to(slicer.activations.means(batches, progress) if means is None else means)
    neurons = [_Neurons(name, own[0].stop - own[0].start, own) for name, own in slicer.layers]
    device = slicer.device
    counts = [
        torch.zeros(len(cells), layer.units, dtype=torch.int64).to(device) for layer in neurons
    ]
    done = 0
    for values in slicer.activations.of(batches):
        signature, active = slicer.signatures(values)
        first, done = done, done + len(signature)
        _require_as_many(cell, max(done, len(cell)))
        here = torch.from_numpy(cell[first:done]).to(device)  # (batch,)
        for layer, count in zip(neurons, counts, strict=True):
            on = [active[:, places] for places in layer.places]  # (batch, units) bool each
            count.index_add_(0, here, reduce(torch.logical_or, on).long())
        progress("neurons on paths", done, batches.total)
    _require_as_many(cell, done)
    return PathNeurons(
        layers=tuple(layer.name for layer in neurons),
        counts=tuple(count.cpu().numpy() for count in counts),
        cells=cells,
        samples=np.bincount(cell, minlength=len(cells)),
    )


class _Neurons(NamedTuple):
    """A layer of neurons: its name, its width, and where among all units each use of it is."""

    name: str
    units: int
    places: tuple[slice, ...]


def _numbered(by: npt.ArrayLike, names: Sequence[str] | None) -> tuple[Ints, tuple[str, ...]]:
    """The cell of each sample, ``(n,)`` int64, and the names of the cells."""
    given = np.asarray(by)
    whole = given.ndim == 1 and given.dtype.kind in "bui"
    most = _MOST_CELLS if names is None else len(names)
    if not whole or not ((given >= 0) & (given < most)).all():
        raise DataError(
            "data-cells",
            f"Cells must be (n,) integers from 0 to {most - 1}, or bools",
            got=f"{given.min()} to {given.max()}" if whole else f"{given.dtype} {given.shape}",
            cure="Number them from 0, and name each if you name any.",
        )
    if names is None:
        flags = given.dtype.kind == "b"
        names = ["False", "True"] if flags else [str(i) for i in range(given.max(initial=-1) + 1)]
    return given.astype(np.int64), tuple(names)


def _require_as_many(cell: Ints, samples: int) -> None:
    if len(cell) != samples:
        raise DataError(
            "data-lengths",
            "There must be a cell for each sample",
            got=f"{len(cell)} for {samples} samples",
            cure="Check how they were cut.",
        )


def _tested(a: Ints, n: int, b: Ints, m: int) -> tuple[Floats, Floats]:
    """One-sided p of Fisher's exact test of ``a`` of n against ``b`` of m, and adjusted."""
    from scipy.stats import false_discovery_control, hypergeom  # takes half a second

    p: Floats = np.clip(hypergeom.sf(a - 1, n + m, a + b, n), 0, 1)  # (neurons,)
    adjusted: Floats = false_discovery_control(p)  # (neurons,)
    return p, adjusted
