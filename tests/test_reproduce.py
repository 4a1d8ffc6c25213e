"""The paper's experiments: quick runs of each, the paper's figures beside ours, both pipelines."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import fairneuron as fn
from fairneuron.cli import app
from fairneuron.compare.protocol import versions
from fairneuron.compare.records import Records
from fairneuron.compare.setting import OneDataset, PaperNetwork
from fairneuron.counterfactual import counterfactual_flip_rate, stating_inputs
from fairneuron.data.builtin import compas_table
from fairneuron.data.dataset import Dataset
from fairneuron.errors import DataError, OptionError, OutputError
from fairneuron.reproduce import paper
from fairneuron.reproduce.figures import directed_ratio, figures_of, number
from fairneuron.reproduce.found import Found, ours
from fairneuron.reproduce.measures import retrained
from fairneuron.reproduce.methods import methods_of
from fairneuron.reproduce.page import _ours
from fairneuron.reproduce.published import (
    evaluate,
    published_data,
    regressed,
    squared_error,
)
from fairneuron.reproduce.run import Reproduction, experiments_of, reproduce
from fairneuron.reproduce.setting import PARTS, PUBLISHED, PaperSetting, Scale, setting_of
from fairneuron.reproduce.sources import sources_of
from fairneuron.reproduce.unawareness import Unawareness, blind
from tests.conftest import Says

# Runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with quick runs of everything."""
    where = tmp_path_factory.mktemp("reproduced") / "out"
    for name in experiments_of():
        reproduce(name, quick=True, out=where)
    return where


@pytest.mark.parametrize("name", experiments_of())
def test_each_experiment_runs(folder: Path, name: str) -> None:
    """A quick run writes a page that says it is one, and the same figures as JSON."""
    page = (folder / f"{name}.md").read_text()
    found = json.loads((folder / f"{name}.json").read_text())
    assert page.startswith(f"# {name[:-1].capitalize()} {name[-1]}: {paper.TITLES[name]}")
    assert "**Quick run" in page
    assert (found["quick"], found["seeds"]) == (True, [0])
    assert all(section["rows"] for section in found["sections"])
    assert ("is not known here: content and number" in page) == (name in paper.ASSIGNED)


@pytest.mark.parametrize(
    "name", ["figure4.svg", "figure5-theta-compas.svg", "figure5-gamma-compas-published.svg"]
)
def test_figures_are_drawn(folder: Path, name: str) -> None:
    """Figures come as SVG, without a date."""
    content = (folder / name).read_text()
    assert content.startswith("<?xml")
    assert "<dc:date>" not in content


def test_table4_has_the_papers_methods_and_ours(folder: Path) -> None:
    """Its rows are the paper's methods, the default recipe, and unawareness."""
    found = json.loads((folder / "table4.json").read_text())
    rows = [row["label"] for row in found["sections"][0]["rows"]]
    assert rows == [*methods_of(Scale(quick=True))]
    assert rows[:6] == [
        *("naive", "reweighing", "reject-option", "fad", "fad-thresholds"),
        paper.EA,
    ]
    assert rows[6:] == [paper.OURS, "fairneuron", "unawareness"]
    unaware = {
        row["label"]: row["cells"]["flip_rate"]["ours"]["mean"]
        for row in found["sections"][1]["rows"]
    }
    assert unaware["unawareness"] == 0
    assert unaware["naive"] > 0
    credit = "\n".join(found["sections"][0]["notes"])
    assert "credit: no flip rate. To be switched, a sensitive column must be alike" in credit
    assert ("reject-option reads the sensitive" in credit) != ("reject-option failed" in credit)


