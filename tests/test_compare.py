"""The comparison: one protocol for every method, records that are kept, figures by hand."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.compare import plots
from fairneuron.compare.comparison import Comparison
from fairneuron.compare.figures import Criterion, Points, worse
from fairneuron.compare.methods import METHODS, Named, methods_named
from fairneuron.compare.selection import chosen, front, volume
from fairneuron.compare.setting import make_setting
from fairneuron.errors import (
    DataError,
    FairNeuronWarning,
    ModelError,
    OptionError,
    OutputError,
)
from fairneuron.models import Network, mlp
from fairneuron.state import State
from tests.conftest import made_up

COMMAND = Path(sys.executable).with_name("fairneuron")
DATA = made_up(400)


def small(data: fn.Dataset) -> nn.Module:
    """An untrained network of a few neurons."""
    return mlp(data.x.shape[1], (4,))


def with_a_bend(data: fn.Dataset) -> nn.Module:
    """Another network."""
    return nn.Sequential(nn.Linear(data.x.shape[1], 4), nn.LeakyReLU(0.1), nn.Linear(4, 1))


def compare(**changed: Any) -> fn.Comparison:
    """A quick comparison; what it is asked can be changed."""
    asked: dict[str, Any] = {"methods": ["naive"], "seeds": 2, "criteria": ["dp"], "model": small}
    asked |= {"data": DATA, "plots": False} | changed
    return fn.compare(asked.pop("data"), **asked)


class Shifted:
    """Tries the model with its output bias moved; group-aware if told so; counts its calls."""

    calls = 0

    def __init__(self, shifts: tuple[float, ...] = (0.0, 0.5, 1.0), aware: bool = False) -> None:
        self.shifts, self.needs_sensitive = shifts, aware

    def fit(self, *_: Any, **__: Any) -> Any:
        """Not asked for: a comparison wants the candidates."""
        raise AssertionError

    def candidates(self, model: nn.Module, *_: Any, **__: Any) -> Iterator[Any]:
        """One for each shift."""
        type(self).calls += 1
        for shift in self.shifts:
            yield {"shift": shift}, nn.Sequential(model, Plus(shift)), np.isfinite(shift)


class Plus(nn.Module):
    """Adds a constant to logits."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(float(shift)))

    def forward(self, out: torch.Tensor) -> torch.Tensor:
        """Maps logits to logits."""
        return out + self.shift


def shifted(_: dict[str, float]) -> Shifted:
    """One that other processes can import."""
    return Shifted()


def warns(_: dict[str, float]) -> Shifted:
    """Says something on the way."""
    warnings.warn("mind the gap [test]", FairNeuronWarning, stacklevel=1)
    return Shifted()


def dies(_: dict[str, float]) -> Shifted:
    """Ends its process, as a kill for memory does."""
    os._exit(9)


def without_times(comparison: fn.Comparison) -> list[dict[str, Any]]:
    """The records without seconds."""
    text = json.dumps(comparison.records)
    records: list[dict[str, Any]] = json.loads(text)
    for record in records:
        for part in (record, record["base"]):
            del part["seconds"], part["cpu_seconds"]
    return records


# The protocol


def test_every_method_gets_the_split_and_the_base_model_of_the_seed() -> None:
    """Those of Dataset.split and train_classifier, bit for bit."""
    seen = []

    class Spy:
        def fit(self, model: nn.Module, train: Any, valid: Any, *, seed: int) -> Network:
            seen.append((model, train, valid, seed))
            return Network(model)

    compare(methods={"a": lambda _: Spy(), "b": lambda _: Spy()}, seeds=[3], model=None)
    for model, train, valid, seed in seen:
        expected = DATA.split(3)
        net = fn.train_classifier(expected[0], expected[1], seed=3)
        assert seed == 3
        assert torch.equal(train.x, expected[0].x)
        assert torch.equal(valid.x, expected[1].x)
        assert all(torch.equal(v, net.state_dict()[k]) for k, v in model.state_dict().items())
    assert len(seen) == 2


def test_records_are_audits() -> None:
    """Figures of the configurations are those of fn.audit on validation and test data."""
    record = compare(methods={"s": shifted}, seeds=[1]).records[0]
    train, valid, test = DATA.split(1)
    net = compare_base(train, valid)
    for configuration in record["configurations"]:
        shift = configuration["settings"]["shift"]
        for part, name in ((valid, "valid"), (test, "test")):
            audited = fn.audit(nn.Sequential(net, Plus(shift)), part)
            kept = configuration[name]
            for metric in ("accuracy", "balanced_accuracy", "auc", "dp", "eo", "eodds"):
                assert kept[metric] == audited.metrics[metric]
            assert abs(kept["signed"]["dp"]) == pytest.approx(kept["dp"])
            assert abs(kept["signed"]["eo"]) == pytest.approx(kept["eo"])
            assert abs(kept["signed"]["eodds"]) == pytest.approx(kept["eodds"])
            rates = [row["selection_rate"] for row in audited.groups]
            assert kept["signed"]["dp"] == pytest.approx(rates[1] - rates[0])
    share = np.bincount(test.y).max() / len(test)
    assert record["base"]["majority"] == pytest.approx(share)
    assert record["base"]["noise_floor"]["dp"] > 0


