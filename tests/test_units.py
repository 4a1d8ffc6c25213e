"""Units and their rules: convolutions, attention and what else a whole network is made of."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import fairneuron as fn
from fairneuron.activations import _Convolution, _in_float64
from fairneuron.errors import ModelError
from fairneuron.graph import Convolution
from fairneuron.slicing import Slicer
from fairneuron.tracing import trace
from fairneuron.units import find_units
from tests.oracles import literal_convolution_paths
from tests.test_slicing import complete, synapse_sets


def image(*shape: int, seed: int = 0, n: int = 12) -> torch.Tensor:
    """Random inputs ``(n, *shape)``."""
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    """A residual block; its shortcut is a convolution where it changes the shape."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.b = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        changed = stride > 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if changed else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.nb(self.b(self.na(self.a(x)).relu()))
        h += self.shortcut(x)
        return h.relu_()


class Joined(nn.Module):
    """Two branches side by side, and a gate that adds a value of each channel everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 4, 3, padding=1)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.cat([self.a(x), self.b(x)], dim=1).relu()
        h = h - h.mean((2, 3), keepdim=True)
        return self.head(functional.max_pool2d(h, 2).mean([-2, -1]))


class Words(nn.Module):
    """Columns of numbers of words, and a column that is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.body = nn.Embedding(7, 3), nn.Linear(3 * 3 + 1, 5)
        self.head = nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.table(x[:, :3].long()).flatten(1)
        return self.head(self.body(torch.cat([found, x[:, 3:]], 1)).relu())


class Vision(nn.Module):
    """A small transformer for images: patches, a token for the class, learnt places."""

    def __init__(self, layer: Callable[[], nn.Module], *, read: int = 0) -> None:
        super().__init__()
        self.read = read
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 5, 8))
        self.body, self.norm, self.head = layer(), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(x.shape[0], -1, -1), h], dim=1) + self.places
        return self.head(self.norm(self.body(h))[:, self.read])


class OwnAttention(nn.Module):
    """Attention as people write it themselves."""

    def __init__(self, *, causal: bool = False) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.causal = causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, steps, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, steps, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        h = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return x + self.out(h.transpose(1, 2).reshape(n, steps, width))


class Shuffled(nn.Module):
    """Channels in two groups that change places; ``squeeze`` takes what axes it can."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 1), nn.Linear(8, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.cat([self.b(part) for part in self.a(x).relu().chunk(2, dim=1)], 1)
        n, channels, height, width = h.size()
        h = h.view(n, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return self.head(self.pool(h.view(n, channels, height, width)).squeeze())


class Functional(nn.Module):
    """Convolutions as calls, in the ways that their arguments can be given."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bias = nn.Parameter(torch.randn(6, 2, 3, 2)), nn.Parameter(torch.randn(6))
        self.b, self.c = nn.Conv2d(6, 6, 3), nn.Parameter(torch.randn(4, 6, 2))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = functional.conv2d(x, self.a, self.bias, (2, 1), (1, 0), (1, 2), 2).relu()
        h = functional.conv2d(h, self.b.weight, padding="same", stride=1).relu()
        h = functional.conv1d(input=h.flatten(2), weight=self.c, padding="valid", stride=[3])
        return self.head(h.relu().mean(2))


class Computed(nn.Module):
    """Functional layers whose bias, or whose geometry, is computed.

    Args:
        call: The step.
    """

    def __init__(self, call: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a, self.gain = nn.Conv1d(2, 4, 3), nn.Parameter(torch.ones(4))
        self.b, self.head, self.call = nn.Linear(2, 4), nn.Linear(4, 1), call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.call(self, x).relu().mean(2))


COMPUTED = {
    "conv1d": lambda m, x: functional.conv1d(x, m.a.weight, m.a.bias * m.gain),
    "linear": lambda m, x: functional.linear(x.mT, m.b.weight, m.b.bias * m.gain).mT,
    "conv1d, padded": lambda m, x: functional.conv1d(x, m.a.weight, padding=(x.shape[1],)),
}


