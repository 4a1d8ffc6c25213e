"""The search for settings of recipe paper: its space, its score, in this process and on Ray."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import nn

import fairneuron as fn
from fairneuron import recipes
from fairneuron.commands.search import words_of
from fairneuron.errors import ModelError, OptionError
from fairneuron.models import mlp
from fairneuron.options import with_subject
from fairneuron.progress import quiet
from fairneuron.recipes import Paper
from fairneuron.search.cluster import _require_workers, ray_at, run_on_ray
from fairneuron.search.space import SCORED, combined, drawn, full_weights, score
from fairneuron.subject import Subject
from fairneuron.tuning import Candidate, Search, share_of
from fairneuron.weights import mlp_weights
from tests.conftest import made_up
from tests.test_cli import call  # noqa: F401  # a fixture

GRID = {"gamma": [0.6, 0.9], "theta": [0.001, 0.2]}
SHORT = {"epochs": 3, "share": 0.5}


# The space


def test_theta_is_log_uniform_and_gamma_uniform() -> None:
    """Of 2,000 draws, by Kolmogorov and Smirnov's test; each dropout rate is as likely."""
    points = drawn(2_000, dropout=(0.1, 0.3), seed=1)
    exponents = [np.log10(p.theta) for p in points]
    assert kstest(exponents, "uniform", args=(-4, 4)).pvalue > 0.01
    assert kstest([p.gamma for p in points], "uniform", args=(0.5, 0.5)).pvalue > 0.01
    assert 0.45 < np.mean([p.dropout == 0.1 for p in points]) < 0.55
    assert abs(np.corrcoef(exponents, [p.gamma for p in points])[0, 1]) < 0.06


bounds = st.tuples(st.floats(1e-6, 1), st.floats(1e-6, 1)).map(lambda pair: tuple(sorted(pair)))


@settings(max_examples=50, deadline=None)
@given(theta=bounds, gamma=bounds, seed=st.integers(0, 2**32), samples=st.integers(1, 20))
def test_draws_lie_in_their_ranges(theta: Any, gamma: Any, seed: int, samples: int) -> None:
    """The same seed gives the same candidates, and fewer samples the first ones of them."""
    points = drawn(samples, theta=theta, gamma=gamma, seed=seed)
    assert points == drawn(samples + 5, theta=theta, gamma=gamma, seed=seed)[:samples]
    for point in points:
        assert theta[0] <= point.theta <= theta[1]
        assert gamma[0] <= point.gamma <= gamma[1]
    if theta[1] > 1.001 * theta[0]:
        assert points != drawn(samples, theta=theta, gamma=gamma, seed=seed + 1)


def test_a_grid_is_all_combinations() -> None:
    """Of the values given; of what is left out, six of its range."""
    points = combined({"theta": [0.1, 0.01]}, gamma=(0.5, 1), dropout=0.2)
    assert [p.gamma for p in points[::2]] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1])
    assert [(p.theta, p.dropout) for p in points] == [(0.1, 0.2), (0.01, 0.2)] * 6
    thetas = [p.theta for p in combined({"gamma": [0.9]})]
    assert np.log10(thetas) == pytest.approx([-4, -3.2, -2.4, -1.6, -0.8, 0])
    assert len(combined({})) == 36


def test_the_share_is_stratified() -> None:
    """A tenth of each label and group, at least one row; another seed, other rows."""
    data = made_up(1000)
    part = share_of(data, 0.1, seed=0)
    cell, own = (2 * d.y + d.group for d in (data, part))
    assert (np.bincount(own) == np.round(np.bincount(cell) / 10)).all()
    assert set(share_of(data, 1e-9, 0).group.tolist()) == {0, 1}
    assert (share_of(data, 0.1, 0).x == part.x).all()
    assert (
        part.x.shape != share_of(data, 0.1, 1).x.shape or (share_of(data, 0.1, 1).x != part.x).any()
    )
    assert (share_of(data, 1, 3).x == data.x).all()


# The score, on a table made by hand


def candidate(number: int, *values: float | None, rejected: str | None = None) -> Candidate:
    """With these values of accuracy, DP, DPR and EO."""
    metrics = dict(zip(SCORED, values, strict=True)) if values else None
    return Candidate(number, {"theta": number / 10}, 0.5, metrics, rejected)


