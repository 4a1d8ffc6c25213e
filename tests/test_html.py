"""HTML reports: whole, inert, readable by all, and with the figures of the results."""

from __future__ import annotations

import copy
import itertools
import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fairneuron as fn
from fairneuron.io import to_json
from fairneuron.markup import el, signed, table
from fairneuron.metrics.definitions import METRICS
from fairneuron.report import figures
from fairneuron.report.audit_page import audit_page
from fairneuron.report.command import command_of
from fairneuron.report.document import repair_document
from fairneuron.report.html import price, repair_page
from fairneuron.report.markdown import SHOWN, report, which_counts
from fairneuron.report.parts import MEANS, REFERENCE, reference_accuracy
from fairneuron.report.terminal import print_repair
from fairneuron.runs import used_versions
from tests.fuzzing import command
from tests.test_compare import Shifted, compare, shifted
from tests.test_report import FEW, HOSTILE, TAME, made, made_of_classes, result_of

VOID = {"meta"}
TAGS = set(
    "html head meta title style body header main footer section h1 h2 h3 p ul li dl dt dd div "
    "figure figcaption table caption span thead tbody tr th td pre code "
    "svg desc line rect circle path polyline polygon text".split()
)
ATTRIBUTES = set(
    "lang charset http-equiv content name class role aria-label tabindex scope viewbox width "
    "height x y x1 y1 x2 y2 cx cy r rx d points transform text-anchor stroke-width".split()
)
LARGEST = 400 * 1024
CONTROL = re.compile(
    r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]"
)


class Page(HTMLParser):
    """A page as a browser sees it; anything that is not known to be harmless fails."""

    known_tags, known_attributes = TAGS, ATTRIBUTES

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.tables: list[dict[str, Any]] = []
        self.drawings: list[dict[str, str]] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(content.decode())
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.known_tags, tag
        names = [name for name, _ in attrs]
        assert set(names) <= self.known_attributes, names
        assert len(names) == len(set(names)), names
        found = dict(attrs)
        self.attributes.append((tag, found))
        if tag == "table":
            self.tables.append({"caption": "", "rows": []})
        elif tag == "tr":
            self.tables[-1]["rows"].append([])
        elif tag in ("th", "td"):
            if tag == "th":
                assert found["scope"] in ("col", "row")
            self.tables[-1]["rows"][-1].append("")
        elif tag in ("h1", "h2", "h3"):
            self.headings.append((tag, ""))
        elif tag == "svg" and found.get("aria-hidden") != "true":
            assert found["role"] == "img"
            self.drawings.append({})
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.texts.append(data)
        inside = self.open[-1] if self.open else ""
        if inside in ("h1", "h2", "h3"):
            tag, text = self.headings[-1]
            self.headings[-1] = (tag, text + data)
        elif "caption" in self.open:
            self.tables[-1]["caption"] += data
        elif {"th", "td"} & set(self.open):
            self.tables[-1]["rows"][-1][-1] += data
        elif self.open[-2:] in (["svg", "title"], ["svg", "desc"]):
            self.drawings[-1][inside] = self.drawings[-1].get(inside, "") + data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data)

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(data)

    @property
    def text(self) -> str:
        """All that is shown, or said of drawings."""
        return " ".join(" ".join(self.texts).split())

    def table(self, caption: str) -> dict[str, list[str]]:
        """Row head to the other cells of the table whose caption begins so."""
        (found,) = [t for t in self.tables if t["caption"].startswith(caption)]
        return {row[0]: row[1:] for row in found["rows"]}