def encoder(*, first: bool) -> nn.TransformerEncoder:
    """Torch's own, of two layers."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class StepsFirstEncoder(nn.Module):
    """Torch's own as it is unless told otherwise: (steps, n, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.end = nn.TransformerEncoderLayer(8, 2, 16), nn.MultiheadAttention(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.layer(x.permute(1, 0, 2))
        return self.end(h, h, h)[0].permute(1, 0, 2)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), Block(6, 6, 1), Block(6, 8, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        ), (3, 8, 8),
    ),
    "flattened": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5),
            nn.Tanh(), nn.Linear(5, 1),
        ), (1, 8, 8),
    ),
    "strange convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, (3, 2), stride=(2, 1), dilation=(1, 2), groups=2, padding=(1, 0)),
            nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6, padding="same", padding_mode="reflect"),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 2),
        ), (4, 9, 8),
    ),
    "functional convolutions": (Functional, (4, 9, 8)),
    "a sequence": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, padding=2, padding_mode="circular"), nn.GELU(),
            nn.Conv1d(4, 4, 2, stride=2), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(4, 3),
        ), (2, 9),
    ),
    "volumes": (
        lambda: nn.Sequential(
            nn.Conv3d(1, 3, (2, 1, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 3 * 4 * 2, 2),
        ), (1, 4, 4, 4),
    ),
    "a table as a sequence": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(15, 1)
        ), (6,),
    ),
    "joined": (Joined, (2, 6, 6)),
    "shuffled": (Shuffled, (3, 4, 4)),
    "words": (Words, (4,)),
    "tokens": (
        lambda: nn.Sequential(
            nn.Linear(3, 5), nn.LayerNorm(5), nn.GELU(), nn.Flatten(), nn.Linear(20, 2)
        ), (4, 3),
    ),
    "transformer": (lambda: Vision(lambda: encoder(first=True)), (1, 8, 8)),
    "transformer, norm last": (lambda: Vision(lambda: encoder(first=False)), (1, 8, 8)),
    "transformer, steps first": (lambda: Vision(StepsFirstEncoder), (1, 8, 8)),
    "own attention": (lambda: Vision(OwnAttention), (1, 8, 8)),
    "causal attention": (lambda: Vision(lambda: OwnAttention(causal=True), read=-1), (1, 8, 8)),
}  # fmt: skip


def made(name: str, seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    """A network of this name, with statistics of its own, and inputs for it."""
    make, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make()
        x = image(*shape, seed=seed)
        if name == "words":
            x[:, :3] = torch.randint(0, 7, (len(x), 3)).float()
        for _ in range(3):
            net.train()(torch.cat([x, x + 0.1 * torch.randn_like(x).round()]))  # batch statistics
    return net.eval(), x


@pytest.mark.parametrize("name", NETWORKS)
def test_contributions_are_complete(name: str) -> None:
    """In every layer they sum to the unit's value: over its positions, less the mean."""
    for seed in range(3):
        for found, expected in complete(*made(name, seed)):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_neither_batches_nor_the_kernel_change_a_path(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiled kernel and its twin, in batches of any size: the same signatures."""
    net, x = made(name)
    expected = fn.activation_paths(net, x)
    assert len(expected) > 1
    for size in (1, 5):
        found = fn.activation_paths(net, x, batch_size=size)
        np.testing.assert_array_equal(found.signatures, expected.signatures)
    monkeypatch.setenv("FAIRNEURON_KERNEL", "torch")
    np.testing.assert_array_equal(fn.activation_paths(net, x).signatures, expected.signatures)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_path_leads_from_the_output_to_the_input(name: str) -> None:
    """Every synapse leads into a unit that a later one comes from, and the input is reached."""
    net, x = made(name)
    for path in synapse_sets(net, x, gamma=0.9):
        into = {(layer, unit) for layer, unit, *_ in path}
        out_of = {(source, unit) for *_, source, unit in path}
        heads = into - out_of
        assert len(heads) == 1
        assert "head" in next(iter(heads))[0] or next(iter(heads))[0].isdigit()
        assert any(source in ("x", "input", "input_1") for source, _ in out_of)


def test_input_units_are_the_finest_that_its_readers_tell_apart() -> None:
    """Columns of a table, channels of an image, values of a flattened image, all of a sequence."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 1))
    units = {name: made(name) for name in ("residual", "tokens", "words", "a table as a sequence")}
    units["flat"] = flat, image(1, 8, 8)
    counts = {}
    for name, (net, x) in units.items():
        found = find_units(trace(net), x)
        counts[name] = found.places(0).stop
    assert counts == {
        "residual": 3, "tokens": 3, "words": 4, "a table as a sequence": 1, "flat": 64,
    }  # fmt: skip


def test_flattened_channels_are_one_unit_each() -> None:
    """The linear layer behind them adds up the contributions of a channel's places."""
    net, x = made("flattened")
    slicer = Slicer(net, x, 0.9, "signed")
    fan_in = [rule.fan_in for rule in slicer.units.rules.values()]
    assert fan_in == [1, 4, 5]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    gamma=st.sampled_from([0.5, 0.9, 1.0]),
)
def test_convolutions_keep_what_the_literal_algorithm_keeps(  # noqa: PLR0917
    seed: int, size: tuple[int, int], stride: int, padding: int, dilation: int, groups: int,
    gamma: float,
) -> None:  # fmt: skip
    """Weight by weight and place by place."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(2, 4, size, stride, padding, dilation, groups), nn.ReLU(),
            nn.Conv2d(4, 3, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2),
        )  # fmt: skip
        x = image(2, 6, 5, seed=seed, n=5)
        net(x)
    expected = literal_convolution_paths(net, x.double().numpy(), gamma)
    assert synapse_sets(net, x, gamma=gamma) == expected


def test_in_a_network_without_biases_rules_add_up_to_activation_times_gradient() -> None:
    """With means of zero, contributions handed on through rectifiers: a · ∂f / ∂a, by channel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.ReLU(),
            nn.Conv2d(4, 5, 3, stride=2, bias=False), nn.ReLU(), nn.Flatten(),
            nn.Linear(20, 1, bias=False),
        )  # fmt: skip
    x = image(2, 6, 6).requires_grad_()
    first = net[:2](x)
    (gradient,) = torch.autograd.grad(net[2:](first).sum(), first)
    expected = (first * gradient).sum((2, 3))  # (n, channels) of the first layer
    mask = (net[:3](x) > 0).double()
    weight = net[5].weight.double().reshape(5, 2, 2) * mask  # of the places that are on
    spread = nn.functional.conv_transpose2d(weight, net[2].weight.double(), stride=2)
    spread = nn.functional.pad(spread, (0, 1, 0, 1))
    found = (spread * first.double()).sum((2, 3))
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=1e-5)


