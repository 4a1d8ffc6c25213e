"""Impact ratios, the four-fifths flag, model cards, and report.json under its schema."""

from __future__ import annotations

import copy
import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, selection_rate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats.contingency import relative_risk

import fairneuron as fn
from fairneuron.audit import Audit
from fairneuron.compare.document import comparison_document
from fairneuron.data.builtin import SOURCES
from fairneuron.data.dataset import Dataset
from fairneuron.errors import FairNeuronError
from fairneuron.governance import impact_table, impact_tables
from fairneuron.io import to_json
from fairneuron.report.audit_page import audit_page
from fairneuron.report.document import audit_document, repair_document, schema
from fairneuron.report.html import repair_page
from fairneuron.report.markdown import report
from fairneuron.subject import DataChoice
from tests.fuzzing import command
from tests.test_compare import Shifted, compare, shifted
from tests.test_html import audited, checked
from tests.test_report import HOSTILE, TAME, made, made_of_classes, parsed, renamed, result_of

VALIDATOR = jsonschema.Draft202012Validator(schema())


def groups_of(counts: Mapping[str, tuple[int, int]], unknown: int = 0) -> dict[str, Any]:
    """What an audit says of groups of n people with so many selected, as JSON has it."""
    rows = [
        {"group": name, "n": n, "compared": True, "selection_rate": k / n if n else None}
        for name, (k, n) in counts.items()
    ]
    rows += [{"group": "unknown", "n": unknown, "compared": False, "selection_rate": 0.9}]
    return {"sensitive": ["who"], "groups": rows}


def row(group: str, counts: Mapping[str, tuple[int, int]], **options: Any) -> dict[str, Any]:
    """The row of one group in their table of selection rates."""
    found = impact_table(groups_of(counts), **options)["selection"]["groups"]
    return next(one for one in found if one["group"] == group)


# Impact ratios


def test_a_table_by_hand() -> None:
    """Rates over the highest one; 0.8 is not below; few people are listed and left out."""
    counts = {"A": (50, 100), "B": (39, 100), "C": (40, 100), "D": (6, 6), "E": (0, 0)}
    found = impact_table(groups_of(counts, unknown=7))
    assert (found["by"], found["n"], found["unknown"], found["scoring"]) == (["who"], 306, 7, None)
    selection = found["selection"]
    assert (selection["reference"], selection["lowest"]) == ("A", 0.78)
    rows = {one["group"]: one for one in selection["groups"]}
    assert list(rows) == ["A", "B", "C", "D", "E"]
    assert [one["n"] for one in rows.values()] == [100, 100, 100, 6, 0]
    assert [one["selected"] for one in rows.values()] == [50, 39, 40, 6, 0]
    assert [one["rate"] for one in rows.values()] == [0.5, 0.39, 0.4, 1.0, None]
    assert [one["impact_ratio"] for one in rows.values()] == [1.0, 0.78, 0.8, None, None]
    flags = [one["below_four_fifths"] for one in rows.values()]
    assert flags == [False, True, False, None, None]
    assert rows["D"]["undefined"] == "left out: less than 2 % of the people"
    assert rows["E"]["undefined"] == "nobody is in this group"
    assert rows["B"]["share"] == 100 / 306


def test_two_percent_is_enough() -> None:
    """Exactly 2 % of the people are not left out."""
    assert row("B", {"A": (49, 98), "B": (1, 2)})["impact_ratio"] == 1.0
    assert row("B", {"A": (49, 99), "B": (1, 2)})["impact_ratio"] is None


def test_the_harmful_outcome() -> None:
    """Where y = 1 harms, those who are not predicted it are selected."""
    counts = {"A": (60, 100), "B": (20, 100)}
    assert row("B", counts)["impact_ratio"] == 20 / 60
    found = impact_table(groups_of(counts), harmful=True)["selection"]
    assert found["reference"] == "B"
    assert [one["selected"] for one in found["groups"]] == [40, 80]
    assert [one["impact_ratio"] for one in found["groups"]] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"A": (0, 50), "B": (0, 50)}, "nobody is selected in any group"),
        ({"A": (30, 990), "B": (5, 10)}, "fewer than two groups have 2 % of the people or more"),
    ],
)
def test_ratios_that_are_undefined(counts: dict[str, tuple[int, int]], reason: str) -> None:
    """Say why, and there is no reference."""
    found = impact_table(groups_of(counts))["selection"]
    assert (found["reference"], found["lowest"], found["noise_floor"]) == (None, None, None)
    assert found["groups"][0]["impact_ratio"] is None
    assert found["groups"][0]["undefined"] == reason