def checked(content: bytes) -> Page:
    """The page, if it keeps what every page promises."""
    page = Page(content)
    assert content.startswith(b'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">')
    assert len(content) < LARGEST
    html = content.decode()
    policy = "default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;; img-src data:"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in html
    assert html.count("<style>") == 1
    assert not re.search(
        r"url\(|@import|expression|://", html.split("<style>")[1].split("</style>")[0]
    )
    assert not CONTROL.search(html)
    levels = [int(tag[1]) for tag, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert all(text.strip() for _, text in page.headings)
    assert all(drawing["title"] and drawing["desc"] for drawing in page.drawings)
    assert all(t["caption"] for t in page.tables)
    for t in page.tables:
        assert len({len(row) for row in t["rows"]}) == 1, t["caption"]
    return page


@pytest.fixture(scope="module")
def tame() -> dict[str, Any]:
    """The result of a run on data with ordinary names."""
    return result_of(made(TAME, rows=300))


@pytest.fixture(scope="module")
def paths() -> dict[str, Any]:
    """The result of a run of recipe paper, on groups with hostile names."""
    return result_of(made(FEW), recipe="paper")


@pytest.fixture(scope="module")
def hopeless() -> dict[str, Any]:
    """The result of a run where only one group has positives: some metrics are undefined."""
    return result_of(made(TAME, rows=300, hopeless=True))


@pytest.fixture(scope="module")
def comparison() -> fn.Comparison:
    """A comparison with methods of both kinds."""
    methods = {"naive": "naive", "s": shifted, "aware": lambda _: Shifted(aware=True)}
    return compare(methods=methods, seeds=3, criteria=["dp", "eo"], reference="s")


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    """The result of a run on four classes without groups."""
    return result_of(made_of_classes(4), metric="mcd", outputs=4)


def audited(names: tuple[str, ...]) -> dict[str, Any]:
    """What the page of an audit is made of."""
    data = made(names, rows=150)
    model = fn.train_classifier(*data.split(0)[:2], hidden=(4,), seed=0)
    return {
        **json.loads(to_json(fn.audit(model, data).to_dict())),
        "data": {**data.describe(), "part": "all", "positive_means": "y is 1", "sha256": {}},
        "model": "a model trained here",
        "limits": [],
        "command": "fairneuron audit",
        "versions": used_versions(),
    }


def renamed(result: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The result with another text in the place of one, wherever it stands alone."""
    return json.loads(json.dumps(result).replace(json.dumps(old), json.dumps(new)))


# Repairs


def test_sections_in_their_order(tame: dict[str, Any]) -> None:
    """The verdict comes first, how to reproduce it last."""
    page = checked(repair_page(tame))
    assert [text for tag, text in page.headings if tag == "h2"] == [
        "Before and after",
        "Candidates and the choice",
        "What carries the gap",
        "What else changed",
        "Impact ratios: a calculation, not an audit",
        "Read this with care",
        "Model card",
        "How to reproduce",
    ]
    assert len(page.drawings) == 4  # gaps, selection rates, candidates, network


def test_the_verdict_is_one_sentence(tame: dict[str, Any]) -> None:
    """What was found, under which definition, on which data, of how many, beside the limit."""
    lead = re.search(rb'<p class="lead">(.*?)</p>', repair_page(tame))
    assert lead is not None
    text, change = lead[1].decode(), tame["verdicts"]["test"]["changes"]["dp"]
    for part in (
        "demographic parity difference",
        f"from {change['before']:.3f} to {change['after']:.3f}",
        f"n = {tame['verdicts']['test']['n']}",
        tame["data"]["name"],
        "at most 0.05",
    ):
        assert part in text
    page = checked(repair_page(tame))
    assert MEANS["dp"] in page.text
    assert tame["verdicts"]["test"]["sentence"] in page.text
    assert tame["data"]["positive_means"] in page.text


def test_figures_are_those_of_the_result(tame: dict[str, Any]) -> None:
    """Metrics, intervals, noise floors, rates, candidates, neurons, flips."""
    page = checked(repair_page(tame))
    metrics = page.table("Metrics on test data")
    for name in SHOWN:
        before, after, floor, _ = metrics[METRICS[name].title]
        for text, side in ((before, "before"), (after, "after")):
            low, high = tame[side]["intervals"][name]
            assert text == f"{tame[side]['metrics'][name]:.3f} ({low:.3f} to {high:.3f})"
        floors = tame["before"]["noise_floor"]
        assert floor == (f"{floors[name]:.3f}" if name in floors else "")
    rates = page.table("Selection rate: ")
    for old, new in zip(tame["before"]["groups"], tame["after"]["groups"], strict=True):
        low, high = old["selection_interval"]
        n, before, after, _ = rates[old["group"]]
        assert n == str(old["n"])
        assert before == f"{old['selection_rate']:.3f} ({low:.3f} to {high:.3f})"
        assert after.startswith(f"{new['selection_rate']:.3f} (")
    candidates = page.table("All candidates")
    assert len(candidates) == len(tame["trials"]) + 1
    (chosen,) = [cells for cells in candidates.values() if cells[-1] == "chosen"]
    assert chosen[0] == f"{tame['trials'][tame['chosen']]['validation']['accuracy']:.3f}"
    neurons = page.table("Neurons with the most leverage")
    for neuron in tame["explanation"]["neurons"]:
        assert neurons[f"{neuron['layer']}.{neuron['unit']}"][0] == f"{neuron['pull']:.4f}"
    flips = page.table("Predictions that changed")
    for flip in tame["verdicts"]["test"]["flips"]:
        assert flips[flip["group"]][1].startswith(f"{flip['to_positive']} (")


def test_the_network_is_drawn(tame: dict[str, Any]) -> None:
    """A dot for each hidden neuron; those with the most leverage are named."""
    html = repair_page(tame).decode()
    found = tame["explanation"]
    drawing = next(part for part in html.split("<svg") if "The network, and" in part)
    assert drawing.count('class="hit"') == len(found["neurons"])
    assert drawing.count("h0") == found["hidden"] - len(found["neurons"])
    for neuron in found["neurons"]:
        assert f">{neuron['layer']}.{neuron['unit']}</text>" in drawing
    del (older := copy.deepcopy(tame))["explanation"]["layers"]
    assert "The network, and" not in repair_page(older).decode()


@pytest.mark.parametrize("recipe", ["conflict", "paper"])
def test_paths_of_the_clusters(recipe: str, tame: dict[str, Any], paths: dict[str, Any]) -> None:
    """A line for each synapse in which they differ; counts, make-up and shares in tables."""
    result = copy.deepcopy(tame if recipe == "conflict" else paths)
    one = {"from": "0", "from_unit": 2, "feature": None, "to": "2", "to_unit": 5}
    first = {"from": None, "from_unit": 3, "feature": HOSTILE[0], "to": "0", "to_unit": 1}
    last = {"from": "2", "from_unit": 5, "feature": None, "to": None, "to_unit": 0}
    result["pathways"] = copy.deepcopy(paths["explanation"]) | {
        "layers": {"0": 6, "2": 6},
        "looked_at": {"biased": 70, "benign": 80},
        "drawn_from": 10_000,
        "more_biased": [one | {"biased": 0.5, "benign": 0.25}],
        "more_benign": [
            first | {"biased": 0.1, "benign": 0.9},
            last | {"biased": 0.2, "benign": 0.3},
        ],
    }
    content = repair_page(result)
    page, html = checked(content), content.decode()
    assert html.count('class="link biased"') == 1
    assert html.count('class="link benign"') == 2
    rows = page.table("Synapses in which the clusters differ most")
    assert rows["0.2 → 2.5"] == ["50.0%", "25.0%", "+25.0%"]
    assert rows[f"{HOSTILE[0]} → 0.1"] == ["10.0%", "90.0%", "-80.0%"]
    assert rows["2.5 → output"] == ["20.0%", "30.0%", "-10.0%"]
    assert "biased samples (70 looked at)" in page.text
    assert "of the 10,000 training samples, drawn at random" in page.text
    assert len(page.table("Make-up of the two clusters")) == len(FEW) + 1
    assert any(drawing["title"].startswith("How many samples") for drawing in page.drawings)
    result["pathways"] |= {"more_biased": [], "more_benign": []}
    assert "link" not in {
        c for _, a in Page(repair_page(result)).attributes for c in (a.get("class") or "").split()
    }


def test_paths_that_nobody_shares(tame: dict[str, Any], paths: dict[str, Any]) -> None:
    """A sentence says so, and what to try; there is no plot and no table of clusters."""
    result = copy.deepcopy(tame)
    everybody = [row | {"biased": row["n"], "benign": 0} for row in paths["explanation"]["makeup"]]
    result["pathways"] = copy.deepcopy(paths["explanation"]) | {
        **{"biased_share": 1.0, "makeup": everybody, "drawn_from": 10_000, "paths": 240},
        **{"more_biased": [], "more_benign": [], "looked_at": {"biased": 70, "benign": 0}},
    }
    page = checked(repair_page(result))
    assert "240 paths of synapses, so none of them shares a frequent one" in page.text
    assert "--level units" in page.text
    assert "--similarity" in page.text
    assert "Make-up of the two clusters" not in page.text
    assert not any(drawing["title"].startswith("How many samples") for drawing in page.drawings)


def test_heads_and_long_names(tame: dict[str, Any], paths: dict[str, Any]) -> None:
    """Heads are called so; the drawing has the ends of long names, and no synapses elsewhere."""
    long = "encoder.blocks.layers.0.self_attn.attention"
    result = renamed(tame, "0", long)
    found = result["explanation"]
    found["layers"] = {long if k == "0" else k: n for k, n in tame["explanation"]["layers"].items()}
    found["kinds"] = {long: "head", "2": "feature"}
    synapse = {"from": None, "from_unit": 0, "feature": "a", "to": f"{long}.in_proj", "to_unit": 1}
    result["pathways"] = paths["explanation"] | {
        **{"drawn_from": 10_000, "looked_at": {"biased": 70, "benign": 80}},
        **{"more_biased": [synapse | {"biased": 0.5, "benign": 0.1}], "more_benign": []},
    }
    page, html = checked(repair_page(result)), repair_page(result).decode()
    head = next(n for n in found["neurons"] if n["layer"] == long)
    assert f"head {head['unit']} of {long}" in page.table("Neurons with the most leverage")
    assert f"heads in layer {long}" in page.text
    assert f">…{long[-25:]}</text>" in html
    assert 'class="link' not in html


def test_classes_before_and_after(digits: dict[str, Any]) -> None:
    """A table and a picture of them; nothing of groups that are not there, or of y = 1."""
    page = checked(repair_page(digits))
    rows = page.table("Accuracy: share of the samples of a class")
    changes = digits["verdicts"]["test"]["classes"]
    assert len(changes) == 4
    for change in changes:
        n, before, after, moved = rows[change["class"]]
        assert n == str(change["n"])
        assert before.startswith(f"{change['before']:.3f} (")
        assert after.startswith(f"{change['after']:.3f} (")
        assert moved.startswith(f"{signed(change['after'] - change['before'])} (")
    assert any(one["title"].startswith("Accuracy by class") for one in page.drawings)
    assert not re.search(r"groups by|everybody|Impact ratio|Predictions that changed", page.text)
    assert page.text.count("undefined") == 1
    older = copy.deepcopy(digits)
    for verdict in older["verdicts"].values():
        del verdict["classes"]
    rows = Page(repair_page(older)).table("Accuracy: share of the samples of a class")
    assert rows["0"][-1] == ""


def test_wide_layers_stay_small() -> None:
    """A dot stands for several neurons where a layer has thousands of them."""
    columns = [figures.Column("encoder.layer.0.linear", 5000, range(0, 5000, 3))]
    drawing = figures.network_plot("title", "says", columns)
    assert len(drawing) < 60_000
    assert drawing.count('class="hit"') + drawing.count("h0") <= 513


def test_the_other_recipe(paths: dict[str, Any]) -> None:
    """Make-up of the clusters and the frequency of paths, in figures."""
    page = checked(repair_page(paths))
    rows, found = page.table("Make-up of the two clusters"), paths["explanation"]
    assert len(rows) == len(found["makeup"]) + 1
    for group, cells in zip(found["makeup"], list(rows.values())[1:], strict=True):
        assert cells[:3] == [str(group[key]) for key in ("n", "biased", "benign")]
    assert sum(n * many for n, many in found["frequencies"]) == found["samples"]
    assert sum(many for _, many in found["frequencies"]) == found["paths"]
    assert any("path" in drawing["title"] for drawing in page.drawings)


@pytest.mark.parametrize(("share", "told"), [(0.05, True), (0.5, False), (0.95, True)])
def test_clusters_that_tell_nobody_apart_are_no_finding(
    paths: dict[str, Any], share: float, told: bool
) -> None:
    """Nearly everybody in one of them: the page says that it means little."""
    result = copy.deepcopy(paths)
    result["explanation"]["biased_share"] = share
    assert ("the clusters mean little" in Page(repair_page(result)).text) is told


def test_undefined_metrics_are_said(hopeless: dict[str, Any]) -> None:
    """With the reason, and nowhere as a number."""
    page = checked(repair_page(hopeless))
    for reason in hopeless["before"]["undefined"].values():
        assert re.search(rf"(is|are) undefined: {re.escape(reason)}\.", page.text)
    assert not re.search(r"\bnan\b|\bNone\b", page.text)


def test_original_that_is_kept(tame: dict[str, Any]) -> None:
    """Said in the verdict and in the drawing."""
    page = checked(repair_page(tame | {"chosen": 0}))
    assert "no candidate was better on validation data, so the original is kept" in page.text
    assert "the original, chosen" in page.text


def test_candidates_that_diverged(tame: dict[str, Any]) -> None:
    """Stand in the table with the reason, and are not drawn."""
    result = copy.deepcopy(tame)
    result["trials"][-1] |= {"validation": None, "training": None, "rejected": "diverged"}
    result["trials"][-1]["on_front"] = False
    page = checked(repair_page(result | {"chosen": 0}))
    assert list(page.table("All candidates").values())[-1][-1] == "diverged"


def test_what_got_worse_is_said(tame: dict[str, Any]) -> None:
    """Losses, levelling down, and groups that lost accuracy, each with its figures."""
    result = copy.deepcopy(tame)
    test = result["verdicts"]["test"]
    result["data"]["outcome"] = "favourable"
    test |= {"worse": ["eo"], "levelled_down": ["selection_rate"], "lost_accuracy": ["A"]}
    for change in test["groups"]:
        change["interval"] = [-0.2, -0.1]
    content = repair_page(result)
    text = checked(content).text
    eo = test["changes"]["eo"]
    price = f"equal opportunity difference ({eo['before']:.3f} to {eo['after']:.3f})"
    told = "Levelled down (y = 1 is the favourable outcome)"
    assert f'<p class="lead">Reliably worse: {price}. {told}: selection'.encode() in content
    assert "Equal opportunity difference got reliably worse" in text
    fell = "the selection rate fell, and reliably rose in no group; fell in A"
    assert f"{told}: {fell}" in text
    result["data"]["outcome"] = "harmful"
    harmful = repair_page(result)
    assert f'<p class="lead">Reliably worse: {price}.</p>'.encode() in harmful
    told = "Only lowered, no levelling down (y = 1 is the harmful outcome)"
    assert f"{told}: {fell}" in checked(harmful).text
    assert "Accuracy reliably fell in A (" in text


@pytest.mark.parametrize(
    ("worse", "moved", "outcome", "costs"),
    [
        ([], "levelled_down", "favourable", True),
        ([], "levelled_down", "harmful", False),
        ([], "only_raised", "harmful", True),
        ([], "only_raised", "favourable", False),
        ([], "only_raised", None, False),
        (["eo"], "only_raised", None, True),
    ],
)
def test_a_price_is_a_loss(
    tame: dict[str, Any], worse: list[str], moved: str, outcome: str | None, costs: bool
) -> None:
    """The title says it of what surely got worse for people."""
    result = copy.deepcopy(tame)
    result["data"]["outcome"] = outcome
    test = result["verdicts"]["test"] | {"levelled_down": [], "only_raised": []}
    test |= {"outcome": "improved", "worse": worse, moved: ["selection_rate"]}
    result["verdicts"]["test"] = test
    assert (b"improved, at a price</h1>" in repair_page(result)) == costs


def test_verdicts_that_differ(tame: dict[str, Any]) -> None:
    """It is said which one counts; not where they agree."""
    result = copy.deepcopy(tame)
    for on in ("validation", "test"):
        result["verdicts"][on]["outcome"] = "improved"
    assert "The verdicts differ" not in checked(repair_page(result)).text
    result["verdicts"]["test"]["outcome"] = "limit not met"
    said = which_counts(result)
    assert "improved on validation data, limit not met on test data" in said
    assert "the verdict on test data counts" in said
    assert said in checked(repair_page(result)).text
    assert said in report(result)


def test_the_reference_of_accuracy(tame: dict[str, Any]) -> None:
    """The accuracy of always predicting the most frequent class stands beside it."""
    groups = tame["before"]["groups"]
    n, positive = (sum(group[key] for group in groups) for key in ("n", "positive"))
    expected = f"{max(positive, n - positive) / n:.3f}"
    page = checked(repair_page(tame))
    row = page.table(f"Metrics on test data, n = {n}")[REFERENCE]
    assert row[:2] == [expected, expected]
    assert f"{REFERENCE}: {expected}." in page.text
    assert f"| {REFERENCE} | {expected} | {expected} |  |" in report(tame)


@pytest.mark.parametrize(("accuracy", "told"), [(0.3, True), (0.99, False)])
def test_a_model_that_is_no_better_than_a_constant(
    tame: dict[str, Any], capsys: pytest.CaptureFixture[str], accuracy: float, told: bool
) -> None:
    """It is said wherever the repair is told, whatever its verdict."""
    result = copy.deepcopy(tame)
    result["after"]["metrics"]["accuracy"] = accuracy
    words = "the model is no better than always predicting"
    assert (f"{words} the most frequent class" in price(result)) == told
    assert (words in checked(repair_page(result)).text) == told
    assert (words in report(result)) == told
    assert any(words in caveat for caveat in repair_document(result)["caveats"]) == told
    print_repair(result, Path("R"))
    assert (words in " ".join(capsys.readouterr().out.split())) == told


def test_terminals_have_the_rows_too(
    tame: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each metric that is named, the reference, and which verdict counts."""
    result = copy.deepcopy(tame)
    result["verdicts"]["test"] |= {"worse": ["f1", "mcd"], "outcome": "improved"}
    result["verdicts"]["validation"]["outcome"] = "limit not met"
    print_repair(result, Path("R"))
    printed = capsys.readouterr().out
    rows = [
        line.split()[0] for line in printed.splitlines() if line.startswith(" ") and line.strip()
    ]
    assert {"f1", "mcd", "most"} <= {*rows}
    assert "Most frequent class: the accuracy of always predicting it." in printed
    assert which_counts(result) in " ".join(printed.split())


def test_the_reference_for_several_classes() -> None:
    """It is counted over the classes."""
    classes = [{"n": 5}, {"n": 7}, {"n": 4}]
    assert reference_accuracy({"n": 16, "groups": [], "classes": classes}) == 7 / 16


def test_definitions_conflict(tame: dict[str, Any]) -> None:
    """The groups' shares of y = 1 are given, and what follows; nothing is called fair."""
    text = checked(repair_page(tame)).text
    for group in tame["before"]["groups"]:
        assert f"{group['positive'] / group['n']:.3f} ({group['group']})" in text
    assert "cannot both hold, unless predictions do not depend on y" in text
    assert not re.search(r"\bfair\b", text)


def test_how_to_reproduce(tame: dict[str, Any]) -> None:
    """The command, all versions, and the sums of the user's files."""
    page = checked(repair_page(tame))
    assert command_of(tame) in page.text
    for name, number in tame["versions"].items():
        assert f"{name} {number}" in page.text
    own = copy.deepcopy(tame)
    own["data"]["sha256"] = {"some/loans.csv": "ab" * 32}
    assert checked(repair_page(own)).table("SHA-256")["some/loans.csv"] == ["ab" * 32]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_only_text(name: str, tame: dict[str, Any]) -> None:
    """Groups, columns, layers, data and files of any name are shown and cannot act."""
    result = renamed(tame, "A", name)
    result["data"] |= {
        "name": name,
        "positive_means": name,
        "sensitive": [name],
        "sha256": {name: "0"},
        "inputs": [{"column": name, "type": "number", "categories": 0}],
        "unused": [{"column": name, "why": name}],
    }
    result["explanation"] = renamed(result["explanation"], "0", name)
    result["configuration"]["weights"] = name
    page = checked(repair_page(result))
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    assert shown in page.table("Selection rate: ")
    assert shown in page.table("Columns")
    assert checked(audit_page(audited((name, "B")))).table("Rates of the groups")[shown]


def test_hundreds_of_groups(tame: dict[str, Any]) -> None:
    """The page stays small, and says what it leaves out."""
    result = copy.deepcopy(tame)
    names = [f"group {i} " + "long " * 20 for i in range(500)]
    for side in ("before", "after"):
        row = result[side]["groups"][0]
        result[side]["groups"] = [row | {"group": name} for name in names]
    test = result["verdicts"]["test"]
    test["flips"] = [test["flips"][0] | {"group": name} for name in names]
    page = checked(repair_page(result))
    assert "400 more rows are left out here." in page.text
    assert "470 more groups stand in the table alone." in page.text


def test_the_same_result_gives_the_same_bytes(tame: dict[str, Any], paths: dict[str, Any]) -> None:
    """And is not changed by it."""
    for result in (tame, paths):
        before = copy.deepcopy(result)
        assert repair_page(result) == repair_page(copy.deepcopy(result))
        assert result == before


# Audits


def test_audit_of_several_groups() -> None:
    """Metrics, rates and a drawing of each; the sentence has the gap and the noise floor."""
    found = audited(("A", "B", "C"))
    page = checked(audit_page(found))
    for value in (found["metrics"]["dp"], found["noise_floor"]["dp"]):
        assert f"{value:.3f}" in page.texts[2] + page.text
    rows = page.table("Rates of the groups")
    for group in found["groups"]:
        low, high = group["selection_interval"]
        rate = f"{group['selection_rate']:.3f} ({low:.3f} to {high:.3f})"
        assert rows[group["group"]][:3] == [str(group["n"]), str(group["positive"]), rate]
    assert len(page.drawings) == 4


def test_audit_with_limits() -> None:
    """Whether a limit holds is said at the top."""
    held = {"metric": "dp", "limit": 0.9, "value": 0.1, "interval": None, "reason": None}
    found = audited(TAME) | {"limits": [held | {"holds": True}]}
    text = checked(audit_page(found)).text
    assert "The limit for the demographic parity difference (at most 0.9) holds." in text
    found["limits"] = [held | {"holds": False, "reason": "dp is too large"}]
    assert "(at most 0.9) does not hold." in checked(audit_page(found)).text


def test_audit_on_the_command_line(tmp_path: Path) -> None:
    """--report writes the page; an earlier file needs --overwrite; stdout stays JSON."""
    rng = np.random.default_rng(0)
    rows = {"who": ["a", "b"] * 60, "y": rng.integers(0, 2, 120)}
    rows["prediction"] = np.where(rng.random(120) < 0.8, rows["y"], 1 - rows["y"])
    pd.DataFrame(rows).to_csv(tmp_path / "p.csv", index=False)
    words = ("audit", "--predictions", "p.csv", "--target", "y", "--positive", "1")
    words += ("--sensitive", "who", "--report", "sub/a.html")
    first = command(tmp_path, *words, "--json")
    assert first.code == 0, first.err
    found = json.loads(first.out)
    content = (tmp_path / "sub" / "a.html").read_bytes()
    page = checked(content)
    assert f"{found['metrics']['dp']:.3f}" in page.text
    assert len(page.table("SHA-256")["p.csv"][0]) == 64
    assert (
        "fairneuron audit --predictions p.csv --target y --positive 1 --sensitive who" in page.text
    )
    again = command(tmp_path, *words)
    assert again.code == 2
    assert "output-exists" in again.err
    assert command(tmp_path, *words, "--overwrite").code == 0
    assert (tmp_path / "sub" / "a.html").read_bytes() == content
    alone = command(tmp_path, *words[:-2], "--overwrite")
    assert alone.code == 2
    assert "option-report" in alone.err


# Run folders


def test_choose_writes_it_anew(tmp_path: Path) -> None:
    """A repair has a page, in its manifest; after another choice it is of that one."""
    repaired = command(
        tmp_path, "repair", "--data", "credit", "--hidden", "6", "--epochs", "2", "--out", "R"
    )
    assert repaired.code < 2, repaired.err
    assert "report.html" in json.loads((tmp_path / "R" / "manifest.json").read_text())["sha256"]
    before = (tmp_path / "R" / "report.html").read_bytes()
    assert before == repair_page(json.loads((tmp_path / "R" / "result.json").read_text()))
    assert "at most 0.05" in checked(before).text
    assert command(tmp_path, "choose", "R", "--limit", "dp=0.31").code < 2
    after = (tmp_path / "R" / "report.html").read_bytes()
    assert after == repair_page(json.loads((tmp_path / "R" / "result.json").read_text()))
    assert "at most 0.31" in checked(after).text


# Comparisons


def test_page_of_a_comparison(comparison: fn.Comparison) -> None:
    """A sentence per criterion, an overview, a panel per method, a table per ε; no times."""
    result = comparison.to_dict()
    page = checked(comparison.to_html())
    assert [text for tag, text in page.headings if tag == "h2"] == [
        "Demographic parity difference",
        "Equal opportunity difference",
        "Read this with care",
        "How to reproduce",
    ]
    for criterion in result["criteria"]:
        rows = page.table(f"Accuracy / {criterion['criterion']} on test data")
        for at, place in zip(criterion["at"], range(4), strict=True):
            one = at["methods"]["s"]
            pair = f"{one['accuracy']['mean']:.3f} / {one['gap']['mean']:.3f}"
            assert rows["s"][place] == pair
    assert "aware (sensitive)" in page.text
    assert "seeds are too few for tests" in page.text
    assert result["setup"]["data_sum"] in page.text
    other = json.loads(json.dumps(result))
    for criterion in other["criteria"]:
        for one in criterion["methods"].values():
            one |= {"cost": 99.0, "cpu_cost": 99.0, "seconds": 99.0}
    from fairneuron.compare.html import comparison_page

    assert comparison_page(other) == comparison.to_html()


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_comparisons_are_only_text(name: str, comparison: fn.Comparison) -> None:
    """Data, groups, methods and errors."""
    from fairneuron.compare.html import comparison_page

    result = json.loads(json.dumps(comparison.to_dict()))
    result["setup"] |= {"data": name, "groups": [name], "sensitive": [name], "positive": name}
    for criterion in result["criteria"]:
        criterion["methods"]["aware"]["failed"] = {"1": name}
        for part in (criterion["methods"], *(at["methods"] for at in criterion["at"])):
            part[name] = part.pop("aware")
    checked(comparison_page(result))


# Notebooks


@pytest.mark.parametrize("name", HOSTILE)
def test_notebooks_show_inert_tables(name: str, comparison: fn.Comparison) -> None:
    """Audits, repairs and comparisons are a sentence and tables, whatever the names."""
    data = made((name, "B"), rows=150)
    train, valid, _ = data.split(0)
    model = fn.train_classifier(train, valid, hidden=(4,), seed=0)
    audit = fn.audit(model, data)
    shown = Page(audit._repr_html_().encode())
    assert f" is {audit.metrics['dp']:.3f} (n = {len(data)})" in shown.text
    if name == HOSTILE[0]:
        found = fn.repair(model, train, valid, neuron_share=0.5, stops=0.0)
        shown = Page(found._repr_html_().encode())
        assert f"{found.verdict.changes['dp'].after:.3f}" in shown.text
        shown = Page(comparison._repr_html_().encode())
        for criterion in comparison.to_dict()["criteria"]:
            assert shown.table(f"Accuracy / {criterion['criterion']}")


def test_everything_is_escaped() -> None:
    """Texts and attributes cannot end what they stand in."""
    assert el("p", "<b>", title="\"'>") == '<p title="&quot;&#x27;&gt;">&lt;b&gt;</p>'
    assert el("p", el("b", "a & b"), None, 3) == "<p><b>a &amp; b</b>3</p>"
    assert "\x1b" not in el("p", "\x1b[31m")
    assert "&lt;i&gt;" in table("<i>", ["<i>"], [["<i>", "<i>"]])


# Looks


def style() -> str:
    """The style sheet."""
    return (resources.files("fairneuron.report") / "page.css").read_text()


def luminance(colour: str) -> float:
    """Relative luminance, as in WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", ["light", "dark", "print"])
def test_contrast(mode: str) -> None:
    """At least 4.5 between everything that is read and what is behind it."""
    light, dark, paper = re.findall(r":root \{(.*?)\}", style(), re.DOTALL)
    block = {"light": light, "dark": dark, "print": paper}[mode]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
    read = ["ink", "muted", "before", "after", "limit", *(f"s{i}" for i in range(6))]
    assert set(colours) == {"bg", "panel", "line", *read}
    for behind in ("bg", "panel"):
        for front in read:
            pair = sorted(luminance(colours[name]) + 0.05 for name in (front, behind))
            assert pair[1] / pair[0] >= 4.5, (mode, front, behind)


def test_every_class_has_a_style(tame: dict[str, Any], paths: dict[str, Any]) -> None:
    """No class is drawn without one, so nothing is black on black."""
    known = set(re.findall(r"\.([a-z]+)", style()))
    for content in (repair_page(tame), repair_page(paths), audit_page(audited(TAME))):
        used = {c for _, a in Page(content).attributes for c in (a.get("class") or "").split()}
        assert used <= known


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.25, "+0.250"),
        (-0.0003, "-0.0003"),
        (0.0004, "+0.0004"),
        (-1e-17, "+0.000"),
        (0, "+0.000"),
    ],
)
def test_a_difference_keeps_its_sign(value: float, text: str) -> None:
    """A bound below zero is not shown as one at zero, nor noise of the arithmetic as a bound."""
    assert signed(value) == text
