"""All that takes a network takes one that is on another device, and leaves it there.

Without a GPU on the pretended one, where results are those of the CPU.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fairneuron as fn
from fairneuron import baselines
from fairneuron.compare.ablations import random_neurons
from fairneuron.compare.methods import METHODS
from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError
from fairneuron.path_views import describe_path, summarise_neurons
from fairneuron.pathways import pathways
from fairneuron.reproduce.images import FullyConnected, ImageSetting, ImagesJob
from fairneuron.training import reproducible
from fairneuron.weights import load_into, module_weights, network_sum, weights_sum
from tests.conftest import made_up
from tests.pretend import DEVICE, DEVICES, Pretend, PretendMode, device_named
from tests.test_mitigators import MITIGATORS
from tests.test_units import Vision

QUICK = fn.Schedule(epochs=1)
FEW_TRIED: dict[str, Any] = {"neuron_share": 0.5, "strengths": 0.7, "stops": 0.5}


# The pretended device


@pytest.fixture
def pair() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same 3 × 3 matrix here and there."""
    with PretendMode():
        here = torch.arange(9.0).reshape(3, 3)
        yield here, here.to(DEVICE)


ROWS = torch.tensor([2, 0])
MIXED: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "sum": lambda here, there: there + here,
    "sum in place": lambda here, there: there.add_(here),
    "sum in place, here": lambda here, there: here.add_(there),
    "one value there": lambda here, there: here + there[0, 0],
    "one value here, in place": lambda here, there: here[0, 0].add_(there[0, 0]),
    "product": lambda here, there: here @ there,
    "bias": lambda here, there: functional.linear(there, there, here[0]),
    "labels": lambda here, there: functional.cross_entropy(there, ROWS.new_zeros(3)),
    "rows": lambda here, there: there.index_select(0, ROWS),
    "embedding": lambda here, there: functional.embedding(ROWS, there),
    "gather": lambda here, there: there.gather(0, ROWS[None]),
    "sums of groups": lambda here, there: there.index_add_(0, ROWS, there[:2]),
    "counts": lambda here, there: torch.bincount(ROWS, there[0, :2]),
    "put": lambda here, there: there.index_put_((ROWS,), here[:2]),
    "choice": lambda here, there: torch.where(here > 0, there, 0),
    "mask": lambda here, there: there.masked_fill(here > 0, 0),
    "joined": lambda here, there: torch.cat([here, there]),
    "stacked": lambda here, there: torch.stack([there, here]),
    "out": lambda here, there: torch.add(there, 1, out=here),
}


@pytest.mark.parametrize("operation", MIXED.values(), ids=MIXED.keys())
def test_two_devices_in_one_operation_are_refused(operation, pair) -> None:
    """With what CUDA says."""
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        operation(*pair)


def test_what_else_is_refused(pair) -> None:
    """What NumPy, indexing, generators and integers cannot do there."""
    here, there = pair
    for read in (np.asarray, lambda t: t.numpy(), lambda t: t.detach().numpy()):
        with pytest.raises(TypeError, match="to numpy"):
            read(there)
    with pytest.raises(RuntimeError, match="either on cpu or on the same device"):
        here[ROWS.to(DEVICE)]
    with pytest.raises(RuntimeError, match="for generator"):
        torch.rand(3, device=DEVICE, generator=torch.Generator())
    with pytest.raises(RuntimeError, match="not implemented"):
        there.long() @ there.long()
    with pytest.raises(RuntimeError, match="too many CPU scalars"):
        torch.addcmul(there, torch.tensor(1.0), torch.tensor(2.0))


def test_what_may_cross(pair) -> None:
    """Copies, indices and masks that are here, and single values."""
    here, there = pair
    for found, wanted in (
        (there[ROWS], here[ROWS]),
        (there[here > 3], here[here > 3]),
        (there + torch.tensor(2.0), here + 2),
        (there.masked_fill(there > 3, torch.tensor(9.0)), here.masked_fill(here > 3, 9)),
        (torch.where(there > 3, there, torch.tensor(9.0)), torch.where(here > 3, here, 9)),
        (torch.zeros(3, 3, device=DEVICE).copy_(here), here),
        (torch.zeros(3, 3).to(there), 0 * here),
        (torch.tensor([1, 2], device=DEVICE), torch.tensor([1, 2])),
        (torch.full_like(there, 2), torch.full_like(here, 2)),
        (there.new_zeros(2), torch.zeros(2)),
    ):
        assert isinstance(found, Pretend)
        assert found.device == DEVICE
        assert type(found.cpu()) is torch.Tensor
        assert torch.equal(found.cpu(), wanted)
    back = torch.zeros(3, 3).copy_(there)
    assert type(back) is torch.Tensor
    assert torch.equal(back, here)
    assert (float(there[1, 2]), bool(there[0, 1] > 0), there.sum().item()) == (5.0, True, 36.0)
    assert there.tolist() == here.tolist()
    assert there.to(DEVICE) is there


