"""The subject of a run: which data, which model. Bad choices are refused without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fairneuron.data.builtin import KNOWN, SOURCES
from fairneuron.data.tables import require_file
from fairneuron.errors import OptionError, did_you_mean, require_known, require_range
from fairneuron.limits import OUTCOMES

ARRAY_FILES = (".npz", ".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class DataChoice:
    """Which data, and what its columns mean.

    Attributes:
        data: Name of a known data set, or path of a table, of arrays, or of a folder of images.
        train: Path of the training table, where somebody split the data already.
        valid: Likewise for validation; a part of the training table unless given.
        test: Likewise for testing.
        split_column: The column that says which part a row belongs to.
        target: The column with the label.
        positive: The label of ``y = 1``.
        outcome: What ``y = 1`` is to a person, "favourable" or "harmful"; not stated unless given.
        sensitive: The columns to compare; of a data set of ours the default one unless given.
        include_sensitive: Whether they are inputs too.
        drop: Columns that are no inputs.
        types: Column name to "number" or "category".
        weight: The column with sample weights.
        delimiter: Between the fields of a CSV file.
        encode: ``module:function`` that makes ``x`` of a table.

    Raises:
        OptionError: For choices that do not go together.
        DataError: For paths that are no files.
    """

    data: str | None = None
    train: Path | None = None
    valid: Path | None = None
    test: Path | None = None
    split_column: str | None = None
    target: str | None = None
    positive: str | None = None
    outcome: str | None = None
    sensitive: tuple[str, ...] = ()
    include_sensitive: bool = False
    drop: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    weight: str | None = None
    delimiter: str | None = None
    encode: str | None = None

    def __post_init__(self) -> None:
        self._check_source()
        if self.kind == "builtin":
            self._check_builtin()
        else:
            self._check_own()
        if self.outcome is not None:
            require_known("option-outcome", "outcome", self.outcome, OUTCOMES)
        require_path("encode", self.encode)

    @property
    def kind(self) -> str:
        """One of "builtin", "table", "arrays" and "images"."""
        if self.data in SOURCES:
            return "builtin"
        if self.data in KNOWN:
            return "images"
        if self.data is not None and self.target is None and Path(self.data).is_dir():
            return "images"
        return "arrays" if self.files[0].suffix.lower() in ARRAY_FILES else "table"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files to read, or the folder of images, training first."""
        if self.data is not None:
            return () if self.data in KNOWN else (Path(self.data),)
        return tuple(path for path in (self.train, self.valid, self.test) if path is not None)

    @property
    def name(self) -> str:
        """What to call it in reports."""
        return self.data or self.files[0].name

    def _check_source(self) -> None:
        parts = [o for o in ("train", "valid", "test") if getattr(self, o) is not None]
        if (self.data is None) == (not parts) or (parts and not {"train", "test"} <= set(parts)):
            raise OptionError(
                "option-data",
                "Data are given as --data, or as --train and --test (and --valid)",
                got=", ".join(f"--{o}" for o in ([] if self.data is None else ["data"]) + parts)
                or "none of them",
                cure="Give one or the other.",
            )
        if self.data is not None:
            require_source(self.data)

    def _check_builtin(self) -> None:
        own = ("split_column", "target", "positive", "drop", "types", "weight", "delimiter")
        self._refuse([*own, "outcome", "encode"], f"a table of your own, not {self.data}")
        for column in self.sensitive:
            what, known = f"sensitive column of {self.data}", SOURCES[str(self.data)].sensitive
            require_known("option-sensitive", what, column, known)
        if len(set(self.sensitive)) < len(self.sensitive):
            raise OptionError(
                "option-sensitive",
                "A sensitive column can be named once",
                got=", ".join(self.sensitive),
                cure="Drop one.",
            )

    def _check_own(self) -> None:
        for path in self.files if self.kind != "images" else ():
            require_file(path)
        if self.kind in ("arrays", "images"):
            own = ("split_column", "target", "drop", "types", "weight", "delimiter", "encode")
            self._refuse([*own, "include_sensitive"], f"a table, not {self.kind}")
            if self.data in KNOWN:
                self._refuse(
                    ["positive", "sensitive", "outcome"], f"data of your own, not {self.data}"
                )
            return
        if self.encode is not None:
            self._refuse(["include_sensitive"], "our own encoding, not --encode")
        for option in ("target", "sensitive"):
            if not getattr(self, option):
                raise OptionError(
                    f"option-{option}",
                    f"A table of your own needs --{option}",
                    got="none",
                    cure="Name the column with the label."
                    if option == "target"
                    else "Name the columns whose groups are compared.",
                )
        if self.split_column is not None and self.data is None:
            self._refuse(["split_column"], "a single table")

    def _refuse(self, options: Sequence[str], whose: str) -> None:
        given = [f"--{option.replace('_', '-')}" for option in options if getattr(self, option)]
        if given:
            raise OptionError(
                "option-data",
                f"Some options are for {whose}",
                got=", ".join(given),
                cure="Leave them out.",
            )


