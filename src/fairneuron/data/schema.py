"""How a table becomes a Dataset: fitted once, applied to any later table of the same columns.

Free of torch, so that a bad table is refused at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairneuron.data.columns import (
    TYPES,
    Column,
    as_text,
    codes_of,
    fit_labels,
    require_columns,
    require_no_copy,
)
from fairneuron.data.groups import fit_groups, require_few_groups
from fairneuron.data.inputs import encode_input, fit_input, numbers_of
from fairneuron.errors import DataError, Problems, require_known

if TYPE_CHECKING:
    from fairneuron.data.dataset import Dataset

_MOST_CELLS = 1 << 29  # of x: 2 GiB of float32


@dataclass(frozen=True)
class Schema:
    """How a table becomes a Dataset.

    Attributes:
        target: The column with the label.
        negative: The label of ``y = 0``, as text.
        positive: The label of ``y = 1``, as text.
        sensitive: The sensitive columns with their groups.
        inputs: The columns that the network reads, in this order.
        unused: Other columns of the table it was fitted on, with the reason why they are no inputs.
        weight: The column with the sample weights, or None.
    """

    target: str
    negative: str
    positive: str
    sensitive: tuple[Column, ...]
    inputs: tuple[Column, ...]
    unused: tuple[tuple[str, str], ...] = ()
    weight: str | None = None

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        *,
        target: str,
        positive: object = None,
        sensitive: Sequence[str],
        inputs: Sequence[str],
        types: Mapping[str, str] | None = None,
        weight: str | None = None,
    ) -> Schema:
        """Learns types, categories and labels from a table, and looks for all that is wrong in it.

        Numbers are numeric inputs; texts are categories. A column of texts that has a value of its
        own in most rows (a name, an id) is left out with a warning, unless its type is given.

        Args:
            frame: The table.
            target: The column with the label.
            positive: The label of ``y = 1``; may be left out for 0/1 and boolean labels.
            sensitive: The columns whose groups are compared.
            inputs: The columns that the network reads; none if somebody else encodes them.
            types: Column name to "number" or "category", for those whose detected type is wrong.
            weight: The column with sample weights.

        Raises:
            DataError: For columns that are not there or cannot play their part: all of them at
                once, up to 20.
            OptionError: For unknown types.
        """
        given = dict(types or {})
        for kind in given.values():
            require_known("option-type", "type of a column", kind, TYPES)
        chosen = [target, *sensitive, *inputs, *given, *([] if weight is None else [weight])]
        require_columns(frame, chosen)
        frame = frame.reset_index(drop=True)
        _require_roles(target, sensitive, inputs, weight)
        problems = Problems()
        negative, positive_text, groups, read = "", "", [], []
        with problems.collected():
            negative, positive_text = fit_labels(frame[target], positive)
        for name in sensitive:
            with problems.collected():
                groups.append(fit_groups(frame[name], given.get(name)))
        for name in inputs:
            with problems.collected():
                read.append(fit_input(frame[name], given.get(name)))
                if positive_text:
                    require_no_copy(frame[name], frame[target])
        if weight is not None:
            with problems.collected():
                _weights(frame, weight)
        problems.settle()
        require_few_groups(len(column.categories) for column in groups)
        kept = tuple(column for column in read if column is not None)
        left = [name for name, column in zip(inputs, read, strict=True) if column is None]
        if inputs:
            _require_size(frame, kept)
        reasons = {target: "target", **dict.fromkeys(sensitive, "sensitive")}
        reasons |= dict.fromkeys(left, "a value per row")
        reasons |= {} if weight is None else {weight: "sample weight"}
        used = {column.name for column in kept}
        return cls(
            target=target,
            negative=negative,
            positive=positive_text,
            sensitive=tuple(groups),
            inputs=kept,
            unused=tuple(
                (str(n), reasons.get(n, "dropped")) for n in frame.columns if n not in used
            ),
            weight=weight,
        )

    @classmethod
    def of_table(
        cls,
        frame: pd.DataFrame,
        *,
        target: str,
        positive: object = None,
        sensitive: Sequence[str],
        include_sensitive: bool = False,
        drop: Sequence[str] = (),
        types: Mapping[str, str] | None = None,
        weight: str | None = None,
    ) -> Schema:
        """Fits a schema whose inputs are all columns that play no other part.

        Args:
            frame: The table.
            target: As in ``fit``.
            positive: As in ``fit``.
            sensitive: As in ``fit``.
            include_sensitive: Whether the sensitive columns are inputs too.
            drop: Columns that are neither inputs nor anything else.
            types: As in ``fit``.
            weight: As in ``fit``.

        Raises:
            DataError: As ``fit``.
            OptionError: As ``fit``.
        """
        require_columns(frame, drop)
        left_out = {target, weight, *drop, *(() if include_sensitive else sensitive)}
        inputs = [c for c in frame.columns if c not in left_out]
        if not inputs:
            raise DataError(
                "data-no-inputs",
                "At least one column must be left as an input",
                got=f"columns {list(frame.columns)}",
                cure="Drop fewer columns.",
            )
        return cls.fit(
            frame,
            target=target,
            positive=positive,
            sensitive=sensitive,
            inputs=inputs,
            types=types,
            weight=weight,
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns of ``x``."""
        return tuple(f for c in self.inputs for f in c.features)

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns whose values are texts, whatever they look like."""
        named = [c.name for c in (*self.inputs, *self.sensitive) if c.categories]
        return (self.target, *named)

    def inputs_of(self, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Encodes the inputs of a table, ``(n, features)``; no label or group is needed.

        Raises:
            DataError: For missing columns, missing numbers, or categories that the schema does not
                know: all of them at once, up to 20.
        """
        require_columns(frame, [c.name for c in self.inputs])
        frame = frame.reset_index(drop=True)
        problems, blocks = Problems(), []
        for column in self.inputs:
            with problems.collected():
                blocks.append(encode_input(frame[column.name], column))
        problems.settle()
        return np.concatenate(blocks, axis=1)

    def labels_of(self, frame: pd.DataFrame) -> npt.NDArray[np.int64]:
        """Labels ``(n,)``, 1 for the positive one.

        Raises:
            DataError: For labels that the schema does not know.
        """
        require_columns(frame, [self.target])
        labels = as_text(frame[self.target])
        known = frame[self.target].notna() & labels.isin([self.negative, self.positive])
        if not known.all():
            raise DataError(
                "data-labels",
                f"Labels must be {self.negative!r} or {self.positive!r}",
                got=repr(labels[~known].iloc[0]),
                cure="Correct or drop these rows.",
            )
        return np.asarray(labels == self.positive, dtype=np.int64)

    def groups_of(self, frame: pd.DataFrame) -> npt.NDArray[np.int64]:
        """Codes ``(n, k)`` into the groups of the sensitive columns.

        Raises:
            DataError: For groups that the schema does not know.
        """
        require_columns(frame, [c.name for c in self.sensitive])
        frame = frame.reset_index(drop=True)
        return np.stack([codes_of(frame[c.name], c) for c in self.sensitive], axis=1)

    def encode(self, frame: pd.DataFrame, *, name: str = "data") -> Dataset:
        """Applies the schema.

        Args:
            frame: A table with the columns of this schema; others are ignored.
            name: What to call the data in reports.

        Raises:
            DataError: For missing columns, missing numbers, labels or categories that the schema
                does not know.
        """
        return self.with_inputs(frame, self.inputs_of(frame), self.feature_names, name=name)

    def with_inputs(
        self, frame: pd.DataFrame, x: Any, feature_names: Sequence[str], *, name: str = "data"
    ) -> Dataset:
        """Labels and groups of a table, with inputs that somebody else made of it.

        Args:
            frame: The table.
            x: ``(n, features)`` numbers.
            feature_names: The columns of ``x``.
            name: What to call the data in reports.

        Raises:
            DataError: For labels or groups that the schema does not know, or other lengths.
        """
        import torch

        from fairneuron.data.dataset import Dataset

        problems, parts = Problems(), []
        for part in (self.labels_of, self.groups_of):
            with problems.collected():
                parts.append(part(frame))
        problems.settle()
        return Dataset(
            x=torch.from_numpy(x),
            y=parts[0],
            sensitive=parts[1],
            sensitive_names=tuple(c.name for c in self.sensitive),
            sensitive_levels=tuple(c.categories for c in self.sensitive),
            feature_names=tuple(feature_names),
            name=name,
            positive=self.positive,
            schema=self,
            weight=None if self.weight is None else _weights(frame, self.weight),
        )

    def to_dict(self) -> dict[str, Any]:
        """The schema as plain lists and texts, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Schema:
        """Restores what ``to_dict`` gave.

        Raises:
            DataError: For anything else.
        """
        try:
            columns = {
                key: tuple(
                    Column(str(c["name"]), tuple(map(str, c["categories"]))) for c in fields[key]
                )
                for key in ("sensitive", "inputs")
            }
            unused = tuple((str(name), str(why)) for name, why in fields["unused"])
            texts = {key: str(fields[key]) for key in ("target", "negative", "positive")}
            weight = None if fields["weight"] is None else str(fields["weight"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                "data-schema",
                "A schema must be what Schema.to_dict gives",
                got=f"{type(error).__name__}: {error}",
                cure="Check the file that it is from.",
            ) from error
        return cls(**texts, **columns, unused=unused, weight=weight)  # type: ignore[arg-type]


def _require_roles(
    target: str, sensitive: Sequence[str], inputs: Sequence[str], weight: str | None
) -> None:
    """The target plays no other part, and there are sensitive columns."""
    if not sensitive or len(set(sensitive)) < len(sensitive):
        raise DataError(
            "data-no-sensitive",
            "A sensitive column must be named, each once",
            got=", ".join(sensitive) or "none",
            cure="Name the columns whose groups are compared.",
        )
    if target in sensitive or target in inputs or target == weight:
        raise DataError(
            "data-target-used",
            "The target cannot be an input, a sensitive column or a weight",
            got=repr(target),
            cure="Name another one.",
        )


def _require_size(frame: pd.DataFrame, inputs: Sequence[Column]) -> None:
    width = sum(len(column.features) for column in inputs)
    if not inputs:
        raise DataError(
            "data-no-inputs",
            "At least one column must be left as an input",
            got="only columns with a value per row",
            cure="Declare the type of one.",
        )
    if width * len(frame) > _MOST_CELLS:
        widest = sorted(inputs, key=lambda c: -len(c.features))[:3]
        raise DataError(
            "data-too-wide",
            f"Rows times inputs must be at most {_MOST_CELLS}",
            got=f"{len(frame)} x {width}; the most from "
            + ", ".join(f"{c.name!r} ({len(c.features)})" for c in widest),
            cure="Drop these columns, or group their values.",
        )


def _weights(frame: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    require_columns(frame, [name])
    return numbers_of(frame[name].reset_index(drop=True), name)
