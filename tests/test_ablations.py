"""Ablations: FairNeuron without its choice of neurons, of samples, or of what is dropped."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

import fairneuron as fn
from fairneuron import baselines
from fairneuron.baselines.protocol import CONFIGURATIONS
from fairneuron.compare.ablations import random_neurons, weakest_neurons
from fairneuron.compare.methods import ABLATIONS, PEERS, Named, methods_named
from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError, OptionError
from fairneuron.graph import Elementwise
from fairneuron.models import mlp
from fairneuron.search.muting import neurons_on_paths
from fairneuron.search.together import Job, train_together
from fairneuron.settings import several
from fairneuron.slicing import path_synapses
from fairneuron.tracing import trace
from tests.conftest import made_up
from tests.oracles import literal_paths

SHORT = fn.Schedule(epochs=3, batch_size=50, learning_rate=0.01, plateau=None)
OUTSIDE = {"drop": "outside_path", "schedule": SHORT}
LIMIT = {"dp": 0.05}


def weights_of(model: nn.Module) -> torch.Tensor:
    """All of them, in a row."""
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def started(net: nn.Module) -> nn.Module:
    """The network with weights drawn from a seed, in eval mode."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return net.eval()


class Residual(nn.Module):
    """A shortcut over the second hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(5, 7), nn.Linear(7, 7), nn.Linear(7, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, 5) to (n, 1)."""
        h = torch.relu(self.one(x))
        return self.head(torch.relu(h + self.two(h)))


# Muting the neurons outside each sample's path


def literal_muted_training(
    model: nn.Sequential, data: Dataset, gamma: float, theta: float, seed: int
) -> nn.Sequential:
    """Slices, clusters and trains sample by sample; of biased ones the path's neurons count."""
    paths = literal_paths(model, data.x.numpy(), gamma)
    counts = np.array([paths.count(path) for path in paths])
    biased = counts <= max(theta * counts.max(), 1)
    net = copy.deepcopy(model)
    linear = [module for module in net if isinstance(module, nn.Linear)]
    adam = torch.optim.Adam(net.parameters(), SHORT.learning_rate, betas=(0.9, 0.9999))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(SHORT.epochs):
        for muted in (False, True):
            part = torch.from_numpy(np.flatnonzero(biased == muted))
            order = part[torch.randperm(len(part), generator=generator)].tolist()
            for start in range(0, len(order), SHORT.batch_size):
                batch = order[start : start + SHORT.batch_size]
                loss = torch.zeros((), dtype=torch.float64)
                for i in batch:
                    h = data.x[i].double()
                    for depth, layer in enumerate(linear[:-1], start=1):
                        h = torch.relu(layer(h))
                        if muted:
                            on = {source for at, _, source in paths[i] if at == depth}
                            h = h * torch.tensor([float(u in on) for u in range(len(h))])
                    label = torch.tensor([float(data.y[i])]).double()
                    loss = loss + binary_cross_entropy_with_logits(linear[-1](h), label)
                adam.zero_grad()
                (loss / len(batch)).backward()
                adam.step()
    return net


def test_muting_is_that_of_a_literal_loop(parts, trained) -> None:
    """In float64, up to the order of sums; what is muted follows each candidate's own γ."""
    model = copy.deepcopy(trained).double()
    train = parts[0].subset(np.arange(200))
    mitigator = fn.FairNeuron("paper", gamma=(0.5, 0.8), theta=(0.1, 0.8), **OUTSIDE)
    found = list(mitigator.candidates(model, train, parts[1], seed=3))
    assert len(found) >= 3
    for settings, network, finite in found:
        assert finite
        assert settings.keys() == {"gamma", "theta"}
        expected = literal_muted_training(model, train, **settings, seed=3)
        assert not torch.equal(weights_of(expected), weights_of(model))
        torch.testing.assert_close(weights_of(network), weights_of(expected), atol=1e-9, rtol=0)


