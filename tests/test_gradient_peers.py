"""Peers trained by gradients: their unfairness measures, their weights, what they leave alone."""

import copy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.baselines.fairret import Fairret, fairret_penalty
from fairneuron.baselines.gradient import DiffDP, FineTuning, LastLayer, initialised
from fairneuron.baselines.hsic import HSIC, hsic, hsic_penalty
from fairneuron.baselines.protocol import CONFIGURATIONS
from fairneuron.baselines.reweighing import Reweighing, reweighing_weights
from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError, OptionError
from fairneuron.gaps import gap_penalty, soft_gap
from fairneuron.models import positive_score
from fairneuron.training import train

QUICK = fn.Schedule(epochs=3, batch_size=128, learning_rate=0.01, plateau=None)
PENALISED = (FineTuning, LastLayer, DiffDP, HSIC, Fairret)
PEERS = (*PENALISED, Reweighing)


def _networks(peer, model, parts, seed=0) -> list[nn.Module]:
    return [net for _, net, _ in peer.candidates(model, parts[0], parts[1], seed=seed)]


def _same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _soft_dp(model: nn.Module, data: Dataset) -> float:
    with torch.no_grad():
        scores = positive_score(model(data.x)[:, 0])
    return float(soft_gap(scores, torch.from_numpy(data.y), torch.from_numpy(data.group), ["dp"]))


# All of them


@pytest.mark.parametrize("cls", PEERS)
def test_tries_twelve_configurations(cls) -> None:
    """By default, all different."""
    assert len(set(cls().strengths)) == CONFIGURATIONS


@pytest.mark.parametrize("cls", PEERS)
def test_leaves_the_given_model_alone_and_repeats(cls, parts, trained, weights_before) -> None:
    """Weights, flags and gradients stay; the same seed gives the same networks."""
    peer = cls(strengths=(0.5, 1.0), schedule=QUICK)
    first, second = (_networks(peer, trained, parts, seed=3) for _ in range(2))
    assert all(_same(a, b) for a, b in zip(first, second, strict=True))
    assert not _same(*first)
    assert all(torch.equal(v, weights_before[k]) for k, v in trained.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in trained.parameters())


@pytest.mark.parametrize("cls", PEERS)
def test_keeps_the_precision_of_the_model(cls, parts, trained) -> None:
    """A model of 16 bits is trained in 32 and given back in 16."""
    half = copy.deepcopy(trained).bfloat16()
    (network,) = _networks(cls(strengths=(1.0,), schedule=QUICK), half, parts)
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    assert not _same(network, half)


@pytest.mark.parametrize("cls", PEERS)
@pytest.mark.parametrize("strengths", [(), (0.1, -1.0), "strong"])
def test_refuses_what_are_no_strengths(cls, strengths) -> None:
    """None at all, one below 0, a text."""
    with pytest.raises(OptionError) as caught:
        cls(strengths=strengths)
    assert caught.value.code == "option-range"


@pytest.mark.parametrize(
    ("cls", "strong"), [(FineTuning, 3), (DiffDP, 3), (HSIC, 300), (Fairret, 2)]
)
def test_a_stronger_penalty_leaves_a_smaller_gap(cls, strong, parts, trained) -> None:
    """At least two thirds of the gap in mean scores go, on the data that it was trained on."""
    schedule = fn.Schedule(epochs=30, batch_size=128, learning_rate=0.005, plateau=None)
    weak, most = _networks(cls(strengths=(0.0, strong), schedule=schedule), trained, parts)
    assert _soft_dp(most, parts[0]) < _soft_dp(weak, parts[0]) / 3


@pytest.mark.parametrize("cls", PENALISED)
@pytest.mark.parametrize(
    "limit", [{"dp": 0.1}, {"eo": 0.1}, {"eodds": 0.1}, {"dp": 0.1, "eo": 0.1}]
)
def test_every_limit_has_its_own_penalty(cls, limit, parts, trained) -> None:
    """Training under it stays finite, and the penalty plays its part."""
    results = list(
        cls(limit, strengths=(0.0, 2.0), schedule=QUICK).candidates(
            trained, parts[0], parts[1], seed=0
        )
    )
    assert [(settings, finite) for settings, _, finite in results] == [
        ({"strength": 0.0}, True),
        ({"strength": 2.0}, True),
    ]
    assert not _same(results[0][1], results[1][1])


