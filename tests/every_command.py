"""Every command on a table, in one process that is kept from the network; what each comes to.

``python -m tests.every_command`` reads folders and words as JSON and prints the outcomes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main

from tests.fuzzing import Outcome, command
from tests.test_cli import environment

QUICK = ("--hidden", "6", "--epochs", "1")
_NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethost", "socket.send")
_DENIED: list[str] = []


@dataclass(frozen=True)
class Ran:
    """What all commands came to, by name; which of them asked for the network; left temporaries."""

    folder: Path
    outcomes: dict[str, Outcome]
    denied: list[str]
    temporary: list[str]


def commands(table: str, roles: Sequence[str], run: str = "R") -> dict[str, tuple[str, ...]]:
    """Every command but those on Ray, of a table in the current folder, in an order that works.

    Args:
        table: The file. Beside it there must be ``predictions.csv``, ``weights.pkl``.
        roles: The options that say what its columns are.
        run: What the run folder is called.
    """
    own = ("--data", table, *roles)
    total = hashlib.sha256(Path("weights.pkl").read_bytes()).hexdigest()
    repaired = ("repair", *own, *QUICK)
    compared = ("compare", *own, "--hidden", "6", "--seeds", "1", "--criteria", "dp,eo")
    methods = ("--methods", "fairneuron,reweighing,linear-post", "--workers", "1")
    return {
        "version": ("--version",),
        "data list": ("data", "list"),
        "data show": ("data", "show", table),
        "data show, ours": ("data", "show", "credit"),
        "data export": ("data", "export", "credit", f"{run}-credit.csv"),
        "init": ("init", table, *_for_init(roles), "--out", f"{run}.toml"),
        "audit": ("audit", *own, "--hidden", "6", "--report", f"{run}-audit.html"),
        "audit in JSON": ("audit", *own, "--hidden", "6", "--json"),
        "audit of predictions": ("audit", *own, "--predictions", "predictions.csv"),
        "audit as a gate": (
            *("audit", *own, "--predictions", "predictions.csv", "--limit", "dp=0"),
            *("--limit", "dpr=1", "--annotations", "--junit", f"{run}-gate.xml"),
        ),
        "paths": ("paths", *own, "--hidden", "6", "--show", "0"),
        "paths in JSON": ("paths", *own, "--hidden", "6", "--show", "0", "--json"),
        "repair": (*repaired, "--out", run),
        "repair by paths": (*repaired, "--recipe", "paper", "--json", "--out", f"{run}-paper"),
        "predict": ("predict", run, table, "--out", f"{run}-predicted.csv"),
        "choose": ("choose", run, "--limit", "dp=0.3"),
        "search": (
            "search",
            *own,
            *QUICK,
            "--samples",
            "2",
            "--json",
            "--out",
            f"{run}-search.json",
        ),
        "search, shown": ("search", *own, *QUICK, "--samples", "1"),
        "compare": (*compared, *methods, "--out", f"{run}-compared"),
        "reproduce": (
            "reproduce",
            "table3",
            "--data",
            "credit",
            "--quick",
            "--out",
            f"{run}-again",
        ),
        "resume": ("resume", run),
        "convert": ("convert", "weights.pkl", "--sha256", total, "--out", f"{run}-w.safetensors"),
    }


def _for_init(roles: Sequence[str]) -> list[str]:
    """The options among these that ``init`` has, too."""
    pairs = zip(roles[::2], roles[1::2], strict=True)
    return [w for pair in pairs if pair[0] not in ("--drop", "--intended-use") for w in pair]


def run_all(folder: Path, asked: dict[str, tuple[str, ...]]) -> Ran:
    """Runs them, in a process without a network as far as the machine lets us take it away."""
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    unshare = [shutil.which("unshare") or "", "--map-root-user", "--net"]
    alone = subprocess.run([*unshare, "true"], check=False) if unshare[0] else None  # noqa: S603
    prefix = unshare if alone is not None and alone.returncode == 0 else []
    done = subprocess.run(  # noqa: S603  # our own code
        [*prefix, sys.executable, "-m", "tests.every_command", folder],
        input=json.dumps(asked),
        cwd=Path(__file__).parents[1],
        env=environment(TMPDIR=str(temporary), MPLCONFIGDIR=str(folder.parent / "matplotlib")),
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    outcomes = {name: Outcome(*outcome) for name, outcome in found["outcomes"].items()}
    left = sorted(str(path) for path in temporary.rglob("*") if path.is_file())
    return Ran(folder, outcomes, found["denied"], left)


def denied(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook that lets nobody use the network; sockets between processes are none."""
    internet = event == "socket.__new__" and args[1] in (socket.AF_INET, socket.AF_INET6)
    if internet or event.startswith(_NETWORK):
        _DENIED.append(f"{event} {args[1:]!r:.80}")
        raise PermissionError("no network here")


def main(folder: str) -> None:
    """Runs the commands that are given as JSON, one after the other."""
    os.chdir(folder)
    sys.addaudithook(denied)
    typer.main.get_command = functools.cache(typer.main.get_command)
    outcomes = {name: command(Path(), *words) for name, words in json.load(sys.stdin).items()}
    found = {name: (one.code, one.out, one.err) for name, one in outcomes.items()}
    json.dump({"outcomes": found, "denied": _DENIED}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
