"""The user's own tables, splits, models and predictions, from the files to the run folder."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

import fairneuron as fn
from fairneuron import io as files
from fairneuron.errors import DataError, FairNeuronWarning, OptionError
from fairneuron.io import MANIFEST, read_folder, write_folder
from fairneuron.loading import (
    Parts,
    encode_table,
    load_parts,
    read_own_table,
)
from fairneuron.models import mlp, predicted_classes, probabilities
from fairneuron.saved import Saved
from fairneuron.subject import DataChoice, ModelChoice, Subject
from fairneuron.usercode import given_model, named_function
from fairneuron.weights import mlp_weights, module_weights
from tests.fuzzing import Outcome, command

LOANS = ("--target", "approved", "--positive", "yes", "--sensitive", "sex")
TABLE = ("--data", "loans.csv", *LOANS)
QUICK = ("--hidden", "6", "--epochs", "1")
NETS = """
    import torch
    from torch import nn

    print("nets.py was imported")


    class Net(nn.Module):
        def __init__(self, features):
            super().__init__()
            self.first, self.last = nn.Linear(features, 6), nn.Linear(6, 1)

        def forward(self, x):
            print("forward was called")
            return self.last(torch.relu(self.first(x)))


    def build():
        print("build was called")
        return Net(7)


    def build_small():
        return Net(3)


    def encode(table):
        return table[["income", "age"]].assign(clerk=table["job"] == "clerk")


    WIDTH = 7
"""


def loans(n: int = 300, seed: int = 0) -> pd.DataFrame:
    """A table in which the label depends on a number that differs between the sexes."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["female", "male"], n)
    income = np.round(rng.normal(30, 8, n) + 6 * (sex == "male"), 2)
    job = rng.choice(["clerk", "cook", "none"], n)
    good = income + 4 * (job == "clerk") + rng.normal(0, 5, n) > 33
    return pd.DataFrame(
        {
            "income": income,
            "job": job,
            "age": rng.integers(18, 80, n),
            "sex": sex,
            "race": rng.choice(["a", "b"], n),
            "approved": np.where(good, "yes", "no"),
        }
    )


def write(folder: Path, name: str, table: pd.DataFrame) -> Path:
    """Writes a table as CSV."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    return path


def write_code(folder: Path, name: str, code: str) -> None:
    """Writes a module of the user's."""
    (folder / f"{name}.py").write_text(textwrap.dedent(code), encoding="utf-8")


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgets the user's modules after each test, and where they were."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if name.startswith(("nets", "broken", "pkg")):
            del sys.modules[name]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a table and a module of the user's."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "loans.csv", loans())
    write_code(tmp_path, "nets", NETS)
    return tmp_path


def small(features: int, seed: int = 0) -> nn.Module:
    """The network of ``nets.py`` with random weights."""
    torch.manual_seed(seed)
    named_function("nets:build", "model")
    net: nn.Module = sys.modules["nets"].Net(features)
    return net


def result_of(folder: Path) -> dict[str, Any]:
    """What a run found."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run, without what may differ between two runs of one command."""
    different = ("timings.json", MANIFEST)
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in different}


def refused(outcome: Outcome, code: str) -> str:
    """The message of a command that was refused with this code."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert f"error[{code}]: " in outcome.err, outcome.err
    assert "Traceback" not in outcome.err
    return outcome.err


def sealed(folder: Path, **changes: bytes | None) -> None:
    """Replaces files of a run folder, "_" for "." in their names, with a manifest that fits."""
    kept = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != MANIFEST}
    for key, content in changes.items():
        name = key.replace("_", ".")
        kept.pop(name, None)
        if content is not None:
            kept[name] = content
    shutil.rmtree(folder)
    write_folder(folder, kept)


# Files


def test_same_table_in_every_format(here: Path) -> None:
    """The same table as CSV, gzip and Parquet, or with another delimiter, gives the same result."""
    table = loans()
    table.to_csv(here / "loans.csv.gz", index=False)
    table.to_parquet(here / "loans.parquet")
    table.to_csv(here / "semicolons.csv", index=False, sep=";")
    found = []
    for name in ("loans.csv", "loans.csv.gz", "loans.parquet", "semicolons.csv"):
        more = ("--delimiter", ";") if name.startswith("semi") else ()
        words = ("repair", "--data", name, *LOANS, *QUICK, *more, "--out", f"R-{name}")
        assert command(here, *words).code in (0, 1)
        result = result_of(here / f"R-{name}")
        assert result["data"].pop("name") == result["configuration"].pop("data") == name
        sums = {name: hashlib.sha256((here / name).read_bytes()).hexdigest()}
        assert result["data"].pop("sha256") == sums
        assert result["configuration"].pop("delimiter", ",") == ("," if not more else ";")
        report = (here / f"R-{name}" / "report.md").read_text(encoding="utf-8")
        found.append(
            (json.dumps(result), report.replace(name, "NAME").replace(" --delimiter ';'", ""))
        )
    assert len({*found}) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("compas", ("--target", "two_year_recid", "--sensitive", "race")),
        ("compas", ("--target", "two_year_recid", "--sensitive", "race, sex")),
        (
            "credit",
            (
                *("--target", "risk", "--positive", "good", "--sensitive", "sex"),
                *("--drop", "personal_status,age_group"),
            ),
        ),
    ],
)
def test_exported_data_give_the_same_figures(name: str, words: tuple[str, ...], here: Path) -> None:
    """A data set of ours, exported and given as a table, gives the figures of its name."""
    columns = [c.strip() for c in words[words.index("--sensitive") + 1].split(",")]
    width = fn.load_dataset(name, sensitive=columns).x.shape[1]
    torch.manual_seed(0)
    (here / "w.safetensors").write_bytes(mlp_weights(mlp(width, (5,))))
    assert command(here, "data", "export", name, "table.csv").code == 0
    audit = ("audit", "--weights", "w.safetensors", "--json")
    ours = command(here, *audit, "--data", name, "--sensitive", ",".join(columns))
    own = command(here, *audit, "--data", "table.csv", *words)
    assert (ours.code, own.code) == (0, 0)
    a, b = json.loads(ours.out), json.loads(own.out)
    assert (a["data"].pop("name"), b["data"].pop("name")) == (name, "table.csv")
    assert a == b


# Splits


def parts_of(choice: DataChoice, seed: int = 0) -> Parts:
    """The parts of some data."""
    return load_parts(Subject(choice, seed=seed))


def own(**options: Any) -> DataChoice:
    """The loans, with their columns."""
    return DataChoice(target="approved", positive="yes", sensitive=("sex",), **options)


def rows_of(part: fn.Dataset) -> set[int]:
    """The row numbers that stand in the column "row"."""
    assert part.scaling is not None
    column = part.feature_names.index("row")
    unscaled = part.x[:, column] * part.scaling.scale[column] + part.scaling.mean[column]
    return set(unscaled.round().int().tolist())


def numbered(n: int = 300) -> pd.DataFrame:
    """The loans with a row number, which no network should read, but these tests do."""
    return loans(n).assign(row=np.arange(n))


def part_words(n: int = 300) -> list[str]:
    """A split of the user's: four of seven for training, one for validation, two for test."""
    return [("train", "train", "test", "valid", "train", "test", "train")[i % 7] for i in range(n)]


def members(word: str, n: int = 300) -> set[int]:
    """The rows of a part of it."""
    return {i for i, name in enumerate(part_words(n)) if name == word}


@pytest.mark.parametrize("with_valid", [True, False])
@pytest.mark.parametrize("kind", ["files", "column"])
def test_own_split_is_kept(kind: str, with_valid: bool, here: Path) -> None:
    """The parts hold exactly the rows that the user put there; without validation, an eighth."""
    table, words = numbered(), np.array(part_words())
    if not with_valid:
        table, words = table[words != "valid"], words[words != "valid"]
    if kind == "column":
        write(here, "t.csv", table.assign(part=words))
        train, valid, test = parts_of(own(data="t.csv", split_column="part"))
    else:
        paths = {w: write(here, f"{w}/rows.csv", table[words == w]) for w in {*words}}
        train, valid, test = parts_of(own(**paths))
    found = [rows_of(part) for part in (train, valid, test)]
    assert found[2] == members("test")
    if with_valid:
        assert found[:2] == [members("train"), members("valid")]
    else:
        assert found[0] | found[1] == members("train")
        assert not found[0] & found[1]
        cells = np.unique(valid.y * 2 + valid.group, return_counts=True)[1]
        whole = np.unique(train.y * 2 + train.group, return_counts=True)[1] + cells
        assert np.abs(cells - whole / 8).max() < 2
    assert "part" not in train.feature_names


