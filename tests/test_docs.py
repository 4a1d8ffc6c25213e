"""The documentation cannot drift from the code."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fairneuron as fn
from fairneuron import baselines, metrics
from fairneuron.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))
import from_code  # noqa: E402

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
    """As printed in the README, but for the number of seeds; exit code 0."""
    command = re.sub(r"--seeds \d+", "--seeds 2" if "compare" in command else "--quick", command)
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


def test_links_to_examples_lead_to_their_pages_on_the_site() -> None:
    """In the repository to the notebook; nowhere to a page that is empty there."""
    for page in DOCS.glob("*.md"):
        text = page.read_text()
        assert not re.search(r"\]\(examples/\d", text), page
        for name in re.findall(r"\]\(\.\./examples/(\w+)\.ipynb", text):
            assert f"](examples/{name}.md" in from_code.fill(text)
            assert (DOCS / "examples" / f"{name}.md").exists()
    assert "](../examples/06_images.ipynb)" in (DOCS / "images.md").read_text()


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
    assert len(titles) == 8
    assert {f"## {title}" in page for title in titles} == {True}


YOUR_DATA = (ROOT / "docs" / "your-data.md").read_text()
STEPS = re.findall(r"```(sh|python)\n(.*?)```", YOUR_DATA, flags=re.DOTALL)


def test_the_page_on_your_own_data_is_the_first_link() -> None:
    """The README sends people with data of their own there before any other page."""
    assert re.findall(r"[^!]\[[^]]*\]\((docs/[^)#]+)", README)[0] == "docs/your-data.md"


def test_the_page_on_your_own_data_runs(tmp_path: Path) -> None:
    """Each of its commands and programs runs, in the order of the page, in an empty folder."""
    assert len(STEPS) > 15
    follow(STEPS, tmp_path)


def test_the_five_minutes_run(tmp_path: Path) -> None:
    """Each command and the program of the page run, in their order, in an empty folder."""
    steps = re.findall(r"```(sh|python)\n(.*?)```", (DOCS / "start.md").read_text(), re.DOTALL)
    assert [kind for kind, _ in steps] == ["sh", "sh", "sh", "python"]
    follow(steps, tmp_path)
    report = (tmp_path / "first" / "report.md").read_text()
    printed = re.search(r" dp +0\.(\d+) .* 0\.(\d+) \[", (DOCS / "start.md").read_text())
    measured = re.search(r"dp 0\.(\d+) → 0\.(\d+)", report)
    assert printed is not None
    assert measured is not None
    for said, found in zip(printed.groups(), measured.groups(), strict=True):
        assert abs(int(said) - int(found)) < 40


def follow(steps: list[tuple[str, str]], folder: Path) -> None:
    """Runs the commands and programs of a page in a folder."""
    tools = Path(sys.executable).parent
    env = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    for kind, block in steps:
        if kind == "python" and block.startswith("# nets.py"):
            (folder / "nets.py").write_text(block)
            continue
        words = [["python", "-c", block]]
        if kind == "sh":
            words = [shlex.split(line) for line in block.splitlines()]
        for command in words:
            done = subprocess.run(  # noqa: S603
                [tools / command[0], *command[1:]],
                cwd=folder,
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            verdict = command[1] in ("repair", "choose")
            assert done.returncode in ((0, 1) if verdict else (0,)), (command, done.stderr)


def test_how_it_works_runs_and_says_what_it_finds() -> None:
    """Its programs run one after the other; the figures in its text are about theirs."""
    page = (DOCS / "how-it-works.md").read_text()
    names: dict = {}
    for program in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(program, "how-it-works.md", "exec"), names)  # noqa: S102  # our own file
    carried, rest = names["few"].explanation, re.search(r"from \.(\d+) to \.(\d+)\. As many", page)
    assert rest is not None
    assert abs(carried.gap - int(rest[1]) / 1000) < 0.02
    assert abs(carried.gap_without - int(rest[2]) / 1000) < 0.03
    assert carried.gap_without < carried.gap_without_random

    caption = re.search(r"from (0\.\d+) to (0\.\d+), accuracy from (0\.\d+) to (0\.\d+)", README)
    assert caption is not None
    audits = [fn.audit(net, names["test"]).metrics for net in (names["net"], names["few"].model)]
    measured = [audit[metric] for metric in ("dp", "accuracy") for audit in audits]
    for said, found in zip(caption.groups(), measured, strict=True):
        assert abs(float(said) - found) < 0.03


def test_the_figures_on_choosing_are_those_that_were_measured() -> None:
    """What a limit costs is on the page of the effect; what it does to others is in Table 4."""
    page, effect = ((DOCS / f"{name}.md").read_text() for name in ("choosing", "effect"))
    rows = re.findall(
        r"^\| ([^|]+, .* input) \| (\w+) \| (\S+ / \S+) \| (\S+ / \S+) \|$", page, re.M
    )
    assert len(rows) == 9
    for data, limit, before, after in rows:
        part = re.split(rf"^## {re.escape(data)}$", effect, flags=re.MULTILINE)[1]
        table = part.split(f"| method | {limit} ")[1]
        assert f"| base model | {before} |" in table.split("fairneuron")[0]
        assert table.split("**fairneuron** |")[1].split(" | ")[2] == after
    table4 = (ROOT / "experiments" / "results" / "reproduce" / "table4.md").read_text()
    arrow = r"(0\.\d+) → (0\.\d+)"
    rows = re.findall(rf"^\| (\w+) \| {arrow} \| {arrow} \| {arrow} \|$", page, re.MULTILINE)
    assert len(rows) == 2
    for data, *figures in rows:
        part = table4.split(f"## {data.lower()}\n")[1]
        for method, pairs in (("naive", figures[::2]), ("fairneuron", figures[1::2])):
            (line,) = re.findall(rf"^\| {method} +\|.*", part, re.MULTILINE)[:1]
            cells = [cell.split()[0] for cell in line.split("|")[2:-1]]
            assert [cells[0], cells[2], cells[8]] == pairs


# The site


def test_every_page_is_in_the_contents() -> None:
    """From the first page on, the tables of contents name each page once, and no other."""
    listed = ["index"]
    for page in listed:
        text = (DOCS / f"{page}.md").read_text()
        for block in re.findall(r"```\{toctree\}\n(.*?)```", text, flags=re.DOTALL):
            for name in block.splitlines():
                if name and not name.startswith(":"):
                    found = (DOCS / page).parent.glob(f"{name}.md")
                    listed += [p.relative_to(DOCS).with_suffix("").as_posix() for p in found]
    there = [p.relative_to(DOCS).with_suffix("").as_posix() for p in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted(there)


@pytest.mark.parametrize(
    ("page", "home"),
    [
        ("index", "fairneuron"),
        ("metrics", "fairneuron.metrics"),
        ("baselines", "fairneuron.baselines"),
    ],
)
def test_the_reference_has_every_name(page: str, home: str) -> None:
    """All public names of the package and its two submodules, each once, as what they are."""
    offered = {"fairneuron": fn, "fairneuron.metrics": metrics, "fairneuron.baselines": baselines}
    text = "".join(p.read_text() for p in (DOCS / "reference").glob("*.md"))
    for name in offered[home].__all__:
        if name in ("baselines", "metrics"):
            continue
        kind = "class" if isinstance(getattr(offered[home], name), type) else "function"
        assert text.count(f".. auto{kind}:: {home}.{name}\n") == 1, name
    assert f"{home}." in (DOCS / "reference" / f"{page}.md").read_text()


PAGE = from_code.commands()
SECTIONS = dict(re.findall(r"^## fairneuron (.*)\n((?:(?!## ).*\n?)*)", PAGE, re.MULTILINE))


def help_of(*words: str) -> str:
    """What a command prints when it is asked."""
    wide = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [*words, "--help"], env=wide).stdout


def test_the_page_has_every_command() -> None:
    """The commands that the command line lists, and those below them."""
    listed = {()}
    for words in ((), ("data",)):
        box = help_of(*words).split("Commands")[1]
        listed |= {(*words, name) for name in re.findall(r"^│ ([a-z]+) ", box, re.MULTILINE)}
    assert {tuple(name.split()) for name in SECTIONS} == listed - {()}
    assert "<!-- commands -->" in (DOCS / "cli.md").read_text()


@pytest.mark.parametrize("command", SECTIONS)
def test_the_page_has_every_option(command: str) -> None:
    """The options that the command's own help lists, and no others."""
    printed = re.findall(r"^│[ *]+(--[\w-]+)", help_of(*command.split()), re.MULTILINE)
    shown = re.findall(r"^\| `(--[\w-]+)`", SECTIONS[command], re.MULTILINE)
    assert sorted(shown) == sorted({*printed} - {"--help"})


