"""Between two networks: how far to go from the original to its retrained copy."""

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fairneuron as fn
from fairneuron.data.dataset import Dataset
from fairneuron.models import mlp
from fairneuron.walk import AMOUNTS, amounts_to, gaps_between, mix
from tests.conftest import made_up

CALM = settings(max_examples=100, deadline=None, derandomize=True)
HALVES = np.array([0.0, 0.5, 1.0])
EVEN = np.array([0.0, 1.0, 2.0, 3.0, 4.0])


def seeded(seed: int, inputs: int = 5, outputs: int = 1) -> nn.Sequential:
    """A small untrained network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return mlp(inputs, (8, 8), outputs=outputs)


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether the weights and buffers of two networks are the same to the bit."""
    return all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def moved(model: nn.Module, by: float = 1.0) -> nn.Module:
    """A copy with other weights."""
    other = copy.deepcopy(model)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(9)
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=by)
    return other


# Mixtures


def test_the_ends_of_the_way_are_the_two_networks() -> None:
    """To the bit, however far apart their weights are; neither network changes."""
    one = seeded(0)
    for other in (moved(one), moved(one, 1e8), moved(one, 1e-8)):
        before = [copy.deepcopy(m) for m in (one, other)]
        assert same(mix(one, other, 0), one)
        assert same(mix(one, other, 1), other)
        mixed = mix(one, other, 0.3)
        assert not same(mixed, one)
        assert not same(mixed, other)
        assert all(same(m, b) for m, b in zip((one, other), before, strict=True))


@pytest.mark.parametrize("amount", [0.25, 0.5, 1.25])
def test_weights_lie_on_the_line(amount: float) -> None:
    """(1 - a) · original + a · retrained, also beyond the retrained one."""
    one, other = seeded(0).double(), seeded(1).double()
    mixed = mix(one, other, amount)
    for p, q, r in zip(one.parameters(), other.parameters(), mixed.parameters(), strict=True):
        torch.testing.assert_close(r, (1 - amount) * p + amount * q)
        assert r.requires_grad
        assert r.grad is None


@pytest.mark.parametrize("amount", [0, 0.3, 0.5, 1, 1.25])
def test_weights_that_were_not_retrained_stay(amount: float) -> None:
    """To the bit: those of other neurons are the same all the way."""
    one = seeded(0)
    other = copy.deepcopy(one)
    with torch.no_grad():
        other[2].weight[3] += 1
    mixed = mix(one, other, amount)
    with torch.no_grad():
        mixed[2].weight[3] = one[2].weight[3]
    assert same(mixed, one)


@pytest.mark.parametrize("amount", [0, 0.5, 1])
def test_shared_weights_go_once_and_stay_shared(amount: float) -> None:
    """A weight that two layers share is mixed once, not twice."""
    one = seeded(0)
    one[2].weight = nn.Parameter(torch.zeros(8, 8))
    one.append(nn.ReLU())
    one.insert(3, nn.Linear(8, 8))
    one[3].weight = one[2].weight
    other = copy.deepcopy(one)
    with torch.no_grad():
        other[2].weight.fill_(4)
    mixed = mix(one, other, amount)
    assert mixed[3].weight is mixed[2].weight
    assert mixed[2].weight is not one[2].weight
    assert torch.equal(mixed[2].weight, torch.full((8, 8), 4.0 * amount))


@pytest.mark.parametrize("amount", [0, 0.5, 1])
def test_buffers_are_those_of_the_original(amount: float) -> None:
    """Batch statistics, which no retraining changes, and counts, of which there is no half."""
    one = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1)).eval()
    with torch.no_grad():
        one[1].running_mean.add_(3)
    mixed = mix(one, moved(one), amount)
    for (name, own), other in zip(one.named_buffers(), mixed.buffers(), strict=True):
        assert torch.equal(own, other), name
        assert own is not other
    assert not mixed.training


# Gaps on the way


def audited(model: nn.Module, data: Dataset, metric: str, threshold: float = 0.5) -> float:
    """What an audit says."""
    return fn.audit(model, data, threshold=threshold).metrics[metric]


@pytest.mark.parametrize("metric", ["dp", "eo", "eodds"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.6])
def test_gaps_are_those_of_audits(parts, trained, metric: str, threshold: float) -> None:
    """Of the mixed networks, at the threshold."""
    data, other = parts[0], moved(trained, 0.3)
    gaps = gaps_between(trained, other, data, (metric,), threshold=threshold)
    mixed = [mix(trained, other, amount) for amount in AMOUNTS]
    expected = [audited(m, data, metric, threshold) for m in mixed]
    np.testing.assert_allclose(gaps, expected, atol=1e-12)
    assert len(set(gaps)) > 5
    assert (AMOUNTS[0], AMOUNTS.max()) == (0, 1.5)


@pytest.mark.parametrize("outputs", [2, 3])
def test_gaps_of_networks_with_class_logits(parts, outputs: int) -> None:
    """With three classes the largest logit decides, as in an audit."""
    one = fn.train_classifier(
        *parts[:2], hidden=(8,), outputs=outputs, schedule=fn.Schedule(epochs=5, batch_size=32)
    )
    other = moved(one, 0.3)
    gaps = gaps_between(one, other, parts[0], ("dp",), threshold=0.4, amounts=HALVES)
    expected = [audited(mix(one, other, a), parts[0], "dp", 0.4) for a in HALVES]
    np.testing.assert_allclose(gaps, expected, atol=1e-12)
    assert len(set(gaps)) == 3


