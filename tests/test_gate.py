"""Limits of an audit: exit codes, what is said, JUnit, annotations, JSON."""

from __future__ import annotations

import json
import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairneuron.audit import Audit
from fairneuron.errors import FairNeuronError
from fairneuron.gate import annotation, compare_limits, escaped, is_junit, junit
from tests.test_cli import Outcome, call, weights  # noqa: F401  # fixtures

Call = Callable[..., Outcome]
PEOPLE = ("audit", "--predictions", "p.csv", "--target", "label", "--sensitive", "sex")
HOSTILE = (
    "a\n::stop-commands::x",
    "b%0A::error::c, d: e",
    "<![CDATA[ ]]> & \"'>\x1b[31m\x00\ufffe",
    "##[stop-commands]y",
)


def audited(counts: object, names: tuple[str, ...] = ("A", "B")) -> dict[str, Any]:
    """An audit of counts (groups, y, predicted), as a dict."""
    levels = tuple((name,) for name in names)
    return Audit(np.array(counts), None, names, levels, ("sex",)).to_dict()


GAP = [[[6, 4], [5, 5]], [[2, 8], [1, 9]]]  # selected 9/20 and 17/20; TPR .5, .9; FPR .4, .8


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The same people as rows."""
    cells = [(g, y, p) for g in (0, 1) for y in (0, 1) for p in (0, 1)]
    rows = [(("A", "B")[g], y, p) for g, y, p in cells for _ in range(GAP[g][y][p])]
    path = tmp_path / "p.csv"
    pd.DataFrame(rows, columns=["sex", "label", "prediction"]).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("metric", "limit", "holds", "said"),
    [
        ("dp", 0.4, True, ""),  # 17/20 - 9/20, up to rounding
        ("dp", 0.39, False, "selection rate 0.450 of 'A' (n = 20) and 0.850 of 'B' (n = 20)"),
        ("dpr", 0.52, True, ""),  # 9/17 = .529
        ("dpr", 0.8, False, "limit at least 0.8; n = 40; selection rate 0.450 of 'A' (n = 20)"),
        ("eo", 0.4, True, ""),
        ("eo", 0.05, False, "eo is 0.400"),
        ("eo", 0.05, False, "limit at most 0.05; n = 40; TPR 0.500 of 'A' (n = 10) and 0.900"),
        ("eodds", 0.1, False, "of 'B' (n = 10)"),
    ],
)
def test_limits_by_hand(metric: str, limit: float, holds: bool, said: str) -> None:
    """A limit holds up to rounding; otherwise the sentence has value, limit, n and groups."""
    (held,) = compare_limits(audited(GAP), {metric: limit})
    assert held.holds is holds
    assert (held.reason is None) is holds
    assert said in (held.reason or "")


def test_a_gap_between_classes_is_told_of_classes() -> None:
    """Not of groups, which it does not compare; of two classes by its value alone."""
    (two,) = compare_limits(audited(GAP), {"mcd": 0.05})  # 8/20 and 14/20
    assert re.fullmatch(r"mcd is 0\.300 \(.*\), limit at most 0\.05; n = 40", two.reason or "")
    three = [[[4, 0, 0], [2, 2, 0], [1, 0, 3]], [[4, 0, 0], [4, 0, 0], [0, 0, 4]]]
    (held,) = compare_limits(audited(three), {"mcd": 0.5})  # 8/8, 2/8, 7/8
    said = "n = 24; accuracy 0.250 of class '1' (n = 8) and 1.000 of class '0' (n = 8)"
    assert (held.reason or "").endswith(said)
    assert compare_limits(audited(three), {"mcd": 0.75})[0].holds


def test_fpr_where_it_is_the_larger_gap() -> None:
    """Equalised odds name the rate that is farther apart, and the people it is a share of."""
    counts = [[[9, 1], [5, 5]], [[2, 18], [5, 5]]]
    (held,) = compare_limits(audited(counts), {"eodds": 0.1})
    assert held.reason is not None
    assert held.reason.endswith("FPR 0.100 of 'A' (n = 10) and 0.900 of 'B' (n = 20)")


def test_the_interval_is_that_of_the_audit() -> None:
    """The sentence and the dict have it."""
    found = audited(GAP)
    (held,) = compare_limits(found, {"dp": 0.1})
    low, high = found["intervals"]["dp"]
    assert f"(95 % interval {low:.3f} to {high:.3f})" in str(held.reason)
    assert held.to_dict() == {
        "metric": "dp",
        "limit": 0.1,
        "value": found["metrics"]["dp"],
        "interval": [low, high],
        "holds": False,
        "reason": held.reason,
    }


def test_a_value_just_beyond_is_not_rounded_into_the_limit() -> None:
    """.0501 is not shown as 0.050 beside a limit of .05."""
    counts = [[[5000, 0], [5000, 0]], [[4750, 250], [4749, 251]]]
    (held,) = compare_limits(audited(counts), {"dp": 0.05})
    assert "dp is 0.0501" in str(held.reason)


def test_an_undefined_metric_is_a_violation_that_says_why() -> None:
    """Nobody is predicted positive: no ratio."""
    none = [[[6, 0], [4, 0]], [[3, 0], [7, 0]]]
    dp, dpr = compare_limits(audited(none), {"dp": 0.05, "dpr": 0.8})
    assert dp.holds
    assert (dpr.holds, dpr.value, dpr.interval) == (False, None, None)
    assert dpr.reason == (
        "dpr is undefined: no positive predictions; limit at least 0.8; n = 20; "
        "'A' (n = 10); 'B' (n = 10)"
    )


def test_many_groups_are_not_all_listed() -> None:
    """The line stays a line."""
    names = tuple(f"g{i}" for i in range(30))
    (held,) = compare_limits(audited([[[2, 0], [1, 0]]] * 30, names), {"dpr": 0.8})
    assert str(held.reason).endswith("'g9' (n = 3) and 20 more groups")


def test_unknown_people_play_no_part() -> None:
    """They are neither counted nor named."""
    (held,) = compare_limits(
        audited([*GAP, [[0, 50], [0, 50]]], ("A", "B", "unknown")), {"dp": 0.1}
    )
    assert "n = 40;" in str(held.reason)
    assert "unknown" not in str(held.reason)


def test_hostile_names_stay_names() -> None:
    """One line each; well-formed XML; no workflow command but ours."""
    held = compare_limits(audited([GAP[0], GAP[1]] * 2, HOSTILE), {"dp": 0.1, "dpr": 0.9})
    for one in held:
        assert len(str(one.reason).splitlines()) == 1
        command = annotation(one)
        assert len(command.splitlines()) == 1
        head, _, message = command.removeprefix("::error ").partition("::")
        assert head == f"title=fairneuron audit%3A {one.title}"
        assert unescaped(message) == one.reason
    root = ET.fromstring(junit(held, HOSTILE[2]))  # noqa: S314  # our own
    found = [case.find("failure") for case in root.iter("testcase")]
    assert [None if f is None else f.text for f in found] == [one.reason for one in held]


def unescaped(text: str) -> str:
    """What GitHub's runner makes of a message."""
    for short, long in (("\r", "%0D"), ("\n", "%0A"), ("%", "%25")):
        text = text.replace(long, short)
    return text


