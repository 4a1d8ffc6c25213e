"""Options from the environment and from a file; the file that ``init`` writes."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer.main

from fairneuron import cli
from fairneuron.commands import init as init_module
from fairneuron.commands.audit import audit
from fairneuron.configuration import (
    _OTHERS,
    ASKED,
    FILE,
    SHARED,
    Option,
    from_environment,
    from_file,
)
from fairneuron.configured import known_options
from fairneuron.data.roles import find_roles
from tests.test_cli import Outcome, call, groups_and_commands  # noqa: F401  # a fixture
from tests.test_resume import stop  # noqa: F401  # a fixture

PLAIN = {
    *("data", "train", "valid", "test", "split-column", "target", "positive", "outcome"),
    *("sensitive", "include-sensitive", "drop", "type", "weight-column", "delimiter", "weights"),
    *("hidden", "outputs", "threshold", "intended-use", "seed", "limit", "recipe"),
    *("neuron-share", "strengths", "gamma", "theta", "dropout", "drop-neurons", "epochs"),
    *("class-weight", "time-budget", "interactive", "part", "predictions", "prediction", "score"),
    *("annotations", "contribution", "top", "show", "methods", "seeds", "first-seed", "criteria"),
    *("reference", "workers", "no-plots", "samples", "grid", "share", "score-weights", "resources"),
    *("quick", "level", "layers", "similarity", "sample"),
}
"""Keys that import no code, send nothing, and choose no place to write to."""
Call = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variables of a person who runs the tests."""
    for name in os.environ:
        if name.startswith("FAIRNEURON_") and name not in _OTHERS:
            monkeypatch.delenv(name)


def known() -> dict[str, dict[str, Option]]:
    """What every command takes."""
    app = typer.main.get_command(cli.app)
    context: Any = SimpleNamespace(find_root=lambda: SimpleNamespace(command=app))
    return known_options(context)


