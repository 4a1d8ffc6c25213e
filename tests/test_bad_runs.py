"""What can go wrong with a run: nobody to retrain, odd batches, resources, folders, full disks.

The rest of the project's list of bad inputs is in ``test_bad_inputs.py``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron import cli
from fairneuron.models import mlp
from fairneuron.weights import mlp_weights
from tests.conftest import made_up
from tests.fuzzing import Outcome, command
from tests.test_cli import finish, start, untrainable

assert untrainable  # a fixture

OWN = ("--data", "a.npz", "--weights", "w.safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a network, one that gives all the same, and a run."""
    folder = tmp_path_factory.mktemp("runs")
    data = made_up(200)
    groups = np.array(data.group_names)[data.group]
    np.savez(folder / "a.npz", x=data.x.numpy(), y=data.y, sensitive=groups)
    rows = (f"{i * 0.1:.1f},{'ab'[i % 2]},{'yes' if i % 3 else 'no'}" for i in range(200))
    (folder / "t.csv").write_text("\n".join(["x,g,y", *rows]) + "\n")
    torch.manual_seed(0)
    network = mlp(5, (4,))
    (folder / "w.safetensors").write_bytes(mlp_weights(network))
    (folder / "w.pkl").write_bytes(pickle.dumps(network.state_dict()))
    with torch.no_grad():
        network[0].weight.zero_()  # type: ignore[operator]
    (folder / "same.safetensors").write_bytes(mlp_weights(network))
    assert command(folder, "repair", *OWN, "--epochs", "1", "--out", "R").code in (0, 1)
    return folder


def refused(outcome: Outcome, code: str) -> None:
    """Exit code 2, one message with this code, and nothing else."""
    assert (outcome.code, outcome.out) == (2, ""), outcome
    assert re.search(rf"^error\[{code}\]: \S", outcome.err, re.MULTILINE), outcome.err
    assert "Traceback" not in outcome.err


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, the hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# 74: nobody biased, nobody benign


@pytest.mark.parametrize(
    ("weights", "theta", "who"), [("w", "1", "benign"), ("same", "0", "biased")]
)
def test_nobody_of_a_cluster_is_said(
    weights: str, theta: str, who: str, run: Path, tmp_path: Path
) -> None:
    """A repair goes on to its verdict, and the command and its report say who is missing."""
    words = ("--data", "a.npz", "--weights", f"{weights}.safetensors", "--theta", theta)
    out = tmp_path / "o"
    outcome = command(run, "repair", *words, "--recipe", "paper", "--epochs", "1", "--out", out)
    assert outcome.code in (0, 1), outcome.err
    assert f"Nobody is {who}." in " ".join(outcome.out.split())
    assert f"Nobody is {who}." in (out / "report.md").read_text(encoding="utf-8")
    counted = command(run, "paths", *words)
    assert counted.code == 0, counted.err
    assert f"Nobody is {who}." in " ".join(counted.out.split())


def test_a_search_with_nobody_benign_has_no_crash(run: Path) -> None:
    """It says what it found, or that it cannot."""
    outcome = command(
        run, "search", *OWN, "--grid", "--theta", "1", "--gamma", "1", "--epochs", "1"
    )
    assert outcome.code in (0, 1), outcome.err
    assert "Traceback" not in outcome.err


# 75: a last batch of one


