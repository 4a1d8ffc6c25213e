"""The data of a classifier with the groups it may treat unequally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from fairneuron.data import parts
from fairneuron.data.arrays import (
    as_read,
    as_weights,
    missing_in,
    numbered,
    on_host,
    require_labels,
    require_shapes,
    require_weights,
)
from fairneuron.data.scaling import Scaling
from fairneuron.data.tables import UNKNOWN
from fairneuron.errors import DataError, warn

if TYPE_CHECKING:
    from fairneuron.data.schema import Schema

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

EVERYBODY = "everybody"  # the only group of data without sensitive columns


@dataclass(frozen=True, eq=False)
class Dataset:
    """Encoded inputs, labels and sensitive columns; inputs are a tensor, the rest is numpy.

    Attributes:
        x: ``(n, features)`` float32, of images ``(n, channels, height, width)``. Unscaled until
            ``split``.
        y: ``(n,)`` int64 class labels; 1 is the class that ``positive`` names.
        sensitive: ``(n, k)`` int64 codes into ``sensitive_levels``.
        sensitive_names: The k sensitive columns; without any, everybody is one group.
        sensitive_levels: For each of them the names of its values.
        feature_names: The columns of ``x``, of images the channels.
        name: What to call the data in reports.
        positive: What ``y == 1`` means.
        schema: How a table becomes such data, if it came from one.
        scaling: What ``split`` fitted on its training part, if it did.
        weight: ``(n,)`` float64, how much each row counts in training, at least 0; all alike if
            None. Audits count people, not weights.
        class_names: What the labels 0, 1, … mean, if that is known.
        part: ``(n,)`` 0 for training, 1 for validation, 2 for test, where whoever made the data
            split them.
    """

    x: torch.Tensor
    y: Ints
    sensitive: Ints
    sensitive_names: tuple[str, ...]
    sensitive_levels: tuple[tuple[str, ...], ...]
    feature_names: tuple[str, ...]
    name: str = "data"
    positive: str = "1"
    schema: Schema | None = None
    scaling: Scaling | None = None
    weight: Floats | None = None
    class_names: tuple[str, ...] = ()
    part: Ints | None = None

    @classmethod
    def from_frame(
        cls,
        frame: object,
        *,
        target: str,
        positive: object = None,
        sensitive: str | Sequence[str],
        include_sensitive: bool = False,
        drop: str | Sequence[str] = (),
        types: Mapping[str, str] | None = None,
        weight: str | None = None,
        name: str = "data",
    ) -> Dataset:
        """Encodes a table: numbers as they are, all else one-hot.

        Args:
            frame: A pandas, polars or Arrow table, a row per sample; for files see ``read_table``.
            target: The column with the label; it must have two values.
            positive: The label that counts as ``y = 1``. May be left out for 0/1 and boolean
                labels.
            sensitive: The column or columns whose groups are compared. A missing value is the group
                "unknown", which is listed and not compared.
            include_sensitive: Whether these columns are inputs of the network too.
            drop: Columns that are neither inputs nor anything else.
            types: Column name to "number" or "category", for those whose detected type is wrong.
            weight: The column with sample weights.
            name: What to call the data in reports.

        Returns:
            The data, unscaled, with its fitted ``schema``.

        Raises:
            DataError: For what cannot be encoded, all of it at once: see the ``data-*`` codes.
            OptionError: For unknown types.
        """
        from fairneuron.data.schema import Schema
        from fairneuron.data.tables import as_frame

        table = as_frame(frame)
        schema = Schema.of_table(
            table,
            target=target,
            positive=positive,
            sensitive=[sensitive] if isinstance(sensitive, str) else list(sensitive),
            include_sensitive=include_sensitive,
            drop=[drop] if isinstance(drop, str) else list(drop),
            types=types,
            weight=weight,
        )
        return schema.encode(table, name=name)

    @classmethod
    def from_arrays(
        cls,
        x: npt.ArrayLike | torch.Tensor,
        y: npt.ArrayLike,
        sensitive: npt.ArrayLike | None = None,
        *,
        sensitive_names: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        name: str = "data",
        positive: str = "1",
        sample_weight: npt.ArrayLike | None = None,
        class_names: Sequence[str] = (),
    ) -> Dataset:
        """Takes ready arrays.

        Args:
            x: ``(n, features)`` numbers, or images ``(n, channels, height, width)``, in general
                ``(n, channels, …)``. Bytes (uint8) with channels are read as value / 255.
            y: ``(n,)`` integer class labels from 0.
            sensitive: ``(n,)`` or ``(n, k)`` values of any type; their texts name the groups. Rows
                with a missing value (None, NaN) are the group "unknown", which is not compared.
                Without it everybody is one group: gaps between classes can be audited alone.
            sensitive_names: Names of the k columns; "sensitive" (and a number) unless given.
            feature_names: Names of the columns or channels of ``x``; "x0", "x1", … unless given.
            name: What to call the data in reports.
            positive: What ``y == 1`` means.
            sample_weight: ``(n,)`` numbers, how much each row counts in training; audits count
                people, not weights.
            class_names: What the labels 0, 1, … mean.

        Raises:
            DataError: For different lengths, non-finite numbers, labels that are not 0, 1, …, or
                weights that are negative or all 0.
        """
        y, sensitive, sample_weight = (on_host(each) for each in (y, sensitive, sample_weight))
        tensor, labels = _inputs(x), np.asarray(y)
        require_shapes(tensor, labels, None if sensitive is None else np.asarray(sensitive))
        require_labels(labels, class_names)
        given = np.zeros((len(labels), 0)) if sensitive is None else sensitive
        table = np.asarray(given)
        table = table[:, None] if table.ndim == 1 else table
        missing = missing_in(given).reshape(table.shape)
        named = (
            len(sensitive_names or range(table.shape[1])),
            len(feature_names or range(tensor.shape[1])),
        )
        if named != (table.shape[1], tensor.shape[1]):
            raise DataError(
                "data-shape",
                "There must be a name for each column",
                got=f"{named[0]} for {table.shape[1]} sensitive and {named[1]} for "
                f"{tensor.shape[1]} features",
                cure="Check the names.",
            )
        names = tuple(sensitive_names or numbered("sensitive", table.shape[1]))
        for column, count in zip(names, missing.sum(0), strict=True):
            if count:
                warn(
                    "data-group-missing",
                    f"{count} rows without {column!r}: listed as {UNKNOWN!r}, not compared",
                )
        texts = np.where(missing, UNKNOWN, table.astype(str))
        columns = [np.unique(column, return_inverse=True) for column in texts.T]
        return cls(
            x=tensor,
            y=labels.astype(np.int64),
            sensitive=np.array([codes for _, codes in columns], dtype=np.int64)
            .reshape(table.shape[::-1])
            .T.copy(),
            sensitive_names=names,
            sensitive_levels=tuple(tuple(map(str, levels)) for levels, _ in columns),
            feature_names=tuple(feature_names or [f"x{i}" for i in range(tensor.shape[1])]),
            name=name,
            positive=positive,
            weight=None if sample_weight is None else as_weights(sample_weight),
            class_names=tuple(class_names),
        )

    def __post_init__(self) -> None:
        if self.x.numel() and not torch.isfinite(torch.stack(torch.aminmax(self.x))).all():
            first = tuple((~torch.isfinite(self.x)).nonzero()[0].tolist())
            raise DataError(
                "data-nonfinite",
                "Every input must be a finite number",
                got=f"{float(self.x[first])} in row {first[0]} of {self.feature_names[first[1]]!r}",
                cure="Fill or drop it.",
            )
        if self.weight is not None:
            require_weights(self.weight, len(self))

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        groups = ", ".join(
            f"{name} {n}" for name, n in zip(self.group_names, self.group_counts, strict=True)
        )
        positive = np.mean(self.y == 1) if len(self) else 0
        each = "{} features".format(*self.x.shape[1:])
        if self.x.ndim > 2:
            each = f"each {' × '.join(map(str, self.x.shape[1:]))}"
        return (
            f"Dataset({self.name!r}: {len(self)} rows, {each}, "
            f"y = 1 is {self.positive!r} ({positive:.1%}); {groups})"
        )

    @cached_property
    def group(self) -> Ints:
        """``(n,)`` index into ``group_names``: the intersection of all sensitive columns."""
        if not self.sensitive_names:
            return np.zeros(len(self), dtype=np.int64)
        sizes = [len(levels) for levels in self.sensitive_levels]
        return np.ravel_multi_index(tuple(self.sensitive.T), tuple(sizes)).astype(np.int64)

    @cached_property
    def group_levels(self) -> tuple[tuple[str, ...], ...]:
        """The values of the sensitive columns in each group, also in those without a row."""
        return tuple(product(*self.sensitive_levels))

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """Names of all intersections, also of those without a row."""
        if not self.sensitive_names:
            return (EVERYBODY,)
        return tuple(" & ".join(levels) for levels in self.group_levels)

    @property
    def group_counts(self) -> Ints:
        """Rows per group, ``(groups,)``."""
        return np.bincount(self.group, minlength=len(self.group_names))

    @cached_property
    def compared(self) -> Mask:
        """Whether each group is compared, ``(groups,)``: all but those with an unknown level."""
        return np.array([UNKNOWN not in levels for levels in self.group_levels])

    def require_groups(self) -> None:
        """Raises a ``DataError`` where there is no sensitive column."""
        if not self.sensitive_names:
            raise DataError(
                "data-no-groups",
                "Gaps between groups need a sensitive column",
                got=f"{self.name!r} without one",
                cure="Give the groups; an audit measures gaps between classes without them.",
            )

    @cached_property
    def relative_weight(self) -> Floats | None:
        """``(n,)`` weights with the mean 1; None if all rows count alike."""
        if self.weight is None:
            return None
        least = float(np.finfo(np.float64).tiny)
        part = self.weight / max(float(self.weight.max(initial=0)), least)  # no sum overflows
        relative: Floats = part / max(float(part.mean()) if len(part) else 1.0, least)
        return relative

    @cached_property
    def gap_weight(self) -> Floats | None:
        """``(n,)`` how much each row counts in the gap between groups.

        Its relative weight, or 0 if its group is not compared; None if all rows count alike.
        """
        inside = self.compared[self.group]
        if inside.all():
            return self.relative_weight
        own = 1.0 if self.relative_weight is None else self.relative_weight
        counts: Floats = np.where(inside, own, 0.0)
        return counts

    def subset(self, rows: Mask | Ints) -> Dataset:
        """Returns the rows that a mask or an index selects.

        Args:
            rows: ``(n,)`` bool, or positions.

        Raises:
            DataError: For a mask of another length.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool and chosen.shape != (len(self),):
            raise DataError(
                "data-lengths",
                "A mask must have an entry per row",
                got=f"{chosen.shape} for {len(self)} rows",
                cure="Check where it came from.",
            )
        index = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        return replace(
            self,
            x=self.x[torch.from_numpy(index)],
            y=self.y[index],
            sensitive=self.sensitive[index],
            weight=None if self.weight is None else self.weight[index],
            part=None if self.part is None else self.part[index],
        )

    def joined(self, *others: Dataset) -> Dataset:
        """These rows, and below them those of other parts of the same data."""
        every = (self, *others)
        weighted = any(data.weight is not None for data in every)
        split = [data.part for data in every if data.part is not None]
        return replace(
            self,
            x=torch.cat([data.x for data in every]),
            y=np.concatenate([data.y for data in every]),
            sensitive=np.concatenate([data.sensitive for data in every]),
            weight=np.concatenate(
                [np.ones(len(d)) if d.weight is None else d.weight for d in every]
            )
            if weighted
            else None,
            part=np.concatenate(split) if len(split) == len(every) else None,
        )

    def split(
        self,
        seed: int = 0,
        *,
        fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
        scale: bool = True,
    ) -> tuple[Dataset, Dataset, Dataset]:
        """Splits into training, validation and test parts, stratified on label and group.

        Args:
            seed: Another seed, another split.
            fractions: Of the rows for each part. Each cell of label and group deviates by at most
                two rows.
            scale: Whether to standardise the columns, of images the channels, fitted on the
                training part. Those of zeros and ones stay.

        Raises:
            OptionError: For fractions that do not sum to 1.
            DataError: If a part would miss a class that the data has; a missing group is a warning.
        """
        return self._parts(parts.drawn(self._cell, fractions, seed), scale=scale)

    def split_by(
        self, part: Ints | None = None, *, scale: bool = True, seed: int = 0
    ) -> tuple[Dataset, Dataset, Dataset]:
        """Splits as somebody else did.

        Args:
            part: ``(n,)`` 0 for training, 1 for validation, 2 for test. The data's own split
                unless given; if that has no validation part, an eighth of its training part is it.
            scale: As in ``split``.
            seed: Another seed, another eighth.

        Raises:
            DataError: If a part would miss a class or a value of a sensitive column, and where
                there is no split.
        """
        if part is None:
            if self.part is None:
                raise DataError(
                    "data-split",
                    "The data must have been split, or part be given",
                    got=f"no part of {self.name!r}",
                    cure="Use split(seed).",
                )
            own = (self.part == 1).any()
            part = self.part if own else self.with_validation(self.part, seed=seed)
        parts.require_levels(self, part)
        return self._parts(part, scale=scale)

    def with_validation(self, part: Ints, *, seed: int = 0, fraction: float = 1 / 8) -> Ints:
        """A split in which a fraction of the training rows, stratified, is for validation.

        Args:
            part: ``(n,)`` 0 for training, 2 for test.
            seed: Another seed, other rows.
            fraction: In [0, 1).
        """
        return parts.with_validation(part, self._cell, fraction, seed)

    @property
    def _cell(self) -> Ints:
        """``(n,)`` a number for each label and group, by which splits are stratified."""
        return self.y * len(self.group_names) + self.group

    def _parts(self, part: Ints, *, scale: bool) -> tuple[Dataset, Dataset, Dataset]:
        train, valid, test = (self.subset(np.flatnonzero(part == code)) for code in range(3))
        for subset, title in zip((train, valid, test), parts.PARTS, strict=True):
            parts.check_part(self, subset, title)
        if not scale:
            return train, valid, test
        scaling = Scaling.fit(train.x)
        whole = scaling if self.scaling is None else scaling.after(self.scaling)
        train, valid, test = (
            replace(p, x=scaling.in_place(p.x), scaling=whole) for p in (train, valid, test)
        )
        return train, valid, test

    def describe(self) -> dict[str, Any]:
        """Sizes and rates, for printing; no row of the data."""
        groups = [
            {
                "group": name,
                "n": int(n),
                "positive": int((self.y[self.group == g] == 1).sum()),
            }
            for g, (name, n) in enumerate(zip(self.group_names, self.group_counts, strict=True))
        ]
        return {
            "name": self.name,
            "rows": len(self),
            "features": len(self.feature_names),
            **({} if self.x.ndim == 2 else {"shape": list(self.x.shape[1:])}),
            "positive": self.positive,
            **({"classes": list(self.class_names)} if self.class_names else {}),
            "sensitive": list(self.sensitive_names),
            "groups": groups,
        }


def _inputs(x: npt.ArrayLike | torch.Tensor) -> torch.Tensor:
    """Float32, on the CPU; bytes of images as value / 255."""
    array = np.asarray(on_host(x))
    if array.dtype.kind not in "biuf":
        raise DataError(
            "data-type", "x must hold real numbers", got=str(array.dtype), cure="Encode it first."
        )
    with np.errstate(over="ignore"):  # infinity is refused with its row and column
        return torch.from_numpy(as_read(array))