def test_views_and_steps_in_place(pair) -> None:
    """A view shares its values; a step in place gives the tensor that it got."""
    here, there = pair
    there[1].zero_()
    there[:, 0] = torch.tensor(7.0)
    there.T.mul_(2)
    here[1], here[:, 0] = 0, 7
    assert torch.equal(there.cpu(), 2 * here)
    assert there.add_(1) is there
    assert there.unsqueeze_(0).shape == (1, 3, 3)


def test_modules_train_there(pair) -> None:
    """Gradients and steps are those of the CPU, after a copy and casts."""
    nets = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))]
    nets.append(copy.deepcopy(copy.deepcopy(nets[0]).to(DEVICE)).double().float())
    assert all(isinstance(p, nn.Parameter) and p.device == DEVICE for p in nets[1].parameters())
    for net, x, y in zip(
        nets, pair, (ROWS.new_zeros(3), ROWS.new_zeros(3).to(DEVICE)), strict=True
    ):
        optimiser = torch.optim.SGD(net.parameters(), 0.1)
        functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    for a, b in zip(*(net.state_dict().values() for net in nets), strict=True):
        assert torch.equal(a, b.cpu())
    one, other = (torch.func.vmap(lambda row: row.softmax(0).sum())(x) for x in pair)
    assert torch.equal(one, other.cpu())
    assert type(next(nets[1].to("cpu").parameters()).data) is torch.Tensor


# FairNeuron


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Each device."""
    with device_named(request.param) as device:
        yield device


@pytest.fixture(scope="module")
def few() -> tuple[Dataset, Dataset, Dataset]:
    """Training, validation and test part of a few rows."""
    return made_up(240).split(0, fractions=(0.5, 0.25, 0.25))


@pytest.fixture(scope="module")
def net(few) -> nn.Sequential:
    """A small trained network."""
    return fn.train_classifier(
        *few[:2], hidden=(6, 6), schedule=fn.Schedule(epochs=10, batch_size=16)
    )


def images(classes: int) -> tuple[Dataset, Dataset, Dataset]:
    """Parts of made-up images, whose class is a bright place, and whose group another."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, classes, 96), rng.integers(0, 2, 96)
    x = rng.normal(size=(96, 1, 8, 8)).astype(np.float32)
    x[np.arange(96), 0, y] += 2
    x[:, 0, -1] += group[:, None]
    data = Dataset.from_arrays(x, y, group, class_names=[*"012"[:classes]])
    return data.split(0, fractions=(0.5, 0.25, 0.25))


def convolutional(outputs: int) -> nn.Module:
    """With batch norm."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(),
        nn.Linear(16, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, outputs),
    ).eval()  # fmt: skip


def transformer(_outputs: int) -> nn.Module:
    """Of three classes."""
    layer = partial(nn.TransformerEncoderLayer, 8, 2, 16, batch_first=True)
    return Vision(layer).eval()


def moved(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy there."""
    return copy.deepcopy(model).to(device)


def require_same(here: nn.Module, there: nn.Module, device: torch.device) -> None:
    """The network is there, and has the weights of the one here, if sums are made as here."""
    wanted, found = here.state_dict(), there.state_dict()
    assert wanted.keys() == found.keys()
    assert all(value.device == device for value in found.values())
    if device == DEVICE:
        assert all(torch.equal(found[name].cpu(), value) for name, value in wanted.items())


def repaired(model: nn.Module, parts: Any, device: torch.device, **options: Any) -> fn.Repair:
    """A repair there, held against the one here."""
    here, there = (
        fn.repair(m, *parts[:2], epochs=1, seed=0, **options) for m in (model, moved(model, device))
    )
    require_same(here.model, there.model, device)
    for one, other in zip(here.trials, there.trials, strict=True) if device == DEVICE else ():
        np.testing.assert_array_equal(one.audit.counts, other.audit.counts)
    assert there.explanation.sentence()
    return there


@pytest.mark.parametrize(
    ("metric", "options"),
    [("dp", {"recipe": "paper"}), ("cv", {"recipe": "paper"})]
    + [(metric, FEW_TRIED) for metric in ("dp", "eo", "eodds", "mcd", "cv")],
)
def test_repairs(metric: str, options: dict[str, Any], net, few, device) -> None:
    """Both recipes, and every gap that is lowered; what they give is audited and judged there."""
    found = repaired(net, few, device, limit={metric: 0.05}, **options)
    there = moved(net, device)
    fn.judge(there, found.model, few[2], {metric: 0.05}, on="test")
    if device == DEVICE:
        np.testing.assert_array_equal(fn.audit(there, few[2]).counts, fn.audit(net, few[2]).counts)


