"""How long the package and its command take to start, beside Python itself.

python benchmarks/startup.py [--quick]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

STARTS = {
    "Python alone": ["-c", "pass"],
    "`import fairneuron`": ["-c", "import fairneuron"],
    "`import numpy`, for comparison": ["-c", "import numpy"],
    "`fairneuron --help`": ["-m", "fairneuron", "--help"],
    "`fairneuron repair --help`": ["-m", "fairneuron", "repair", "--help"],
    "`fairneuron data list`": ["-m", "fairneuron", "data", "list"],
    "`import torch`, for comparison": ["-c", "import torch"],
    "`fn.audit`": ["-c", "import fairneuron as fn; fn.audit"],
    "`fn.repair`": ["-c", "import fairneuron as fn; fn.repair"],
    "`fn.FairNeuronClassifier`": ["-c", "import fairneuron as fn; fn.FairNeuronClassifier"],
}
AIM = 0.3
TEXT = """## Starting

A fresh process, from its start to its end; medians of {turns} turns in which everything is run once. The ratio is to Python alone, of wall times of the
same turn. On a busy machine wall times grow, processor times (user and system) hardly. torch is imported when a name or a command needs it; help
and what is refused before any work do without it, and without numpy.

| | wall, s | of Python alone | processor, s |
| --- | --- | --- | --- |
{rows}

What we set ourselves for help is at most {aim} s on a quiet machine.
"""  # noqa: E501


def measured(arguments: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of Python with these arguments."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)  # noqa: S603
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def section(quick: bool = False) -> str:
    """The section of ``docs/performance.md``."""
    turns = 3 if quick else 7
    for arguments in STARTS.values():  # files into the cache, bytecode written
        measured(arguments)
    found = [{name: measured(given) for name, given in STARTS.items()} for _ in range(turns)]
    first, rows = next(iter(STARTS)), []
    for name in STARTS:
        wall, processor = (statistics.median(turn[name][i] for turn in found) for i in (0, 1))
        ratio = statistics.median(turn[name][0] / turn[first][0] for turn in found)
        rows.append(f"| {name} | {wall:.2f} | {ratio:.0f} | {processor:.2f} |")
    return TEXT.format(turns=turns, rows="\n".join(rows), aim=AIM)


def main() -> None:
    """Prints the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 turns.")
    print(section(parser.parse_args().quick))


if __name__ == "__main__":
    main()
