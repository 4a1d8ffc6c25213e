"""The report: its figures are those of the result, and names from the data cannot act in it."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from markdown_it.token import Token
from torch import nn

import fairneuron as fn
from fairneuron.audit import audit
from fairneuron.conflict import Neuron
from fairneuron.data.dataset import Dataset
from fairneuron.explanation import explain_conflict
from fairneuron.io import to_json
from fairneuron.markup import signed
from fairneuron.metrics.definitions import METRICS
from fairneuron.repair import FairNeuron
from fairneuron.report.markdown import SHOWN, report, shown_metrics
from fairneuron.report.parts import REFERENCE
from fairneuron.report.terminal import print_audit, print_paths, print_repair, to_stderr
from fairneuron.runs import Proof, Run, about_of
from fairneuron.subject import DataChoice, Subject
from fairneuron.tracing import trace
from tests.test_conflict import in_steps

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- hidden",
    "a|b",
    "a\\|b",
    "ends with \\",
    "new\nline",
    "| a | row |\n| --- | --- |",
    "\x1b[31mred\x1b[0m",
    "nul\0bell\x07",
    "right\u202eto left",
    "[x](javascript:1)",
    "![x](http://localhost/x.png)",
    "`code`",
    "```",
    "*strong* **er**",
    "_soft_",
    "&lt;b&gt;",
    "$x^2$",
    "# title",
    "---",
    "[red]markup[/red]",
)
FEW = (HOSTILE[0], *HOSTILE[3:7], HOSTILE[8], HOSTILE[11], HOSTILE[13])  # groups of real runs
TAME = ("A", "B")


def made(names: tuple[str, ...], *, rows: int = 60, hopeless: bool = False) -> Dataset:
    """Data with a group of each name; of the second one nobody has y = 1 if it is hopeless."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(len(names)), rows)
    x = rng.normal(size=(len(group), 4)).astype(np.float32)
    x[:, 3] = group % 2
    y = (x[:, 0] + x[:, 3] + rng.normal(size=len(group)) > 0.5).astype(np.int64)
    if hopeless:
        y[group == 1] = 0
    return Dataset.from_arrays(x, y, np.array(names, dtype=object)[group], sensitive_names=["who"])


def made_of_classes(classes: int, *, groups: bool = False) -> Dataset:
    """Data with so many classes; without groups unless asked for."""
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(classes), 120)
    x = rng.normal(size=(len(y), 4)).astype(np.float32)
    x[:, 0] += 3 * (y - y.mean())
    sensitive = {"sensitive": np.array(TAME, dtype=object)[y % 2 ^ (x[:, 1] > 0)]} if groups else {}
    return Dataset.from_arrays(x, y, **sensitive)


def result_of(
    data: Dataset, *, recipe: str = "conflict", metric: str = "dp", outputs: int = 1
) -> dict[str, Any]:
    """The result of a small but whole run, as it is read from result.json."""
    limit = {metric: 0.05}
    train, valid, test = data.split(0, fractions=(0.5, 0.25, 0.25))
    quick = fn.Schedule(epochs=3, batch_size=64)
    model = fn.train_classifier(
        train, valid, hidden=(6, 6), outputs=outputs, seed=0, schedule=quick
    )
    settings = (
        fn.Paper(gamma=0.5, schedule=quick)
        if recipe == "paper"
        else fn.Conflict(neuron_share=0.5, strengths=(0.5, 1.5), stops=0.0, schedule=quick)
    )
    found = fn.repair(model, train, valid, recipe=settings, limit=limit)
    proof = Proof(
        after=audit(found.model, test),
        validation=found.verdict,
        test=fn.judge(model, found.model, test, limit, on="test"),
    )
    subject = Subject(DataChoice("credit"))  # what the data are said to be
    run = Run(
        subject=subject,
        original=model,
        repair=found,
        before=audit(model, test),
        proofs={found.chosen.number: proof},
        parts=(train, valid, test),
        about=about_of(subject, test, {}, FairNeuron(settings, limit=limit), {}),
        seconds={},
    )
    result: dict[str, Any] = json.loads(to_json(run.to_dict()))
    return result


