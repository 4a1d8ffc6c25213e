"""No file runs code, fills the memory or gets past a refusal, whatever reads it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from fairneuron import cli
from tests.hostile import FEW, OTHERS, PARTS, corpus, readers, running
from tests.test_cli import environment

ROOT = Path(__file__).parents[1]
HARMLESS = {  # what may be read all the same: texts are columns, and numbers are numbers
    ("safetensors of a pickle", "candidates.safetensors of a run"),
    ("state: twice to compare", "resume"),  # goes on with what is named again
}


class Attempt(NamedTuple):
    """What came of a file that was given to a reader."""

    name: str
    reader: str
    code: int
    out: str
    err: str
    seen: list[str]
    seconds: float


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every file given to every reader, in one process under an audit hook."""
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-m", "tests.hostile", tmp_path_factory.mktemp("hostile")],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    found["found"] = [Attempt(*one) for one in found["found"]]
    return found


def test_every_file_is_refused(tried: dict[str, Any]) -> None:
    """By every reader, with exit code 2 and a coded error; one that is text has columns to show."""
    accepted = [
        (one.name, one.reader, one.code, one.err[-300:])
        for one in tried["found"]
        if one.code != 2
        and (one.name, one.reader) not in HARMLESS
        and not (one.reader == "columns" and is_text(corpus()[one.name]))
    ]
    assert accepted == []
    for one in tried["found"]:
        if one.code == 2:
            assert re.search(r"^error\[[a-z0-9-]+\]: \S", one.err, re.MULTILINE), one
            assert "Traceback" not in one.err, one
            assert one.out == "" or "error" in json.loads(one.out), one


def is_text(content: bytes) -> bool:
    """Whether it is text, as a table is."""
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def test_nothing_runs(tried: dict[str, Any]) -> None:
    """No file leaves its mark, and the interpreter tells of no code, program or socket."""
    seen = [
        (one.name, one.reader, event)
        for one in tried["found"]
        for event in one.seen
        if (one.name, one.reader) not in HARMLESS or event.startswith("mark ")  # at work it traces
    ]
    assert seen == []


def test_nothing_is_left_behind(tried: dict[str, Any]) -> None:
    """What is refused writes nothing."""
    assert tried["left"] == []


def test_bombs_stay_small(tried: dict[str, Any]) -> None:
    """None takes half a GiB of memory or half a minute."""
    assert tried["grown"] < 512 << 10  # KiB
    assert [(one.name, one.reader) for one in tried["found"] if one.seconds > 30] == []


def test_the_files_are_hostile(tried: dict[str, Any]) -> None:
    """Opened as somebody careless does, they leave marks, and the watcher sees it."""
    shut = {"pickle: behind the end", "checkpoint: behind the end", "torchscript"}
    quiet = {n for n, seen in tried["control"].items() if not any("mark " in e for e in seen)}
    assert quiet == shut
    assert set(tried["control"]) == {name for name, _ in running()}
    events = {event.split()[0] for seen in tried["control"].values() for event in seen}
    assert {"os.system", "exec", "compile", "subprocess.Popen", "pickle.find_class"} <= events


def test_all_files_are_given_to_all_readers(tried: dict[str, Any]) -> None:
    """Hundreds of files, and every reader gets every one of them."""
    names = set(corpus())
    assert names <= {one.name for one in tried["found"]}
    assert len(names) > 150
    for reader in readers(Path("x")):
        assert {one.name for one in tried["found"] if one.reader == reader} == names
    for part in PARTS:
        given = {one.name for one in tried["found"] if one.reader == f"{part} of a run"}
        assert given >= set(FEW)


def test_every_option_that_reads_a_file_is_a_reader() -> None:
    """A new option or command with a path must be added here, and then to the readers."""
    shared = {"data", "train", "valid", "test", "weights"}
    paths = dict.fromkeys(("audit", *OTHERS), shared)
    paths["audit"] = shared | {"predictions"}
    paths |= {"predict": {"folder", "data"}, "choose": {"folder"}, "convert": {"file"}}
    paths |= {"init": {"table"}}
    paths |= {"resume": {"folder"}, "reproduce": {"data"}}  # names of our own data sets
    found = {}
    for command in cli.app.registered_commands:
        assert command.callback is not None
        named = set(
            filter(None, map(read, signature(command.callback, eval_str=True).parameters.values()))
        )
        found |= {command.name or command.callback.__name__: named} if named else {}
    assert found == paths


def read(parameter: Parameter) -> str | None:
    """Its name, if it may name a file or folder to read."""
    kinds = get_args(parameter.annotation)  # none of the context that typer gives
    path = bool(kinds) and ("Path" in str(kinds[0]) or parameter.name == "data")
    written = ("out", "junit", "report")
    return parameter.name if path and parameter.name not in written else None


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/guarantees.md"])
def test_promises_have_their_tests(page: str) -> None:
    """Every test that a page of promises names is there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", text)
    assert len(named) > 15
    for path, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