def normed() -> nn.Sequential:
    """A network that cannot be trained on a batch of one."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1))


QUICK = fn.Schedule(epochs=2, batch_size=32)
TRAININGS: dict[str, Callable[[fn.Dataset, fn.Dataset], object]] = {
    "conflict": lambda t, v: fn.repair(
        normed(), t, v, recipe=fn.Conflict(schedule=QUICK, neuron_share=(0.5, 1.0))
    ),
    "paper": lambda t, v: fn.repair(normed(), t, v, recipe=fn.Paper(schedule=QUICK)),
    "paper, one biased": lambda t, v: fn.repair(
        normed(), t, v, recipe=fn.Paper(schedule=QUICK, theta=0, gamma=0.5)
    ),
    "search": lambda t, v: fn.search(normed(), t, v, samples=2, share=1, epochs=1),
    "random dropout": lambda t, v: fn.baselines.RandomDropout(schedule=QUICK).fit(
        normed(), t, v, seed=0
    ),
    "reweighing": lambda t, v: fn.baselines.Reweighing(schedule=QUICK).fit(normed(), t, v, seed=0),
    "FAD": lambda t, v: fn.baselines.FAD(schedule=QUICK).fit(normed(), t, v, seed=0),
}


@pytest.mark.filterwarnings("ignore:.*model-head")  # this network may give small numbers alone
@pytest.mark.parametrize("kind", TRAININGS)
def test_a_last_batch_of_one(kind: str) -> None:
    """A row more than fits into whole batches trains a network with batch norm all the same."""
    data, valid = made_up(32 * 8 + 1), made_up(120, seed=1)
    assert len(data) % 32 == 1
    assert TRAININGS[kind](data, valid)


# 78: more than there is


def test_resources_that_no_machine_has(run: Path) -> None:
    """A search on Ray that could never begin is refused within seconds, the start of Ray in it."""
    if find_spec("ray") is None:
        pytest.skip("needs ray")
    begun = time.monotonic()
    words = ("--on", "ray", "--resources", "CPU=100000", "--samples", "1", "--epochs", "1")
    refused(finish(start("search", *OWN, *words, cwd=run)), "option-resources")
    assert time.monotonic() - begun < 120  # of which Ray takes most, on a machine at work


@pytest.mark.parametrize(
    "words",
    [
        ("search", *OWN, "--on", "ray", "--resources", "CPU=0"),
        ("search", *OWN, "--resources", "CPU=-1"),
        ("search", *OWN, "--resources", "CPU=inf"),
        ("compare", *OWN, "--methods", "naive", "--out", "o", "--workers", "1000000"),
        ("reproduce", "table4", "--out", "o", "--workers", "1000000"),
    ],
    ids=lambda words: " ".join(words[-2:]),
)
def test_amounts_that_nobody_has(words: tuple[str, ...], run: Path) -> None:
    """Amounts of processors that make no sense are refused at once, and nothing is written."""
    before = contents(run)
    begun = time.monotonic()
    refused(command(run, *words), "(option-resources|option-range|usage)")
    assert time.monotonic() - begun < 10
    assert contents(run) == before


# 79: the output exists, or cannot be written

WRITERS: dict[str, tuple[str, ...]] = {  # without the output
    "repair": ("repair", *OWN, "--epochs", "1", "--out"),
    "compare": (
        *("compare", *OWN, "--methods", "naive", "--seeds", "1", "--workers", "1"),
        *("--criteria", "dp", "--no-plots", "--out"),
    ),
    "reproduce": ("reproduce", "table4", "--data", "credit", "--quick", "--no-plots", "--out"),
    "search": ("search", *OWN, "--samples", "1", "--epochs", "1", "--out"),
    "predict": ("predict", "R", "a.npz", "--out"),
    "convert": ("convert", "w.pkl", "--sha256", "SUM", "--out"),
    "export": ("data", "export", "credit"),
    "init": ("init", "t.csv", "--target", "y", "--positive", "yes", "--sensitive", "g", "--out"),
}


def words_of(name: str, run: Path, out: Path) -> list[str]:
    """The command with its output."""
    total = hashlib.sha256((run / "w.pkl").read_bytes()).hexdigest()
    end = ".safetensors" if name == "convert" else ""
    return [total if w == "SUM" else w for w in WRITERS[name]] + [f"{out}{end}"]


def test_every_command_that_writes_is_here() -> None:
    """A new command with an output must be added."""
    apps = (cli.app, *(group.typer_instance for group in cli.app.registered_groups))
    found = set()
    for command_ in (one for app in apps if app is not None for one in app.registered_commands):
        assert command_.callback is not None
        if "out" in signature(command_.callback).parameters:
            found.add(command_.name or command_.callback.__name__)
    assert found == set(WRITERS)


@pytest.mark.usefixtures("untrainable")
@pytest.mark.parametrize("kind", ["file", "folder", "link to nothing"])
@pytest.mark.parametrize("name", WRITERS)
def test_what_exists_is_refused(name: str, kind: str, run: Path, tmp_path: Path) -> None:
    """Before any work, whatever it is, and it stays as it was."""
    words = words_of(name, run, tmp_path / "o")
    out = Path(words[-1])
    if kind == "file":
        out.write_bytes(b"mine")
    elif kind == "folder":
        out.mkdir()
        (out / "mine.txt").write_bytes(b"mine")
    else:
        out.symlink_to("nowhere")
    before = contents(tmp_path)
    refused(command(run, *words), "output-exists")
    assert contents(tmp_path) == before
    assert out.is_symlink() == (kind == "link to nothing")


@pytest.mark.usefixtures("untrainable")
@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_without_the_right_to_write_is_refused(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any work; so is a file in the place of a folder."""
    fixed = tmp_path / "fixed"
    fixed.mkdir(mode=0o500)
    if os.geteuid() == 0:  # may write everywhere
        real = os.access
        monkeypatch.setattr(os, "access", lambda p, m: Path(p) != fixed and real(p, m))
    (tmp_path / "file").write_bytes(b"")
    for parent in (fixed, tmp_path / "file"):
        refused(command(run, *words_of(name, run, parent / "o")), "output-readonly")
    assert [*contents(tmp_path)] == ["file"]


