"""What can be set in a recipe. Free of torch, so that a bad option is refused at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fairneuron.errors import OptionError, did_you_mean, require_known, require_range, require_whole

STOPS = (0.85, 0.5, 0.25, 0.08, -0.03, -0.12)
Numbers = float | Sequence[float]
"""A value, or several to try; settings keep several as a tuple."""


def several(values: Numbers) -> tuple[float, ...]:
    """All values to try, each once."""
    return tuple(dict.fromkeys(values)) if isinstance(values, Sequence) else (values,)


def _check_numbers(
    settings: object,
    name: str,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Refuses a setting that is neither a number in the range nor a sequence of such."""
    values = getattr(settings, name)
    if isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
        values = tuple(values)
        object.__setattr__(settings, name, values)
    if values == ():
        raise OptionError(
            "option-range",
            f"{name} must be a number, or list numbers",
            got="none",
            cure="Give one.",
        )
    for value in values if isinstance(values, tuple) else (values,):
        require_range(name, value, low, high, open_low=open_low, open_high=open_high)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train: Adam, the rate × 0.1 on a plateau (paper, section 4.1).

    Attributes:
        epochs: At most.
        batch_size: Rows per step.
        learning_rate: At the start.
        plateau: Epochs without improvement before the rate falls; None for a constant rate.
        patience: Epochs without improvement before training stops and the best epoch is restored;
            None to train all epochs and keep the last.
        min_steps: Steps to take at least: small data get more epochs.
    """

    epochs: int = 50
    batch_size: int = 128
    learning_rate: float = 0.01
    plateau: int | None = 3
    patience: int | None = None
    min_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "min_steps"):
            require_whole(name, getattr(self, name))
        require_range("epochs", self.epochs, 1, math.inf)
        require_range("min_steps", self.min_steps, 0, math.inf)
        require_range("batch_size", self.batch_size, 1, math.inf)
        require_range(
            "learning_rate", self.learning_rate, 0, math.inf, open_low=True, open_high=True
        )

    def epochs_for(self, rows: int) -> int:
        """Epochs on so many rows."""
        per_epoch = max(1, math.ceil(rows / self.batch_size))
        return max(self.epochs, math.ceil(self.min_steps / per_epoch))


def _require_schedule(schedule: object) -> None:
    if not isinstance(schedule, Schedule):
        raise OptionError(
            "option-range",
            "schedule must be a Schedule",
            got=repr(schedule),
            cure="For example fairneuron.Schedule(epochs=5).",
        )


@dataclass(frozen=True)
class PathOptions:
    """How paths are found and compared; see ``activation_paths``.

    Attributes:
        contribution: "signed", "absolute" or "gradient".
        level: What a path is a set of, "synapses" or "units".
        layers: "all", or the "last" one with weights.
        similarity: In (0, 1): counts the samples on similar paths instead of equal ones; None for
            equal ones.
    """

    contribution: str = "signed"
    level: str = "synapses"
    layers: str = "all"
    similarity: float | None = None

    def __post_init__(self) -> None:
        known = ("signed", "absolute", "gradient")
        require_known("option-contribution", "contribution", self.contribution, known)
        require_known("option-level", "level", self.level, ("synapses", "units"))
        require_known("option-layers", "layers", self.layers, ("all", "last"))
        if self.similarity is not None:
            require_range("similarity", self.similarity, 0, 1, open_low=True, open_high=True)

    @property
    def path_options(self) -> dict[str, Any]:
        """These, by name, as ``activation_paths`` takes them."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(PathOptions)}