class Gate(nn.Module):
    """Multiplies two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.a(x) * self.b(x))


class Mixed(nn.Module):
    """Takes a mean over neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(5, 4), nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.a(x).relu().mean(1, keepdim=True))


class Recurrent(nn.Module):
    """A recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.a, self.c = nn.GRU(5, 4, batch_first=True), nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.a(self.gru(x[:, None])[0][:, -1]).relu())


class StepsFirst(nn.Module):
    """Puts the steps before the samples, for all but the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x.unflatten(1, (2, 5)).transpose(0, 1)).relu()
        return self.c(self.b(h).relu()[-1])


class Merged(StepsFirst):
    """Puts the steps of all samples one after the other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.b(self.a(x.reshape(-1, 5)).relu()).relu()
        return self.c(h.reshape(x.shape[0], 2, 4).sum(1))


class Chosen(nn.Module):
    """Rows of a table that its input chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 4))
        self.a, self.c = nn.Linear(10, 4), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = torch.index_select(self.table, 0, x[:, 0].abs().long())
        return self.c((self.a(x) + found).relu())


class Indexed(nn.Module):
    """Pools, and gets to know where the largest values were."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.pool = nn.Conv1d(1, 2, 3), nn.MaxPool1d(2, return_indices=True)
        self.c = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.pool(self.a(x[:, None]).relu())[0].flatten(1))


class Attends(nn.Module):
    """Attention with an option that one cannot see through."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.a, self.c = kind, nn.Linear(2, 6), nn.Linear(2, 1)
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x.unflatten(1, (5, 2)))
        if self.kind == "mask":
            h, mask = h[..., :2], torch.ones(5, 5, dtype=torch.bool).triu(1)
            return self.c(self.attention(h, h, h, None, False, mask)[0][:, 0])
        q, k, v = h[:, None, :, :2], h[:, None, :, 2:4], h[:, None, :, 4:]
        options = (
            {"scale": 1 / q.size(-1)} if self.kind == "scale" else {"is_causal": q.size(1) > 9}
        )
        return self.c(functional.scaled_dot_product_attention(q, k, v, **options)[:, 0, 0])


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Gate(), "mul at 'mul'"),
        (Mixed(), "pooling over several units at 'mean'"),
        (Recurrent(), "GRU at 'gru'"),
        (StepsFirst(), "first axis is not that of the samples at 'a'"),
        (Merged(), "first axis is not that of the samples at 'a'"),
        (Chosen(), "chooses by values at 'index_select'"),
        (Indexed(), "pooling that gives indices too at 'pool'"),
        (Attends("mask"), "MultiheadAttention at 'attention'"),
        (Attends("scale"), "scaled_dot_product_attention at"),
        (Attends("causal"), "scaled_dot_product_attention at"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(net: nn.Module, said: str) -> None:
    """Before any work, and the error says what takes any network."""
    with pytest.raises(ModelError, match=said) as caught:
        fn.activation_paths(net, image(5 if isinstance(net, (Gate, Mixed, Recurrent)) else 10))
    assert caught.value.code == "model-unsupported"
    assert 'contribution="gradient"' in caught.value.cure


def test_the_refusal_is_of_the_step_that_no_numbering_gets_beyond() -> None:
    """Tokens mixed along their axis: not the first layer, which reads each token's features."""

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.tokens, self.c = nn.Linear(3, 3), nn.Linear(4, 4), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.features(x).relu()
            return self.c(self.tokens(h.transpose(1, 2)).mean(2))

    with pytest.raises(ModelError, match="reads several units as one at 'tokens'"):
        fn.activation_paths(Mixer(), image(4, 3))


def test_what_cannot_be_traced_can_be_differentiated() -> None:
    """The error says so, where exact rules were asked for."""

    class Branching(StepsFirst):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    with pytest.raises(ModelError, match='contribution="gradient"') as caught:
        fn.activation_paths(Branching(), image(10, n=1))
    assert caught.value.code == "model-untraceable"


def test_what_is_traced_is_what_the_model_computes() -> None:
    """Layers that are written out give the same; a forward that knows a symbol is refused."""
    for name in NETWORKS:
        net, x = made(name)
        torch.testing.assert_close(trace(net).module.eval()(x), net(x))

    class Knowing(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if isinstance(x, torch.Tensor) else x * 0)

    net = Knowing(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))
    with pytest.raises(ModelError, match="other outputs") as caught:
        fn.activation_paths(net, image(5))
    assert caught.value.code == "model-untraceable"


