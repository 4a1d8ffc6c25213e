"""Names from data and files cannot act in anything that is printed or written."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import pickle
import re
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from torch import nn

from tests.every_command import Ran, commands, run_all
from tests.test_html import checked
from tests.test_own_data import loans
from tests.test_privacy import numbers
from tests.test_report import parsed

HOSTILE = (
    "<script>alert(1)</script>",
    "[/x][red]",
    "$_{x}$ \\frac",
    "\x1b[31mred\x1b[0m\x07\x9b",
    "two\nlines\r",
    "=cmd|'/C calc'!A0",
    "`a` | **b** | [c](javascript:1)",
    "\u202eright to left",
    "--> <!-- ]]> &amp;",
    "# title",
    "long" * 60,
)
"""Column names, groups and categories."""
SENSITIVE, TARGET, DATA = HOSTILE[0] + "who", HOSTILE[5] + "label", "@<b>\x1b[31m[red]`|$_{.csv"
LABELS = {"yes": "=1+1|yes", "no": "<i>no</i>\x1b[0m"}
RUN = "<u>[red]`|\x1b[7m\u202e"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All commands on a table of hostile names, in a folder with such a name, with such files."""
    folder = tmp_path_factory.mktemp("injection") / "<b>[x]"
    folder.mkdir()
    rng = np.random.default_rng(5)
    rows = loans(900)
    table = pd.DataFrame(
        {
            TARGET: rows["approved"].map(LABELS),
            SENSITIVE: np.where(rows["sex"] == "male", HOSTILE[2], rng.choice(HOSTILE, 900)),
            "income": rows["income"],
            "job": rng.choice(HOSTILE, 900),
            **{name: rng.normal(size=900).round(3) for name in HOSTILE},
        }
    )
    with contextlib.chdir(folder):
        table.to_csv(DATA, index=False)
        pd.DataFrame({"prediction": table[TARGET]}).to_csv("predictions.csv", index=False)
        Path("weights.pkl").write_bytes(pickle.dumps(nn.Linear(2, 1).state_dict()))
        roles = ("--target", TARGET, "--positive", LABELS["yes"], "--sensitive", SENSITIVE)
        roles += ("--intended-use", " ".join(HOSTILE), "--outcome", "harmful")
        return run_all(folder, commands(DATA, roles, RUN))


def files(ran: Ran, kind: str) -> dict[str, str]:
    """The files of a kind that the commands wrote."""
    paths = [path for path in ran.folder.rglob(f"*{kind}") if path.name != DATA]
    return {str(p.relative_to(ran.folder)): p.read_bytes().decode() for p in paths}