def test_figures_of_the_paper_stand_beside_ours(folder: Path) -> None:
    """In a row of Markdown the paper's figure follows ours; what is not known is a dash."""
    lines = (folder / "figure5.md").read_text().splitlines()
    head = next(line for line in lines if "accuracy" in line)
    row = next(line for line in lines if line.startswith(f"| {paper.EA}"))
    cells = [cell.strip() for cell in row.split("|")][1:-1]
    titles = [cell.strip() for cell in head.split("|")][1:-1]
    assert titles[1:5] == ["accuracy", "paper", "DP", "paper"]
    assert cells[2::2] == ["0.759", "0.095", "0.095", "1.203"]
    naive = next(line for line in lines if line.startswith("| naive"))
    assert [cell.strip() for cell in naive.split("|")][3] == "–"


def test_census_figures_of_table4_are_shown() -> None:
    """The two figures of Table 4 that are known stand in the page of a run on Census."""
    source = sources_of("table4", Scale(), ["census"])[0]
    nothing = Found(source, {}, ())
    page = Reproduction("table4", (0,), False, (nothing,)).to_markdown()
    row = next(line for line in page.splitlines() if line.startswith(f"| {paper.OURS}"))
    assert [cell.strip() for cell in row.split("|")][2:6] == ["–", "0.832", "–", "0.020"]


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """What is in the records is not computed again; a record that was lost is, to the same bits."""
    told: list[int] = []
    options: dict[str, Any] = {"quick": True, "out": tmp_path / "out", "data": ["compas"]}
    first = reproduce("table3", **options)
    records = tmp_path / "out" / "records" / "measures-compas" / "records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    reproduce("table3", **options, progress=lambda *_: told.append(1))
    assert told == []
    records.write_bytes(lines[0] + lines[1][: len(lines[1]) // 2])
    again = reproduce("table3", **options, progress=lambda *_: told.append(1))
    assert told == [1]
    assert again.to_dict()["sections"] == first.to_dict()["sections"]


def test_tables_4_and_5_share_records(folder: Path) -> None:
    """Costs are from the records of the comparison: no method is run twice."""
    records = folder / "records" / "methods-compas" / "records.jsonl"
    keys = [json.loads(line).get("method") for line in records.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys))


def test_quick_records_are_not_mixed_with_others(folder: Path) -> None:
    """A quick run and a full one do not go on with one another."""
    described = setting_of("compas", Scale(quick=True)).describe()
    assert described["quick"] is True
    with pytest.raises(OptionError, match="another quick"):
        Records(
            described | {"quick": False}, versions(), folder=folder / "records" / "measures-compas"
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "table8"}, "experiment"),
        ({"seeds": 0}, "seeds"),
        ({"workers": 0}, "workers"),
        ({"data": ["adult"]}, "part of an experiment"),
        ({"data": []}, "one of the data sets"),
        ({"data": ["mnist"]}, "one of the data sets"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], said: str) -> None:
    """Before any work, with the rule."""
    with pytest.raises(OptionError, match=said):
        fn.reproduce(**({"name": "table4", "quick": True} | options))  # type: ignore[operator]


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    """Files that are not ours are never replaced."""
    (tmp_path / "thesis.md").write_text("mine")
    with pytest.raises(OutputError, match="earlier experiments"):
        reproduce("table1", quick=True, out=tmp_path)


def test_experiments_of_a_part() -> None:
    """All that are of COMPAS are known; Census has no figure; images have a table of their own."""
    assert {*paper.TITLES} - {*experiments_of()} == {"table7"}
    assert {*experiments_of()} - {*experiments_of(["census"])} == {"figure4", "figure5"}
    assert experiments_of(["mnist"]) == ["table1", "table7"]
    for name in set(experiments_of(["census"])) - {"table1"}:
        assert {s.part for s in sources_of(name, Scale(quick=True), ["census"])} == {"census"}
        assert "census" not in {s.part for s in sources_of(name, Scale(quick=True))}