def test_rates_are_those_of_fairlearn() -> None:
    """Selection rates, and the lowest impact ratio, of random predictions of three groups."""
    rng = np.random.default_rng(3)
    group, predicted = rng.choice(["a", "b", "c"], 400), rng.integers(0, 2, 400)
    y = rng.integers(0, 2, 400)
    data = Dataset.from_arrays(np.zeros((400, 1)), y, group)
    found = impact_table(fn.audit_predictions(data, predicted).to_dict())["selection"]
    peer = MetricFrame(metrics=selection_rate, y_true=y, y_pred=predicted, sensitive_features=group)
    rates = {one["group"]: one["rate"] for one in found["groups"]}
    assert rates == pytest.approx(peer.by_group.to_dict())
    assert found["lowest"] == pytest.approx(peer.ratio())


@pytest.mark.filterwarnings("ignore:.*data-group-tiny")
def test_columns_and_their_intersection() -> None:
    """A table of each column alone, then of all together."""
    sex, race = ["f", "f", "m", "m"] * 5, ["x", "w", "x", "w"] * 5
    predicted = [0, 1, 1, 1] * 5
    data = Dataset.from_arrays(
        np.zeros((20, 1)), [0, 1] * 10, np.array([sex, race]).T, sensitive_names=["sex", "race"]
    )
    tables = impact_tables(fn.audit_predictions(data, predicted).to_dict())
    assert [one["by"] for one in tables] == [["sex"], ["race"], ["sex", "race"]]
    ratios = [[g["impact_ratio"] for g in one["selection"]["groups"]] for one in tables]
    assert ratios == [[0.5, 1.0], [1.0, 0.5], [1.0, 0.0, 1.0, 1.0]]


# The four-fifths flag


@pytest.mark.parametrize(
    ("selected", "below", "flips"),
    [
        (4, True, None),
        (6, True, 2),  # 8 / 10
        (7, True, 1),  # 8 / 10
        (8, False, 1),  # 7 / 10
        (9, False, 2),  # 7 / 10
        (10, False, None),  # 8 / 10 is not below, nor are 9 / 11 and 10 / 12
    ],
)
def test_flags_that_hang_on_a_few_people(selected: int, below: bool, flips: int | None) -> None:
    """How few other decisions turn the flag, beside 10 of 20 in the most selected group."""
    found = row("B", {"A": (10, 20), "B": (selected, 20)})
    assert (found["below_four_fifths"], found["flips_with"]) == (below, flips)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_flips_as_tried_one_by_one(draw: st.DataObject) -> None:
    """Every other decision of one or two people, tried literally."""
    n, m = draw.draw(st.integers(1, 30)), draw.draw(st.integers(1, 30))
    k, top = draw.draw(st.integers(0, n)), draw.draw(st.integers(1, m))
    if k * m >= top * n:
        return
    found = row("B", {"A": (top, m), "B": (k, n)})
    if found["impact_ratio"] is None:  # less than 2 %
        return

    def flag(own: int, other: int) -> bool | None:
        inside = 0 <= k + own <= n and 0 < top + other <= m
        return 10 * (k + own) * m < 8 * (top + other) * n if inside else None

    def reached(people: int) -> bool:
        moves = [(a, b) for a in range(-2, 3) for b in range(-2, 3) if abs(a) + abs(b) == people]
        return any(flag(*move) is (not flag(0, 0)) for move in moves)

    assert found["below_four_fifths"] is flag(0, 0)
    assert found["flips_with"] == next((people for people in (1, 2) if reached(people)), None)


def test_p_values_by_hand() -> None:
    """Fisher's exact test: all tables of these margins that are as unlikely, summed."""
    found = row("B", {"A": (8, 10), "B": (3, 12)})

    def chance(k: int) -> float:
        return math.comb(12, k) * math.comb(10, 11 - k) / math.comb(22, 11)

    likely = [chance(k) for k in range(1, 12)]
    assert found["p_value"] == pytest.approx(sum(p for p in likely if p <= chance(3) * (1 + 1e-9)))


