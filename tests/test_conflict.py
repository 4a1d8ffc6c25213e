"""Conflict neurons: gaps and pulls against literal versions, and how much of the gap they carry."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.conflict import (
    Neuron,
    conflict_neurons,
    incoming_weights,
    neuron_pulls,
)
from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError, OptionError
from fairneuron.explanation import explain_conflict
from fairneuron.gaps import gap_penalty, soft_gap
from fairneuron.models import Scores
from fairneuron.tracing import trace
from tests.conftest import made_up
from tests.test_slicing import Residual
from tests.test_units import Merged, StepsFirst

SCORES = torch.tensor([0.9, 0.7, 0.2, 0.4, 0.5, 0.1])
Y = torch.tensor([1, 0, 1, 0, 1, 0])
GROUP = torch.tensor([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(
    ("criteria", "gap"),
    [
        (("dp",), 0.8 - 0.3),  # means .8, .3, .3
        (("eo",), 0.9 - 0.2),  # .9, .2, .5
        (("eodds",), 0.7),  # max of that and .7 - .1
        (("dp", "eo"), 0.5 + 0.7),
    ],
)
def test_soft_gap_of_a_small_table(criteria: tuple[str, ...], gap: float) -> None:
    """The largest pair of mean scores among three groups."""
    assert float(soft_gap(SCORES, Y, GROUP, criteria)) == pytest.approx(gap)


def test_soft_gap_without_two_groups_is_zero() -> None:
    """Batches may miss a group, or have no positives at all."""
    assert float(soft_gap(SCORES[:2], Y[:2], GROUP[:2], ("dp",))) == 0
    assert float(soft_gap(SCORES, torch.zeros(6), GROUP, ("eo",))) == 0
    assert float(soft_gap(SCORES[2:4], Y[2:4], torch.tensor([5, 5]), ("dp",))) == 0


def test_pulls_are_summed_on_one_thread(trained, parts) -> None:
    """How many threads share a sum changes its last bits; the caller's number of them stays."""
    seen, threads = [], torch.get_num_threads()

    def spy(out: torch.Tensor, y: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return nn.functional.binary_cross_entropy_with_logits(out, y.to(out))

    try:
        torch.set_num_threads(2)
        neuron_pulls(trace(trained), parts[0], ("dp",), spy)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {1}


def test_pulls_are_gradients_over_all_the_data(trained, parts) -> None:
    """Batch by batch gives what autograd gives on everything at once.

    Conflict is minus the cosine.
    """
    data = parts[0]
    model = copy.deepcopy(trained)
    y, group = torch.from_numpy(data.y), torch.from_numpy(data.group)
    out = model(data.x)[:, 0]
    gap = soft_gap(out.sigmoid(), y, group, ("dp",))
    loss = nn.functional.binary_cross_entropy_with_logits(out, y.float())
    weight, bias = model[2].weight, model[2].bias
    g = torch.cat([torch.autograd.grad(gap, weight, retain_graph=True)[0],
                   torch.autograd.grad(gap, bias, retain_graph=True)[0][:, None]], 1)  # fmt: skip
    h = torch.cat([torch.autograd.grad(loss, weight, retain_graph=True)[0],
                   torch.autograd.grad(loss, bias)[0][:, None]], 1)  # fmt: skip
    found = [n for n in neuron_pulls(trace(trained), data, ("dp",)) if n.layer == "2"]
    np.testing.assert_allclose([n.pull for n in found], g.norm(dim=1), rtol=1e-4, atol=1e-7)
    cosine = nn.functional.cosine_similarity(g, h, dim=1)
    np.testing.assert_allclose([n.conflict for n in found], -cosine, rtol=1e-3, atol=1e-4)


def test_pulls_do_not_touch_the_model(trained, parts, weights_before) -> None:
    """No gradient is left, no weight changed."""
    neuron_pulls(trace(trained), parts[0], ("eo",))
    assert all(p.grad is None for p in trained.parameters())
    assert all(torch.equal(v, weights_before[k]) for k, v in trained.state_dict().items())


@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (0.25, 2), (0.3, 3), (1.0, 10), (0.001, 1)])
def test_share_is_a_bound(share: float, count: int) -> None:
    """At most the share, at least one, the strongest first, the earlier one among equals."""
    neurons = [Neuron("0", i, pull, 0.0) for i, pull in enumerate([1, 5, 2, 5, 0, 3, 1, 1, 1, 1])]
    chosen = conflict_neurons(neurons, share)
    assert len(chosen) == count
    assert [n.unit for n in chosen] == [1, 3, 5, 2, 0, 6, 7, 8, 9, 4][:count]


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_share_out_of_range_is_refused(share: float) -> None:
    """neuron_share lies in (0, 1]."""
    with pytest.raises(OptionError) as caught:
        conflict_neurons([Neuron("0", 0, 1.0, 0.0)], share)
    assert caught.value.code == "option-range"


def test_masks_hold_the_neurons_rows(trained, parts) -> None:
    """One row of the weight and one element of the bias per neuron."""
    masks = incoming_weights(
        trace(trained),
        parts[0],
        [Neuron("0", 2, 1, 0), Neuron("2", 1, 1, 0), Neuron("2", 4, 1, 0)],
    )
    assert {k: v.nonzero()[:, 0].unique().tolist() for k, v in masks.items()} == {
        "0.weight": [2], "0.bias": [2], "2.weight": [1, 4], "2.bias": [1, 4],
    }  # fmt: skip
    assert masks["0.weight"].sum() == 5


