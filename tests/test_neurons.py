"""Hidden neurons: features, channels, and heads with all that is theirs."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fairneuron as fn
from fairneuron.conflict import Neuron, incoming_weights, neuron_pulls
from fairneuron.data.dataset import Dataset
from fairneuron.explanation import explain_conflict
from fairneuron.gaps import soft_gap
from fairneuron.neurons import hidden_neurons
from fairneuron.tracing import trace
from tests.test_units import OwnAttention, StepsFirstEncoder, Vision, encoder, made


class Apart(nn.Module):
    """Queries, keys and values by layers of their own.

    Args:
        width: Features.
        shared: Whether all heads read the same keys.
    """

    def __init__(self, width: int = 8, *, shared: bool = False) -> None:
        super().__init__()
        self.q, self.v, self.out = (nn.Linear(width, width) for _ in range(3))
        self.k = nn.Linear(width, width // 2 if shared else width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            p(x).unflatten(-1, (-1, 4)).transpose(1, 2).expand(-1, 2, -1, -1)
            for p in (self.q, self.k, self.v)
        )
        h = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(1, 2).flatten(2))


class Twice(nn.Module):
    """The same layers one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = OwnAttention()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x))


def network(body) -> tuple[nn.Module, torch.Tensor]:
    """A small transformer and images for it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Vision(body).eval(), torch.randn(60, 1, 8, 8)


def images(n: int = 60) -> tuple[nn.Module, Dataset]:
    """A transformer of three classes and images, which show the group in a corner."""
    net, x = network(lambda: encoder(first=True))
    rng = np.random.default_rng(0)
    group, y = rng.integers(0, 2, n), rng.integers(0, 3, n)
    x[:, 0, :2, :2] += torch.from_numpy(group).float()[:, None, None]
    return net, Dataset.from_arrays(x.numpy(), y, group)


def counts(body) -> dict[str, int]:
    """How many neurons each layer has."""
    net, x = network(body)
    return {name: own.count for name, own in hidden_neurons(trace(net), x).items()}


def test_heads_take_the_place_of_their_projections() -> None:
    """Torch's own layers, of two heads: named as the modules are; the rest are features."""
    layer = {"self_attn": 2, "self_attn.out_proj": 8, "linear1": 16, "linear2": 8}
    assert counts(lambda: encoder(first=True)) == {"patches": 8} | {
        f"body.layers.{i}.{name}": count for i in (0, 1) for name, count in layer.items()
    }
    found = counts(StepsFirstEncoder)
    assert (found["body.layer.self_attn"], found["body.end"]) == (2, 4)


def test_heads_that_people_write_themselves() -> None:
    """By one projection, by several, and twice by the same."""
    assert counts(OwnAttention) == {"patches": 8, "body.qkv": 2, "body.out": 8}
    assert counts(Apart) == {"patches": 8, "body": 2, "body.out": 8}
    assert counts(Twice) == {"patches": 8, "body.layer.qkv": 2, "body.layer.out": 8}


class Raw(nn.Module):
    """Heads on parameters of its own.

    Args:
        width: Features.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.wq, self.wk, self.wv = (nn.Parameter(torch.randn(width, width)) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = (functional.linear(x, w) for w in (self.wq, self.wk, self.wv))
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts)
        h = functional.scaled_dot_product_attention(q, k, v)
        return x + h.transpose(1, 2).flatten(2)


class TwoInOne(nn.Module):
    """Two attentions whose projections one module has."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.q2, self.k2, self.v2 = (nn.Linear(8, 8) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for own in ((self.q, self.k, self.v), (self.q2, self.k2, self.v2)):
            q, k, v = (p(x).unflatten(-1, (2, -1)).transpose(1, 2) for p in own)
            h = functional.scaled_dot_product_attention(q, k, v)
            x = x + h.transpose(1, 2).flatten(2)
        return x