def test_escapes_are_githubs() -> None:
    """Per cent and ends of lines in a message; colons and commas in a property too."""
    assert escaped("5 %: a,\r\nb%0A") == "5 %25: a,%0D%0Ab%250A"
    assert escaped("5 %: a,\r\nb", inside=True) == "5 %25%3A a%2C%0D%0Ab"


def test_junit_counts() -> None:
    """A test case per limit, a failure per violation."""
    content = junit(compare_limits(audited(GAP), {"dp": 0.1, "eo": 1.0, "dpr": 0.9}), "mine")
    assert is_junit(content)
    root = ET.fromstring(content)  # noqa: S314  # our own
    (suite,) = root
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures")) == ("3", "2")
    assert suite.get("name") == "mine"
    assert [case.get("name") for case in suite] == [
        "dp at most 0.1",
        "eo at most 1",
        "dpr at least 0.9",
    ]
    assert [len(case) for case in suite] == [1, 0, 1]


# The command


@pytest.mark.usefixtures("table")
def test_exit_codes(call: Call) -> None:  # noqa: F811
    """0 without limits and where all hold, 1 where one does not; a line for each."""
    assert call(*PEOPLE).code == 0
    held = call(*PEOPLE, "--limit", "dp=0.4", "--limit", "eodds=0.5")
    assert (held.code, "violated" in held.out) == (0, False)
    broken = call(*PEOPLE, "--limit", "dp=0.1", "--limit", "eo=0.5", "--limit", "dpr=0.9")
    assert broken.code == 1
    lines = [line for line in broken.out.splitlines() if line.startswith("violated: ")]
    assert [line.split()[1] for line in lines] == ["dp", "dpr"]
    assert "::error" not in broken.out


@pytest.mark.usefixtures("table")
def test_json_has_the_limits(call: Call) -> None:  # noqa: F811
    """Stdout is JSON and nothing else; annotations go to stderr."""
    words = ("--limit", "dp=0.1", "--limit", "eo=0.5", "--json", "--annotations")
    done = call(*PEOPLE, *words)
    assert done.code == 1
    found = json.loads(done.out)
    assert [(one["metric"], one["holds"]) for one in found["limits"]] == [
        ("dp", False),
        ("eo", True),
    ]
    assert found["limits"][1]["reason"] is None
    assert found["limits"][0]["value"] == found["metrics"]["dp"]
    lines = done.err.splitlines()
    assert lines[0].startswith("::stop-commands::")
    assert [line.startswith("::error ") for line in lines[-2:]] == [False, True]
    assert "::error" not in done.out
    assert "limits" not in json.loads(call(*PEOPLE, "--json").out)