def compare_base(train: fn.Dataset, valid: fn.Dataset) -> nn.Module:
    """The base model of seed 1, as a user would train it."""
    from fairneuron.training import reproducible
    from fairneuron.training import train as fit

    with reproducible(1):
        net = small(train)
    fit(net, train, valid, fn.Schedule(patience=8), seed=1)
    return net.eval()


def test_test_data_are_read_once_per_configuration_and_last() -> None:
    """After all configurations were audited on validation data."""
    read: list[int] = []
    test_rows = len(DATA.split(0)[2])

    class Says(Network):
        def predict(self, data: fn.Dataset) -> Any:
            read.append(len(data))
            return super().predict(data)

    class Two:
        def candidates(self, model: nn.Module, *_: Any, **__: Any) -> Iterator[Any]:
            yield {}, Says(model), True
            yield {}, Says(model), True

    compare(methods={"two": lambda _: Two()}, seeds=[0])
    valid_rows = len(DATA.split(0)[1])
    assert read == [valid_rows, valid_rows, test_rows, test_rows]


def test_more_configurations_than_the_others_have_are_refused() -> None:
    """Thirteen are an error of that method; twelve are not."""
    found = compare(methods={"s": lambda _: Shifted((0.1,) * 13)}, seeds=1).records[0]
    assert "up to 12" in found["error"]
    assert found["configurations"] == []
    assert (
        compare(methods={"s": lambda _: Shifted((0.1,) * 12)}, seeds=1).records[0]["error"] is None
    )


def test_fairneuron_gives_its_candidates() -> None:
    """Each λ is a configuration; the original is none."""
    quick = {
        "ours": lambda limit: fn.FairNeuron(
            limit=limit, neuron_share=0.3, strengths=(0.2, 1.0), epochs=2
        )
    }
    record = compare(methods=quick, seeds=1).records[0]
    assert record["error"] is None
    assert [c["settings"]["strength"] for c in record["configurations"]] == [0.2, 1.0]


def test_a_failing_method_stops_nobody() -> None:
    """Its error is recorded and on the page; the others have their figures."""

    def broken(_: dict[str, float]) -> Any:
        raise ValueError("no | such thing")

    found = compare(methods={"broken": broken, "naive": "naive"})
    assert [r["error"] for r in found.records if r["method"] == "broken"] == [
        "ValueError: no | such thing"
    ] * 2
    assert "broken failed on 2 of 2 seeds" in found.to_markdown()
    (figures,) = found.to_dict()["criteria"]
    assert figures["at"][0]["methods"]["broken"]["gap"]["mean"] is None
    assert figures["at"][0]["methods"]["naive"]["gap"]["mean"] > 0


def test_diverged_and_constant_configurations_are_never_chosen() -> None:
    """Their gap of 0 would win at every ε."""
    found = compare(methods={"s": lambda _: Shifted((float("nan"), 1e6, 0.2))}, seeds=1)
    record = found.records[0]
    rejected = [c["rejected"] for c in record["configurations"]]
    assert rejected == ["diverged", "predicts one class alone", None]
    assert record["configurations"][0]["settings"] == {"shift": "nan"}
    for epsilon in (0.01, 0.1, 1.0):
        assert chosen(record, epsilon)[0]["settings"] == {"shift": 0.2}
    assert "2 configurations" in found.to_markdown()


def test_own_split_and_trained_model(parts: Any, trained: nn.Module) -> None:
    """The one split for every seed; base training has no time; the page says what seeds vary."""
    found = compare(data=parts, model=trained, methods={"s": shifted})
    assert found.records[0]["base"]["test"] == found.records[1]["base"]["test"]
    assert found.records[0]["base"]["seconds"] is None
    expected = fn.audit(trained, parts[2]).metrics["dp"]
    assert found.records[0]["base"]["test"]["dp"] == expected
    assert "the seeds vary the methods alone" in found.to_markdown()
    again = compare(data=parts, methods={"s": shifted})
    assert "the test part is the same for all seeds" in again.to_markdown()
    with pytest.raises(OptionError, match="needs the split that it was trained on"):
        compare(model=trained)


def test_a_given_model_stays_as_it_is(parts: Any, trained: nn.Module) -> None:
    """Every module has its own mode again, also after a method that failed; bfloat16 will do."""
    own = copy.deepcopy(trained).train()
    own[0].eval()
    modes = [module.training for module in own.modules()]

    def broken(_: dict[str, float]) -> Any:
        raise ValueError("no")

    compare(data=parts, model=own, methods={"s": shifted, "broken": broken}, seeds=1)
    assert [module.training for module in own.modules()] == modes
    small_one = compare(data=parts, model=own.bfloat16(), seeds=1)
    assert small_one.records[0]["error"] is None
    assert small_one.setup["model"].startswith("given Sequential, weights ")


