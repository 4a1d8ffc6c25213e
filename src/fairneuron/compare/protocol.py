"""How methods are compared: one base model per split, every configuration audited once.

For each seed: split the data, train the base model, let every method make its configurations for
every criterion, audit them on validation data, then once on test data. Choosing among them comes
later, from the validation figures in the records alone.
"""

from __future__ import annotations

import logging
import math
import platform
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from torch import nn

from fairneuron.audit import Audit, audit_scores
from fairneuron.baselines.protocol import CONFIGURATIONS
from fairneuron.compare.methods import CRITERIA, MakeMitigator, Named
from fairneuron.compare.records import Record
from fairneuron.compare.setting import Setting, signed_gaps
from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError, OptionError
from fairneuron.loading import Parts
from fairneuron.models import Predictor, predict
from fairneuron.repair import FairNeuron
from fairneuron.settings import Schedule
from fairneuron.training import train_classifier
from fairneuron.trials import Candidate, Trial, run_trial

SHOWN = ("accuracy", "balanced_accuracy", "auc", *CRITERIA)
_LONGEST = 300  # characters of an error
_ANY = 0.05  # the limit that methods are made with; what they try does not depend on it


@dataclass(frozen=True, eq=False)
class Job:
    """What is done with a seed.

    Attributes:
        setting: The splits and base models.
        methods: By name.
        seed: Of the split and of all training.
        wanted: Pairs of method and criterion, in this order.
        base: What records of before say of this seed's base model; it must be so again.
    """

    setting: Setting
    methods: Mapping[str, MakeMitigator]
    seed: int
    wanted: Sequence[tuple[str, str]]
    base: dict[str, Any] | None = None

    def run(self) -> Iterator[Record]:
        """A record for each pair, as they get done.

        Raises:
            OptionError: If the base model is another one than in the records.
            DataError: For data that cannot be split.
            ModelError: For a base model that does not fit the data, or diverges.
        """
        parts = self.setting.splits(self.seed)
        _warm_up([self.methods[name] for name, _ in self.wanted])
        with _modes_kept(self.setting.model):
            yield from self._records(parts)

    def _records(self, parts: Parts) -> Iterator[Record]:
        clock = Clock()
        with clock:
            model = self.setting.base(parts, self.seed)
        trained = not isinstance(self.setting.model, nn.Module)
        seconds = clock.to_dict() if trained else dict.fromkeys(clock.to_dict())
        base = self._same_as_before(self._base(model, parts)) | seconds
        for method, criterion in self.wanted:
            yield {
                "seed": self.seed,
                "method": method,
                "criterion": criterion,
                "base": base,
                **self._tried(self.methods[method], criterion, model, parts),
                "versions": versions(),
            }

    def _base(self, model: nn.Module, parts: Parts) -> dict[str, Any]:
        """Figures of the base model, and what the test part alone allows."""
        valid, test = (self._audit(model, part) for part in parts[1:])
        labels = test.counts.sum((0, 2))
        floor = replace(test, histograms=None).noise_floor
        return {
            "valid": figures(valid),
            "test": figures(test),
            "majority": float(labels.max() / labels.sum()),
            "noise_floor": {name: floor[name] for name in CRITERIA},
        }

    def _same_as_before(self, base: dict[str, Any]) -> dict[str, Any]:
        """The figures of the base model, if those of records of before are the same."""
        if self.base is not None and any(self.base[name] != base[name] for name in base):
            raise OptionError(
                "option-out",
                "The base model must be the one that the records are of",
                got=f"other figures for seed {self.seed}: another machine, other versions",
                cure="Choose another --out.",
            )
        return base

    def _tried(
        self, method: MakeMitigator, criterion: str, model: nn.Module, parts: Parts
    ) -> dict[str, Any]:
        """What a method did, or why it failed: nothing that it raises stops the others."""
        clock = Clock()
        needs_sensitive = False
        try:
            needs_sensitive = _needs_sensitive(method)  # if it cannot be made, its class says so
            with clock:
                mitigator = method({criterion: _ANY})
                needs_sensitive = _needs_sensitive(mitigator)
                trials = [
                    run_trial(
                        number, candidate, parts[1], {criterion: _ANY}, self.setting.threshold
                    )
                    for number, candidate in enumerate(
                        candidates_of(mitigator, model, parts, self.seed), start=1
                    )
                ]
            _require_few(trials)
            needs_sensitive |= any(_needs_sensitive(trial.model) for trial in trials)
            found, error = [self._configuration(trial, parts) for trial in trials], None
        except Exception as problem:
            found, error = [], f"{type(problem).__name__}: {problem}"[:_LONGEST]
        return {
            **clock.to_dict(),
            "needs_sensitive": needs_sensitive,
            "error": error,
            "configurations": found,
        }

    def _configuration(self, trial: Trial, parts: Parts) -> dict[str, Any]:
        """Settings and figures of a configuration; the test data are read here, once."""
        test, rejected = None, trial.rejected
        if trial.audit is not None and trial.model is not None:
            try:
                test = figures(self._audit(trial.model, parts[2]))
            except ModelError as error:  # it stays to be chosen: test data say nothing in that
                if error.code != "model-nonfinite":
                    raise
        return {
            "settings": plain(trial.settings),
            "valid": None if trial.audit is None else figures(trial.audit),
            "test": test,
            "rejected": rejected,
        }

    def _audit(self, model: nn.Module | Predictor, part: Any) -> Audit:
        return audit_scores(
            predict(model, part), part, threshold=self.setting.threshold, seed=self.seed
        )