def test_command(tmp_path: Path) -> None:
    """The command prints the page and says where it is."""
    words = ["reproduce", "table1", "--quick", "--out", str(tmp_path / "o")]
    refused = CliRunner().invoke(app, [*words, "--seeds", "2"])
    assert isinstance(refused.exception, OptionError)
    assert refused.exception.code == "option-seeds"  # quick is of one
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("# Table 1")
    assert done.stdout.endswith("table1.md\n")


def test_command_refuses_unknown_names(tmp_path: Path) -> None:
    """With the known ones, before any work."""
    done = CliRunner().invoke(app, ["reproduce", "table9", "--out", str(tmp_path / "o")])
    assert isinstance(done.exception, OptionError)
    assert "table4" in str(done.exception)


# The paper's figures


def test_every_figure_has_its_source() -> None:
    """None is without a source, and each lies where such a figure can lie."""
    for figure in paper.FIGURES:
        assert figure.source.startswith(("paper: ", "release: "))
        shares = figure.metric in ("accuracy", "dp", "eo", "mcd") and figure.where != "improvement"
        assert 0 <= figure.value <= 1 or not shares
    assert paper.known("table4", "census", paper.OURS, "dp") == 0.020
    assert paper.known("table4", "compas", "naive", "dp") is None


def test_what_is_undefined_on_some_seeds_is_told() -> None:
    """A mean of two of three seeds says so; of all or none there is nothing to say."""
    texts = [_ours(ours(values)) for values in ([0.5, None, 0.5], [0.5, 0.5], [None, None])]
    assert texts == ["0.500 ± 0.000 (2 of 3)", "0.500 ± 0.000", "–"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.8321, "0.832"), (1.0, "1.000"), (47, "47"), (3995.23, "3995")],
)
def test_numbers(value: float | None, text: str) -> None:
    """As many digits as say something."""
    assert number(value) == text


def test_settings_are_the_papers() -> None:
    """Networks, outputs, splits and schedule of section 4.1; the sensitive column is an input."""
    for part in PARTS:
        setting = setting_of(part, Scale())
        described = setting.describe()
        widths = "128, 128, 128" if part == "census" else "32, 32, 32"
        outputs = "2 outputs" if part in ("census", "credit") else "1 output"
        assert described["model"] == f"hidden layers of {widths}, {outputs}"
        assert described["schedule"]["epochs"] == 50
        shares = np.array(described["rows"]) / sum(described["rows"])
        assert np.allclose(shares, [0.7, 0.1, 0.2], atol=0.005)
        assert isinstance(setting.splits, OneDataset)
        assert "is_recid" not in setting.splits.data.feature_names or part == PUBLISHED


# Directed DPR


def test_directed_ratio_is_not_folded() -> None:
    """The second group's rate over the first's: 3/4 over 1/4, and 0 where the second has none."""
    counts = np.array([[[2, 1], [1, 0]], [[0, 1], [1, 2]]])
    assert directed_ratio(counts) == 3
    assert directed_ratio(counts[::-1]) == pytest.approx(1 / 3)
    assert figures_of(counts)["dpr"] == pytest.approx(1 / 3)
    none = np.array([[[2, 1], [1, 0]], [[2, 0], [2, 0]]])
    assert directed_ratio(none) == 0


def test_directed_ratio_can_be_undefined() -> None:
    """With nobody selected in the first group, and with three groups, there is none."""
    counts = np.array([[[2, 0], [2, 0]], [[0, 1], [1, 2]]])
    assert directed_ratio(counts) is None
    assert directed_ratio(np.ones((3, 2, 2), dtype=np.int64)) is None


# The published pipeline