@dataclass(frozen=True)
class PaperSettings(PathOptions):
    """The published recipe: samples with rare paths are retrained with dropout (Algorithm 1).

    Of γ, θ and the dropout several values can be tried, in a sequence. ``contribution``, ``level``,
    ``layers`` and ``similarity`` are those of ``PathOptions``.

    Attributes:
        gamma: In (0, 1]: share of a neuron's value that its synapses on the path explain.
        theta: In [0, 1]: a path is rare if its count is at most theta times the largest count,
            or 1.
        dropout: In (0, 1): dropout probability, for networks without dropout layers of their own.
        drop: What is dropped when biased samples are trained: "random" neurons (Algorithm 1), or
            all "outside_path", the sample's own (section 1); then ``dropout`` plays no part.
        schedule: Of the retraining.
    """

    gamma: Numbers = 0.9
    theta: Numbers = 1e-3
    dropout: Numbers = 0.1
    drop: str = "random"
    schedule: Schedule = field(default=Schedule(epochs=50, batch_size=128, learning_rate=0.01))

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_numbers(self, "gamma", 0, 1, open_low=True)
        _check_numbers(self, "theta", 0, 1)
        _check_numbers(self, "dropout", 0, 1, open_low=True, open_high=True)
        require_known("option-drop", "drop", self.drop, ("random", "outside_path"))
        if self.drop == "outside_path" and self.contribution == "gradient":
            raise OptionError(
                "option-drop",
                "What lies outside a path is muted where slicing has exact rules",
                got='contribution="gradient"',
                cure='Choose drop="random", or another contribution.',
            )
        _require_schedule(self.schedule)


@dataclass(frozen=True)
class ConflictSettings:
    """The default recipe: neurons that carry the gap are retrained on loss + λ · gap.

    Of the share of neurons and of λ several values can be tried, in a sequence.

    Attributes:
        neuron_share: In (0, 1]: the largest share of hidden neurons whose incoming weights may
            change.
        strengths: λ, above 0. None: 0.7, and 2.8 where that does not close the gap on training
            data; if it does so for no share, the smallest of several keeps 0.7.
        stops: In [-1, 1]: the way to the retrained network is gone until these shares of the
            original gap are left on training data, or it is turned round by so much where they are
            below 0; each stop is a candidate.
        schedule: Of the retraining; in large batches, as each must show the gap.
    """

    neuron_share: Numbers = (0.3, 1.0)
    strengths: Numbers | None = None
    stops: Numbers = STOPS
    schedule: Schedule = field(
        default=Schedule(
            epochs=5, batch_size=1024, learning_rate=0.003, plateau=None, min_steps=250
        )
    )

    def __post_init__(self) -> None:
        _check_numbers(self, "neuron_share", 0, 1, open_low=True)
        if self.strengths is not None:
            _check_numbers(self, "strengths", 0, 1e6, open_low=True)
        _check_numbers(self, "stops", -1, 1)
        _require_schedule(self.schedule)


SETTINGS: dict[str, type[ConflictSettings] | type[PaperSettings]] = {
    "conflict": ConflictSettings,
    "paper": PaperSettings,
}
AnySettings = TypeVar("AnySettings", bound=ConflictSettings | PaperSettings)


def make_settings(recipe: str, options: Mapping[str, Any]) -> ConflictSettings | PaperSettings:
    """The settings of a recipe, some of them changed.

    Raises:
        OptionError: For unknown names and values out of range.
    """
    require_known("option-recipe", "recipe", recipe, SETTINGS)
    return change(SETTINGS[recipe](), options)


def change(settings: AnySettings, options: Mapping[str, Any]) -> AnySettings:
    """A copy with some settings changed.

    ``epochs`` changes the schedule to exactly so many epochs, without a least number of steps.

    Raises:
        OptionError: For unknown names and values out of range.
    """
    known = [*(f.name for f in dataclasses.fields(settings)), "epochs"]
    for name in options:
        if name not in known:
            raise OptionError(
                "option-unknown",
                "An option must be one of the recipe's",
                got=repr(name),
                cure=did_you_mean(name, known),
            )
    changes = dict(options)
    if "epochs" in changes:
        schedule = changes.get("schedule", settings.schedule)
        epochs = changes.pop("epochs")
        changes["schedule"] = dataclasses.replace(schedule, epochs=epochs, min_steps=0)
    return dataclasses.replace(settings, **changes)