def test_intervals_are_those_of_scipy() -> None:
    """Katz's interval of a ratio of two shares; none where one is 0."""
    found = row("B", {"A": (70, 90), "B": (33, 80)})
    peer = relative_risk(33, 80, 70, 90).confidence_interval(0.95)
    assert found["impact_interval"] == pytest.approx([peer.low, peer.high])
    assert row("B", {"A": (70, 90), "B": (0, 80)})["impact_interval"] is None


def test_noise_floor() -> None:
    """The lowest ratio of equal groups: 1 where all are selected, near it for many people."""
    floors = [
        impact_table(groups_of({"A": (k, n), "B": (k, n)}))["selection"]["noise_floor"]
        for k, n in ((20, 20), (10, 20), (50_000, 100_000))
    ]
    assert floors[0] == 1.0
    assert 0.6 < floors[1] < 0.85  # two rates of 0.5 with a deviation of 0.11 each
    assert 0.99 < floors[2] < 1.0


# Scoring rates


def scored(scores: list[float], **options: Any) -> Audit:
    """The audit of six people in two groups with these scores."""
    data = Dataset.from_arrays(np.zeros((6, 1)), [0, 1] * 3, ["a", "a", "a", "b", "b", "b"])
    return fn.audit_predictions(data, scores=scores, **options)


@pytest.mark.filterwarnings("ignore:.*data-group-tiny")
def test_scoring_rates_by_hand() -> None:
    """The share above the median of all; below it where y = 1 harms; those at it are neither."""
    found = scored([0.1, 0.2, 0.5, 0.5, 0.8, 0.9]).to_dict()  # the median is 0.5
    table = impact_table(found)["scoring"]
    assert [one["selected"] for one in table["groups"]] == [0, 2]
    assert [one["impact_ratio"] for one in table["groups"]] == [0.0, 1.0]
    table = impact_table(found, harmful=True)["scoring"]
    assert [one["selected"] for one in table["groups"]] == [2, 0]
    assert table["reference"] == "a"


@pytest.mark.filterwarnings("ignore:.*data-group-tiny")
def test_scoring_rates_need_scores() -> None:
    """There are none of predicted labels, nor of parts that were merged."""
    data = Dataset.from_arrays(np.zeros((6, 1)), [0, 1] * 3, ["a", "a", "a", "b", "b", "b"])
    labels = fn.audit_predictions(data, [0, 1, 1, 0, 0, 1])
    merged = scored([0.1, 0.2, 0.5, 0.5, 0.8, 0.9]).merge(scored([0.4] * 6))
    for found in (labels, merged):
        assert impact_table(found.to_dict())["scoring"] is None


@pytest.mark.filterwarnings("ignore:.*data-group-tiny")
def test_the_median_is_not_written() -> None:
    """It can be the score of one person."""
    data = Dataset.from_arrays(np.zeros((5, 1)), [0, 1, 0, 1, 0], ["a", "a", "a", "b", "b"])
    found = fn.audit_predictions(data, scores=[0.11, 0.21, 0.523457, 0.71, 0.81])
    assert "0.523457" not in to_json(found.to_dict()).decode()
    assert [g["score_above_median"] for g in found.groups] == [0, 2]


# What y = 1 is


@pytest.mark.parametrize("name", SOURCES)
def test_data_of_ours_say_what_the_outcome_is(name: str) -> None:
    """In words and for programs, alike."""
    assert f"(the {SOURCES[name].outcome} outcome)" in SOURCES[name].positive_means


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"data": "compas", "outcome": "favourable"}, "option-data"),
        (
            {"data": "p.csv", "target": "y", "sensitive": ("who",), "outcome": "good"},
            "option-outcome",
        ),
    ],
)
def test_outcomes_that_are_refused(options: dict[str, Any], code: str, tmp_path: Path) -> None:
    """That of our data is known, and there are two."""
    (tmp_path / "p.csv").write_text("who,y\na,1\n")
    if options["data"] == "p.csv":
        options = options | {"data": str(tmp_path / "p.csv")}
    with pytest.raises(FairNeuronError) as caught:
        DataChoice(**options)
    assert caught.value.code == code


# Pages


@pytest.fixture(scope="module")
def repaired() -> dict[str, Any]:
    """The result of a small run."""
    return result_of(made(TAME, rows=300))