def test_hooks_on_attention_are_not_lost() -> None:
    """What has them is left as it is, a step without a rule."""
    net = Vision(lambda: encoder(first=True)).eval()
    net.body.layers[1].self_attn.register_forward_hook(lambda *_: None)
    with pytest.raises(ModelError, match=r"MultiheadAttention at 'body\.layers\.1\.self_attn'"):
        fn.activation_paths(net, image(1, 8, 8))


def test_convolutions_know_their_geometry() -> None:
    """As the module has it, whatever way it was said."""
    net = nn.Sequential(nn.Conv2d(1, 2, 4, padding="same"), nn.Flatten(), nn.Linear(8, 1))
    (layer,) = [s for s in trace(net).layers if isinstance(s, Convolution)]
    assert layer.padding == ((1, 2), (1, 2))
    assert (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.sampled_from([0, 1, (2, 1), "valid"]),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
)
def test_convolutions_in_float64_are_torchs_own(  # noqa: PLR0917
    seed: int, size: tuple[int, int], stride: int, dilation: int, padding: object, mode: str
) -> None:
    """As a matrix product, whatever the geometry."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = nn.Conv2d(
            3, 4, size, stride, padding, dilation, bias=seed % 2 > 0, padding_mode=mode
        )
    x = image(3, 7, 6, seed=seed, n=3).double()
    twin = _in_float64(nn.Sequential(layer), nn.Sequential, {})[0]
    assert type(twin) is _Convolution
    torch.testing.assert_close(twin(x), layer.double()(x).detach())


@pytest.mark.parametrize("call", COMPUTED.values(), ids=COMPUTED.keys())
def test_functional_layers_with_computed_arguments_have_no_rule(call) -> None:
    """They are refused by name, and sliced by activation and gradient where modules can be."""
    net = nn.Sequential(nn.Conv1d(2, 2, 1), Computed(call)).eval()
    with pytest.raises(ModelError, match='contribution="gradient"') as caught:
        fn.activation_paths(net, image(2, 6))
    assert caught.value.code == "model-unsupported"
    assert list(trace(net).neurons) == ["0"]