def test_dropout_plays_no_part_when_paths_say_what_is_muted(parts, trained) -> None:
    """One candidate per split, and the same one at any rate."""
    one, several = (
        list(
            fn.FairNeuron("paper", dropout=dropout, **OUTSIDE).candidates(
                trained, *parts[:2], seed=0
            )
        )
        for dropout in (0.1, (0.2, 0.5))
    )
    assert len(one) == len(several) == 1
    assert torch.equal(weights_of(one[0][1]), weights_of(several[0][1]))
    (random,) = fn.FairNeuron("paper", schedule=SHORT).candidates(trained, *parts[:2], seed=0)
    assert not torch.equal(weights_of(one[0][1]), weights_of(random[1]))


def test_a_mitigator_that_mutes(parts, trained, weights_before) -> None:
    """The model stays as it is; same seed, same network of its class, without hooks or layers."""
    mitigator = fn.FairNeuron("paper", limit={"dp": 1.0}, **OUTSIDE)
    one, other = (mitigator.fit(trained, *parts[:2], seed=4).model for _ in range(2))
    assert torch.equal(weights_of(one), weights_of(other))
    assert all(torch.equal(v, weights_before[k]) for k, v in trained.state_dict().items())
    assert type(one) is type(trained)
    assert [type(module) for module in one] == [type(module) for module in trained]
    assert list(one.state_dict()) == list(trained.state_dict())
    assert mitigator.result.recipe.drop == "outside_path"
    assert mitigator.result.explanation.biased > 0


@pytest.mark.parametrize("kind", ["mlp", "dropout", "residual", "tanh"])
def test_neurons_on_paths_are_the_sources_of_the_paths_synapses(parts, kind: str) -> None:
    """For some samples of the data, whatever layers the network has."""
    net = started(
        {
            "mlp": mlp(5, (12, 10)),
            "dropout": mlp(5, (9, 9), dropout=0.4),
            "residual": Residual(),
            "tanh": nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 2)),
        }[kind]
    )
    x, samples = parts[0].x, np.arange(3, 200, 2)
    means = fn.activation_paths(net, x, gamma=0.6).means
    on = neurons_on_paths(net, x, samples, gamma=0.6, contribution="signed", means=means)
    asked = torch.tensor([7, 3, 151, 151])
    synapses = path_synapses(net, x[asked], gamma=0.6, means=means)
    graph = trace(net)
    assert on.bits
    for index, units in on.units.items():
        owner = index  # whose neurons these are: a linear layer, or a sum
        while isinstance(graph.layers[owner], Elementwise):
            (owner,) = graph.layers[owner].sources
        expected = np.zeros((4, units), bool)
        for layer in synapses:
            here = np.isin(layer.source, graph.layers[owner].name)
            expected[layer.sample[here], layer.predecessor[here]] = True
        np.testing.assert_array_equal(on.at(index, asked).numpy(), expected)
        assert 0 < expected.sum() < expected.size


def test_dropout_layers_of_a_networks_own_are_quiet_while_neurons_are_muted(parts) -> None:
    """It is trained as its twin without them."""
    plain, own = started(mlp(5, (8, 8))), mlp(5, (8, 8), dropout=0.5)
    for source, target in zip(plain.parameters(), own.parameters(), strict=True):
        target.data.copy_(source.data)
    found = [
        weights_of(next(fn.FairNeuron("paper", **OUTSIDE).candidates(net, *parts[:2], seed=1))[1])
        for net in (plain, own.eval())
    ]
    assert torch.equal(*found)


def test_nobody_biased(parts) -> None:
    """Then nothing is muted: it is continued training."""
    constant = mlp(5, (4,)).eval()
    with torch.no_grad():
        for parameter in constant.parameters():
            parameter.fill_(0.0)
        constant[-1].bias.fill_(-0.1)
    (muted,) = fn.FairNeuron("paper", theta=0, **OUTSIDE).candidates(constant, *parts[:2], seed=0)
    ordinary = baselines.Ordinary(SHORT).fit(constant, *parts[:2], seed=0).model
    torch.testing.assert_close(weights_of(muted[1]), weights_of(ordinary))


