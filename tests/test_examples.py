"""The examples run, and their notebooks are what they are made from."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.test_docs import README, ROOT

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("[0-9]*.py"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MLFLOWS_OWN = "ignore:The ``noload`` loader strategy is deprecated"
LARGEST = 300_000  # bytes of a notebook


def notebook(path: Path) -> dict[str, Any]:
    """A notebook as plain values."""
    return json.loads(path.read_text(encoding="utf-8"))


def outputs(path: Path) -> list[dict[str, Any]]:
    """All that the cells of a notebook show."""
    return [each for cell in notebook(path)["cells"] for each in cell.get("outputs", ())]


def texts(path: Path) -> str:
    """The texts that they show, without pictures."""
    shown: list[str] = []
    for output in outputs(path):
        found = output.get("data", {"text/plain": output.get("text", "")})
        for kind, content in found.items():
            if not kind.startswith("image/"):
                shown += [content] if isinstance(content, str) else content
    return "\n".join(shown)


def test_they_are_all_there() -> None:
    """Each script has its notebook, and the README and the examples' own page name each."""
    assert [path.stem for path in SCRIPTS] == [path.stem for path in NOTEBOOKS]
    assert len(SCRIPTS) >= 5
    page = (EXAMPLES / "README.md").read_text()
    assert all(f"]({path.name})" in page for path in (*SCRIPTS, *NOTEBOOKS))
    assert "](examples/" in README


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_runs(script: Path, tmp_path: Path) -> None:
    """From top to bottom, without a warning, and leaves nothing where it was started."""
    if "mlflow" in script.name:
        pytest.importorskip("mlflow")
    pytest.importorskip("matplotlib")
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-W", "error", "-W", MLFLOWS_OWN, script],
        cwd=here,
        env=env | {"TMPDIR": str(temporary), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout) > 200
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_has_the_cells_of_the_script(script: Path) -> None:
    """The same kinds and sources, in order; made by scripts/notebooks."""
    jupytext = pytest.importorskip("jupytext")
    wanted = jupytext.reads(script.read_text(encoding="utf-8"), fmt="py:percent").cells
    found = notebook(script.with_suffix(".ipynb"))["cells"]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in found] == [
        (cell.cell_type, cell.source) for cell in wanted
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_was_run(path: Path) -> None:
    """Every cell, in order, without an error or anything on stderr."""
    code = [cell for cell in notebook(path)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert {each["output_type"] for each in outputs(path)} <= {
        *("stream", "execute_result", "display_data"),
    }
    assert all(each.get("name", "stdout") == "stdout" for each in outputs(path))
    assert len(texts(path)) > 200


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_of_no_machine_and_no_day(path: Path) -> None:
    """It is small, and has no paths, addresses of objects, dates and times of execution in it."""
    assert path.stat().st_size < LARGEST
    assert not re.search(r"/(home|tmp|root|Users|work|var)/| at 0x[0-9a-f]{4}", texts(path))
    assert not re.search(r"20\d\d[-/]\d\d[-/]\d\d|\d\d:\d\d:\d\d", texts(path))
    found = notebook(path)
    assert set(found["metadata"]) == {"kernelspec", "language_info"}
    assert all(cell["metadata"] == {} for cell in found["cells"])


@pytest.mark.parametrize(
    ("stem", "shown"),
    [
        ("01_own_data_and_model", ("Metrics", "On validation data")),
        ("04_compare_methods", ("reweighing", "few-neurons")),
    ],
)
def test_results_show_themselves(stem: str, shown: tuple[str, ...]) -> None:
    """Audits, repairs and comparisons stand in the notebooks as tables."""
    pages = [
        "".join(each["data"]["text/html"])
        for each in outputs(EXAMPLES / f"{stem}.ipynb")
        if "text/html" in each.get("data", {})
    ]
    assert all(any(f"{word}" in page for page in pages) for word in shown)


@pytest.mark.parametrize("stem", ["03_slicing_and_paths", "04_compare_methods"])
def test_there_are_pictures(stem: str) -> None:
    """Drawn by matplotlib."""
    found = outputs(EXAMPLES / f"{stem}.ipynb")
    assert any("image/png" in each.get("data", {}) for each in found)