@pytest.fixture(scope="module")
def tame() -> dict[str, Any]:
    """The result of a run on data with ordinary names."""
    return result_of(made(TAME, rows=300))


@pytest.fixture(scope="module")
def hostile() -> dict[str, Any]:
    """The result of a run on data whose groups have hostile names."""
    return result_of(made(FEW))


@pytest.fixture(scope="module")
def hostile_paths() -> dict[str, Any]:
    """Likewise with the recipe that counts paths."""
    return result_of(made(FEW), recipe="paper")


@pytest.fixture(scope="module")
def hopeless() -> dict[str, Any]:
    """The result of a run where only one group has positives: some metrics are undefined."""
    return result_of(made(TAME, rows=300, hopeless=True))


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    """The result of a run on four classes without groups."""
    return result_of(made_of_classes(4), metric="mcd", outputs=4)


@pytest.fixture(scope="module")
def pairs() -> dict[str, Any]:
    """The result of a run on two classes without groups."""
    return result_of(made_of_classes(2), metric="mcd", outputs=2)


@pytest.fixture(scope="module")
def both() -> dict[str, Any]:
    """The result of a run on four classes with groups."""
    return result_of(made_of_classes(4, groups=True), metric="mcd", outputs=4)


def parsed(text: str) -> list[Token]:
    """The report as a reader of Markdown sees it, with tables and raw HTML allowed."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)


def plain(token: Token) -> str:
    """The text of an inline token that must hold nothing but text."""
    assert {child.type for child in token.children or ()} <= {"text", "text_special"}, token.content
    return "".join(child.content for child in token.children or ())


def tables(text: str) -> list[list[list[str]]]:
    """The cells of all tables, the heads too."""
    found: list[list[list[str]]] = []
    inside = False
    for token in parsed(text):
        if token.type in ("table_open", "table_close"):
            inside = token.type == "table_open"
            found += [[]] * inside
        elif token.type == "tr_open":
            found[-1] = [*found[-1], []]
        elif token.type == "inline" and inside:
            found[-1][-1].append(plain(token))
    return found


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose head begins with this."""
    return next(rows[1:] for rows in tables(text) if rows[0][0] == first)


def shown(name: str) -> str:
    """A name as a report has it: without control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


# Without groups, and with several classes

OF_GROUPS = re.compile(r"groups by|By :|everybody|Local Law|[Ii]mpact ratio|four-fifths|base rates")


def classes_of(result: dict[str, Any]) -> list[list[str]]:
    """Class, n, accuracies and change, as a report has them."""
    changes = {c["class"]: c for c in result["verdicts"]["test"]["classes"]}
    rows = zip(result["before"]["classes"], result["after"]["classes"], strict=True)
    return [
        [
            old["class"],
            str(old["n"]),
            *(
                f"{one['accuracy']:.3f} [{one['interval'][0]:.2f}, {one['interval'][1]:.2f}]"
                for one in (old, new)
            ),
            signed(changes[old["class"]]["after"] - changes[old["class"]]["before"]),
        ]
        for old, new in rows
    ]


@pytest.mark.parametrize("kind", ["digits", "pairs", "both"])
def test_accuracies_of_the_classes(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before and after, with n and intervals, in the report and in the terminal."""
    result = request.getfixturevalue(kind)
    rows, expected = table(report(result), "class"), classes_of(result)
    assert [row[:4] for row in rows] == [row[:4] for row in expected]
    for row, cells in zip(rows, expected, strict=True):
        assert re.fullmatch(rf"{re.escape(cells[4])} \[\S+, \S+\]\*?", row[4])
    print_repair(result, Path("R"))
    printed = " ".join(capsys.readouterr().out.split())
    assert all(" ".join(cells) in printed for cells in expected)


