"""The documentation cannot drift from the code."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line
    for kind, block in BLOCKS
    for line in block.splitlines()
    if not kind and line.startswith("fairneuron")
]


def test_the_two_commands_exist_and_can_be_run() -> None:
    """The README names them, and they are executable files that set themselves up."""
    for name in ("demo", "test"):
        script = ROOT / "scripts" / name
        assert f"\nscripts/{name}\n" in README
        assert os.access(script, os.X_OK)
        assert "scripts/setup" in script.read_text()


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """As printed in the README, and says what the text around it says."""
    example, _ = [block for kind, block in BLOCKS if kind == "python"]
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102  # our own file
    assert names["after"].metrics["dp"] < names["before"].metrics["dp"]
    assert names["biased"].shape == (len(names["train"]),)
    said = capsys.readouterr().out
    assert "hidden neurons" in said
    assert "on test data" in said


def test_the_scikit_learn_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """As printed in the README; its figures are about those beside it."""
    _, example = [block for kind, block in BLOCKS if kind == "python"]
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102  # our own file
    figure = r"(0\.\d+)"
    said = re.search(f"accuracy {figure}, DP {figure}", capsys.readouterr().out)
    printed = re.search(f"# {figure}, {figure}; without groups {figure}, {figure}", example)
    assert said is not None
    assert printed is not None
    accuracy, gap = map(float, said.groups())
    assert abs(accuracy - float(printed[1])) < 0.02
    assert abs(gap - float(printed[2])) < 0.05


@pytest.mark.parametrize("command", [c for c in COMMANDS if "census" not in c])
def test_the_quick_command_lines_run(command: str, tmp_path: Path) -> None:
    """As printed in the README; exit code 0."""
    tool = Path(sys.executable).with_name("fairneuron")
    done = subprocess.run(  # noqa: S603
        [tool, *command.split()[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_in_the_readme_exists(command: str) -> None:
    """In the help of its command."""
    words = command.split()
    tool = Path(sys.executable).with_name("fairneuron")
    env = os.environ | {"COLUMNS": "200"}
    help_text = subprocess.run(  # noqa: S603
        [tool, words[1], "--help"], capture_output=True, text=True, check=True, env=env
    ).stdout
    for option in (word for word in words if word.startswith("--")):
        assert option in help_text


def test_links_lead_somewhere() -> None:
    """Every relative link in the README and the docs."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = re.sub(r"`[^`]*`", "", page.read_text())
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert target.startswith("https://") or (page.parent / target).exists(), (page, target)


def test_the_effect_page_names_a_command_that_exists() -> None:
    """Figures come with the command that made them."""
    page = (ROOT / "docs" / "effect.md").read_text()
    (script,) = set(re.findall(r"python (experiments/\w+\.py)", page))
    assert (ROOT / script).exists()


def test_the_figures_of_the_readme_are_those_of_the_effect_page() -> None:
    """Each pair of figures in the README's table stands in the same row of the page's tables."""
    page = (ROOT / "docs" / "effect.md").read_text()
    rows = re.findall(r"\| \*{0,2}([\w -]+)\*{0,2} \| (0\.\d+ / 0\.\d+) \|", README)
    assert len(rows) >= 5
    for method, figures in rows:
        found = [line for line in page.splitlines() if re.match(rf"\| \*{{0,2}}{method}\b", line)]
        assert any(f" {figures} " in line for line in found), (method, figures)


def test_the_page_on_paths_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its programs run one after the other, and their own assertions hold."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "paths.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(programs) > 4
    names: dict = {}
    for program in programs:
        exec(compile(program, "paths.md", "exec"), names)  # noqa: S102  # our own file
    assert names["merged"].counts.tolist() == names["paths"].counts.tolist()


def test_the_performance_page_is_what_its_command_writes() -> None:
    """It names the command, and has every section of it."""
    page = (ROOT / "docs" / "performance.md").read_text()
    assert "Made by `scripts/benchmark`" in page
    assert "benchmarks/report.py" in (ROOT / "scripts" / "benchmark").read_text()
    sections = [p.read_text() for p in (ROOT / "benchmarks").glob("*.py")]
    titles = {t for text in sections for t in re.findall(r'TEXT = """## (.*)', text)}
    assert len(titles) == 5
    assert {f"## {title}" in page for title in titles} == {True}


YOUR_DATA = (ROOT / "docs" / "your-data.md").read_text()
STEPS = re.findall(r"```(sh|python)\n(.*?)```", YOUR_DATA, flags=re.DOTALL)


def test_the_page_on_your_own_data_is_the_first_link() -> None:
    """The README sends people with data of their own there before any other page."""
    assert re.findall(r"\]\((docs/[^)#]+)", README)[0] == "docs/your-data.md"


def test_the_page_on_your_own_data_runs(tmp_path: Path) -> None:
    """Each of its commands and programs runs, in the order of the page, in an empty folder."""
    assert len(STEPS) > 15
    tools = Path(sys.executable).parent
    env = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    for kind, block in STEPS:
        if kind == "python" and block.startswith("# nets.py"):
            (tmp_path / "nets.py").write_text(block)
            continue
        words = [["python", "-c", block]]
        if kind == "sh":
            words = [shlex.split(line) for line in block.splitlines()]
        for command in words:
            done = subprocess.run(  # noqa: S603
                [tools / command[0], *command[1:]],
                cwd=tmp_path,
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            verdict = command[1] in ("repair", "choose")
            assert done.returncode in ((0, 1) if verdict else (0,)), (command, done.stderr)