def test_words_of_a_split_column(here: Path) -> None:
    """A split column may say train, training, valid, val, dev, validation, test, in any case."""
    aliases = {
        "train": ["train", "Training", " TRAIN "],
        "valid": ["valid", "Validation", "VAL", "dev"],
        "test": ["test", "Test"],
    }
    words = [aliases[w][i % len(aliases[w])] for i, w in enumerate(part_words())]
    write(here, "t.csv", numbered().assign(part=words))
    found = parts_of(own(data="t.csv", split_column="part"))
    assert [rows_of(p) for p in found] == [members(w) for w in ("train", "valid", "test")]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"train": "tran"}, "Did you mean 'train'"),
        ({"train": ""}, "'nan'|nan"),
        ({"test": "valid"}, "must have train and test rows"),
        ({"train": "valid"}, "must have train and test rows"),
    ],
)
def test_split_column_that_says_something_else(
    words: dict[str, str], says: str, here: Path
) -> None:
    """A split column with other words, or without a part that is needed, is refused."""
    column = [words.get(w, w) for w in part_words()]
    write(here, "t.csv", loans().assign(part=column))
    outcome = command(here, "audit", "--data", "t.csv", *LOANS, "--split-column", "part")
    assert re.search(says, refused(outcome, "data-split-column"))
    outcome = command(here, "audit", "--data", "t.csv", *LOANS, "--split-column", "prt")
    assert "Did you mean 'part'" in refused(outcome, "data-no-column")


