"""Similar paths: how many samples have nearly the same set of units.

In a large network hardly two samples keep exactly the same synapses, or even the same units, so a
count of equal paths says little. MinHash (Broder 1997) makes a number of a set that is the same
for two sets with the chance of their Jaccard similarity J, what they share of their union. Some b
such numbers together agree with the chance J^b. In each of several tables, the samples that agree
with one are counted; the mean of these counts estimates ``Σ J(own, other)^b`` over all samples. It
is n where all sets are equal, and 1 where a set shares nothing with any other.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from fairneuron.data.dataset import Floats, Ints, Mask
from fairneuron.errors import require_range

TABLES = 32
_CELLS = 1 << 19  # numbers that are found at once


class Sketcher:
    """Makes numbers of sets of units.

    Args:
        similarity: In (0, 1): the similarity at which two samples agree half the time.
        units: How many units there are.
    """

    def __init__(self, similarity: float, units: int) -> None:
        require_range("similarity", similarity, 0, 1, open_low=True, open_high=True)
        self.hashes = max(1, round(math.log(0.5) / math.log(similarity)))  # b
        rng = np.random.default_rng(0x51)
        kind = np.uint16 if units < np.iinfo(np.uint16).max else np.uint32
        self._ranks = np.empty((units, TABLES * self.hashes), kind)
        for order in self._ranks.T:
            order[:] = rng.permutation(units)
        low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
        self._keys = rng.integers(low, high, self.hashes) | 1

    def sketch(self, active: torch.Tensor) -> Ints:
        """A number for each table, ``(n, TABLES)`` int64, of sets ``(n, units)`` bool."""
        rows = max(1, _CELLS // self._ranks.shape[1])
        return np.concatenate([self._sketch(part.cpu().numpy()) for part in active.split(rows)])

    def _sketch(self, active: Mask) -> Ints:
        """The same of as many sets as fit the cache: unit by unit, as few units are in each."""
        units, hashes = self._ranks.shape
        least = np.full((len(active), hashes), units, self._ranks.dtype)  # what is in no set
        unit, row = np.nonzero(np.ascontiguousarray(active.T))
        ends = np.searchsorted(unit, np.arange(units + 1))
        for one in np.flatnonzero(np.diff(ends)):
            rows = row[ends[one] : ends[one + 1]]
            least[rows] = np.minimum(least[rows], self._ranks[one])
        words = least.astype(np.int64).reshape(len(active), TABLES, self.hashes) + 1
        return (words * self._keys).sum(2)


def similar_counts(sketches: Ints, cell: Ints | None = None) -> Floats:
    """How many samples have a similar set, each itself included, ``(n,)`` at least 1.

    Args:
        sketches: ``(n, tables)``; see ``Sketcher``.
        cell: ``(n,)``: samples are counted among those of their own cell; all are one unless given.
    """
    total = np.zeros(len(sketches))
    for table in sketches.T:
        keys = table[:, None] if cell is None else np.stack([table, cell], axis=1)
        _, number, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        total += counts[number.reshape(-1)]
    return total / sketches.shape[1]
