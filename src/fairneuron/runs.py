"""A run: data, base model, repair, audits before and after, and the folder that holds them."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fairneuron.audit import Audit, audit, audit_scores
from fairneuron.checkpoints import tensor_bytes
from fairneuron.clustering import PathSummary
from fairneuron.data.builtin import SOURCES
from fairneuron.data.dataset import Dataset
from fairneuron.io import to_json, write_folder
from fairneuron.judging import judge
from fairneuron.limits import Limit
from fairneuron.loading import (
    SPLIT,
    Parts,
    Table,
    load_model,
    load_parts,
    parts_sum,
    read_own_table,
    split_name,
    sums,
)
from fairneuron.models import predict
from fairneuron.pathways import pathways
from fairneuron.progress import Progress, quiet
from fairneuron.recipes import Paper
from fairneuron.repair import FairNeuron, Repair
from fairneuron.report import front
from fairneuron.report.document import repair_document
from fairneuron.report.html import repair_page
from fairneuron.report.markdown import report
from fairneuron.report.parts import reference_accuracy
from fairneuron.resuming import kept_in
from fairneuron.state import State
from fairneuron.subject import Subject
from fairneuron.training import Keep, at_once
from fairneuron.trials import Trial, within_reach
from fairneuron.verdict import Verdict
from fairneuron.weights import mlp_weights, module_weights, network_sum


@dataclass(frozen=True)
class Proof:
    """What a candidate is worth.

    Attributes:
        after: Its audit on test data.
        validation: Its verdict on validation data.
        test: Its verdict on test data; it plays no part in any choice.
    """

    after: Audit
    validation: Verdict
    test: Verdict

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "after": self.after.to_dict(),
            "validation": self.validation.to_dict(),
            "test": self.test.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class Run:
    """A repair with the proof on test data.

    Attributes:
        subject: What was repaired.
        original: The base model.
        repair: The repair.
        before: Audit of the original on test data.
        proofs: Of the original, the chosen trial, and those that another limit could choose, by
            number.
        parts: Training, validation and test part of the data.
        about: Data, configuration and versions, as plain values.
        seconds: What took how long.
        texts: The columns of the user's table that were read as texts.
        files: The sha256 sums of the user's data files, by name.
        pathways: The original's paths on training data, as plain values.
    """

    subject: Subject
    original: nn.Module
    repair: Repair
    before: Audit
    proofs: dict[int, Proof]
    parts: Parts
    about: dict[str, Any]
    seconds: dict[str, float]
    texts: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    pathways: dict[str, Any] | None = None

    @property
    def after(self) -> Audit:
        """Audit of the repaired model on test data."""
        return self.proofs[self.repair.chosen.number].after

    @property
    def verdict(self) -> Verdict:
        """On test data; it changes nothing that was chosen."""
        return self.proofs[self.repair.chosen.number].test

    def to_dict(self) -> dict[str, Any]:
        """Everything but the timings, as plain values; a function of inputs, seed and versions."""
        result, proof = self.repair, self.proofs[self.repair.chosen.number]
        return {
            "format": 3,
            **self.about,
            "before": self.before.to_dict(),
            "after": proof.after.to_dict(),
            "most_frequent_class_accuracy": reference_accuracy(self.before.to_dict()),
            "verdicts": {"validation": proof.validation.to_dict(), "test": proof.test.to_dict()},
            "chosen": result.chosen.number,
            "stopped": result.stopped,
            "trials": [
                {
                    "number": trial.number,
                    "settings": trial.settings,
                    "on_front": trial in result.front,
                    "rejected": trial.rejected,
                    "validation": trial.metrics,
                    "training": trial.training,
                }
                for trial in result.trials
            ],
            "explanation": result.explanation.to_dict(),
            **({} if self.pathways is None else {"pathways": self.pathways}),
        }

    def write(self, folder: Path, *, overwrite: bool = False, interactive: bool = False) -> None:
        """Writes the run folder atomically: weights, result, reports, timings, manifest.

        Args:
            folder: Where.
            overwrite: Whether to replace a run folder of ours.
            interactive: Whether to write ``front.html``, too.
        """
        result = self.to_dict()
        proofs = {str(number): proof.to_dict() for number, proof in self.proofs.items()}
        files = {
            "original.safetensors": self._weights(self.original),
            "repaired.safetensors": self._weights(self.repair.model),
            "candidates.safetensors": self._candidates(),
            "encoding.json": to_json(self._encoding()),
            "front.json": to_json(proofs),
            "result.json": to_json(result),
            "report.md": report(result).encode(),
            "report.html": repair_page(result),
            "report.json": to_json(repair_document(result)),
            **({front.FILE: front.front_page(result, proofs)} if interactive else {}),
            "timings.json": to_json(self.seconds),
        }
        write_folder(folder, files, overwrite=overwrite)

    def _encoding(self) -> dict[str, Any]:
        """How the models read data: all that a prediction needs but the weights."""
        choice, test = self.subject.data, self.parts[2]
        scaling = test.scaling
        return {
            "format": 1,
            "kind": "arrays" if choice.kind in ("arrays", "images") else "table",
            "encode": choice.encode,
            "model": self.subject.model.model,
            "delimiter": choice.delimiter,
            "threshold": self.subject.threshold,
            "positive": test.positive,
            "schema": None if test.schema is None else test.schema.to_dict(),
            "texts": list(self.texts),
            "feature_names": list(test.feature_names),
            "scaling": None
            if scaling is None
            else {"mean": scaling.mean.tolist(), "scale": scaling.scale.tolist()},
        }

    def _weights(self, model: nn.Module) -> bytes:
        header = {SPLIT: split_name(self.subject, self.parts, self.files)}
        if self.subject.model.model is None:  # a network of ours
            assert isinstance(model, nn.Sequential)  # noqa: S101  # as it was made
            return mlp_weights(model, header)
        return module_weights(model, header)

    def _candidates(self) -> bytes:
        """What differs from the original in the candidates with a proof."""
        own = self.original.state_dict()
        changed = {}
        for trial in self.repair.trials:
            changes = trial.number in self.proofs and trial.number > 0
            if changes and isinstance(trial.model, nn.Module):
                for name, value in trial.model.state_dict().items():
                    if not torch.equal(value, own[name]):
                        changed[f"{trial.number}.{name}"] = value
        return tensor_bytes(changed, {})


def run_repair(
    subject: Subject,
    *,
    recipe: str,
    options: Mapping[str, Any],
    limit: Limit,
    table: Table | None = None,
    state: State | None = None,
    progress: Progress = quiet,
) -> Run:
    """Trains or loads the base model, repairs it, and audits on test data.

    The choice is made on validation data before the test data are read; the other candidates that
    another limit would choose are audited too, so that it can be done later.

    Args:
        subject: What to repair.
        recipe: As for ``repair``.
        options: As for ``repair``.
        limit: As for ``repair``.
        table: The user's, if it was read before.
        state: Where trainings are kept as they are done, and those of an earlier run are found.
        progress: Told of each step.

    Raises:
        OptionError: If the state is of other data, options, code or versions.
    """
    files = sums(subject.data)  # of what is read now, whatever becomes of it
    if table is None and subject.data.kind == "table":
        table = read_own_table(subject.data)
    parts = load_parts(subject, table)
    train, valid, test = parts
    mitigator = FairNeuron(recipe, limit=limit, threshold=subject.threshold, **options)
    about = about_of(subject, test, files, mitigator, options)
    keep: Keep = at_once
    if state is not None:
        keep = kept_in(state)
        _agree(state, about, subject, parts)
    start = time.perf_counter()
    original = load_model(subject, parts, progress, keep)
    trained = time.perf_counter()
    if state is not None:
        state.agree("base", {"base model": network_sum(original)})
    result = mitigator.repair(
        original, train, valid, seed=subject.seed, keep=keep, progress=progress
    )
    repaired = time.perf_counter()
    before = audit(original, test, threshold=subject.threshold, seed=subject.seed)
    others = (*result.front, *within_reach(result.trials, result.limit))
    kept = {t.number: t for t in (result.trials[0], result.chosen, *others)}
    proofs = {}
    for done, number in enumerate(sorted(kept), start=1):
        proofs[number] = _proof(subject, original, result, kept[number], parts)
        progress("proving", done, len(kept))
    paths = pathways(original, train, seed=subject.seed, **_slicing(result))
    seconds = {
        "base_model": trained - start,
        "repair": repaired - trained,
        "audit": time.perf_counter() - repaired,
    }
    texts = () if table is None else table.texts
    return Run(
        *(subject, original, result, before, proofs, parts, about, seconds, texts, files),
        pathways=paths,
    )


def _slicing(result: Repair) -> dict[str, Any]:
    """How recipe ``paper`` sliced for what was chosen; nothing of the other recipe."""
    found = result.explanation
    if not isinstance(result.recipe, Paper) or not isinstance(found, PathSummary):
        return {}
    return {
        "gamma": found.gamma,
        "theta": found.theta,
        "contribution": result.recipe.contribution,
    }


def _agree(state: State, about: Mapping[str, Any], subject: Subject, parts: Parts) -> None:
    """Refuses a state of something else; the processor counts too, since it rounds as it likes."""
    state.agree(
        "run",
        {
            "command": "repair",
            **about,
            "values of the data": parts_sum(parts),
            "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        },
    )


def about_of(
    subject: Subject,
    test: Dataset,
    files: Mapping[str, str],
    mitigator: FairNeuron,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What a result is of, but for the values in data and models."""
    recipe = mitigator.recipe
    further = {k: options[k] for k in ("class_weight", "time_budget") if options.get(k) is not None}
    if subject.intended_use is not None:
        further["intended_use"] = subject.intended_use
    return {
        "data": described(subject, test, files, part="test"),
        "configuration": {
            **_plain(subject.data),
            **_plain(subject.model),
            "seed": subject.seed,
            "threshold": subject.threshold,
            "recipe": type(recipe).__name__.lower(),
            "settings": _plain(recipe),
            "limit": mitigator.limit,
            **further,
        },
        "versions": used_versions(),
    }


