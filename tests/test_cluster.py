"""Work on a cluster of two nodes: the same results, also when a worker or a node is killed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import fairneuron as fn
from fairneuron import tuning
from fairneuron.cli import app
from fairneuron.compare import actors
from fairneuron.compare.methods import METHODS
from fairneuron.compare.protocol import Job
from fairneuron.compare.running import run_jobs
from fairneuron.compare.setting import make_setting
from fairneuron.errors import FairNeuronWarning, OptionError, warn
from fairneuron.models import mlp
from fairneuron.search.cluster import (
    _answering,
    _connected,
    _interpreter,
    check_resources,
    room,
    run_on_ray,
)
from tests.conftest import made_up
from tests.test_cli import call  # noqa: F401  # a fixture

pytestmark = [  # of Ray's own making
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

GRID = {"gamma": [0.6, 0.9], "theta": [0.001, 0.2]}
SHORT: dict[str, Any] = {"grid": GRID, "epochs": 1, "share": 0.5, "seed": 5}
SEEDS = 2  # and as many values of γ: one for each node
NODE = {"object_store_memory": 80_000_000}
PATIENCE = 60  # seconds
FAST = {  # that a node is gone
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}


class Two:
    """A head with one CPU, and a node with another one that can be taken away."""

    def __init__(self, port: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": FAST, **NODE}
        self.cluster = Cluster(
            initialize_head=True, head_node_args={**head, "ray_client_server_port": port}
        )
        self.address, self.client = self.cluster.address, f"ray://127.0.0.1:{port}"

    def __enter__(self) -> "Two":
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.shutdown()

    def complete(self) -> None:
        """Has both nodes again."""
        if not self.cluster.worker_nodes:
            self.cluster.add_node(num_cpus=1, **NODE)

    def kill_node(self) -> None:
        """Kills the second one."""
        (node,) = self.cluster.worker_nodes
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    """The cluster, at the loopback address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # 127.0.0.1, as on these
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with Two(port) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def connected(two: Two) -> Iterator[ModuleType]:
    """Ray, with this process connected to the cluster."""
    import ray

    ray.init(
        address=two.address,
        runtime_env=_interpreter(),  # a path with a space
        log_to_driver=False,
        logging_level="CRITICAL",
    )
    yield ray
    ray.shutdown()


@pytest.fixture
def ray(connected: ModuleType, two: Two) -> ModuleType:
    """The same, with both nodes there."""
    two.complete()
    return connected


# Killed half-way


@dataclass(frozen=True)
class Halfway:
    """Where work stops half-way, leaves a mark, and waits until it may go on."""

    folder: Path

    def wait(self) -> None:
        (self.folder / f"{os.getpid()}-{time.time_ns()}").touch()
        until((self.folder / "go").exists)

    def marks(self) -> list[Path]:
        return list(self.folder.glob("*-*"))

    def workers(self) -> set[int]:
        """Processes that are half-way."""
        return {int(mark.name.split("-")[0]) for mark in self.marks()} & living()

    @contextmanager
    def kills(self, two: Two) -> Iterator[None]:
        """Kills a worker when both are half-way, then a node, then lets all go on."""

        def watch() -> None:
            try:
                until(lambda: len(self.workers()) == SEEDS)
                os.kill(min(self.workers()), signal.SIGKILL)
                until(lambda: len(self.marks()) == SEEDS + 1)
                two.kill_node()
                until(lambda: len(self.workers()) == SEEDS - 1)  # it has ended
            finally:
                (self.folder / "go").touch()

        thread = Thread(target=watch)
        thread.start()
        yield
        thread.join()
        assert len(self.marks()) == SEEDS + 2  # each that was lost began again


def living() -> set[int]:
    """Processes that have not ended."""
    import psutil  # Ray brings it

    each = psutil.process_iter(["status"])
    return {process.pid for process in each if process.info["status"] != psutil.STATUS_ZOMBIE}


