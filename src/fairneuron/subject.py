"""The subject of a run: which data, which model; bad choices are refused without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fairneuron.data.builtin import SOURCES, load_dataset
from fairneuron.errors import OptionError, require_known

if TYPE_CHECKING:
    from torch import nn

    from fairneuron.data.dataset import Dataset
    from fairneuron.training import Progress


@dataclass(frozen=True)
class Subject:
    """What is audited or repaired.

    Attributes:
        data: Name of a data set that comes with the package.
        sensitive: Its sensitive columns to compare; empty for the default.
        include_sensitive: Whether they are inputs too.
        hidden: Widths of the base model; empty for the paper's.
        outputs: Its outputs: 1 logit, or 2 class logits.
        weights: A file of weights to use instead of training a base model.
        seed: Of the split and of all training.

    Raises:
        OptionError: For unknown names and values out of range.
    """

    data: str
    sensitive: tuple[str, ...] = ()
    include_sensitive: bool = False
    hidden: tuple[int, ...] = ()
    outputs: int = 1
    weights: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_known("option-data", "data set", self.data, SOURCES)
        for column in self.sensitive:
            what, known = f"sensitive column of {self.data}", SOURCES[self.data].sensitive
            require_known("option-sensitive", what, column, known)
        if len(set(self.sensitive)) < len(self.sensitive):
            raise OptionError(
                "option-sensitive",
                "A sensitive column can be named once",
                got=", ".join(self.sensitive),
                cure="Drop one.",
            )
        if any(not 1 <= width <= 1 << 16 for width in self.hidden) or len(self.hidden) > 64:
            raise OptionError(
                "option-hidden",
                "There can be up to 64 hidden layers of 1 to 65536 neurons",
                got=",".join(map(str, self.hidden)),
                cure="For example 32,32,32.",
            )
        if self.weights is not None and (self.hidden or self.outputs != 1):
            raise OptionError(
                "option-weights",
                "The file of weights says which network it is for",
                got="weights together with hidden or outputs",
                cure="Leave those out.",
            )
        if self.outputs not in (1, 2):
            raise OptionError(
                "option-outputs",
                "The outputs must be 1 or 2",
                got=self.outputs,
                cure="1 is one logit, 2 are class logits.",
            )

    def parts(self) -> tuple[Dataset, Dataset, Dataset]:
        """Training, validation and test part."""
        chosen = self.sensitive or None
        data = load_dataset(self.data, sensitive=chosen, include_sensitive=self.include_sensitive)
        return data.split(self.seed)

    def model(self, train: Dataset, valid: Dataset, progress: Progress) -> nn.Sequential:
        """The base model: loaded, or trained on the training part."""
        from fairneuron.training import train_classifier
        from fairneuron.weights import load_mlp

        if self.weights is not None:
            return load_mlp(self.weights)
        return train_classifier(
            train,
            valid,
            hidden=self.hidden or SOURCES[self.data].hidden,
            outputs=self.outputs,
            seed=self.seed,
            progress=progress,
        )