def test_repair_pages_have_the_ratios(repaired: dict[str, Any]) -> None:
    """Before and after side by side, in HTML as in Markdown, as report.json has them."""
    page, text = checked(repair_page(repaired)), report(repaired)
    before, after = (one["selection"] for one in repair_document(repaired)["impact"]["tables"])
    rows = page.table("Impact ratios by who")
    for old, new in zip(before["groups"], after["groups"], strict=True):
        cells = rows[old["group"]]
        assert cells[0] == str(old["n"])
        for cell, one in zip(cells[1:3], (old, new), strict=True):
            assert cell == f"{one['selected']} ({one['rate']:.3f})"
        for cell, one in zip(cells[3:], (old, new), strict=True):
            assert cell.startswith(f"{one['impact_ratio']:.3f}")
        assert f"| {old['group']} | {' | '.join(cells)} |" in text
    flags = page.table("Four-fifths rule by who")
    assert flags[before["reference"]][1] == "most selected"
    assert "This is none: it calculates" in page.text
    assert page.table("Scoring rates by who")


def test_pages_say_who_is_selected(repaired: dict[str, Any]) -> None:
    """By what y = 1 is; and that this was not stated."""
    for outcome, says in (
        ("harmful", "who is not predicted y = 1, since y = 1 is the harmful outcome."),
        ("favourable", "who is predicted y = 1, since y = 1 is the favourable outcome."),
        (None, "who is predicted y = 1. It was not stated whether that is the favourable"),
    ):
        result = copy.deepcopy(repaired)
        result["data"]["outcome"] = outcome
        assert f"Selected: {says}" in checked(repair_page(result)).text
        assert f"Selected: {says}" in report(result)


def test_undefined_ratios_are_said() -> None:
    """Groups that are left out by name, the reason where there are no ratios at all."""
    found = audited(("A", "B"))
    for group in found["groups"]:
        group["selection_rate"] = 0.0
    page = checked(audit_page(found))
    assert page.table("Impact ratios by who")["A"] == ["150", "0 (0.000)", "undefined"]
    assert "No ratios: nobody is selected in any group." in page.text
    found = audited(("A", "B", "C"))
    found["groups"][2] |= {"n": 3, "positive": 1, "selection_rate": 1 / 3, "score_above_median": 1}
    found["groups"][1]["compared"] = False
    found["groups"].append(found["groups"][0] | {"group": "D"})
    page = checked(audit_page(found))
    rows = page.table("Impact ratios by who, n = 303; 150 of unknown groups counted apart")
    assert rows["C"][-1] == "left out"
    assert list(rows) == ["group", "A", "C", "D"]


def test_model_cards(repaired: dict[str, Any]) -> None:
    """Intended use as it was stated or not; data, groups, metrics and what the repair did."""
    card = repair_document(repaired)["card"]
    assert card["intended_use"] == "not stated"
    for part in (repaired["explanation"]["sentence"], repaired["verdicts"]["test"]["sentence"]):
        assert part in card["repair"]
    result = copy.deepcopy(repaired)
    result["configuration"]["intended_use"] = "to rank applications, beside a clerk"
    page = checked(repair_page(result))
    for text in ("Intended use to rank applications, beside a clerk", card["data"], card["groups"]):
        assert text in page.text
    assert "- Intended use: to rank applications, beside a clerk\n" in report(result)
    kept = repair_document(repaired | {"chosen": 0})["card"]["repair"]
    assert kept.startswith("No candidate was better on validation data: the model is as it was.")


@pytest.mark.parametrize("name", HOSTILE)
def test_texts_of_users_are_only_text(name: str, repaired: dict[str, Any]) -> None:
    """In cards and tables, and report.json is whole."""
    result = renamed(repaired, name)
    result["configuration"] |= {"intended_use": name, "model": name, "weights": name}
    checked(repair_page(result))
    kinds = {child.type for token in parsed(report(result)) for child in token.children or ()}
    assert not kinds & {"html_inline", "link_open", "image", "code_inline", "em_open"}
    document = json.loads(to_json(repair_document(result)))
    assert document["card"]["intended_use"] == name
    VALIDATOR.validate(document)


# report.json