@pytest.mark.parametrize(
    "options",
    [
        {"recipe": "paper", "drop": "outside_path"},
        {"recipe": "paper", "contribution": "gradient"},
        {"recipe": "paper", "level": "units", "similarity": 0.8},
        {"recipe": "paper", "class_weight": "balanced"},
        {"class_weight": "balanced"} | FEW_TRIED,
        {
            "loss": lambda out, y: functional.mse_loss(out.sigmoid(), y.float(), reduction="none"),
            "optimiser": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        }
        | FEW_TRIED,
    ],
)
def test_repairs_with_options(options: dict[str, Any], net, few, device) -> None:
    """Muting, other slicings, weights, and the caller's own loss and optimiser."""
    train, *others = few
    weighted = replace(train, weight=np.linspace(0.5, 2, len(train)))
    repaired(net, (weighted, *others), device, **options)


@pytest.mark.parametrize(
    ("make", "classes", "metric", "options"),
    [
        (convolutional, 3, "mcd", {"recipe": "paper"}),
        (convolutional, 2, "eodds", FEW_TRIED),
        (transformer, 3, "cv", FEW_TRIED),
    ],
)
def test_repairs_of_networks_that_read_images(make, classes, metric, options, device) -> None:
    """Convolutions, batch norm, attention, and more than two classes."""
    with reproducible(0):
        model = make(classes if classes > 2 else 1)
    repaired(model, images(classes), device, limit={metric: 0.05}, **options)


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.double])
def test_other_precisions(cast: Callable[[nn.Module], nn.Module], net, few, device) -> None:
    """Are kept there."""
    there = cast(moved(net, device))
    model = fn.repair(there, *few[:2], epochs=1, **FEW_TRIED).model
    for before, after in zip(there.parameters(), model.parameters(), strict=True):
        assert (before.dtype, before.device) == (after.dtype, after.device)