class Bypassed(nn.Module):
    """What the heads read is read by another layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.down = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.qkv(x)
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in z.chunk(3, -1))
        h = functional.scaled_dot_product_attention(q, k, v)
        return h.transpose(1, 2).flatten(2) + self.down(z.relu())


def test_each_layer_of_heads_has_a_name_of_its_own() -> None:
    """By its module, or by its step where a module has several."""
    blocks = counts(lambda: nn.Sequential(Raw(), Raw(), Raw()))
    assert blocks == {"patches": 8, "body.0": 2, "body.1": 2, "body.2": 2}
    assert counts(TwoInOne) == {
        "patches": 8, "body": 2, "scaled_dot_product_attention_1": 2,
    }  # fmt: skip


def test_what_is_read_past_the_heads_stays_features() -> None:
    """A head's activation would not be all that its rows do."""
    assert counts(Bypassed) == {"patches": 8, "body.qkv": 24, "body.down": 8}


def test_fixed_filters_are_no_neurons() -> None:
    """Nor are frozen layers among the random ones that the chosen are compared with."""
    net, data = images()
    fixed = net.patches.weight.detach().clone()
    del net.patches.weight
    net.patches.register_buffer("weight", fixed)
    graph = trace(net)
    assert "patches" not in hidden_neurons(graph, data.x)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith("body.layers.1.linear2"))
    chosen = neuron_pulls(graph, data, ("mcd",))
    assert {n.layer for n in chosen} == {"body.layers.1.linear2"}
    found = explain_conflict(graph, data, chosen, ("mcd",))
    assert found.gap_without_random == pytest.approx(found.gap_without)


def test_shared_keys_leave_features() -> None:
    """A head has no keys of its own there."""
    found = counts(lambda: Apart(shared=True))
    assert found == {"patches": 8, "body.q": 8, "body.v": 8, "body.k": 4, "body.out": 8}


def test_fixed_projections_leave_no_heads() -> None:
    """Nothing of them can be retrained."""
    net, data = images()
    attention = net.body.layers[0].self_attn
    for name in ("in_proj_weight", "in_proj_bias"):
        value = getattr(attention, name).detach().clone()
        delattr(attention, name)
        attention.register_buffer(name, value)
    found = hidden_neurons(trace(net), data.x)
    assert not any(name.startswith("body.layers.0.self_attn.in") for name in found)
    assert "body.layers.1.self_attn" in found
    assert "body.layers.0.self_attn" not in found


def test_frozen_projections_leave_no_heads() -> None:
    """Frozen weights are no neurons to retrain, but those of other layers are."""
    net, data = images()
    net.body.layers[0].self_attn.in_proj_weight.requires_grad_(False)
    found = {n.layer for n in neuron_pulls(trace(net), data, ("dp",))}
    assert "body.layers.0.self_attn" not in found
    assert "body.layers.1.self_attn" in found


def rows_of_head(head: int) -> list[int]:
    """Of a projection to queries, keys and values of two heads of four features."""
    return [part * 8 + head * 4 + i for part in range(3) for i in range(4)]


@pytest.mark.parametrize("head", [0, 1])
def test_the_pull_on_a_head_is_that_on_all_its_rows(head: int) -> None:
    """The norm of the gradient, of autograd on all the data at once."""
    net, data = images()
    attention = net.body.layers[1].self_attn
    pulls = {(n.layer, n.unit): n for n in neuron_pulls(trace(net), data, ("mcd",))}
    scores = net(data.x).softmax(1)
    true = scores.gather(1, torch.from_numpy(data.y)[:, None])[:, 0]
    y, group = torch.from_numpy(data.y), torch.from_numpy(data.group)
    soft_gap(scores[:, 1], y, group, ("mcd",), true=true).backward()
    rows = rows_of_head(head)
    parts = attention.in_proj_weight.grad[rows].flatten(), attention.in_proj_bias.grad[rows]
    found = pulls["body.layers.1.self_attn", head]
    assert found.pull == pytest.approx(float(torch.cat(parts).norm()), rel=1e-4)
    assert found.active == 1


