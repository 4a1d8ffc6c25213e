"""Table 7: gaps between classes of images, on tiny made-up ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import fairneuron as fn
from fairneuron.cli import app
from fairneuron.compare.methods import Named
from fairneuron.data.dataset import Dataset
from fairneuron.data.imagesets import FOLDER, IMAGE_SETS
from fairneuron.errors import DataError, OptionError
from fairneuron.reproduce import images, paper
from fairneuron.reproduce.found import Found
from fairneuron.reproduce.images import (
    DEFAULT,
    GENTLE,
    RANDOM,
    FullyConnected,
    class_figures,
    image_methods,
    image_setting,
    train_with_statistics,
)
from fairneuron.reproduce.run import reproduce
from fairneuron.reproduce.setting import Scale
from fairneuron.reproduce.sources import Source, sources_of
from fairneuron.reproduce.table7 import chosen_figures, least_gap, table7
from fairneuron.training import train

ROOT = Path(__file__).parents[1]
NAMES = tuple(image_methods("mnist", Scale(quick=True)))


def digits(rows: int = 240) -> Dataset:
    """Ten classes of 4 × 4 images, each with a bright place of its own; a sixth are for testing."""
    rng = np.random.default_rng(0)
    y = np.arange(rows) % 10
    x = rng.normal(0, 0.3, (rows, 1, 4, 4)).astype(np.float32)
    x.reshape(rows, 16)[np.arange(rows), y] += 2
    data = Dataset.from_arrays(x, y, name="mnist", class_names=[*"0123456789"])
    return replace(data, part=np.where(np.arange(rows) < rows * 5 // 6, 0, 2))


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up images in the place of MNIST."""
    monkeypatch.setattr(images, "load_dataset", lambda name, path=None: digits())
    monkeypatch.setattr(images, "place_of", lambda name: "a package")


def sample(path: Path, train: int = 120, test: int = 40) -> Path:
    """A made-up part of CIFAR-10."""
    rng = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": values
        for part, n in (("train", train), ("test", test))
        for kind, values in (
            ("x", rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)),
            ("y", np.arange(n) % 10),
        )
    }
    np.savez(path, **arrays)
    return path


# Runs


@pytest.mark.usefixtures("mnist")
def test_quick_run(tmp_path: Path) -> None:
    """A quick run has all rows, the paper's figures beside ours, and says that it is quick."""
    found = reproduce("table7", quick=True, out=tmp_path / "out").to_dict()
    figures, tests = found["sections"]
    assert [row["label"] for row in figures["rows"]] == [*NAMES]
    assert all(row["cells"]["mcd"]["ours"]["n"] == 1 for row in figures["rows"])
    known = {
        row["label"]: [row["cells"][name]["paper"] for name in ("accuracy", "mcd")]
        for row in figures["rows"]
    }
    assert known["naive"] == [0.957, 0.057]
    assert known["random-dropout"] == [0.949, 0.052]
    assert known[paper.OURS] == [0.961, 0.046]
    assert known[DEFAULT] == [None, None]
    assert {row["cells"]["met"]["text"] for row in tests["rows"]} == {"not tested"}
    page = (tmp_path / "out" / "table7.md").read_text()
    assert "**Quick run" in page
    assert "the official test part" in page
    assert "splits 7:1:2" not in page


@pytest.mark.usefixtures("mnist")
def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Records that are there are not computed again; one that was lost is, to the same bits."""
    told: list[int] = []
    options: dict[str, Any] = {"quick": True, "out": tmp_path / "out"}
    first = reproduce("table7", **options).to_dict()["sections"][0]
    records = tmp_path / "out" / "records" / "images-mnist" / "records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:-1]))
    again = reproduce("table7", **options, progress=lambda *_: told.append(1))
    assert told == [1]
    for now, before in zip(again.to_dict()["sections"][0]["rows"], first["rows"], strict=True):
        assert now["cells"]["mcd"] == before["cells"]["mcd"]


@pytest.mark.usefixtures("mnist")
def test_command(tmp_path: Path) -> None:
    """The command runs MNIST alone."""
    words = ["reproduce", "table7", "--data", "mnist", "--quick", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("# Table 7")
    assert "## cifar10" not in done.stdout


def test_a_sample_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of CIFAR-10 has records of its own, two seeds at most, and supports no claim."""
    monkeypatch.setattr(images, "ResNet18", lambda _: Tiny())
    file = str(sample(tmp_path / "some.npz"))
    scale = Scale(sample=file)
    (source,) = sources_of("table7", scale, ["cifar10"])
    assert source.kind == "sample"
    assert {seed for seed, *_ in source.keys(range(10))} == {0, 1}
    done = reproduce("table7", quick=True, data=["cifar10"], sample=file, out=tmp_path / "out")
    assert "**Small sample: 105 + 15 + 40 images, 1 seed," in done.to_markdown()
    assert (tmp_path / "out" / "records" / "sample-cifar10" / "records.jsonl").exists()