ACCURATE = candidate(1, 0.9, 0.3, 0.5, 0.4)
FAIR = candidate(2, 0.6, 0.0, 1.0, 0.3)
EQUAL = candidate(3, 0.5, 0.2, 0.7, 0.0)
CONSTANT = candidate(4, 0.99, 0.0, 1.0, 0.0, rejected="predicts one class alone")
NO_RATIO = candidate(5, 0.98, 0.0, None, 0.0)
DIVERGED = candidate(6, rejected="diverged")
TABLE = Search(
    (DIVERGED, CONSTANT, NO_RATIO, ACCURATE, FAIR, EQUAL), candidate(0, 0.8, 0.4, 0.3, 0.4), {}, 9
)


def test_the_score_is_worked_out_by_hand() -> None:
    """0.9 + (1 − 0.3) + 0.5 + (1 − 0.4), and the same with weights."""
    assert TABLE.score(ACCURATE) == pytest.approx(2.7)
    assert [TABLE.score(c) for c in (FAIR, EQUAL)] == pytest.approx([3.3, 3.0])
    weights = {"accuracy": 2, "dp": 0.5, "dpr": 0, "eo": 3}
    assert score(ACCURATE.metrics, weights) == pytest.approx(1.8 + 0.35 + 1.8)


@pytest.mark.parametrize(
    ("weights", "winner"),
    [
        ({}, FAIR),
        ({"accuracy": 9}, ACCURATE),
        ({"eo": 3}, EQUAL),
        ({"eo": 2}, FAIR),
        ({"dpr": 0}, NO_RATIO),
    ],
)
def test_weights_choose_the_winner(weights: dict[str, float], winner: Candidate) -> None:
    """Constant and diverged candidates never win; an undefined one if it does not count."""
    found = replace(TABLE, weights=weights)
    assert found.winner is winner
    assert found.best == winner.settings
    assert found.to_dict()["winner"] == winner.number
    assert CONSTANT not in found.ranked
    assert DIVERGED not in found.ranked


def test_who_cannot_win_is_told() -> None:
    """With the reason, and without a score."""
    rows = {row["number"]: row for row in TABLE.to_dict()["candidates"]}
    assert [rows[n]["rejected"] for n in (4, 5, 6, 1)] == [
        "predicts one class alone",
        "dpr is undefined",
        "diverged",
        None,
    ]
    assert [rows[n]["score"] for n in (4, 5, 6)] == [None] * 3
    json.dumps(TABLE.to_dict(), allow_nan=False)


def test_the_first_of_equals_wins() -> None:
    """As it was drawn."""
    twin = replace(FAIR, number=9)
    assert replace(TABLE, candidates=(twin, FAIR)).winner is twin


# The search


@pytest.fixture(scope="module")
def found(parts, trained) -> Search:
    """Of a grid, in this process."""
    return fn.search(trained, *parts[:2], grid=GRID, seed=5, **SHORT)


def test_candidates_are_what_a_repair_retrains(parts, trained) -> None:
    """On all rows, each has the figures of the recipe's own trial; the model stays as it was."""
    before = [p.clone() for p in trained.parameters()]
    found = fn.search(trained, *parts[:2], samples=2, share=1, epochs=1, seed=7)
    for one in found.candidates:
        repaired = fn.repair(trained, *parts[:2], recipe="paper", seed=7, epochs=1, **one.settings)
        assert repaired.trials[1].metrics == one.metrics
        assert repaired.explanation.biased_share == pytest.approx(one.biased)
    assert found.best == {"epochs": 1, **found.winner.settings}
    assert all((p == q).all() for p, q in zip(trained.parameters(), before, strict=True))