def test_masks_hold_all_rows_of_a_head() -> None:
    """Of the projection's weight and bias, and nothing else."""
    net, data = images()
    name = "body.layers.0.self_attn"
    masks = incoming_weights(trace(net), data, [Neuron(name, 1, 1, 0)])
    assert {k: v.flatten(1).any(1).nonzero()[:, 0].tolist() if v.ndim > 1 else
            v.nonzero()[:, 0].tolist() for k, v in masks.items()} == {
        f"{name}.in_proj_weight": rows_of_head(1), f"{name}.in_proj_bias": rows_of_head(1),
    }  # fmt: skip


def test_a_head_held_at_its_mean_says_the_same_of_every_image() -> None:
    """As if its columns of the next projection read its mean."""
    net, data = images()
    chosen = Neuron("body.layers.1.self_attn", 0, 1, 0)
    found = explain_conflict(trace(net), data, [chosen], ("mcd",))
    first, second = net.body.layers
    with torch.no_grad():
        x = net.patches(data.x).flatten(2).transpose(1, 2)
        x = first(torch.cat([net.token.expand(len(x), -1, -1), x], 1) + net.places)
        inside = second.norm1(x)
        q, k, v = second.self_attn.in_proj_weight.chunk(3)
        b = second.self_attn.in_proj_bias.chunk(3)
        parts = [
            functional.linear(inside, w, c).unflatten(-1, (2, 4)).transpose(1, 2)
            for w, c in zip((q, k, v), b, strict=True)
        ]
        heads = functional.scaled_dot_product_attention(*parts)
        heads[:, 0] = heads[:, 0].mean(0)
        x = x + second.self_attn.out_proj(heads.transpose(1, 2).flatten(2))
        x = x + second.linear2(second.linear1(second.norm2(x)).relu())
        scores = net.head(net.norm(x)[:, 0]).softmax(1)
    y = torch.from_numpy(data.y)
    true = scores.gather(1, y[:, None])[:, 0]
    expected = soft_gap(scores[:, 1], y, torch.from_numpy(data.group), ("mcd",), true=true)
    assert found.gap_without == pytest.approx(float(expected), abs=1e-5)
    assert found.gap_without != pytest.approx(found.gap, abs=1e-5)


def test_repair_changes_the_rows_of_chosen_heads_alone() -> None:
    """Each row that changes belongs to a chosen neuron, and some do; heads are counted as one."""
    net, data = images()
    mitigator = fn.FairNeuron(limit={"mcd": 0.01}, neuron_share=0.1, epochs=2, strengths=(1.0,))
    *_, (_, retrained, finite) = mitigator.candidates(net, data, data, seed=0)
    explained = mitigator.repair(net, data, data, seed=0).explanation
    hidden = hidden_neurons(trace(net), data.x)
    assert finite
    assert explained.layers == {name: own.count for name, own in hidden.items()}
    assert any(neuron.layer.endswith("self_attn") for neuron in explained.neurons)
    allowed: set[tuple[str, int]] = set()
    for neuron in explained.neurons:
        own = hidden[neuron.layer]
        for name, rows in (*own.weights.items(), *own.biases.items()):
            allowed |= {(name, row) for row in rows[neuron.unit].tolist()}
    after = retrained.state_dict()
    changed = {
        (name, row)
        for name, value in net.state_dict().items()
        for row in (value != after[name]).reshape(len(value), -1).any(1).nonzero()[:, 0].tolist()
    }
    assert any("in_proj_weight" in name for name, _ in changed)
    assert changed <= allowed


def test_networks_without_heads_have_a_neuron_for_each_row() -> None:
    """Features and channels, also where nothing is known of some step."""
    net, x = made("residual")
    graph = trace(net)
    found = hidden_neurons(graph, x)
    assert {n: one.count for n, one in found.items()} == {
        name: len(graph.weight(layer)) for name, layer in graph.neurons.items()
    }
    assert all(
        torch.equal(rows, torch.arange(one.count)[:, None])
        for one in found.values()
        for rows in one.weights.values()
    )
