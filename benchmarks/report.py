"""Measures everything and writes ``docs/performance.md``.

    python benchmarks/report.py [--quick] [--out FILE]

Without a CUDA device the page keeps the section on CUDA that it had.
"""

import argparse
import platform
import re
import sys
from pathlib import Path

import gpu
import memory
import networks
import search
import similar
import slicing
import startup
import torch
import training

import fairneuron

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
INTRODUCTION = """# Performance

What slicing, training and starting cost, as ratios to something that anybody can run, measured side by side in one run. Times differ from machine to machine
and with whatever else it does; ratios less. The kernel and what it is compared with are described in [paths.md](paths.md).

Made by `scripts/benchmark` with fairneuron {version}, torch {torch}, Python {python}, on {cpu}{wide}.
"""  # noqa: E501


def processor() -> str:
    """What the machine calls it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return f"{names[0]} ({len(names)} cores)" if names else platform.processor()


def on_cuda(quick: bool) -> str:
    """Measured here, or as it was measured before."""
    if torch.cuda.is_available():
        return gpu.section(quick)
    before = PAGE.read_text() if PAGE.exists() else ""
    found = re.search(r"^## CUDA.*?(?=^## |\Z)", before, flags=re.DOTALL | re.MULTILINE)
    return found[0] if found else ""


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Small data and few turns.")
    parser.add_argument("--out", type=Path, default=PAGE, help="Where to write it.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    introduction = INTRODUCTION.format(
        version=fairneuron.__version__,
        torch=torch.__version__,
        python=platform.python_version(),
        cpu=processor(),
        wide=", few turns on small data" if options.quick else "",
    )
    sections = [introduction]
    local = (m.section for m in (slicing, networks, similar, memory, training, search, startup))
    for measure in (*local, on_cuda):
        print(f"{measure.__module__} ...", file=sys.stderr)
        sections.append(measure(options.quick))
    options.out.write_text("\n\n".join(part.strip() for part in sections if part) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()