SPLITS: dict[str, Any] = {
    "words": np.array(part_words()),
    "bytes": np.array(part_words()).astype("S"),
    "numbers": np.array([{"train": 0, "valid": 1, "test": 2}[w] for w in part_words()]),
    "column": np.array(part_words())[:, None],
}


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [*((kind, ".npz") for kind in SPLITS), ("numbers", ".safetensors"), ("numbers", ".pt")],
)
def test_split_of_arrays(kind: str, suffix: str, here: Path) -> None:
    """Arrays may say their split, in words or, as tensors must, as 0, 1, 2."""
    split = SPLITS[kind]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    x[:, 0] = np.arange(300)
    arrays = {"x": x, "y": np.arange(300) // 2 % 2, "sensitive": np.arange(300) % 2}
    save_arrays(here / f"a{suffix}", split=split, **arrays)
    choice = DataChoice(data=f"a{suffix}")
    parts = load_parts(Subject(choice, ModelChoice(model="nets:build_small")))
    found = [set(p.x[:, 0].int().tolist()) for p in parts]
    assert found == [members(w) for w in ("train", "valid", "test")]
    assert parts[0].scaling is None


def save_arrays(path: Path, **arrays: Any) -> None:
    """Writes arrays in the format that the name says."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
    else:
        torch.save({k: torch.tensor(v) for k, v in arrays.items()}, path)


def test_scaling_sees_the_training_part_alone(here: Path) -> None:
    """Other test and validation rows change nothing in how inputs are scaled."""
    table, words = loans(), np.array(part_words())
    scalings = []
    for shift in (0, 1000):
        changed = table.copy()
        changed.loc[words != "train", "income"] += shift
        write(here, "t.csv", changed.assign(part=words))
        train, _, test = parts_of(own(data="t.csv", split_column="part"))
        column = train.feature_names.index("income")
        assert train.x[:, column].mean().item() == pytest.approx(0, abs=1e-4)
        assert train.x[:, column].std(correction=0).item() == pytest.approx(1, abs=1e-4)
        scalings.append(train.scaling)
        assert (test.x[:, column].mean() > 50) == bool(shift)
    assert torch.equal(scalings[0].mean, scalings[1].mean)
    assert torch.equal(scalings[0].scale, scalings[1].scale)


def test_shared_rows_are_told(here: Path) -> None:
    """Test rows that stand in the training part too are counted in a warning."""
    table = loans(200)
    write(here, "train.csv", table[:150])
    write(here, "test.csv", table[120:])
    paths = {"train": Path("train.csv"), "test": Path("test.csv")}
    with pytest.warns(FairNeuronWarning, match=r"30 of 80 test rows.*\[data-shared-rows\]"):
        read_own_table(own(**paths))
    write(here, "test.csv", table[150:])
    assert len(read_own_table(own(**paths)).frame) == 200


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_group_that_a_part_lacks(part: str, here: Path) -> None:
    """A split of the user's in which a part has nobody of a group is refused."""
    table, words = loans(), np.array(part_words())
    kept = ~((words == part) & (table["sex"] == "female"))
    write(here, "t.csv", table[kept].assign(part=words[kept]))
    outcome = command(here, "audit", "--data", "t.csv", *LOANS, "--split-column", "part")
    assert "sex = 'female'" in refused(outcome, "data-group-absent")


def test_columns_that_a_part_lacks(here: Path) -> None:
    """A test table without a column of the training table is refused, and named."""
    write(here, "train.csv", loans())
    write(here, "test.csv", loans(100, 1).rename(columns={"income": "incme"}))
    words = ("audit", "--train", "train.csv", "--test", "test.csv", *LOANS)
    message = refused(command(here, *words), "data-no-column")
    assert "test.csv" in message
    assert "Did you mean 'incme'" in message


@pytest.mark.parametrize(
    "words",
    [
        ("--train", "a.csv"),
        ("--test", "a.csv"),
        ("--train", "a.csv", "--valid", "a.csv"),
        ("--data", "loans.csv", "--test", "a.csv"),
        ("--data", "loans.csv", "--train", "a.csv", "--test", "a.csv"),
        ("--train", "a.csv", "--test", "a.csv", "--split-column", "part"),
    ],
)
def test_half_a_split(words: tuple[str, ...], here: Path) -> None:
    """Data come as one table, or as a training and a test table."""
    write(here, "a.csv", loans())
    refused(command(here, "audit", *words, *LOANS), "option-data")


def test_files_of_one_name(here: Path) -> None:
    """Two files of one name in two folders both stand in the result with their sums."""
    paths = [write(here, f"{k}/rows.csv", loans(200, k)) for k in (0, 1)]
    words = ("--train", "0/rows.csv", "--test", "1/rows.csv", *LOANS, *QUICK, "--out", "R")
    assert command(here, "repair", *words).code in (0, 1)
    sums = {
        f"{k}/rows.csv": hashlib.sha256(p.read_bytes()).hexdigest() for k, p in enumerate(paths)
    }
    assert result_of(here / "R")["data"]["sha256"] == sums


SPLIT = "[data-split]"


def test_whose_split_is_unknown(here: Path) -> None:
    """A given model whose split is not known warns; weights of ours know theirs."""
    write(here, "t.csv", loans().assign(part=part_words()))
    write(here, "other.csv", loans(300, 1))
    repair = ("repair", *TABLE, *QUICK, "--out", "R")
    assert SPLIT not in command(here, *repair).err
    ours = ("audit", "--weights", "R/repaired.safetensors")
    both = ("--data", "loans.csv", "--target", "approved", "--positive")
    known = {
        "same": (*ours, *TABLE),
        "another path": (*ours, "--data", str(here / "loans.csv"), *LOANS),
        "an option that changes nothing": (*ours, *TABLE, "--drop", "sex"),
    }
    unknown = {
        "seed": (*ours, *TABLE, "--seed", "1"),
        "sensitive": (*ours, *both, "yes", "--sensitive", "sex,race", "--include-sensitive"),
        "positive": (*ours, *both, "no", "--sensitive", "sex"),
        "data": (*ours, "--data", "other.csv", *LOANS),
    }
    for name, words in known.items():
        assert SPLIT not in command(here, *words).err, name
    for name, words in unknown.items():
        assert SPLIT in command(here, *words).err, name
    split = ("--data", "t.csv", *LOANS, "--split-column", "part")
    assert SPLIT not in command(here, *ours, *split).err
    assert SPLIT not in command(here, "repair", *split, *QUICK, "--out", "S").err
    theirs = ("audit", "--weights", "S/repaired.safetensors", "--data", "t.csv", *LOANS)
    assert SPLIT in command(here, *theirs, "--drop", "part").err


def test_split_of_a_table_in_order(here: Path) -> None:
    """Weights know their split also where rows are sorted by label and group."""
    write(here, "loans.csv", loans().sort_values(["approved", "sex"]))
    assert command(here, "repair", *TABLE, *QUICK, "--out", "R").code in (0, 1)
    words = ("audit", "--weights", "R/repaired.safetensors", *TABLE)
    assert SPLIT not in command(here, *words).err
    assert SPLIT in command(here, *words, "--seed", "1").err


# Models


def test_model_with_our_encoding(here: Path) -> None:
    """A network of the user's is audited and repaired on inputs that were scaled, in both files."""
    net = small(7)
    torch.save(net.state_dict(), here / "net.pt")
    (here / "net.safetensors").write_bytes(module_weights(net))
    parts = parts_of(own(data="loans.csv"))
    expected = fn.audit(net, parts[2]).to_dict()
    words = (*TABLE, "--model", "nets:build", "--weights")
    for name in ("net.pt", "net.safetensors"):
        outcome = command(here, "audit", *words, name, "--json")
        found = json.loads(outcome.out)
        assert {key: found[key] for key in expected} == json.loads(json.dumps(expected))
        assert "build was called\n" in outcome.err
        assert SPLIT in outcome.err
        assert json.loads(command(here, "paths", *words, name, "--json").out)["samples"] == 210
        out = ("--epochs", "1", "--out", f"R-{name}")
        assert command(here, "repair", *words, name, *out).code in (0, 1)
    runs = [contents(here / f"R-{name}") for name in ("net.pt", "net.safetensors")]
    same = ("original.safetensors", "repaired.safetensors", "front.json", "encoding.json")
    assert all(runs[0][name] == runs[1][name] for name in same)
    again = given_model("nets:build", here / "R-net.pt" / "original.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_model_with_its_own_layout(here: Path) -> None:
    """With --encode the model reads exactly what the user's function makes, unscaled."""
    net = small(3)
    torch.save(net.state_dict(), here / "net.pt")
    words = (
        *TABLE,
        "--encode",
        "nets:encode",
        "--model",
        "nets:build_small",
        "--weights",
        "net.pt",
    )
    subject = Subject(own(data="loans.csv", encode="nets:encode"), ModelChoice("nets:build_small"))
    with pytest.warns(FairNeuronWarning, match="data-split"):
        test = load_parts(subject)[2]
    assert test.feature_names == ("income", "age", "clerk")
    assert test.scaling is None
    table = loans()
    made = {tuple(row) for row in test.x.tolist()}
    expected = table[["income", "age"]].assign(clerk=table["job"] == "clerk")
    assert made <= {tuple(row) for row in expected.to_numpy(dtype=np.float32).tolist()}
    found = json.loads(command(here, "audit", *words, "--json").out)
    assert found["metrics"] == json.loads(json.dumps(fn.audit(net, test).to_dict()))["metrics"]
    assert found["data"]["features"] == 3


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_arrays(suffix: str, here: Path) -> None:
    """Ready arrays give the figures of the dataset that they are from, in every format."""
    data = fn.Dataset.from_frame(loans(), target="approved", positive="yes", sensitive="sex")
    save_arrays(here / f"a{suffix}", x=data.x.numpy(), y=data.y, sensitive=data.sensitive[:, 0])
    net = small(data.x.shape[1])
    torch.save(net.state_dict(), here / "net.pt")
    write_code(here, "nets2", "from nets import Net\n\n\ndef build():\n    return Net(7)\n")
    words = ("--data", f"a{suffix}", "--model", "nets2:build", "--weights", "net.pt")
    found = json.loads(command(here, "audit", *words, "--json").out)
    test = data.split(0, scale=False)[2]
    assert found["metrics"] == json.loads(json.dumps(fn.audit(net, test).to_dict()))["metrics"]


def test_half_precision_arrays(here: Path) -> None:
    """Tensors of half precision are read like others; NumPy has no bfloat16 of its own."""
    x = torch.arange(300.0)[:, None].repeat(1, 3)
    y, sensitive = torch.arange(300) // 2 % 2, torch.arange(300) % 2
    for dtype in (torch.bfloat16, torch.half, torch.double, torch.int16):
        torch.save({"x": x.to(dtype), "y": y, "sensitive": sensitive}, here / "a.pt")
        parts = load_parts(Subject(DataChoice(data="a.pt")))
        assert sum(map(len, parts)) == 300


@pytest.mark.parametrize("kind", ["arrays", "encode"])
def test_our_own_weights_read_scaled_inputs(kind: str, here: Path) -> None:
    """Weights that a run trained on scaled inputs are audited on scaled inputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(50, 20, size=(300, 3))
    y, group = (x[:, 0] > 50).astype(int), rng.integers(0, 2, 300)
    np.savez(here / "a.npz", x=x, y=y, sensitive=group)
    words = ("--data", "a.npz") if kind == "arrays" else (*TABLE, "--encode", "nets:encode")
    assert command(here, "repair", *words, *QUICK, "--out", "R").code in (0, 1)
    result = result_of(here / "R")
    for name, side in (("original", "before"), ("repaired", "after")):
        outcome = command(here, "audit", *words, "--weights", f"R/{name}.safetensors", "--json")
        assert json.loads(outcome.out)["metrics"] == result[side]["metrics"]
        assert SPLIT not in outcome.err


def test_wrong_width_names_columns(here: Path) -> None:
    """A model of another width is refused with the columns that are inputs, and those left out."""
    torch.save(small(7).state_dict(), here / "net.pt")
    words = ("audit", *TABLE, "--model", "nets:build", "--weights", "net.pt", "--drop", "age")
    message = refused(command(here, *words), "model-width")
    for part in ("expects 7", "job=clerk", "sex (sensitive)", "age (dropped)", "approved (target)"):
        assert part in message


def test_weights_of_another_model(here: Path) -> None:
    """Weights that do not fit the model that is built are refused."""
    torch.save(small(3).state_dict(), here / "net.pt")
    words = ("audit", *TABLE, "--model", "nets:build", "--weights", "net.pt")
    refused(command(here, *words), "model-keys")
    refused(command(here, "audit", *TABLE, "--weights", "net.pt"), "model-file")
    refused(command(here, "audit", *TABLE, "--weights", "nett.pt"), "model-file")


BROKEN: dict[str, tuple[str, str, str, str]] = {
    # code of the module, the function, the error's code, what the message says
    "fails": ("def f():\n    raise RuntimeError('no luck')", "f", "model-factory", "no luck"),
    "exits": ("def f():\n    raise SystemExit(0)", "f", "model-factory", "SystemExit"),
    "arguments": ("def f(width):\n    pass", "f", "model-factory", "without arguments"),
    "nothing": ("def f():\n    pass", "f", "model-type", "NoneType"),
    "a class": (
        "import torch\n\n\ndef f():\n    return torch.nn.Linear",
        "f",
        "model-type",
        "Linear",
    ),
    "syntax": ("def f(:", "f", "option-model", "SyntaxError: .*line 1"),
    "import fails": ("import nosuchthing", "f", "option-model", "nosuchthing"),
    "import exits": ("import sys\nsys.exit(0)", "f", "option-model", "SystemExit"),
    "other name": ("def builds():\n    pass", "build", "option-model", "Did you mean 'builds'"),
    "no function": ("f = 3", "f", "option-model", "must name a function"),
    "a method": ("class Nets:\n    pass", "Nets.f", "option-model", "MODULE:FUNCTION"),
    "a file": ("", "", "option-model", "MODULE:FUNCTION"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_factory_that_is_none(name: str, here: Path) -> None:
    """What a factory does wrong is refused with a code and what happened, without a traceback."""
    code, function, error, says = BROKEN[name]
    write_code(here, "broken", code)
    words = ("audit", *TABLE, "--model", f"broken:{function}")
    assert re.search(says, refused(command(here, *words), error))


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("nts", "Did you mean 'nets'"),
        ("pkg.nts", "Did you mean 'pkg.nets'"),
        ("pgk.nets", "Did you mean 'pkg'"),
    ],
)
def test_module_that_is_not_there(module: str, says: str, here: Path) -> None:
    """A module that cannot be found is refused with the nearest one that can."""
    (here / "pkg").mkdir()
    write_code(here / "pkg", "__init__", "")
    write_code(here / "pkg", "nets", NETS)
    words = ("audit", *TABLE, "--model")
    assert says in refused(command(here, *words, f"{module}:build"), "option-model")
    assert command(here, *words, "pkg.nets:build").code == 0


def encoded(encode: str) -> fn.Dataset:
    """What a function of the user's makes of the loans."""
    choice = own(data="loans.csv", drop=("race",), encode=encode)
    table = read_own_table(choice)
    return encode_table(table.frame, table.schema, choice)


ENCODERS: dict[str, tuple[str, str]] = {
    "too few rows": ("return t[['income']].iloc[1:]", "299, 1. for 300 rows"),
    "a row": ("return t['income']", r"\(300,\) for 300"),
    "NaN": ("return t[['income']].where(t['income'] > 20)", "not finite"),
    "infinity": ("return t[['income']] * float('inf')", "not finite"),
    "beyond float32": ("return t[['income']] * 1e300", "not finite"),
    "texts": ("return t", "must return numbers"),
    "texts of numbers": ("return t[['income']].astype(str).to_numpy('U')", "must return numbers"),
    "complex": ("return t[['income']].to_numpy() * 1j", "complex"),
    "nothing": ("return None", "must return"),
    "fails": ("raise KeyError('incme')", "KeyError: 'incme'"),
    "exits": ("raise SystemExit(0)", "SystemExit"),
    "sorted": ("return t[['income']].sort_values('income')", "order"),
    "by company": ("return t[['income']] - t[['income']].mean()", "by itself"),
    "by rank": ("return t[['income']].rank()", "by itself"),
    "more columns": ("import pandas\n    return pandas.get_dummies(t['income'])", "by itself"),
    "the label": ("return t[['income', 'approved']]", "approved"),
    "a dropped column": ("return t[['income', 'race']]", "race"),
    "ragged": ("return [[1], [1, 2]]", "must return numbers"),
    "deep": ("import numpy as np\n    return np.zeros((300, 1, 1))", "finite numbers"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_that_is_none(name: str, here: Path) -> None:
    """What an encoding function does wrong is refused with what came out of it."""
    body, says = ENCODERS[name]
    write_code(here, "broken", f"def f(t):\n    {body}\n")
    with pytest.raises(DataError) as refusal:
        encoded("broken:f")
    assert refusal.value.code == "data-encode"
    assert re.search(says, str(refusal.value))


@pytest.mark.parametrize(
    ("made", "names"),
    [
        ("t[['income', 'age']]", ("income", "age")),
        ("t[['income', 'age']].to_numpy()", ("x0", "x1")),
        ("torch.tensor(t[['income', 'age']].to_numpy(), requires_grad=True)", ("x0", "x1")),
        ("polars.from_pandas(t[['income', 'age']])", ("income", "age")),
        ("t[['income', 'age']].to_numpy().tolist()", ("x0", "x1")),
    ],
)
def test_what_an_encoder_may_return(made: str, names: tuple[str, ...], here: Path) -> None:
    """An encoding may be a table, whose names are kept, an array, a tensor or lists."""
    write_code(here, "broken", f"import polars\nimport torch\n\n\ndef f(t):\n    return {made}\n")
    table = loans()
    data = encoded("broken:f")
    assert data.feature_names == names
    assert data.x.dtype == torch.float32
    assert np.array_equal(data.x, table[["income", "age"]].to_numpy(dtype=np.float32))


def test_encoder_cannot_change_the_table(here: Path) -> None:
    """What the user's function does to its table changes no label and no group."""
    write_code(
        here,
        "broken",
        "def f(t):\n    t['approved'] = 'no'\n    t['sex'] = 'male'\n    return t[['income']]\n",
    )
    words = ("--encode", "broken:f", "--hidden", "3", "--json")
    found = json.loads(command(here, "audit", *TABLE, *words, "--part", "all").out)
    table = loans()
    assert {g["group"]: g["n"] for g in found["groups"]} == dict(table["sex"].value_counts())
    assert sum(g["positive"] for g in found["groups"]) == (table["approved"] == "yes").sum()


def test_what_the_users_code_prints(here: Path) -> None:
    """What the user's code prints goes to stderr: stdout has the answer alone."""
    words = (*TABLE, "--encode", "nets:encode", "--model", "nets:build_small", "--json")
    for outcome in (
        command(here, "audit", *words),
        command(here, "paths", *words),
        command(here, "repair", *words, "--epochs", "1", "--out", "R"),
    ):
        assert json.loads(outcome.out)
        assert "forward was called\n" in outcome.err
    code = ("--model", "nets:build_small", "--encode", "nets:encode")
    assert command(here, "predict", "R", "loans.csv", *code).out.startswith("prediction,score\n")


# Predictions of new data


KINDS: dict[str, tuple[str, ...]] = {
    "ours": QUICK,
    "two outputs": (*QUICK, "--outputs", "2", "--threshold", "0.4"),
    "sensitive inputs": (*QUICK, "--include-sensitive"),
    "our encoding, their model": ("--epochs", "1", "--model", "nets:build"),
    "their encoding, our model": (*QUICK, "--encode", "nets:encode"),
    "theirs": ("--epochs", "1", "--encode", "nets:encode", "--model", "nets:build_small"),
}


def with_code(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words that name code of the user's."""
    found = [i for i, word in enumerate(words) if word in ("--model", "--encode")]
    return tuple(word for i in found for word in words[i : i + 2])


def predicted(text: str) -> pd.DataFrame:
    """The table that a prediction is."""
    return pd.read_csv(io.StringIO(text), dtype={"score": np.float32}, keep_default_na=False)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_the_model(kind: str, here: Path) -> None:
    """New rows without labels get the predictions that the model gives in Python, in order."""
    words = KINDS[kind]
    write(here, "train.csv", loans())
    test = write(here, "test.csv", loans(80, 1))
    split = ("--train", "train.csv", "--test", "test.csv")
    assert command(here, "repair", *split, *LOANS, *words, "--out", "R").code in (0, 1)
    options = dict(itertools.pairwise(words))
    choice = own(
        train=Path("train.csv"),
        test=test,
        include_sensitive="--include-sensitive" in words,
        encode=options.get("--encode"),
    )
    factory = options.get("--model")
    data = load_parts(Subject(choice, ModelChoice(factory)))[2]
    dropped = ["approved", "race"] if "--encode" in words else ["approved"]
    dropped += [] if "--include-sensitive" in words else ["sex"]
    new = loans(80, 1).drop(columns=dropped)
    write(here, "new.csv", new[[*new.columns[::-1]]].assign(more="x"))
    for name in ("repaired", "original"):
        model = given_model(factory, here / "R" / f"{name}.safetensors")
        scores = probabilities(model, data.x)
        more = ("--original",) if name == "original" else ()
        outcome = command(here, "predict", "R", "new.csv", *with_code(words), *more)
        found = predicted(outcome.out)
        assert np.array_equal(found["score"], np.asarray(scores[:, 1], dtype=np.float32))
        classes = predicted_classes(scores, float(options.get("--threshold", 0.5)))
        assert found["prediction"].tolist() == np.array(["no", "yes"])[classes].tolist()
    write(here, "one.csv", new[3:4])
    one = predicted(command(here, "predict", "R", "one.csv", *with_code(words), "--original").out)
    assert one["score"].tolist() == pytest.approx([found["score"][3]], rel=1e-5)


def test_predictions_of_a_data_set_of_ours(here: Path) -> None:
    """A run on a data set of ours predicts the table that is exported."""
    torch.manual_seed(0)
    (here / "w").write_bytes(mlp_weights(mlp(fn.load_dataset("credit").x.shape[1], (5,))))
    repair = ("repair", "--data", "credit", "--weights", "w", "--epochs", "1", "--out", "R")
    assert command(here, *repair).code in (0, 1)
    command(here, "data", "export", "credit", "credit.csv")
    found = predicted(command(here, "predict", "R", "credit.csv").out)
    parts = load_parts(Subject(DataChoice(data="credit"), seed=0))
    scores = probabilities(given_model(None, here / "R" / "repaired.safetensors"), parts[2].x)
    assert len(found) == 1000
    assert {*found["prediction"]} <= {"good", "bad"}
    assert {*scores[:, 1].astype(np.float32).round(4)} <= {*found["score"].round(4)}


def test_classes_of_arrays_are_predicted_by_name(here: Path) -> None:
    """By the labels of y; an older run, which has not kept them, numbers them."""
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(300, 3)), rng.integers(0, 2, 300)
    np.savez(here / "a.npz", x=x, y=np.where(x[:, 0] > 0, "yes", "no"), sensitive=group)
    words = ("--data", "a.npz", "--positive", "yes", *QUICK, "--out", "R")
    assert command(here, "repair", *words).code in (0, 1)
    found = predicted(command(here, "predict", "R", "a.npz").out)
    assert found["row"].tolist() == [*range(300)]
    expected = np.where(found["score"].astype(float) >= 0.5, "yes", "no")
    assert found["prediction"].tolist() == expected.tolist()
    result = json.loads((here / "R" / "result.json").read_bytes())
    assert result["data"].pop("classes") == ["no", "yes"]
    sealed(here / "R", result_json=json.dumps(result).encode())
    older = predicted(command(here, "predict", "R", "a.npz").out)
    assert older["prediction"].tolist() == (expected == "yes").astype(int).tolist()


def test_predictions_of_arrays(here: Path) -> None:
    """A run on arrays predicts arrays, which need no labels; other features are refused."""
    rng = np.random.default_rng(0)
    x, names = rng.normal(size=(300, 3)).astype(np.float32), ["a", "b", "c"]
    y, group = (x[:, 0] > 0).astype(int), rng.integers(0, 2, 300)
    np.savez(here / "a.npz", x=x, y=y, sensitive=group, feature_names=names, split=part_words())
    assert command(here, "repair", "--data", "a.npz", *QUICK, "--out", "R").code in (0, 1)
    rows = [i for i in range(300) if i in members("test")]
    test = load_parts(Subject(DataChoice(data="a.npz")))[2]
    scores = probabilities(given_model(None, here / "R" / "repaired.safetensors"), test.x)
    np.savez(here / "new.npz", x=x[rows])
    save_file({"x": x[rows]}, here / "new.safetensors")
    for name in ("new.npz", "new.safetensors"):
        found = predicted(command(here, "predict", "R", name).out)
        assert np.array_equal(found["score"], scores[:, 1].astype(np.float32))
        assert found["prediction"].tolist() == predicted_classes(scores).tolist()
    bad: dict[str, tuple[dict[str, Any], str]] = {
        "order": ({"x": x, "feature_names": ["a", "c", "b"]}, "data-shape"),
        "width": ({"x": x[:, :2]}, "data-shape"),
        "flat": ({"x": x[:, 0]}, "data-nonfinite"),
        "NaN": ({"x": np.where(x > 1, np.nan, x)}, "data-nonfinite"),
        "texts": ({"x": x.astype(str)}, "data-nonfinite"),
        "no rows": ({"x": x[:0]}, "data-empty"),
        "other name": ({"X": x}, "data-no-column"),
    }
    for name, (arrays, code) in bad.items():
        np.savez(here / "bad.npz", **arrays)
        assert refused(command(here, "predict", "R", "bad.npz"), code), name


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the loans and a run on them."""
    folder = tmp_path_factory.mktemp("ran")
    write(folder, "loans.csv", loans())
    assert command(folder, "repair", *TABLE, *QUICK, "--out", "R").code in (0, 1)
    return folder


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"job": "baker"}, "data-unseen-category", "'baker'"),
        ({"income": np.nan}, "data-nonfinite", "income"),
        ({"income": "much"}, "data-nonfinite", "'much'"),
        ({"job": None}, "data-unseen-category", "unknown"),
        ({"job": "baker", "income": "much"}, "data-problems", "2 things"),
    ],
)
def test_new_rows_that_do_not_fit(changes: dict[str, Any], code: str, says: str, ran: Path) -> None:
    """Values that the encoding does not know are refused, all at once."""
    table = loans(20, 1).astype({"income": object})
    for column, value in changes.items():
        table.loc[7, column] = value
    write(ran, "new.csv", table)
    assert says in refused(command(ran, "predict", "R", "new.csv"), code)


def test_new_columns_that_are_not_there(ran: Path) -> None:
    """An input column that is missing is refused with the nearest one."""
    write(ran, "new.csv", loans(20, 1).rename(columns={"income": "incme"}))
    message = refused(command(ran, "predict", "R", "new.csv"), "data-no-column")
    assert "Did you mean 'incme'" in message
    assert "must have the column 'income'; got none" in message  # what is lacking is not "got"


def test_resume_says_why_there_is_nothing_to_resume(ran: Path) -> None:
    """The run is finished, or nothing was begun in the folder, or there is none."""
    (ran / "empty").mkdir(exist_ok=True)
    (ran / "other").mkdir(exist_ok=True)
    write(ran / "other", "t.csv", loans(20))
    for name, says in (
        ("R", "finished"),
        ("empty", "nothing was begun"),
        ("other", "nothing was begun"),
        ("nowhere", "no folder"),
    ):
        assert says in refused(command(ran, "resume", name), "option-run"), name


def test_code_is_asked_for_by_name(here: Path) -> None:
    """Code that a run was made with must be named again, and no other may be."""
    words = ("--encode", "nets:encode", "--model", "nets:build_small")
    assert command(here, "repair", *TABLE, "--epochs", "1", *words, "--out", "R").code in (0, 1)
    predict = ("predict", "R", "loans.csv")
    assert "give --model nets:build_small" in refused(command(here, *predict), "option-model")
    del sys.modules["nets"]
    message = refused(command(here, *predict, *words[2:]), "option-encode")
    assert "give --encode nets:encode" in message
    assert "nets" not in sys.modules
    assert command(here, *predict, *words).code == 0
    assert command(here, "repair", *TABLE, *QUICK, "--out", "S").code in (0, 1)
    for more in (words[:2], words[2:]):
        refused(command(here, "predict", "S", "loans.csv", *more), f"option-{more[0][2:]}")


def test_other_code_than_in_the_run(here: Path) -> None:
    """Code that makes other features or another network than in the run is refused."""
    words = ("--encode", "nets:encode", "--model", "nets:build_small")
    assert command(here, "repair", *TABLE, "--epochs", "1", *words, "--out", "R").code in (0, 1)
    for order in ("['age', 'income', 'clerk']", "['income', 'age']"):
        body = f"encode(table)[{order}]"
        write_code(
            here, "nets2", f"from nets import encode\n\n\ndef f(table):\n    return {body}\n"
        )
        sys.modules.pop("nets2", None)
        code = ("--encode", "nets2:f", *words[2:])
        assert "which was" in refused(
            command(here, "predict", "R", "loans.csv", *code), "data-shape"
        )
    code = (*words[:2], "--model", "nets:build")
    refused(command(here, "predict", "R", "loans.csv", *code), "model-keys")


def test_texts_stay_texts_for_an_encoder(here: Path) -> None:
    """A column of texts reaches the user's function as texts, also if new ones are numbers."""
    table = loans().assign(zip=[f"{i:03d}" for i in range(300)])
    write(here, "loans.csv", table)
    code = "def f(table):\n    return table[['income']].assign(zip=table['zip'].str.len() == 3)\n"
    write_code(here, "nets3", code)
    words = (*TABLE, "--encode", "nets3:f", *QUICK, "--out", "R")
    assert command(here, "repair", *words).code in (0, 1)
    write(here, "new.csv", table[200:])  # their zip codes look like numbers
    outcome = command(here, "predict", "R", "new.csv", "--encode", "nets3:f")
    assert outcome.code == 0, outcome.err


def test_labels_that_are_formulas(here: Path) -> None:
    """A label that a spreadsheet would run is written with a quote before it."""
    labels = {"yes": '=HYPERLINK("http://x")', "no": "-1+cmd|x"}
    table = loans()
    write(here, "t.csv", table.assign(approved=table["approved"].map(labels)))
    words = ("--data", "t.csv", "--target", "approved", "--sensitive", "sex", "--positive")
    outcome = command(here, "repair", *words, labels["yes"], *QUICK, "--out", "R")
    assert outcome.code in (0, 1)
    rows = [*csv.reader(io.StringIO(command(here, "predict", "R", "t.csv").out))]
    assert {row[0] for row in rows[1:]} == {f"'{label}" for label in labels.values()}


def test_output_of_predictions(ran: Path) -> None:
    """Predictions go to a file that is new, or may be overwritten; or to stdout, the same."""
    out, predict = ran / "p.csv", ("predict", "R", "loans.csv")
    printed = command(ran, *predict).out
    assert command(ran, *predict, "--out", "p.csv").out == ""
    assert out.read_text(encoding="utf-8") == printed
    out.write_text("mine", encoding="utf-8")
    assert "--overwrite" in refused(command(ran, *predict, "--out", "p.csv"), "output-exists")
    assert out.read_text(encoding="utf-8") == "mine"
    assert command(ran, *predict, "--out", "p.csv", "--overwrite").code == 0
    assert out.read_text(encoding="utf-8") == printed
    refused(command(ran, *predict, "--out", "R"), "output-exists")
    for name in ("9" * 900, "a/" * 3000 + "b"):  # longer than names and paths can be
        outcome = command(ran, *predict, "--out", name)
        assert re.search(r"error\[output-(readonly|failed)\]", outcome.err), outcome
    assert not (ran / "a").exists()
    refused(command(ran, "predict", "R", "nothing.csv"), "data-file")
    refused(command(ran, "predict", "nowhere", "loans.csv"), "option-run")
    refused(command(ran, "predict", ".", "loans.csv"), "option-run")


# Another choice


MANY = ("--data", "many.csv", *LOANS, "--include-sensitive", "--hidden", "8", "--epochs", "150")
CHANGED = ("--neuron-share", "1", "--class-weight", "0=1,1=1.5", "--threshold", "0.45")
LIMITS = ("0.05", "0.27", "0.3", "1")


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repair under each of some limits."""
    folder = tmp_path_factory.mktemp("choices")
    write(folder, "many.csv", loans(1500))
    for limit in LIMITS:
        words = ("repair", *MANY, *CHANGED, "--limit", f"dp={limit}", "--out", limit)
        outcome = command(folder, *words)
        assert outcome.code in (0, 1)
        (folder / f"{limit}.code").write_text(str(outcome.code), encoding="utf-8")
    return folder


def test_choosing_is_like_repairing_again(choices: Path, tmp_path: Path) -> None:
    """Under another limit the folder becomes that of a fresh repair to the byte, and back again."""
    fresh = {limit: contents(choices / limit) for limit in LIMITS}
    assert len({content["repaired.safetensors"] for content in fresh.values()}) >= 3
    shutil.copytree(choices / LIMITS[0], tmp_path / "R")
    for limit in (*LIMITS[1:], *LIMITS):
        outcome = command(tmp_path, "choose", "R", "--limit", f"dp={limit}")
        assert outcome.code == int((choices / f"{limit}.code").read_text(encoding="utf-8"))
        assert contents(tmp_path / "R") == fresh[limit]
        assert (tmp_path / "R" / "timings.json").read_bytes() == (
            choices / LIMITS[0] / "timings.json"
        ).read_bytes()
        read_folder(tmp_path / "R")
        assert [p.name for p in tmp_path.iterdir()] == ["R"]


def test_choosing_says_what_it_writes(choices: Path, tmp_path: Path) -> None:
    """With --json stdout is the new result; else it has the verdicts."""
    shutil.copytree(choices / LIMITS[0], tmp_path / "R")
    outcome = command(tmp_path, "choose", "R", "--limit", "dp=0.27", "--json")
    assert json.loads(outcome.out) == result_of(tmp_path / "R")
    shown = command(tmp_path, "choose", "R", "--limit", "dp=0.3").out
    sentence = result_of(tmp_path / "R")["verdicts"]["test"]["sentence"]
    assert sentence in " ".join(shown.split())


@pytest.mark.parametrize("limit", ["eo=0.1", "dp=2", "dp", "dq=0.1", "dp=nan"])
def test_limits_that_cannot_be_chosen(limit: str, ran: Path) -> None:
    """Another metric than that of the repair, and what is no limit, are refused."""
    before = contents(ran / "R")
    refused(command(ran, "choose", "R", "--limit", limit), "option-limit")
    assert contents(ran / "R") == before


def test_choosing_with_a_model_of_the_users(here: Path) -> None:
    """Choosing needs no code of the user's, and the repaired weights load into their network."""
    words = ("--model", "nets:build", "--epochs", "3", "--neuron-share", "1", "--out", "R")
    assert command(here, "repair", *TABLE, *words).code in (0, 1)
    sys.modules.pop("nets", None)
    (here / "nets.py").rename(here / "away.py")
    assert command(here, "choose", "R", "--limit", "dp=0.2").code in (0, 1)
    assert "nets" not in sys.modules
    (here / "away.py").rename(here / "nets.py")
    assert given_model("nets:build", here / "R" / "repaired.safetensors")


@pytest.mark.parametrize("name", sorted(["original.safetensors", "front.json", "report.md"]))
@pytest.mark.parametrize("change", ["byte", "missing"])
def test_changed_run_folder(change: str, name: str, ran: Path, tmp_path: Path) -> None:
    """A folder in which a byte is another one, or a file is missing, is refused."""
    folder = tmp_path / "R"
    shutil.copytree(ran / "R", folder)
    if change == "byte":
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
    else:
        (folder / name).unlink()
    write(tmp_path, "loans.csv", loans(20))
    refused(command(tmp_path, "predict", "R", "loans.csv"), "option-run")
    refused(command(tmp_path, "choose", "R", "--limit", "dp=0.1"), "option-run")


def test_run_folder_with_more_in_it(ran: Path, tmp_path: Path) -> None:
    """A file of the user's in it is no reason not to predict; it is never overwritten."""
    shutil.copytree(ran / "R", tmp_path / "R")
    write(tmp_path, "loans.csv", loans(20))
    said = command(tmp_path, "predict", "R", "loans.csv", "--out", "R/p.csv")
    assert said.code == 0, said
    assert command(tmp_path, "predict", "R", "loans.csv").code == 0
    told = refused(command(tmp_path, "choose", "R", "--limit", "dp=0.1"), "output-exists")
    assert "never overwritten" in told
    assert (tmp_path / "R" / "p.csv").exists()


MANIFESTS: dict[str, Any] = {
    "parent": {"../secret": "x"},
    "absolute": {"/etc/hostname": "x"},
    "folder": {"folder": "x"},
    "pipe": {"pipe": "x"},
    "link": {"link": "x"},
    "nothing": {"": "x"},
    "itself": {".": "x"},
    "zero byte": {"a\0b": "x"},
    "long": {"a" * 300: "x"},
    "list": ["result.json"],
    "number": 5,
    "text": "result.json",
    "null": None,
    "sums of numbers": {"result.json": 5},
    "sums of lists": {"result.json": []},
}


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("with_sums", [True, False])
def test_manifest_that_names_other_files(
    name: str, with_sums: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest cannot make us read outside its folder, or wait for a pipe."""
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "R"
    folder.mkdir()
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("../secret")
    sums = MANIFESTS[name]
    if with_sums and isinstance(sums, dict):  # those of what would be read
        sums = {key: hashlib.sha256(b"secret").hexdigest() for key in sums}
    keep = [*sums] if isinstance(sums, dict) else []
    for path in [*folder.iterdir()]:
        if path.name not in keep:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (folder / MANIFEST).write_bytes(json.dumps({"kind": "fairneuron run", "sha256": sums}).encode())
    opened = []
    real = Path.open

    def watched(path: Path, *args: Any, **options: Any) -> Any:
        opened.append(path.name)
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", watched)
    with pytest.raises(OptionError) as refusal:
        read_folder(folder)
    assert refusal.value.code == "option-run"
    assert {*opened} <= {MANIFEST}


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_manifest_that_is_no_file(kind: str, tmp_path: Path) -> None:
    """A manifest that is a pipe, a link or a folder is not opened."""
    folder = tmp_path / "R"
    folder.mkdir()
    if kind == "pipe":
        os.mkfifo(folder / MANIFEST)
    elif kind == "link":
        (folder / MANIFEST).symlink_to("/dev/zero")
    else:
        (folder / MANIFEST).mkdir()
    with pytest.raises(OptionError) as refusal:
        read_folder(folder)
    assert refusal.value.code == "option-run"


NONSENSE: dict[str, dict[str, bytes | None]] = {
    "empty result": {"result_json": b"{}"},
    "result of another kind": {"result_json": b"[]"},
    "no JSON": {"result_json": b"{"},
    "nested": {"result_json": b"[" * 100_000},
    "no front": {"front_json": None},
    "empty front": {"front_json": b"{}"},
    "front of nothing": {"front_json": b'{"0": {}}'},
    "no candidates": {"candidates_safetensors": None},
    "other candidates": {"candidates_safetensors": b"pickled"},
    "no original": {"original_safetensors": None},
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_with_the_right_sums(name: str, ran: Path, tmp_path: Path) -> None:
    """A folder with the right sums over nonsense is refused and stays as it is."""
    shutil.copytree(ran / "R", tmp_path / "R")
    sealed(tmp_path / "R", **NONSENSE[name])
    before = contents(tmp_path / "R")
    outcome = command(tmp_path, "choose", "R", "--limit", "dp=0.1")
    code = "option-run|model-file[a-z-]*"
    assert outcome.code == 2, outcome
    assert re.search(rf"error\[({code})\]", outcome.err), outcome.err
    assert contents(tmp_path / "R") == before


def test_a_folder_of_an_older_format(ran: Path, tmp_path: Path) -> None:
    """One of format 2 still predicts; another choice needs figures that it does not have."""
    shutil.copytree(ran / "R", tmp_path / "R")
    result, front = (
        json.loads((ran / "R" / f"{n}.json").read_bytes()) for n in ("result", "front")
    )
    assert result["format"] == 3
    result["format"] = 2
    newer = ("groups", "levelled_down", "only_raised", "lost_accuracy")
    verdicts = [proof[on] for proof in front.values() for on in ("validation", "test")]
    for verdict in (*verdicts, *result["verdicts"].values()):
        for name in newer:
            del verdict[name]
    for trial in result["trials"]:
        trial.pop("training", None)
    sealed(
        tmp_path / "R",
        result_json=json.dumps(result).encode(),
        front_json=json.dumps(front).encode(),
    )
    before = contents(tmp_path / "R")
    outcome = command(tmp_path, "choose", "R", "--limit", "dp=0.1")
    message = refused(outcome, "option-run")
    assert "must hold a run of this version of fairneuron" in message
    assert message.endswith("Repair again.\n")
    assert contents(tmp_path / "R") == before
    write(tmp_path, "loans.csv", loans(20))
    found, expected = (command(f, "predict", "R", tmp_path / "loans.csv") for f in (tmp_path, ran))
    assert (found.code, found.out) == (0, expected.out)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "other"),
        ("schema", None),
        ("schema", {}),
        ("scaling", {"mean": [0], "scale": [1]}),
        ("scaling", {"mean": ["x"] * 7, "scale": [1] * 7}),
        ("scaling", 5),
        ("feature_names", 5),
        ("feature_names", ["x"]),
        ("threshold", "half"),
        ("threshold", 7),
        ("delimiter", ";;"),
        ("delimiter", 5),
        ("texts", 5),
        ("positive", []),
        ("model", []),
    ],
)
def test_nonsense_in_an_encoding(key: str, value: Any, ran: Path, tmp_path: Path) -> None:
    """An encoding that is none is refused, or what is strange in it plays no part."""
    shutil.copytree(ran / "R", tmp_path / "R")
    encoding = json.loads((ran / "R" / "encoding.json").read_bytes()) | {key: value}
    sealed(tmp_path / "R", encoding_json=json.dumps(encoding).encode())
    write(tmp_path, "loans.csv", loans(20))
    outcome = command(tmp_path, "predict", "R", "loans.csv")
    assert outcome.code == (0 if key == "positive" else 2), outcome
    assert "internal" not in outcome.err


def test_interrupted_choice(choices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice that is killed at any moment leaves the old folder, or the new one, whole."""
    shutil.copytree(choices / LIMITS[0], tmp_path / "R")
    old, new = (contents(choices / limit) for limit in (LIMITS[0], "0.3"))
    real = os.fsync
    for at in range(40):
        left = at

        def killed(descriptor: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "fsync", killed)
            try:
                Saved.read(tmp_path / "R").choose({"dp": 0.3})
            except KeyboardInterrupt:
                assert contents(tmp_path / "R") in (old, new)
            else:
                break
        assert [p.name for p in tmp_path.iterdir()] == ["R"]
        read_folder(tmp_path / "R")
    assert contents(tmp_path / "R") == new


# Predictions alone


def audited(here: Path, *words: object) -> dict[str, Any]:
    """What an audit says."""
    outcome = command(here, "audit", *words, "--json")
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def same_figures(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Two audits agree, up to the digits that scores lose in a file."""
    for key in ("metrics", "intervals", "noise_floor"):
        for name in a[key]:
            assert a[key][name] == pytest.approx(b[key][name], abs=1e-9), (key, name)
    assert a["groups"] == b["groups"]


def test_predictions_alone_give_the_figures_of_the_model(ran: Path) -> None:
    """Auditing a file of predictions gives what auditing the model itself gives."""
    model = audited(ran, *TABLE, "--weights", "R/repaired.safetensors", "--part", "all")
    # the model was audited on its three parts, one after the other
    order = [i for part in split_rows(ran) for i in part]
    table = loans()
    both = predicted(command(ran, "predict", "R", "loans.csv").out).iloc[order]
    write(ran, "ordered.csv", table.iloc[order])
    data = ("--data", "ordered.csv", *LOANS)
    write(ran, "both.csv", both)
    same_figures(audited(ran, *data, "--predictions", "both.csv"), model)
    write(ran, "labels.csv", both[["prediction"]])
    labels = audited(ran, *data, "--predictions", "labels.csv")
    kept = [name for name in model["metrics"] if name not in ("auc", "abcc")]
    assert [labels["metrics"][k] for k in kept] == [model["metrics"][k] for k in kept]
    of_scores = ("score_below_median", "score_above_median")
    assert labels["groups"] == [g | dict.fromkeys(of_scores) for g in model["groups"]]
    assert labels["metrics"]["auc"] is None
    write(ran, "scores.csv", both[["score"]].rename(columns={"score": "p"}))
    same_figures(audited(ran, *data, "--predictions", "scores.csv", "--score", "p"), model)
    both.rename(columns={"prediction": "said"}).to_parquet(ran / "p.parquet")
    words = ("--predictions", "p.parquet", "--prediction", "said", "--score", "score")
    same_figures(audited(ran, *data, *words), model)
    alone = table.iloc[order][["approved", "sex"]].assign(**{c: both[c] for c in both})
    write(ran, "alone.csv", alone)
    same_figures(audited(ran, "--predictions", "alone.csv", *LOANS), model)


def split_rows(folder: Path) -> list[list[int]]:
    """The rows of each part of our split of the loans, in order."""
    with contextlib.chdir(folder):
        whole = numbered()
        write(folder, "numbered.csv", whole)
        return [sorted(rows_of(p)) for p in parts_of(own(data="numbered.csv"))]


def test_predictions_of_a_split_and_of_arrays(here: Path) -> None:
    """Predictions may belong to tables that are split, and to arrays."""
    table = loans()
    write(here, "train.csv", table[:200])
    write(here, "test.csv", table[200:])
    said = table[["approved"]].rename(columns={"approved": "prediction"})
    write(here, "p.csv", said)
    words = ("--train", "train.csv", "--test", "test.csv", *LOANS, "--predictions", "p.csv")
    assert audited(here, *words)["metrics"]["accuracy"] == 1
    y = (table["approved"] == "yes").to_numpy()
    np.savez(here / "a.npz", x=np.ones((300, 1)), y=y, sensitive=table["sex"].to_numpy("U"))
    write(here, "q.csv", pd.DataFrame({"prediction": y.astype(int)}))
    found = audited(here, "--data", "a.npz", "--predictions", "q.csv")
    assert found["metrics"]["accuracy"] == 1
    assert found["data"]["part"] == "all"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--part", "test"), "option-predictions"),
        (("--weights", "R/repaired.safetensors"), "option-predictions"),
        (("--hidden", "3"), "option-predictions"),
        (("--prediction", "sad"), "data-no-column"),
        (("--score", "said"), "data-predictions"),
        (("--prediction", "income"), "data-predictions"),
        (("--score", "income"), "data-predictions"),
        (("--score", "huge"), "data-predictions"),
        ((), "data-no-column"),
    ],
)
def test_predictions_that_are_none(words: tuple[str, ...], code: str, ran: Path) -> None:
    """Options that play no part, and columns that are no predictions, are refused."""
    write(ran, "p.csv", loans().assign(said="yes", huge="9" * 400))
    outcome = command(ran, "audit", *TABLE, "--predictions", "p.csv", *words)
    refused(outcome, code)


def test_prediction_without_a_file(ran: Path) -> None:
    """Columns of predictions without their file are refused."""
    for words in (("--prediction", "said"), ("--score", "p")):
        refused(command(ran, "audit", *TABLE, *words), "option-predictions")


# Result and report


def reproduced(folder: Path) -> str:
    """The command of a report, as it stands there."""
    text = (folder / "report.md").read_text(encoding="utf-8").split("\n## ")[-1]
    fence = re.search(r"^`{3,}$", text, re.MULTILINE)
    assert fence
    return text.split(f"\n{fence[0]}\n")[1]


REPORTED: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    # new names of columns, and further options
    "types": ({}, ("--type", "age=category", "--drop", "job", "--drop", "race")),
    "weights": ({}, ("--weight-column", "age", "--class-weight", "0=1,1=2.5", "--outputs", "2")),
    "balanced": ({}, ("--class-weight", "balanced", "--threshold", "0.3", "--seed", "3")),
    "paper": ({}, ("--recipe", "paper", "--gamma", "0.7", "--dropout", "0.2")),
    "limits": ({}, ("--limit", "dp=0.1", "--limit", "eo=0.2", "--time-budget", "600")),
    "quotes": ({"income": "it's", "sex": 'a "sex"', "job": "$(id)"}, ("--type", "$(id)=category")),
    "equals": ({"income": "a=b", "sex": "=cmd", "age": "a|b"}, ("--type", "a=b=number")),
    "commas": ({"sex": "sex,gender", "job": "a,b", "age": "<b>x</b>"}, ("--drop", "a,b")),
    "dashes": ({"sex": "--sex", "approved": "-x", "age": "--age"}, ("--drop", "--age")),
    "ticks": ({"sex": "```", "job": "`id`", "income": "größe"}, ("--type", "größe=number")),
}


@pytest.mark.parametrize("name", REPORTED)
def test_report_reproduces(name: str, here: Path) -> None:
    """The command in the report gives the same folder, whatever the columns are called."""
    names, more = REPORTED[name]
    write(here, "my loans.csv", loans(150).rename(columns=names))
    target, sex = (names.get(column, column) for column in ("approved", "sex"))
    words = ("--target", target, "--positive", "yes", "--sensitive", sex, *QUICK, *more)
    assert command(here, "repair", "--data", "my loans.csv", *words, "--out", "R").code in (0, 1)
    again = shlex.split(reproduced(here / "R"))
    assert again[0] == "fairneuron"
    assert command(here, *again[1:]).code in (0, 1)
    assert contents(here / "DIR") == contents(here / "R")


def test_report_reproduces_in_a_shell(here: Path) -> None:
    """In bash the command also works for names with control characters."""
    names = {"income": "new\nline", "sex": "tab\there", "job": "it's\x1b[31m", "age": "a\u202eb"}
    loans(150).rename(columns=names).to_csv(here / "t.tsv", index=False, sep="\t")
    words = ("--data", "t.tsv", "--delimiter", "\\t", "--target", "approved", "--positive", "yes")
    more = ("--sensitive", names["sex"], "--drop", names["job"], *QUICK, "--out", "R")
    assert command(here, "repair", *words, *more).code in (0, 1)
    text = (here / "R" / "report.md").read_text(encoding="utf-8")
    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    line = reproduced(here / "R")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(  # noqa: S603  # our own command
        ["bash", "-c", line],  # noqa: S607
        env={**os.environ, "PATH": path},
        cwd=here,
        check=False,
    )
    assert done.returncode in (0, 1)
    assert contents(here / "DIR") == contents(here / "R")


def test_nothing_of_a_row_is_written(here: Path) -> None:
    """No file of a run has a value of a single row, or a path that the user did not type."""
    names = [f"Zq{i}x" for i in range(300)]
    marks = [123_457 + 7 * i for i in range(300)]
    write(here, "loans.csv", loans().assign(name=names, mark=marks, note=[None] * 299 + ["Zq"]))
    words = ("repair", *TABLE, *QUICK, "--drop", "note", "--out", "R")
    outcome = command(here, *words)
    assert outcome.code in (0, 1)
    for path in (here / "R").iterdir():
        content = path.read_bytes()
        assert b"Zq" not in content, path
        assert str(here).encode() not in content, path
        if path.suffix in (".json", ".md"):
            numbers = {*re.findall(r"[\d.]+", content.decode())}
            assert not numbers & {*map(str, marks)}, path
    assert "Zq" not in outcome.out + outcome.err


def test_columns_of_the_report(here: Path) -> None:
    """Report and result say what each column was read as, and why others were not."""
    write(here, "loans.csv", loans().assign(name=[f"n{i}" for i in range(300)], w=1.5))
    words = ("repair", *TABLE, *QUICK, "--drop", "race", "--weight-column", "w", "--out", "R")
    assert command(here, *words).code in (0, 1)
    data = result_of(here / "R")["data"]
    assert data["inputs"] == [
        {"column": "income", "type": "number", "categories": 0},
        {"column": "job", "type": "category", "categories": 3},
        {"column": "age", "type": "number", "categories": 0},
    ]
    why = {entry["column"]: entry["why"] for entry in data["unused"]}
    assert why == {
        "sex": "sensitive",
        "race": "dropped",
        "approved": "target",
        "name": "a value per row",
        "w": "sample weight",
    }
    report = (here / "R" / "report.md").read_text(encoding="utf-8")
    for line in (
        "| income | number |",
        "| job | category (3 values) |",
        "| race | no input: dropped |",
        "| name | no input: a value per row |",
        "y = 1: approved is yes.",
    ):
        assert line in report


# Options that reach the repair


def test_options_reach_the_repair(here: Path) -> None:
    """Weights, class weights and the threshold change what is trained and what is measured."""
    torch.manual_seed(0)
    (here / "w").write_bytes(mlp_weights(mlp(7, (6,))))
    rng = np.random.default_rng(0)
    write(here, "loans.csv", loans().assign(w=rng.choice([0.0, 5.0], 300)))
    found = {}
    for name, more in {
        "plain": ("--drop", "w"),
        "weights": ("--weight-column", "w"),
        "class weights": ("--drop", "w", "--class-weight", "0=1,1=9"),
        "balanced": ("--drop", "w", "--class-weight", "balanced"),
        "threshold": ("--drop", "w", "--threshold", "0.55"),
    }.items():
        quick = ("--weights", "w", "--epochs", "9", "--neuron-share", "0.3")
        assert command(here, "repair", *TABLE, *quick, *more, "--out", name).code in (0, 1)
        found[name] = result_of(here / name)
    originals = {k: v["trials"][0]["validation"] for k, v in found.items()}
    assert originals["threshold"]["auc"] == originals["plain"]["auc"]
    explained = {k: json.dumps(v["explanation"]) for k, v in found.items()}
    assert explained["threshold"] == explained["plain"]
    assert len({*explained.values()}) == 4
    same = ("weights", "class weights", "balanced")
    assert all(found[k]["before"] == found["plain"]["before"] for k in same)
    assert found["threshold"]["before"]["groups"] != found["plain"]["before"]["groups"]
    assert found["threshold"]["configuration"]["threshold"] == 0.55
    assert found["class weights"]["configuration"]["class_weight"] == {"0": 1, "1": 9}


def test_time_budget_reaches_the_repair(here: Path) -> None:
    """With hardly any time there are candidates after an epoch; result and report say so."""
    words = ("repair", *TABLE, "--epochs", "5", "--time-budget", "0.001", "--out", "R")
    assert command(here, *words).code in (0, 1)
    result = result_of(here / "R")
    assert len(result["trials"]) >= 2
    assert result["stopped"] == "the time budget of 0.001 s ended the retraining early"
    assert "Not all was tried" in (here / "R" / "report.md").read_text(encoding="utf-8")
    assert command(here, "choose", "R", "--limit", "dp=0.2").code in (0, 1)
    assert result_of(here / "R")["stopped"] == result["stopped"]