def unsafe(text: str) -> set[str]:
    """Characters that a terminal acts on, but for the end of a line and the tabulator."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")} - {"\n", "\t"}


def test_every_command_runs(ran: Ran) -> None:
    """With names of any kind."""
    failed = {n: o.err[-400:] for n, o in ran.outcomes.items() if o.code > 1 and n != "resume"}
    assert failed == {}


@pytest.mark.parametrize("stream", ["out", "err"])
def test_nothing_acts_on_a_terminal(stream: str, ran: Ran) -> None:
    """No command prints a control character, be it of a name, a label or a path."""
    printed = {name: getattr(outcome, stream) for name, outcome in ran.outcomes.items()}
    found = {name: sorted(unsafe(text)) for name, text in printed.items() if unsafe(text)}
    assert found == {}


def test_names_are_printed_as_they_are(ran: Ran) -> None:
    """Markup for terminals in names is text."""
    for name in ("audit", "paths"):
        shown = re.sub(r"\s", "", ran.outcomes[name].out)
        assert "[/x][red]" in shown, name
        assert "<script>alert(1)</script>" in shown, name


def test_json_has_the_names(ran: Ran) -> None:
    """JSON is whole, in files and where it is printed, and the names come back as they were."""
    found = files(ran, ".json") | {
        name: outcome.out for name, outcome in ran.outcomes.items() if name.endswith("JSON")
    }
    assert len(found) > 8
    for text in found.values():
        json.loads(text)
    audited = json.loads(ran.outcomes["audit in JSON"].out)
    assert {group["group"] for group in audited["groups"]} == set(HOSTILE)


def test_markdown_is_tables_and_text(ran: Ran) -> None:
    """Pages and reports have no HTML, links or images, and tables keep their columns."""
    pages = files(ran, ".md")
    assert len(pages) == 4
    for name, text in pages.items():
        tokens = parsed(text)
        inline = {child.type for token in tokens for child in token.children or ()}
        assert not {token.type for token in tokens} & {"html_block"}, name
        assert not inline & {"html_inline", "link_open", "image"}, name
        assert not unsafe(text), name
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            lines = [re.sub(r"\\.", "", line) for line in block.splitlines()]
            assert len({line.count("|") for line in lines}) == 1, (name, block)


def test_html_is_inert(ran: Ran) -> None:
    """Reports have no scripts, references and unknown elements, and show the names as text."""
    reports = files(ran, ".html")
    assert len(reports) == 4
    for name, text in reports.items():
        assert not unsafe(text), name
        assert "[/x][red]" in checked(text.encode()).text, name


def test_plots_are_drawings_alone(ran: Ran) -> None:
    """An SVG file is XML without scripts, foreign elements, handlers and references elsewhere."""
    plots = files(ran, ".svg")
    assert len(plots) >= 2
    for name, text in plots.items():
        assert not unsafe(text), name
        for element in ElementTree.fromstring(text).iter():  # noqa: S314  # our own file
            space, _, tag = str(element.tag).rpartition("}")
            assert space.lstrip("{") in SPACES, (name, element.tag)
            assert tag.lower() not in {"script", "foreignobject", "iframe", "image", "a"}, name
            for key, value in element.attrib.items():
                assert not key.rpartition("}")[2].lower().startswith("on"), (name, key)
                if "href" in key or "url(" in value:
                    assert value.startswith(("#", "url(#")), (name, key, value)


SPACES = (
    "http://www.w3.org/2000/svg",
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "http://creativecommons.org/ns#",
    "http://purl.org/dc/elements/1.1/",
)


def test_a_gate_says_names_as_text(ran: Ran) -> None:
    """JUnit is well-formed and has the names; workflow commands are ours, a line each."""
    (report,) = files(ran, ".xml").values()
    assert not unsafe(report)
    failures = [*ElementTree.fromstring(report).iter("failure")]  # noqa: S314  # our own file
    lines = ran.outcomes["audit as a gate"].out.splitlines()
    assert lines[0].startswith("::stop-commands::")
    again = lines.index(f"::{lines[0].removeprefix('::stop-commands::')}::")
    commands_of_github = lines[again + 1 :]
    assert len(failures) == len(commands_of_github) > 0
    for failure, line in zip(failures, commands_of_github, strict=True):
        assert line.startswith("::error title=fairneuron audit%3A dp")
        assert f"violated: {failure.text}" in lines


def test_csv_has_no_formulas(ran: Ran) -> None:
    """No cell of a table that is written begins as a formula does, but for numbers."""
    tables = {name: text for name, text in files(ran, ".csv").items() if "predictions" not in name}
    assert set(tables) == {f"{RUN}-predicted.csv", f"{RUN}-credit.csv"}
    for name, text in tables.items():
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        formulas = {c for c in cells if c.startswith(("=", "+", "-", "@", "\t", "\r"))}
        assert not {c for c in formulas if not numbers(c.encode())}, name
    assert "'=1+1|yes" in tables[f"{RUN}-predicted.csv"]


def test_only_these_files_are_written(ran: Ran) -> None:
    """Names from the data are in no name of a file."""
    names = {path.name for path in ran.folder.rglob("*") if path.is_file()}
    own = {name.removeprefix(RUN) for name in names - {DATA}}
    assert [name for name in own if not re.fullmatch(r"[\w.-]+", name)] == []
