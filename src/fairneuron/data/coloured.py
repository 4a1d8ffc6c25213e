"""Images whose colour is a protected group that goes with the label, to demonstrate repairs on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch

from fairneuron.data.arrays import COLOURS
from fairneuron.data.dataset import Dataset
from fairneuron.errors import DataError, require_range

GROUPS = ("red", "green")


def coloured(
    data: Dataset,
    *,
    correlation: float,
    seed: int = 0,
    positive: Collection[int] | None = None,
) -> Dataset:
    """Paints grey images red or green; the colour is their group, and goes with the label.

    A network that is trained on them reads the colour, as networks read group membership: the
    stronger the correlation, the larger its gap between the colours. Of the images with a high
    label, (1 + ``correlation``) / 2 become green, of the others (1 − ``correlation``) / 2, up to
    rounding; which ones is drawn. After Arjovsky et al., Invariant Risk Minimization (2019),
    without their noise in the labels.

    Args:
        data: Images of one channel, unscaled (``split(scale=False)``): 0 stays black.
        correlation: In [−1, 1]; that of high label and green where both halves are of one size.
        seed: Another seed, other images.
        positive: Labels that become ``y = 1``, the high one; all others become 0. Unless given,
            labels stay, and the upper half of the classes is high: 5 to 9 of digits.

    Returns:
        Images of three channels, the third one black, with the only sensitive column "colour".

    Raises:
        DataError: For images of several channels, or scaled ones.
        OptionError: For a correlation out of range.
    """
    require_range("correlation", correlation, -1, 1)
    if data.x.ndim != 4 or data.x.shape[1] != 1 or data.scaling is not None:
        raise DataError(
            "data-shape",
            "Grey images, not scaled, can be coloured: x (n, 1, height, width)",
            got=f"{tuple(data.x.shape)}{'' if data.scaling is None else ', scaled'}",
            cure="Colour before the split, or after split(scale=False).",
        )
    classes = len(data.class_names) or int(data.y.max(initial=0)) + 1
    high = data.y >= (classes + 1) // 2 if positive is None else np.isin(data.y, [*positive])
    if positive is not None:
        names = [data.class_names[k] if data.class_names else str(k) for k in sorted(positive)]
        rest = [data.class_names[k] if data.class_names else str(k) for k in range(classes)]
        texts = (", ".join(n for n in rest if n not in names), ", ".join(names))
        data = replace(data, y=high.astype(np.int64), class_names=texts, positive=texts[1])
    green = _drawn(high, correlation, seed)
    x = torch.zeros((len(data), 3, *data.x.shape[2:]), dtype=data.x.dtype)
    x[torch.arange(len(data)), torch.from_numpy(green)] = data.x[:, 0]
    return replace(
        data,
        x=x,
        sensitive=green[:, None],
        sensitive_names=("colour",),
        sensitive_levels=(GROUPS,),
        feature_names=tuple(COLOURS[3]),
    )


def _drawn(
    high: np.ndarray[tuple[int], np.dtype[np.bool_]], correlation: float, seed: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """1 for those that become green."""
    rng, green = np.random.default_rng(seed), np.zeros(len(high), dtype=np.int64)
    for half, share in ((high, (1 + correlation) / 2), (~high, (1 - correlation) / 2)):
        rows = rng.permutation(np.flatnonzero(half))
        green[rows[: round(share * len(rows))]] = 1
    return green
