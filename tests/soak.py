"""Much of what the tests do a little of: kills, hostile files, random input, and the page about it.

    scripts/soak [--minutes N] [--kills N] [--write] [NAME ...]

``--write`` puts the figures into ``docs/guarantees.md``. With names, or with ``--once``, only
random input is tried, see ``tests/fuzzing.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests import fuzzing
from tests.kills import COMMANDS
from tests.test_hostile import HARMLESS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "guarantees.md"
BEGIN, END = "<!-- made by scripts/soak --write -->\n", "<!-- until here -->\n"


def main() -> int:
    """All three, one after the other; the first failure ends it with an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="scripts/soak")
    parser.add_argument("--minutes", type=float, default=30, help="of random input")
    parser.add_argument("--kills", type=int, default=70, help="at random instants, per command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"the figures into {PAGE.name}")
    given, others = parser.parse_known_args()
    if others:
        return fuzzing.main()
    lines = ["| what | how often | what went wrong |", "| --- | --- | --- |"]
    for step in (
        lambda: killed("at every boundary of its writing", "boundaries"),
        lambda: killed("at random instants", "random", str(given.kills), str(given.seed)),
        lambda: [hostile()],
        lambda: fuzzed(given.minutes),
    ):
        rows = step()
        sys.stdout.write("\n".join([*rows, ""]))
        sys.stdout.flush()
        lines += rows
    table = "\n".join(lines)
    if given.write:
        write(table)
    return 0


def killed(when: str, *words: str) -> list[str]:
    """Rows of runs that were killed with SIGKILL and went on."""
    found = run("tests.kills", *words, threads={"OMP_NUM_THREADS": "1"})
    wrong = [f"{name}: {one}" for name, each in found.items() for one in each["other results"]]
    if wrong or found.keys() != COMMANDS.keys():
        raise SystemExit("\n".join(wrong))
    return [
        f"| {name}, killed {when}, then gone on with | {each['kills']:,} | other results: 0 |"
        for name, each in found.items()
    ]


def hostile() -> str:
    """The row of files that want to run code, fill the memory or mislead a reader."""
    found = run("tests.hostile")
    tried = found["found"]
    seen = [one for one in tried if one[5] and (one[0], one[1]) not in HARMLESS]
    if seen or found["left"]:
        raise SystemExit(f"ran or left something: {seen[:3]}, {found['left']}")
    files, readers = len({one[0] for one in tried}), len({one[1] for one in tried})
    return (
        f"| hostile files: {files} of them, given to {readers} readers | {len(tried):,} "
        "| code that ran, programs, connections, files left: 0 |"
    )


def fuzzed(minutes: float) -> list[str]:
    """The rows of random and damaged input."""
    words = [sys.executable, "-m", "tests.fuzzing", "--minutes", str(minutes)]
    done = subprocess.run(  # noqa: S603  # our own code
        words, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8", check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout)
    counts = re.findall(r"([\w -]+): (\d+)", done.stdout.splitlines()[-1])
    return [
        f"| random input: {name.strip()} | {int(count):,} | neither success nor a coded error: 0 |"
        for name, count in counts
    ]


def run(module: str, *words: str, threads: dict[str, str] | None = None) -> Any:
    """What one of our modules says, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603  # our own code
            [sys.executable, "-m", module, folder, *words],
            cwd=ROOT,
            env=os.environ | (threads or {}),
            stdout=subprocess.PIPE,
            encoding="utf-8",
            check=True,
        )
    return json.loads(done.stdout)


def write(table: str) -> None:
    """Puts the table into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    versions = ", ".join(f"{name} {version(name)}" for name in ("fairneuron", "torch"))
    made = f"On {date.today()}, with {versions}, Python {platform.python_version()}."
    PAGE.write_text(f"{before}{BEGIN}{made}\n\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