@pytest.mark.parametrize("cls", PEERS)
def test_a_diverging_network_is_told_and_others_go_on(cls, parts, trained) -> None:
    """A loss that is not finite is no exception."""
    wild = fn.Schedule(epochs=3, batch_size=64, learning_rate=1e38, plateau=None)
    results = list(cls(schedule=wild).candidates(trained, parts[0], parts[1], seed=0))
    assert not any(finite for _, _, finite in results)


# What is retrained


class Given:
    """Scores as a penalty gets them."""

    def __init__(self, positive: torch.Tensor) -> None:
        self.positive = positive


def test_fine_tuning_is_training_with_the_gap(parts, trained) -> None:
    """Each candidate is what ``train`` gives for its λ."""
    peer = FineTuning({"eo": 0.05}, strengths=(0.3, 1.0), schedule=QUICK)
    for strength, network in zip((0.3, 1.0), _networks(peer, trained, parts, seed=7), strict=True):
        expected = copy.deepcopy(trained)
        train(
            expected,
            parts[0],
            parts[1],
            QUICK,
            seed=7,
            penalty=gap_penalty(["eo"]),
            strength=strength,
        )
        for a, b in zip(network.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_last_layer_changes_the_head_alone(parts, trained) -> None:
    """Its weight and its bias, to the bit."""
    (network,) = _networks(LastLayer(strengths=(1.0,), schedule=QUICK), trained, parts)
    before = trained.state_dict()
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    head = max(int(name.split(".")[0]) for name in before)
    assert changed == {f"{head}.weight", f"{head}.bias"}


def test_last_layer_keeps_what_is_frozen(parts, trained) -> None:
    """A frozen bias of the head stays."""
    model = copy.deepcopy(trained)
    model[-1].bias.requires_grad_(False)
    (network,) = _networks(LastLayer(strengths=(1.0,), schedule=QUICK), model, parts)
    assert torch.equal(network[-1].bias, model[-1].bias)
    assert not torch.equal(network[-1].weight, model[-1].weight)


def test_from_scratch_forgets_the_given_weights(parts, trained) -> None:
    """Another model of the same architecture gives the same networks."""
    other = copy.deepcopy(trained)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    peer = DiffDP(strengths=(0.5,), schedule=QUICK)
    assert _same(*_networks(peer, trained, parts), *_networks(peer, other, parts))


# Fresh initialisation


def test_initialisation_is_the_modules_own() -> None:
    """As a new network after the same seed; another seed gives another one."""

    def new() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1))

    torch.manual_seed(5)
    expected, trained = new(), new()
    with torch.no_grad():
        trained[1].running_mean.fill_(3.0)
    assert _same(initialised(trained, 5), expected)
    assert not _same(initialised(trained, 6), expected)


def test_initialisation_keeps_frozen_parameters() -> None:
    """Whole layers, and a frozen weight beside a trainable bias."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    model[1].weight.requires_grad_(False)
    fresh = initialised(model, 1)
    assert _same(fresh[0], model[0])
    assert torch.equal(fresh[1].weight, model[1].weight)
    assert not torch.equal(fresh[1].bias, model[1].bias)
    assert not torch.equal(fresh[2].weight, model[2].weight)


def test_initialisation_refuses_by_name() -> None:
    """A module with parameters of its own that cannot be drawn anew."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.factor

    with pytest.raises(ModelError, match=r"Scale at '1'") as caught:
        initialised(nn.Sequential(nn.Linear(3, 3), Scale(), nn.Linear(3, 1)), 0)
    assert caught.value.code == "model-initialisation"
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 1))
    with pytest.raises(ModelError, match="reset_parameters"):
        initialised(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), normed), 0)


# HSIC


