"""Runs that are killed and go on: at every boundary of their writing, and at random instants.

``python -m tests.kills FOLDER boundaries`` or ``… random N [SEED]`` prints as JSON how many kills
there were of each command, and after which of them the result was another one.

A boundary is where a process touches the disk below the folder: each is found by an audit hook, and
around each step of a state. The runs are forks of this process, which has imported all but computed
nothing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

COMMANDS: dict[str, tuple[str, ...]] = {
    "repair": (
        *("repair", "--data", "loans.csv", "--target", "y", "--positive", "1"),
        *("--sensitive", "group", "--hidden", "6", "--neuron-share", "0.5"),
    ),
    "repair, recipe paper": (
        *("repair", "--data", "credit", "--hidden", "6", "--recipe", "paper"),
        *("--gamma", "0.6,0.9", "--theta", "0.01,0.1", "--epochs", "2"),
    ),
    "compare": (
        *("compare", "--data", "loans.csv", "--target", "y", "--positive", "1"),
        *("--sensitive", "group", "--hidden", "6", "--methods", "naive,reweighing"),
        *("--seeds", "2", "--criteria", "dp", "--workers", "1", "--no-plots"),
    ),
}
TIMES = {"seconds", "cpu_seconds", "cost", "cpu_cost", "timings.json", "sha256"}
_MUTATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def main() -> None:
    """Kills, and prints what came of it."""
    folder, what, *numbers = sys.argv[1:]
    os.chdir(folder)
    write_table(Path("loans.csv"))
    import_all()
    result = {
        name: boundaries(words)
        if what == "boundaries"
        else random_instants(words, int(numbers[0]), int((*numbers, 0)[1]))
        for name, words in COMMANDS.items()
    }
    sys.stdout.write(json.dumps(result) + "\n")


def write_table(path: Path) -> None:
    """A small table whose group plays a part in the label."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 400)
    a, b = rng.normal(size=(2, 400)).round(3)
    y = (a + group + rng.normal(size=400) > 0.5).astype(int)
    pd.DataFrame({"a": a, "b": b, "group": np.array(["p", "q"])[group], "y": y}).to_csv(
        path, index=False
    )


def import_all() -> None:
    """What the commands need, on one thread: threads do not survive a fork."""
    import torch
    import torch._dynamo  # which optimisers import when they are used first

    torch.set_num_threads(1)
    import fairneuron.cli
    import fairneuron.compare.comparison
    import fairneuron.runs  # noqa: F401


def boundaries(words: tuple[str, ...]) -> dict[str, Any]:
    """A kill at each boundary."""
    expected = uninterrupted(words)
    at, wrong = 0, []
    while finish(begin(words, at)) == -signal.SIGKILL:
        if difference := resumed(words, expected):
            wrong.append(f"boundary {at}: {difference}")
        at += 1
    shutil.rmtree("out")
    return {"kills": at, "other results": wrong}


def random_instants(words: tuple[str, ...], count: int, seed: int) -> dict[str, Any]:
    """Kills at random instants; runs that were over before are not counted."""
    start = time.monotonic()
    expected = uninterrupted(words)
    longest, rng = time.monotonic() - start, random.Random(seed)  # noqa: S311  # no secret
    kills, wrong = 0, []
    while kills < count:
        process = begin(words)
        time.sleep(rng.uniform(0, longest))
        os.kill(process, signal.SIGKILL)
        if finish(process) == -signal.SIGKILL:
            kills += 1
            if difference := resumed(words, expected):
                wrong.append(f"kill {kills}: {difference}")
        shutil.rmtree("out", ignore_errors=True)
    return {"kills": kills, "other results": wrong}


def uninterrupted(words: tuple[str, ...]) -> dict[str, Any]:
    """The result of a run that nothing stops."""
    code = finish(begin(words))
    assert code in (0, 1), code
    return taken()


def resumed(words: tuple[str, ...], expected: dict[str, Any]) -> str:
    """What differs after a run that was killed goes on; "" if nothing does."""
    left = has_command()
    code = finish(begin(("resume", "out") if left else (*words, *FRESH.get(words[0], ()))))
    if code not in (0, 1):
        return f"exit code {code} of {'resume' if left else 'the command'}"
    found = taken()
    return ", ".join(
        name for name in {**expected, **found} if found.get(name) != expected.get(name)
    )


def has_command() -> bool:
    """Whether there is a state that says which command it is of; a kill can come before that.

    A copy is asked: who opens a state without steps removes it.
    """
    from fairneuron.state import FILES, State

    there = [Path("out", name) for name in FILES if Path("out", name).exists()]
    with tempfile.TemporaryDirectory() as folder:
        for path in there:
            shutil.copy(path, folder)
        with State(Path(folder)) as state:
            return state.has("of/command")


FRESH = {"repair": ("--overwrite",)}
"""For runs that were killed when all was written."""


def taken() -> dict[str, Any]:
    """The files of the result, but for times; they are removed."""
    files: dict[str, Any] = {}
    for path in sorted(Path("out").iterdir()):
        if path.is_dir():
            files[path.name] = "a folder"
            continue
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            lines = [content] if path.suffix == ".json" else content.splitlines()
            files[path.name] = [without_times(json.loads(line)) for line in lines]
        elif path.suffix != ".md" or path.name == "report.md":  # pages of comparisons show times
            files[path.name] = content
    files.pop("timings.json", None)
    shutil.rmtree("out")
    files["."] = sorted(path.name for path in Path().iterdir())
    return files


def without_times(value: Any) -> Any:
    """Plain values without what a clock says."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def begin(words: tuple[str, ...], at: int | None = None) -> int:
    """A process that runs a command into ``out``, killed at a boundary."""
    process = os.fork()
    if process:
        return process
    code: Any = 0
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        if "KILLS_SHOWN" not in os.environ:
            os.dup2(silent, 2)
        if at is not None:
            watch(at)
        out = () if words[0] == "resume" else ("--out", "out")
        sys.argv = ["fairneuron", *words, *out]
        from fairneuron.cli import main as run

        run()
    except SystemExit as end:
        code = end.code
    except BaseException:
        code = 99
    os._exit(code or 0)


def finish(process: int) -> int:
    """The exit code, negative for signals."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def watch(at: int) -> None:
    """Kills this process at the boundary with that number."""
    from fairneuron.state import State

    here, passed = Path.cwd(), 0

    def boundary() -> None:
        nonlocal passed
        if passed == at:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _MUTATIONS or not isinstance(arguments[0], (str, os.PathLike)):
            return
        below = (here / os.fspath(arguments[0])).is_relative_to(here)
        if below and (event != "open" or _writes(arguments)):
            boundary()

    sys.addaudithook(hook)
    write: Callable[..., None] = State._write

    def written(self: State, name: str, value: bytes) -> None:
        boundary()
        write(self, name, value)
        boundary()

    State._write = written  # type: ignore[method-assign]


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return bool(set(mode or "") & set("wax+")) or bool(flags & (os.O_WRONLY | os.O_RDWR))


if __name__ == "__main__":
    main()