def test_frozen_layers_have_no_candidates(trained, parts) -> None:
    """A frozen layer is left out; all frozen is an error."""
    model = copy.deepcopy(trained)
    model[0].requires_grad_(False)
    assert {n.layer for n in neuron_pulls(trace(model), parts[0], ("dp",))} == {"2"}
    with pytest.raises(ModelError) as caught:
        neuron_pulls(trace(model.requires_grad_(False)), parts[0], ("dp",))
    assert caught.value.code == "model-frozen"


def leak() -> tuple[nn.Sequential, Dataset]:
    """A network whose second of four hidden neurons alone passes the group on."""
    data = made_up(400)
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.zero_()
        net[0].weight[0, 1] = 1.0
        net[0].weight[1, 4] = 1.0  # reads the group
        net[0].weight[2, 2] = 1.0
        net[0].weight[3, 3] = 1.0
        net[2].weight.copy_(torch.tensor([[1.0, 3.0, 0.1, 0.1]]))
        net[2].bias.fill_(-1.0)
    return net, data


def test_the_neuron_that_passes_the_group_on_is_found_and_carries_the_gap() -> None:
    """It has the strongest pull.

    Holding it at its mean takes nearly all of the gap away, others take little.
    """
    net, data = leak()
    graph = trace(net)
    (chosen,) = conflict_neurons(neuron_pulls(graph, data, ("dp",)), 0.25)
    assert (chosen.layer, chosen.unit) == ("0", 1)
    found = explain_conflict(graph, data, [chosen], ("dp",))
    assert found.gap > 0.3
    assert found.carried > 0.9
    assert found.carried_by_random < 0.6
    assert "1 of 4 hidden neurons (1 in layer '0')" in found.sentence()


def test_holding_at_the_mean_is_literal() -> None:
    """gap_without equals the gap of a network whose neuron is a constant."""
    net, data = leak()
    held = copy.deepcopy(net)
    mean = net[1](net[0](data.x))[:, 1].mean()
    with torch.no_grad():
        held[0].weight[1] = 0
        held[0].bias[1] = mean
        scores = held(data.x)[:, 0].sigmoid()
    expected = float(
        soft_gap(scores, torch.from_numpy(data.y), torch.from_numpy(data.group), ("dp",))
    )
    found = explain_conflict(trace(net), data, [Neuron("0", 1, 1.0, 0.0)], ("dp",))
    assert found.gap_without == pytest.approx(expected, abs=1e-5)


def test_residual_networks_have_pulls_and_explanations() -> None:
    """Names are the modules' paths; every hidden neuron is listed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Residual().eval()
    data = made_up(200)
    graph = trace(net)
    pulls = neuron_pulls(graph, data, ("eodds",))
    assert {n.layer for n in pulls} == {"zebra", "inner.a", "inner.b"}
    assert len(pulls) == 18
    found = explain_conflict(graph, data, conflict_neurons(pulls, 0.2), ("eodds",))
    assert np.isfinite(found.carried)


class SamplesFirst(StepsFirst):
    """The same, with the samples first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x.unflatten(1, (2, 5))).relu()).relu()[:, -1])


def in_steps(n: int = 90) -> Dataset:
    """Two steps of five features, with groups and weights."""
    rng = np.random.default_rng(0)
    group, y = rng.integers(0, 2, n), rng.integers(0, 2, n)
    x = rng.normal(size=(n, 10)) + group[:, None]
    return Dataset.from_arrays(x, y, group, sample_weight=rng.integers(1, 4, n))


def test_samples_along_another_axis_are_told_apart() -> None:
    """The same neurons, by the same weights of samples, as with the samples first."""
    data, found = in_steps(), []
    for make in (StepsFirst, SamplesFirst):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            graph = trace(make().eval())
        pulls = neuron_pulls(graph, data, ("dp",))
        told = explain_conflict(graph, data, pulls[5:6], ("dp",))
        found.append([told.gap, told.gap_without, *(p.leverage for p in pulls)])
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-7)
    assert found[0][0] != found[0][1]


def test_samples_that_share_an_axis_with_steps_are_refused() -> None:
    """By the name of the layer."""
    with pytest.raises(
        ModelError, match="\\(4, 4\\) for two samples, \\(6, 4\\) for three"
    ) as caught:
        neuron_pulls(trace(Merged().eval()), in_steps(), ("dp",))
    assert caught.value.code == "model-unsupported"


class Masked(nn.Module):
    """Attention that sees the earlier steps alone, by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(5, 4), nn.Linear(4, 1)
        self.body = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.register_buffer("mask", torch.ones(2, 2, dtype=torch.bool).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.body(self.a(x.unflatten(1, (2, 5))), src_mask=self.mask)[:, -1])


def test_attention_with_masks_is_retrained() -> None:
    """Its fused step has no gradient, so such networks are trained one by one."""
    data = in_steps(200)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Masked().eval()
    with torch.no_grad():
        net.c.bias.fill_(-0.5)  # logits that do not look like probabilities
    repaired = fn.repair(net, data, data, limit={"dp": 0.01}, strengths=(1.0,))
    assert len(repaired.trials) > 1


def test_class_gaps_are_of_everybody() -> None:
    """Rows that belong to no compared group count in them too, by their own weight."""
    out, y = torch.tensor([2.0, -1.0, 0.5, 3.0]), torch.tensor([1, 0, 1, 0])
    group, known = torch.tensor([0, 1, 2, 2]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    true = torch.where(y == 1, out, -out).sigmoid()
    means = [(true * weight)[y == k].sum() / weight[y == k].sum() for k in (0, 1)]
    found = gap_penalty(("mcd",))(Scores(out, y, False, weight=weight), y, group, known * weight)
    torch.testing.assert_close(found, (means[0] - means[1]).abs())
