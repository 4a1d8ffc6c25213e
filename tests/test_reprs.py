"""What a notebook or a prompt prints of a result: a few lines, without networks and arrays."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

import fairneuron as fn
from fairneuron.clustering import summarise_paths

QUICK = fn.Schedule(epochs=2, batch_size=64)


@pytest.fixture(scope="module")
def data() -> fn.Dataset:
    """A small table of two groups."""
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(400, 3)), rng.integers(0, 2, 400)
    y = (x[:, 0] + group + rng.normal(size=400) > 0.5).astype(int)
    return fn.Dataset.from_arrays(x, y, group)


@pytest.fixture(scope="module")
def parts(data: fn.Dataset) -> tuple[fn.Dataset, fn.Dataset]:
    """Training and validation part."""
    return data.split(0)[:2]


@pytest.fixture(scope="module")
def model(parts: tuple[fn.Dataset, fn.Dataset]) -> nn.Module:
    """A small network."""
    return fn.train_classifier(*parts, hidden=(6,), seed=0, schedule=QUICK)


def shown(result: object, lines: int = 1) -> str:
    """What is printed of a result."""
    text = repr(result)
    assert text.count("\n") < lines
    assert len(text) < 1500
    assert not any(word in text for word in ("Linear(", "Sequential(", "array(", "tensor("))
    return text


def test_a_repair(model: nn.Module, parts: tuple[fn.Dataset, fn.Dataset]) -> None:
    """The verdict, what was chosen, and how many candidates there were."""
    found = fn.repair(model, *parts, schedule=QUICK)
    text = shown(found, lines=3)
    assert found.verdict.sentence() in text
    assert f"{len(found.trials) - 1} candidates, {len(found.front)} on the front" in text
    chosen = "0, the original" if found.chosen.number == 0 else f"{found.chosen.number}: neuron"
    assert f"chosen {chosen}" in text
    assert shown(found.explanation) == f"ConflictExplanation({found.explanation.sentence()})"
    assert shown(found.verdict) == f"Verdict({found.verdict.sentence()})"
    assert shown(found.trials[0]).startswith("Trial(0, the original; accuracy 0.")
    settings = found.trials[1].settings
    said = f"Trial(1: neuron share {settings['neuron_share']:g}, strength {settings['strength']:g}"
    assert shown(found.trials[1]).startswith(said)
    assert shown(found.trials[1]).count(" dp 0.") == 1


def test_a_repair_that_was_stopped(model: nn.Module, parts: tuple[fn.Dataset, fn.Dataset]) -> None:
    """Says so."""
    found = fn.repair(model, *parts, schedule=QUICK, time_budget=1e-9)
    assert found.stopped is not None
    assert found.stopped in shown(found, lines=4)


def test_a_search(model: nn.Module, parts: tuple[fn.Dataset, fn.Dataset]) -> None:
    """How many candidates there were, and the best one."""
    found = fn.search(model, *parts, samples=2, share=1.0, epochs=2)
    assert f"Search(2 candidates, {len(parts[0])} rows; " in shown(found)
    assert shown(found.candidates[0]).startswith("Candidate(1: gamma 0.")


def test_paths(model: nn.Module, data: fn.Dataset) -> None:
    """Counts alone."""
    named = ["a", "b"]
    found = fn.path_neurons(model, data.x, data.group, names=named)
    sizes = np.bincount(data.group)
    text = (
        f"PathNeurons(samples by cell: a {sizes[0]}, b {sizes[1]}; neurons by layer: input 3, 0 6)"
    )
    assert shown(found) == text
    summary = summarise_paths(fn.activation_paths(model, data.x), data, 0.01)
    assert shown(summary) == f"PathSummary({summary.sentence()})"
