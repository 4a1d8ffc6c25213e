"""Mistakes that would give wrong figures without a word: each is refused, or told."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.data.inputs import fit_input
from fairneuron.data.tables import read_table
from fairneuron.errors import DataError, FairNeuronWarning, ModelError, OptionError, OutputError
from fairneuron.io import MANIFEST, require_free, to_json
from fairneuron.loading import read_own_table
from fairneuron.subject import DataChoice
from fairneuron.usercode import own_inputs
from tests.fuzzing import command

CODE = """
def by_itself(table):
    return table[["a", "b"]].to_numpy() / 10.0


def by_company(table):
    x = table[["a", "b"]]
    return ((x - x.mean()) / x.std()).to_numpy()


def seen(table):
    assert "y" not in table and "id" not in table, list(table)
    return table[["a"]].to_numpy()
"""


def table(n: int = 60, seed: int = 0) -> pd.DataFrame:
    """A table with a label, a sensitive column and two numbers."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "a": rng.normal(size=n).round(3),
            "b": rng.integers(0, 9, n),
            "id": range(n),
            "sex": ["f", "m"] * (n // 2),
            "y": ["no", "yes", "yes"] * (n // 3),
        }
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the table and a module of encoders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "encoders.py").write_text(CODE, encoding="utf-8")
    table().to_csv("t.csv", index=False)
    return tmp_path


def test_an_encoder_must_encode_each_row_by_itself(here: Path) -> None:
    """One that standardises by the table it gets is refused; one without memory is taken."""
    assert own_inputs("encoders:by_itself", table())[0].shape == (60, 2)
    with pytest.raises(DataError, match="each row by itself") as caught:
        own_inputs("encoders:by_company", table())
    assert caught.value.code == "data-encode"


def test_an_encoder_gets_neither_the_label_nor_dropped_columns(here: Path) -> None:
    """What it cannot have at prediction it does not get for the repair."""
    choice = DataChoice(
        "t.csv",
        target="y",
        positive="yes",
        sensitive=("sex",),
        drop=("id",),
        encode="encoders:seen",
    )
    read = read_own_table(choice)
    assert read.schema.unused == (("y", "target"), ("id", "dropped"))
    assert own_inputs("encoders:seen", read.frame, dict(read.schema.unused))[0].shape == (60, 1)
    with pytest.raises(OptionError, match="--include-sensitive"):
        DataChoice(
            "t.csv", target="y", sensitive=("sex",), encode="encoders:seen", include_sensitive=True
        )


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid()])
def test_probabilities_are_no_logits(end: nn.Module) -> None:
    """A head that ends in softmax or sigmoid would be squashed twice."""
    data = fn.Dataset.from_frame(table(), target="y", positive="yes", sensitive="sex")
    net = nn.Sequential(nn.Linear(data.x.shape[1], 4), nn.ReLU(), nn.Linear(4, 2), end)
    with pytest.raises(ModelError) as caught:
        fn.audit(net, data)
    assert caught.value.code == "model-head"


