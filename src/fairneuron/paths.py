"""Activation paths of samples, counted; counts of parts merge into those of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from fairneuron.data.dataset import Ints
from fairneuron.errors import DataError, OptionError


@dataclass(frozen=True, eq=False)
class Means:
    """Means of what slicing reads of samples; those of parts add up to those of the whole.

    Attributes:
        sums: Layer to the sum of the activations that it reads, float64: ``(taps, fan_in)``, a tap
            being a weight of a synapse, or ``(units, fan_in)``. Layers are known by their position
            in the traced network.
        samples: How many there were.
    """

    sums: Mapping[int, torch.Tensor] = field(repr=False)
    samples: int

    def __getitem__(self, layer: int) -> torch.Tensor:
        return self.sums[layer] / self.samples

    def __radd__(self, other: object) -> Means:
        """For ``sum``, which begins with 0."""
        return self if other == 0 else NotImplemented

    def __add__(self, other: Means) -> Means:
        if not isinstance(other, Means):
            return NotImplemented
        shapes = [{k: v.shape for k, v in means.sums.items()} for means in (self, other)]
        if shapes[0] != shapes[1]:
            raise OptionError(
                "option-merge",
                "Means must be of one network",
                got="layers of other widths",
                cure="Add up parts of the same data through the same network.",
            )
        sums = {layer: total + other.sums[layer] for layer, total in self.sums.items()}
        return Means(sums, self.samples + other.samples)


@dataclass(frozen=True, eq=False)
class Paths:
    """The activation path of each sample.

    ``path_synapses`` lists what a path consists of.

    Attributes:
        path_of: ``(n,)`` id of each sample's path; 0 is the most frequent path.
        counts: ``(paths,)`` samples per path, descending.
        first: ``(paths,)`` the first sample on each path.
        signatures: ``(paths, 2)`` int64: 128 bits that stand for the set of synapses.
        means: Mean activations, to slice other data relative to these.
        gamma: The share of each neuron's value that its kept synapses exceed.
        contribution: "signed", "absolute" or "gradient".
        level: What a path is a set of, "synapses" or "units".
        layers: Of "all" layers, or the "last" one with weights.
        sketches: ``(n, tables)`` int64: samples with similar sets of units have the same number in
            many of the tables; None unless asked for.
    """

    path_of: Ints
    counts: Ints
    first: Ints
    signatures: Ints
    means: Means = field(repr=False)
    gamma: float
    contribution: str = "signed"
    level: str = "synapses"
    layers: str = "all"
    sketches: Ints | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.counts)

    def __repr__(self) -> str:
        return f"Paths({len(self.path_of)} samples, {len(self)} paths, gamma={self.gamma})"

    @staticmethod
    def merge(parts: Iterable[Paths]) -> Paths:
        """Joins the paths of parts of some data into those of the whole, in the order given.

        Args:
            parts: At least one; of one network, sliced relative to the same means (those of the
                whole: ``mean_activations`` of the parts, added) with the same settings.

        Raises:
            OptionError: If they are not.
        """
        parts = [*parts]
        if not parts:
            raise DataError("data-empty", "Merging needs paths", got="none", cure="Give some.")
        head, *others = parts
        for part in others:
            _require_alike(head, part)
        distinct = np.concatenate([part.signatures for part in parts])
        offsets = np.cumsum([0, *(len(part) for part in parts)])
        place = np.concatenate(
            [p.path_of + offset for p, offset in zip(parts, offsets, strict=False)]
        )
        merged = count_paths(distinct, head.means, head.gamma, head.contribution, place=place)
        sketches = [part.sketches for part in parts if part.sketches is not None]
        return replace(
            merged,
            level=head.level,
            layers=head.layers,
            sketches=np.concatenate(sketches) if len(sketches) == len(parts) else None,
        )


def _require_alike(one: Paths, other: Paths) -> None:
    differs = [
        name
        for name, same in (
            ("gamma", one.gamma == other.gamma),
            ("contribution", one.contribution == other.contribution),
            ("level", one.level == other.level),
            ("layers", one.layers == other.layers),
            ("means", one.means is other.means or _same(one.means, other.means)),
        )
        if not same
    ]
    if differs:
        raise OptionError(
            "option-merge",
            "Paths to merge must be of one network, relative to the same means, with the same "
            "settings",
            got=f"others in {' and '.join(differs)}",
            cure="Slice each part with means= those of the whole (mean_activations, added up).",
        )


def _same(one: Means, other: Means) -> bool:
    return one.sums.keys() == other.sums.keys() and all(
        torch.equal(one[layer], other[layer]) for layer in one.sums
    )


def count_paths(
    signatures: npt.NDArray[np.int64],
    means: Means,
    gamma: float,
    contribution: str,
    *,
    place: Ints | None = None,
) -> Paths:
    """Counts equal signatures.

    Args:
        signatures: ``(k, 2)``.
        means: See ``Paths``, as the following ones.
        gamma: In (0, 1].
        contribution: "signed" or "absolute".
        place: ``(n,)`` which signature each sample has; one each, in their order, unless given.
    """
    _, first, number = np.unique(signatures[:, 0], return_index=True, return_inverse=True)
    distinct = signatures[first]
    if (distinct[number, 1] != signatures[:, 1]).any():  # two paths that share a word
        distinct, number = np.unique(signatures, axis=0, return_inverse=True)
    path_of = number.reshape(-1) if place is None else number.reshape(-1)[place]
    counts = np.bincount(path_of, minlength=len(distinct))
    order = np.argsort(-counts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    path_of = rank[path_of]
    first = np.empty(len(order), dtype=np.int64)
    first[path_of[::-1]] = np.arange(len(path_of))[::-1]  # the last one written is the first sample
    return Paths(path_of, counts[order], first, distinct[order], means, gamma, contribution)