def test_libraries_are_imported_before_any_clock_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that cannot be imported stops nobody."""
    (tmp_path / "slow_library.py").write_text("import time\n\ntime.sleep(0.5)\n")
    (tmp_path / "broken_library.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)

    class Slow(Named):
        def __call__(self, limit: dict[str, float]) -> Any:
            import slow_library  # type: ignore[import-not-found]  # noqa: F401

            return Shifted()

    libraries = ("no_such_library", "broken_library", "slow_library")
    found = compare(
        methods={"slow": Slow("baselines.dropout:Naive", libraries=libraries)}, seeds=1
    ).records[0]
    assert found["error"] is None
    assert found["seconds"] < 0.4
    sys.modules.pop("slow_library")


def test_our_methods_import_no_library_at_work() -> None:
    """All of what they import is imported before."""
    for name in ("fairret", "fairlearn", "aif360", "oxonfair"):
        pytest.importorskip(name)
    code = """
import sys
from torch import nn
from fairneuron.compare import protocol
from fairneuron.compare.methods import METHODS
from tests.conftest import made_up
methods = [m for m in METHODS.values() if m.libraries]
protocol._warm_up(methods)
data = made_up(300)
model, parts = nn.Sequential(nn.Linear(5, 1)), (data, data, data)
libraries = ("fairret", "fairlearn", "aif360", "oxonfair", "sklearn", "scipy", "pandas")
def loaded():
    return {name for name in sys.modules if name.startswith(libraries)}
for method in methods:
    before = loaded()
    next(protocol.candidates_of(method({"dp": 0.05}), model, parts, 0))
    late = loaded() - before
    assert not late, (method.path, sorted(late)[:5])
print(len(methods))
"""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "5"


def test_a_method_without_its_library_stands_in_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own error; those that cannot even be made are where their class says."""
    monkeypatch.setitem(sys.modules, "fairlearn.postprocessing", None)

    class MadeAware(Named):
        def __call__(self, limit: dict[str, float]) -> Any:
            raise ImportError("no such library")

    linear_post = METHODS["linear-post-aware"]
    assert isinstance(linear_post, Named)
    methods: dict[str, Any] = {
        "threshold-optimizer": "threshold-optimizer",
        "class": MadeAware(METHODS["reject-option"].path),
        "option": MadeAware(linear_post.path, options=linear_post.options),
        "blind": MadeAware(linear_post.path),
        "naive": "naive",
    }
    found = {r["method"]: r for r in compare(methods=methods, seeds=1).records}
    assert "needs the library fairlearn" in found["threshold-optimizer"]["error"]
    aware = {name: record["needs_sensitive"] for name, record in found.items()}
    assert aware == dict.fromkeys(methods, True) | {"blind": False, "naive": False}
    assert found["naive"]["error"] is None


# Choice, by hand


def record(
    *points: tuple[float, float, float, float], seed: int = 0, method: str = "m", **more: Any
) -> dict[str, Any]:
    """A record with configurations of (validation accuracy, gap, test accuracy, gap)."""
    configurations = [
        {
            "settings": {"n": n},
            "valid": {"accuracy": va, "dp": vg, "signed": {}},
            "test": {"accuracy": ta, "dp": tg, "signed": {"dp": -tg}},
            "rejected": None,
        }
        for n, (va, vg, ta, tg) in enumerate(points)
    ]
    base = {
        "test": {"accuracy": 0.85, "dp": 0.2, "signed": {"dp": -0.2}},
        "majority": 0.7,
        "noise_floor": {"dp": 0.01},
        "seconds": 2.0,
        "cpu_seconds": 1.0,
    }
    return {
        "seed": seed,
        "method": method,
        "criterion": "dp",
        "base": base,
        "configurations": configurations,
        "error": None,
        "needs_sensitive": False,
        "versions": {"python": "3"},
        "seconds": 3.0,
        "cpu_seconds": 2.0,
    } | more


SETUP = make_setting(DATA, None).describe()
FOUR = record(
    (0.85, 0.20, 0.84, 0.19),
    (0.84, 0.05, 0.80, 0.06),
    (0.83, 0.03, 0.83, 0.02),
    (0.84, 0.04, 0.82, 0.05),
)


@pytest.mark.parametrize(
    ("epsilon", "number", "flagged"),
    [(0.5, 0, False), (0.1, 3, False), (0.05, 3, False), (0.03, 2, False), (0.02, 2, True)],
)
def test_choice(epsilon: float, number: int, flagged: bool) -> None:
    """The most accurate within ε, of equals the lower gap; none within: the lowest gap, flagged."""
    assert chosen(FOUR, epsilon) == (FOUR["configurations"][number], flagged)


