"""Tracing: what a network is taken for, whatever its attributes are called."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import fairneuron as fn
from fairneuron.errors import ModelError
from fairneuron.graph import Elementwise, Input, Linear, Sum
from fairneuron.recording import Recorder
from fairneuron.tracing import trace
from tests.oracles import same_partition
from tests.test_slicing import Plain, Residual, data, network


def kinds(model: nn.Module) -> list[str]:
    """The kinds of its layers in order."""
    return [type(layer).__name__ for layer in trace(model).layers]


def test_stack() -> None:
    """Linear and activation layers, the last linear one as the head."""
    graph = trace(network(0))
    assert kinds(network(0)) == [
        "Input",
        "Linear",
        "Elementwise",
        "Linear",
        "Elementwise",
        "Linear",
    ]
    assert [layer.name for layer in graph.hidden] == ["0", "2"]
    assert [layer.name for layer in graph.head] == ["4"]
    assert [graph.activation_of(layer) for layer in graph.hidden] == [2, 4]


def test_residual_graph() -> None:
    """Additions and subtractions have two sources and a sign each.

    Scaling the input is elementwise.
    """
    graph = trace(Residual())
    sums = [layer for layer in graph.layers if isinstance(layer, Sum)]
    assert [layer.signs for layer in sums] == [(1, 1), (1, -1)]
    assert isinstance(graph.layers[0], Input)
    assert [layer.name for layer in graph.hidden] == ["zebra", "inner.a", "inner.b"]
    assert [layer.name for layer in graph.head] == ["last"]


def test_functional_linear_is_found_by_its_parameter() -> None:
    """A head that is a function call is a linear layer too."""
    graph = trace(Plain(network(0)))
    assert [layer.weight for layer in graph.weighted] == [
        "first.weight",
        "second.weight",
        "third.weight",
    ]
    assert all(isinstance(layer, Linear) for layer in graph.head)


def test_tracing_sees_eval_mode_and_restores_the_mode() -> None:
    """Functional dropout is absent from the traced network of a model in training mode."""
    model = Plain(network(0)).train()
    graph = trace(model)
    assert model.training
    x = data(0)
    outputs = [Recorder(graph, lambda *_: None).run(x) for _ in range(2) if graph.module.eval()]
    assert torch.equal(outputs[0], outputs[1])


def test_parameters_are_shared_with_the_model() -> None:
    """The traced network follows the model's weights."""
    model = network(0)
    graph = trace(model)
    assert graph.weight(graph.head[0]) is model[4].weight
    assert set(graph.incoming) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_dropout_follows_every_hidden_activation() -> None:
    """Inserted after each hidden activation, inactive in eval mode, on the same parameters.

    The model keeps its keys.
    """
    model = Residual().eval()
    keys = list(model.state_dict())
    run = trace(model).with_dropout(0.9)
    assert sum(isinstance(m, nn.Dropout) for m in run.modules()) == 3
    x = data(1)
    assert torch.equal(run.eval()(x), model(x))
    for module in run.modules():
        module.train(isinstance(module, nn.Dropout))
    assert not torch.equal(run(x), model(x))
    assert list(model.state_dict()) == keys


def test_own_dropout_layers_are_kept() -> None:
    """A network with dropout gets no second one."""
    run = trace(
        nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Dropout(0.5), nn.Linear(3, 1))
    ).with_dropout(0.9)
    assert [m.p for m in run.modules() if isinstance(m, nn.Dropout)] == [0.5]


def test_a_module_used_twice_counts_its_neurons_once() -> None:
    """Both uses are layers, the neurons and parameters are listed once."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(5, 5), nn.Linear(5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(self.body(x).relu()).relu())

    graph = trace(Twice())
    assert len(graph.hidden) == 2
    assert list(graph.neurons) == ["body"]
    assert list(graph.incoming) == ["body.weight", "body.bias"]


class Branch(nn.Module):
    """Its forward depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) if x.sum() > 0 else -self.a(x)


