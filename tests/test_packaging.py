"""What is given to people: the wheel, the sdist, and what they say of themselves."""

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import fairneuron as fn
from fairneuron.kernel import extension

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "fairneuron"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {"images", "mlflow", "parquet", "peers", "plots", "ray"}
PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist; the wheel is built of the unpacked sdist alone."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def in_wheel(built: tuple[Path, Path]) -> set[str]:
    """Names of the files in the wheel."""
    return set(zipfile.ZipFile(built[0]).namelist())


@pytest.fixture(scope="module")
def metadata(built: tuple[Path, Path]) -> Message:
    """What the wheel says of itself."""
    with zipfile.ZipFile(built[0]) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        return message_from_string(wheel.read(name).decode())


def test_the_wheel_has_every_file_of_the_package(in_wheel: set[str]) -> None:
    """Code, data, style sheets and py.typed; of C++ only what was compiled."""
    wanted = {
        f"fairneuron/{path.relative_to(SOURCE).as_posix()}"
        for path in SOURCE.rglob("*")
        if path.is_file()
        and path.suffix not in (".cpp", ".h", ".so", ".pyd", ".pyc")
        and not path.name.startswith(".")
    }
    package = {name for name in in_wheel if name.startswith("fairneuron/")}
    assert {"fairneuron/py.typed", "fairneuron/report/page.css"} <= wanted
    assert package - {n for n in package if "/_kernel." in n} == wanted


def test_the_wheel_has_nothing_else(in_wheel: set[str]) -> None:
    """No tests, no caches, no other top-level package."""
    top = {name.split("/")[0] for name in in_wheel}
    assert top == {"fairneuron", f"fairneuron-{fn.__version__}.dist-info"}
    assert not [name for name in in_wheel if re.search(r"(^|/)(tests?/|test_|__pycache__)", name)]


@pytest.mark.skipif(extension() is None, reason="no C++ compiler")
def test_the_wheel_has_the_compiled_kernel(built: tuple[Path, Path], in_wheel: set[str]) -> None:
    """One file for every Python from 3.11 on, which the wheel's name says."""
    (kernel,) = [name for name in in_wheel if "/_kernel." in name]
    assert kernel.endswith((".abi3.so", ".pyd"))
    assert "-cp311-abi3-" in built[0].name


def test_the_sdist_can_be_tested(built: tuple[Path, Path]) -> None:
    """It has what the tests and the pages need, and no file that was made here."""
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    pages = re.findall(r"\]\((?:\.\./)?([A-Z]+\.md|LICENSE)", (ROOT / "README.md").read_text())
    assert {*pages, "LICENSE", "CHANGELOG.md", "setup.py"} <= names
    assert {"src/fairneuron/_kernel.cpp", "src/fairneuron/_rows.h"} <= names
    for folder in ("tests", "scripts", "benchmarks", "experiments"):
        tracked = {
            p.relative_to(ROOT).as_posix()
            for p in (ROOT / folder).rglob("*")
            if p.is_file() and "__pycache__" not in p.parts and p.suffix in ("", ".py", ".md")
        }
        assert tracked <= names, sorted(tracked - names)[:5]
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


def test_the_metadata(metadata: Message) -> None:
    """Name, version, licence, and a description that is the README."""
    assert (metadata["Name"], metadata["Version"]) == ("fairneuron", fn.__version__)
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text().strip()


def test_pythons(metadata: Message) -> None:
    """Those that are named are those that are allowed, the running one among them."""
    allowed = SpecifierSet(metadata["Requires-Python"])
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(metadata.get_all("Classifier")))
    assert tuple(named) == PYTHONS
    assert all(f"{version}.0" in allowed for version in PYTHONS)
    assert "3.10.14" not in allowed
    assert f"{sys.version_info.major}.{sys.version_info.minor}.0" in allowed


def test_the_oldest_python_can_read_the_source() -> None:
    """No syntax of later ones."""
    major, minor = map(int, PYTHONS[0].split("."))
    for path in SOURCE.rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), path.name, feature_version=(major, minor))
    with pytest.raises(SyntaxError):
        ast.parse("type A = int", feature_version=(major, minor))  # of 3.12


def test_extras(metadata: Message) -> None:
    """Those that the documentation names; none is needed, and we test with all of them."""
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    assert set(metadata.get_all("Provides-Extra")) >= EXTRAS | {"dev"}
    needed = {r.name for r in requirements if r.marker is None}
    assert needed == {Requirement(text).name for text in PROJECT["dependencies"]}
    extra = {r.name for r in requirements if r.marker is not None}
    assert not needed & extra
    ours = [Requirement(r) for r in PROJECT["optional-dependencies"]["dev"] if "fairneuron[" in r]
    assert ours[0].extras == set(PROJECT["optional-dependencies"]) - {"dev"}


def test_every_requirement_has_a_lower_bound() -> None:
    """And no upper one: what is installed decides, as the tests see it."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in (Requirement(text) for group in groups for text in group):
        if requirement.name != "fairneuron":
            assert {s.operator for s in requirement.specifier} == {">="}, requirement


def test_the_script_that_tries_the_wheel() -> None:
    """It can be run, is part of continuous integration, and uses the torch of the setup."""
    script = ROOT / "scripts" / "wheel"
    assert os.access(script, os.X_OK)
    assert re.search(r"^scripts/wheel$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert re.search(r"torch==\d", (ROOT / "scripts" / "setup").read_text())