def test_choice_reads_no_test_figures() -> None:
    """Whatever they are, the choice is the same."""
    other = json.loads(json.dumps(FOUR))
    for configuration in other["configurations"]:
        configuration["test"] = None
    for epsilon in (0.02, 0.05, 0.5):
        before, after = (chosen(r, epsilon)[0]["settings"] for r in (FOUR, other))
        assert before == after
    assert Points.of([other], 0.05).accuracy == {}


def test_nothing_to_choose() -> None:
    """A record without a usable configuration gives no point, and hypervolume 0."""
    empty = record()
    assert chosen(empty, 0.05) is None
    assert volume(empty) == 0


def test_front_and_hypervolume_by_hand() -> None:
    """Validation picks 2, 3 and 0; their test points dominate (.83, .02), (.84, .19)."""
    assert [c["settings"]["n"] for c in front(FOUR)] == [2, 3, 0]
    assert volume(FOUR) == pytest.approx(0.13 * 0.17 + 0.14 * 0.01)


def ten(
    method: str, accuracy: float, gap: float, seeds: int = 10, **more: Any
) -> list[dict[str, Any]]:
    """Records of one configuration that differ a little over the seeds."""
    noise = np.random.default_rng(len(method)).normal(0, 1e-4, (seeds, 2))
    return [
        record((0.8, 0.05, accuracy + a, gap + g), seed=seed, method=method, **more)
        for seed, (a, g) in enumerate(noise)
    ]


@pytest.mark.parametrize(
    ("accuracy", "gap", "ours", "theirs"),
    [
        (0.84, 0.05, "worse", "not worse"),  # more accurate at the same gap
        (0.80, 0.05, "not worse", "worse"),
        (0.84, 0.09, "not worse", "not worse"),  # more accurate at a larger gap: a trade
        (0.84, 0.01, "worse", "not worse"),  # better in both
    ],
)
def test_worse(accuracy: float, gap: float, ours: str, theirs: str) -> None:
    """Accuracy lower while the gap is not lower, in either direction."""
    records = (*ten("ours", 0.82, 0.05), *ten("others", accuracy, gap))
    at = Criterion("dp", records, "ours").to_dict()["at"][2]
    found = at["methods"]["others"]
    assert found["reference_is_worse"]["verdict"] == ours
    assert found["is_worse"]["verdict"] == theirs
    assert found["is_worse"]["accuracy_difference"] == pytest.approx(accuracy - 0.82, abs=1e-3)


def test_nine_seeds_are_too_few() -> None:
    """There is no verdict, and the page says why."""
    records = (*ten("ours", 0.82, 0.05, 9), *ten("others", 0.7, 0.05, 9))
    found = Criterion("dp", records, "ours").to_dict()["at"][2]["methods"]["others"]["is_worse"]
    assert found["verdict"] == "too few seeds"
    assert found["accuracy_p"] is None


def test_holm_is_over_the_methods_of_a_table() -> None:
    """With three others the smallest p is three times as large; those apart do not count."""
    ours = Points.of(ten("ours", 0.82, 0.05), 0.05)
    pairs = {m: (Points.of(ten(m, 0.7, 0.05), 0.05), ours) for m in ("a", "bb", "ccc")}
    assert worse(pairs)["a"]["accuracy_p"] == pytest.approx(3 / 1024)
    apart = {"needs_sensitive": True}
    records = [*ten("ours", 0.82, 0.05), *ten("a", 0.7, 0.05), *ten("bb", 0.7, 0.05, **apart)]
    methods = Criterion("dp", tuple(records), "ours").to_dict()["at"][2]["methods"]
    assert methods["a"]["is_worse"]["accuracy_p"] == pytest.approx(1 / 1024)


def test_the_gap_is_not_corrected() -> None:
    """25 of the 1024 signs of ten ranks sum to 8 or less: lower, however many methods there are."""
    flat = dict.fromkeys(range(10), 0.05)
    ours = Points(dict.fromkeys(range(10), 0.8), flat, {}, {})
    steps = {i: 0.001 * (i + 1) * (1 if i == 7 else -1) for i in range(10)}
    accuracy = {i: 0.7 + 0.001 * i for i in range(10)}
    a = Points(accuracy, {i: 0.05 + step for i, step in steps.items()}, {}, {})
    for names in ("a", "abc", "abcdefgh"):
        found = worse(dict.fromkeys(names, (a, ours)))["a"]
        assert found["gap_p"] == pytest.approx(25 / 1024)
        assert found["accuracy_p"] == pytest.approx(len(names) / 1024)
        assert found["verdict"] == "not worse"


