"""The state of a run: steps are whole or not there, and one process at a time has it."""

import errno
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairneuron.errors import FairNeuronWarning, OptionError, OutputError
from fairneuron.io import is_unfinished, require_free
from fairneuron.state import FILE, State, stopped_command, without_option

ABOUT = {"command": "repair", "settings": {"theta": 0.1, "gamma": [0.5, 0.9]}}


def test_steps_are_found_again(tmp_path: Path) -> None:
    """With their values, in order; a step that is put again has its last value."""
    with State(tmp_path / "run") as state:
        state.put("b", b"\x00\xff")
        state.put("a", b"")
        state.put("b", b"new")
    with State(tmp_path / "run") as state:
        assert state.names() == ["b", "a"]
        assert (state.get("b"), state.get("a"), state.get("c")) == (b"new", b"", None)


def test_a_run_without_steps_leaves_nothing(tmp_path: Path) -> None:
    """Not even its folder, unless something else is in it; a run that is done leaves no state."""
    with State(tmp_path / "new" / "run") as state:
        state.agree("run", ABOUT)
    assert not (tmp_path / "new" / "run").exists()
    (tmp_path / "mine.txt").write_text("mine")
    with State(tmp_path) as state:
        state.agree("run", ABOUT)
        state.put("step", b"value")
        state.done()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine.txt"]


def test_a_step_after_the_end_is_kept(tmp_path: Path) -> None:
    """What comes after an experiment that is done belongs to the next one."""
    with State(tmp_path / "run") as state:
        state.put("a", b"1")
        state.done()
        state.put("b", b"2")
    with State(tmp_path / "run") as state:
        assert state.names() == ["a", "b"]


def test_another_run_is_refused_with_the_differences(tmp_path: Path) -> None:
    """By where they are; the state stays, and the command it is of."""
    with State(tmp_path, ["repair", "--seed", "1"]) as state:
        state.agree("run", ABOUT)
        state.put("step", b"value")
    other = {"command": "repair", "settings": {"theta": 0.2, "gamma": [0.5, 0.9]}, "seed": 3}
    with (
        State(tmp_path, ["repair", "--seed", "3"]) as state,
        pytest.raises(OptionError) as caught,
    ):
        state.agree("run", other)
    assert "settings.theta was 0.1, is 0.2; seed was not there, is 3" in str(caught.value)
    with State(tmp_path) as state:
        state.agree("run", ABOUT)
        assert state.get("step") == b"value"
        assert json.loads(state.get("of/command") or b"")["words"] == ["repair", "--seed", "1"]


