"""Clustering: the samples whose activation paths are rare.

Gao et al., section 3.3; Algorithm 1, lines 29 to 41.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairneuron.data.dataset import Dataset, Floats, Ints, Mask
from fairneuron.errors import DataError, OptionError, require_range
from fairneuron.paths import Paths
from fairneuron.similar import similar_counts


def rare_paths(
    paths: Paths,
    theta: float = 1e-3,
    *,
    similar: bool = False,
    within: npt.ArrayLike | None = None,
) -> Mask:
    """Marks the biased samples: those with a rare path.

    A path is rare if its count is at most ``max(theta * M, 1)``, M the largest count. (The paper
    prints ``theta * M``; below 1 / M that would select nobody, so a path of a single sample always
    counts as rare.)

    Args:
        paths: From ``activation_paths``.
        theta: In [0, 1].
        similar: Counts the samples on similar paths instead, in large networks, where hardly two
            are the same; the largest of these counts is M. θ is then the share of the company of
            the sample in the densest place that a biased one has at most.
        within: ``(n,)`` integers from 0: counts, and M, are those of each cell alone, such as the
            samples of a label and group, so that a small group is not rare for being small.

    Returns:
        ``(n,)`` bool; True for biased samples, False for benign ones.

    Raises:
        OptionError: For theta outside [0, 1], or paths without what similarity is told by.
        DataError: For cells that are not integers from 0, one for each sample.
    """
    require_range("theta", theta, 0, 1)
    cell = None if within is None else _cells(within, len(paths.path_of))
    company = _company(paths, cell, similar=similar)  # (n,)
    most = np.zeros(1 if cell is None else cell.max(initial=0) + 1)
    of_sample = np.zeros(len(company), dtype=np.int64) if cell is None else cell
    np.maximum.at(most, of_sample, company)
    rare: Mask = company <= np.maximum(theta * most, 1)[of_sample]
    return rare


def _company(paths: Paths, cell: Ints | None, *, similar: bool) -> Floats:
    """How many samples share each sample's path, itself included, ``(n,)``."""
    if not similar:
        return similar_counts(paths.path_of[:, None], cell)
    if paths.sketches is None:
        raise OptionError(
            "option-similar",
            "Similar paths are counted where slicing was told how similar",
            got="paths without that",
            cure="Slice with activation_paths(..., similarity=0.9).",
        )
    return similar_counts(paths.sketches, cell)


def _cells(within: npt.ArrayLike, samples: int) -> Ints:
    cell = np.asarray(within)
    if cell.dtype.kind not in "bui" or cell.shape != (samples,) or cell.min(initial=0) < 0:
        raise DataError(
            "data-cells",
            f"Cells must be ({samples},) integers from 0",
            got=f"{cell.dtype} {cell.shape}",
            cure="For example group + groups * y.",
        )
    return cell.astype(np.int64)


@dataclass(frozen=True)
class PathSummary:
    """What the paths of some data look like; counts alone, no rows.

    Attributes:
        samples: Samples sliced.
        paths: Distinct paths.
        largest: Samples on the most frequent path.
        alone: Paths of a single sample.
        biased: Samples with a rare path.
        makeup: A row per group: its name and how many of its samples are biased and benign, with y
            = 1 among them.
        gamma: Of the slicing.
        theta: Of the clustering.
        frequencies: How many samples share a path, and how many paths are shared by so many; the
            most frequent first.
    """

    samples: int
    paths: int
    largest: int
    alone: int
    biased: int
    makeup: tuple[dict[str, Any], ...]
    gamma: float
    theta: float
    frequencies: tuple[tuple[int, int], ...] = ()

    def __repr__(self) -> str:
        return f"PathSummary({self.sentence()})"

    @property
    def biased_share(self) -> float:
        """Share of the samples that are biased."""
        return self.biased / self.samples

    def sentence(self) -> str:
        """It in one sentence or two."""
        everybody = {0: " Nobody is biased.", self.samples: " Nobody is benign."}
        return (
            f"{self.samples} samples take {self.paths} distinct paths (the most frequent "
            f"{self.largest} times, {self.alone} of them once); {self.biased} samples "
            f"({self.biased_share:.1%}) have a rare path (γ = {self.gamma:g}, θ = {self.theta:g})."
            + everybody.get(self.biased, "")
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**asdict(self), "biased_share": self.biased_share, "sentence": self.sentence()}


def summarise_paths(paths: Paths, data: Dataset, theta: float) -> PathSummary:
    """Counts paths, biased samples, and the groups among them."""
    rare = rare_paths(paths, theta, similar=paths.sketches is not None)
    favoured = data.y == 1
    makeup = []
    for g, name in enumerate(data.group_names):
        inside = data.group == g
        makeup.append(
            {
                "group": name,
                "n": int(inside.sum()),
                "biased": int((inside & rare).sum()),
                "benign": int((inside & ~rare).sum()),
                "biased_positive": int((inside & rare & favoured).sum()),
                "benign_positive": int((inside & ~rare & favoured).sum()),
            }
        )
    sizes, many = np.unique(paths.counts, return_counts=True)
    return PathSummary(
        samples=len(paths.path_of),
        paths=len(paths),
        largest=int(paths.counts[0]),
        alone=int(np.sum(paths.counts == 1)),
        biased=int(rare.sum()),
        makeup=tuple(makeup),
        gamma=paths.gamma,
        theta=theta,
        frequencies=tuple((int(n), int(k)) for n, k in zip(sizes[::-1], many[::-1], strict=True)),
    )