@pytest.mark.parametrize("kind", ["digits", "pairs"])
def test_nothing_compares_groups_that_are_not_there(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """No such rows, parts or words; one sentence says which metrics are undefined, and why."""
    result = request.getfixturevalue(kind)
    print_repair(result, Path("R"))
    for text in (report(result), " ".join(capsys.readouterr().out.split())):
        assert not OF_GROUPS.search(text)
        assert text.count("undefined") == 1
        assert (
            "area between score curves are undefined: the data have no sensitive columns." in text
        )
    assert {"worst_group_accuracy", "dp", "abcc"}.isdisjoint(shown_metrics(result))
    assert "treats all classes equally" in report(result)
    print_audit(result["after"], "title")
    assert capsys.readouterr().out.count("undefined") == 1


def test_one_class_among_several(digits: dict[str, Any], pairs: dict[str, Any]) -> None:
    """What is of y = 1 alone is left out, unless a verdict names it; of two classes it stays."""
    result = copy.deepcopy(digits)
    for verdict in result["verdicts"].values():
        verdict["worse"] = []
    text = report(result)
    assert re.findall(r"y = 1.*", text) == re.findall(r"y = 1 from everything else.*", text)
    assert {"f1", "auc"}.isdisjoint(shown_metrics(result))
    assert "the class of the highest probability is predicted" in text
    assert "Classes: 0, 1, 2, 3." in text
    assert "auc" in shown_metrics(pairs)
    assert "y = 1 is predicted at a probability of 0.5" in report(pairs)
    result["verdicts"]["test"]["worse"] = ["f1"]
    assert "f1" in shown_metrics(result)


def test_groups_and_several_classes(both: dict[str, Any]) -> None:
    """Both are shown, and y = 1 is called one of the classes."""
    text = report(both)
    assert OF_GROUPS.search(text)
    assert ", one of 4 classes." in text
    assert [row[0] for row in table(text, "group")] == [*TAME]
    assert "treats all groups (or classes) equally" in text


def test_heads_are_called_heads(tame: dict[str, Any]) -> None:
    """Where a result says so; older ones do not."""
    result, found = copy.deepcopy(tame), tame["explanation"]
    first = found["neurons"][0]
    assert set(found["kinds"].values()) == {"feature"}
    result["explanation"]["kinds"] = {first["layer"]: "head"}
    cells = [row[:2] for row in table(report(result), "layer")]
    assert cells[0] == [first["layer"], f"head {first['unit']}"]
    del result["explanation"]["kinds"]
    cells = [row[:2] for row in table(report(result), "layer")]
    assert cells[0] == [first["layer"], str(first["unit"])]


def test_kinds_of_neurons() -> None:
    """An explanation knows heads; its sentence has the layers in the order of the network."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        ends = nn.Linear(5, 4), nn.Linear(8, 1)
    net = nn.Sequential(nn.Unflatten(1, (2, 5)), ends[0], body, nn.Flatten(), ends[1]).eval()
    chosen = [Neuron(*of, 1.0, 0.0) for of in (("2.self_attn", 1), ("1", 2), ("1", 0))]
    found = explain_conflict(trace(net), in_steps(200), chosen, ("dp",))
    assert found.kinds["2.self_attn"] == "head"
    assert found.kinds["1"] == "feature"
    assert "(2 in layer '1', 1 head in layer '2.self_attn')" in found.sentence()


# Names from the data


def test_names_reach_the_result_as_they_are(hostile: dict[str, Any]) -> None:
    """The hostile names of these tests are in the result, unchanged."""
    assert {group["group"] for group in hostile["after"]["groups"]} == set(FEW)


@pytest.mark.parametrize("kind", ["hostile", "hostile_paths"])
def test_names_are_only_text(kind: str, request: pytest.FixtureRequest) -> None:
    """Every group's name is a cell that reads exactly like the name."""
    result = request.getfixturevalue(kind)
    text = report(result)
    order = [shown(group["group"]) for group in result["before"]["groups"]]
    groups = [row[0] for rows in tables(text) if rows[0][0] == "group" for row in rows[1:]]
    assert groups == order * (5 if kind == "hostile_paths" else 4)  # three of impact ratios
    assert [row[0] for row in table(text, "change in")] == order


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_is_only_text(name: str, tame: dict[str, Any]) -> None:
    """Any name is a cell that reads exactly like the name, and changes nothing else."""
    text, expected = report(renamed(tame, name)), tables(report(tame))
    rows = [rows[1] for rows in expected if rows[1][0] == "A"]
    assert len(rows) == 5  # groups, changes, and three of impact ratios
    for row in rows:
        row[0] = shown(name)
    assert tables(text) == expected
    assert len(text.splitlines()) == len(report(tame).splitlines())
    assert [c for c in text if not c.isprintable() and c != "\n"] == []


@pytest.mark.parametrize("kind", ["hostile", "hostile_paths"])
def test_report_has_no_markup_of_others(kind: str, request: pytest.FixtureRequest) -> None:
    """No raw HTML, links, images, code or headings come from names."""
    text = report(request.getfixturevalue(kind))
    tokens = parsed(text)
    inline = {child.type for token in tokens for child in token.children or ()}
    assert "html_block" not in {token.type for token in tokens}
    assert inline <= {"text", "text_special", "softbreak", "strong_open", "strong_close"}
    assert [t.type for t in tokens].count("heading_open") == 9
    assert [t.type for t in tokens].count("fence") == 1
    assert not re.search(r"(?<!\\)<", text)
    assert "<script" not in MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


@pytest.mark.parametrize("kind", ["hostile", "hostile_paths"])
def test_report_has_no_control_characters(kind: str, request: pytest.FixtureRequest) -> None:
    """A report is safe to print on a terminal."""
    text = report(request.getfixturevalue(kind))
    assert [c for c in text if not c.isprintable() and c != "\n"] == []


@pytest.mark.parametrize("kind", ["tame", "hostile", "hostile_paths", "hopeless"])
def test_tables_keep_their_columns(kind: str, request: pytest.FixtureRequest) -> None:
    """Every line of a table has as many columns as its head."""
    text = report(request.getfixturevalue(kind))
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == len(tables(text)) == (7 if kind == "hopeless" else 8)  # no ratios there
    for lines in blocks:
        bars = {len(re.findall(r"\|", re.sub(r"\\.", "", line))) for line in lines}
        assert len(bars) == 1
        assert all(line.startswith("| ") and line.endswith(" |") for line in lines)


@pytest.mark.parametrize("name", ["__init__", "___a___", "a __b__"])
def test_underscores_are_only_text(name: str, tame: dict[str, Any]) -> None:
    """A name with double underscores reads like the name."""
    assert table(report(renamed(tame, name)), "group")[0][0] == name


def renamed(result: dict[str, Any], name: str) -> dict[str, Any]:
    """The result with another name for its first group."""
    found = copy.deepcopy(result)
    flips = found["verdicts"]["test"]["flips"]
    for rows in (found["before"]["groups"], found["after"]["groups"], flips):
        rows[0]["group"] = name
    for change in found["verdicts"]["test"]["groups"]:
        if change["group"] == result["before"]["groups"][0]["group"]:
            change["group"] = name
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_small_groups_are_named_inertly(name: str, tame: dict[str, Any]) -> None:
    """The warning about small groups names them as they are, and as nothing but text."""
    result = renamed(tame, name)
    result["before"]["groups"][0]["n"], result["before"]["groups"][1]["n"] = 99, 100
    text = report(result)
    notes = [plain(t) for t in parsed(text.split("## Read this with care")[1]) if small(t)]
    assert notes == [
        f"Groups of fewer than 100 test samples: {shown(name)}. Their rates are uncertain."
    ]


def small(token: Token) -> bool:
    """Whether it is the warning about small groups."""
    return token.type == "inline" and token.content.startswith("Groups of fewer")


def test_no_warning_about_large_groups(tame: dict[str, Any]) -> None:
    """Without small groups there is no warning about them."""
    result = renamed(tame, "A")
    for group in result["before"]["groups"]:
        group["n"] = 100
    assert "fewer than 100" not in report(result)


# Figures


@pytest.mark.parametrize("kind", ["tame", "hostile", "hopeless"])
def test_metrics_are_those_of_the_result(kind: str, request: pytest.FixtureRequest) -> None:
    """The table has every metric with its value, interval and noise floor, before and after."""
    result = request.getfixturevalue(kind)
    rows = table(report(result), "metric")
    assert rows.pop(1)[0] == REFERENCE
    named = shown_metrics(result)
    assert named[: len(SHOWN)] == [*SHOWN]
    assert {*result["configuration"]["limit"], *result["verdicts"]["test"]["worse"]} <= {*named}
    assert [row[0] for row in rows] == [METRICS[name].title for name in named]
    for name, (_, *cells, floor) in zip(named, rows, strict=True):
        for audited, cell in zip((result["before"], result["after"]), cells, strict=True):
            value, bounds = audited["metrics"][name], audited["intervals"][name]
            expected = "undefined" if value is None else f"{value:.3f}"
            if bounds is not None:
                expected += f" [{bounds[0]:.2f}, {bounds[1]:.2f}]"
            assert cell == expected
        level = result["before"]["noise_floor"].get(name)
        assert floor == ("" if level is None else f"{level:.3f}") or (
            floor == "undefined" and name in result["before"]["noise_floor"]
        )


@pytest.mark.parametrize("kind", ["tame", "hostile", "hopeless"])
def test_groups_are_those_of_the_result(kind: str, request: pytest.FixtureRequest) -> None:
    """The table of groups has their sizes, rates and changed predictions."""
    result = request.getfixturevalue(kind)
    rows = table(report(result), "group")
    flips = {flip["group"]: flip for flip in result["verdicts"]["test"]["flips"]}
    for row, old, new in zip(
        rows, result["before"]["groups"], result["after"]["groups"], strict=True
    ):
        rates = [
            " → ".join("undefined" if v is None else f"{v:.3f}" for v in (old[rate], new[rate]))
            for rate in ("selection_rate", "tpr", "fpr", "accuracy")
        ]
        flip = flips[old["group"]]
        assert row == [
            shown(old["group"]),
            str(old["n"]),
            str(old["positive"]),
            *rates,
            f"{flip['to_positive']} / {flip['from_positive']}",
        ]


@pytest.mark.parametrize("kind", ["tame", "hostile", "hopeless"])
def test_changes_are_those_of_the_result(kind: str, request: pytest.FixtureRequest) -> None:
    """The table of changes has each rate's change and interval, marked if it leaves out zero."""
    result = request.getfixturevalue(kind)
    rows = {row[0]: row[1:] for row in table(report(result), "change in")}
    seen = 0
    for i, rate in enumerate(("selection_rate", "tpr", "fpr", "accuracy")):
        for old, new in zip(result["before"]["groups"], result["after"]["groups"], strict=True):
            found = change_of(result, old["group"], rate)
            cell = rows[shown(old["group"])][i]
            if old[rate] is None or found["interval"] is None:
                assert "[" not in cell
                continue
            value, low, high = map(float, re.findall(r"[+-]\d\.\d{3}", cell))
            assert value == pytest.approx(new[rate] - old[rate], abs=5.1e-4)
            assert [low, high] == pytest.approx(found["interval"], abs=5.1e-4)
            assert cell.endswith("*") == (found["interval"][0] > 0 or found["interval"][1] < 0)
            seen += 1
    assert seen


def change_of(result: dict[str, Any], group: str, rate: str) -> dict[str, Any]:
    """What the verdict on test data has of a rate of a group."""
    changes = result["verdicts"]["test"]["groups"]
    (found,) = (c for c in changes if (c["group"], c["rate"]) == (group, rate))
    return dict(found)


def test_reliable_changes_are_marked(
    tame: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A star where the interval leaves out zero, in the report and in print; none where not."""
    result = copy.deepcopy(tame)
    fell, unclear = (change_of(tame, "A", rate) for rate in ("selection_rate", "tpr"))
    for change in result["verdicts"]["test"]["groups"]:
        if change == fell:
            change |= {"before": 0.5, "after": 0.4, "interval": [-0.15, -0.05]}
        elif change == unclear:
            change |= {"before": 0.5, "after": 0.5, "interval": [-0.02, 0.0]}
    cells = ["-0.100 [-0.150, -0.050]*", "+0.000 [-0.020, +0.000]"]
    assert table(report(result), "change in")[0][1:3] == cells
    print_repair(result, Path("where"))
    words = " ".join(capsys.readouterr().out.split())
    assert "A -0.100* +0.000 " in words


def test_candidates_are_those_of_the_result(tame: dict[str, Any]) -> None:
    """The table of candidates has their validation figures, and marks the chosen one."""
    rows = table(report(tame), "")
    assert len(rows) == len(tame["trials"]) == 3
    for row, trial in zip(rows, tame["trials"], strict=True):
        assert row[0] == str(trial["number"])
        assert row[2:4] == [f"{trial['validation'][name]:.3f}" for name in ("accuracy", "dp")]
        assert row[4] == f"{trial['training']['dp']:.3f}"
        assert (row[5] == "chosen") == (trial["number"] == tame["chosen"])
    assert rows[0][1] == "the original"


def test_neurons_are_those_of_the_result(tame: dict[str, Any]) -> None:
    """The table of neurons has the layer, unit and figures of each."""
    rows = table(report(tame), "layer")
    assert rows == [
        [n["layer"], str(n["unit"]), f"{n['pull']:.4f}", f"{n['conflict']:+.2f}",
         f"{n['active']:.0%}"]
        for n in tame["explanation"]["neurons"]
    ]  # fmt: skip
    assert rows


def test_many_neurons_are_cut_and_counted(tame: dict[str, Any]) -> None:
    """Of many neurons the first twenty are shown, and it says how many there are more."""
    result = copy.deepcopy(tame)
    result["explanation"]["neurons"] = tame["explanation"]["neurons"][:1] * 33
    text = report(result)
    assert len(table(text, "layer")) == 20
    assert "… and 13 more in `result.json`." in text


def test_samples_are_those_of_the_result(hostile_paths: dict[str, Any]) -> None:
    """The table of biased samples has the counts of each group."""
    makeup = [
        [shown(g["group"]), *(str(g[key]) for key in ("n", "biased", "benign"))]
        for g in hostile_paths["explanation"]["makeup"]
    ]
    counted = next(t for t in tables(report(hostile_paths)) if "biased samples" in t[0])
    assert [row[:4] for row in counted[1:]] == makeup


def test_samples_that_all_have_rare_paths(hostile_paths: dict[str, Any]) -> None:
    """What to try stands in the place of a table without a second cluster."""
    result = copy.deepcopy(hostile_paths)
    result["explanation"]["biased_share"] = 1.0
    for row in result["explanation"]["makeup"]:
        row |= {"biased": row["n"], "benign": 0}
    assert "none of them shares a frequent one" in report(result)
    assert "--level units" in report(result)
    assert "benign samples" not in report(result)


def test_sentences_are_those_of_the_result(tame: dict[str, Any]) -> None:
    """The report begins with the verdict on test data, and has that on validation data too."""
    texts = [
        "".join(child.content for child in token.children or ())
        for token in parsed(report(tame))
        if token.type == "inline"
    ]
    assert texts[:2] == ["FairNeuron report", tame["verdicts"]["test"]["sentence"]]
    assert texts[2].endswith(tame["verdicts"]["validation"]["sentence"])
    assert tame["explanation"]["sentence"] in texts


def test_undefined_metrics_have_a_reason(hopeless: dict[str, Any]) -> None:
    """A metric without a value is called undefined, with the reason, and is no number."""
    undefined = hopeless["before"]["undefined"]
    assert "eo" in undefined
    text = report(hopeless)
    for name, reason in undefined.items():
        line = rf"^- .*{re.escape(METRICS[name].title)}.* undefined: {re.escape(reason)}\.$"
        assert re.search(line, text, re.MULTILINE | re.IGNORECASE)
    assert ["equal opportunity difference", "undefined", "undefined"] in [
        row[:3] for row in table(text, "metric")
    ]
    assert not re.search(r"\bnan\b|\bNone\b", text)


def test_defined_metrics_need_no_reason(tame: dict[str, Any]) -> None:
    """Where all is defined, nothing is called undefined."""
    assert "undefined" not in report(tame)


def test_original_that_is_kept(tame: dict[str, Any]) -> None:
    """If no candidate was better, the report says that the original is kept."""
    result = tame | {"chosen": 0}
    assert "No candidate beat the original on validation data, so it is kept." in report(result)
    assert table(report(result), "")[0][5] == "chosen"


def test_why_candidates_could_not_be_chosen(tame: dict[str, Any]) -> None:
    """It says how many and why; if all diverged, that and what can help."""
    first, *others = tame["trials"]
    some = [
        other | {"rejected": why} for other, why in zip(others, ["diverged", None], strict=False)
    ]
    result = tame | {"chosen": 0, "trials": [first, *some]}
    assert "Not to be chosen: 1 diverged." in report(result)
    every = [other | {"rejected": "diverged"} for other in others]
    result = tame | {"chosen": 0, "trials": [first, *every]}
    assert f"All candidates ({len(every)}) diverged" in report(result)


def test_rejected_candidates_have_their_reason(tame: dict[str, Any]) -> None:
    """A candidate that diverged stands in the table with that, and without figures."""
    result = copy.deepcopy(tame)
    last = result["trials"][-1]
    last |= {"validation": None, "training": None, "rejected": "diverged", "on_front": False}
    result["chosen"] = 0
    assert table(report(result), "")[-1][2:] == [*["undefined"] * 3, "diverged"]


def test_report_needs_the_result_alone(tame: dict[str, Any]) -> None:
    """The same result gives the same report, and is not changed by it."""
    before = copy.deepcopy(tame)
    assert report(tame) == report(copy.deepcopy(tame))
    assert tame == before
    assert report(tame).endswith("\n")


# How to reproduce


def command(result: dict[str, Any]) -> dict[str, list[str]]:
    """The options of the command in the last section, each with its values."""
    fence = [token for token in parsed(report(result)) if token.type == "fence"]
    assert len(fence) == 1
    words = shlex.split(fence[0].content)
    assert words[:2] == ["fairneuron", "repair"]
    options: dict[str, list[str]] = {}
    for word in words[2:]:
        if word.startswith("--"):
            name = word
            options.setdefault(name, [])
        else:
            options[name].append(word)
    return options


def configured(result: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The result with another configuration."""
    return result | {"configuration": result["configuration"] | changes}


def test_command_has_the_configuration(tame: dict[str, Any]) -> None:
    """The command has all that was asked for, and nothing that was not."""
    full = configured(
        tame,
        data="compas",
        sensitive=["race", "sex"],
        include_sensitive=True,
        hidden=[8, 9],
        outputs=2,
        weights="some.safetensors",
        seed=7,
        limit={"dp": 0.05, "dpr": 0.8},
    )
    options = command(full)
    assert options["--data"] == ["compas"]
    assert options["--sensitive"] == ["race", "sex"]
    assert options["--include-sensitive"] == []
    assert options["--hidden"] == ["8,9"]
    assert options["--outputs"] == ["2"]
    assert options["--weights"] == ["some.safetensors"]
    assert options["--seed"] == ["7"]
    assert options["--limit"] == ["dp=0.05", "dpr=0.8"]
    assert options["--recipe"] == ["conflict"]
    assert options["--neuron-share"] == ["0.5"]
    assert options["--out"] == ["DIR"]
    bare = command(tame)
    assert not set(bare) & {"--sensitive", "--include-sensitive", "--hidden", "--weights"}
    for name, number in tame["versions"].items():
        assert f"{name} {number}" in report(tame).splitlines()[-1]


def test_command_of_the_other_recipe(hostile_paths: dict[str, Any]) -> None:
    """The command has the settings of the recipe that was used."""
    options = command(hostile_paths)
    assert options["--recipe"] == ["paper"]
    assert (options["--gamma"], options["--theta"]) == (["0.5"], ["0.001"])
    assert options["--epochs"] == ["3"]
    assert "--neuron-share" not in options


@pytest.mark.parametrize("number", [0.1234567, 1 / 3, 1e-7 / 3])
def test_command_has_whole_numbers(number: float, tame: dict[str, Any]) -> None:
    """Limits and settings stand in the command to the last digit."""
    settings = tame["configuration"]["settings"] | {"neuron_share": number}
    options = command(configured(tame, limit={"dp": number}, settings=settings))
    assert float(options["--limit"][0].removeprefix("dp=")) == number
    assert float(options["--neuron-share"][0]) == number


@pytest.mark.parametrize("path", ["my weights.safetensors", "it's", "$(id)", "a;b", "~x", "*"])
def test_command_is_quoted(path: str, tame: dict[str, Any]) -> None:
    """A path that a shell would read otherwise is quoted."""
    text = report(configured(tame, weights=path))
    assert f"--weights {shlex.quote(path)} --limit" in text
    assert command(configured(tame, weights=path))["--weights"] == [path]


@pytest.mark.parametrize("path", ["a\n```\n<script>alert(1)</script>", "\x1b[31mred"])
def test_paths_are_inert(path: str, tame: dict[str, Any]) -> None:
    """A path cannot end the fence, or reach the terminal as control characters."""
    text = report(configured(tame, weights=path))
    tokens = parsed(text)
    assert [token.type for token in tokens].count("fence") == 1
    assert "html_block" not in {token.type for token in tokens}
    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert tokens[-2].content.startswith("With python ")


# What is printed


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe with room for every table."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.mark.parametrize("name", HOSTILE)
def test_printed_names_are_only_text(
    name: str, tame: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A printed audit shows names as they are, without control characters."""
    print_audit(renamed(tame, name)["after"], "title")
    out = capsys.readouterr().out
    assert [c for c in out if not c.isprintable() and c != "\n"] == []
    assert [
        part for part in shown(name).split("\N{REPLACEMENT CHARACTER}") if part not in out
    ] == []


def test_printed_repair(tame: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """A printed repair has the verdicts, the figures and where the report is."""
    print_repair(tame, Path("some") / "where")
    out = capsys.readouterr().out
    words = " ".join(out.split())
    assert str(Path("some") / "where" / "report.md") in out
    for data in ("validation", "test"):
        assert tame["verdicts"][data]["sentence"] in words
    for name in SHOWN:
        assert f"{tame['before']['metrics'][name]:.3f}" in words
        assert f"{tame['after']['metrics'][name]:.3f}" in words


def test_printed_audit_has_reasons(
    hopeless: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A printed audit says why a metric is undefined."""
    print_audit(hopeless["before"], "title")
    out = capsys.readouterr().out
    for reason in hopeless["before"]["undefined"].values():
        assert re.search(rf"undefined +{re.escape(reason)}", out)


def test_printed_paths(hostile_paths: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Printed paths have the sentence and a line for every group, also a group without samples."""
    summary = copy.deepcopy(hostile_paths["explanation"])
    summary["makeup"][0]["group"] = "[red]markup[/red]"
    nobody = dict.fromkeys(("n", "biased", "benign", "biased_positive", "benign_positive"), 0)
    summary["makeup"] = [{"group": "nobody", **nobody}, *summary["makeup"]]
    print_paths(summary)
    out = capsys.readouterr().out
    assert summary["sentence"] in " ".join(out.split())
    assert re.search(r"nobody +0 +0 +0 *$", out, re.MULTILINE)
    assert "[red]markup[/red]" in out


def test_messages_have_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """Messages on stderr keep their lines and lose all other control characters."""
    to_stderr("error: \x1b[31m\r\x07got\u202e\nthis")
    mark = "\N{REPLACEMENT CHARACTER}"
    assert capsys.readouterr().err == f"error: {mark}[31m{mark}{mark}got{mark}\nthis\n"