def people(n: int = 400) -> pd.DataFrame:
    """A table with every kind of column."""
    rng = np.random.default_rng(5)
    sex = np.where(rng.random(n) < 0.5, "f", "m")
    number = rng.normal(size=n).round(3) + (sex == "m")
    return pd.DataFrame(
        {
            "id": np.arange(n) + 17,
            "code": [f"K{i:04}" for i in rng.permutation(n)],
            "country": "here",
            "number": number,
            "branch": np.append(rng.choice(["north", "south"], n - 1), "rareplace"),
            "age": rng.integers(18, 80, n),
            "sex": sex,
            "hired": np.where(number + rng.normal(size=n) > 0.5, "yes", "no"),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With ``people.csv``, and a file that says what its columns are."""
    people().to_csv(tmp_path / "people.csv", index=False)
    write(
        tmp_path,
        '[shared]\ndata = "people.csv"\ntarget = "hired"\npositive = "yes"\nsensitive = ["sex"]\n'
        'drop = ["id", "code"]\nhidden = "6"\nseed = 1\n[repair]\nepochs = 2\n',
    )
    return tmp_path


def write(folder: Path, text: str, name: str = FILE) -> None:
    """Writes a file of options."""
    (folder / name).write_text(text, encoding="utf-8")


def seed_of(outcome: Outcome) -> int:
    """The seed of an audit that succeeded."""
    assert outcome.code == 0, outcome.err
    seed: int = json.loads(outcome.out)["seed"]
    return seed


# Where options come from


def test_the_words_go_before_the_environment_before_the_file(
    folder: Path,
    call: Call,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is used where those before it say nothing; in each, a command before what is shared."""
    asked = ("audit", "--json")
    assert seed_of(call(*asked)) == 1
    write(folder, (folder / FILE).read_text(encoding="utf-8") + "[audit]\nseed = 2\n")
    assert seed_of(call(*asked)) == 2
    monkeypatch.setenv("FAIRNEURON_SEED", "3")
    assert seed_of(call(*asked)) == 3
    monkeypatch.setenv("FAIRNEURON_AUDIT_SEED", "4")
    monkeypatch.setenv("FAIRNEURON_REPAIR_SEED", "9")
    assert seed_of(call(*asked)) == 4
    outcome = call(*asked, "--seed", "5")
    assert seed_of(outcome) == 5
    used = "--data --target --positive --sensitive --drop --hidden"
    assert outcome.err.splitlines()[0] == f"{FILE} (--config '' for none): {used}"


def test_values_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists have commas, flags are true or false, and what is empty is not there."""
    layer = from_environment(
        {
            "FAIRNEURON_SENSITIVE": "sex, race",
            "FAIRNEURON_INCLUDE_SENSITIVE": "TRUE",
            "FAIRNEURON_REPAIR_OVERWRITE": "0",
            "FAIRNEURON_SEED": "",
            "HOME": "x",
        },
        known(),
    )
    assert layer[SHARED]["sensitive"].value == ["sex", "race"]
    assert layer[SHARED]["include-sensitive"].value is True
    assert layer["repair"]["overwrite"].value is False
    assert "seed" not in layer[SHARED]


def test_values_of_a_file(tmp_path: Path) -> None:
    """They read as on the command line; paths are relative to the file's folder."""
    write(
        tmp_path,
        '[shared]\ndata = "a.csv"\nweights = "w.pt"\npositive = 1\nsensitive = "sex"\n'
        'drop = [1, "b"]\ninclude-sensitive = true\n'
        '[repair]\nneuron-share = 0.3\nlimit = ["dp=0.1", "eo=0.1"]\n[compare]\ndata = "compas"\n',
    )
    found = from_file(str(tmp_path / FILE), known())
    values = {key: one.value for section in found.values() for key, one in section.items()}
    assert found[SHARED]["data"].value == str(tmp_path / "a.csv")
    assert values == {
        "data": "compas",
        "weights": str(tmp_path / "w.pt"),
        "positive": "1",
        "sensitive": "sex",
        "drop": ["1", "b"],
        "include-sensitive": True,
        "neuron-share": "0.3",
        "limit": ["dp=0.1", "eo=0.1"],
    }


def test_the_file_in_the_docs_is_one(tmp_path: Path) -> None:
    """Its keys are known, and its values are of their kinds."""
    page = (Path(__file__).parents[1] / "docs" / "your-data.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    write(tmp_path, text)
    found = from_file(str(tmp_path / FILE), known(), named=False)
    assert {section: [*keys] for section, keys in found.items()} == {
        SHARED: ["data", "sensitive", "include-sensitive"],
        "repair": ["limit", "hidden"],
    }


def test_a_named_file_and_none(
    folder: Path,
    call: Call,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``--config`` goes before the variable, which goes before the file of the folder."""
    (folder / "conf").mkdir()
    text = (folder / FILE).read_text(encoding="utf-8").replace('"people.csv"', '"../people.csv"')
    write(folder / "conf", text.replace("seed = 1", "seed = 6"), "a.toml")
    write(folder / "conf", text.replace("seed = 1", "seed = 7"), "b.toml")
    monkeypatch.setenv("FAIRNEURON_CONFIG", "conf/a.toml")
    assert seed_of(call("audit", "--json")) == 6
    assert seed_of(call("audit", "--json", "--config", "conf/b.toml")) == 7
    none = call("audit", "--config", "")
    assert "error[option-data]" in none.err
    assert FILE not in none.err


def test_what_is_called_alike_is_not_shared(folder: Path, call: Call) -> None:  # noqa: F811
    """``reproduce --data`` names parts of an experiment: the table of the file is not for it."""
    outcome = call("reproduce", "table9", "--out", "r")
    assert "error[option-reproduce]" in outcome.err
    assert FILE not in outcome.err


def test_only_some_commands_read_them(folder: Path, call: Call) -> None:  # noqa: F811
    """Those that read a subject or run an experiment; others do not look at the file."""
    write(folder, "[shared")
    assert set(known()) == {SHARED, *"repair audit paths compare search reproduce".split()}
    assert call("data", "show", "people.csv").code == 0
    assert call("init", "people.csv", "--positive", "yes", "--overwrite").code == 0


# Errors

REFUSED = {
    "key": ("[repair]\nepoch = 3", "Did you mean 'epochs'?"),
    "shared key": ('[shared]\nsensitiv = "a"', "Did you mean 'sensitive'?"),
    "underscore": ('[shared]\nsplit_column = "a"', "Did you mean 'split-column'?"),
    "key of another command": ("[audit]\nepochs = 3", "'epochs'"),
    "section": ("[repiar]\nepochs = 3", "Did you mean 'repair'?"),
    "no section": ("seed = 3", "Write it below [shared]"),
    "section as a value": ("repair = 3", "must be a section"),
    "text for a number": ('[repair]\nepochs = "5"', "a whole number, such as 5"),
    "fraction for a whole number": ("[repair]\nepochs = 5.0", "got 5.0"),
    "truth for a number": ("[repair]\ntime-budget = true", "got true"),
    "text for a flag": ('[shared]\ninclude-sensitive = "no"', "true or false"),
    "truth for a text": ("[shared]\npositive = true", "in quotes"),
    "date for a text": ("[shared]\npositive = 2020-01-01", "got 2020-01-01"),
    "list for one value": ('[shared]\ntarget = ["a"]', "takes one value"),
    "section for a value": ("[shared.target]\na = 1", "got a section"),
    "list in a list": ('[shared]\ndrop = [["a"]]', "got a list"),
    "no TOML": ("[shared", "TOML in UTF-8"),
    "twice": ("[shared]\nseed = 1\nseed = 2", "TOML in UTF-8"),
    "deep": (f"[shared]\ndrop = {'[' * 3000}", "TOML in UTF-8"),
    "digits": (f"[shared]\nseed = {'9' * 5000}", "TOML in UTF-8"),
    "large": ("#" * (1 << 18) + "\n", "more than 256 KiB"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("command", ["repair", "compare"])
def test_a_bad_file_is_refused(
    text: str,
    said: str,
    command: str,
    tmp_path: Path,
    call: Call,  # noqa: F811
) -> None:
    """In a line, with rule, value and cure, whichever command it is for; nothing is written."""
    write(tmp_path, text)
    words = ("--methods", "naive") if command == "compare" else ()
    outcome = call(command, "--data", "credit", "--out", "r", *words)
    assert outcome.code == 2
    assert "error[option-config]: " in outcome.err
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert len(outcome.err) < 1000
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (lambda path: path.mkdir(), f"{FILE}, a folder."),
    "link": (lambda path: path.symlink_to(path.parent / "other.toml"), f"{FILE}, a link."),
    "dangling link": (
        lambda path: path.symlink_to("nowhere"),
        f"{FILE}, a link to a file that does not exist.",
    ),
    "pipe": (os.mkfifo, f"{FILE}, a pipe or device."),
    "bytes": (lambda path: path.write_bytes(b"\x80\x04\x95"), "no text"),
    "UTF-16": (lambda path: path.write_bytes("[shared]".encode("utf-16")), "no text"),
    "NUL": (lambda path: path.write_bytes(b"[shared]\n\0"), FILE),
}


@pytest.mark.parametrize(("make", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_is_no_file_of_text_is_refused(
    make: Callable[[Path], object],
    said: str,
    tmp_path: Path,
    call: Call,  # noqa: F811
) -> None:
    """Nothing else is opened, not even through a link; it is said what it is."""
    write(tmp_path, "[shared]\nseed = 3\n", "other.toml")
    make(tmp_path / FILE)
    outcome = call("audit", "--data", "credit")
    assert (outcome.code, outcome.out) == (2, "")
    assert "error[option-config]" in outcome.err
    assert said in outcome.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("repair", "--limit", "dpp=0.02"), "option-limit"),
        (("repair", "--gamma", "2"), "option-range"),
        (("repair", "--neuron-share", "x"), "option-range"),
        (("repair", "--drop-neurons", "x"), "option-drop"),
        (("repair", "--recipe", "papr"), "option-recipe"),
        (("repair", "--epochs", "0"), "option-range"),
        (("repair", "--time-budget", "-1"), "option-range"),
        (("repair", "--class-weight", "x"), "option-class-weight"),
        (("repair", "--data", "compass"), "option-data"),
        (("repair", "--outcome", "good"), "option-outcome"),
        (("repair", "--type", "zip=code"), "option-type"),
        (("repair", "--hidden", "3,x"), "option-hidden"),
        (("repair", "--outputs", "3"), "option-outputs"),
        (("repair", "--threshold", "2"), "option-range"),
        (("repair", "--model", "x"), "option-model"),
        (("repair", "--encode", "x"), "option-encode"),
        (("compare", "--methods", "fairneurn"), "option-methods"),
        (("compare", "--criteria", "dpp"), "option-criteria"),
        (("reproduce", "table9"), "option-reproduce"),
        (("choose", "--limit", "dp"), "option-limit"),
    ],
)
def test_bad_values_go_before_missing_options(
    words: tuple[str, ...],
    code: str,
    call: Call,  # noqa: F811
) -> None:
    """Each of these commands lacks something, too, which is told where the values are good."""
    outcome = call(*words)
    assert (outcome.code, f"error[{code}]: " in outcome.err) == (2, True), outcome.err


def test_a_value_out_of_range_is_refused_by_its_place(tmp_path: Path, call: Call) -> None:  # noqa: F811
    """The rule is that of the option."""
    write(tmp_path, "[shared]\nseed = -1\n")
    outcome = call("audit", "--data", "credit")
    assert outcome.code == 2
    assert "seed in fairneuron.toml must be a value of --seed; got '-1'" in outcome.err


def test_a_named_file_must_be_there(call: Call) -> None:  # noqa: F811
    """Also one that is named by a variable."""
    outcome = call("audit", "--data", "credit", "--config", "gone.toml")
    assert outcome.code == 2
    assert "error[option-config]: The file with options must exist; got gone.toml" in outcome.err
    assert "Did you mean" not in outcome.err


def test_a_near_name_is_suggested(tmp_path: Path, call: Call) -> None:  # noqa: F811
    """One of the file's own folder."""
    (tmp_path / "conf").mkdir()
    write(tmp_path / "conf", "[shared]\n", "loans.toml")
    outcome = call("audit", "--data", "credit", "--config", "conf/loan.toml")
    assert outcome.code == 2
    assert f"Did you mean {Path('conf', 'loans.toml')}?" in outcome.err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("FAIRNEURON_SED", "1", "Did you mean 'FAIRNEURON_SEED'?"),
        ("FAIRNEURON_REPAIR_EPOCH", "1", "Did you mean 'FAIRNEURON_REPAIR_EPOCHS'?"),
        ("FAIRNEURON_SEED", "many", "FAIRNEURON_SEED must be a value of --seed; got 'many'"),
        ("FAIRNEURON_INCLUDE_SENSITIVE", "perhaps", "Known: 1, true"),
    ],
)
def test_a_bad_variable_is_refused(
    name: str,
    text: str,
    said: str,
    call: Call,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its name."""
    monkeypatch.setenv(name, text)
    outcome = call("audit", "--data", "credit")
    assert outcome.code == 2
    assert said in outcome.err


def test_help_needs_no_good_file(tmp_path: Path, call: Call) -> None:  # noqa: F811
    """Help is told with any file; where options come from stands in that of the app alone."""
    write(tmp_path, "[shared")
    for words in groups_and_commands():
        outcome = call(*words, "--help")
        assert outcome.code == 0
        assert ("FAIRNEURON_SEED" in outcome.out) == (words == ())


# What a file must not say


def test_every_key_was_thought_of() -> None:
    """A new option is sorted here, into those that a file may give unasked and the others."""
    keys = {key for section in known().values() for key in section}
    assert keys == PLAIN | set(ASKED)


@pytest.mark.parametrize("key", ASKED)
def test_a_file_that_is_there_imports_sends_and_writes_nothing(
    key: str,
    tmp_path: Path,
    call: Call,  # noqa: F811
) -> None:
    """Each such key is refused, before anything is imported or written, by every command."""
    section, option = next((s, o[key]) for s, o in known().items() if key in o)
    value = "true" if option.kind is bool else '"evil:run"'
    write(tmp_path, f"[{section}]\n{key} = {value}\n")
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()", encoding="utf-8")
    for words in (("audit", "--data", "credit"), ("repair", "--data", "credit", "--out", "r")):
        outcome = call(*words)
        assert outcome.code == 2
        assert "error[option-config]" in outcome.err
        assert f"--config {FILE}" in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.py", FILE]


def test_a_named_file_may_say_all(folder: Path, call: Call) -> None:  # noqa: F811
    """It is as trusted as the words beside it: places to write to, relative to it, among them."""
    text = (folder / FILE).read_text(encoding="utf-8")
    write(folder, text + '[audit]\nreport = "page.html"\noverwrite = true\n')
    (folder / "page.html").write_text("earlier", encoding="utf-8")
    assert call("audit").code == 2
    outcome = call("audit", "--config", FILE)
    assert outcome.code == 0, outcome.err
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "fairneuron audit" in page
    assert "--target hired" in page
    assert "--config" not in page


# Going on


def test_a_repair_goes_on_whatever_the_file_says_now(
    folder: Path,
    call: Call,  # noqa: F811
    stop: Callable[[int], None],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its state has the options of the file and the environment; another start is refused."""
    monkeypatch.setenv("FAIRNEURON_REPAIR_STRENGTHS", "0.5")
    text = (folder / FILE).read_text(encoding="utf-8")
    assert call("repair", "--out", "whole").code in (0, 1)
    stop(1)
    assert call("repair", "--out", "half").code == 130
    write(folder, text.replace("seed = 1", "seed = 2").replace("epochs = 2", "epochs = 3"))
    other = call("repair", "--out", "half")
    assert other.code == 2
    assert "error[option-out]" in other.err
    assert "seed was 1, is 2" in other.err
    write(folder, "[shared")
    monkeypatch.setenv("FAIRNEURON_SEED", "3")
    monkeypatch.delenv("FAIRNEURON_REPAIR_STRENGTHS")
    outcome = call("resume", "half")
    assert outcome.code in (0, 1), outcome.err
    assert result(folder / "half") == result(folder / "whole")


def test_code_of_a_named_file_must_be_named_again(
    folder: Path,
    call: Call,  # noqa: F811
    stop: Callable[[int], None],  # noqa: F811
) -> None:
    """It is among the words that a state keeps, and is never taken from there."""
    lines = (folder / FILE).read_text(encoding="utf-8").replace('hidden = "6"', 'model = "own:net"')
    write(folder, lines, "own.toml")
    (folder / FILE).unlink()
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    stop(1)
    begun = call("repair", "--config", "own.toml", "--out", "r")
    assert begun.code == 130, begun.err
    assert "error[option-model]" in call("resume", "r").err
    assert call("resume", "r", "--model", "own:net").code in (0, 1)


OWN = """
import torch


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
"""


def test_the_report_has_the_options_that_were_not_typed(
    folder: Path,
    call: Call,  # noqa: F811
) -> None:
    """The command that it prints gives the same result where there is no file."""
    assert call("repair", "--out", "r").code in (0, 1)
    report = (folder / "r" / "report.md").read_text(encoding="utf-8")
    (line,) = [line for line in report.splitlines() if line.startswith("fairneuron repair")]
    (folder / FILE).unlink()
    words = [*shlex.split(line)[1:-1], "again"]
    assert call(*words).code in (0, 1)
    assert result(folder / "again") == result(folder / "r")


def result(folder: Path) -> dict[str, Any]:
    """The result of a run."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return found


# init


def test_init_then_repair(tmp_path: Path, call: Call) -> None:  # noqa: F811
    """The file that it writes is all that the next command needs."""
    people().to_csv(tmp_path / "people.csv", index=False)
    outcome = call("init", "people.csv", "--positive", "yes", "--outcome", "favourable")
    assert outcome.code == 0, outcome.err
    found = tomllib.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert found[SHARED] == {
        "data": "people.csv",
        "target": "hired",
        "positive": "yes",
        "outcome": "favourable",
        "sensitive": ["sex"],
        "drop": ["id", "code", "country"],
        "seed": 0,
    }
    repaired = call("repair", "--limit", "dp=0.05", "--hidden", "6", "--epochs", "1", "--out", "r")
    assert repaired.code in (0, 1), repaired.err
    assert result(tmp_path / "r")["configuration"]["target"] == "hired"


def test_init_tells_why(tmp_path: Path, call: Call) -> None:  # noqa: F811
    """In the file and on stdout; rare values are counted, and no others of rows are told."""
    people().to_csv(tmp_path / "people.csv", index=False)
    outcome = call("init", "people.csv", "--positive", "yes")
    text = (tmp_path / FILE).read_text(encoding="utf-8")
    for said in (text, outcome.out):
        assert "counts the rows" in said
        assert "a value per row" in said
        assert "one value alone" in said
        assert "rareplace" not in said
        assert "K0" not in said
    assert "# branch: north, south, and 1 of fewer than 10 rows" in text
    assert "age; its 62 values are no groups" in text
    assert '\n# outcome = "favourable"' in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("compas", ("--target", "two_year_recid", "--sensitive", "race,sex")),
        ("census", ("--positive", ">50K", "--sensitive", "race", "--sensitive", "sex")),
        ("credit", ("--target", "risk", "--positive", "good", "--sensitive", "sex")),
    ],
)
def test_init_on_data_sets_of_ours(
    name: str,
    words: tuple[str, ...],
    tmp_path: Path,
    call: Call,  # noqa: F811
) -> None:
    """Their tables are understood; without these options it says what it found."""
    assert call("data", "export", name, "t.csv").code == 0
    unclear = call("init", "t.csv")
    assert unclear.code == 2
    assert "for example --" in unclear.err or "Name one" in unclear.err
    assert not (tmp_path / FILE).exists()
    assert call("init", "t.csv", *words).code == 0
    found = tomllib.loads((tmp_path / FILE).read_text(encoding="utf-8"))[SHARED]
    assert found["target"] == {"compas": "two_year_recid", "census": "income"}.get(name, "risk")
    assert found["sensitive"] == (["sex"] if name == "credit" else ["race", "sex"])
    assert call("paths", "--hidden", "4").code == 0


def test_doubts_are_told_together(tmp_path: Path, call: Call) -> None:  # noqa: F811
    """What could be the label, and whose groups could be compared, each with its option."""
    table = people().assign(other=np.arange(400) % 2, race=np.array(["a", "b"])[np.arange(400) % 2])
    table.to_csv(tmp_path / "t.csv", index=False)
    outcome = call("init", "t.csv")
    assert outcome.code == 2
    assert "error[option-init]: 2 things must be clear" in outcome.err
    assert "hired (no, yes); other (0, 1)" in outcome.err
    assert "--target hired" in outcome.err
    assert "sex (f, m); race (a, b)" in outcome.err
    assert "--sensitive sex" in outcome.err


class Typed:
    """A terminal at which these lines are typed."""

    def __init__(self, *lines: str) -> None:
        self.lines = [f"{line}\n" for line in lines]

    def isatty(self) -> bool:
        """It is one."""
        return True

    def __iter__(self) -> Any:
        while self.lines:
            yield self.lines.pop(0)


def test_doubts_are_asked_on_a_terminal(
    tmp_path: Path,
    call: Call,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By number or name, again until the answer can be; what is no doubt is not asked."""
    table = people().assign(other=np.arange(400) % 2, race=np.array(["a", "b"])[np.arange(400) % 2])
    table.to_csv(tmp_path / "t.csv", index=False)
    typed = Typed("HIRD", "sex", "1", "2", "number", "1,race")
    monkeypatch.setattr(init_module.sys, "stdin", typed)
    outcome = call("init", "t.csv")
    assert outcome.code == 0, outcome.err
    assert typed.lines == []
    assert "'HIRD' is none of them. Nearest: hired, id. The number, or a name:" in outcome.err
    assert "The label cannot be a sensitive column, as 'sex' is." in outcome.err
    assert "'number' is none of them. The number" in outcome.err
    found = tomllib.loads((tmp_path / FILE).read_text(encoding="utf-8"))[SHARED]
    assert (found["target"], found["positive"]) == ("hired", "yes")
    assert found["sensitive"] == ["sex", "race"]


@pytest.mark.parametrize(
    ("words", "got"),
    [
        (("--target", "hired", "--sensitive", "hired"), "'hired' as --target and as --sensitive"),
        (("--target", "sex", "--sensitive", "race"), "'sex', by its name a sensitive column"),
    ],
)
def test_a_sensitive_column_is_no_label(
    tmp_path: Path,
    call: Call,  # noqa: F811
    words: tuple[str, ...],
    got: str,
) -> None:
    """One that is named as both, or is called like one, is refused."""
    people().assign(race=np.array(["a", "b"])[np.arange(400) % 2]).to_csv(tmp_path / "t.csv")
    outcome = call("init", "t.csv", *words)
    assert outcome.code == 2
    assert (
        f"error[option-target]: The label cannot be a sensitive column; got {got}." in outcome.err
    )
    assert not (tmp_path / FILE).exists()


def test_an_answer_may_fail_to_come(
    tmp_path: Path,
    call: Call,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then it is as elsewhere: refused, and nothing is written."""
    people().to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.setattr(init_module.sys, "stdin", Typed())
    outcome = call("init", "t.csv")
    assert outcome.code == 2
    assert "error[option-positive]" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


INIT_REFUSED = {
    "a data set of ours": (("compas",), "option-data"),
    "arrays": (("a.npz",), "option-data"),
    "no file": (("gone.csv",), "data-file"),
    "unknown target": (("people.csv", "--target", "hird"), "data-no-column"),
    "unknown label": (("people.csv", "--positive", "yess"), "data-positive"),
    "unknown sensitive": (("people.csv", "--sensitive", "sx"), "data-no-column"),
    "no groups": (
        ("people.csv", "--positive", "yes", "--sensitive", "age"),
        "data-sensitive-continuous",
    ),
    "three labels": (("people.csv", "--target", "branch"), "data-labels"),
    "outcome": (("people.csv", "--outcome", "good"), "option-outcome"),
    "there already": (("people.csv", "--positive", "yes", "--out", "people.csv"), "output-exists"),
}


@pytest.mark.parametrize(("words", "code"), INIT_REFUSED.values(), ids=INIT_REFUSED)
def test_init_refuses(
    words: tuple[str, ...],
    code: str,
    tmp_path: Path,
    call: Call,  # noqa: F811
) -> None:
    """With the code of the command that would meet it, and writes nothing."""
    people().to_csv(tmp_path / "people.csv", index=False)
    outcome = call("init", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"error[{code}]" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["people.csv"]


def test_init_replaces_when_asked(folder: Path, call: Call) -> None:  # noqa: F811
    """And only then."""
    before = (folder / FILE).read_bytes()
    assert call("init", "people.csv", "--positive", "yes").code == 2
    assert (folder / FILE).read_bytes() == before
    assert call("init", "people.csv", "--positive", "yes", "--overwrite").code == 0
    assert (folder / FILE).read_bytes() != before


def test_init_elsewhere(tmp_path: Path, call: Call) -> None:  # noqa: F811
    """The path of the table is seen from the file's folder."""
    (tmp_path / "data").mkdir()
    people().to_csv(tmp_path / "data" / "people.csv", index=False)
    words = ("--positive", "yes", "--out", "conf/own.toml")
    assert call("init", "data/people.csv", *words).code == 0
    text = (tmp_path / "conf" / "own.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)[SHARED]["data"] == "../data/people.csv"
    assert call("audit", "--config", "conf/own.toml", "--hidden", "4").code == 0


def test_names_are_only_text_in_the_file(tmp_path: Path, call: Call) -> None:  # noqa: F811
    """Whatever a column is called, it is one string of the file, or dead in a comment."""
    odd = '"]\n[compare]\non = "ray\x1b[31m\x7f\u202e\\'
    table = people().rename(columns={"number": odd, "country": f"c{odd}", "sex": f"sex {odd}"})
    table.to_csv(tmp_path / "t.csv", index=False)
    outcome = call("init", "t.csv", "--positive", "yes")
    assert outcome.code == 0, outcome.err
    text = (tmp_path / FILE).read_text(encoding="utf-8")
    assert all(c.isprintable() or c == "\n" for c in text + outcome.out)
    found = tomllib.loads(text)
    assert set(found) == {SHARED, "repair", "audit"}
    assert f"c{odd}" in found[SHARED]["drop"]
    assert found[SHARED]["sensitive"] == [f"sex {odd}"]
    assert call("audit", "--hidden", "4").code == 0


def test_roles_of_columns() -> None:
    """What is the label's copy, a split, a weight, an identifier, or cannot be read."""
    n = 100
    part = np.array(["train", "test", "valid", "train"])[np.arange(n) % 4]
    table = people(n).assign(
        part=part,
        weight=1.5,
        customerId=np.random.default_rng(0).permutation(n) * 7,
        raceGroup=np.array(["a", "b"])[np.arange(n) % 2],
        gap=[np.nan, *np.arange(n - 1)],
        page=np.arange(n) % 7,
        seen=[f"{1 + i % 13:02}/11/2024 10:30" for i in range(n)],
        born=[f"1990-1-{i % 13 + 1}" for i in range(n)],
        part_number=[f"12-1-{10000 + i % 13}" for i in range(n)],
    )
    roles = {role.name: role for role in find_roles(table)}
    assert roles["part"].split
    assert roles["weight"].left == "one value alone"
    assert roles["customerId"].left == "an identifier"
    assert roles["raceGroup"].sensitive
    assert roles["age"].sensitive
    assert not roles["age"].groups
    assert roles["seen"].left == roles["born"].left == "dates, each a category of its own"
    assert roles["gap"].left.startswith("cannot be read")
    assert not roles["page"].sensitive
    assert [name for name, role in roles.items() if not role.left] == [
        *("number", "branch", "age", "sex", "hired", "part", "raceGroup", "page", "part_number")
    ]


def test_a_split_and_a_copy_are_found(tmp_path: Path, call: Call) -> None:  # noqa: F811
    """Neither is read by the network."""
    table = people()
    table["part"] = np.array(["train", "test", "valid", "train"])[np.arange(400) % 4]
    table["again"] = np.where(table["hired"] == "yes", 1, 0)
    table.to_csv(tmp_path / "t.csv", index=False)
    assert call("init", "t.csv", "--target", "hired", "--positive", "yes").code == 0
    found = tomllib.loads((tmp_path / FILE).read_text(encoding="utf-8"))[SHARED]
    assert found["split-column"] == "part"
    assert found["drop"] == ["id", "code", "country", "again"]


def test_a_command_says_which_parameters_it_has() -> None:
    """What typer reads of a configured command has every option once, and the file."""
    names = [*audit.__signature__.parameters]  # type: ignore[attr-defined]
    assert len(names) == len(set(names))
    assert {"config", "context", "target"} <= set(names)
