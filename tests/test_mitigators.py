"""The contract of every mitigator, one test per promise."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import fairneuron as fn
from fairneuron import baselines
from fairneuron.compare.ablations import random_neurons, weakest_neurons
from fairneuron.data.dataset import Dataset
from fairneuron.errors import OptionError

QUICK = fn.Schedule(epochs=2, batch_size=64)
MITIGATORS = {
    "naive": baselines.Naive(),
    "ordinary": baselines.Ordinary(QUICK),
    "pure dropout": baselines.PureDropout(0.3, QUICK),
    "random dropout": baselines.RandomDropout(0.4, 0.3, QUICK),
    "FairNeuron conflict": fn.FairNeuron(strengths=(0.5, 1.0), epochs=3),
    "FairNeuron paper": fn.FairNeuron("paper", epochs=2),
    "random neurons": random_neurons({"dp": 0.05}),
    "weakest neurons": weakest_neurons({"dp": 0.05}),
    "random samples": baselines.RandomSamples(shares=(0.4,), dropout=(0.2, 0.5), schedule=QUICK),
    "continued training": baselines.ContinuedTraining(stops=(1, 3), schedule=QUICK),
    "FAD": baselines.FAD(strengths=(0.5, 2.0), schedule=QUICK),
    "ethical adversaries": baselines.EthicalAdversaries(
        strengths=(1.0,), iterations=2, points=20, schedule=QUICK
    ),
}


@pytest.fixture(params=MITIGATORS.values(), ids=MITIGATORS.keys())
def mitigator(request: pytest.FixtureRequest) -> baselines.Mitigator:
    """Each of them in turn."""
    return request.param


def test_is_a_mitigator_and_gives_a_predictor(mitigator, parts, trained) -> None:
    """The protocols hold; probabilities are (n, classes) and sum to 1."""
    assert isinstance(mitigator, baselines.Mitigator)
    predictor = mitigator.fit(trained, parts[0], parts[1], seed=0)
    assert isinstance(predictor, fn.Predictor)
    p = predictor.predict(parts[2])
    assert p.shape == (len(parts[2]), 2)
    np.testing.assert_allclose(p.sum(1), 1)
    assert fn.audit(predictor, parts[2]).metrics["accuracy"] > 0.6


def test_the_given_model_is_untouched(mitigator, parts, trained, weights_before) -> None:
    """Weights, modes, flags and gradients."""
    mitigator.fit(trained, parts[0], parts[1], seed=0)
    assert all(torch.equal(v, weights_before[k]) for k, v in trained.state_dict().items())
    assert not trained.training
    assert all(p.requires_grad and p.grad is None for p in trained.parameters())


def test_same_seed_same_predictions(mitigator, parts, trained) -> None:
    """Bit for bit, and the global generators stay where they were."""
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, other = (
        mitigator.fit(trained, parts[0], parts[1], seed=4).predict(parts[2]) for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_class_forward_and_keys_are_unchanged(mitigator, parts, trained) -> None:
    """The network takes the original's place, and is another object."""
    model = mitigator.fit(trained, parts[0], parts[1], seed=0).model
    assert model is not trained
    assert type(model) is type(trained)
    assert type(model).forward is type(trained).forward
    assert list(model.state_dict()) == list(trained.state_dict())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model(parts[2].x).shape == trained(parts[2].x).shape


