"""Logging to MLflow: what is logged, where it goes, and what is not."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import fairneuron as fn
from tests.conftest import Says, made_up

mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings(  # MLflow's own
    "ignore:The ``noload`` loader strategy is deprecated",
)
Parts = tuple[fn.Dataset, fn.Dataset, fn.Dataset]
LIMIT = {"dp": 0.05}


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of our own in a file."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'runs.db'}")
    mlflow.create_experiment("tests", artifact_location=(folder / "files").as_uri())
    mlflow.set_experiment("tests")
    yield folder
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def repaired(trained: nn.Sequential, parts: Parts) -> fn.Repair:
    """A short repair of the small network."""
    return fn.repair(trained, *parts[:2], limit=LIMIT, epochs=1, seed=3)


def logged(run: str) -> tuple[dict[str, str], dict[str, float], dict[str, str]]:
    """Parameters, metrics and tags of a run; none of MLflow's own tags."""
    data = mlflow.get_run(run).data
    tags = {name: text for name, text in data.tags.items() if not name.startswith("mlflow.")}
    return data.params, data.metrics, tags


def file(run: str, name: str) -> str:
    """The text of an artefact."""
    return mlflow.artifacts.load_text(f"{mlflow.get_run(run).info.artifact_uri}/{name}")


def files(run: str, folder: str | None = None) -> set[str]:
    """Names of the artefacts of a run."""
    found = mlflow.MlflowClient().list_artifacts(run, folder)
    return {inner for f in found for inner in (files(run, f.path) if f.is_dir else {f.path})}


# What is logged


def test_an_audit(trained: nn.Sequential, parts: Parts) -> None:
    """Every metric with its interval and noise floor; all figures and a page as files."""
    found = fn.audit(trained, parts[2])
    run = fn.log_to_mlflow(found, data=parts[2])
    params, metrics, tags = logged(run)
    assert params == {
        "audit_seed": "0",
        "data": "made up",
        "features": "5",
        "positive": "1",
        "sensitive": "sensitive",
    }
    assert metrics["n"] == len(parts[2])
    for name in ("accuracy", "dp", "eo", "auc"):
        interval = found.intervals[name]
        assert interval is not None
        assert (metrics[f"{name}_low"], metrics[f"{name}_high"]) == interval
        assert metrics[name] == found.metrics[name]
    assert metrics["dp_noise_floor"] == found.noise_floor["dp"]
    assert "accuracy_noise_floor" not in metrics
    assert f"differ by up to {found.metrics['dp']:.3f}" in tags["sentence"]
    assert json.loads(file(run, "audit.json")) == json.loads(json.dumps(found.to_dict()))
    assert found._repr_html_() in file(run, "audit.html")
    assert mlflow.get_run(run).info.status == "FINISHED"
    assert mlflow.active_run() is None


def test_an_undefined_metric_is_left_out_and_says_why(parts: Parts) -> None:
    """Where nobody is predicted positive, DPR has no value but a reason."""
    found = fn.audit(Says(np.zeros(len(parts[2]))), parts[2])
    _, metrics, tags = logged(fn.log_to_mlflow(found, prefix="a/b"))
    assert not any(name.startswith("a/b/dpr") for name in metrics)
    assert tags["a/b/dpr.undefined"] == found.undefined["dpr"] == "no positive predictions"
    assert metrics["a/b/dp"] == 0
    assert {n for n in tags if n.endswith(".undefined")} == {
        f"a/b/{name}.undefined" for name in found.undefined
    }


def test_a_verdict(trained: nn.Sequential, repaired: fn.Repair, parts: Parts) -> None:
    """Before, after, gain with interval, noise floor; under the name of the data it is on."""
    found = fn.judge(trained, repaired.model, parts[2], LIMIT, on="test")
    run = fn.log_to_mlflow(found)
    params, metrics, tags = logged(run)
    change = found.changes["dp"]
    assert params == {"test/limit_dp": "0.05"}
    for figure in ("before", "after", "gain", "noise_floor"):
        assert metrics[f"test/dp_{figure}"] == getattr(change, figure)
    assert (metrics["test/dp_gain_low"], metrics["test/dp_gain_high"]) == change.interval
    assert metrics["test/n"] == len(parts[2])
    assert tags["test/outcome"] == found.outcome
    assert tags["test/sentence"] == found.sentence()
    assert json.loads(file(run, "test/verdict.json"))["outcome"] == found.outcome