def until(holds: Callable[[], bool]) -> None:
    """Waits until something holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@dataclass(frozen=True)
class StopsHalfway:
    """A trial of a search that stops after its first candidate."""

    trial: Callable[[list[int]], list[Any]]
    halfway: Halfway

    def __call__(self, numbers: list[int]) -> list[Any]:
        first = self.trial(numbers[:1])
        self.halfway.wait()
        return [*first, *self.trial(numbers[1:])]


@pytest.fixture
def halfway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Halfway:
    """Where trials of searches on Ray, and methods that are made so, stop."""
    place = Halfway(tmp_path / "halfway")
    place.folder.mkdir()

    def stopping(trial: Any, *rest: Any) -> dict[int, Any]:
        return run_on_ray(StopsHalfway(trial, place), *rest)

    monkeypatch.setattr(tuning, "run_on_ray", stopping)
    return place


def test_a_search_survives(ray, two, halfway, parts, trained) -> None:
    """A killed worker, then a killed node: the same winner and figures, to the bit."""
    found = fn.search(trained, *parts[:2], **SHORT)
    with halfway.kills(two):
        there = fn.search(trained, *parts[:2], on="ray", **SHORT)
    assert there.to_dict() == found.to_dict()
    assert there.best == found.best


@dataclass(frozen=True)
class Shifting:
    """A mitigator that changes nothing, and leaves a mark or waits."""

    folder: Path | None = None
    halfway: Halfway | None = None
    needs_sensitive = False

    def fit(self, model: nn.Module, *_: object, seed: int) -> nn.Module:
        if self.folder is not None:
            (self.folder / f"{seed}-{time.time_ns()}").touch()
        if self.halfway is not None:
            self.halfway.wait()
        return model


def compare(**given: Any) -> fn.Comparison:
    """Brief comparisons; functions of a test can be sent to Ray."""
    return fn.compare(
        made_up(300), **{"seeds": SEEDS, "criteria": ["dp"], "reference": "brief", **given}
    )


def brief(limit: dict[str, float]) -> fn.FairNeuron:
    """Our default, in few epochs."""
    return fn.FairNeuron(limit=limit, epochs=1)


def without_times(value: Any) -> Any:
    """A record without its seconds."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if "seconds" not in k}
    return [without_times(v) for v in value] if isinstance(value, list | tuple) else value


def test_a_comparison_survives(ray, two, halfway, tmp_path) -> None:
    """A killed worker, then a killed node: the same records, and none is computed again."""
    here = compare(methods={"brief": brief, "waits": lambda _: Shifting()})
    folder = tmp_path / "counted"
    folder.mkdir()
    given = {
        "brief": brief,
        "counted": lambda _: Shifting(folder),
        "waits": lambda _: Shifting(halfway=halfway),
    }
    told = []
    with halfway.kills(two):
        there = compare(methods=given, on="ray", progress=lambda *step: told.append(step))
    records = [r for r in there.records if r["method"] != "counted"]
    assert without_times(records) == without_times(here.records)
    assert len(list(folder.iterdir())) == SEEDS
    assert len(told) == SEEDS * len(given)


def dies(_: object) -> Shifting:
    """A method that kills its process."""
    os._exit(9)


def test_a_job_that_kills_each_worker_ends_in_an_error(ray, tmp_path, monkeypatch) -> None:
    """After so many of them; records that came are kept, and the same command goes on."""
    monkeypatch.setattr(actors, "RETRIES", 1)
    out = tmp_path / "out"
    methods = {"brief": "naive", "dies": dies}
    with pytest.raises(OptionError, match="must come to its end") as caught:
        compare(methods=methods, seeds=1, on="ray", out=out, plots=False)
    assert caught.value.code == "option-ray"
    told = []
    methods["dies"] = brief
    compare(
        methods=methods, seeds=1, out=out, plots=False, progress=lambda *step: told.append(step)
    )
    assert len(told) == 1


# What is said


def warns(_: object) -> Shifting:
    """A method that warns."""
    warn("test", "mind the gap")
    return Shifting()


def test_one_at_a_time(ray) -> None:
    """Seed after seed if there is to be one worker; what jobs warn of is told once, here."""
    steps = []
    with pytest.warns(FairNeuronWarning) as told:
        compare(
            methods={"brief": warns}, on="ray", workers=1, progress=lambda *step: steps.append(step)
        )
    assert [str(w.message) for w in told] == ["mind the gap [test]"]
    assert steps == [(f"seed {seed}", 1, 1) for seed in range(SEEDS)]


def job(**given: Any) -> Job:
    """The base model as it is, on one split."""
    wanted = (("naive", "dp"),)
    return Job(make_setting(made_up(300), None), {"naive": METHODS["naive"]}, 0, wanted, **given)


@pytest.mark.parametrize("on", ["process", "ray"])
def test_errors_of_jobs_are_ours(ray, on: str) -> None:
    """What a job refuses is refused as it is in this process."""
    base = dict.fromkeys(("valid", "test", "majority", "noise_floor"))
    with pytest.raises(OptionError, match="other figures for seed 0") as caught:
        run_jobs([job(base=base)], lambda _: None, on=on)
    assert caught.value.code == "option-out"


