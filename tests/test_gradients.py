"""Activation × gradient: paths of units through networks of any layers."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import fairneuron as fn
from fairneuron.errors import ModelError, OptionError
from fairneuron.gradients import GradientSlicer
from fairneuron.paths import Means
from tests.test_slicing import data, network
from tests.test_tracing import Branch
from tests.test_units import Gate, Merged, Recurrent, StepsFirst, Vision, encoder, image, made


class Hidden(nn.Module):
    """Its forward depends on values, behind a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.end = nn.Linear(5, 4), Branch()
        self.end.a = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.body(x).relu())


class Reader(nn.Module):
    """Reads words, step after step."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(9, 3), nn.LSTM(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.table(x.long()).transpose(0, 1))[0][-1])


def seeded(make: type[nn.Module]) -> nn.Module:
    """The same network each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def test_a_network_whose_hidden_layers_have_no_rule_is_named() -> None:
    """By the step, with what takes it; and that does."""
    net = Reader().eval()
    x = torch.arange(40).reshape(8, 5).remainder(9)
    with pytest.raises(ModelError, match=r"LSTM at 'lstm'.*contribution=.gradient") as caught:
        fn.activation_paths(net, x)
    assert caught.value.code == "model-unsupported"
    assert len(fn.activation_paths(net, x, contribution="gradient").path_of) == 8
    words = fn.Dataset.from_arrays(x.numpy(), [0, 1] * 4, [0, 0, 1, 1] * 2)
    with pytest.raises(ModelError, match=r"LSTM at 'lstm'.*Put a linear layer"):
        fn.repair(net, words, words)


def test_without_means_and_biases_each_layer_explains_the_whole_logit() -> None:
    """Rectifiers are homogeneous, so attributions of a layer's units sum to f (Euler)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(36, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False),
        )  # fmt: skip
    x = image(2, 6, 6)
    slicer = GradientSlicer(net, x, 0.9)
    shapes = [torch.zeros(2, 6, 6), torch.zeros(4, 6, 6), torch.zeros(5)]
    slicer.relative_to(Means({i: s.double() for i, s in enumerate(shapes)}, 1))
    expected = net.double()(x.double()).amax(1).detach()
    for found in slicer.attributions(x):
        torch.testing.assert_close(found.sum(1), expected)
    assert [name for name, _ in slicer.layers] == ["input", "0", "4"]
    assert [p.stop - p.start for _, (p,) in slicer.layers] == [2, 4, 5]


def test_attributions_are_relative_values_times_the_gradient() -> None:
    """Of a recurrent layer, summed over steps; by a second derivation."""
    net, x = seeded(Recurrent).double(), image(5).double()
    slicer = GradientSlicer(net, x, 0.9)
    means = fn.mean_activations(net, x, contribution="gradient")
    slicer.relative_to(means)
    by_layer = dict(zip((name for name, _ in slicer.layers), slicer.attributions(x), strict=True))
    steps = net.gru(x[:, None])[0].detach().requires_grad_()
    out = net.c(net.a(steps[:, -1]).relu())[:, 0]
    (slope,) = torch.autograd.grad(out.sum(), steps)
    expected = ((steps - steps.mean(0)) * slope).sum(1).detach()
    torch.testing.assert_close(by_layer["gru"], expected)


@pytest.mark.parametrize("make", [Gate, Recurrent, Hidden, Reader])
def test_any_network_that_runs_has_paths(make: type[nn.Module]) -> None:
    """Gates, recurrence, branches; the same paths in batches of any size, and in parts."""
    net = seeded(make)
    x = torch.randint(0, 9, (40, 6)).float() if make is Reader else image(5, n=40)
    paths = fn.activation_paths(net, x, contribution="gradient")
    assert 1 < len(paths) <= 40
    assert (paths.level, paths.contribution) == ("units", "gradient")
    for size in (1, 7):
        found = fn.activation_paths(net, x, contribution="gradient", batch_size=size)
        np.testing.assert_array_equal(found.signatures, paths.signatures)
    means = fn.mean_activations(net, x, contribution="gradient")
    parts = [
        fn.activation_paths(net, part, contribution="gradient", means=means) for part in x.split(15)
    ]
    merged = fn.Paths.merge(parts)
    np.testing.assert_array_equal(merged.path_of, paths.path_of)
    assert fn.rare_paths(merged).shape == (40,)


def test_neurons_on_these_paths_are_counted() -> None:
    """By module; every sample's path has a unit of each layer."""
    net, x = seeded(Recurrent), image(5, n=30)
    found = fn.path_neurons(net, x, np.arange(30) % 2, contribution="gradient")
    assert found.layers == ("input", "gru", "a")
    assert all((counts.sum(1) >= 15).all() for counts in found.counts)


def test_units_of_a_path_are_those_of_its_synapses() -> None:
    """At the level of units more samples share a path, and those that shared one still do."""
    net, x = network(3), data(3, n=300)
    fine = fn.activation_paths(net, x, gamma=0.7)
    coarse = fn.activation_paths(net, x, gamma=0.7, level="units")
    assert len(coarse) <= len(fine)
    of_fine = {p: coarse.path_of[fine.first[p]] for p in range(len(fine))}
    assert [of_fine[p] for p in fine.path_of] == coarse.path_of.tolist()
    assert coarse.level == "units"


