"""The command line: refusals, run folders, agreement of what it prints with what it writes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

from fairneuron import cli, runs
from fairneuron import weights as weights_files
from fairneuron.data.builtin import KNOWN, SOURCES, load_dataset
from fairneuron.models import mlp

COMMAND = Path(sys.executable).with_name("fairneuron")
RUN_FILES = {
    "candidates.safetensors",
    "encoding.json",
    "front.json",
    "original.safetensors",
    "repaired.safetensors",
    "result.json",
    "report.html",
    "report.json",
    "report.md",
    "timings.json",
    "manifest.json",
}
COMPAS = ("--data", "compas", "--include-sensitive")
REPAIR = ("repair", *COMPAS, "--limit", "dp=0.05")
CREDIT = ("repair", "--data", "credit", "--out", "out")


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """The environment of a plain pipe."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "PYTHONHASHSEED")
    }
    return kept | {"COLUMNS": "100", "NO_COLOR": "1"} | more


def start(*words: str | Path, cwd: Path, **more: str) -> subprocess.Popen[str]:
    """Starts the console script."""
    return subprocess.Popen(  # noqa: S603  # our own command
        [COMMAND, *words],
        cwd=cwd,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    """Waits for it."""
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    return Outcome(process.returncode, out, err)


def run_main(words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]) -> Outcome:
    """Runs the console script's function in this process, in the folder, as from a pipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "100")
        patch.setenv("NO_COLOR", "1")
        patch.delenv("FORCE_COLOR", raising=False)
        patch.setattr(sys, "argv", ["fairneuron", *words])
        patch.setattr(warnings, "showwarning", warnings.showwarning)  # main replaces it
        with warnings.catch_warnings(action="default"), pytest.raises(SystemExit) as stop:
            cli.main()  # where pytest would make warnings errors
    shown = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return Outcome(stop.value.code, shown.out, shown.err)


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command in this process, in an empty folder."""
    return lambda *words: run_main(tuple(map(str, words)), tmp_path, capsys)


@pytest.fixture
def untrainable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes any training an internal error."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(torch.optim, "Adam", refuse)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained network for credit."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "credit.safetensors"
    path.write_bytes(weights_files.mlp_weights(mlp(load_dataset("credit").x.shape[1], (6,))))
    return path


def limited(*words: str) -> tuple[str, ...]:
    """A repair with these options."""
    return (*CREDIT, *words)


# Commands that must be refused, and the code of each.
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "data": (("repair", "--data", "comps", "--out", "out"), "option-data"),
    "data of audit": (("audit", "--data", "comps"), "option-data"),
    "data of paths": (("paths", "--data", "comps"), "option-data"),
    "data of show": (("data", "show", "comps"), "option-data"),
    "delimiter of ours": (("data", "show", "credit", "--delimiter", ";"), "option-data"),
    "sensitive": (limited("--sensitive", "rac"), "option-sensitive"),
    "sensitive of audit": (
        ("audit", "--data", "credit", "--sensitive", "race"),
        "option-sensitive",
    ),
    "second sensitive": (
        ("audit", "--data", "credit", "--sensitive", "sex", "--sensitive", "race"),
        "option-sensitive",
    ),
    "limit without value": (limited("--limit", "dp"), "option-limit"),
    "limit of no number": (limited("--limit", "dp=x"), "option-limit"),
    "unknown limit": (limited("--limit", "dq=0.1"), "option-limit"),
    "limit of accuracy": (limited("--limit", "accuracy=0.5"), "option-limit"),
    "limit without name": (limited("--limit", "=0.1"), "option-limit"),
    "limit above 1": (limited("--limit", "dp=2"), "option-limit"),
    "limit below 0": (limited("--limit", "dp=-0.1"), "option-limit"),
    "limit of NaN": (limited("--limit", "dp=nan"), "option-limit"),
    "second limit": (limited("--limit", "dp=0.1", "--limit", "eo=7"), "option-limit"),
    "recipe": (limited("--recipe", "pape"), "option-recipe"),
    "gamma": (limited("--recipe", "paper", "--gamma", "0"), "option-range"),
    "gamma of NaN": (limited("--recipe", "paper", "--gamma", "nan"), "option-range"),
    "theta": (limited("--recipe", "paper", "--theta", "1.5"), "option-range"),
    "dropout": (limited("--recipe", "paper", "--dropout", "1"), "option-range"),
    "neuron share": (limited("--neuron-share", "0"), "option-range"),
    "epochs": (limited("--epochs", "0"), "option-range"),
    "option of paper": (limited("--gamma", "0.9"), "option-unknown"),
    "option of conflict": (limited("--recipe", "paper", "--neuron-share", "0.1"), "option-unknown"),
    "hidden": (limited("--hidden", "8,x"), "option-hidden"),
    "hidden of 0": (("audit", "--data", "credit", "--hidden", "8,0"), "option-hidden"),
    "hidden of commas": (("audit", "--data", "credit", "--hidden", ","), "option-hidden"),
    "outputs": (limited("--outputs", "3"), "option-outputs"),
    "outputs of audit": (("audit", "--data", "credit", "--outputs", "0"), "option-outputs"),
    "part": (("audit", "--data", "credit", "--part", "tst"), "option-part"),
    "part of paths": (("paths", "--data", "credit", "--part", "alll"), "option-part"),
    "gamma of paths": (("paths", "--data", "credit", "--gamma", "0"), "option-range"),
    "theta of paths": (("paths", "--data", "credit", "--theta", "-1"), "option-range"),
    "top of paths": (("paths", "--data", "credit", "--top", "0"), "option-range"),
    "show of paths": (("paths", "--data", "credit", "--show", "-1"), "option-range"),
    "contribution": (
        ("paths", "--data", "credit", "--contribution", "sign"),
        "option-contribution",
    ),
    "folder exists": (("repair", "--data", "credit", "--out", "taken"), "output-exists"),
    "foreign folder": (
        ("repair", "--data", "credit", "--out", "taken", "--overwrite"),
        "output-exists",
    ),
    "folder in a file": (("repair", "--data", "credit", "--out", "file/out"), "output-readonly"),
}
USAGE = {
    "unknown option": ("repair", "--data", "credit", "--out", "out", "--limitt", "dp=0.1"),
    "unknown option of audit": ("audit", "--data", "credit", "--weigths", "x"),
    "unknown command": ("repar", "--data", "credit", "--out", "out"),
    "no folder": ("repair", "--data", "credit"),
    "no data": ("audit",),
    "epochs of words": limited("--epochs", "many"),
    "seed below 0": limited("--seed", "-1"),
}
NEAREST = {
    "unknown option": "--limit",
    "unknown option of audit": "--weights",
    "unknown command": "repair",
    "no folder": "--out",
    "no data": "--data",
    "epochs of words": "--epochs",
    "seed below 0": "--seed",
}


