"""The page of the front: one script of ours, data that cannot act, and all of it in tables too."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import fairneuron as fn
from fairneuron.compare.front import comparison_front
from fairneuron.report.figures.board import WIDTH
from fairneuron.report.front import front_page
from fairneuron.report.interactive import data_block
from tests import test_html
from tests.fuzzing import command
from tests.test_compare import Shifted, compare, shifted
from tests.test_report import HOSTILE

QUICK = ("repair", "--data", "credit", "--hidden", "6", "--epochs", "2", "--limit", "dp=0.05")
SCRIPTS = re.compile(r"<script.*?</script>", re.DOTALL)


class FrontPage(test_html.Page):
    """A page without its scripts."""

    known_tags = test_html.TAGS | {"button", "g", "strong"}
    known_attributes = test_html.ATTRIBUTES | {
        *("type", "aria-pressed", "aria-hidden", "hidden", "data-series", "data-spot"),
    }


def points_of(content: bytes) -> list[list[dict[str, Any]]]:
    """The data that the script reads."""
    block = re.search(
        r'<script type="application/json" id="points">(.*?)</script>', content.decode()
    )
    assert block is not None
    found: list[list[dict[str, Any]]] = json.loads(block[1])
    return found


def checked(content: bytes) -> FrontPage:
    """The page without its scripts, if those are ours and nothing else can act."""
    html = content.decode()
    data, script = SCRIPTS.findall(html)
    assert data.startswith('<script type="application/json" id="points">')
    own = script.removeprefix("<script>").removesuffix("</script>")
    total = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', html)
    assert policy is not None
    assert policy[1].replace("&#x27;", "'") == (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{total}'"
    )
    assert not re.search(r"://|fetch|import|eval|innerHTML|XMLHttp", own)
    assert len(content) < test_html.LARGEST
    return FrontPage(SCRIPTS.sub("", html).encode())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a repair with the page."""
    folder = tmp_path_factory.mktemp("front")
    done = command(folder, *QUICK, "--interactive", "--out", "R")
    assert done.code < 2, done.err
    assert f"Front: {Path('R', 'front.html')}" in done.out
    return folder / "R"