def test_a_verdict_with_an_undefined_side(trained: nn.Sequential, parts: Parts) -> None:
    """The side that has no value says why; the other one has its value."""
    after = Says(np.zeros(len(parts[2])))
    found = fn.judge(trained, after, parts[2], LIMIT, on="what I held out")
    _, metrics, tags = logged(fn.log_to_mlflow(found))
    assert metrics["what-I-held-out/dpr_before"] == found.changes["dpr"].before
    assert "what-I-held-out/dpr_after" not in metrics
    assert "what-I-held-out/dpr_gain" not in metrics
    assert tags["what-I-held-out/dpr_after.undefined"] == "no positive predictions"
    assert "what-I-held-out/dpr_before.undefined" not in tags


def test_a_repair(repaired: fn.Repair, parts: Parts) -> None:
    """All settings, the limit, the seed; the verdict on validation data; candidates as a file."""
    run = fn.log_to_mlflow(repaired, data=parts[0])
    params, metrics, tags = logged(run)
    assert params == {
        "recipe": "conflict",
        "neuron_share": "0.3, 1.0",
        "strengths": "None",
        "stops": "0.85, 0.5, 0.25, 0.08, -0.03, -0.12",
        "schedule_epochs": "1",
        "schedule_batch_size": "1024",
        "schedule_learning_rate": "0.003",
        "schedule_plateau": "None",
        "schedule_patience": "None",
        "schedule_min_steps": "0",
        "limit_dp": "0.05",
        "seed": "3",
        "threshold": "0.5",
        "data": "made up",
        "features": "5",
        "positive": "1",
        "sensitive": "sensitive",
    }
    assert metrics["candidates"] == len(repaired.trials) - 1
    assert metrics["chosen"] == repaired.chosen.number
    assert metrics["validation/dp_after"] == repaired.verdict.changes["dp"].after
    assert tags["validation/outcome"] == repaired.verdict.outcome
    assert tags["explanation"] == repaired.explanation.sentence()
    assert "stopped" not in tags
    values = json.loads(file(run, "repair.json"))
    assert [trial["number"] for trial in values["trials"]] == list(range(len(repaired.trials)))
    assert values["trials"][1]["validation"]["dp"] == repaired.trials[1].metrics["dp"]
    assert files(run) == {"repair.json", "repair.html"}


def test_a_repair_that_was_stopped(trained: nn.Sequential, parts: Parts) -> None:
    """The run says what the time budget kept from happening."""
    found = fn.repair(trained, *parts[:2], limit=LIMIT, time_budget=1e-9)
    _, _, tags = logged(fn.log_to_mlflow(found))
    assert found.stopped
    assert tags["stopped"] == found.stopped


def test_a_comparison() -> None:
    """Means over seeds with intervals, by criterion, ε and method; verdicts as they are."""
    found = fn.compare(
        made_up(400),
        methods={
            "naive": "naive",
            "few_epochs": lambda limit: fn.FairNeuron(limit=limit, epochs=1, neuron_share=1.0),
        },
        model=lambda train: nn.Sequential(nn.Linear(train.x.shape[1], 4), nn.Linear(4, 1)),
        seeds=[0, 7],
        criteria=["dp"],
        reference="few_epochs",
    )
    run = fn.log_to_mlflow(found)
    params, metrics, tags = logged(run)
    assert (params["methods"], params["seeds"]) == ("naive, few_epochs", "0, 7")
    assert (params["data"], params["reference"]) == ("made up", "few_epochs")
    figures = found.to_dict()["criteria"][0]
    at = next(each for each in figures["at"] if each["epsilon"] == 0.05)
    gap = at["methods"]["naive"]["gap"]
    assert metrics["dp/at_0.05/naive/gap"] == gap["mean"]
    assert metrics["dp/at_0.05/naive/gap_low"] == gap["interval"][0]
    assert metrics["dp/base/accuracy"] == figures["base"]["accuracy"]["mean"]
    assert metrics["dp/noise_floor"] == figures["base"]["noise_floor"]
    assert tags["dp/at_0.05/naive/is_worse"] == "too few seeds"
    assert json.loads(file(run, "comparison.json"))["criteria"][0]["criterion"] == "dp"
    assert files(run) == {"comparison.json", "comparison.md", "comparison.html"}


def test_what_no_seed_has_says_why() -> None:
    """A method that fails on every seed has no gap, and the run says so."""

    def fails(_: object) -> fn.FairNeuron:
        raise ValueError("no")

    found = fn.compare(
        made_up(400),
        methods={"naive": "naive", "fails": fails},
        model=lambda train: nn.Sequential(nn.Linear(train.x.shape[1], 1)),
        seeds=1,
        criteria=["dp"],
        reference="naive",
    )
    _, metrics, tags = logged(fn.log_to_mlflow(found))
    assert metrics["dp/fails/failed"] == 1
    assert "dp/at_0.05/fails/gap" not in metrics
    assert tags["dp/at_0.05/fails/gap.undefined"].startswith("no seed has a usable")