def cases() -> list[Any]:
    """The refusals as parameters."""
    return [pytest.param(words, code, id=name) for name, (words, code) in REFUSED.items()]


def prepare(folder: Path) -> None:
    """Makes the folder and the file that some refusals need."""
    (folder / "taken").mkdir()
    (folder / "taken" / "mine.txt").write_text("mine", encoding="utf-8")
    (folder / "file").write_text("", encoding="utf-8")


_LIGHT = """
import contextlib, io, json, sys

tried = []

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "pandas", "sklearn"):
            tried.append(name)
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
from fairneuron import cli

found = []
for words in json.load(sys.stdin):
    del tried[:]
    sys.argv = ["fairneuron", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
            code = None
        except SystemExit as stop:
            code = stop.code
    found.append([code, out.getvalue(), err.getvalue(), [*tried]])
json.dump(found, sys.stdout)
"""


def groups_and_commands() -> list[tuple[str, ...]]:
    """The words of every command and group of commands."""
    found: list[tuple[str, ...]] = [()]
    for name, command in typer.main.get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        found.append((name,))
        found += [(name, inner) for inner in getattr(command, "commands", {})]
    return found


@pytest.fixture(scope="module")
def light(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[tuple[str, ...], tuple[Outcome, list[str]]]:
    """Help and refusals without torch, pandas and scikit-learn: outcome, and which were missed."""
    folder = tmp_path_factory.mktemp("light")
    prepare(folder)
    asked = [(*words, "--help") for words in groups_and_commands()]
    asked += [words for words, _ in REFUSED.values()] + [*USAGE.values()]
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", _LIGHT],
        input=json.dumps(asked),
        cwd=folder,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return {
        words: (Outcome(code, out, err), tried)
        for words, (code, out, err, tried) in zip(asked, json.loads(done.stdout), strict=True)
    }


@pytest.mark.parametrize("words", groups_and_commands(), ids=" ".join)
def test_help_is_whole_and_light(
    words: tuple[str, ...], light: dict[tuple[str, ...], tuple[Outcome, list[str]]]
) -> None:
    """Help exits with 0, mentions all options and commands, and needs no heavy library."""
    outcome, tried = light[*words, "--help"]
    command: Any = typer.main.get_command(cli.app)
    for word in words:
        command = command.commands[word]
    named = [p.opts[0] for p in command.params] + [*getattr(command, "commands", {})]
    assert (outcome.code, outcome.err, tried) == (0, "", [])
    assert [name for name in named if name not in outcome.out] == []
    assert "\x1b" not in outcome.out


def test_help_tells_defaults(light: dict[tuple[str, ...], tuple[Outcome, list[str]]]) -> None:
    """The help of repair shows the default of every option whose default depends on the recipe."""
    text = re.sub(r"[│\s]+", " ", light["repair", "--help"][0].out)
    rows = dict(re.findall(r"(--[a-z-]+) (.*?)(?= \*? ?--|$)", text))
    defaults = {
        "--limit": "dp=0.05",
        "--neuron-share": "0.3",
        "--gamma": "0.9",
        "--theta": "0.001",
        "--dropout": "0.1",
        "--epochs": "50",
    }
    shown = {name: re.findall(r"default: ?(.*?)\]", rows[name]) for name in defaults}
    assert [name for name, value in defaults.items() if value not in str(shown[name])] == []


@pytest.mark.usefixtures("untrainable")
@pytest.mark.parametrize(("words", "code"), cases())
def test_refusal(
    words: tuple[str, ...], code: str, call: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Bad input exits with 2 and one line, before any training, and writes nothing."""
    prepare(tmp_path)
    outcome = call(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert re.fullmatch(rf"error\[{code}\]: [^\n]+\n", outcome.err)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "mine.txt", "taken"]


@pytest.mark.parametrize(("words", "code"), cases())
def test_refusal_is_light(
    words: tuple[str, ...],
    code: str,
    light: dict[tuple[str, ...], tuple[Outcome, list[str]]],
) -> None:
    """Bad input is refused without torch, pandas and scikit-learn."""
    outcome, tried = light[words]
    assert (outcome.code, tried) == (2, [])
    assert outcome.err.startswith(f"error[{code}]: ")


@pytest.mark.usefixtures("untrainable")
@pytest.mark.parametrize(("words", "code"), cases())
def test_refusal_as_json(words: tuple[str, ...], code: str, call: Callable[..., Outcome]) -> None:
    """With --json a refusal is a JSON object on stdout, with the code."""
    words = tuple(word.replace("taken", ".").replace("file/", "/dev/null/") for word in words)
    outcome = call(*words, "--json")
    error = json.loads(outcome.out)["error"]
    assert (outcome.code, error["code"]) == (2, code)
    assert outcome.err == f"error[{code}]: {error['message']}\n"


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage(
    name: str,
    light: dict[tuple[str, ...], tuple[Outcome, list[str]]],
    call: Callable[..., Outcome],
    tmp_path: Path,
) -> None:
    """Words that are no command or option exit with 2, name what was meant, and write nothing."""
    outcome, tried = light[USAGE[name]]
    assert (outcome.code, outcome.out, tried) == (2, "", [])
    assert "Traceback" not in outcome.err
    message = outcome.err.split("error", 1)[-1].split(" Error ", 1)[-1]
    assert re.search(rf"(?<![\w-]){NEAREST[name]}(?![\w-])", message)
    assert call(*USAGE[name]).code == 2
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_is_one_line(
    name: str, light: dict[tuple[str, ...], tuple[Outcome, list[str]]]
) -> None:
    """Words that are no command or option are refused in one line with a code, like all else."""
    assert re.fullmatch(r"error\[[a-z-]+\]: [^\n]+\n", light[USAGE[name]][0].err)


def test_wrong_usage_as_json(call: Callable[..., Outcome]) -> None:
    """With --json wrong usage too is a JSON object on stdout."""
    outcome = call("audit", "--data", "credit", "--zzz", "--json")
    assert json.loads(outcome.out)["error"]["code"]


UNTAMED = {
    "name too long": ("repair", "--data", "credit", "--out", "n" * 300),
    "seed of 80 bits": ("repair", "--data", "credit", "--out", "out", "--seed", str(1 << 80)),
    "widths beyond memory": ("audit", "--data", "credit", "--hidden", str(10**14)),
}


@pytest.mark.parametrize("words", UNTAMED.values(), ids=UNTAMED)
def test_absurd_input(words: tuple[str, ...], call: Callable[..., Outcome]) -> None:
    """Absurdly large input is bad input, not a bug of ours."""
    outcome = call(*words)
    assert outcome.code == 2
    assert re.fullmatch(r"error\[[a-z-]+\]: [^\n]+\n", outcome.err)


@pytest.mark.parametrize(
    "words",
    [("repair", "--data", "comps", "--out", "out"), ("audit", "--data", "credit", "--hidden", "x")],
    ids=["repair", "audit"],
)
def test_refusal_of_the_console_script(words: tuple[str, ...], tmp_path: Path) -> None:
    """The installed command refuses as its function does: exit code 2, one line, no folder."""
    outcome = finish(start(*words, cwd=tmp_path))
    assert (outcome.code, outcome.out) == (2, "")
    assert re.fullmatch(r"error\[option-(data|hidden)\]: [^\n]+\n", outcome.err)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["missing", "a folder", "text"])
def test_bad_weights(name: str, call: Callable[..., Outcome], tmp_path: Path) -> None:
    """Weights that are no weights are refused in one line."""
    (tmp_path / "a folder").mkdir()
    (tmp_path / "text").write_text("weights", encoding="utf-8")
    outcome = call("audit", "--data", "credit", "--weights", name)
    assert (outcome.code, outcome.out) == (2, "")
    assert re.fullmatch(r"error\[model-file[a-z-]*\]: [^\n]+\n", outcome.err)


def test_weights_of_other_inputs(call: Callable[..., Outcome], weights: Path) -> None:
    """Weights for other inputs are refused in one line that has both numbers of columns."""
    wide = load_dataset("credit", include_sensitive=True).x.shape[1]
    outcome = call("audit", "--data", "credit", "--include-sensitive", "--weights", weights)
    assert outcome.code == 2
    assert re.fullmatch(r"warning: [^\n]+\nerror\[model-width\]: [^\n]+\n", outcome.err)
    assert {str(wide), str(load_dataset("credit").x.shape[1])} <= {*re.findall(r"\d+", outcome.err)}


def test_interrupt(
    call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl-C exits with 130, without a traceback, and nothing is written."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run_repair", interrupted)
    outcome = call(*CREDIT)
    assert (outcome.code, outcome.out) == (130, "")
    assert "Traceback" not in outcome.err
    assert not [*tmp_path.iterdir()]


def test_interrupt_is_told(call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C says that nothing was written."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run_repair", interrupted)
    assert call(*CREDIT).err == "error[interrupted]: Nothing was written.\n"


def test_bug_of_ours(call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception exits with 3, with its traceback and a request to report it."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("the bug")

    monkeypatch.setattr(runs, "run_repair", broken)
    outcome = call(*CREDIT)
    assert (outcome.code, outcome.out) == (3, "")
    assert "ZeroDivisionError: the bug" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error[internal]: ")


@dataclass(frozen=True)
class Repaired:
    """A run folder, and what the command printed."""

    folder: Path
    outcome: Outcome

    @property
    def result(self) -> dict[str, Any]:
        """Its result.json."""
        found: dict[str, Any] = json.loads(self.bytes("result.json"))
        return found

    def bytes(self, name: str) -> bytes:
        """A file of it."""
        return (self.folder / name).read_bytes()


def reproduce(folder: Path) -> list[str]:
    """The words after "fairneuron" of the command in the last section of a report."""
    section = (folder / "report.md").read_text(encoding="utf-8").split("\n## ")[-1]
    assert section.startswith("How to reproduce\n")
    words = shlex.split(section.split("```")[1])
    assert words[0] == "fairneuron"
    return words[1:]


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> Repaired:
    """A repair of COMPAS with the installed command."""
    folder = tmp_path_factory.mktemp("repaired")
    return Repaired(folder / "DIR", finish(start(*REPAIR, "--out", "DIR", cwd=folder)))


@pytest.fixture(scope="module")
def again(
    repaired: Repaired, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Repaired]]:
    """The same repair twice more: as it was asked for, and as the report says."""
    folder = tmp_path_factory.mktemp("again")
    words = reproduce(repaired.folder)
    copied = [str(folder / "copied") if word == "DIR" else word for word in words]
    begun = {
        "same": start(*REPAIR, "--json", "--out", folder / "same", cwd=folder, PYTHONHASHSEED="1"),
        "copied": start(*copied, cwd=folder, PYTHONHASHSEED="2", OMP_NUM_THREADS="1"),
    }
    return {name: Repaired(folder / name, finish(process)) for name, process in begun.items()}


def test_exit_code_is_the_verdict(repaired: Repaired) -> None:
    """A repair exits with 0 if it improved the test data, and else with 1."""
    outcome = repaired.result["verdicts"]["test"]["outcome"]
    assert outcome in ("improved", "no reliable improvement", "limit not met")
    assert repaired.outcome.code == (0 if outcome == "improved" else 1)


def test_run_folder(repaired: Repaired) -> None:
    """The folder holds these files alone, and the manifest their sums."""
    assert {p.name for p in repaired.folder.iterdir()} == RUN_FILES
    assert {p.name for p in repaired.folder.parent.iterdir()} == {"DIR"}
    sums = json.loads(repaired.bytes("manifest.json"))["sha256"]
    assert set(sums) == RUN_FILES - {"manifest.json"}
    assert set(json.loads(repaired.bytes("timings.json"))) == {"base_model", "repair", "audit"}


def test_result_has_it_all(repaired: Repaired) -> None:
    """result.json has audits, intervals, verdicts, configuration, seed and versions."""
    result = repaired.result
    for audited in (result["before"], result["after"]):
        assert {"accuracy", "dp", "eo", "eodds"} <= set(audited["metrics"])
        assert set(audited["intervals"]) == set(audited["metrics"])
        assert [g["group"] for g in audited["groups"]] == ["African-American", "Caucasian"]
        low, high = audited["intervals"]["dp"]
        assert low < high
    for data in ("validation", "test"):
        verdict = result["verdicts"][data]
        assert verdict["on"] == data
        assert verdict["changes"]["dp"]["limit"] == 0.05
        assert verdict["changes"]["dp"]["met"] == (verdict["changes"]["dp"]["after"] <= 0.05)
    configuration = result["configuration"]
    assert configuration["data"] == "compas"
    assert configuration["seed"] == 0
    assert configuration["include_sensitive"] is True
    assert configuration["limit"] == {"dp": 0.05}
    assert configuration["recipe"] == "conflict"
    assert configuration["settings"]["neuron_share"] == [0.3, 1.0]
    assert {"python", "fairneuron", "torch", "numpy", "scikit-learn"} <= set(result["versions"])


def test_result_is_consistent(repaired: Repaired) -> None:
    """The verdict on test data compares the two audits, and its flips add up to the groups."""
    result = repaired.result
    verdict = result["verdicts"]["test"]
    for name, change in verdict["changes"].items():
        assert change["before"] == pytest.approx(result["before"]["metrics"][name])
        assert change["after"] == pytest.approx(result["after"]["metrics"][name])
    for flip, old, new in zip(
        verdict["flips"], result["before"]["groups"], result["after"]["groups"], strict=True
    ):
        moved = (new["selection_rate"] - old["selection_rate"]) * old["n"]
        assert flip["to_positive"] - flip["from_positive"] == pytest.approx(moved)
        assert (flip["group"], flip["n"]) == (old["group"], old["n"]) == (new["group"], new["n"])
    chosen = result["trials"][result["chosen"]]
    assert chosen["rejected"] is None
    assert chosen["validation"]["dp"] == verdict_on(result, "validation")["after"]


def verdict_on(result: dict[str, Any], data: str) -> dict[str, Any]:
    """The change of dp on some data."""
    found: dict[str, Any] = result["verdicts"][data]["changes"]["dp"]
    return found


def walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with what it holds."""
    yield key, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from walk(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner, key)


def test_result_has_no_times_or_places(repaired: Repaired) -> None:
    """Nothing in result.json depends on when, where and how fast it was made."""
    when = re.compile(r"\d{4}-\d\d-\d\d|\d\d:\d\d")
    for key, value in walk(repaired.result):
        assert not re.search(r"time|date|second|stamp|duration|host|user", key)
        assert not (isinstance(value, str) and when.search(value))
    assert str(repaired.folder.parent) not in repaired.bytes("result.json").decode()
    assert min(json.loads(repaired.bytes("timings.json")).values()) > 0


@pytest.mark.parametrize("name", sorted(RUN_FILES - {"timings.json", "manifest.json"}))
def test_same_seed_same_bytes(repaired: Repaired, again: dict[str, Repaired], name: str) -> None:
    """Two runs of one command write the same bytes."""
    assert again["same"].bytes(name) == repaired.bytes(name)
    assert again["same"].outcome.code == repaired.outcome.code


def test_report_reproduces(repaired: Repaired, again: dict[str, Repaired]) -> None:
    """The command that the report prints gives the same result."""
    assert again["copied"].bytes("result.json") == repaired.bytes("result.json")
    assert again["copied"].bytes("report.md") == repaired.bytes("report.md")


def test_json_of_repair_is_the_result(again: dict[str, Repaired]) -> None:
    """With --json, stdout is what result.json holds, and nothing else."""
    assert json.loads(again["same"].outcome.out) == again["same"].result


def test_printed_in_a_pipe(repaired: Repaired) -> None:
    """In a pipe there are plain lines: no colours, no progress bar, the verdict and the folder."""
    outcome, result = repaired.outcome, repaired.result
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", outcome.out + outcome.err)
    assert max(map(len, outcome.out.splitlines())) <= 100
    words = " ".join(outcome.out.split())
    assert result["verdicts"]["test"]["sentence"] in words
    assert result["verdicts"]["validation"]["sentence"] in words
    assert "Report: DIR/report.md" in words
    assert re.fullmatch(r"(\w+ \(\d+ steps\)\n)+", outcome.err)
    for side in ("before", "after"):
        assert f"{result[side]['metrics']['dp']:.3f}" in words


def test_audit_of_the_repaired_weights(repaired: Repaired, call: Callable[..., Outcome]) -> None:
    """Auditing the written weights gives exactly the figures of result.json."""
    for name, side in (("repaired", "after"), ("original", "before")):
        path = repaired.folder / f"{name}.safetensors"
        outcome = call("audit", *COMPAS, "--weights", path, "--json")
        found, expected = json.loads(outcome.out), repaired.result[side]
        assert (outcome.code, outcome.err) == (0, "")
        assert {key: found[key] for key in expected} == expected
        assert found["data"]["part"] == "test"


def test_audit_prints_the_same_figures(repaired: Repaired, call: Callable[..., Outcome]) -> None:
    """The table of an audit has the figures of its JSON, in plain text."""
    path = repaired.folder / "repaired.safetensors"
    outcome = call("audit", *COMPAS, "--weights", path)
    assert outcome.code == 0
    assert "\x1b" not in outcome.out + outcome.err
    shown = [line.split("  ") for line in outcome.out.splitlines()]
    rows = {words[0].strip(): [w.strip() for w in words[1:] if w.strip()] for words in shown}
    after = repaired.result["after"]
    low, high = after["intervals"]["dp"]
    assert rows["demographic parity difference"] == [
        f"{after['metrics']['dp']:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{after['noise_floor']['dp']:.3f}",
    ]
    for group in after["groups"]:
        rates = [f"{group[rate]:.3f}" for rate in ("selection_rate", "tpr", "fpr", "accuracy")]
        assert rows[group["group"]] == [str(group["n"]), str(group["positive"]), *rates]


def test_repair_of_given_weights(
    repaired: Repaired, call: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Repairing the written original gives the same repair, without training a base model."""
    path = repaired.folder / "original.safetensors"
    outcome = call(*REPAIR, "--weights", path, "--out", "deep/er")
    assert outcome.code == repaired.outcome.code
    assert "training (" not in outcome.err.replace("retraining", "")
    result, expected = Repaired(tmp_path / "deep" / "er", outcome).result, repaired.result
    assert result["configuration"].pop("weights") == str(path)
    assert result == expected


def test_existing_folder(repaired: Repaired, call: Callable[..., Outcome]) -> None:
    """A run folder is not written over unless asked for, and the cure says how."""
    before = repaired.bytes("result.json")
    outcome = call(*REPAIR, "--out", repaired.folder)
    assert outcome.code == 2
    assert re.fullmatch(r"error\[output-exists\]: [^\n]+--overwrite\.\n", outcome.err)
    assert repaired.bytes("result.json") == before


def test_overwrite(call: Callable[..., Outcome], weights: Path, tmp_path: Path) -> None:
    """With --overwrite an earlier run folder is replaced as a whole."""
    words = (*CREDIT, "--epochs", "1", "--weights", weights)
    assert call(*words).code in (0, 1)
    (tmp_path / "out" / "original.safetensors").unlink()
    assert call(*words, "--seed", "1", "--overwrite").code in (0, 1)
    assert {p.name for p in (tmp_path / "out").iterdir()} == RUN_FILES
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    assert Repaired(tmp_path / "out", Outcome(0, "", "")).result["configuration"]["seed"] == 1


def test_recipe_paper(call: Callable[..., Outcome], tmp_path: Path) -> None:
    """The recipe paper works from end to end, with its settings and samples in the result."""
    outcome = call(
        *CREDIT, "--recipe", "paper", "--epochs", "2", "--gamma", "0.6", "--theta", "0.01"
    )
    run = Repaired(tmp_path / "out", outcome)
    result = run.result
    improved = result["verdicts"]["test"]["outcome"] == "improved"
    assert outcome.code == (0 if improved else 1)
    assert {p.name for p in run.folder.iterdir()} == RUN_FILES
    settings = result["configuration"]["settings"]
    assert (settings["gamma"], settings["theta"], settings["dropout"]) == (0.6, 0.01, 0.1)
    assert settings["schedule"]["epochs"] == 2
    found = result["explanation"]
    assert sum(row["n"] for row in found["makeup"]) == found["samples"] == 700
    assert sum(row["biased"] for row in found["makeup"]) == found["biased"]
    assert found["sentence"] in " ".join(outcome.out.split())


def test_two_class_logits(call: Callable[..., Outcome], tmp_path: Path) -> None:
    """Other widths and two outputs work from end to end, and stand in the weights."""
    outcome = call(*CREDIT, "--hidden", "8,8", "--outputs", "2", "--epochs", "1")
    assert outcome.code in (0, 1)
    configuration = Repaired(tmp_path / "out", outcome).result["configuration"]
    assert (configuration["hidden"], configuration["outputs"]) == ([8, 8], 2)
    for name in ("original", "repaired"):
        model = weights_files.load_mlp(tmp_path / "out" / f"{name}.safetensors")
        sizes = [m.out_features for m in model if isinstance(m, torch.nn.Linear)]
        assert sizes == [8, 8, 2]
    words = reproduce(tmp_path / "out")
    assert words[words.index("--hidden") + 1] == "8,8"
    assert words[words.index("--outputs") + 1] == "2"


def test_limit_out_of_reach(call: Callable[..., Outcome], tmp_path: Path) -> None:
    """A limit that is not met exits with 1, and the verdict says so."""
    outcome = call(*CREDIT, "--limit", "dp=0.0001")
    verdict = Repaired(tmp_path / "out", outcome).result["verdicts"]["test"]
    assert outcome.code == 1
    assert verdict["outcome"] != "improved"
    assert verdict["changes"]["dp"]["limit"] == 0.0001
    assert "limit ≤ 0.0001" in verdict["sentence"]


def test_several_limits(call: Callable[..., Outcome], weights: Path, tmp_path: Path) -> None:
    """Several limits are all judged and all stand in the report's command."""
    words = (*CREDIT, "--limit", "dp=0.05", "--limit", "dpr=0.8", "--epochs", "1")
    outcome = call(*words, "--weights", weights)
    result = Repaired(tmp_path / "out", outcome).result
    assert result["configuration"]["limit"] == {"dp": 0.05, "dpr": 0.8}
    changes = result["verdicts"]["test"]["changes"]
    assert changes["dpr"]["met"] == (changes["dpr"]["after"] >= 0.8)
    command = reproduce(tmp_path / "out")
    assert [w for i, w in enumerate(command) if command[i - 1] == "--limit"] == [
        "dp=0.05",
        "dpr=0.8",
    ]


@pytest.mark.usefixtures("untrainable")
def test_one_limit_twice(call: Callable[..., Outcome]) -> None:
    """Two different limits of one metric are refused; neither is dropped in silence."""
    outcome = call(*CREDIT, "--limit", "dp=0.01", "--limit", "dp=0.5")
    assert outcome.code == 2
    assert outcome.err.startswith("error[option-limit]: ")


@pytest.mark.parametrize("part", ["train", "valid", "test"])
@pytest.mark.parametrize("contribution", ["signed", "absolute"])
def test_paths_add_up(
    part: str, contribution: str, call: Callable[..., Outcome], weights: Path
) -> None:
    """Biased and benign samples add up to all samples, in every group too."""
    words = ("paths", "--data", "credit", "--weights", weights, "--gamma", "0.5", "--part", part)
    outcome = call(*words, "--contribution", contribution, "--theta", "0.1", "--json")
    found = json.loads(outcome.out)
    rows = found["makeup"]
    assert outcome.code == 0
    assert found["samples"] == {"train": 700, "valid": 100, "test": 200}[part]
    assert 0 < found["biased"] < found["samples"]
    assert all(row["biased"] + row["benign"] == row["n"] for row in rows)
    assert all(row["biased_positive"] <= row["biased"] for row in rows)
    assert all(row["benign_positive"] <= row["benign"] for row in rows)
    assert sum(row["n"] for row in rows) == found["samples"]
    assert sum(row["biased"] for row in rows) == found["biased"]
    assert found["paths"] + found["largest"] <= found["samples"] + 1
    assert found["alone"] <= found["biased"]
    assert (found["gamma"], found["theta"], found["part"]) == (0.5, 0.1, part)


def test_paths_prints_the_same_figures(call: Callable[..., Outcome], weights: Path) -> None:
    """The table of paths has the figures of its JSON."""
    words = ("paths", "--data", "credit", "--weights", weights, "--gamma", "0.5", "--theta", "0.1")
    found, text = json.loads(call(*words, "--json").out), call(*words).out
    assert found["sentence"] in " ".join(text.split())
    for row in found["makeup"]:
        share = f"{row['biased'] / row['n']:.1%}"
        figures = rf"{row['group']} +{row['n']} +{row['biased']} +{row['benign']} +{share} "
        assert re.search(figures, text)


def test_paths_lists_over_represented_neurons(call: Callable[..., Outcome], weights: Path) -> None:
    """The biased cluster and each group have neurons with counts; the tables have those of JSON."""
    words = ("paths", "--data", "credit", "--weights", weights, "--gamma", "0.5", "--theta", "0.1")
    found, text = json.loads(call(*words, "--json").out), call(*words, "--top", "3").out
    sides = found["over_represented"]
    groups = {row["group"]: row["n"] for row in found["makeup"]}
    assert sides[0]["n"] == found["biased"]
    assert {side["inside"]: side["n"] for side in sides[1:]} == groups
    assert all(side["n"] + side["others_n"] == found["samples"] for side in sides)
    assert all(0 < len(side["neurons"]) <= 20 for side in sides)
    assert max(len(side["neurons"]) for side in sides) > 3
    for side in sides:
        for use in side["neurons"][:3]:
            assert (use["feature"] is None) == (use["layer"] != "input")
            name = re.escape(use["feature"] or str(use["unit"]))
            inside = rf"{use['count']}/{side['n']} +{use['share']:.1%}"
            outside = rf"{use['others_count']}/{side['others_n']} +{use['others_share']:.1%}"
            assert re.search(rf"{use['layer']} +{name} +{inside} +{outside} +\+", text)
    assert len(re.findall(r"\d/\d", text)) == 2 * sum(min(3, len(s["neurons"])) for s in sides)


def test_paths_marks_no_finding_where_chance_explains_all(
    call: Callable[..., Outcome], weights: Path
) -> None:
    """Where nobody is benign that is told; where no neuron passes the test, that is told too."""
    words = ("paths", "--data", "credit", "--weights", weights, "--part", "valid", "--theta", "1")
    sides = json.loads(call(*words, "--json").out)["over_represented"]
    text = call(*words).out
    assert sides[0]["undefined"] == "nobody is outside"
    assert "biased cluster (rare paths), against the benign: none, nobody is outside" in text
    for side in sides[1:]:
        none = not any(use["finding"] for use in side["neurons"])
        title = f"group {side['inside']}, against the others"
        assert (f"{title}: no finding" in text) == none


def test_paths_shows_a_path(call: Callable[..., Outcome], weights: Path) -> None:
    """The synapses of a path on demand, inputs by their names, as in JSON; else no path."""
    words = ("paths", "--data", "credit", "--weights", weights, "--gamma", "0.5")
    assert "path" not in json.loads(call(*words, "--json").out)
    path = json.loads(call(*words, "--show", "0", "--json").out)["path"]
    text = " ".join(call(*words, "--show", "0").out.split())
    assert f"Path 0 ({path['samples']} samples): {path['synapses']} synapses" in text
    assert [n["layer"] for n in path["neurons"]] == ["2", *["0"] * (len(path["neurons"]) - 1)]
    for neuron in path["neurons"]:
        (source,) = neuron["predecessors"]
        names = ", ".join(source.get("features", map(str, source["units"])))
        assert f"{neuron['layer']} {neuron['unit']} {source['layer']} {names}" in text
        assert ("features" in source) == (source["layer"] == "input")


def test_paths_refuses_an_id_that_no_path_has(call: Callable[..., Outcome], weights: Path) -> None:
    """With the ids that there are; nothing else is printed."""
    outcome = call("paths", "--data", "credit", "--weights", weights, "--show", "100000")
    assert (outcome.code, outcome.out) == (2, "")
    assert re.search(r"error\[option-path\]: .* \[0, \d+\]; got 100000\. 0 is", outcome.err)


def test_two_sensitive_columns(call: Callable[..., Outcome], tmp_path: Path) -> None:
    """Two sensitive columns give their intersections, and each column alone."""
    torch.manual_seed(0)
    inputs = load_dataset("credit", sensitive=("sex", "age")).x.shape[1]
    (tmp_path / "weights").write_bytes(weights_files.mlp_weights(mlp(inputs, (6,))))
    words = ("audit", "--data", "credit", "--weights", "weights", "--json")
    both = json.loads(call(*words, "--sensitive", "sex", "--sensitive", "age").out)
    names = {f"{sex} & {age}" for sex in ("female", "male") for age in ("25 or under", "over 25")}
    assert {group["group"] for group in both["groups"]} == names
    assert sum(group["n"] for group in both["groups"]) == both["n"] == 200
    columns = ["sex", "age"]
    assert both["sensitive"] == [*both["by_column"]] == columns
    for column, alone in both["by_column"].items():
        assert sum(group["n"] for group in alone["groups"]) == 200
        for group in alone["groups"]:
            inside = [g for g in both["groups"] if group["group"] in g["group"].split(" & ")]
            assert sum(g["n"] for g in inside) == group["n"], column
            selected = sum(g["n"] * g["selection_rate"] for g in inside)
            assert selected / group["n"] == pytest.approx(group["selection_rate"])


def test_one_sensitive_column_twice(call: Callable[..., Outcome], weights: Path) -> None:
    """A sensitive column given twice is refused, or counts once."""
    words = ("audit", "--data", "credit", "--weights", weights, "--json")
    twice = json.loads(call(*words, "--sensitive", "sex", "--sensitive", "sex").out)
    names = [group["group"] for group in twice.get("groups", [])]
    assert "error" in twice or names == ["female", "male"]


def test_json_is_all_of_stdout(call: Callable[..., Outcome], weights: Path) -> None:
    """With --json every command prints one JSON value on stdout and nothing else."""
    given = ("--data", "credit", "--weights", weights)
    for words in (
        ("audit", *given),
        ("paths", *given),
        ("data", "list"),
        ("data", "show", "credit"),
    ):
        outcome = call(*words, "--json")
        assert outcome.code == 0
        assert json.loads(outcome.out)
        assert outcome.out.startswith("{")
        assert outcome.out.endswith("}\n")
    repair = call("repair", *given, "--epochs", "1", "--out", "out", "--json")
    assert json.loads(repair.out)["configuration"]["settings"]["schedule"]["epochs"] == 1


ROWS = {"census": 32_561, "census-full": 48_842, "compas": 5_278, "credit": 1_000}


def test_data_list(call: Callable[..., Outcome]) -> None:
    """The list names all data sets with their sensitive columns."""
    shown, found = call("data", "list").out, json.loads(call("data", "list", "--json").out)
    assert set(found) == set(KNOWN) == {*ROWS, "mnist", "cifar10"}
    assert set(SOURCES) == set(ROWS)
    for name, source in SOURCES.items():
        assert re.search(rf"^ *{name} ", shown, re.MULTILINE)
        assert found[name] == {"title": source.title, "sensitive": [*source.sensitive]}


@pytest.mark.parametrize("name", ROWS)
def test_data_show(name: str, call: Callable[..., Outcome]) -> None:
    """A data set is shown with its rows, its groups, its licence and whom to cite."""
    found, source = json.loads(call("data", "show", name, "--json").out), SOURCES[name]
    text = " ".join(call("data", "show", name).out.split())
    assert found["rows"] == ROWS[name]
    assert found["licence"] == source.licence
    assert found["cite"] == source.citation
    assert f"licence: {source.licence}" in text
    assert f"cite: {source.citation}" in text
    assert list(found["groups"]) == list(source.sensitive)
    for column, groups in found["groups"].items():
        assert sum(group["n"] for group in groups) == ROWS[name]
        for group in groups:
            share = f"{group['positive'] / group['n']:.1%}"
            assert f"{column} {group['group']} {group['n']} {share}" in text


def test_version(call: Callable[..., Outcome]) -> None:
    """The version is that of the package."""
    from importlib.metadata import version

    assert call("--version").out.strip() == version("fairneuron")


def test_module_is_the_command(call: Callable[..., Outcome], tmp_path: Path) -> None:
    """``python -m fairneuron`` is the console script."""
    done = subprocess.run(
        [sys.executable, "-m", "fairneuron", "--version"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.strip() == call("--version").out.strip()


@pytest.mark.parametrize("words", [(), ("data",)])
def test_no_words_show_the_help(words: tuple[str, ...], tmp_path: Path) -> None:
    """Without a command the help comes, and no error that says nothing."""
    outcome = finish(start(*words, cwd=tmp_path))
    assert outcome.code == 2
    assert "error" not in outcome.err
    assert "Usage: fairneuron" in outcome.out + outcome.err