class Tiny:
    """Makes a convolutional network with batch norm."""

    def __call__(self, data: Dataset) -> nn.Module:
        """Untrained."""
        return nn.Sequential(
            nn.Conv2d(data.x.shape[1], 4, 3, 2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 10),
        )


# What cannot be run


def test_all_of_cifar_needs_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CUDA and a sample it is refused before any work, with both ways out."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(images, "place_of", lambda name: "a package")
    with pytest.raises(DataError, match=r"--sample FILE\.npz.*--data mnist"):
        fn.reproduce("table7", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked for by the command that gets them."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    nowhere = replace(IMAGE_SETS["mnist"], packaged=lambda: None)
    monkeypatch.setitem(IMAGE_SETS, "mnist", nowhere)
    with pytest.raises(DataError, match="fairneuron data get mnist"):
        fn.reproduce("table7", data=["mnist"])


@pytest.mark.parametrize("name", ["table4", "table7"])
def test_a_sample_of_no_use(tmp_path: Path, name: str) -> None:
    """A sample of CIFAR-10 with other parts is refused, not left aside."""
    parts = ["mnist"] if name == "table7" else None
    with pytest.raises(OptionError, match="takes the place of cifar10"):
        fn.reproduce(name, data=parts, quick=True, sample=sample(tmp_path / "some.npz"))


def test_a_sample_that_is_missing(tmp_path: Path) -> None:
    """Is refused at once."""
    with pytest.raises(DataError, match="No such file"):
        fn.reproduce("table7", data=["cifar10"], sample=tmp_path / "none.npz")


# The choice, the tests


def configuration(accuracy: float, mcd: float, test: float = 0.0) -> dict[str, Any]:
    """As in a record, with these validation figures and that test MCD."""
    figures = {"accuracy": accuracy, "cv": 0.0, "mcd": mcd}
    return {"rejected": None, "valid": figures, "test": figures | {"mcd": test}}


def record(seed: int, method: str, *configurations: dict[str, Any]) -> dict[str, Any]:
    """Of a base model of accuracy .95."""
    return {
        "seed": seed,
        "method": method,
        "error": None,
        "cpu_seconds": 2.0,
        "base": {
            "cpu_seconds": 1.0,
            "valid": {"accuracy": 0.95},
            "noise_floor": {"cv": 0.0, "mcd": 0.01},
        },
        "configurations": [*configurations],
    }


def test_the_choice_reads_validation_figures() -> None:
    """The lowest MCD of those that cost half a point at most, or else the most accurate one."""
    cheap, best, dear = (
        configuration(0.955, 0.05),
        configuration(0.945, 0.03),
        configuration(0.9449, 0.01),
    )
    assert least_gap(record(0, "m", cheap, best, dear)) is best
    assert least_gap(record(0, "m", configuration(0.9, 0.01), dear)) is dear
    assert least_gap(record(0, "m", best | {"rejected": "diverged"}, cheap)) is cheap
    assert least_gap(record(0, "m")) is None


def made_up(mcd: dict[str, float], accuracy: dict[str, float], seeds: int = 10) -> Found:
    """Records in which a method has the given mean test MCD and accuracy; .05 and .95 unless so."""
    rng = np.random.default_rng(0)
    each = []
    for seed in range(seeds):
        for name in NAMES:
            one = configuration(0.95, 0.0, mcd.get(name, 0.05) + rng.normal() * 1e-3)
            one["test"]["accuracy"] = accuracy.get(name, 0.95)
            each.append(record(seed, name, one))
    return Found(Source("images", "mnist", NAMES), {"rows": [8, 1, 1]}, tuple(each))


def met(found: Found) -> dict[str, str]:
    """By row, whether the target is met."""
    rows = table7([found])[1]["rows"]
    return {row["label"]: row["cells"]["met"]["text"] for row in rows}


def test_the_target() -> None:
    """MCD below naive's and random dropout's, for half a point of accuracy at most."""
    cheap = {DEFAULT: 0.9451, paper.OURS: 0.9449}
    reached = met(made_up({DEFAULT: 0.02, paper.OURS: 0.02}, cheap))
    assert reached[DEFAULT] == "yes"
    assert reached[paper.OURS] == "no"  # too dear
    assert met(made_up({DEFAULT: 0.02, RANDOM: 0.02}, {}))[DEFAULT] == "no"
    assert met(made_up({DEFAULT: 0.02}, {}, seeds=9))[DEFAULT] == "not tested"


def test_controls_are_tested_too() -> None:
    """Where training alone does as well, the page has the p value that says so."""
    rows = table7([made_up({DEFAULT: 0.02, GENTLE: 0.02}, {})])[1]["rows"]
    cells = next(row["cells"] for row in rows if row["label"] == DEFAULT)
    assert cells["naive"]["ours"]["mean"] < 0.05
    assert cells[GENTLE]["ours"]["mean"] > 0.05


def test_chosen_figures_are_of_the_test_part() -> None:
    """What validation data chose, measured on test data."""
    chosen = configuration(0.95, 0.01, test=0.07)
    found = Found(
        Source("images", "mnist", NAMES),
        {},
        (record(3, "naive", configuration(0.95, 0.02), chosen),),
    )
    assert chosen_figures(found, "naive") == {3: chosen["test"]}


def test_class_figures_worked_out_by_hand() -> None:
    """Class accuracies of 1/2 and 3/4: MCD 1/4, variance 1/64, accuracy 5/8 of eight images."""
    found = class_figures(np.array([[[2, 2], [1, 3]]]))
    assert found == {"accuracy": 5 / 8, "cv": 1 / 64, "mcd": 1 / 4}


# Training


def test_a_fresh_network_learns_its_statistics() -> None:
    """Batch norm takes part in the naive model's training, and only there."""
    data = digits()
    training, valid, _ = data.split_by(seed=0)
    model = Tiny()(data)
    before = model[1].running_mean.clone()
    assert train(model, training, valid, fn.Schedule(epochs=1), seed=0)
    assert torch.equal(model[1].running_mean, before)
    assert train_with_statistics(model, training, valid, fn.Schedule(epochs=1), seed=0)
    assert not torch.equal(model[1].running_mean, before)


def test_divergence_is_told() -> None:
    """A loss that is not finite is no naive model."""
    data = digits()
    training, valid, _ = data.split_by(seed=0)
    plan = fn.Schedule(epochs=2, learning_rate=1e38)
    assert not train_with_statistics(Tiny()(data), training, valid, plan, seed=0)


@pytest.mark.usefixtures("mnist")
def test_the_networks() -> None:
    """MNIST has four layers with weights, CIFAR-10 the ResNet-18 of its size."""
    setting = image_setting("mnist", Scale())
    network = FullyConnected((128, 128, 128))(digits())
    assert setting.describe()["model"] == "FullyConnected(hidden=(128, 128, 128))"
    assert sum(isinstance(module, nn.Linear) for module in network) == 4
    assert image_setting("cifar10", Scale()).model == images.ResNet18(64)
    assert image_setting("cifar10", Scale(sample="some.npz")).model == images.ResNet18(16)


def test_networks_with_batch_statistics_are_retrained_gently() -> None:
    """Every method that retrains a ResNet does so at the rate that its kept statistics bear."""
    methods = image_methods("cifar10", Scale())
    rates = {
        name: dict(method.options)["schedule"].learning_rate
        for name, method in methods.items()
        if isinstance(method, Named) and name != "naive"
    }
    assert rates == dict.fromkeys(NAMES[1:], images.KEPT)


# The page that is kept


def test_figures_of_the_documentation() -> None:
    """Those of docs/reproduction.md are in the pages of the runs."""
    text = (ROOT / "docs" / "reproduction.md").read_text()
    text = text[text.index("## Table 7") :]
    parts = text.split("### CIFAR-10, a small sample")
    for part, name in zip(parts, ("table7", "table7-cifar10-sample"), strict=True):
        page = (ROOT / "experiments" / "results" / "reproduce" / f"{name}.md").read_text()
        rows = [line for line in part.splitlines() if line.startswith("| ") and "±" in line]
        assert len(rows) == len(NAMES)
        require_in(page, rows)


def require_in(page: str, rows: list[str]) -> None:
    """Each cell of the rows stands in the page's row of that name."""
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        line = next(one for one in page.splitlines() if one.startswith(f"| {cells[0]} "))
        assert all(cell in line for cell in cells)