def test_same_seed_same_result(parts, trained, found: Search) -> None:
    """And another seed, other rows and figures."""
    again = fn.search(trained, *parts[:2], grid=GRID, seed=5, **SHORT)
    assert again.to_dict() == found.to_dict()
    other = fn.search(trained, *parts[:2], grid=GRID, seed=6, **SHORT)
    assert other.to_dict()["candidates"] != found.to_dict()["candidates"]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many networks are trained at once, each time."""
    counts, real = [], recipes.train_together
    monkeypatch.setattr(
        recipes,
        "train_together",
        lambda own, *a, **k: counts.append(len(own)) or real(own, *a, **k),
    )
    return counts


def test_equal_splits_are_sliced_and_trained_once(parts, trained, jobs, monkeypatch) -> None:
    """Two values of γ are sliced twice; two of θ below 1 / M are one training for each rate."""
    sliced, real = [], recipes.activation_paths
    monkeypatch.setattr(
        recipes, "activation_paths", lambda *a, **k: sliced.append(k["gamma"]) or real(*a, **k)
    )
    grid = {"gamma": [0.6, 0.9], "theta": [1e-4, 2e-4], "dropout": [0.1, 0.5]}
    found = fn.search(trained, *parts[:2], grid=grid, **SHORT)
    assert sliced == [0.6, 0.9]
    assert jobs == [4]
    figures = [(c.biased, c.metrics) for c in found.candidates]
    assert figures[0] == figures[2]  # θ
    assert figures[0] != figures[1]  # dropout


def test_dropout_is_any_sequence(parts, trained) -> None:
    """A list of draws and of a grid is as good as a tuple."""
    assert Paper(theta=[0.1, 0.3]) == Paper(theta=(0.1, 0.3))
    assert drawn(9, dropout=[0.1, 0.3]) == drawn(9, dropout=(0.1, 0.3))
    assert combined({}, dropout=[0.1, 0.3]) == combined({}, dropout=(0.1, 0.3))
    found = fn.search(trained, *parts[:2], samples=4, dropout=[0.1, 0.3], epochs=1, share=0.5)
    assert {c.settings["dropout"] for c in found.candidates} == {0.1, 0.3}
    for make in (drawn, lambda **given: combined({}, **given)):
        for bad in ([], [0.1, 1], "0.1", [[0.1]], {0.1: 0.2}):
            with pytest.raises(OptionError, match="dropout"):
                make(dropout=bad)


@pytest.mark.parametrize("drop", ["random", "outside_path"])
def test_a_rate_that_plays_no_part_is_not_trained_again(parts, trained, jobs, drop: str) -> None:
    """In networks with dropout of their own, and where muting takes its place."""
    torch.manual_seed(0)
    model = trained if drop == "outside_path" else mlp(5, (8,), dropout=0.3)
    grid = {"gamma": [0.6, 0.9], "theta": [0.2], "dropout": [0.1, 0.5]}
    found = fn.search(model, *parts[:2], grid=grid, drop=drop, **SHORT)
    assert jobs == [2]
    figures = [(c.biased, c.metrics) for c in found.candidates]
    assert figures[0] == figures[1]
    assert figures[2] == figures[3]
    assert figures[0] != figures[2]
    assert [c.settings["dropout"] for c in found.candidates] == [0.1, 0.5] * 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"threshold": 1.0}, "predicts one class alone"),
        ({"schedule": fn.Schedule(epochs=2, learning_rate=1e30)}, "diverged"),
    ],
)
def test_without_a_candidate_that_can_win_nobody_wins(
    parts, trained, options: dict[str, Any], reason: str
) -> None:
    """Those that predict one class alone, or diverged."""
    found = fn.search(trained, *parts[:2], grid=GRID, share=0.5, **options)
    assert {c.rejected for c in found.candidates} == {reason}
    assert found.winner is None
    with pytest.raises(OptionError, match="candidate that can win"):
        _ = found.best
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ({"samples": 0}, "option-range", "samples"),
        ({"samples": 2.5}, "option-range", "whole"),
        ({"theta": (0, 1)}, "option-range", "lowest theta"),
        ({"theta": 0.1}, "option-range", "theta must be a range"),
        ({"gamma": (0.9, 0.5)}, "option-range", "highest gamma"),
        ({"gamma": (0.9, float("nan"))}, "option-range", "highest gamma"),
        ({"dropout": 1}, "option-range", "dropout"),
        ({"share": 0}, "option-range", "share"),
        ({"seed": -1}, "option-range", "seed"),
        ({"seed": 1.5}, "option-range", "seed"),
        ({"grid": [0.5]}, "option-grid", "map names"),
        ({"grid": {"tehta": [1]}}, "option-grid", "mean 'theta'"),
        ({"grid": {"theta": 0.1}}, "option-grid", "list the values"),
        ({"grid": {"theta": []}}, "option-range", "theta"),
        ({"grid": {"theta": [2]}}, "option-range", "theta"),
        ({"grid": {"theta": list(np.linspace(0, 1, 5000))}}, "option-range", "combinations"),
        ({"weights": {"auc": 1}}, "option-weights", "scored metric"),
        ({"weights": {"eo": -1}}, "option-range", "weight of eo"),
        ({"weights": dict.fromkeys(SCORED, 0)}, "option-weights", "Something must count"),
        ({"weights": "eo"}, "option-weights", "map metrics"),
        ({"on": "cloud"}, "option-on", "process, ray"),
        ({"on": "ray://"}, "option-on", "process, ray"),
        ({"resources": {"CPU": -1}}, "option-range", "resource CPU"),
        ({"resources": {}}, "option-resources", "map names"),
        ({"neuron_share": 0.1}, "option-unknown", "one of the recipe's"),
        ({"epochs": 0}, "option-range", "epochs"),
    ],
)
def test_bad_options_are_refused(
    parts, trained, options: dict[str, Any], code: str, text: str
) -> None:
    """With the rule, the value and the cure."""
    with pytest.raises(OptionError, match=text) as caught:
        fn.search(trained, *parts[:2], **options)
    assert caught.value.code == code


# On Ray


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    """The Ray that a search starts, kept for the tests."""
    with ray_at("ray") as ray:
        yield ray
    assert not ray.is_initialized()


def test_on_ray_the_same(ray, parts, trained, found: Search) -> None:
    """The same winner and figures, to the bit; a Ray that runs is used, and left running."""
    told = []
    there = fn.search(
        trained,
        *parts[:2],
        grid=GRID,
        seed=5,
        on="ray",
        **SHORT,
        progress=lambda *a: told.append(a),
    )
    assert there.to_dict() == found.to_dict()
    assert there.best == found.best
    assert ray.is_initialized()
    assert told[-1][1] == told[-1][2]


def test_errors_on_ray_are_ours(ray, parts) -> None:
    """A network that cannot be traced is the same error as here."""
    torch.manual_seed(0)
    strange = nn.Sequential(nn.Linear(5, 4), nn.Softmax(dim=1), nn.Linear(4, 1))
    told = []
    for on in ("process", "ray"):
        with pytest.raises(ModelError) as caught:
            fn.search(strange, *parts[:2], samples=1, on=on, **SHORT)
        told.append((caught.value.code, str(caught.value)))
    assert told[0] == told[1]


class Dying:
    """A trial whose worker dies, so many times."""

    def __init__(self, times: int, folder: Path) -> None:
        self.times, self.folder = times, folder

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        if len(list(self.folder.iterdir())) < self.times:
            (self.folder / str(time.time_ns())).touch()
            os._exit(1)
        return [10 * number for number in numbers]


def test_a_trial_that_was_lost_runs_again(ray, tmp_path) -> None:
    """Its worker dies, and another one brings it to its end."""
    found = run_on_ray(Dying(1, tmp_path), [[2, 0]], "ray", {"CPU": 1}, quiet)
    assert found == {0: 0, 2: 20}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("resources", [{"CPU": 1e6}, {"CPU": 1, "quantum": 1}])
def test_impossible_resources_are_refused_before_anything_is_submitted(
    ray, parts, trained, monkeypatch, resources: dict[str, float]
) -> None:
    """Within seconds, with what a machine has."""
    monkeypatch.setattr(ray.tune, "Tuner", lambda *_, **__: pytest.fail("submitted"))
    start = time.monotonic()
    with pytest.raises(OptionError, match="The most that one has: CPU") as caught:
        fn.search(trained, *parts[:2], samples=2, on="ray", resources=resources)
    assert caught.value.code == "option-resources"
    assert time.monotonic() - start < 5


def test_ray_is_for_this_machine_alone(ray) -> None:
    """Without a dashboard."""
    (node,) = ray.nodes()
    assert node["NodeManagerAddress"] == "127.0.0.1"
    assert not ray._private.worker.global_worker.node.webui_url


def test_workers_start_where_the_interpreters_path_has_a_space(tmp_path) -> None:
    """Ray starts those of Tune by a line of shell, without quotes of its own."""
    (tmp_path / "two words").symlink_to(sys.prefix)
    code = """
