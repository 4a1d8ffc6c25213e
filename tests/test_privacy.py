"""Nothing of a single row is written or said, and nothing is sent anywhere."""

from __future__ import annotations

import contextlib
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch import nn

from tests.every_command import Ran, commands, run_all
from tests.fuzzing import command
from tests.test_cli import groups_and_commands
from tests.test_own_data import loans

ROWS = 300
ROLES = ("--target", "approved", "--positive", "yes", "--sensitive", "sex,race", "--drop", "secret")
SHOWS_ROWS = {"predict", "data show"}  # of them it is asked
ON_THE_NETWORK = {("data", "get")}


def table() -> pd.DataFrame:
    """A table in which every row can be told by each of four columns."""
    rng = np.random.default_rng(7)
    rows = range(ROWS)
    return loans(ROWS).assign(
        name=[f"Zq{i}name" for i in rows],  # texts of one row each: no input
        secret=[f"Zq{i}secret" for i in rows],  # dropped
        number=[4_100_003 + 97 * i for i in rows],  # an input
        income=lambda t: (t["income"] + rng.random(ROWS)).round(9),  # an input
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All commands on that table, without a network."""
    folder = tmp_path_factory.mktemp("privacy") / "here"
    folder.mkdir()
    with contextlib.chdir(folder):
        rows = table()
        rows.to_csv("loans.csv", index=False)
        score = np.random.default_rng(3).random(ROWS).round(9)
        labels = np.where(score > 0.5, "yes", "no")
        pd.DataFrame({"prediction": labels, "score": score}).to_csv("predictions.csv", index=False)
        Path("weights.pkl").write_bytes(pickle.dumps(nn.Linear(2, 1).state_dict()))
        return run_all(folder, commands("loans.csv", ROLES))


def written(ran: Ran) -> dict[str, bytes]:
    """All that the commands wrote and said, but for what is asked of rows."""
    given = {"loans.csv", "predictions.csv", "weights.pkl", "R-credit.csv", "R-predicted.csv"}
    paths = [path for path in ran.folder.rglob("*") if path.is_file() and path.name not in given]
    found = {str(path.relative_to(ran.folder)): path.read_bytes() for path in paths}
    for name, outcome in ran.outcomes.items():
        if name not in SHOWS_ROWS:
            found[f"{name}: stdout"] = outcome.out.encode()
        found[f"{name}: stderr"] = outcome.err.encode()
    return found


def test_every_command_runs(ran: Ran) -> None:
    """All of them do what they are asked; none is missing."""
    codes = {name: outcome.code for name, outcome in ran.outcomes.items()}
    assert [f"{name}: {ran.outcomes[name].err[-300:]}" for name in codes if codes[name] > 1] == [
        f"resume: {ran.outcomes['resume'].err[-300:]}"  # nothing was stopped
    ]
    leaves = {words for words in groups_and_commands() if words not in {(), ("data",)}}
    asked = {tuple(name.split(",")[0].split(" in ")[0].split()) for name in codes}
    assert leaves - ON_THE_NETWORK <= asked


def test_no_text_of_a_row(ran: Ran) -> None:
    """Neither in a file nor in what is printed."""
    assert [place for place, content in written(ran).items() if b"Zq" in content] == []
    assert b"Zq" in ran.outcomes["data show"].out.encode()  # they are in the table


def test_no_number_of_a_row(ran: Ran) -> None:
    """Neither as text nor as a float, be it an input of the network or its score for the row."""
    rows = table()
    predicted = pd.read_csv(ran.folder / "R-predicted.csv")["score"]
    given = pd.read_csv(ran.folder / "predictions.csv")["score"]
    assert predicted.nunique() > ROWS / 2
    marks = {float(v) for v in (*rows["number"], *rows["income"], *predicted, *given)}
    packed = [struct.pack(f"<{kind}", v) for v in marks for kind in "fd"]
    for place, content in written(ran).items():
        if place.endswith(".safetensors"):
            assert not any(mark in content for mark in packed), place
        elif not place.endswith(".svg"):
            assert not numbers(content) & marks, (place, sorted(numbers(content) & marks)[:3])
    assert numbers(ran.outcomes["data show"].out.encode()) & marks  # they would be found


def numbers(content: bytes) -> set[float]:
    """All numbers in a text."""
    return {float(number) for number in re.findall(r"\d+\.?\d*(?:e-?\d+)?", content.decode())}


def test_nothing_is_left_in_temporary_folders(ran: Ran) -> None:
    """Not by convert either, which needs one."""
    assert ran.temporary == []


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("number", "Zq7wrong", 1),  # a text among numbers
        ("number", [f"Zq{i}x" if i < 5 else "1" for i in range(ROWS)], 3),
        ("approved", "Zq7label", 1),  # a third label
        ("income", "Zq7wrong,1", 1),
        ("sex", [f"Zq{i}sex" for i in range(ROWS)], 0),  # a group per row
        ("income", [""] * 7 + ["inf"] + ["1"] * 292, 0),
    ],
)
def test_errors_show_the_bad_value_alone(
    column: str, value: object, shown: int, tmp_path: Path
) -> None:
    """Up to three values that broke the rule are in the message to whoever gave the file."""
    rows = table().astype({column: object})
    if isinstance(value, str):
        rows.loc[7, column] = value
    else:
        rows[column] = value
    rows.to_csv(tmp_path / "loans.csv", index=False)
    outcome = command(tmp_path, "audit", "--data", "loans.csv", *ROLES, "--hidden", "6")
    assert (outcome.code, outcome.out) == (2, "")
    assert re.findall(r"Zq\w+", outcome.err) == re.findall(r"Zq\w+", str(value))[:shown]
    assert not re.search(r"41\d{5}", outcome.err)
    assert [path.name for path in tmp_path.iterdir()] == ["loans.csv"]


def test_errors_in_new_rows_show_the_bad_value_alone(ran: Ran, tmp_path: Path) -> None:
    """Likewise for predictions."""
    rows = table().astype({"number": object})
    rows.loc[7, "number"], rows.loc[9, "job"] = "Zq7wrong", "Zq9job"
    rows.to_csv(tmp_path / "new.csv", index=False)
    outcome = command(tmp_path, "predict", ran.folder / "R", "new.csv")
    assert (outcome.code, outcome.out) == (2, "")
    assert sorted(re.findall(r"Zq\w+", outcome.err)) == ["Zq7wrong", "Zq9job"]


# The network


def test_no_command_asks_for_the_network(ran: Ran) -> None:
    """All work without one; none opens a socket, binds one or looks up a name."""
    assert ran.denied == []


def test_the_network_is_denied() -> None:
    """What the tests above run in would see it."""
    code = (
        "import socket, sys\nfrom tests.every_command import denied, _DENIED\n"
        "sys.addaudithook(denied)\nsocket.socketpair()\n"
        "for act in (lambda: socket.create_connection(('127.0.0.1', 9)), socket.socket,\n"
        "            lambda: socket.getaddrinfo('localhost', 80)):\n"
        "    try:\n        act()\n    except PermissionError:\n        pass\n"
        "print(len(_DENIED))\n"
    )
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "3\n"
