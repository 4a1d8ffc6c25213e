"""Makes the notebooks of the examples: runs each script, cell by cell, and keeps what it shows.

``scripts/notebooks [NAME ...]`` calls it. Times, versions of the kernel and random ids are left
out, so that a notebook changes when its script or its figures do.
"""

import argparse
import os
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

HERE = Path(__file__).parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def scripts() -> list[Path]:
    """The examples, in their order."""
    return sorted(HERE.glob("[0-9]*.py"))


def cells(script: Path) -> NotebookNode:
    """The notebook of a script, not run."""
    read = jupytext.reads(script.read_text(encoding="utf-8"), fmt="py:percent")
    made = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL}, cells=read.cells)
    for number, cell in enumerate(made.cells):
        cell.id, cell.metadata = f"{number:02d}", NotebookNode()
    return made


def executed(script: Path) -> NotebookNode:
    """The notebook of a script with what its cells show.

    Raises:
        RuntimeError: If a cell writes to stderr, where warnings and paths would stand.
    """
    made = cells(script)
    os.environ |= {"COLUMNS": "100", "PYTHONWARNINGS": "ignore:IProgress not found"}  # of tqdm
    local = Config({"KernelManager": {"transport": "ipc"}})
    client = NotebookClient(
        made, timeout=600, record_timing=False, coalesce_streams=True, config=local
    )
    client.execute()
    made.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    for cell in made.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise RuntimeError(f"{script.name}: {output.text}")
            if "text/html" in output.get("data", {}):
                output.data.pop("text/plain", None)
    return made


def main() -> None:
    """Makes those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of names, for example 03")
    names = tuple(parser.parse_args().names)
    for script in scripts():
        if not names or script.name.startswith(names):
            made = executed(script)
            nbformat.validate(made)
            nbformat.write(made, script.with_suffix(".ipynb"))
            print(script.with_suffix(".ipynb").name)


if __name__ == "__main__":
    main()
