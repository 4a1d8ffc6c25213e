"""Standardised inputs: means and deviations of columns, or of the channels of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

_AT_ONCE = 1 << 22  # numbers that are taken to float64 at once


@dataclass(frozen=True, eq=False)
class Scaling:
    """A fitted ``(x - mean) / scale`` per column or channel; float32.

    Both have the shape ``(features,)``, of images ``(channels, 1, 1)``.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def fit(cls, x: torch.Tensor) -> Scaling:
        """Standardises the columns of ``x (n, features)``, or the channels of ``(n, channels, …)``.

        Those of zeros and ones stay.
        """
        if x.ndim == 2:
            wide = x.double()
            mean, scale = wide.mean(0), wide.std(0, correction=0)
            flag = ((x == 0) | (x == 1)).all(0)  # one-hot columns
        else:
            mean, scale, flag = _of_channels(x)
        constant = scale == 0
        mean = torch.where(flag, 0.0, mean)
        scale = torch.where(flag | constant, 1.0, scale)
        return cls(mean.float(), scale.float())

    def after(self, first: Scaling) -> Scaling:
        """The scaling that does what ``first`` and then this one do."""
        return Scaling(first.mean + first.scale * self.mean, first.scale * self.scale)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Scales ``x (n, features)`` or ``(n, channels, …)``."""
        return (x - self.mean).div_(self.scale)

    def in_place(self, x: torch.Tensor) -> torch.Tensor:
        """The same to the bit, in the memory of ``x``."""
        return x.sub_(self.mean).div_(self.scale)


def _of_channels(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, deviation and whether all are 0 or 1, ``(channels, 1, …)``; a few rows at a time."""
    inner = [d for d in range(x.ndim) if d != 1]
    shape = (x.shape[1], *(1 for _ in inner[1:]))
    parts = x.split(max(_AT_ONCE // x[0].numel(), 1))
    count = x.numel() // x.shape[1]

    def total(of: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        sums = (of(part.double()).sum(inner).reshape(shape) for part in parts)
        return sum(sums, torch.zeros(shape, dtype=torch.float64))

    mean = total(lambda part: part) / count
    scale = (total(lambda part: (part - mean).square_()) / count).sqrt()
    flag = total(lambda part: (part != 0) & (part != 1)) == 0
    return mean, scale, flag