class Rows(TorchDispatchMode):
    """Collects what is multiplied with a first layer's weights, of one network or of several."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.seen = width, set()
        self.batched = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> object:
        place = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}.get(function.overloadpacket.__name__)
        if place is not None and args[place].shape[-1] == self.width:
            self.batched |= args[place].ndim == 3
            self.seen.update(map(tuple, args[place].float().reshape(-1, self.width).tolist()))
        return function(*args, **(kwargs or {}))


def test_no_test_data_are_seen(mitigator, parts, trained) -> None:
    """Every row that enters the network while fitting is a training or validation row.

    Or one that the mitigator made.
    """
    train, valid, test = parts
    rows = Rows(train.x.shape[1])
    with rows:
        predictor = mitigator.fit(trained, train, valid, seed=0)
    allowed = {tuple(row) for part in (train, valid) for row in part.x.tolist()}
    assert rows.seen.isdisjoint(map(tuple, test.x.tolist()))
    assert rows.seen <= allowed or isinstance(mitigator, baselines.EthicalAdversaries)
    assert rows.seen or isinstance(mitigator, baselines.Naive)
    assert rows.batched or not isinstance(mitigator, fn.FairNeuron)  # all candidates at once
    with rows:
        predictor.predict(test)
    assert not rows.seen <= allowed  # the spy would have noticed


def test_predictions_do_not_read_groups_unless_said(mitigator, parts, trained) -> None:
    """A predictor that needs no sensitive attribute gives the same without it."""
    train, valid, test = parts
    predictor = mitigator.fit(trained, train, valid, seed=0)
    if not predictor.needs_sensitive:
        hidden = Dataset.from_arrays(test.x, test.y, np.arange(len(test)) % 2)
        np.testing.assert_array_equal(predictor.predict(hidden), predictor.predict(test))


def test_naive_is_the_model_itself(parts, trained) -> None:
    """The same weights."""
    model = baselines.Naive().fit(trained, parts[0], parts[1], seed=0).model
    assert all(torch.equal(v, trained.state_dict()[k]) for k, v in model.state_dict().items())


def test_the_dropout_family_differs_in_the_mask_alone(parts, trained) -> None:
    """Random dropout for everybody is pure dropout; for nobody it would be ordinary training."""
    train, valid, _ = parts
    weights = {
        name: m.fit(trained, train, valid, seed=1).model.state_dict()
        for name, m in {
            "ordinary": baselines.Ordinary(QUICK),
            "pure": baselines.PureDropout(0.3, QUICK),
            "random, all": baselines.RandomDropout(1.0, 0.3, QUICK),
            "random, half": baselines.RandomDropout(0.5, 0.3, QUICK),
        }.items()
    }

    def same(a: str, b: str) -> bool:
        return all(torch.equal(v, weights[b][k]) for k, v in weights[a].items())

    assert same("pure", "random, all")
    assert not same("pure", "ordinary")
    assert not same("pure", "random, half")
    assert not same("ordinary", "random, half")


def test_fairneuron_keeps_what_it_found(parts, trained) -> None:
    """The repair stays at hand."""
    mitigator = fn.FairNeuron(strengths=(0.5,), epochs=3, limit={"eo": 0.1})
    predictor = mitigator.fit(trained, parts[0], parts[1], seed=0)
    assert mitigator.result is not None
    assert predictor.model is mitigator.result.model
    assert mitigator.result.limit == {"eo": 0.1}


@pytest.mark.parametrize(
    ("make", "bad"),
    [
        (baselines.PureDropout, {"dropout": 1}),
        (baselines.PureDropout, {"dropout": 0}),
        (baselines.RandomDropout, {"share": 0}),
        (baselines.RandomDropout, {"share": 1.5}),
        (fn.FairNeuron, {"neuron_share": 2}),
    ],
)
def test_bad_settings_are_refused(make: type, bad: dict) -> None:
    """When the mitigator is made, not when it runs."""
    with pytest.raises(OptionError) as caught:
        make(**bad)
    assert caught.value.code == "option-range"


def test_networks_with_their_own_dropout(parts) -> None:
    """Their layers are used as they are."""
    train, valid, _ = parts
    net = fn.train_classifier(train, valid, hidden=(8,), dropout=0.5, schedule=QUICK)
    pure, other = (
        baselines.PureDropout(rate, QUICK).fit(net, train, valid, seed=0).model
        for rate in (0.1, 0.9)
    )
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in pure.state_dict().items())
    assert isinstance(pure[2], nn.Dropout)