def test_an_active_run_goes_on(trained: nn.Sequential, repaired: fn.Repair, parts: Parts) -> None:
    """All is logged to it, and it stays the active one; prefixes keep two audits apart."""
    with mlflow.start_run() as run:
        before, after = (fn.audit(model, parts[2]) for model in (trained, repaired.model))
        ids = {
            fn.log_to_mlflow(repaired, data=parts[0]),
            fn.log_to_mlflow(repaired, data=parts[2]),  # other rows of the same data
            fn.log_to_mlflow(before, prefix="before"),
            fn.log_to_mlflow(after, prefix="after"),
        }
        assert mlflow.active_run().info.run_id == run.info.run_id
    assert ids == {run.info.run_id}
    _, metrics, _ = logged(run.info.run_id)
    assert metrics["before/dp"] == before.metrics["dp"]
    assert metrics["after/dp"] == after.metrics["dp"]
    assert {"before/audit.html", "after/audit.html"} <= files(run.info.run_id)


# What is not


def test_no_row_and_no_weight_is_logged(
    store: Path, trained: nn.Sequential, repaired: fn.Repair, parts: Parts
) -> None:
    """Neither in a file nor in the database."""
    found = fn.audit(trained, parts[2])
    with mlflow.start_run():
        fn.log_to_mlflow(repaired, data=parts[0])
        fn.log_to_mlflow(found, prefix="test")
        fn.log_to_mlflow(fn.judge(trained, repaired.model, parts[2], LIMIT, on="test"))
    rows = {float(v) for part in parts for v in part.x[:, :4].flatten()}
    weights = {float(v) for v in repaired.model.state_dict()["0.weight"].flatten()}
    texts = [path.read_text() for path in (store / "files").rglob("*") if path.is_file()]
    with closing(sqlite3.connect(store / "runs.db")) as database:
        texts += database.iterdump()
    said = {float(number) for text in texts for number in re.findall(r"-?\d+\.\d+", text)}
    assert {found.metrics["accuracy"], found.metrics["dp"]} <= said  # all that is said is seen
    assert said & (rows | weights) == set()


def test_names_are_only_text(parts: Parts) -> None:
    """A hostile group name is escaped in the page, and is no name of a metric or file."""
    data = parts[2]
    hostile = fn.Dataset.from_arrays(
        data.x,
        data.y,
        np.array(["<script>alert(1)</script>", "../../x\n"])[data.group],
        sensitive_names=["<img src=x>"],
        name="../<b>",
    )
    found = fn.audit(Says(np.linspace(0, 1, len(data))), hostile)
    run = fn.log_to_mlflow(found, data=hostile)
    params, metrics, _ = logged(run)
    assert params["data"] == "../<b>"
    assert not any("script" in name or ".." in name for name in (*metrics, *files(run)))
    page = file(run, "audit.html")
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


# Refusals


@pytest.mark.parametrize("prefix", ["/", "a/", "../a", "a/../b", ".", "a b", "é", "a" * 101, "a\n"])
def test_a_bad_prefix(prefix: str, repaired: fn.Repair) -> None:
    """A prefix that is no plain path is refused before anything is logged."""
    with pytest.raises(fn.FairNeuronError, match="A prefix is") as told:
        fn.log_to_mlflow(repaired, prefix=prefix)
    assert told.value.code == "option-prefix"
    assert mlflow.active_run() is None


@pytest.mark.parametrize("found", [None, "runs/x", {"dp": 1.0}, nn.Linear(1, 1)])
def test_something_else(found: Any) -> None:
    """What is no result of ours is refused."""
    with pytest.raises(fn.FairNeuronError, match=f"got {type(found).__name__}") as told:
        fn.log_to_mlflow(found)
    assert told.value.code == "option-mlflow"