class StepMajor(StepsFirst):
    """Puts the first steps of all samples before their second steps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x.unflatten(1, (2, 5)).transpose(0, 1).reshape(-1, 5)).relu()
        return self.c(self.b(h).reshape(2, len(x), 4)[-1])


@pytest.mark.parametrize("make", [StepsFirst, Merged])
def test_samples_may_lie_along_any_axis(make: type[StepsFirst]) -> None:
    """The same attributions as with the samples first; and in batches, even of one."""

    class SamplesFirst(make):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.b(self.a(x.unflatten(1, (2, 5))).relu()).relu()
            return self.c(h[:, -1] if make is StepsFirst else h.sum(1))

    net, plain, x = seeded(make), seeded(SamplesFirst), image(10, n=9)
    found = []
    for each in (net, plain):
        slicer = GradientSlicer(each, x, 0.9)
        slicer.relative_to(fn.mean_activations(each, x, contribution="gradient"))
        found.append(torch.cat(slicer.attributions(x), 1))
        alone = [torch.cat(slicer.attributions(row[None]), 1) for row in x]
        torch.testing.assert_close(torch.cat(alone), found[-1])
    torch.testing.assert_close(*found)


def test_values_that_no_axis_tells_apart_by_sample_are_refused() -> None:
    """By the layer's name."""
    with pytest.raises(ModelError, match="two samples at 'a'") as caught:
        fn.activation_paths(seeded(StepMajor), image(10), contribution="gradient")
    assert caught.value.code == "model-unsupported"


class Around(nn.Module):
    """Has a weight of its own, a second head that nobody reads, and words for places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.places = parametrizations.weight_norm(nn.Linear(3, 4)), nn.Embedding(2, 4)
        self.head, self.other = nn.Linear(4, 2), nn.Linear(4, 5)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = (self.a(x.unflatten(1, (2, 3))) + self.places(torch.arange(2))).relu().mean(1)
        out = self.head(h) * self.scale
        self.other(h)
        return out


def test_layers_are_those_that_the_logits_come_through() -> None:
    """Neither what contains others, nor what is not read, nor the head, nor constants."""
    x = image(6)
    assert [name for name, _ in GradientSlicer(seeded(Around), x, 0.9).layers] == ["input", "a"]
    net = Vision(lambda: encoder(first=True))
    names = [name for name, _ in GradientSlicer(net, image(1, 8, 8), 0.9).layers]
    assert names[:2] == ["input", "patches"]
    assert names[-1] == "body.layers.1.linear2"


def test_an_input_without_a_gradient_has_no_units() -> None:
    """It stays the first layer, so that nobody takes another one's units for columns."""
    x = torch.randint(0, 9, (30, 6)).float()
    for layers in ("all", "last"):
        found = fn.path_neurons(
            seeded(Reader), x, np.arange(30) % 2, contribution="gradient", layers=layers
        )
        assert found.layers[0] == "input"
        assert found.counts[0].shape == (2, 0)
        assert not any(use.is_input for use in found.over_represented(0, tested=False))


def test_steps_in_place_change_no_units() -> None:
    """The values of a layer are those that it gave."""
    x = image(5, n=20)
    made_of = [nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)]
    net = nn.Sequential(*made_of)
    expected = fn.activation_paths(net, x, contribution="gradient")
    net[1].inplace = net[3].inplace = True
    found = fn.activation_paths(net, x, contribution="gradient")
    np.testing.assert_array_equal(found.signatures, expected.signatures)


class Checkpointed(nn.Module):
    """Computes a part again for the gradient."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x).relu()
        return self.c(checkpoint(self.b, h, use_reentrant=self.reentrant).relu())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointed_modules_have_paths_or_are_refused() -> None:
    """Those of the older kind have no gradient for values in between."""
    x = image(5)
    assert len(fn.activation_paths(Checkpointed(reentrant=False), x, contribution="gradient")) > 1
    with pytest.raises(ModelError, match="reentrant") as caught:
        fn.activation_paths(Checkpointed(reentrant=True), x, contribution="gradient")
    assert caught.value.code == "model-gradient"


def test_batches_hold_less_of_larger_networks() -> None:
    """Their values, for the gradient, take a bounded amount of memory."""
    small = GradientSlicer(made("residual")[0], image(3, 8, 8), 0.9)
    large = GradientSlicer(made("residual")[0], image(3, 256, 256, n=2), 0.9)
    assert small.rows == 256
    assert large.rows < 64


def test_a_model_of_one_layer_has_no_units() -> None:
    """Nothing lies between the input and the logits."""
    with pytest.raises(ModelError) as caught:
        fn.activation_paths(nn.Linear(5, 1), image(5), contribution="gradient")
    assert caught.value.code == "model-no-hidden"


def test_synapses_are_of_exact_rules_alone() -> None:
    """Asking for those of a gradient is refused; so are unknown levels."""
    net, x = network(0), data(0)
    with pytest.raises(OptionError, match="contribution"):
        fn.path_synapses(net, x, contribution="gradient")
    with pytest.raises(OptionError, match="level"):
        fn.activation_paths(net, x, level="unit")


def test_large_networks_with_exact_rules_have_unit_paths_too() -> None:
    """A residual network, by its channels."""
    net, x = made("residual")
    assert fn.activation_paths(net, x, level="units").level == "units"