def test_what_cannot_be_sent_is_refused(ray) -> None:
    """With what it is."""
    lock = Lock()
    with pytest.raises(OptionError, match=r"can be sent to other processes; got .*lock"):
        compare(methods={"brief": lambda _: lock}, on="ray")


@pytest.mark.parametrize("on", ["moon", "ray://", None, 3])
def test_unknown_places(on: Any, tmp_path: Path) -> None:
    """Before any work."""
    out = tmp_path / "out"
    with pytest.raises(OptionError, match="Known: process, ray, ray://HOST:PORT") as caught:
        compare(methods=["naive"], reference="naive", on=on, out=out)
    assert caught.value.code == "option-on"
    with pytest.raises(OptionError, match="Known: process"):
        fn.reproduce("table2", on=on, out=out)
    assert not out.exists()


def test_a_cluster_that_stops_to_answer_is_told() -> None:
    """What grpc and Ray's client raise then is ours."""
    grpc = pytest.importorskip("grpc", reason="Ray's client is not installed")
    for lost in (ConnectionError("gone"), grpc.RpcError("gone")):
        said = pytest.raises(OptionError, match="answer until all is done; got ray://a:1: gone")
        with said, _answering("ray://a:1"):
            raise lost
    with pytest.raises(BrokenPipeError), _answering("ray://a:1"):  # of whoever reads our lines
        raise BrokenPipeError


def test_a_server_that_fails_to_start_is_asked_again() -> None:
    """Once."""
    answers = iter([ConnectionAbortedError("fork"), "connection"])

    def init(*_: object, **__: object) -> str:
        answer = next(answers)
        if isinstance(answer, str):
            return answer
        raise answer

    there = SimpleNamespace(init=init)
    assert _connected(there, "ray://a:1") == "connection"
    answers = iter([ConnectionAbortedError("fork"), ConnectionAbortedError("again")])
    with pytest.raises(ConnectionError, match="again"):
        _connected(there, "ray://a:1")


@pytest.mark.parametrize("words", ["compare --data credit --methods naive", "reproduce table2"])
def test_commands_refuse_unknown_places(call, words: str, tmp_path) -> None:  # noqa: F811
    """With exit code 2, before anything is read."""
    outcome = call(*words.split(), "--out", "new", "--on", "moon")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error[option-on]: ")
    assert not (tmp_path / "new").exists()


def test_nothing_to_do_starts_no_ray() -> None:
    """Where it would not answer."""
    run_jobs([], lambda _: None, on="ray://127.0.0.1:1")


# Resources


def test_a_comparison_without_a_cpu_is_refused_at_once(ray, monkeypatch) -> None:
    """Before anything is submitted."""
    nodes = [node | {"Resources": {"memory": 1e9}} for node in ray.nodes()]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(actors, "parcel", lambda *_: pytest.fail("submitted"))
    start = time.monotonic()
    with pytest.raises(OptionError, match="The most that one has: CPU 0") as caught:
        run_jobs([job()], lambda _: None, on="ray")
    assert caught.value.code == "option-resources"
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("machines", "wanted", "expected"),
    [
        ([1.0], 0.1, 10),  # 1.0 // 0.1 is 9
        ([0.3], 0.1, 3),
        ([2.0, 1.0], 1.0, 3),
        ([1.5, 1.5], 1.0, 2),
        ([0.5, 2.0], 0.75, 2),
    ],
)
def test_room(machines: list[float], wanted: float, expected: int) -> None:
    """How often what is wanted fits, machine by machine."""
    alive = [{"Alive": True, "Resources": {"CPU": amount}} for amount in machines]
    dead = {"Alive": False, "Resources": {"CPU": 64.0}}
    there = SimpleNamespace(nodes=lambda: [*alive, dead])
    assert room(there, {"CPU": wanted, "GPU": 0}) == expected


@pytest.mark.parametrize("resources", [{"CPU": 0}, {"CPU": 0, "GPU": 0}, {"GPU": 1e-5}])
def test_resources_that_take_nothing_are_refused(resources: dict[str, float]) -> None:
    """Ray counts in ten thousandths."""
    with pytest.raises(OptionError, match="must take something"):
        check_resources(resources)