class Pair(nn.Module):
    """Returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x), x


class TwoInputs(nn.Module):
    """Wants two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 1)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return self.a(x + z)


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        (Branch(), "model-untraceable", "depend on values"),
        (
            nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 1, 5), nn.Flatten()),
            "model-no-hidden",
            "all at the output",
        ),
        (
            nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid()),
            "model-head",
            "'3'",
        ),
        (
            nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(1)),
            "model-head",
            "'3'",
        ),
        (nn.Linear(5, 1), "model-no-hidden", "hidden"),
        (Pair(), "model-output", "one tensor"),
        (TwoInputs(), "model-inputs", "'z'"),
        ("model.pt", "model-type", "str"),
    ],
)
def test_other_networks_are_refused_by_name(model: object, code: str, said: str) -> None:
    """The error names the module or step, and what it is."""
    with pytest.raises(ModelError, match=said) as caught:
        trace(model)
    assert caught.value.code == code


def test_elementwise_marks_activations() -> None:
    """Dropout belongs after activations, not after batch norm or dropout."""
    graph = trace(
        nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(), nn.Linear(4, 1))
    )
    flags = [layer.activation for layer in graph.layers if isinstance(layer, Elementwise)]
    assert flags == [False, True, False]


def wired(forward: object, **layers: nn.Module) -> nn.Module:
    """A module with these layers and this forward."""

    class Wired(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, layer in layers.items():
                self.add_module(name, layer)

    Wired.forward = forward
    return Wired()


def layers(seed: int = 0) -> dict[str, nn.Linear]:
    """The same three linear layers each time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {"a": nn.Linear(5, 6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 1)}


def out_of_place(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Residual, nothing overwritten."""
    h = torch.relu(self.a(x))
    return self.c(torch.relu(self.b(h) + h))


def in_place_calls(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The same, its activations overwriting."""
    h = self.a(x)
    torch.relu_(h)
    h = self.b(h) + h
    functional.relu(h, inplace=True)
    return self.c(h)


def in_place_module(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The same with a module that overwrites, and +=."""
    h = self.a(x)
    self.act(h)
    o = self.b(h)
    o += h
    return self.c(self.act(o))


def written_back(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The same with methods that overwrite."""
    h = self.a(x).relu_()
    o = h
    o += self.b(h)
    return self.c(o.relu_())


@pytest.mark.parametrize("forward", [in_place_calls, in_place_module, written_back])
def test_in_place_steps_mean_what_they_do(forward: object) -> None:
    """Whoever reads an overwritten tensor reads the result: outputs, paths and dropout agree."""
    plain = wired(out_of_place, **layers())
    model = wired(forward, **layers(), act=nn.ReLU(inplace=True))
    x = data(4, n=200)
    torch.testing.assert_close(trace(model).module(x), plain(x))
    expected = fn.activation_paths(plain, x, gamma=0.6).path_of.tolist()
    assert same_partition(fn.activation_paths(model, x, gamma=0.6).path_of.tolist(), expected)
    run = trace(model).with_dropout(0.5)
    for module in run.modules():
        module.train(isinstance(module, nn.Dropout))
    assert not torch.allclose(run(x), plain(x))
    assert sum(isinstance(m, nn.Dropout) for m in run.modules()) == 2


def test_in_place_steps_on_views_are_refused() -> None:
    """What else they change cannot be followed."""

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        torch.relu_(h.view(-1, 6))
        return self.c(h)

    with pytest.raises(ModelError, match="on a view"):
        trace(wired(forward, **layers()))


def test_steps_that_lead_nowhere_are_left_out() -> None:
    """An unused layer has no neurons of this network."""

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x).relu()
        self.b(h)
        return self.c(h)

    graph = trace(wired(forward, **layers()))
    assert [layer.name for layer in graph.weighted] == ["a", "c"]


def test_optional_arguments_stay_at_their_defaults() -> None:
    """A forward may have switches and further inputs that are left out."""

    def forward(
        self: nn.Module,
        x: torch.Tensor,
        scale: torch.Tensor | None = None,
        features: bool = False,
        **_: object,
    ) -> torch.Tensor:
        h = self.a(x).relu()
        if features:
            return h
        if scale is not None:
            h = h / scale
        return self.c(h.view(h.size(0), -1).reshape(h.shape[0], 6))

    model = wired(forward, **layers())
    graph = trace(model)
    x = data(1)
    assert torch.equal(graph.module(x), model(x))
    assert [layer.name for layer in graph.weighted] == ["a", "c"]


def test_a_sigmoid_behind_a_squeeze_is_refused() -> None:
    """Probabilities are no logits, whatever is done to their shape."""

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.c(self.a(x).relu())).squeeze(1)

    with pytest.raises(ModelError) as caught:
        trace(wired(forward, **layers()))
    assert caught.value.code == "model-head"


def test_layers_that_look_at_the_batch_are_refused() -> None:
    """A path must not depend on who else is in the batch."""
    bad = nn.BatchNorm1d(6, track_running_stats=False)
    with pytest.raises(ModelError, match="without running statistics"):
        trace(nn.Sequential(nn.Linear(5, 6), bad, nn.ReLU(), nn.Linear(6, 1)))


def test_dropout_that_never_rests_is_refused() -> None:
    """Functional dropout without ``training=self.training`` is random in eval mode too."""

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.c(functional.dropout(self.a(x).relu(), 0.5))

    with pytest.raises(ModelError, match="active in eval mode"):
        trace(wired(forward, **layers()))


def test_shared_weights_are_one_set_of_neurons() -> None:
    """Two layers on one parameter count once, whichever was registered first."""
    named = layers()
    twin = nn.Linear(6, 6)
    twin.weight = named["b"].weight

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.twin(self.a(x).relu()).relu()).relu())

    graph = trace(wired(forward, **named, twin=twin))
    assert list(graph.neurons) == ["a", "twin"]
    assert set(graph.owner.values()) == {"a", "twin"}


@pytest.mark.parametrize(
    ("name", "options"),
    [("spectral_norm", {}), ("orthogonal", {}), ("weight_norm", {"dim": 1}),
     ("weight_norm", {"dim": None})],
)  # fmt: skip
def test_weights_that_neurons_share_are_refused_for_retraining(name: str, options: dict) -> None:
    """Parametrisations that compute a neuron's weights from others': by name, with the cure."""
    model = network(0)
    getattr(nn.utils.parametrizations, name)(model[2], **options)
    kind = {"spectral_norm": "SpectralNorm", "orthogonal": "Orthogonal"}.get(name, "WeightNorm")
    with pytest.raises(ModelError, match=f"'2.weight', which {kind}") as caught:
        _ = trace(model).incoming
    assert caught.value.code == "model-parametrised"


def test_weight_norm_has_a_row_of_each_of_its_parameters_per_neuron() -> None:
    """Length and direction of its weights, and its bias."""
    model = network(0)
    nn.utils.parametrizations.weight_norm(model[2])
    incoming = trace(model).incoming
    own = ("2.parametrizations.weight.original0", "2.parametrizations.weight.original1", "2.bias")
    assert list(incoming) == ["0.weight", "0.bias", *own]
    assert all(incoming[name] is dict(model.named_parameters())[name] for name in own)
    assert [len(incoming[name]) for name in own] == [7, 7, 7]


def test_buffers_as_weights_are_left_out_of_retraining() -> None:
    """A layer of fixed random features has neurons, but nothing to train."""

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(functional.linear(x, self.fixed).relu()).relu())

    model = wired(forward, **layers())
    model.register_buffer("fixed", torch.ones(6, 5))
    graph = trace(model)
    assert list(graph.neurons) == ["fixed", "b"]
    assert list(graph.incoming) == ["b.weight", "b.bias"]


def test_tracing_leaves_what_the_forward_stores_alone() -> None:
    """Attributes and lists hold no symbols afterwards."""

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        self.last = self.a(x)
        self.seen.append(self.last)
        return self.c(self.last.relu())

    model = wired(forward, **layers())
    model.last, model.seen = None, [1]
    trace(model)
    assert (model.last, model.seen) == (None, [1])


def test_casts_in_the_forward_are_harmless() -> None:
    """A model that casts its input is sliced in float64 all the same."""

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.a(x.float()).relu())

    def plain(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.a(x).relu())

    x = data(2)
    one, other = (
        fn.activation_paths(wired(f, **layers()), x).path_of.tolist() for f in (forward, plain)
    )
    assert same_partition(one, other)


def test_constants_that_forward_makes_are_kept() -> None:
    """A tensor that is made in forward scales the inputs; the model does not keep it."""

    class Scaled(nn.Module):
        def __init__(self, constant: bool) -> None:
            super().__init__()
            self.net, self.constant = network(3), constant
            self.register_buffer("scale", torch.tensor([1.0, 2, 3, 4, 5]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scale = torch.tensor([1.0, 2, 3, 4, 5]) if self.constant else self.scale
            return self.net(x * scale)

    x = data(3)
    made, registered = Scaled(True), Scaled(False)
    before = set(vars(made))
    one, other = (fn.activation_paths(net, x).path_of.tolist() for net in (made, registered))
    assert one == other
    assert set(vars(made)) == before
