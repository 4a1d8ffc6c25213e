"""Samples to slice: a tensor, a DataLoader, or anything else that gives batches again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import chain

import torch
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from fairneuron.errors import DataError, require_range, require_whole

Batch = torch.Tensor | tuple[torch.Tensor, ...] | list[torch.Tensor]
Samples = torch.Tensor | Iterable[Batch]
"""``(n, features)``, or batches of it, alone or first in a tuple."""


class Batches:
    """Batches of at most so many samples, in their order; the same in every iteration.

    Args:
        x: See ``Samples``.
        size: Samples in a batch, at most; None leaves it to who reads them.
        once: Whether a single pass is enough, so that an iterator will do.

    Raises:
        DataError: For what gives no batches, gives them once only, or in a random order.
    """

    def __init__(self, x: Samples, size: int | None, *, once: bool = False) -> None:
        if size is not None:
            require_range("batch_size", size, 1, 2**31)
            require_whole("batch_size", size)
        self.x, self.size = x, size
        self._seen: int | None = None  # what tells the samples of a pass from others
        self.samples = len(x) if isinstance(x, torch.Tensor) else 0  # 0: not known yet
        self.total = self.samples
        if isinstance(x, torch.Tensor):
            return
        if not isinstance(x, Iterable) or hasattr(x, "to_numpy") or hasattr(x, "dtype"):
            raise _refused("a tensor, a DataLoader or an iterable of batches", type(x).__name__)
        if iter(x) is x and not once:
            raise DataError(
                "data-once",
                "Samples are read twice, for the means and for the paths",
                got=f"an iterator ({type(x).__name__}), which gives them once",
                cure="Give an object whose __iter__ starts again, or means= (mean_activations).",
            )
        if isinstance(x, DataLoader):
            samplers = (x.sampler, getattr(x.batch_sampler, "sampler", None))
            if any(isinstance(sampler, _RANDOM) for sampler in samplers):
                raise DataError(
                    "data-order",
                    "Samples must come in a fixed order, so that paths can be told whose they are",
                    got="a DataLoader that shuffles",
                    cure="Give shuffle=False.",
                )
            if isinstance(x.dataset, Sized) and not x.drop_last:
                self.total = len(x.dataset)

    def peek(self) -> torch.Tensor:
        """The first batch, as it was given; an iterator will give it again."""
        given = iter(self._given())
        first = next(given, None)
        if first is None:
            raise _EMPTY
        if given is self.x:
            self.x = chain([first], given)
        return _inputs(first)

    def __iter__(self) -> Iterator[torch.Tensor]:
        seen, print_ = 0, 0
        for given in self._given():
            batch = _inputs(given)
            for part in batch.split(self.size or len(batch) or 1):
                seen += len(part)
                if len(part):
                    if not isinstance(self.x, torch.Tensor):
                        print_ = hash((print_, len(part), _some_rows(part)))
                    yield part
        if seen == 0:
            raise _EMPTY
        if self.samples not in (0, seen):
            raise DataError(
                "data-once",
                "Each pass over the samples must give the same ones",
                got=f"{self.samples} samples, then {seen}",
                cure="Give an object whose __iter__ starts again.",
            )
        if self._seen not in (None, print_):
            raise DataError(
                "data-order",
                "Each pass over the samples must give them in the same order",
                got="others, or another order",
                cure="Shuffle nothing, and give no random transforms.",
            )
        self.samples, self.total, self._seen = seen, seen, print_

    def _given(self) -> Iterable[Batch]:
        return (self.x,) if isinstance(self.x, torch.Tensor) else self.x


_RANDOM = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
_EMPTY = DataError("data-empty", "Slicing needs samples", got="none", cure="Check the data.")


def _some_rows(part: torch.Tensor) -> bytes:
    """What three rows of a batch hold, the first and the last among them."""
    rows = part[[0, len(part) // 2, -1]]  # (3, features)
    return rows.detach().cpu().double().numpy().tobytes()


def _inputs(given: Batch) -> torch.Tensor:
    inputs = given[0] if isinstance(given, (tuple, list)) and given else given
    if isinstance(inputs, torch.Tensor):
        return inputs
    raise _refused("tensors, or tuples that begin with one", type(given).__name__)


def _refused(wanted: str, got: str) -> DataError:
    return DataError(
        "data-type", f"Samples must be {wanted}", got=got, cure="Convert them with torch.as_tensor."
    )