def test_seeds_that_are_left_out_are_told() -> None:
    """In both tables and below them."""
    failed = record(seed=9, method="b", error="ValueError: no")
    records = (*ten("ours", 0.82, 0.05), *ten("b", 0.80, 0.05, 9), failed)
    text = Comparison(SETUP, records, "ours").to_markdown()
    assert "b failed on 1 of 10 seeds, which are left out of its means; seed 9" in text
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()]
    rows = [cells for cells in lines if cells and cells[0] == "b"]
    assert rows[0][1].endswith("(9 of 10 seeds)")
    assert [cells[1] for cells in rows[1:]] == ["9 of 10"] * 4
    assert {cells[1] for cells in lines if cells and cells[0] == "ours"} >= {"10"}
    assert "seeds)" not in Comparison(SETUP, records[:10], "ours").to_markdown()


def test_figures_by_hand() -> None:
    """Flags, signed gaps, ranks within their kind, costs as ratios."""
    apart = ten("aware", 0.84, 0.0, needs_sensitive=True)
    records = (*ten("ours", 0.82, 0.05), *ten("b", 0.80, 0.05), *apart)
    found = Criterion("dp", records, "ours").to_dict()
    ranks = {name: one["rank"] for name, one in found["methods"].items()}
    assert ranks == {"ours": 1.0, "b": 2.0, "aware": 1.0}
    assert found["methods"]["b"]["cost"] == 1.5
    assert found["methods"]["b"]["cpu_cost"] == 2.0
    assert found["base"]["noise_floor"] == pytest.approx(0.01)
    tight, loose = found["at"][0]["methods"]["b"], found["at"][2]["methods"]["b"]
    assert (tight["flagged"], loose["flagged"]) == (1.0, 0.0)
    assert loose["signed_gap"] == pytest.approx(-0.05, abs=1e-3)
    assert loose["accuracy"]["n"] == 10


# Going on


def test_a_network_is_known_by_more_than_the_name_of_its_function(tmp_path: Path) -> None:
    """Other widths, activations, settings or weights at the start; the same ones go on."""
    out = tmp_path / "out"

    def go(make: Any) -> fn.Comparison:
        def build(data: fn.Dataset) -> nn.Module:
            return make(data.x.shape[1])

        return compare(model=build, seeds=1, out=out)

    def scaled(width: int) -> nn.Module:
        net = mlp(width, (4,))
        with torch.no_grad():
            net[0].weight.mul_(0.5)
        return net

    def leaky(slope: float) -> Any:
        return lambda w: nn.Sequential(nn.Linear(w, 4), nn.LeakyReLU(slope), nn.Linear(4, 1))

    first = go(lambda width: mlp(width, (4,)))
    assert go(lambda width: mlp(width, (4,))).records == first.records
    for other in (lambda width: mlp(width, (8,)), scaled, leaky(0.1)):
        with pytest.raises(OptionError, match="another model_sum"):
            go(other)
    out = tmp_path / "leaky"
    go(leaky(0.1))
    with pytest.raises(OptionError, match="another model_sum"):
        go(leaky(0.2))


def test_a_setup_with_our_network_is_as_it_was() -> None:
    """So that records of before stay valid."""
    names = "protocol data data_sum rows features positive sensitive sensitive_inputs groups"
    found = make_setting(DATA, None).describe()
    assert list(found) == [*names.split(), "fixed_split", "model", "threshold"]
    assert found["model"] == "hidden layers of 32, 32, 32, 1 output"