def test_muting_beside_dropout_and_alone_gives_the_same(parts, trained) -> None:
    """A job that mutes does not depend on its company; other kinds are refused beside it."""
    paths = fn.activation_paths(trained, parts[0].x)
    rows = fn.rare_paths(paths)
    on = neurons_on_paths(
        *(trained, parts[0].x, np.flatnonzero(rows)),
        gamma=0.9, contribution="signed", means=paths.means,
    )  # fmt: skip

    def job() -> Job:
        return Job(copy.deepcopy(trained), dropped=rows, on_path=on)

    alone, first = [job()], [job(), replace(job(), dropped=rows & (np.arange(len(rows)) % 2 == 0))]
    for jobs in (alone, first):
        assert all(train_together(jobs, *parts[:2], SHORT, seed=2))
    assert torch.equal(weights_of(alone[0].model), weights_of(first[0].model))
    with pytest.raises(ModelError) as caught:
        train_together([job(), Job(copy.deepcopy(trained))], *parts[:2], SHORT, seed=2)
    assert caught.value.code == "model-muting"


def test_networks_that_cannot_be_muted_are_refused(parts, trained) -> None:
    """Batch statistics, or an optimiser of one's own; the cure is the other kind of dropout."""
    norm = started(nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)))
    own = {"optimiser": lambda parameters: torch.optim.SGD(parameters, lr=0.05)}
    for net, more in ((norm, {}), (trained, own)):
        with pytest.raises(ModelError, match="drop=") as caught:
            fn.FairNeuron("paper", **OUTSIDE, **more).fit(net, *parts[:2], seed=0)
        assert caught.value.code == "model-muting"
    with pytest.raises(OptionError) as refused:
        fn.FairNeuron("paper", drop="outside")
    assert refused.value.code == "option-drop"


# Other neurons, other samples, no choice at all


def changed_neurons(model: nn.Sequential, networks: list[nn.Module]) -> set[tuple[str, int]]:
    """Hidden neurons whose incoming weights any of the networks has changed."""
    return {
        (name, unit)
        for name, layer in trace(model).neurons.items()
        for network in networks
        for unit in np.flatnonzero(
            (network.get_parameter(layer.weight) != model.get_parameter(layer.weight)).any(1)
        ).tolist()
    }


def test_random_and_weakest_neurons_are_as_many_but_others(parts, trained) -> None:
    """Nothing but their weights changes; the seed draws the random ones."""

    def changed(mitigator: fn.FairNeuron, seed: int) -> set[tuple[str, int]]:
        mitigator.recipe = replace(mitigator.recipe, neuron_share=0.25)
        found = list(mitigator.candidates(trained, *parts[:2], seed=seed))
        return changed_neurons(trained, [network for _, network, _ in found])

    ours = changed(fn.FairNeuron(limit=LIMIT), 0)
    draws = [changed(random_neurons(LIMIT), seed) for seed in (0, 0, 1, 2)]
    weakest = changed(weakest_neurons(LIMIT), 0)
    assert len(ours) == 6  # of 24
    assert draws[0] == draws[1]
    assert len({frozenset(draw) for draw in draws}) == 3
    assert all(0 < len(draw) <= 6 for draw in (*draws, weakest))
    assert not ours & weakest


def test_all_neurons(parts, trained) -> None:
    """Every hidden neuron that learns anything; the head stays."""
    found = list(ABLATIONS["all-neurons"](LIMIT).candidates(trained, *parts[:2], seed=0))
    networks = [network for _, network, _ in found]
    assert len(changed_neurons(trained, networks)) > 12
    assert all(torch.equal(network[-1].weight, trained[-1].weight) for network in networks)


def test_random_samples_are_the_papers_ablations(parts, trained) -> None:
    """With one share and one rate they are random dropout; with all samples, pure dropout."""
    mitigator = baselines.RandomSamples(shares=(0.4, 1.0), dropout=(0.3,), schedule=SHORT)
    some, everybody = mitigator.candidates(trained, *parts[:2], seed=5)
    random = baselines.RandomDropout(0.4, 0.3, SHORT).fit(trained, *parts[:2], seed=5).model
    pure = baselines.PureDropout(0.3, SHORT).fit(trained, *parts[:2], seed=5).model
    assert some[0] == {"share": 0.4, "dropout": 0.3}
    for one, other in ((some, random), (everybody, pure)):
        torch.testing.assert_close(weights_of(one[1]), weights_of(other), atol=1e-4, rtol=0)
    assert not torch.allclose(weights_of(some[1]), weights_of(everybody[1]), atol=1e-3)