import sys
from fairneuron.search.cluster import run_on_ray
print(run_on_ray(lambda numbers: [sys.executable] * len(numbers), [[0]], "ray", {"CPU": 1}, print))
"""
    done = subprocess.run(  # noqa: S603  # our own code
        [tmp_path / "two words" / "bin" / Path(sys.executable).name, "-c", code],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=True,
    )
    assert "two words" in done.stdout.splitlines()[-1]


def test_a_ray_whose_workers_would_never_start_is_refused(ray, monkeypatch) -> None:
    """One that the caller started from a path with a space; before anything is submitted."""
    elsewhere = "/home/me/my models/.venv/bin/python"
    monkeypatch.setattr(sys, "executable", elsewhere)
    started = SimpleNamespace(runtime_env={})  # as ray.init without one
    monkeypatch.setattr(ray, "get_runtime_context", lambda: started)
    with pytest.raises(OptionError, match="py_executable") as caught:
        run_on_ray(lambda numbers: [*numbers], [[0]], "ray", {"CPU": 1}, print)
    assert caught.value.code == "option-ray"
    assert elsewhere in caught.value.got
    started.runtime_env = {"py_executable": f"'{elsewhere}'"}
    _require_workers(ray)


def test_missing_ray_is_told(parts, trained, monkeypatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"pip install 'fairneuron\[ray\]'") as caught:
        fn.search(trained, *parts[:2], on="ray")
    assert caught.value.code == "option-ray"


# The command


@pytest.fixture
def credit(tmp_path) -> tuple[str, ...]:
    """A search on German Credit with an untrained network."""
    width = fn.load_dataset("credit").x.shape[1]
    torch.manual_seed(0)
    (tmp_path / "net.safetensors").write_bytes(mlp_weights(mlp(width, (6,))))
    return ("search", "--data", "credit", "--weights", "net.safetensors", "--epochs", "1")


def test_command(call, credit, tmp_path) -> None:  # noqa: F811
    """It prints the best ten and the winner, writes all, and its last line repairs."""
    outcome = call(*credit, "--samples", "12", "--out", "found.json", "--score-weights", "eo=2")
    result = json.loads((tmp_path / "found.json").read_text())
    assert outcome.code == 0
    assert result["weights"] == full_weights({"eo": 2})
    assert [c["number"] for c in result["candidates"]] == [*range(1, 13)]
    shown = re.findall(r"^ +(\d+) +0\.", outcome.out, flags=re.MULTILINE)
    able = [c for c in result["candidates"] if c["score"] is not None]
    best = sorted(able, key=lambda c: -c["score"])[:10]
    assert [int(number) for number in shown] == [c["number"] for c in best]
    assert f"Candidate {result['winner']} wins." in outcome.out
    command = shlex.split(outcome.out.splitlines()[-1])
    assert command == shlex.split(result["command"])
    winner = next(c for c in result["candidates"] if c["number"] == result["winner"])
    assert call(*command[1:]).code in (0, 1)
    repaired = json.loads((tmp_path / "runs/paper/result.json").read_text())
    tried = repaired["configuration"]["settings"]
    assert {name: tried[name] for name in winner["settings"]} == winner["settings"]
    assert tried["schedule"]["epochs"] == 1


def test_command_with_a_grid(call, credit) -> None:  # noqa: F811
    """JSON for programs: the figures of the function."""
    outcome = call(
        *credit,
        "--grid",
        "--theta",
        "0.001,0.1",
        "--gamma",
        "0.9",
        "--dropout",
        "0.1,0.3",
        "--json",
    )
    tried = [tuple(c["settings"].values()) for c in json.loads(outcome.out)["candidates"]]
    assert tried == [(0.9, 0.001, 0.1), (0.9, 0.001, 0.3), (0.9, 0.1, 0.1), (0.9, 0.1, 0.3)]


@pytest.mark.parametrize(
    "words",
    [
        "--data compas --include-sensitive --sensitive sex --hidden 8,8 --outputs 2 --seed 3",
        "--data t.csv --target y --positive 'very good' --sensitive a --sensitive b,c --drop d "
        "--type e=category --weight-column w --delimiter ';' --encode m:f --threshold 0.4",
        "--train t.csv --valid t.csv --test t.csv --target y --sensitive a --model m:f --weights w",
    ],
)
def test_the_command_names_the_same_subject(words: str, tmp_path, monkeypatch) -> None:
    """The options that are printed say what those that were given said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("y;a\n")
    read: list[Subject] = []
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("one")(with_subject(lambda subject: read.append(subject) or None))
    app(["one", *shlex.split(words)], standalone_mode=False)
    app(["one", *words_of(read[0])], standalone_mode=False)
    assert read[0] == read[1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--samples 0", "option-range"),
        ("--samples 3 --grid", "option-grid"),
        ("--theta 0.1", "option-range"),
        ("--grid --gamma 2", "option-range"),
        ("--score-weights eo", "option-score-weights"),
        ("--score-weights auc=1", "option-weights"),
        ("--resources CPU=x", "option-resources"),
        ("--on moon", "option-on"),
        ("--share 2", "option-range"),
        ("--epochs 0", "option-range"),
        ("--out net.safetensors", "output-exists"),
    ],
)
def test_bad_words_are_refused(call, credit, monkeypatch, words: str, code: str) -> None:  # noqa: F811
    """With exit code 2, before anything is read."""
    monkeypatch.setattr("fairneuron.loading.load_parts", lambda *_: pytest.fail("read"))
    outcome = call(*credit, *words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error[{code}]: ")