def test_another_run_can_begin_anew(tmp_path: Path) -> None:
    """If that was asked for; the same run goes on also then."""
    for about, left in ((ABOUT, b"value"), ({"command": "compare"}, None)):
        with State(tmp_path) as state:
            state.agree("run", ABOUT)
            state.put("step", b"value")
        with State(tmp_path, anew=True) as state:
            state.agree("run", about)
            assert state.get("step") == left


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """At once, as long as the first one lives, however it ends."""
    code = """
import sys, pathlib
from fairneuron.state import State
state = State(pathlib.Path(sys.argv[1]))
state.put("step", b"value")
print("open", flush=True)
sys.stdin.read()
"""
    first = subprocess.Popen(  # noqa: S603  # our own code
        [sys.executable, "-c", code, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "open\n"
    with first:
        with pytest.raises(OptionError, match="One process at a time") as caught:
            State(tmp_path)
        first.kill()
    assert caught.value.code == "option-busy"
    with State(tmp_path) as state:
        assert state.get("step") == b"value"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a state with some steps."""
    folder = tmp_path_factory.mktemp("state")
    with State(folder, ["repair"]) as state:
        state.agree("run", ABOUT)
        for number in range(3):
            state.put(f"step {number}", bytes([number]) * 3_000)
    return (folder / FILE).read_bytes()


def read(folder: Path) -> None:
    """Reads all steps; each has the value that was put, or none."""
    with State(folder) as state:
        for number in range(3):
            assert state.get(f"step {number}") in (None, bytes([number]) * 3_000)
        state.agree("run", ABOUT)


def refused(folder: Path) -> None:
    """Reads all steps, unless the file is refused as damaged."""
    with suppress(OptionError, OutputError):
        read(folder)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::fairneuron.errors.FairNeuronWarning")
def test_flipped_bits_never_give_other_values(
    content: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    """A step is as it was put or not there, or the file is refused as damaged."""
    at = data.draw(st.integers(0, len(content) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    damaged = content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
    (tmp_path / FILE).write_bytes(damaged)
    refused(tmp_path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::fairneuron.errors.FairNeuronWarning")
def test_torn_files_are_refused(content: bytes, tmp_path: Path, data: st.DataObject) -> None:
    """Or hold none of the steps: an empty file is one of a run that was just begun."""
    (tmp_path / FILE).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    refused(tmp_path)


def test_a_damaged_step_is_left_with_a_warning(content: bytes, tmp_path: Path) -> None:
    """The others stay."""
    place = content.index(b"\x01" * 2_000)
    (tmp_path / FILE).write_bytes(content[:place] + b"\x07" + content[place + 1 :])
    with State(tmp_path) as state:
        with pytest.warns(FairNeuronWarning, match="'step 1' is damaged"):
            assert state.get("step 1") is None
        assert state.get("step 0") == b"\x00" * 3_000
        state.put("step 1", b"again")
        assert state.get("step 1") == b"again"


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\x00" + b"\xff" * 900])
def test_other_files_are_refused_and_stay(content: bytes, tmp_path: Path) -> None:
    """Also databases of others."""
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(OptionError) as caught:
        State(tmp_path)
    assert caught.value.code == "option-state"
    assert (tmp_path / FILE).read_bytes() == content


def test_databases_of_others_are_refused_and_stay(tmp_path: Path) -> None:
    """Nothing is added to them."""
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("CREATE TABLE steps (name TEXT)")
    database.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(OptionError, match="another file"):
        State(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    """The step that does not fit is not there; the others are."""
    with State(tmp_path) as state:
        state.put("small", b"value")
        state._database.execute("PRAGMA max_page_count = 10")
        with pytest.raises(OutputError, match="full") as caught:
            state.put("large", bytes(1_000_000))
        assert caught.value.code == "output-failed"
    with State(tmp_path) as state:
        assert state.get("small") == b"value"
        assert not state.has("large")


@pytest.mark.skipif(os.geteuid() == 0, reason="whoever is root can write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """With what the system says."""
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError):
        State(tmp_path / "run")


def test_what_the_system_refuses_is_told(tmp_path: Path, monkeypatch) -> None:
    """A folder that cannot be made."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="Read-only file system"):
        State(tmp_path / "run")


def test_an_unfinished_run_is_free_to_go_on(tmp_path: Path) -> None:
    """Its folder holds a state and nothing else."""
    with State(tmp_path / "run") as state:
        state.put("step", b"value")
    assert is_unfinished(tmp_path / "run")
    require_free(tmp_path / "run")
    (tmp_path / "run" / "mine.txt").touch()
    assert not is_unfinished(tmp_path / "run")
    with pytest.raises(OutputError, match="must be new"):
        require_free(tmp_path / "run")


# The command


def stopped(folder: Path, *words: str) -> None:
    """A folder of a command that was stopped."""
    with State(folder, without_option("--out", words)) as state:
        state.agree("run", ABOUT)
        state.put("step", b"value")


def test_the_command_goes_on_where_its_folder_is(tmp_path: Path) -> None:
    """Also if that was renamed."""
    stopped(tmp_path / "a", "repair", "--out", "a", "--data", "compas", "--seed=3")
    (tmp_path / "a").rename(tmp_path / "b")
    words = ["repair", "--data", "compas", "--seed=3", "--out", str(tmp_path / "b")]
    assert stopped_command(tmp_path / "b", {}) == words


@pytest.mark.parametrize("written", [("--model", "nets:make"), ("--model=nets:make",)])
def test_code_must_be_named_again(written: tuple[str, ...], tmp_path: Path) -> None:
    """A file never says what is imported, nor does another name."""
    stopped(tmp_path, "repair", *written)
    for asked in ({}, {"--model": None}, {"--encode": "nets:encode"}):
        with pytest.raises(OptionError, match="never taken from a file") as caught:
            stopped_command(tmp_path, asked)
        assert caught.value.code == "option-model"


@pytest.mark.parametrize("option", ["--model", "--encode", "--on"])
def test_what_is_taken_is_what_was_given(option: str, tmp_path: Path) -> None:
    """However often a state names something else."""
    stopped(tmp_path, "repair", option, "good", option, "evil", f"{option}=evil", "--seed", "1")
    words = stopped_command(tmp_path, {option: "good"})
    assert words == ["repair", "--seed", "1", option, "good", "--out", str(tmp_path)]


def test_what_a_command_was_not_given_is_left_to_it(tmp_path: Path) -> None:
    """It says what differs; "process" is where commands run anyway."""
    stopped(tmp_path, "compare", "--on", "process")
    assert stopped_command(tmp_path, {})[:-2] == ["compare"]
    assert stopped_command(tmp_path, {"--model": "nets:make"})[1:3] == ["--model", "nets:make"]


@pytest.mark.parametrize(
    "command",
    [
        {"words": ["convert", "evil.pt", "--sha256", "00"], "folder": "."},
        {"words": ["resume", "."], "folder": "."},
        {"words": [], "folder": "."},
        {"words": [1], "folder": "."},
        {"words": ["repair"]},
        ["repair"],
    ],
)
def test_other_commands_are_refused(command: object, tmp_path: Path) -> None:
    """Those that run code, and what is no command."""
    with State(tmp_path) as state:
        state.put("step", b"value")
        state.put("of/command", json.dumps(command).encode())
    with pytest.raises(OptionError) as caught:
        stopped_command(tmp_path, {})
    assert caught.value.code == "option-state"


def test_a_command_goes_on_where_it_was_begun(tmp_path: Path, monkeypatch) -> None:
    """Its words may hold paths that are read from there."""
    stopped(tmp_path / "run", "repair")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="goes on where it was begun"):
        stopped_command(Path("run"), {})


@pytest.mark.parametrize("made", ["nothing", "folder", "script"])
def test_what_no_command_wrote_is_refused(made: str, tmp_path: Path) -> None:
    """With what to do instead."""
    folder = tmp_path / "run"
    if made == "folder":
        folder.mkdir()
    elif made == "script":
        with State(folder) as state:
            state.put("step", b"value")
    with pytest.raises(OptionError) as caught:
        stopped_command(folder, {})
    assert caught.value.code == "option-run"
    assert folder.exists() == (made != "nothing")