def _sample(n: int = 60, groups: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    group = torch.randint(0, groups, (n,), generator=generator)
    noise = torch.randn(4, n, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 2, (n,), generator=generator)
    return (noise + 0.8 * group + 0.5 * y).sigmoid(), y, group


def _literal_hsic(scores: torch.Tensor, group: torch.Tensor, bandwidth: float) -> torch.Tensor:
    n = len(scores)
    kernel = torch.exp(-((scores[:, None] - scores) ** 2) / (2 * bandwidth**2))
    same = (group[:, None] == group).to(scores)
    centring = torch.eye(n, dtype=scores.dtype) - 1 / n
    return torch.trace(kernel @ centring @ same @ centring) / (n - 1) ** 2


@pytest.mark.parametrize("bandwidth", [0.05, 0.25, 1.0])
def test_hsic_is_the_trace(bandwidth: float) -> None:
    """Of the four matrices, and its gradient too, for several networks at once."""
    scores, _, group = _sample()
    scores[0, :2] = torch.tensor([0.0, 1.0])  # the ends
    scores.requires_grad_(True)
    found = hsic(scores, group, bandwidth=bandwidth)
    expected = torch.stack([_literal_hsic(row, group, bandwidth) for row in scores])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    gradients = [torch.autograd.grad(value.sum(), scores)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)


def test_hsic_weights_are_repetitions() -> None:
    """A weight of 3 is three rows, of 0 none; only n / (n − 1) knows the number of rows."""
    scores, _, group = _sample()
    times = torch.arange(len(group)) % 4
    repeated = torch.arange(len(group)).repeat_interleave(times)
    n, m = int((times > 0).sum()), len(repeated)
    found = hsic(scores, group, times.double())
    expected = hsic(scores[:, repeated], group[repeated])
    torch.testing.assert_close(found * (1 - 1 / n) ** 2, expected * (1 - 1 / m) ** 2)


def test_hsic_of_equal_distributions_is_nothing() -> None:
    """The same scores in each group, one group, or one sample."""
    scores = torch.linspace(0, 1, 20, dtype=torch.float64)
    group = torch.arange(2).repeat_interleave(20)
    assert hsic(scores.repeat(2), group) < 1e-20
    assert hsic(scores, torch.zeros(20, dtype=torch.int64)) < 1e-20
    assert hsic(scores[:1], torch.zeros(1, dtype=torch.int64)) == 0
    assert hsic(scores.repeat(2), group, torch.eye(40, dtype=torch.float64)[0]) == 0
    assert hsic(torch.cat([scores, scores / 2]), group) > 1e-3


def test_hsic_penalty_is_given_the_label() -> None:
    """eo: among y = 1; eodds: both labels' sum; several are added."""
    scores, y, group = _sample()
    positive, negative = (hsic(scores[:, y == v], group[y == v]) for v in (1, 0))
    assert torch.equal(hsic_penalty(["eo"])(Given(scores), y, group, None), positive)
    both = hsic_penalty(["eodds"])(Given(scores), y, group, None)
    torch.testing.assert_close(both, positive + negative)
    added = hsic_penalty(["dp", "eo"])(Given(scores), y, group, None)
    torch.testing.assert_close(added, hsic(scores, group) + positive)
    ones = torch.ones(len(y), dtype=torch.float64)
    torch.testing.assert_close(hsic_penalty(["eodds"])(Given(scores), y, group, ones), both)


# fairret


@pytest.mark.parametrize("criterion", ["dp", "eo", "eodds"])
@pytest.mark.parametrize("weighted", [False, True])
def test_fairret_is_the_relative_violation(criterion: str, weighted: bool) -> None:
    """Σ over groups of |rate / overall rate − 1|, with weighted rates."""
    scores, y, group = _sample()
    weight = 1.0 + torch.arange(len(y)).double() % 3 if weighted else torch.ones_like(scores[0])
    expected = []
    for row in scores:
        total = 0.0
        for rows in {"dp": [y >= 0], "eo": [y == 1], "eodds": [y == 1, y == 0]}[criterion]:
            overall = np.average(row[rows], weights=weight[rows])
            for g in range(3):
                one = rows & (group == g)
                total += abs(np.average(row[one], weights=weight[one]) / overall - 1)
        expected.append(total)
    found = fairret_penalty([criterion])(Given(scores), y, group, weight if weighted else None)
    np.testing.assert_allclose(found, expected)


def test_fairret_without_weights_is_the_librarys_own() -> None:
    """Called as its documentation does."""
    from fairret.loss import NormLoss
    from fairret.statistic import TruePositiveRate

    scores, y, group = _sample()
    member = nn.functional.one_hot(group).double()
    expected = NormLoss(TruePositiveRate())(scores[0].logit()[:, None], member, y.double()[:, None])
    torch.testing.assert_close(fairret_penalty(["eo"])(Given(scores[0]), y, group, None), expected)


def test_fairret_where_nothing_can_be_compared() -> None:
    """0 with one group, without positives, with scores of 0; NaN stays NaN for its network."""
    scores, y, group = _sample()
    penalty = fairret_penalty(["eodds"])
    assert torch.equal(
        penalty(Given(scores), y, 0 * group, None), torch.zeros(4, dtype=torch.float64)
    )
    assert (fairret_penalty(["eo"])(Given(scores), 0 * y, group, None) == 0).all()
    assert (penalty(Given(0 * scores), y, group, None) == 0).all()
    alone = penalty(Given(scores), y, group, (group > 0).double())
    torch.testing.assert_close(
        alone, penalty(Given(scores[:, group > 0]), y[group > 0], group[group > 0], None)
    )
    scores[1, 0] = float("nan")
    assert penalty(Given(scores), y, group, None).isnan().tolist() == [False, True, False, False]


def test_fairret_missing_is_told_with_the_cure(
    parts, trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its extra, and only when it is used."""
    monkeypatch.setitem(sys.modules, "fairret", None)
    peer = Fairret()
    with pytest.raises(OptionError, match=r"fairneuron\[peers\]") as caught:
        peer.fit(trained, parts[0], parts[1], seed=0)
    assert caught.value.code == "option-extra"


# Reweighing


def test_reweighing_worked_out_by_hand() -> None:
    """Ten people: 4 of 5 in group A have y = 1, 2 of 5 in group B."""
    y = np.array([1, 1, 1, 1, 0, 1, 1, 0, 0, 0])
    data = Dataset.from_arrays(np.zeros((10, 1)), y, np.array(list("AAAAABBBBB")))
    expected = np.where(y == 1, [3 / 4] * 5 + [3 / 2] * 5, [2.0] * 5 + [2 / 3] * 5)
    np.testing.assert_allclose(reweighing_weights(data), expected)


def test_reweighing_makes_label_and_group_independent(parts) -> None:
    """All groups get the same weighted share of positives, by the rows' own weights too."""
    rng = np.random.default_rng(0)
    for weight in (None, rng.uniform(0.5, 2, len(parts[0]))):
        data = replace(parts[0], weight=weight)
        total = reweighing_weights(data) * (1 if weight is None else weight)
        shares = [
            np.average(data.y[data.group == g], weights=total[data.group == g]) for g in (0, 1)
        ]
        np.testing.assert_allclose(shares, np.average(data.y, weights=weight))


def test_reweighing_leaves_unknown_groups_alone() -> None:
    """Their rows count as they did, and change nobody else's weight."""
    y = np.array([1, 1, 0, 1, 0, 0, 1, 1])
    data = Dataset.from_arrays(
        np.zeros((8, 1)), y, np.array(["A"] * 3 + ["B"] * 3 + ["unknown"] * 2)
    )
    weights = reweighing_weights(data)
    np.testing.assert_array_equal(weights[6:], 1)
    np.testing.assert_allclose(weights[:6], reweighing_weights(data.subset(np.arange(6))))


def test_reweighing_trains_on_powers_of_the_weights(parts, trained) -> None:
    """s = 2 is ``train`` on rows weighted by w²."""
    (network,) = _networks(Reweighing(strengths=(2.0,), schedule=QUICK), trained, parts, seed=1)
    expected, data = copy.deepcopy(trained), parts[0]
    squared = replace(data, weight=reweighing_weights(data) ** 2)
    train(expected, squared, parts[1], QUICK, seed=1)
    for a, b in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