_ONE = {"strengths": (1.0,), "schedule": QUICK}
OTHERS: dict[str, Callable[[], Any]] = {
    "diffdp": lambda: baselines.DiffDP(**_ONE),
    "fine-tuning": lambda: baselines.FineTuning(**_ONE),
    "hsic": lambda: baselines.HSIC(**_ONE),
    "last-layer": lambda: baselines.LastLayer(**_ONE),
    "reweighing": lambda: baselines.Reweighing(**_ONE),
    "fairret": lambda: baselines.Fairret(**_ONE),
    "linear-post": lambda: baselines.LinearPost(networks=1, strengths=(1.0,)),
    "linear-post-aware": lambda: baselines.LinearPost(aware=True, strengths=(1.0,)),
    "threshold-optimizer": lambda: baselines.ThresholdOptimizer(shares=(0.5,)),
    "reject-option": lambda: baselines.RejectOption(shares=(0.5,), margins=4),
    "oxonfair": lambda: baselines.OxonFair(networks=1, shares=(0.5,)),
    "exponentiated-gradient": lambda: baselines.ExponentiatedGradient(
        shares=(0.5,), iterations=1, schedule=QUICK
    ),
    "neuron-dropping": lambda: baselines.NeuronDropping(penalties=(1.0,), steps=5),
    "equalized-odds": lambda: METHODS["equalized-odds"]({"eodds": 0.05}),
    "random-neurons": lambda: random_neurons({"dp": 0.05}, schedule=QUICK, **FEW_TRIED),
    "fad-thresholds": lambda: baselines.FAD(thresholds=True, **_ONE),
}
REPEATED = {"FairNeuron conflict", "FairNeuron paper", "random neurons", "weakest neurons"}
ALL = OTHERS | {
    name: lambda found=found: copy.deepcopy(found)
    for name, found in MITIGATORS.items()
    if name not in REPEATED
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore")
def test_mitigators(name: str, net, few, device) -> None:
    """All keep their promise there: a predictor, and networks that stay where they were."""
    train, valid, test = few
    there = moved(net, device)
    before = {key: value.clone() for key, value in there.state_dict().items()}
    one, other = (ALL[name]().fit(m, train, valid, seed=0) for m in (net, there))
    assert all(torch.equal(value, before[key]) for key, value in there.state_dict().items())
    if isinstance(getattr(one, "model", None), nn.Module):
        require_same(one.model, other.model, device)
    scores = other.predict(test)
    if device == DEVICE:
        np.testing.assert_array_equal(scores, one.predict(test))


@pytest.mark.parametrize("name", ["ethical adversaries", "exponentiated-gradient", "linear-post"])
@pytest.mark.filterwarnings("ignore")
def test_inputs_that_are_there(name: str, net, few, device) -> None:
    """Data may be there, too, and the network here."""
    train, valid, test = (replace(part, x=part.x.to(device)) for part in few)
    found = ALL[name]().fit(net, train, valid, seed=0).predict(test)
    if device == DEVICE:
        wanted = ALL[name]().fit(net, *few[:2], seed=0).predict(few[2])
        np.testing.assert_array_equal(found, wanted)


def test_paths_are_described(net, few, device) -> None:
    """What pages say of paths: rare ones, neurons by cluster and group, a path, its synapses."""
    train = few[0]

    def said(model: nn.Module) -> list[Any]:
        paths = fn.activation_paths(model, train.x)
        return [
            summarise_neurons(model, train, paths, 0.1, top=3),
            describe_path(model, train, paths, 0),
            pathways(model, train, gamma=0.5, theta=0.1, seed=0),
        ]

    found = said(moved(net, device))
    assert found == said(net)
    assert found[-1]["more_biased"]


def test_searches_and_comparisons(net, few, device) -> None:
    """Of a network that is there."""
    there = moved(net, device)
    one, other = (fn.search(m, *few[:2], samples=2, epochs=1, seed=0) for m in (net, there))
    if device == DEVICE:
        assert other.best == one.best
    methods = {"own": lambda limit: fn.FairNeuron(limit=limit, epochs=1, **FEW_TRIED)}
    one, other = (
        fn.compare(few, methods=methods, seeds=1, model=m, criteria=["dp"]) for m in (net, there)
    )
    if device == DEVICE:
        here, away = ([r["configurations"] for r in found.records] for found in (one, other))
        assert here == away


def test_estimators(net, few, device) -> None:
    """A network with a sigmoid is handed back there, as it was given."""
    train = few[0]
    whole = nn.Sequential(*net, nn.Sigmoid())
    given = [whole, moved(whole, device)]
    here, there = (
        fn.RepairedClassifier(m, repair_options=FEW_TRIED, random_state=0).fit(
            train.x.numpy(), train.y, sensitive_features=train.group
        )
        for m in given
    )
    require_same(here.estimator_, there.estimator_, device)
    p = there.predict_proba(train.x.numpy())
    np.testing.assert_allclose(p, here.predict_proba(train.x.numpy()), atol=1e-2)
    np.testing.assert_allclose(there.estimator_(train.x.to(device))[:, 0].tolist(), p[:, 1])


def test_weights_are_saved_and_loaded(net, device, tmp_path: Path) -> None:
    """The file is that of the CPU, and a network that is there stays there."""
    there = moved(net, device)
    assert module_weights(there) == module_weights(net)
    assert (weights_sum(there), network_sum(there)) == (weights_sum(net), network_sum(net))
    file = tmp_path / "weights.safetensors"
    file.write_bytes(module_weights(there))
    other = load_into(moved(nn.Sequential(*map(copy.deepcopy, net)), device), file)
    require_same(net, other, device)


@pytest.mark.parametrize("make", [FullyConnected((6,)), lambda data: convolutional(3).train()])
def test_the_experiment_on_images(make: Callable[[Dataset], nn.Module], device) -> None:
    """Table 7 trains and repairs there, with batch norm's statistics too."""
    parts = images(3)
    methods = {"own": lambda limit: fn.FairNeuron(limit=limit, epochs=1, **FEW_TRIED)}

    def records(where: str) -> list[Any]:
        setting = ImageSetting(lambda seed: parts, make, plan=QUICK, device=where)
        return list(ImagesJob(setting, methods, seed=0, wanted=[("own", "mcd")]).run())

    (here,), (there,) = records("cpu"), records(str(device))
    assert there["error"] is None
    assert there["configurations"]
    if device == DEVICE:
        assert there["base"]["test"] == here["base"]["test"]
        assert there["configurations"] == here["configurations"]


def test_a_network_on_two_devices_is_refused(net, few, device) -> None:
    """With what torch says, before any work."""
    there = moved(net, device)
    there[0].to("cpu")
    for work in (fn.audit, lambda m, data: fn.activation_paths(m, data.x)):
        with pytest.raises(ModelError, match="same device"):
            work(there, few[0])


def test_arrays_of_a_data_set_may_be_there(parts, device) -> None:
    """Inputs, labels, groups and weights; the data set is on the CPU."""
    train, *_ = parts
    arrays = [torch.from_numpy(a) for a in (train.y, train.group, train.y + 1.0)]
    given = [a.to(device) for a in (train.x, *arrays)]
    y, group, weight = given[1:]
    found = Dataset.from_arrays(given[0], y, group, sample_weight=weight)
    np.testing.assert_array_equal(found.y, train.y)
    np.testing.assert_array_equal(found.weight, train.y + 1.0)
    assert found.x.device.type == "cpu"