def test_the_codes_are_those_that_are_raised() -> None:
    """Errors have their code and kind in the table, and the codes that pages name are there."""
    found = from_code.found_codes()
    with pytest.raises(fn.FairNeuronError) as caught:
        fn.load_dataset("nonsense")
    assert found[caught.value.code][0] == type(caught.value).__name__
    assert found["data-nonfinite"][0] == "DataError"
    assert found["data-constant"][0] == "warning"
    named = re.findall(r"`((?:data|model|option|output)-[a-z-]+)`", YOUR_DATA)
    assert len(named) > 20
    assert {code for code in named if code not in found} == set()


def test_notebooks_are_shown_as_they_are_stored(tmp_path: Path) -> None:
    """Text, code and outputs; text of an output is never read as Markdown or HTML."""
    outputs = [
        {"output_type": "stream", "text": ["a < *b*\n", "```\n"]},
        {"output_type": "display_data", "data": {"image/png": "iVBO\n", "text/plain": "Figure"}},
        {"output_type": "execute_result", "data": {"text/html": "<p>gap</p>", "text/plain": "x"}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text."]},
        {"cell_type": "code", "source": "print(1)", "outputs": outputs},
    ]
    (tmp_path / "x.ipynb").write_text(json.dumps({"cells": cells}))
    page = from_code.notebook(tmp_path / "x.ipynb")
    assert page.startswith("# Title\nText.\n\n````python\nprint(1)\n````")
    assert "<pre>a &lt; *b*\n```</pre>" in page
    assert 'src="data:image/png;base64,iVBO"' in page
    assert "<p>gap</p>" in page
    assert "Figure" not in page


def test_every_notebook_has_a_page() -> None:
    """For ``examples/x.ipynb`` there is ``docs/examples/x.md``, which shows it."""
    for path in (ROOT / "examples").glob("*.ipynb"):
        page = DOCS / "examples" / f"{path.stem}.md"
        assert page.read_text() == f"<!-- notebook examples/{path.name} -->\n"


def test_the_pictures_are_those_that_the_script_draws() -> None:
    """Each is shown on a page, with words for those who do not see it."""
    drawn = set(re.findall(r'^        "(\w+)": ', (DOCS / "pictures.py").read_text(), re.MULTILINE))
    pages = README + "".join(page.read_text() for page in DOCS.glob("*.md"))
    shown = re.findall(r"!\[([^]]+)\]\((?:docs/)?pictures/(\w+)\.svg\)", pages)
    assert {name for _, name in shown} == drawn
    assert {path.stem for path in (DOCS / "pictures").glob("*.svg")} == drawn
    assert all(len(words) > 40 for words, _ in shown)


def test_the_site_is_built_strictly_and_in_continuous_integration() -> None:
    """Warnings are errors, and the result is not committed."""
    script = (ROOT / "scripts" / "docs").read_text()
    assert os.access(ROOT / "scripts" / "docs", os.X_OK)
    assert "--fail-on-warning" in script
    assert "docs build/docs" in script
    assert "build/" in (ROOT / ".gitignore").read_text().split()
    assert "scripts/docs" in (ROOT / ".ci" / "run").read_text()