def used_versions() -> dict[str, str]:
    """What results are made with."""
    names = ("fairneuron", "torch", "numpy", "scikit-learn")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def described(
    subject: Subject, data: Dataset, files: Mapping[str, str], *, part: str
) -> dict[str, Any]:
    """A part of the data as plain values, and where it is from; no row of it.

    Args:
        subject: What it is of.
        data: The part.
        files: The sha256 sums of the user's files, by name.
        part: What to call it.
    """
    choice, outcome = subject.data, outcome_of(subject)
    if choice.kind == "builtin":
        means = SOURCES[choice.name].positive_means
    else:
        means = f"{choice.target or 'y'} is {data.positive}"
        means += f" (the {outcome} outcome)" if outcome else ""
    found = data.describe() | {"part": part, "positive_means": means, "outcome": outcome}
    if files:
        found["sha256"] = dict(files)
    schema = data.schema
    if choice.encode is not None:
        found["encoded"] = {"by": choice.encode, "features": list(data.feature_names)}
    if schema is not None:
        found["inputs"] = [
            {"column": c.name, "type": c.type, "categories": len(c.categories)}
            for c in schema.inputs
        ]
        found["unused"] = [{"column": n, "why": why} for n, why in schema.unused]
    return found


def outcome_of(subject: Subject) -> str | None:
    """What ``y = 1`` is to a person; None if nobody said so."""
    choice = subject.data
    return SOURCES[choice.name].outcome if choice.kind == "builtin" else choice.outcome


def _proof(
    subject: Subject, original: nn.Module, result: Repair, trial: Trial, parts: Parts
) -> Proof:
    _, valid, test = parts
    chosen = trial.number == result.chosen.number
    model = result.model if chosen else trial.model
    assert isinstance(model, nn.Module)  # noqa: S101  # trials of this run have theirs
    means = outcome_of(subject)
    settings: dict[str, Any] = {"threshold": subject.threshold, "seed": subject.seed}
    judged: dict[str, Any] = {**settings, "positive_outcome": means}
    return Proof(
        after=audit_scores(predict(model, test), test, **settings),
        validation=dataclasses.replace(result.verdict, positive_outcome=means)
        if chosen
        else judge(original, model, valid, result.limit, on="validation", **judged),
        test=judge(original, model, test, result.limit, on="test", **judged),
    )


def _plain(settings: Any) -> dict[str, Any]:
    """The fields that are set, as JSON has them."""
    return {
        key: str(value) if isinstance(value, Path) else value
        for key, value in dataclasses.asdict(settings).items()
        if value is not None and value not in ((), {})
    }
