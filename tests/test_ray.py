"""Slicing on Ray: the paths that slicing here gives, whatever the blocks, and if workers die."""

import copy
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Thread
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.errors import DataError, InputError, ModelError, OptionError
from fairneuron.paths import Paths
from tests.test_slicing import data, network

pytestmark = [  # of Ray's own making
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.reset_index"),
]

Block = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    """Ray with two workers, reachable from this machine alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # 127.0.0.1, as on these
        import ray
        import ray.data

        ray.init(
            "local",
            num_cpus=2,
            object_store_memory=80_000_000,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
        ray.shutdown()


def assert_same(one: Paths, other: Paths) -> None:
    """The same path for each sample, and the same signature and count for each path."""
    for name in ("path_of", "counts", "first", "signatures"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.fixture(params=["trained", "two logits"])
def sliced(request: pytest.FixtureRequest, parts, trained) -> tuple[nn.Module, torch.Tensor]:
    """A network and samples: a trained one, or a random one with two logits."""
    if request.param == "trained":
        return trained, parts[0].x
    return network(1, outputs=2), data(1, n=300)


@pytest.mark.parametrize("blocks", [1, 3, 7])
def test_same_paths_for_any_number_of_blocks(ray, sliced, blocks: int) -> None:
    """A column of vectors in 1, 3 or 7 blocks gives the paths of the tensor."""
    net, x = sliced
    dataset = ray.data.from_numpy(x.numpy()).repartition(blocks).materialize()
    assert dataset.num_blocks() == blocks
    expected = fn.activation_paths(net, x, gamma=0.6)
    assert 1 < len(expected) < len(x)
    assert_same(fn.activation_paths_on_ray(net, dataset, gamma=0.6, batch_size=50), expected)


def test_same_paths_for_named_columns_of_unequal_blocks(ray) -> None:
    """Columns are read in the order given, float64 ones as ``.float()`` reads them."""
    net, x = network(2), data(2, n=300).double().numpy() / 3
    frame = pd.DataFrame(x, columns=list("abcde"))
    frame["e"] = (frame["e"] > 0).astype(int)
    frame["text"] = "no input"
    pieces = [frame[:2], frame[2:200], frame[200:201], frame[201:]]
    dataset = ray.data.from_pandas(pieces)
    names = ["e", "c", "a", "b", "d"]
    found = fn.activation_paths_on_ray(net, dataset, columns=names, contribution="absolute")
    inputs = torch.from_numpy(frame[names].to_numpy()).float().contiguous()
    assert_same(found, fn.activation_paths(net, inputs, contribution="absolute"))
    plain = fn.activation_paths_on_ray(net, ray.data.from_pandas(frame.drop(columns="text")))
    inputs = torch.from_numpy(frame[list("abcde")].to_numpy()).float().contiguous()
    assert_same(plain, fn.activation_paths(net, inputs))


def test_same_paths_for_lists_and_filtered_rows(ray) -> None:
    """Lists are vectors too; blocks without rows add nothing."""
    net, x = network(3), data(3, n=60)
    rows = [{"id": i, "x": row} for i, row in enumerate(x.tolist())]
    dataset = ray.data.from_items(rows).repartition(6).map_batches(lambda b: b, batch_size=None)
    late = dataset.filter(expr=ray.data.expressions.col("id") >= 35)
    found = fn.activation_paths_on_ray(net, late, columns="x")
    assert_same(found, fn.activation_paths(net, x[35:]))


def test_rows_keep_their_order(ray, tmp_path) -> None:
    """A first block that ends last stays the first, and the setting for it is not left behind."""
    net, x = network(4), data(4, n=300)
    start = float(x[0, 0])

    def slow_first(block: Block) -> Block:
        if block["data"][0, 0] != start:
            (tmp_path / str(time.time_ns())).touch()
            return block
        ended = len(list(tmp_path.iterdir()))
        end = time.monotonic() + 5
        while len(list(tmp_path.iterdir())) == ended and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.3)
        return block

    pieces = [piece.numpy() for piece in x.split(60)]
    assert [float(piece[0, 0]) for piece in pieces].count(start) == 1
    dataset = ray.data.from_numpy(pieces).map_batches(slow_first, batch_size=None)
    assert_same(fn.activation_paths_on_ray(net, dataset), fn.activation_paths(net, x))
    assert not dataset.context.execution_options.preserve_order
    assert not ray.data.DataContext.get_current().execution_options.preserve_order


def test_parts_merge(ray, parts, trained) -> None:
    """Parts relative to the means of the whole join; so do their counts alone."""
    x = parts[0].x
    whole = fn.activation_paths(trained, x, gamma=0.6)
    means = [fn.mean_activations(trained, piece) for piece in (x[:100], x[100:])]
    pieces = [
        fn.activation_paths_on_ray(
            trained, ray.data.from_numpy(piece.numpy()), gamma=0.6, means=means[0] + means[1]
        )
        for piece in (x[:100], x[100:])
    ]
    assert_same(Paths.merge(pieces), whole)
    counts: Counter[tuple[int, ...]] = Counter()
    for piece in (pieces[1], pieces[0]):
        counts.update(dict(zip(map(tuple, piece.signatures), piece.counts, strict=True)))
    assert counts == dict(zip(map(tuple, whole.signatures), whole.counts, strict=True))


# Workers that die


def wait(found: Callable[[], Any]) -> Any:
    """What is found, as soon as there is something."""
    end = time.monotonic() + 30
    while not (what := found()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
    return what


def gone(pid: int) -> bool:
    """Whether there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [1, 2])