def test_a_network_that_does_not_fit_is_refused_before_any_work(tmp_path: Path) -> None:
    """Nothing is written."""
    with pytest.raises(ModelError, match="5"):
        compare(model=lambda _: mlp(3, (4,)), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    """More seeds, methods and criteria add records; the figures are those of one run."""
    out = tmp_path / "out"
    Shifted.calls = 0
    compare(methods={"s": shifted}, out=out)
    assert Shifted.calls == 2
    compare(methods={"s": shifted, "naive": "naive"}, seeds=3, out=out)
    assert Shifted.calls == 3
    found = compare(methods={"s": shifted}, seeds=3, criteria=["dp", "eo"], out=out)
    assert Shifted.calls == 6
    lines = (out / "records.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 2 + 4 + 3
    assert without_times(found) == without_times(
        compare(methods={"s": shifted}, seeds=3, criteria=["dp", "eo"])
    )


def test_what_was_done_before_a_stop_is_kept(tmp_path: Path) -> None:
    """Ctrl-C in the second seed; the same call goes on, and leaves no state."""
    out = tmp_path / "out"
    stop = [True]

    def interrupted(_: dict[str, float]) -> Shifted:
        if stop and Shifted.calls == 1:
            stop.clear()
            raise KeyboardInterrupt
        return Shifted()

    Shifted.calls = 0
    with pytest.raises(KeyboardInterrupt):
        compare(methods={"s": interrupted}, out=out)
    assert [path.name for path in out.iterdir()] == ["state.sqlite"]
    found = compare(methods={"s": interrupted}, out=out)
    assert Shifted.calls == 2
    assert "state.sqlite" not in {path.name for path in out.iterdir()}
    assert [r["seed"] for r in found.records] == [0, 1]
    lines = (out / "records.jsonl").read_text().splitlines()
    assert [json.loads(line).get("seed") for line in lines] == [None, 0, 1]


def test_failures_are_tried_again(tmp_path: Path) -> None:
    """What comes of it stands in the place of the failure."""
    out, broken = tmp_path / "out", [True]

    def sometimes(_: dict[str, float]) -> Shifted:
        if broken:
            raise ImportError("no such library")
        return Shifted()

    first = compare(methods={"s": sometimes}, seeds=1, out=out)
    assert first.records[0]["error"] == "ImportError: no such library"
    broken.clear()
    assert compare(methods={"s": sometimes}, seeds=1, out=out).records[0]["error"] is None
    assert compare(methods={"s": sometimes}, seeds=1, out=out).records[0]["error"] is None
    assert len((out / "records.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"data": made_up(400, seed=1)}, "data_sum"),
        ({"threshold": 0.4}, "threshold"),
        ({"model": None}, "model"),
        ({"model": with_a_bend}, "model, model_sum"),
    ],
)
def test_records_of_another_comparison_are_refused(
    changed: dict[str, Any], what: str, tmp_path: Path
) -> None:
    """Nothing is mixed, and nothing is written."""
    compare(seeds=1, out=tmp_path / "out")
    before = (tmp_path / "out" / "records.jsonl").read_bytes()
    with pytest.raises(OptionError, match=f"another {what}"):
        compare(seeds=1, out=tmp_path / "out", **changed)
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == before


def test_another_base_model_is_refused(tmp_path: Path) -> None:
    """As other versions or machines can give it for the same seed."""
    out = tmp_path / "out"
    compare(seeds=1, out=out)
    header, line = (out / "records.jsonl").read_text().splitlines()
    changed = json.loads(line)
    changed["base"]["test"]["accuracy"] = 0.123
    (out / "records.jsonl").write_text(f"{header}\n{json.dumps(changed)}\n")
    with pytest.raises(OptionError, match="other figures for seed 0"):
        compare(seeds=1, methods=["naive", "reweighing"], out=out)


@pytest.mark.parametrize("content", [b"nonsense\n", b"{}\n", b"[1]\n", b"\xff\xfe\n"])
def test_files_that_hold_no_records_are_refused(content: bytes, tmp_path: Path) -> None:
    """They say which line, and stay."""
    (tmp_path / "records.jsonl").write_bytes(content)
    with pytest.raises(OptionError, match="line 1 of"):
        compare(seeds=1, out=tmp_path)
    assert (tmp_path / "records.jsonl").read_bytes() == content


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    """Before any work."""
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="must be new"):
        compare(out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# Processes


def test_processes_give_the_same(tmp_path: Path) -> None:
    """Figures and order of the records do not depend on the number of workers."""
    asked: dict[str, Any] = {"methods": {"s": shifted, "naive": "naive"}}
    found = compare(**asked, workers=2, out=tmp_path / "out")
    assert without_times(found) == without_times(compare(**asked))


def test_a_killed_process_is_told_and_the_rest_kept(tmp_path: Path) -> None:
    """An error with a cure instead of waiting for ever."""
    methods = {"naive": "naive", "dies": dies}
    with pytest.raises(OutputError, match="exit code 9"):
        compare(methods=methods, workers=2, out=tmp_path / "out")
    with State(tmp_path / "out") as run:
        assert run.names("record ")


def test_warnings_of_processes_are_told_once() -> None:
    """Ours, here."""
    with pytest.warns(FairNeuronWarning) as told:
        compare(methods={"s": warns}, workers=2)
    assert [str(w.message) for w in told] == ["mind the gap [test]"]


def test_what_cannot_be_sent_runs_here() -> None:
    """With a warning, and the same figures."""
    with pytest.warns(FairNeuronWarning, match="Run in one process"):
        found = compare(methods={"s": lambda _: Shifted()}, workers=2)
    assert without_times(found) == without_times(compare(methods={"s": shifted}))


def test_errors_of_processes_are_ours(tmp_path: Path) -> None:
    """What a process refuses is refused as it is without processes."""
    out = tmp_path / "out"
    compare(out=out)
    header, *lines = (out / "records.jsonl").read_text().splitlines()
    changed = [json.loads(line) for line in lines]
    for one in changed:
        one["base"]["test"]["accuracy"] = 0.123
    (out / "records.jsonl").write_text("\n".join([header, *map(json.dumps, changed)]) + "\n")
    with pytest.raises(OptionError, match="other figures for seed"):
        compare(methods=["reweighing"], out=out, workers=2)


# Names


def test_unknown_names() -> None:
    """With the nearest known one."""
    with pytest.raises(OptionError, match="Did you mean 'naive'"):
        compare(methods=["naiv"])
    with pytest.raises(OptionError, match="criterion must be a known one"):
        compare(criteria=["dpp"])
    with pytest.raises(OptionError, match="reference must be a known one"):
        compare(reference="fairneuron")
    for methods in ([], {}, "naive", {"a|b": "naive"}, {"x": 3}, {"x": "naiv"}):
        with pytest.raises(OptionError, match=r"[mM]ethod"):
            compare(methods=methods)
    for seeds in (0, [], [-1], [1.5], 2.0, True, "2", np.int64(0)):
        with pytest.raises(OptionError, match="seed"):
            compare(seeds=seeds)
    with pytest.raises(OptionError, match="workers"):
        compare(workers=0)
    with pytest.raises(DataError):
        compare(data=DATA.subset(np.arange(3)))


def test_seeds_of_numpy() -> None:
    """Count and list are as Python's."""
    assert [r["seed"] for r in compare(seeds=np.int64(2)).records] == [0, 1]
    assert [r["seed"] for r in compare(seeds=np.array([4, 2])).records] == [4, 2]


AT_HALF = "linear-post linear-post-aware threshold-optimizer reject-option oxonfair".split()
AT_HALF += ["exponentiated-gradient", "neuron-dropping", "equalized-odds"]


def test_methods_that_decide_at_half_are_refused_at_another_threshold(tmp_path: Path) -> None:
    """All of them are named, before any work; under another name too."""
    with pytest.raises(OptionError, match=", ".join(AT_HALF)) as caught:
        compare(methods=["naive", *AT_HALF], threshold=0.3, out=tmp_path / "out")
    assert caught.value.code == "option-threshold"
    assert not (tmp_path / "out").exists()
    with pytest.raises(OptionError, match="mine"):
        compare(methods={"mine": "oxonfair"}, threshold=0.6)
    assert list(methods_named(AT_HALF, 0.5)) == AT_HALF


def test_methods_that_take_the_threshold_get_it() -> None:
    """FairNeuron and what is left of it; the others of ours have none."""
    named = [name for name in METHODS if name not in AT_HALF]
    for method in methods_named(named, 0.3).values():
        made = method({"dp": 0.05})
        assert getattr(made, "threshold", None) == (
            0.3 if isinstance(made, fn.FairNeuron) else None
        )
    for name, method in methods_named(list(METHODS), 0.5).items():
        assert method is METHODS[name]
    names = ["naive", "last-layer"]
    errors = [record["error"] for record in compare(methods=names, threshold=0.3).records]
    assert errors == [None] * 4


@pytest.mark.parametrize("name", METHODS)
def test_our_methods_have_configurations(name: str) -> None:
    """Each is a mitigator under its limit, and but for the base model itself has candidates."""
    made = METHODS[name]({"eo": 0.05})
    assert isinstance(made, fn.baselines.Mitigator)
    if name != "naive":
        assert callable(made.candidates)
        assert made.limit == {"eo": 0.05}


def test_our_methods_have_names() -> None:
    """Each is known by its own name; the reference is ours unless it is not compared."""
    assert list(methods_named(list(METHODS))) == list(METHODS)
    assert compare().reference == "naive"
    assert compare(methods={"naive": "naive", "fairneuron": shifted}).reference == "fairneuron"


def test_compare_is_a_function() -> None:
    """Although a package has this name."""
    import fairneuron.compare.statistics  # noqa: F401

    assert type(fn.compare).__name__ == "function"
    assert fn.Comparison.__name__ == "Comparison"


# What is written


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[fn.Comparison, Path]:
    """A comparison with methods of both kinds, and its folder."""
    methods = {"naive": "naive", "s": shifted, "aware": lambda _: Shifted(aware=True)}
    found = compare(methods=methods, seeds=3, criteria=["dp", "eo"], reference="s")
    folder = tmp_path_factory.mktemp("compare") / "new"
    found.write(folder)
    return found, folder


def test_the_folder(written: tuple[fn.Comparison, Path]) -> None:
    """Records, page, figures and plots; written again, the files are the same."""
    found, folder = written
    names = {
        *("records.jsonl", "comparison.md", "comparison.json", "report.json", "report.html"),
        *("front-dp.svg", "front-eo.svg"),
    }
    assert {path.name for path in folder.iterdir()} == names
    before = {name: (folder / name).read_bytes() for name in names}
    found.write(folder)
    assert {name: (folder / name).read_bytes() for name in names} == before
    assert json.loads(before["comparison.json"]) == found.to_dict()
    assert before["comparison.md"].decode() == found.to_markdown()


def test_the_page(written: tuple[fn.Comparison, Path]) -> None:
    """Figures of the tables are those of comparison.json; aware methods stand apart."""
    found, _ = written
    text, figures = found.to_markdown(), found.to_dict()["criteria"][0]
    one = figures["at"][1]["methods"]["s"]
    assert f"{one['accuracy']['mean']:.3f} / {one['gap']['mean']:.3f}" in text
    low, high = one["gap"]["interval"]
    assert f"± {one['gap']['sd']:.3f} [{low:.3f}, {high:.3f}]" in text
    assert "aware (sensitive)" in text
    assert text.count("Methods that read the sensitive attribute to predict:") == 8
    assert "too few seeds" in text
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_the_plot_is_one_and_the_same_file(written: tuple[fn.Comparison, Path]) -> None:
    """Byte for byte, without a date; every method has its line."""
    found, folder = written
    again = found.plot("dp")
    assert again == (folder / "front-dp.svg").read_bytes()
    assert again.startswith(b"<?xml")
    assert b"dc:date" not in again
    assert found.plot("eo") != again
    with pytest.raises(OptionError, match="Compared: dp, eo"):
        found.plot("eodds")


def test_what_is_further_off_stands_below_the_plane(
    written: tuple[fn.Comparison, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There no line of the plane can cross it."""
    from matplotlib.axes import Axes

    texts: list[str] = []
    monkeypatch.setattr(Axes, "text", lambda *_, **__: pytest.fail("a text in the plane"))
    monkeypatch.setattr(plots, "REACH", 1.0)
    told = Axes.set_xlabel
    monkeypatch.setattr(
        Axes, "set_xlabel", lambda ax, text, **how: texts.append(text) or told(ax, text, **how)
    )
    written[0].plot("dp")
    assert any("\nfurther off:\nbase model: gap 0." in text for text in texts)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Refused before any work, with the cure; without plots all is well."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OptionError, match=r"pip install 'fairneuron\[plots\]'"):
        compare(out=tmp_path / "out", plots=True)
    assert not (tmp_path / "out").exists()
    compare(out=tmp_path / "out")
    assert (tmp_path / "out" / "comparison.md").exists()


def test_no_row_is_written(written: tuple[fn.Comparison, Path]) -> None:
    """Lists in the records are configurations alone, of at most twelve."""
    for line in (written[1] / "records.jsonl").read_text().splitlines()[1:]:
        for name, value in json.loads(line).items():
            assert not isinstance(value, list) or (name == "configurations" and len(value) <= 12)


# The command


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command in a folder."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    return subprocess.run(  # noqa: S603
        [COMMAND, "compare", *words],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a module that makes a network."""
    folder = tmp_path_factory.mktemp("own")
    groups = np.array(DATA.group_names)[DATA.group]
    np.savez(folder / "data.npz", x=DATA.x.numpy(), y=DATA.y, sensitive=groups)
    (folder / "nets.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))\n"
    )
    return folder


def test_the_command(arrays: Path) -> None:
    """Computes, goes on with more seeds, and prints what it writes."""
    words = ["--data", "data.npz", "--model", "nets:build", "--methods", "naive", "--criteria"]
    words += ["dp,eo", "--workers", "1", "--out", "cmp"]
    first = run(*words, "--seeds", "1", cwd=arrays)
    assert first.returncode == 0, first.stderr
    assert "| naive" in first.stdout
    assert "Page: cmp/comparison.md" in first.stdout
    more = run(*words, "--seeds", "2", "--json", cwd=arrays)
    assert more.returncode == 0, more.stderr
    result = json.loads(more.stdout)
    assert result == json.loads((arrays / "cmp" / "comparison.json").read_text())
    assert result["seeds"] == [0, 1]
    assert result["setup"]["model"] == "nets:build"
    assert len((arrays / "cmp" / "records.jsonl").read_text().splitlines()) == 5
    other = run(*words, "--threshold", "0.4", cwd=arrays)
    assert other.returncode == 2
    assert "error[option-out]" in other.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "compas", "--methods", "naiv"), "Did you mean 'naive'"),
        (("--data", "compas", "--methods", "naive", "--criteria", "dpx"), "Did you mean 'dp'"),
        (("--data", "compas", "--methods", ""), "must be a list of names"),
        (("--data", "compas", "--methods", "naive", "--reference", "hsic"), "reference"),
        (("--data", "compas", "--methods", "naive", "--out", "."), "must be new"),
        (("--data", "compos", "--methods", "naive"), "Did you mean 'compas'"),
        (("--data", "compas", "--methods", "oxonfair", "--threshold", "0.4"), "decide at"),
    ],
)
def test_bad_words_are_refused_without_torch(
    words: tuple[str, ...], said: str, arrays: Path
) -> None:
    """Exit code 2, and torch is never imported."""
    code = (
        "import sys, fairneuron.cli as cli\n"
        f"sys.argv = ['fairneuron', 'compare', *{('--out', 'new', *words)!r}]\n"
        "try:\n    cli.main()\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], cwd=arrays, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "AssertionError" not in done.stderr
    assert not (arrays / "new").exists()