def table() -> pd.DataFrame:
    """Eight people, four of each race."""
    return pd.DataFrame(
        {
            "sex": ["Male", "Female"] * 4,
            "age_cat": ["25 - 45", "Less than 25"] * 4,
            "race": ["African-American"] * 4 + ["Caucasian"] * 4,
            "juv_fel_count": [0, 1] * 4,
            "juv_misd_count": [0, 1] * 4,
            "juv_other_count": [0, 1] * 4,
            "priors_count": range(8),
            "days_b_screening_arrest": [-1.0, 0.0] * 4,
            "jail_days": [0.5, 1.5] * 4,
            "c_charge_degree": ["F", "M"] * 4,
            "is_recid": [0, 1, 0, 1, 0, 1, 0, 1],
            "decile_score": [1, 1, 5, 9, 1, 1, 2, 10],
            "two_year_recid": [0, 1, 0, 1, 0, 0, 0, 1],
        }
    )


def test_published_data_regress_the_decile_score() -> None:
    """y is the score, is_recid and race are inputs, and the outcome stays with its row."""
    data = published_data(table())
    assert data.y.tolist() == [1, 1, 5, 9, 1, 1, 2, 10]
    assert {"is_recid", "race=Caucasian", "race=African-American"} <= set(data.feature_names)
    assert not any("decile" in name for name in data.feature_names)
    picked = data.subset(np.array([3, 5]))
    assert picked.sensitive.tolist() == [[0, 1], [1, 0]]


def test_published_figures_worked_out_by_hand() -> None:
    """Above 4 counts as positive; EO is over people with decile score 1, DPR is directed."""
    data = published_data(table())
    found = evaluate(np.array([5.0, 2.0, 6.0, 8.0, 4.0, 3.0, 1.0, 9.0]), data)
    # African-American: 3 of 4 positive, Caucasian: 1 of 4; of decile 1: 1 of 2, and 0 of 2
    figures = found.figures()
    assert figures["dp"] == pytest.approx(0.5)
    assert figures["dpr_directed"] == pytest.approx(1 / 3)
    assert figures["eo"] == pytest.approx(0.5)
    # right: rows 4, 5, 6, 8 of outcome 0/1, and row 4: 3 wrong of 8
    assert figures["accuracy"] == pytest.approx(5 / 8)
    assert found.objective() == pytest.approx(0.5 + 0.5 + (1 - 1 / 3) - 0.01 * 5 / 8)


def test_published_objective_needs_all_its_parts() -> None:
    """Where nobody of the first race is positive it is infinite, and such a model loses."""
    data = published_data(table())
    assert math.isinf(evaluate(np.zeros(8), data).objective())


def test_published_data_of_the_package() -> None:
    """The table has the rows of the data set "compas", in its order."""
    published, compas = published_data(compas_table()), fn.load_dataset("compas")
    assert len(published) == len(compas)
    assert (published.sensitive[:, 0] == compas.group).all()
    assert (published.sensitive[:, 1] == compas.y).all()


@pytest.mark.parametrize(
    ("column", "value"), [("decile_score", 0), ("two_year_recid", 2), ("race", None)]
)
def test_other_tables_are_refused(column: str, value: int | None) -> None:
    """Scores outside 1 to 10, other outcomes, and missing columns."""
    frame = table().drop(columns=column) if value is None else table().assign(**{column: value})
    with pytest.raises(DataError, match=column):
        published_data(frame)


def test_regression_learns() -> None:
    """Squared error of the trained network is below that of the mean score."""
    setting = setting_of(PUBLISHED, Scale(quick=True))
    larger = PaperSetting(setting.splits, PaperNetwork((8,)), scale=Scale(), loss=squared_error)
    parts = larger.splits(0)
    scores = regressed(larger.base(parts, 0), parts[0])
    assert np.mean((scores - parts[0].y) ** 2) < 0.8 * parts[0].y.var()


def test_same_masks_are_one_training(parts: tuple[Dataset, Dataset, Dataset]) -> None:
    """Equal sets of biased samples are trained once, others apart."""
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))
    nobody, everybody = np.zeros(len(parts[0]), bool), np.ones(len(parts[0]), bool)
    scale = Scale(quick=True)
    found = retrained(model, parts, [nobody, everybody, nobody.copy()], scale=scale, seed=0)
    assert found[0] is found[2]
    assert found[0] is not found[1]