def test_documents_keep_the_schema(repaired: dict[str, Any]) -> None:
    """Of audits, repairs of both recipes, undefined metrics and comparisons."""
    jsonschema.Draft202012Validator.check_schema(schema())
    methods = {"naive": "naive", "s": shifted, "aware": lambda _: Shifted(aware=True)}
    found = compare(methods=methods, seeds=2, criteria=["dp"], reference="s")
    documents = (
        repair_document(repaired),
        repair_document(result_of(made(TAME, rows=300, hopeless=True))),
        audit_document(audited(("A", "B", "C")), "It was found."),
        comparison_document(found.to_dict()),
    )
    for document in documents:
        VALIDATOR.validate(json.loads(to_json(document)))
    assert [one["kind"] for one in documents] == ["repair", "repair", "audit", "comparison"]


def test_documents_of_classes() -> None:
    """Without groups: accuracies of classes before and after, and no tables of impact ratios."""
    result = result_of(made_of_classes(4), metric="mcd", outputs=4)
    document = json.loads(to_json(repair_document(result)))
    VALIDATOR.validate(document)
    assert document["impact"]["tables"] == []
    expected = [
        {"model": model, **one} for model in ("before", "after") for one in result[model]["classes"]
    ]
    assert document["classes"] == expected
    assert [c["class"] for c in document["verdicts"]["test"]["classes"]] == ["0", "1", "2", "3"]
    assert document["card"]["groups"] == "None given."
    assert "everybody" not in json.dumps(document["card"])


def test_the_schema_refuses_other_documents(repaired: dict[str, Any]) -> None:
    """Another version, missing parts, figures without value and reason, or with both."""

    def changed(*path: Any, value: Any = None) -> dict[str, Any]:
        document: Any = copy.deepcopy(repair_document(repaired))
        place = document
        for key in path[:-1]:
            place = place[key]
        if value == "gone":
            del place[path[-1]]
        else:
            place[path[-1]] = value
        return json.loads(json.dumps(document))

    assert VALIDATOR.is_valid(changed("kind", value="repair"))
    for bad in (
        changed("schema", "version", value=2),
        changed("kind", value="page"),
        changed("figures", value="gone"),
        changed("figures", 0, "n", value="gone"),
        changed("figures", 0, "n", value=-1),
        changed("figures", 0, "value", value=None),
        changed("figures", 0, "undefined", value="because"),
        changed("rates", 0, "value", value=1.5),
        changed("impact", "tables", 0, "selection", "groups", 0, "flips_with", value=3),
        changed("verdicts", "test", "changes", "dp", "gain", value="much"),
        changed("card", "intended_use", value="gone"),
        changed("most_frequent_class_accuracy", value=1.5),
        changed("verdicts", "test", "positive_outcome", value="good"),
    ):
        assert not VALIDATOR.is_valid(bad)


def test_figures_are_those_of_the_audits(repaired: dict[str, Any]) -> None:
    """Each with n, interval, noise floor, and a reason where it is undefined."""
    document = repair_document(repaired)
    for side in ("before", "after"):
        figures = {f["metric"]: f for f in document["figures"] if f["model"] == side}
        assert {k: f["value"] for k, f in figures.items()} == repaired[side]["metrics"]
        assert {k: f["interval"] for k, f in figures.items()} == repaired[side]["intervals"]
        floors = {k: f["noise_floor"] for k, f in figures.items() if f["noise_floor"] is not None}
        assert floors == repaired[side]["noise_floor"]
        assert {f["n"] for f in figures.values()} == {repaired[side]["n"]}
    positive = sum(group["positive"] for group in repaired["before"]["groups"])
    n = repaired["before"]["n"]
    assert document["most_frequent_class_accuracy"] == max(positive, n - positive) / n
    assert [one["holds"] for one in document["limits"]] == [
        repaired["verdicts"]["test"]["changes"]["dp"]["met"]
    ]


def test_the_same_result_gives_the_same_bytes(repaired: dict[str, Any]) -> None:
    """And is not changed by it."""
    before = copy.deepcopy(repaired)
    assert to_json(repair_document(repaired)) == to_json(repair_document(copy.deepcopy(repaired)))
    assert repaired == before


# The page in the docs

PAGE = (Path(__file__).parents[1] / "docs" / "governance.md").read_text(encoding="utf-8")


def test_the_programs_of_the_docs_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The schema's title as printed; a line per group of each column and of both."""
    programs = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for program in programs:
        exec(compile(program, "governance.md", "exec"), {})  # noqa: S102  # our own file
    title, *lines = capsys.readouterr().out.splitlines()
    assert f"# {title}\n" in programs[0]
    assert len(lines) == 2 + 2 + 4
    assert any(line.endswith("True") for line in lines)