def candidates_of(mitigator: Any, model: nn.Module, parts: Parts, seed: int) -> Iterator[Candidate]:
    """The configurations of a mitigator; one without a choice of them has what ``fit`` gives."""
    training, valid, _ = parts
    if callable(getattr(mitigator, "candidates", None)):
        yield from mitigator.candidates(model, training, valid, seed=seed)
    else:
        yield {}, mitigator.fit(model, training, valid, seed=seed), True


def figures(audited: Audit) -> dict[str, Any]:
    """The metrics that are kept, and the signed gaps of two groups."""
    return {
        **{name: audited.metrics[name] for name in SHOWN},
        "signed": signed_gaps(audited),
    }


def versions() -> dict[str, str]:
    """What computed it."""
    names = ("fairneuron", "torch", "numpy", "scikit-learn", "scipy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them; what is no finite number, text or truth value as its text."""

    def one(value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        good = isinstance(value, (bool, int, str)) or (
            isinstance(value, float) and math.isfinite(value)
        )
        return value if good else str(value)

    return {str(name): one(value) for name, value in settings.items()}


class Clock:
    """Wall and CPU seconds inside its ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start[0]
        self.cpu_seconds += time.process_time() - self._start[1]

    def to_dict(self) -> dict[str, float]:
        """Both, for a record."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}


def _needs_sensitive(of: object) -> bool:
    found = getattr(of, "needs_sensitive", False)
    return not isinstance(found, property) and bool(found)  # a class of others may have one


@contextmanager
def _modes_kept(model: object) -> Iterator[None]:
    """Gives every module of a given network its own mode back."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [(module, module.training) for module in modules]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _require_few(trials: Sequence[Trial]) -> None:
    if len(trials) > CONFIGURATIONS:
        raise OptionError(
            "option-methods",
            f"A method can try up to {CONFIGURATIONS} configurations, as the others do",
            got=f"{len(trials)}",
            cure="Let it try fewer.",
        )


def _warm_up(methods: Iterable[MakeMitigator]) -> None:
    """Does what a process does once, so that no method's clock counts it."""
    rng = np.random.default_rng(0)
    y, group = np.arange(64) % 2, np.array(["A", "B"])[np.arange(64) // 2 % 2]
    data = Dataset.from_arrays(rng.normal(size=(64, 4)).astype(np.float32), y, group)
    model = train_classifier(data, data, hidden=(4,), schedule=Schedule(epochs=2, patience=2))
    for _ in FairNeuron(epochs=1).candidates(model, data, data, seed=0):
        pass
    ours = [method for method in methods if isinstance(method, Named)]
    _import_all(dict.fromkeys(name for method in ours for name in method.libraries))


def _import_all(names: Iterable[str]) -> None:
    """Imports what can be imported; the method that needs what cannot says so itself.

    What libraries log at it, such as that of others they could use, is not shown.
    """
    root, silent = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(silent)
    root.setLevel(logging.ERROR)
    try:
        for name in names:
            with warnings.catch_warnings(), suppress(Exception):
                warnings.simplefilter("ignore")
                import_module(name)
    finally:
        root.removeHandler(silent)
        root.setLevel(level)
