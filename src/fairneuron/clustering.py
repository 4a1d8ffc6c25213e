"""Clustering: the samples whose activation paths are rare.

Gao et al., section 3.3; Algorithm 1, lines 29 to 41.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import require_range
from fairneuron.paths import Paths


def rare_paths(paths: Paths, theta: float = 1e-3) -> Mask:
    """Marks the biased samples: those with a rare path.

    A path is rare if its count is at most ``max(theta * M, 1)``, M the largest count. (The paper
    prints ``theta * M``; below 1 / M that would select nobody, so a path of a single sample always
    counts as rare.)

    Args:
        paths: From ``activation_paths``.
        theta: In [0, 1].

    Returns:
        ``(n,)`` bool; True for biased samples, False for benign ones.
    """
    require_range("theta", theta, 0, 1)
    return (paths.counts <= max(theta * paths.counts.max(), 1))[paths.path_of]


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
    rare = rare_paths(paths, theta)
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