# Commands, and code of the user's


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a network of the user's, and what commands find in a process."""
    folder = tmp_path_factory.mktemp("own")
    data = made_up(300)
    frame = pd.DataFrame(data.x[:, :2].numpy(), columns=["a", "b"])
    frame["sex"] = np.array(data.group_names)[data.group]
    frame["y"] = data.y
    frame.to_csv(folder / "t.csv", index=False)
    (folder / "nets_of_mine.py").write_text(NETS)
    weights = mlp(2, (8,)).state_dict()
    torch.save({NAMES[name]: value for name, value in weights.items()}, folder / "w.pt")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the data are split here
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        for words in commands("process", "search", "compare"):
            assert CliRunner().invoke(app, words).exit_code == 0
    return folder


NETS = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 8), nn.Linear(8, 1)

    def forward(self, x):
        return self.last(self.first(x).relu())


def build():
    return Net()
"""
NAMES = {
    f"{i}.{kind}": f"{name}.{kind}"
    for i, name in ((0, "first"), (2, "last"))
    for kind in ("weight", "bias")
}

WORDS = "--data t.csv --target y --positive 1 --sensitive sex --model nets_of_mine:build"
COMMANDS = {
    "search": f"{WORDS} --weights w.pt --samples 3 --epochs 9 --share 1 --out {{}}-search.json",
    "compare": f"{WORDS} --methods naive --seeds 2 --criteria dp --no-plots --out {{}}-compare",
}

RUN = """
import sys
from contextlib import suppress
from fairneuron.cli import main

for words in {commands}:
    sys.argv = ["fairneuron", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
"""


def commands(on: str, *names: str) -> list[list[str]]:
    """Words of commands that are to run there."""
    place = on.partition(":")[0]
    return [[name, *COMMANDS[name].format(place).split(), "--on", on] for name in names]


def run(*commands: list[str], cwd: Path, before: str = "", after: str = "") -> None:
    """Runs commands in one process of their own."""
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", f"{before}\n{RUN.format(commands=commands)}\n{after}"],
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def same_comparison(folder: Path) -> bool:
    """Whether the command found the same in a process and on Ray."""
    found = [
        json.loads((folder / f"{on}-compare" / "comparison.json").read_text())
        for on in ("process", "ray")
    ]
    one, other = ((each["setup"], each["seeds"], each["criteria"][0]["at"]) for each in found)
    return one == other


@pytest.mark.skipif(
    _interpreter() is not None, reason="Ray starts its client's servers by an unquoted path"
)
def test_commands_over_rays_client(two, own) -> None:
    """Search and comparison at ray://, with a network of the current folder: the same."""
    pytest.importorskip("grpc", reason="Ray's client is not installed")
    run(*commands(two.client, "search", "compare"), cwd=own)
    assert same_comparison(own)
    here, there = (json.loads((own / f"{on}-search.json").read_text()) for on in ("process", "ray"))
    assert here == there
    assert here["winner"] is not None


ALONE = """
from fairneuron.search.cluster import ray_at
from json import dumps
from pathlib import Path

kept = ray_at("ray")
kept.__enter__()
"""
SEEN = """
import psutil  # Ray brings it

heard, usage, names = set(), set(), set()
for process in psutil.Process().children(recursive=True):
    with suppress(psutil.NoSuchProcess):
        heard |= {c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN"}
        names.add(process.name())
        if process.name() in ("gcs_server", "raylet"):
            usage.add(process.environ()["RAY_USAGE_STATS_ENABLED"])
Path("seen.json").write_text(dumps([sorted(each) for each in (heard, usage, names)]))
kept.__exit__(None, None, None)
"""


def test_a_command_on_a_ray_of_its_own(own, tmp_path) -> None:
    """The same; without dashboard and usage statistics, and heard on this machine alone."""
    shutil.copytree(own, tmp_path / "own", ignore=shutil.ignore_patterns("ray-*"))
    run(*commands("ray", "compare"), cwd=tmp_path / "own", before=ALONE, after=SEEN)
    assert same_comparison(tmp_path / "own")
    heard, usage, names = json.loads((tmp_path / "own" / "seen.json").read_text())
    assert {address.removeprefix("::ffff:") for address in heard} == {"127.0.0.1"}
    assert usage == ["0"]
    assert not any("dashboard" in name for name in names)


def test_reproductions(ray) -> None:
    """The same records of an experiment."""
    given = {"quick": True, "data": ["credit"]}
    here, there = (fn.reproduce("table2", on=on, **given) for on in ("process", "ray"))
    assert without_times(there.to_dict()) == without_times(here.to_dict())
    assert [len(each.records) for each in there.found] == [1]