def test_a_parameter_never_changes(
    trained: nn.Sequential, repaired: fn.Repair, parts: Parts
) -> None:
    """A second repair in the same run needs a prefix, and the error says so."""
    other = fn.repair(trained, *parts[:2], limit={"dp": 0.2}, epochs=1)
    with mlflow.start_run() as run:
        fn.log_to_mlflow(repaired)
        with pytest.raises(fn.FairNeuronError, match="give another prefix") as told:
            fn.log_to_mlflow(other)
        fn.log_to_mlflow(other, prefix="other")
    assert told.value.code == "output-mlflow"
    params, _, _ = logged(run.info.run_id)
    assert (params["limit_dp"], params["other/limit_dp"]) == ("0.05", "0.2")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            mlflow.MlflowException("POST http://me:secret@there/api failed\nmore"),
            "http://there/api",
        ),
        (OSError(""), "got OSError"),
    ],
)
def test_what_mlflow_says_has_no_password(
    error: Exception, said: str, repaired: fn.Repair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure of the store is told in a line, without what stands before the host's name."""

    def fails(_: object) -> None:
        raise error

    monkeypatch.setattr(mlflow, "log_params", fails)
    with pytest.raises(fn.FairNeuronError, match=said) as told:
        fn.log_to_mlflow(repaired)
    assert told.value.code == "output-mlflow"
    assert "secret" not in str(told.value)


def test_without_mlflow(repaired: fn.Repair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(fn.FairNeuronError, match=r"pip install 'fairneuron\[mlflow\]'") as told:
        fn.log_to_mlflow(repaired)
    assert told.value.code == "option-mlflow"


# The network

_QUIET = (
    "MLFLOW",
    "PYTEST",
    "CI",
    "GITHUB",
    "GITLAB",
    "DO_NOT_TRACK",
)  # MLflow sends nothing there


def alone(code: str, folder: Path, **settings: str) -> Any:
    """Runs code in a folder as somebody does who set nothing; what it prints as JSON."""
    env = {name: v for name, v in os.environ.items() if not name.startswith(_QUIET)}
    root = str(Path(__file__).parents[1])
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env=env | {"PYTHONPATH": root} | settings,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


LOGS = """
import atexit, json, sys
import urllib3  # asks at import whether the machine has IPv6
from tests.every_command import _DENIED, denied
def last():
    import mlflow.telemetry
    client = mlflow.telemetry.get_telemetry_client()
    print(json.dumps([mlflow.get_tracking_uri(), _DENIED, client is None]))
atexit.register(last)  # registered first, so it runs last
sys.addaudithook(denied)
import numpy as np, fairneuron as fn
from tests.conftest import Says, made_up
data = made_up(200)
fn.log_to_mlflow(fn.audit(Says(np.linspace(0, 1, 200)), data))
"""


def test_nothing_leaves_the_machine(tmp_path: Path) -> None:
    """By default all goes to files in the current folder; no socket is opened, no server begun."""
    uri, asked, silent = alone(LOGS, tmp_path)
    assert uri.startswith(("sqlite:///", "file:"))
    assert Path(uri.partition(":")[2].lstrip("/")).name in {p.name for p in tmp_path.iterdir()}
    assert asked == []
    assert silent
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".db", ".json", ".html"}


def test_usage_reports_are_off_unless_asked_for(tmp_path: Path) -> None:
    """MLflow's own reports begin only where somebody wants them; the test above would see them."""
    code = (
        "import json, sys\nfrom tests.every_command import denied\nsys.addaudithook(denied)\n"
        "from fairneuron.mlflow_log import _mlflow\n_mlflow()\nimport mlflow.telemetry as t\n"
        "print(json.dumps(t.get_telemetry_client() is None))"
    )
    assert alone(code, tmp_path) is True
    assert alone(code, tmp_path, MLFLOW_DISABLE_TELEMETRY="false") is False


def test_mlflow_is_imported_when_it_logs(tmp_path: Path) -> None:
    """Neither the package nor the function's module imports it."""
    code = (
        "import json, sys, fairneuron as fn\nfn.log_to_mlflow\n"
        "print(json.dumps('mlflow' in sys.modules))"
    )
    assert alone(code, tmp_path) is False


# The page about it


def test_the_page_is_true() -> None:
    """Its program runs, and the names in its table are those that are logged."""
    page = (Path(__file__).parents[1] / "docs" / "mlflow.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(program, "mlflow.md", "exec"), names)  # noqa: S102  # our own file
    run = mlflow.search_runs(order_by=["attributes.start_time DESC"], max_results=1).run_id[0]
    params, metrics, tags = logged(run)
    assert {"recipe", "limit_dp", "seed", "threshold", "test/limit_dp", "data"} <= set(params)
    assert {"candidates", "chosen", "before/dp", "before/dp_noise_floor"} <= set(metrics)
    for row in ("an audit", "a verdict", "a repair"):
        *_, figures, texts, written = (
            re.findall(r"`([^`…]+)`", cell)
            for cell in re.search(rf"^\| {row} \|(.*)\|$", page, re.MULTILINE)[1].split("|")
        )
        prefix = "before/" if row == "an audit" else ""
        assert {prefix + n for n in figures if not n.endswith("/")} <= set(metrics)
        assert {prefix + n for n in texts} - {"stopped"} <= set(tags)
        assert {prefix + n for n in written} <= files(run)