def test_two_labels_need_one_logit_or_two() -> None:
    """A third output could be predicted, and is no label."""
    data = fn.Dataset.from_frame(table(), target="y", positive="yes", sensitive="sex")
    net = nn.Sequential(nn.Linear(data.x.shape[1], 4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(ModelError, match="one logit or two; got 3 outputs"):
        fn.audit(net, data)


def test_scores_of_the_other_label_are_refused() -> None:
    """Scores that are low where 1 is predicted are those of the other label."""
    data = fn.Dataset.from_frame(table(), target="y", positive="yes", sensitive="sex")
    scores = np.where(data.y == 1, 0.8, 0.3)
    assert fn.audit_predictions(data, data.y, scores).metrics["auc"] == 1
    with pytest.raises(DataError, match=r"probabilities of y = 1; got .* 0.20 where 1"):
        fn.audit_predictions(data, data.y, 1 - scores)


def test_a_threshold_acts_on_scores(here: Path) -> None:
    """With a threshold the labels of another one play no part; without scores it is refused."""
    made = table().assign(prediction="no", score=np.linspace(0, 1, 60))
    made.to_csv("both.csv", index=False)
    made.drop(columns="score").to_csv("labels.csv", index=False)
    words = ("--target", "y", "--positive", "yes", "--sensitive", "sex", "--threshold", "0.75")
    done = command(here, "audit", "--predictions", "both.csv", *words)
    assert done.code == 0, done
    assert "0.267" in done.out  # selection rates of 8 and of 7 in 30
    done = command(here, "audit", "--predictions", "labels.csv", *words)
    assert "error[option-threshold]" in done.err


def test_a_named_column_is_read_alone(here: Path) -> None:
    """The cure for probabilities given as labels works as it is printed."""
    table().assign(prediction=np.linspace(0, 1, 60)).to_csv("p.csv", index=False)
    words = ("--target", "y", "--positive", "yes", "--sensitive", "sex")
    done = command(here, "audit", "--predictions", "p.csv", *words)
    assert "looks like a probability. Give probabilities as --score prediction." in done.err
    done = command(here, "audit", "--predictions", "p.csv", *words, "--score", "prediction")
    assert done.code == 0, done


def test_a_column_is_read_alike_in_all_files(here: Path) -> None:
    """A column of texts in the training table is one in the test table, where all look numeric."""
    train, test = table().assign(code="01.50"), table(seed=1).assign(code="2.50")
    train.loc[1::2, "code"] = "2.50"
    train.to_csv("train.csv", index=False)
    test.to_csv("test.csv", index=False)
    choice = DataChoice(
        train=Path("train.csv"), test=Path("test.csv"), target="y", positive="yes",
        sensitive=("sex",),
    )  # fmt: skip
    with pytest.warns(FairNeuronWarning, match="data-leading-zeros"):
        schema = read_own_table(choice).schema
    (code,) = [column for column in schema.inputs if column.name == "code"]
    assert code.categories == ("01.50", "2.50")


def test_groups_of_numbers_are_inputs_of_numbers(here: Path) -> None:
    """A 0/1 column that is compared and read is the same input from CSV and in Python."""
    made = table().assign(sex=[0, 1] * 30)
    made.to_csv("n.csv", index=False)
    choice = DataChoice(
        "n.csv", target="y", positive="yes", sensitive=("sex",), include_sensitive=True
    )
    ours = fn.Dataset.from_frame(
        made, target="y", positive="yes", sensitive="sex", include_sensitive=True
    )
    assert read_own_table(choice).schema.feature_names == ours.feature_names


def test_weights_are_not_lost_in_joining() -> None:
    """Rows without weights count once beside rows with weights."""
    x, y, s = np.ones((4, 1)), [0, 1, 0, 1], list("abab")
    one = fn.Dataset.from_arrays(x, y, s, sample_weight=[1, 2, 3, 4])
    other = fn.Dataset.from_arrays(x, y, s)
    assert one.joined(other).weight.tolist() == [1, 2, 3, 4, 1, 1, 1, 1]
    assert other.joined(other).weight is None


def test_people_who_say_unknown_are_told() -> None:
    """The text "unknown" is the group that is compared with nobody: a warning says so."""
    made = table().assign(sex=["f", "m", "unknown"] * 20)
    with pytest.warns(FairNeuronWarning, match=r"20 rows of 'sex' say 'unknown'"):
        fn.Dataset.from_frame(made, target="y", positive="yes", sensitive="sex")


def test_the_opposite_of_the_label_is_no_input(here: Path) -> None:
    """An array that holds 1 - y states the label as well as y does."""
    y = np.array([0, 1] * 15)
    x = np.c_[np.arange(30.0), 1 - y]
    np.savez("a.npz", x=x, y=y, sensitive=np.array(list("ab") * 15)[::-1])
    done = command(here, "audit", "--data", "a.npz")
    assert "error[data-target-used]" in done.err


def test_nested_parquet_is_refused_unread(tmp_path: Path) -> None:
    """Lists can hold more than a file of bytes; texts are held once however many rows have them."""
    path = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"a": [[0] * 1000], "b": [1]}), path)
    with pytest.raises(DataError, match="lists or structures in 'a'") as caught:
        read_table(path)
    assert caught.value.code == "data-type"
    bomb = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"a": ["x" * 120_000] * 5000}), bomb)
    with pytest.raises(DataError) as caught:
        read_table(bomb)
    assert caught.value.code == "data-bomb"


def test_long_digits_are_read_in_no_time() -> None:
    """Looking whether a text is a number takes a time that grows with its length alone."""
    column = pd.Series([f"{'1' * 50_000}x{i % 3}" for i in range(30)], name="c", dtype=object)
    start = time.process_time()
    assert fit_input(column, None) is not None
    assert time.process_time() - start < 5


def test_overwrite_never_deletes_folders(tmp_path: Path) -> None:
    """A manifest that names folders makes no run folder of theirs."""
    folder = tmp_path / "run"
    (folder / "notes").mkdir(parents=True)
    manifest = {"kind": "fairneuron run", "sha256": {"notes": ""}}
    (folder / MANIFEST).write_bytes(to_json(manifest))
    with pytest.raises(OutputError):
        require_free(folder, overwrite=True)


def test_a_model_without_a_file_of_weights_is_told(here: Path) -> None:
    """A factory may return a trained network or an untrained one: a warning says what is used."""
    net = "nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))"
    code = f"from torch import nn\n\n\ndef build():\n    return {net}\n"
    (here / "fresh_net.py").write_text(code, encoding="utf-8")
    torch.manual_seed(0)
    done = command(
        here, "audit", "--data", "t.csv", "--target", "y", "--positive", "yes", "--sensitive",
        "sex", "--model", "fresh_net:build", "--part", "all",
    )  # fmt: skip
    assert done.code == 0, done
    assert "[model-weights]" in done.err