# 80: the disk is full


@contextlib.contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file of this process can grow beyond some bytes: writing more fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # of processes that are started
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = before


FOLDERS = ("repair", "compare", "reproduce")  # what is done is kept there as it comes


@pytest.mark.parametrize("most", [0, 300])
@pytest.mark.parametrize("name", [name for name in WRITERS if name not in FOLDERS])
def test_a_full_disk_leaves_nothing(name: str, most: int, run: Path, tmp_path: Path) -> None:
    """A command that cannot write all of its output says so, and writes none of it."""
    words = words_of(name, run, tmp_path / "new" / "o")
    if name == "search":
        most = min(most, 100)  # its file is small
    with full_disk(most):
        outcome = command(run, *words)
    refused(outcome, "model-convert" if name == "convert" else "output-failed")
    assert [*tmp_path.iterdir()] == []


def test_a_full_disk_leaves_the_earlier_file(run: Path, tmp_path: Path) -> None:
    """What was to be overwritten is as it was."""
    for name in ("repair", "predict", "export"):
        words = words_of(name, run, tmp_path / name)
        assert command(run, *words).code in (0, 1)
        before = contents(tmp_path)
        for most in (0, 200, 5_000, 20_000):
            with full_disk(most):
                outcome = command(run, *words, "--overwrite")
            if outcome.code != 2:
                break
            refused(outcome, "output-failed")
            after = contents(tmp_path)
            assert {path: after[path] for path in before} == before
            assert {*after} - {*before} <= {"repair/state.sqlite"}


def test_a_full_disk_leaves_the_earlier_choice(run: Path, tmp_path: Path) -> None:
    """Another choice that cannot be written is not made: the run is as it was."""
    words = ("repair", *OWN, "--epochs", "1", "--out", tmp_path / "S")
    assert command(run, *words).code in (0, 1)
    before = contents(tmp_path)
    with full_disk(500):
        refused(command(run, "choose", tmp_path / "S", "--limit", "dp=0.3"), "output-failed")
    assert contents(tmp_path) == before
    assert command(run, "choose", tmp_path / "S", "--limit", "dp=0.3").code in (0, 1)


@pytest.mark.parametrize("name", FOLDERS)
def test_after_a_full_disk_the_same_command_goes_on(name: str, run: Path, tmp_path: Path) -> None:
    """What was kept is whole, or nothing: with room again the result is that of an empty disk."""
    words = words_of(name, run, tmp_path / "o")
    for most in (0, 700, 20_000):
        with full_disk(most):
            outcome = command(run, *words)
        if outcome.code != 2:
            break
        refused(outcome, "output-failed")
        assert not any(path.startswith("o/result") for path in contents(tmp_path))
    last = command(run, *words) if outcome.code == 2 else outcome
    assert last.code in (0, 1), last.err
    assert command(run, *words_of(name, run, tmp_path / "p")).code == last.code
    found, other = contents(tmp_path / "o"), contents(tmp_path / "p")
    assert {*found} == {*other}
    if name == "repair":
        same = {*found} - {"timings.json", "manifest.json"}
        assert {path: found[path] for path in same} == {path: other[path] for path in same}


def test_a_full_disk_when_all_is_written(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Also where the system tells only at the end that there is no room."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    for name in ("predict", "convert", "export", "search"):
        words = words_of(name, run, tmp_path / "new" / "o")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            outcome = command(run, *words)
        refused(outcome, "output-failed")
        assert "No space left on device" in outcome.err
        assert [*tmp_path.iterdir()] == []