def test_a_network(call: Call, weights: Path) -> None:  # noqa: F811
    """The gate is the same for networks; an untrained one selects all or nobody."""
    words = ("audit", "--data", "credit", "--weights", weights, "--json")
    assert call(*words, "--limit", "dp=1").code == 0
    found = json.loads(call(*words, "--limit", "dp=0").out)
    assert found["limits"][0]["holds"] is (found["metrics"]["dp"] == 0)


def test_hostile_groups_of_a_table(call: Call, table: Path, tmp_path: Path) -> None:  # noqa: F811
    """GitHub reads no command but ours: names are printed in a part that it is told to skip."""
    frame = pd.read_csv(table)
    frame["sex"] = frame["sex"].map({"A": "::stop-commands::x", "B": 'y%0A<&">::error::z'})
    frame.to_csv(table, index=False)
    words = (*PEOPLE, "--limit", "dp=0.1", "--annotations", "--junit", "out/j.xml")
    done = call(*words)
    assert done.code == 1
    lines = done.out.splitlines()
    token = lines[0].removeprefix("::stop-commands::")
    assert re.fullmatch("[0-9a-f]{32}", token)
    assert token not in call(*words).out
    (last,) = lines[lines.index(f"::{token}::") + 1 :]
    assert last.startswith("::error title=fairneuron audit%3A dp at most 0.1::dp is 0.400 (95 %25")
    assert "y%250A<&" in last
    assert sum("::stop-commands::x" in line for line in lines) == 3  # table, line, annotation
    root = ET.parse(tmp_path / "out" / "j.xml").getroot()  # noqa: S314  # our own
    failure = root.find(".//failure")
    assert failure is not None
    assert 'y%0A<&">::error::z' in failure.attrib["message"]


def test_junit_replaces_its_own_file_alone(call: Call, table: Path, tmp_path: Path) -> None:  # noqa: F811
    """A second run does; a file of others is refused before any work, and stays."""
    words = (*PEOPLE, "--limit", "dp=0.1", "--junit")
    assert call(*words, "j.xml").code == 1
    assert call(*PEOPLE, "--limit", "dp=1", "--junit", "j.xml").code == 0
    assert ET.parse(tmp_path / "j.xml").getroot().get("failures") == "0"  # noqa: S314  # our own
    before = table.read_bytes()
    refused = call(*words, "p.csv")
    assert (refused.code, "[output-exists]" in refused.err) == (2, True)
    assert table.read_bytes() == before
    (tmp_path / "link.xml").symlink_to("j.xml")
    assert call(*words, "link.xml").code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j.xml", "link.xml", "p.csv"]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    "words",
    [
        ("--junit", "j.xml"),
        ("--annotations",),
        ("--limit", "dp"),
        ("--limit", "dp=2"),
        ("--limit", "accuracy=0.5"),
        ("--limit", "dp=0.1", "--limit", "dp=0.2"),
    ],
)
def test_refusals(call: Call, words: tuple[str, ...], tmp_path: Path) -> None:  # noqa: F811
    """What is no limit, or a gate without one, is bad input."""
    done = call(*PEOPLE, *words)
    assert done.code == 2
    assert "error[option-limit]" in done.err
    assert not (tmp_path / "j.xml").exists()


def test_the_step_of_the_docs_runs(call: Call, table: Path, tmp_path: Path) -> None:  # noqa: F811
    """As in the example, on a table with its columns."""
    page = (Path(__file__).parents[1] / "docs" / "ci.md").read_text(encoding="utf-8")
    step = re.search(r"run: >\n((?:    .*\n)+)", page)
    assert step is not None
    frame = pd.read_csv(table)
    frame["approved"] = frame.pop("label").map({0: "no", 1: "yes"})
    frame["prediction"] = frame["prediction"].map({0: "no", 1: "yes"})
    frame.to_csv(tmp_path / "predictions.csv", index=False)
    done = call(*shlex.split(step[1])[1:])
    assert done.code == 1
    assert is_junit((tmp_path / "fairness.xml").read_bytes())


def test_forms_of_a_gate_without_a_limit_are_our_errors() -> None:
    """As all others."""
    from fairneuron.commands.gating import Gate

    with pytest.raises(FairNeuronError, match="tells how limits hold"):
        Gate.asked([], None, annotations=True, as_json=False)