# Unawareness and counterfactual flips


def grouped(x: list[list[float]], sex: list[str], names: list[str]) -> Dataset:
    """Data of one sensitive column, sex."""
    y = np.arange(len(sex)) % 2
    return Dataset.from_arrays(
        np.array(x, dtype=np.float32), y, sex, sensitive_names=["sex"], feature_names=names
    )


ONE_HOT = grouped(
    [[1, 0, 2.0], [0, 1, 2.0], [1, 0, -2.0], [0, 1, 0.2]],
    ["f", "m", "f", "m"],
    ["sex=f", "sex=m", "age"],
)


def linear(*weights: float) -> nn.Linear:
    """A model of given weights, without bias."""
    model = nn.Linear(len(weights), 1, bias=False)
    model.weight.data = torch.tensor([weights], dtype=torch.float32)
    return model


def test_flip_rate_worked_out_by_hand() -> None:
    """Logit sex=m − sex=f + age: only the last of four people changes, from 1.2 to −0.8."""
    assert counterfactual_flip_rate(linear(-1, 1, 1), ONE_HOT) == 0.25
    assert counterfactual_flip_rate(linear(0, 0, 1), ONE_HOT) == 0
    assert counterfactual_flip_rate(linear(-9, 9, 1), ONE_HOT) == 1


def test_flip_rate_of_one_number() -> None:
    """A group that one column states, scaled or not, is switched too."""
    data = grouped([[-1.5, 0], [0.5, 0], [-1.5, 2]], ["f", "m", "f"], ["sex", "age"])
    assert counterfactual_flip_rate(linear(1, 1), data) == pytest.approx(2 / 3)


def test_flip_rate_with_three_groups() -> None:
    """Over all pairs of a person and another group: c alone is selected, so 4 of 6 pairs change."""
    data = grouped(np.eye(3).tolist(), ["a", "b", "c"], ["sex=a", "sex=b", "sex=c"])
    assert counterfactual_flip_rate(linear(-1, -1, 1), data) == pytest.approx(4 / 6)


def test_flip_rate_leaves_the_data_alone() -> None:
    """The inputs are as they were, and a predictor that ignores them never flips."""
    before = ONE_HOT.x.clone()
    assert counterfactual_flip_rate(Says([0.1, 0.9, 0.2, 0.8]), ONE_HOT) == 0
    assert torch.equal(ONE_HOT.x, before)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (grouped([[1.0], [2.0]], ["f", "m"], ["age"]), "must be an input"),
        (grouped([[1.0], [2.0], [3.0]], ["f", "f", "m"], ["sex"]), "alike for all rows"),
        (grouped([[1.0], [1.0]], ["f", "f"], ["sex"]), "two groups"),
    ],
)
def test_flip_rate_refuses(data: Dataset, said: str) -> None:
    """Columns that cannot be switched: no input, other values within a group, one group."""
    with pytest.raises(DataError, match=said):
        counterfactual_flip_rate(linear(1), data)


def test_unawareness_cannot_see_the_group() -> None:
    """Its predictions are the same whatever the sensitive inputs say; the model is untouched."""
    rng = np.random.default_rng(0)
    sex = rng.integers(0, 2, 200)
    x = np.stack([sex == 0, sex == 1, rng.normal(size=200)], axis=1).tolist()
    data = grouped(x, np.array(["f", "m"])[sex].tolist(), ["sex=f", "sex=m", "age"])
    data = replace(data, y=(data.x[:, 2].numpy() > 0).astype(np.int64))
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    before = model[0].weight.clone()
    found = Unawareness(fn.Schedule(epochs=20)).fit(model, data, data, seed=0)
    assert counterfactual_flip_rate(found, data) == 0
    assert torch.equal(model[0].weight, before)
    assert stating_inputs(data) == [0, 1]
    assert data.x[:, :2].any()
    assert not blind(data).x[:, :2].any()