def test_a_stop_of_continued_training_is_a_training_of_as_many_epochs(parts, trained) -> None:
    """To the bit, with the learning rate falling on plateaus."""
    schedule = fn.Schedule(epochs=50, batch_size=64, plateau=0)
    mitigator = baselines.ContinuedTraining(stops=(9, 1, 4), schedule=schedule)
    found = list(mitigator.candidates(trained, *parts[:2], seed=5))
    assert [settings for settings, _, _ in found] == [{"epochs": e} for e in (1, 4, 9)]
    for settings, network, _ in found:
        ordinary = baselines.Ordinary(replace(schedule, **settings))
        expected = ordinary.fit(trained, *parts[:2], seed=5).model
        assert torch.equal(weights_of(network), weights_of(expected))


def test_continued_training_that_diverges_keeps_the_stops_before(parts, trained) -> None:
    """The last candidate says that it diverged; none of it raises."""
    wild = fn.Schedule(learning_rate=1e20, plateau=None)
    *before, last = baselines.ContinuedTraining(stops=(1, 9), schedule=wild).candidates(
        trained, *parts[:2], seed=0
    )
    assert (last[0], last[2]) == ({"epochs": 9}, False)
    assert len(before) <= 1


@pytest.mark.parametrize(
    ("make", "bad"),
    [
        (baselines.RandomSamples, {"shares": ()}),
        (baselines.RandomSamples, {"shares": (0.0,)}),
        (baselines.RandomSamples, {"dropout": (0.1, 1.0)}),
        (baselines.RandomSamples, {"dropout": 0.1}),
        (baselines.ContinuedTraining, {"stops": ()}),
        (baselines.ContinuedTraining, {"stops": (0,)}),
        (baselines.ContinuedTraining, {"stops": (1.5,)}),
    ],
)
def test_bad_settings_are_refused(make: type, bad: dict) -> None:
    """When the mitigator is made."""
    with pytest.raises(OptionError) as caught:
        make(**bad)
    assert caught.value.code == "option-range"


# As methods of a comparison


def test_every_ablation_may_try_twelve_configurations() -> None:
    """As every method: settings to try, or the stops of the default recipe."""
    for name, method in ABLATIONS.items():
        made = method(LIMIT)
        if isinstance(made, baselines.ContinuedTraining):
            tried = [made.stops]
        elif isinstance(made, baselines.RandomSamples):
            tried = [made.shares, made.dropout]
        elif isinstance(made.recipe, fn.Conflict):
            own = made.recipe
            tried = [several(v) for v in (own.neuron_share, own.strengths, own.stops)]
        else:
            random = made.recipe.drop == "random"
            tried = [made.recipe.gamma, made.recipe.theta, *[made.recipe.dropout] * random]
        assert len(set(product(*tried))) == CONFIGURATIONS, name


def test_short_names_stand_for_lists() -> None:
    """All peers, all ablations, each method once."""
    assert list(methods_named(["peers"])) == list(PEERS)
    assert list(methods_named(["naive", "ablations"])) == ["naive", *ABLATIONS]
    assert next(iter(methods_named(["naive", "peers"]))) == "naive"
    assert len(methods_named(["naive", "peers"])) == len(PEERS)
    assert not PEERS.keys() & ABLATIONS.keys()


def test_ablations_are_compared() -> None:
    """Each has configurations, of at most twelve, and none fails; here in short trainings."""

    def short(method: Named) -> Named:
        options = dict(method.options)
        shorter = {"schedule": SHORT} if "schedule" in options else {}
        return replace(method, options=tuple((options | shorter).items()))

    found = fn.compare(
        made_up(200),
        methods={name: short(method) for name, method in ABLATIONS.items()},
        seeds=1,
        criteria=["eo"],
        model=lambda data: mlp(data.x.shape[1], (6,)),
        plots=False,
    )
    assert [record["method"] for record in found.records] == list(ABLATIONS)
    for record in found.records:
        assert record["error"] is None, record
        assert 1 <= len(record["configurations"]) <= CONFIGURATIONS
        assert not record["needs_sensitive"]