@dataclass(frozen=True)
class ModelChoice:
    """Which model.

    Attributes:
        model: ``module:factory``, called without arguments to make the user's network.
        weights: A file of weights: for that network, or one that fairneuron wrote.
        hidden: Widths of the base model that we train otherwise; empty for the paper's.
        outputs: Its outputs: 1 logit, or 2 class logits.

    Raises:
        OptionError: For choices out of range, or that do not go together.
    """

    model: str | None = None
    weights: Path | None = None
    hidden: tuple[int, ...] = ()
    outputs: int = 1

    def __post_init__(self) -> None:
        require_path("model", self.model)
        if any(not 1 <= width <= 1 << 16 for width in self.hidden) or len(self.hidden) > 64:
            raise OptionError(
                "option-hidden",
                "There can be up to 64 hidden layers of 1 to 65536 neurons",
                got=",".join(map(str, self.hidden)),
                cure="For example 32,32,32.",
            )
        if self.given and (self.hidden or self.outputs != 1):
            raise OptionError(
                "option-weights",
                "A given model has its own widths and outputs",
                got="--hidden or --outputs together with --model or --weights",
                cure="Leave those out.",
            )
        if self.outputs not in (1, 2):
            raise OptionError(
                "option-outputs",
                "The outputs must be 1 or 2",
                got=self.outputs,
                cure="1 is one logit, 2 are class logits.",
            )

    @property
    def given(self) -> bool:
        """Whether the user has a trained model."""
        return self.model is not None or self.weights is not None


@dataclass(frozen=True)
class Subject:
    """What is audited or repaired.

    Attributes:
        data: Which data.
        model: Which model.
        seed: Of the split and of all training.
        threshold: On the probability of ``y = 1``, in [0, 1].
        intended_use: What the model is for, in the user's words; for reports.

    Raises:
        OptionError: For values out of range.
    """

    data: DataChoice
    model: ModelChoice = field(default_factory=ModelChoice)
    seed: int = 0
    threshold: float = 0.5
    intended_use: str | None = None

    def __post_init__(self) -> None:
        require_range("threshold", self.threshold, 0, 1)

    @property
    def scaled(self) -> bool:
        """Whether inputs are standardised on the training part.

        Not if the user's own network reads a layout of its own. Networks of ours always were
        trained on scaled inputs.
        """
        own_layout = self.data.kind in ("arrays", "images") or self.data.encode is not None
        return not (own_layout and self.model.model is not None)


def require_source(data: str) -> None:
    """Raises an ``OptionError`` for what is no known data set, and does not look like a path."""
    if data not in KNOWN and not re.search(r"[./\\]", data) and not os.path.lexists(data):
        raise OptionError(
            "option-data",
            "The data must be a known data set or a file",
            got=repr(data),
            cure=did_you_mean(data, KNOWN),
        )


def require_path(option: str, text: str | None) -> None:
    """Raises an ``OptionError`` unless the text reads ``package.module:function``."""
    if text is not None and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", text):
        raise OptionError(
            f"option-{option}",
            f"--{option} must be MODULE:FUNCTION",
            got=repr(text),
            cure="For example mypackage.nets:build.",
        )