def test_gaps_of_three_groups_and_several_criteria() -> None:
    """The largest pair of each; gaps of several criteria are added."""
    data, one, other = made_up(400, groups=3), seeded(0), seeded(3)
    gaps = gaps_between(one, other, data, ("dp", "eo"), amounts=HALVES)
    mixed = [mix(one, other, a) for a in HALVES]
    expected = [audited(m, data, "dp") + audited(m, data, "eo") for m in mixed]
    np.testing.assert_allclose(gaps, expected, atol=1e-12)


def test_rows_count_by_weight_and_unknown_groups_do_not(parts, trained) -> None:
    """A row of weight 2 counts as two; rows of the group "unknown" are nobody's."""
    data, other = parts[0], moved(trained, 0.3)
    names, n = np.array(data.group_names)[data.group], len(data)
    twice = np.arange(n) % 3 == 0
    weighted = Dataset.from_arrays(data.x, data.y, names, sample_weight=1 + twice)
    repeated = data.subset(np.r_[np.arange(n), np.flatnonzero(twice)])
    one, same_, plain = (
        gaps_between(trained, other, d, ("dp",), amounts=HALVES) for d in (weighted, repeated, data)
    )
    np.testing.assert_allclose(one, same_, atol=1e-12)
    assert not np.allclose(one, plain)

    known = np.arange(n) % 4 != 0
    partly = Dataset.from_arrays(data.x, data.y, np.where(known, names, "unknown"))
    one, same_ = (
        gaps_between(trained, other, d, ("dp",), amounts=HALVES)
        for d in (partly, data.subset(known))
    )
    np.testing.assert_allclose(one, same_, atol=1e-12)


def test_dropout_rests_and_modes_stay(parts) -> None:
    """On the way nothing is drawn, and networks in training mode stay in it."""
    one = fn.train_classifier(*parts[:2], hidden=(8,), dropout=0.5, schedule=fn.Schedule(epochs=2))
    one.train()
    other = moved(one)
    found = [gaps_between(one, other, parts[0], ("dp",), amounts=HALVES) for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert one.training
    assert other.training


# Where to stop


@pytest.mark.parametrize(
    ("gaps", "left", "amounts"),
    [
        ([8, 6, 4, 2, 0], (0.75, 0.5, 0.0), [1, 2, 4]),  # exactly at given amounts
        ([8, 4, 4, 4, 0], (0.75, 0.25), [0.5, 3.5]),  # between them
        ([8, 6, 2, 6, 1], (0.5,), [1.5]),  # the first time that it is as small
        ([8, 4, 2, 3, 6], (0.5, 0.1, 0.0), [1, 2]),  # never: where it is smallest, once
        ([8, 9, 10, 12, 20], (0.5, 0.0), [1]),  # only worse: the whole way
        ([8, 8, 8, 8, 8], (0.9,), [1]),
        ([0, 1, 0, 1, 0], (0.9, 0.0), [1]),  # no gap from the start
        ([8, 6, 4, 2, 0], (1.0, 0.5), [2]),  # all of it is left at the start
        ([8, 6, 4, 2, 0], (0.5, 0.5, 0.50000001), [2]),  # each once
        ([8, 6, 4, 2, 0], (0.0, 0.75), [4, 1]),  # in the order of the shares
        ([8, 0, 0, 0, 0], (0.999999, 0.5), [0.5]),  # too near to the start to be another network
        ([8, 0, 0, 0, 0], (0.999999,), [1]),
        ([8, 4, 0, 4, 8], (0.5, -0.25, -0.5), [1, 2.5, 3]),  # turned round
        ([8, 4, 2, 1, 0.5], (-0.1,), [4]),  # never: as far as it goes
        ([8, 4, 0, 1, 2], (-0.5,), [4]),
        ([8, 6, 2, 6, 1], (-0.125,), [4]),  # beyond the smallest gap alone
    ],
)
def test_amounts(gaps: Sequence[float], left: Sequence[float], amounts: Sequence[float]) -> None:
    """On curves made by hand."""
    found = amounts_to(np.array(gaps, dtype=float), left, amounts=EVEN)
    assert found == pytest.approx(amounts, abs=1e-4)
    assert all(type(amount) is float for amount in found)  # JSON takes no others


@CALM
@given(
    st.lists(st.floats(0, 1), min_size=len(AMOUNTS), max_size=len(AMOUNTS)),
    st.lists(st.floats(-1, 1), min_size=1, max_size=12),
)
def test_amounts_of_any_curve(gaps: list[float], left: list[float]) -> None:
    """Within the way, each once, none 0; smaller shares never stop earlier."""
    curve = np.array(gaps)
    found = amounts_to(curve, left)
    assert 1 <= len(found) <= len(left)
    assert len(set(found)) == len(found)
    assert all(0 < amount <= 1.5 for amount in found)
    ordered = amounts_to(curve, sorted(left, reverse=True))
    assert ordered == sorted(ordered)