def test_the_command_of_the_docs_runs(tmp_path: Path) -> None:
    """As printed, on decisions about people of two columns."""
    (line,) = re.findall(r"```sh\nfairneuron (.*)\n```", PAGE)
    rng = np.random.default_rng(0)
    rows = {"sex": ["f", "m"], "race": ["x", "y", "z"], "hired": ["yes", "no"]}
    table = pd.DataFrame({name: rng.choice(values, 300) for name, values in rows.items()})
    table.assign(prediction=table["hired"]).to_csv(tmp_path / "decisions.csv", index=False)
    done = command(tmp_path, *shlex.split(line))
    assert done.code == 0, done.err
    document = json.loads((tmp_path / "audit.json").read_text())
    assert [one["by"] for one in document["impact"]["tables"]] == [
        ["sex"],
        ["race"],
        ["sex", "race"],
    ]
    assert document["card"]["intended_use"] in line


# On the command line


def loans(folder: Path) -> tuple[str, ...]:
    """A table of predictions with unknown groups, and how it is audited."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"who": ["a", "b"] * 100, "y": rng.integers(0, 2, 200)})
    table["prediction"] = (rng.random(200) < np.where(table["who"] == "a", 0.6, 0.3)).astype(int)
    table.loc[:9, "who"] = None
    table.to_csv(folder / "p.csv", index=False)
    return ("audit", "--predictions", "p.csv", "--target", "y", "--sensitive", "who")


def test_an_audit_writes_both(tmp_path: Path) -> None:
    """A page and the same for programs beside it; the outcome and the use as they were stated."""
    words = (*loans(tmp_path), "--report", "a.html", "--positive", "1")
    stated = ("--outcome", "harmful", "--intended-use", "a test")
    done = command(tmp_path, *words, *stated)
    assert done.code == 0, done.err
    content = (tmp_path / "a.json").read_bytes()
    document = json.loads(content)
    VALIDATOR.validate(document)
    assert document["card"]["intended_use"] == "a test"
    assert document["data"]["positive_means"] == "y is 1 (the harmful outcome)"
    (table,) = document["impact"]["tables"]
    assert (table["n"], table["unknown"]) == (190, 10)
    frame = pd.read_csv(tmp_path / "p.csv").dropna()
    rates = 1 - frame.groupby("who")["prediction"].mean()
    found = {one["group"]: one["rate"] for one in table["selection"]["groups"]}
    assert found == pytest.approx(rates.to_dict())
    assert found["a"] < found["b"]
    page = checked((tmp_path / "a.html").read_bytes())
    assert "--outcome harmful --intended-use 'a test'" in page.text
    assert command(tmp_path, *words, *stated, "--overwrite").code == 0
    assert (tmp_path / "a.json").read_bytes() == content


@pytest.mark.parametrize(("file", "code"), [("a.json", "option-report"), ("b", "output-exists")])
def test_places_that_are_refused(file: str, code: str, tmp_path: Path) -> None:
    """A page that is called .json, and one with somebody's JSON beside it; nothing is written."""
    (tmp_path / "b.json").write_text("mine")
    done = command(tmp_path, *loans(tmp_path), "--report", file)
    assert (done.code, code in done.err) == (2, True)
    assert {path.name for path in tmp_path.iterdir()} == {"p.csv", "b.json"}
    assert (tmp_path / "b.json").read_text() == "mine"


def test_a_repair_and_another_choice_write_it(tmp_path: Path) -> None:
    """In the manifest; the intended use stays, and the limits are the new ones."""
    words = ("repair", "--data", "credit", "--hidden", "6", "--epochs", "2", "--out", "R")
    done = command(tmp_path, *words, "--intended-use", "a test")
    assert done.code < 2, done.err
    folder = tmp_path / "R"
    assert "report.json" in json.loads((folder / "manifest.json").read_text())["sha256"]
    for bound in (0.05, 0.31):
        if bound != 0.05:
            assert command(tmp_path, "choose", "R", "--limit", f"dp={bound}").code < 2
        document = json.loads((folder / "report.json").read_text())
        VALIDATOR.validate(document)
        assert document == json.loads(
            to_json(repair_document(json.loads((folder / "result.json").read_text())))
        )
        assert [one["limit"] for one in document["limits"]] == [bound]
        assert document["card"]["intended_use"] == "a test"
        assert document["impact"]["outcome"] == "favourable"