def test_a_worker_that_dies_changes_nothing(ray, parts, trained, tmp_path, number: int) -> None:
    """A process is killed while it runs a task of the first or second pass: the same paths."""
    x = parts[0].x
    pieces = [piece.numpy() for piece in x.split(50)]
    marked = float(pieces[-2][0, 0])  # one block is left when it is killed

    def watched(block: Block) -> Block:
        if block["data"][0, 0] == marked:
            at = f"{time.time_ns()}-{os.getpid()}"
            (tmp_path / f"{at}.started").touch()
            time.sleep(0.5)
            (tmp_path / f"{at}.ended").touch()
        return block

    def kill() -> None:
        began = wait(lambda: sorted(tmp_path.glob("*.started"))[number - 1 : number])
        victim.append(int(began[0].stem.split("-")[1]))
        os.kill(victim[0], signal.SIGKILL)

    victim: list[int] = []
    killer = Thread(target=kill, daemon=True)
    killer.start()
    dataset = ray.data.from_numpy(pieces).map_batches(watched, batch_size=None)
    found = fn.activation_paths_on_ray(trained, dataset, gamma=0.6)
    killer.join()

    assert_same(found, fn.activation_paths(trained, x, gamma=0.6))
    started, ended = (sorted(p.stem for p in tmp_path.glob(f"*.{s}")) for s in ("started", "ended"))
    (lost,) = set(started) - set(ended)  # the task was cut off, and ran again elsewhere
    assert lost == started[number - 1]
    assert len(started) == 3
    assert len(ended) == 2
    assert lost.endswith(f"-{victim[0]}")
    assert not any(name.endswith(f"-{victim[0]}") for name in started[number:])
    wait(lambda: gone(victim[0]))


# Refusals


def test_errors_in_tasks_are_ours(ray, parts, trained) -> None:
    """NaN in one of the last rows, and an overflow, are the errors that slicing here raises."""
    x = parts[0].x.clone()
    x[-1, 2] = torch.nan
    broken = copy.deepcopy(trained).double()
    with torch.no_grad():
        broken[0].weight[0] = 1e300
    late = torch.zeros_like(x)
    late[200:] = 1e30
    for net, samples, layer in ((trained, x, "input"), (broken, late, "0")):
        dataset = ray.data.from_numpy(samples.numpy()).repartition(6)
        with pytest.raises(ModelError, match=f"layer '{layer}'") as here:
            fn.activation_paths(net, samples)
        with pytest.raises(ModelError) as there:
            fn.activation_paths_on_ray(net, dataset)
        assert type(there.value) is ModelError
        assert (there.value.code, str(there.value)) == (here.value.code, str(here.value))


def test_text_in_a_late_block_is_refused(ray) -> None:
    """What the first rows do not show is refused by the task that sees it."""
    dataset = ray.data.from_pandas([pd.DataFrame({"a": [1.0] * 70}), pd.DataFrame({"a": ["x"]})])
    with pytest.raises(DataError, match="column 'a'") as caught:
        fn.activation_paths_on_ray(network(0, inputs=1), dataset)
    assert caught.value.code == "data-type"


def test_other_rows_in_the_second_pass_are_refused(ray, tmp_path) -> None:
    """Datasets that are not the same each time are told so."""
    x = data(0, n=100)

    def fewer(block: Block) -> Block:
        (tmp_path / str(time.time_ns())).touch()
        return {"x": block["data"][: 110 - 10 * len(list(tmp_path.iterdir()))]}

    dataset = ray.data.from_numpy(x.numpy()).map_batches(fewer, batch_size=None)
    with pytest.raises(DataError, match=r"got 90 samples, then 80\. Call dataset.materialize"):
        fn.activation_paths_on_ray(network(0), dataset)


@pytest.mark.parametrize(
    ("rows", "options", "code", "text"),
    [
        ([], {}, "data-empty", "needs samples"),
        ([{"age": 1}], {"columns": ["aeg"]}, "option-columns", "mean 'age'"),
        ([{"age": 1, "sex": "f"}], {}, "data-type", "column 'sex'"),
        ([{"x": [1, 2]}, {"x": [1]}], {}, "data-type", "one length"),
        ([{"x": [1.0] * 4}], {}, "model-width", "expects 5 inputs"),
        ([{"x": [1.0] * 5}], {"gamma": 0}, "option-range", "gamma"),
        ([{"x": [1.0] * 5}], {"contribution": "sign"}, "option-contribution", "sign"),
    ],
)
def test_refusals(ray, rows: list, options: dict, code: str, text: str) -> None:
    """Each with the rule, the value and the cure."""
    with pytest.raises(InputError, match=text) as caught:
        fn.activation_paths_on_ray(network(0), ray.data.from_items(rows), **options)
    assert caught.value.code == code


def test_means_of_another_network_are_refused(ray) -> None:
    """As in slicing here."""
    means = fn.mean_activations(network(0, hidden=(3,)), data(0))
    with pytest.raises(OptionError, match="Means must be those of this network"):
        fn.activation_paths_on_ray(network(0), ray.data.from_numpy(data(0).numpy()), means=means)


def test_something_else_than_a_dataset_is_refused(ray) -> None:
    """A tensor belongs into ``activation_paths``."""
    with pytest.raises(DataError, match="must be a Ray Dataset; got Tensor"):
        fn.activation_paths_on_ray(network(0), data(0))


def test_ray_that_does_not_run_is_refused(ray, monkeypatch) -> None:
    """No Ray is started behind anyone's back."""
    dataset = ray.data.range(3)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(OptionError, match=r"Call ray\.init") as caught:
        fn.activation_paths_on_ray(network(0, inputs=1), dataset)
    assert caught.value.code == "option-ray"


def test_missing_ray_is_told(monkeypatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"pip install 'fairneuron\[ray\]'") as caught:
        fn.activation_paths_on_ray(network(0), object())
    assert caught.value.code == "option-ray"
