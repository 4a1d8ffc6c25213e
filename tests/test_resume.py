"""Commands that were stopped go on to the same result, to the bit, or are refused."""

import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fairneuron as fn
from fairneuron.errors import OptionError
from fairneuron.state import FILE, State, stopped_command
from tests import kills
from tests.conftest import made_up
from tests.test_cli import Outcome, call  # noqa: F401  # a fixture

REPAIR = kills.COMMANDS["repair"]
COMPARE = kills.COMMANDS["compare"]
REPRODUCE = ("reproduce", "table3", "--data", "credit", "--quick")
ALONE = {"OMP_NUM_THREADS": "1"}  # a process that forks must have no other threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forks")
def test_kill_at_every_boundary(tmp_path: Path) -> None:
    """Of a repair and a comparison: each goes on to the result of a run that nothing stopped."""
    found = killed(tmp_path, "boundaries")
    assert {name for name, each in found.items() if each["kills"] >= 20} == set(kills.COMMANDS)
    assert not [each for each in found.values() if each["other results"]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forks")
def test_kill_at_random_instants(tmp_path: Path) -> None:
    """Five of each command; ``scripts/soak`` has more."""
    found = killed(tmp_path, "random", "5")
    assert found == {name: {"kills": 5, "other results": []} for name in kills.COMMANDS}


def killed(folder: Path, *words: str) -> dict[str, Any]:
    """What ``tests.kills`` says."""
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-m", "tests.kills", folder, *words],
        cwd=Path(__file__).parent.parent,
        env=os.environ | ALONE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        timeout=900,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets a Ctrl-C come when so many steps were kept."""
    real = State.put

    def stop_after(steps: int) -> None:
        left = [steps]

        def put(self: State, name: str, value: bytes) -> None:
            real(self, name, value)
            if not name.startswith("of/"):
                left[0] -= 1
                if left[0] == 0:
                    monkeypatch.setattr(State, "put", real)
                    raise KeyboardInterrupt

        monkeypatch.setattr(State, "put", put)

    return stop_after


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a table."""
    monkeypatch.chdir(tmp_path)
    kills.write_table(tmp_path / "loans.csv")
    return tmp_path


@pytest.mark.parametrize("words", [REPAIR, COMPARE, REPRODUCE], ids=lambda words: words[0])
def test_ctrl_c_says_how_to_go_on(call, here, stop, words: tuple[str, ...]) -> None:  # noqa: F811
    """Exit code 130 and the command, which goes on to the end and leaves no state."""
    stop(1)
    outcome: Outcome = call(*words, "--out", "my run")
    assert outcome.code == 130
    command = outcome.err.strip().splitlines()[-1].rpartition(": ")[2]
    assert shlex.split(command) == ["fairneuron", "resume", "my run"]
    assert [path.name for path in (here / "my run").iterdir()] == [FILE]
    assert call(*shlex.split(command)[1:]).code in (0, 1)
    assert FILE not in {path.name for path in (here / "my run").iterdir()}
    again = call("resume", "my run")
    assert again.code == 2
    assert "which is finished: all of its results are there" in again.err


def test_ctrl_c_before_anything_is_done_leaves_nothing(call, here, monkeypatch) -> None:  # noqa: F811
    """And says so."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fairneuron.runs.load_parts", interrupt)
    outcome = call(*REPAIR, "--out", "out")
    assert outcome.code == 130
    assert "Nothing was written" in outcome.err
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--seed", "3"), "configuration.seed was 0, is 3"),
        (("--limit", "eo=0.05"), "configuration.limit.dp was 0.05, is not there"),
        (("--threshold", "0.4"), "configuration.threshold was 0.5, is 0.4"),
    ],
)
def test_other_options_are_refused(
    call,  # noqa: F811
    here,
    stop,
    change: tuple[str, ...],
    said: str,
) -> None:
    """With the difference; the run that was stopped stays, unless it is to be overwritten."""
    stop(1)
    call(*REPAIR, "--out", "out")
    outcome = call(*REPAIR, *change, "--out", "out")
    assert (outcome.code, "error[option-out]" in outcome.err) == (2, True)
    assert said in outcome.err
    assert (here / "out" / FILE).exists()
    assert call(*REPAIR, *change, "--out", "out", "--overwrite").code in (0, 1)
    result = json.loads((here / "out" / "result.json").read_text())
    assert said.split(" ", maxsplit=1)[0].split(".")[1] in result["configuration"]


def test_changed_data_are_refused(call, here, stop) -> None:  # noqa: F811
    """By their sums."""
    stop(1)
    call(*REPAIR, "--out", "out")
    lines = (here / "loans.csv").read_text().splitlines(keepends=True)
    (here / "loans.csv").write_text("".join(lines[:-1]))
    outcome = call("resume", "out")
    assert outcome.code == 2
    assert "data.sha256" in outcome.err


def test_other_versions_are_refused(call, here, stop, monkeypatch) -> None:  # noqa: F811
    """Of a repair and of a comparison."""
    for words in (REPAIR, COMPARE):
        stop(1)
        call(*words, "--out", words[0])
        with monkeypatch.context() as patch:
            for module in ("runs", "compare.protocol"):
                importlib.import_module(f"fairneuron.{module}")
                patch.setattr(sys.modules[f"fairneuron.{module}"], "version", lambda _: "99")
            outcome = call("resume", words[0])
        assert outcome.code == 2
        assert 'versions.torch was "' in outcome.err
        assert call("resume", words[0]).code in (0, 1)


def test_a_second_process_is_refused(call, here, stop) -> None:  # noqa: F811
    """For the repair and for the command that goes on."""
    stop(1)
    call(*REPAIR, "--out", "out")
    with State(here / "out"):
        for words in (("resume", "out"), (*REPAIR, "--out", "out")):
            outcome = call(*words)
            assert (outcome.code, "error[option-busy]" in outcome.err) == (2, True)
    assert call("resume", "out").code in (0, 1)


def test_an_earlier_result_stays_until_the_new_one_is_whole(call, here, stop) -> None:  # noqa: F811
    """An overwriting run that was stopped leaves what it would replace as it was."""
    assert call(*REPAIR, "--out", "out").code in (0, 1)
    before = (here / "out" / "result.json").read_bytes()
    stop(1)
    assert call(*REPAIR, "--seed", "1", "--out", "out", "--overwrite").code == 130
    assert (here / "out" / "result.json").read_bytes() == before
    assert call("predict", "out", "loans.csv").code == 0
    assert call("resume", "out").code in (0, 1)
    assert json.loads((here / "out" / "result.json").read_text())["configuration"]["seed"] == 1


def test_code_is_imported_only_if_it_is_named_again(call, here, stop) -> None:  # noqa: F811
    """A state that somebody changed cannot say what is imported."""
    (here / "nets.py").write_text(
        "from torch import nn\nimport torch\n"
        "def make():\n    torch.manual_seed(0)\n    return nn.Sequential(nn.Linear(2, 6), "
        "nn.ReLU(), nn.Linear(6, 1))\n"
    )
    words = tuple(w for w in REPAIR if w not in ("--hidden", "6"))
    stop(1)
    call(*words, "--model", "nets:make", "--out", "out")
    (here / "nets.py").write_text("raise SystemExit('imported')")
    sys.modules.pop("nets", None)
    outcome = call("resume", "out")
    assert (outcome.code, "never taken from a file" in outcome.err) == (2, True)


def test_a_full_disk_is_told_and_the_run_goes_on(call, here, monkeypatch) -> None:  # noqa: F811
    """What was kept before is there; with room again the run comes to its end."""
    real, kept = State._write, []

    def full(self: State, name: str, value: bytes) -> None:
        if kept.count("step") == 1 and not name.startswith("of/"):
            self._database.execute("PRAGMA max_page_count = 1")
            value = bytes(100_000)  # more than fits into the pages that are there
        kept.append("of" if name.startswith("of/") else "step")
        real(self, name, value)

    monkeypatch.setattr(State, "_write", full)
    outcome = call(*REPAIR, "--out", "out")
    assert (outcome.code, "error[output-failed]" in outcome.err) == (2, True)
    monkeypatch.setattr(State, "_write", real)
    with State(here / "out") as state:
        assert "base model" in state.names()
    assert call("resume", "out").code in (0, 1)


def test_scripts_go_on_by_running_again(here, stop) -> None:
    """There is no command that could be resumed."""
    options: dict[str, Any] = {"methods": ["naive"], "seeds": 2, "criteria": ["dp"], "plots": False}
    stop(1)
    with pytest.raises(KeyboardInterrupt):
        fn.compare(made_up(300), out=here / "out", **options)
    with pytest.raises(OptionError, match="Run the script"):
        stopped_command(here / "out", {})
    assert len(fn.compare(made_up(300), out=here / "out", **options).records) == 2


@pytest.mark.parametrize("event", [signal.SIGINT, signal.SIGTERM])
def test_signals(here, event: signal.Signals) -> None:
    """A real one in the middle: the run goes on, whatever its exit code was."""
    command = [sys.executable, "-m", "fairneuron"]
    words = [*command, "repair", "--data", "credit", "--out", "out", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603
    while process.poll() is None and not (here / "out" / FILE).exists():
        pass
    process.send_signal(event)
    process.communicate()
    assert process.returncode == (130 if event == signal.SIGINT else -signal.SIGTERM)
    if not (here / "out").exists():  # before the first step was kept
        return
    done = subprocess.run([*command, "resume", "out"], capture_output=True, check=False)  # noqa: S603
    if b"option-run" in done.stderr:  # before it said which command it is of
        shutil.rmtree(here / "out")
        done = subprocess.run(words, capture_output=True, check=False)  # noqa: S603
    assert done.returncode in (0, 1)
