"""A run: data, base model, repair, audits before and after, and the folder that holds them."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from fairneuron.audit import Audit, audit
from fairneuron.data.builtin import SOURCES
from fairneuron.data.dataset import Dataset
from fairneuron.io import to_json, write_folder
from fairneuron.limits import Limit
from fairneuron.repair import Repair, repair
from fairneuron.report.markdown import report
from fairneuron.subject import Subject
from fairneuron.training import Progress, quiet
from fairneuron.verdict import Verdict, judge
from fairneuron.weights import mlp_weights


@dataclass(frozen=True, eq=False)
class Run:
    """A repair with the proof on test data.

    Attributes:
        subject: What was repaired.
        original: The base model.
        repair: The repair.
        before: Audit of the original on test data.
        after: Audit of the repaired one.
        verdict: On test data; it changes nothing that was chosen.
        test: The test part.
        seconds: What took how long.
    """

    subject: Subject
    original: nn.Sequential
    repair: Repair
    before: Audit
    after: Audit
    verdict: Verdict
    test: Dataset
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the timings, as plain values; a function of inputs, seed and versions."""
        result = self.repair
        return {
            "format": 1,
            "data": self.test.describe()
            | {"part": "test", "positive_means": SOURCES[self.subject.data].positive_means},
            "configuration": {
                **_plain(self.subject),
                "recipe": type(result.recipe).__name__.lower(),
                "settings": _plain(result.recipe),
                "limit": result.limit,
                "threshold": 0.5,
            },
            "versions": {
                "python": platform.python_version(),
                **{
                    name: version(name) for name in ("fairneuron", "torch", "numpy", "scikit-learn")
                },
            },
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "verdicts": {"validation": result.verdict.to_dict(), "test": self.verdict.to_dict()},
            "chosen": result.chosen.number,
            "trials": [
                {
                    "number": trial.number,
                    "settings": trial.settings,
                    "on_front": trial in result.front,
                    "rejected": trial.rejected,
                    "validation": trial.audit.metrics if trial.audit else None,
                }
                for trial in result.trials
            ],
            "explanation": result.explanation.to_dict(),
        }

    def write(self, folder: Path, *, overwrite: bool = False) -> None:
        """Writes the run folder atomically: weights, result, report, timings, manifest."""
        assert isinstance(self.repair.model, nn.Sequential)  # noqa: S101  # the class of the original
        result = self.to_dict()
        files = {
            "original.safetensors": mlp_weights(self.original),
            "repaired.safetensors": mlp_weights(self.repair.model),
            "result.json": to_json(result),
            "report.md": report(result).encode(),
            "timings.json": to_json(self.seconds),
        }
        write_folder(folder, files, overwrite=overwrite)


def run_repair(
    subject: Subject,
    *,
    recipe: str,
    options: Mapping[str, Any],
    limit: Limit,
    progress: Progress = quiet,
) -> Run:
    """Trains or loads the base model, repairs it, and audits both on test data."""
    train, valid, test = subject.parts()
    start = time.perf_counter()
    original = subject.model(train, valid, progress)
    trained = time.perf_counter()
    result = repair(
        original,
        train,
        valid,
        recipe=recipe,
        limit=limit,
        seed=subject.seed,
        progress=progress,
        **options,
    )
    repaired = time.perf_counter()
    before, after = (audit(model, test, seed=subject.seed) for model in (original, result.model))
    verdict = judge(original, result.model, test, limit, on="test", seed=subject.seed)
    seconds = {
        "base_model": trained - start,
        "repair": repaired - trained,
        "audit": time.perf_counter() - repaired,
    }
    return Run(subject, original, result, before, after, verdict, test, seconds)


def _plain(settings: Any) -> dict[str, Any]:
    return {
        key: str(value) if isinstance(value, Path) else value
        for key, value in dataclasses.asdict(settings).items()
        if value is not None
    }