def read(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Result and proofs of a run folder."""
    return tuple(json.loads((run / n).read_text()) for n in ("result.json", "front.json"))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def comparison() -> fn.Comparison:
    """A comparison with methods of both kinds."""
    methods = {"naive": "naive", "s": shifted, "aware": lambda _: Shifted(aware=True)}
    return compare(methods=methods, seeds=3, criteria=["dp", "eo"], reference="s")


def test_candidates_are_told_by_validation_data(run: Path) -> None:
    """Each with its settings, accuracy and gap; test figures are points of their own."""
    result, proofs = read(run)
    content = front_page(result, proofs)
    assert (run / "front.html").read_bytes() == content
    page, (points,) = checked(content), points_of(content)
    usable = [t for t in result["trials"] if not t["rejected"]]
    named = {p["name"]: dict(p["facts"]) for p in points}
    for trial in usable:
        name = f"Candidate {trial['number']}" if trial["number"] else "The original"
        facts = named.pop(name)
        accuracy = f"{trial['validation']['accuracy']:.3f} ("
        assert facts["accuracy, validation data"].startswith(accuracy)
        assert facts["dp, validation data"] == f"{trial['validation']['dp']:.3f}"
        assert not [term for term in facts if "test" in term]
        assert ("choice" in facts) == (trial["number"] == result["chosen"])
    assert len(named) == len(proofs)
    for name, facts in named.items():
        number = re.match(r"Candidate (\d+)|The original", name)
        assert number is not None
        after = proofs[number[1] or "0"]["after"]
        low, high = after["intervals"]["dp"]
        assert facts["dp, test data"] == f"{after['metrics']['dp']:.3f} ({low:.3f} to {high:.3f})"
    rows = page.table("Candidates: ")
    assert len(rows) == len(result["trials"]) + 1
    drawing = content.decode().split("<svg")[-1]
    assert drawing.count('class="spot off"') == len(proofs)  # test data, hidden at first
    assert drawing.count('class="spot"') == len(usable)
    assert "limit ≤ 0.05" in drawing
    assert "noise floor, validation data" in drawing


LINES = re.compile(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="[\d.]+" y2="([\d.]+)" class="tick')
TEXTS = re.compile(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>')


def test_nothing_crosses_what_lines_are_called(run: Path, comparison: fn.Comparison) -> None:
    """Their words stand in rows above the plane, apart from each other and inside the drawing."""
    result, proofs = read(run)
    for content in (front_page(result, proofs), comparison_front(comparison.to_dict())):
        for drawing in re.findall(r"<svg.*?</svg>", content.decode(), re.DOTALL):
            lines = [tuple(map(float, found)) for found in LINES.findall(drawing)]
            if not lines:  # of a button
                continue
            long = [line for line in lines if line[2] - line[1] > 100]
            words = [(float(x), float(y), said) for x, y, said in TEXTS.findall(drawing)]
            words = [w for w in words if re.match(r"limit|noise floor|ε = ", w[2])]
            assert len(long) >= len(words) == len(lines) - len(long) > 0
            assert max(y for _, y, _ in words) < min(line[1] for line in long)
            numbers = [float(y) for y in re.findall(r'y="([\d.]+)"[^>]*class="muted"', drawing)]
            across = max(numbers)  # those of the x axis stand below those of the y axis
            assert across - max(y for y in numbers if y < across) >= 16
            for x, _, said in words:
                assert x + 8 * len(said) <= WIDTH
            for (x, y, said), (other, row, _) in itertools.pairwise(words):
                assert row >= y + 16 or (row == y and other > x + 8 * len(said))


def test_lines_that_look_alike_are_told_together(comparison: fn.Comparison) -> None:
    """The bounds of a comparison are one entry of the legend."""
    at = [figures["epsilon"] for figures in comparison.to_dict()["criteria"][0]["at"]]
    assert (
        f"ε = {', '.join(f'{e:g}' for e in at)}<" in comparison_front(comparison.to_dict()).decode()
    )


def test_methods_are_told(comparison: fn.Comparison) -> None:
    """A button for each, which says what reads the sensitive attribute; figures and seeds."""
    content = comparison_front(result := comparison.to_dict())
    page, views = checked(content), points_of(content)
    assert len(views) == len(result["criteria"]) == 2
    assert "aware (sensitive)" in page.text
    for figures, points in zip(result["criteria"], views, strict=True):
        at = figures["at"][-1]["methods"]["s"]
        told = [dict(p["facts"]) for p in points if re.match(r"s, .*0\.1$", p["name"])]
        (facts,) = told
        name = figures["criterion"]
        assert facts["accuracy, test data"].startswith(f"{at['accuracy']['mean']:.3f}")
        assert facts[f"{name}, validation data"] == f"{at['validation']['gap']:.3f}"
        assert facts["seeds"] == "3"


@pytest.mark.parametrize("name", HOSTILE)
def test_names_cannot_act(name: str, run: Path, comparison: fn.Comparison) -> None:
    """Whatever data, settings and methods are called."""
    result, proofs = read(run)
    result["data"]["name"] = name
    for trial in result["trials"]:
        trial["settings"] = {name: 1.0, **trial["settings"]}
    checked(front_page(result, proofs))
    other = json.loads(json.dumps(comparison.to_dict()))
    other["setup"]["data"] = name
    for figures in other["criteria"]:
        for part in (figures["methods"], *(at["methods"] for at in figures["at"])):
            part[name] = part.pop("aware")
    content = comparison_front(other)
    checked(content)
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    assert any(p["name"].startswith(f"{shown} (sensitive), ") for p in points_of(content)[0])


def test_data_cannot_end_their_element() -> None:
    """Nothing in the block is markup, and it reads as what it was made of."""
    value = ["</script><script>alert(1)</script>", "<!--", "&lt;", "\u2028", '"', "é"]
    block = data_block(value)
    inside = block.removeprefix('<script type="application/json" id="points">')
    inside = inside.removesuffix("</script>")
    assert not set("<>&\u2028") & set(inside)
    assert inside.isascii()
    assert json.loads(inside) == value


def test_choosing_anew(run: Path, tmp_path: Path) -> None:
    """A page that is there is made anew; --interactive makes one."""
    shutil.copytree(run, tmp_path / "R")
    assert command(tmp_path, "choose", "R", "--limit", "dp=0.31").code < 2
    again = (tmp_path / "R" / "front.html").read_text()
    assert "limit ≤ 0.31" in again
    assert again == front_page(*read(tmp_path / "R")).decode()
    done = command(tmp_path, *QUICK, "--out", "S")
    assert done.code < 2, done.err
    assert not (tmp_path / "S" / "front.html").exists()
    assert command(tmp_path, "choose", "S", "--limit", "dp=0.3").code < 2
    assert not (tmp_path / "S" / "front.html").exists()
    assert command(tmp_path, "choose", "S", "--limit", "dp=0.31", "--interactive").code < 2
    assert "front.html" in json.loads((tmp_path / "S" / "manifest.json").read_text())["sha256"]
    assert (tmp_path / "S" / "front.html").read_text() == again


def test_resume_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    """A repair that was stopped goes on to the same page."""
    with monkeypatch.context() as patch:
        patch.setattr("fairneuron.runs.Run.write", stopped)
        assert command(tmp_path, *QUICK, "--interactive", "--out", "R").code == 130
    done = command(tmp_path, "resume", "R")
    assert done.code < 2, done.err
    assert (tmp_path / "R" / "front.html").read_bytes() == (run / "front.html").read_bytes()


def stopped(*_: Any, **__: Any) -> None:
    """As by Ctrl-C."""
    raise KeyboardInterrupt


def test_comparisons_write_it(comparison: fn.Comparison, tmp_path: Path) -> None:
    """If asked; one that is there stays up to date."""
    comparison.write(tmp_path / "C", plots=False)
    assert not (tmp_path / "C" / "front.html").exists()
    comparison.write(tmp_path / "C", plots=False, interactive=True)
    wanted = comparison_front(comparison.to_dict())
    assert (tmp_path / "C" / "front.html").read_bytes() == wanted
    (tmp_path / "C" / "front.html").write_text("an old one")
    comparison.write(tmp_path / "C", plots=False)
    assert (tmp_path / "C" / "front.html").read_bytes() == wanted


def test_nothing_to_show(run: Path) -> None:
    """Candidates that all diverged, or have no gap, leave a page without a drawing."""
    result, proofs = read(run)
    for trial in result["trials"]:
        trial |= {"validation": None, "rejected": "diverged"}
    assert points_of(front_page(result | {"chosen": 0}, proofs)) == []
