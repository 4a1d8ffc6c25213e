"""Neural network slicing: which synapses made a sample's prediction.

Gao et al., section 3.2; Algorithm 1, lines 12 to 28.

From the output neuron backwards, each active neuron keeps the fewest predecessors whose
contributions explain the share γ of its value, and they are the next active ones. The set of kept
synapses is the sample's *activation path*.

Written ``r`` for relative activations (a neuron's activation minus its mean), ``c[i] = W[q, i]
r[i]`` for the contribution of synapse i → q, and ``v[q] = Σ c`` for the value of q.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import singledispatch
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from fairneuron.activations import Activations, Values
from fairneuron.batches import Batches, Samples
from fairneuron.data.dataset import Ints
from fairneuron.errors import ModelError, OptionError, require_known, require_range
from fairneuron.forward import one_thread
from fairneuron.graph import Elementwise, Layer, Linear, Sum
from fairneuron.kernel import Wiring, compiled, keep_prefix
from fairneuron.paths import Means, Paths, count_paths
from fairneuron.training import Progress, quiet

Active = dict[int, torch.Tensor]
"""Layer, by its position, to which of its neurons are active, ``(batch, units)`` bool."""

_CHUNK = 1 << 18  # contributions held at once: 2 MiB of float64 stay in the cache
_CHUNK_ON_DEVICE = 1 << 24  # of an accelerator, which wants work in large pieces


class Kept(NamedTuple):
    """Kept synapses of a layer: sample, unit, and which of the unit's synapses, ``(k,)`` each."""

    sample: torch.Tensor
    unit: torch.Tensor
    synapse: torch.Tensor


@dataclass(frozen=True)
class Synapses:
    """The synapses of paths, an entry per synapse.

    Attributes:
        layer: Name of the layer that the synapse leads into.
        sample: ``(k,)`` row of the sample.
        unit: ``(k,)`` neuron of that layer.
        source: ``(k,)`` name of the step that it comes from: an activation, the input, or a sum.
        predecessor: ``(k,)`` neuron of the source.
    """

    layer: str
    sample: Ints
    unit: Ints
    source: tuple[str, ...]
    predecessor: Ints


def activation_paths(
    model: nn.Module,
    x: Samples,
    *,
    gamma: float = 0.9,
    contribution: str = "signed",
    means: Means | None = None,
    batch_size: int | None = None,
    progress: Progress = quiet,
) -> Paths:
    """Finds the activation path of every sample.

    Two samples share a path if the same synapses explain their predictions. The result depends
    neither on the order of the samples, nor on the batch size, threads or device. Memory grows with
    the batch, and by up to 40 bytes a sample for the result, and as much while it is counted.

    Args:
        model: A traceable network of linear layers, elementwise activations, dropout, batch norm
            and additions.
        x: ``(n, features)``, as the network reads it; or a DataLoader that does not shuffle, or
            another iterable of batches of it, alone or first in a tuple. It is iterated twice
            unless ``means`` are given.
        gamma: In (0, 1]: the share of a neuron's value that its kept synapses exceed. A larger one
            keeps more.
        contribution: "signed": oriented by the sign of the neuron's value, as Algorithm 1 sorts
            them; "absolute": compared by absolute values, as in the paper's Figure 2.
        means: Mean activations to subtract, as in ``Paths.means``; those of ``x`` unless given.
        batch_size: Samples in memory at once, at most; unless given, as many as have a few MiB of
            activations.
        progress: Told after each batch; of how many samples, if that is known, else 0.

    Returns:
        Path ids and counts.

    Raises:
        OptionError: For gamma outside (0, 1].
        DataError: For samples that cannot be read twice, or not in a fixed order.
        ModelError: For a network that cannot be traced, or non-finite activations, naming the
            layer.
    """
    batches = Batches(x, batch_size, once=means is not None)
    slicer = Slicer(model, batches.peek(), gamma, contribution)
    means = slicer.activations.means(batches, progress) if means is None else means
    slicer.relative_to(means)
    parts, done = [], 0
    with one_thread() if slicer.compiled else nullcontext(1) as threads:
        for values in slicer.activations.of(batches):
            parts.append(slicer.signatures(values, threads)[0].cpu().numpy())
            done += len(parts[-1])
            progress("slicing", done, batches.total)
    return count_paths(np.concatenate(parts), means, gamma, contribution)


def mean_activations(
    model: nn.Module, x: Samples, *, batch_size: int | None = None, progress: Progress = quiet
) -> Means:
    """Finds the mean activation of every neuron that synapses come from.

    Those of parts add up (``+``) to those of the whole; given to ``activation_paths`` they make the
    paths of parts comparable, and ``Paths.merge`` joins them.

    The arguments are those of ``activation_paths``; ``x`` is read once.
    """
    batches = Batches(x, batch_size, once=True)
    return Activations(model, batches.peek()).means(batches, progress, remember=False)


def path_synapses(
    model: nn.Module,
    x: torch.Tensor,
    *,
    gamma: float = 0.9,
    contribution: str = "signed",
    means: Means | None = None,
) -> list[Synapses]:
    """Lists the synapses of the paths of a few samples, from the output layer to the input.

    The synapses of path p of ``paths`` are those of its first sample: ``path_synapses(model,
    x[paths.first[[p]]], gamma=paths.gamma, means=paths.means)``.

    The arguments are those of ``activation_paths``; give the ``means`` of the data that the paths
    were found on.
    """
    batches = Batches(x, max(len(x), 1))
    slicer = Slicer(model, batches.peek(), gamma, contribution)
    slicer.relative_to(slicer.activations.means(batches, quiet) if means is None else means)
    found: list[Synapses] = []
    for values in slicer.activations.of(batches):
        for layer, kept in slicer.synapses(values):
            source, predecessor = predecessors(layer, kept.unit, kept.synapse)
            names = [slicer.graph.layers[s].name for s in layer.sources]
            found.append(
                Synapses(
                    layer=layer.name,
                    sample=kept.sample.cpu().numpy(),
                    unit=kept.unit.cpu().numpy(),
                    source=tuple(names[i] for i in source.tolist()),
                    predecessor=predecessor.cpu().numpy(),
                )
            )
    return found


# The rule of each layer type: what its synapses contribute, and where they come from


@singledispatch
def contributions(
    layer: Layer, _weights: Values, _relative: Values, _sample: torch.Tensor, _unit: torch.Tensor
) -> torch.Tensor:
    """Contribution of each synapse of the given neurons, ``(neurons, fan_in)`` float64.

    Args:
        layer: The layer of the neurons.
        _weights: Weights ``(units, fan_in)`` of the linear layers, by layer.
        _relative: Relative activations ``(batch, units)`` float32, by layer.
        _sample: ``(neurons,)`` sample of each active neuron.
        _unit: ``(neurons,)`` its position in the layer.
    """
    raise NotImplementedError(type(layer))


@contributions.register
def _(
    layer: Linear, weights: Values, relative: Values, sample: torch.Tensor, unit: torch.Tensor
) -> torch.Tensor:
    return weights[layer.index][unit] * relative[layer.sources[0]][sample]  # (neurons, fan_in)


@contributions.register
def _(
    layer: Sum, _: Values, relative: Values, sample: torch.Tensor, unit: torch.Tensor
) -> torch.Tensor:
    operands = [
        sign * relative[s][sample, unit].double()
        for s, sign in zip(layer.sources, layer.signs, strict=True)
    ]
    return torch.stack(operands, dim=1)  # (neurons, operands)


@singledispatch
def predecessors(
    _layer: Layer, unit: torch.Tensor, synapse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where synapses come from: position in ``layer.sources`` and neuron there, ``(k,)`` each."""
    return torch.zeros_like(unit), synapse


@predecessors.register
def _(_layer: Sum, unit: torch.Tensor, synapse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return synapse, unit


class Slicer:
    """A network made ready for slicing.

    Args:
        model: The network.
        example: ``(n, features)`` a few samples that it can read.
        gamma: In (0, 1].
        contribution: "signed" or "absolute".

    Attributes:
        activations: What records its values.
        graph: The traced network.
        compiled: Whether linear layers are left to the compiled kernel.
    """

    def __init__(
        self, model: nn.Module, example: torch.Tensor, gamma: float, contribution: str
    ) -> None:
        require_range("gamma", gamma, 0, 1, open_low=True)
        require_known("option-contribution", "contribution", contribution, ("signed", "absolute"))
        self.gamma, self.absolute = gamma, contribution == "absolute"
        self.activations = Activations(model, example)
        self.graph = self.activations.graph
        self._means: Values = {}
        self._weights: Values = {}
        self._wirings: dict[int, Wiring] = {}
        self.compiled = compiled() and self.activations.device.type == "cpu"

    def relative_to(self, means: Means) -> None:
        """Sets the means that activations are relative to."""
        device = self.activations.device
        sums = means.sums if isinstance(means, Means) else ()
        self._means = {index: means[index].to(device) for index in sums}
        if not isinstance(means, Means) or self._means.keys() != self.activations.read:
            raise OptionError(
                "option-means", "Means must be those of this network", got="other layers",
                cure="Take Paths.means or mean_activations of it.",
            )  # fmt: skip
        for layer in self.activations.ruled():
            units, fan_in, weight = len(self._means[layer.sources[0]]), len(layer.sources), None
            if isinstance(layer, Linear):
                weight = self.graph.weight(layer).detach()
                weight = weight if weight.dtype == torch.float64 else weight.float()
                units, fan_in = weight.shape
                self._weights[layer.index] = weight.double()
            self._wirings[layer.index] = Wiring(weight, units, fan_in, layer.index, device)

    def signatures(self, values: Values, threads: int = 1) -> tuple[torch.Tensor, Active]:
        """Signature of each sample's path ``(batch, 2)`` int64, and the neurons on it.

        Args:
            values: Of ``activations.of``.
            threads: For the compiled kernel to use at most.
        """
        signature = torch.zeros(len(values[self.graph.output]), 2, dtype=torch.int64)
        signature = signature.to(self.activations.device)

        def visit(layer: Layer, active: Active) -> None:
            wiring = self._wirings[layer.index]
            for kept in self._kept(layer, values, active):
                signature.index_add_(0, kept.sample, wiring.keys(kept.unit, kept.synapse))

        if not self.compiled:
            return signature, self._walk(values, visit)

        def visit_quickly(layer: Layer, active: Active) -> None:
            if not isinstance(layer, Linear):
                visit(layer, active)
                return
            source = layer.sources[0]
            finite = self._wirings[layer.index].fold(
                values[source], self._means[source], active[layer.index],
                _neurons(active, source, values), signature,
                gamma=self.gamma, absolute=self.absolute, threads=threads,
            )  # fmt: skip
            if not finite:
                raise _not_finite(layer)

        return signature, self._walk(values, visit_quickly)

    def synapses(self, values: Values) -> list[tuple[Layer, Kept]]:
        """The kept synapses of each layer, from the output to the input."""
        found: list[tuple[Layer, Kept]] = []

        def visit(layer: Layer, active: Active) -> None:
            parts = zip(*self._kept(layer, values, active), strict=True)
            found.append((layer, Kept(*(torch.cat(column) for column in parts))))

        self._walk(values, visit)
        return found

    def _walk(self, values: Values, visit: Callable[[Layer, Active], None]) -> Active:
        """From the output neuron to the input: visits layers whose active neurons have synapses.

        A visit makes the sources of the kept synapses active.
        """
        out = values[self.graph.output]
        active = {self.graph.output: nn.functional.one_hot(out.argmax(1), out.shape[1]).bool()}
        for layer in reversed(self.graph.layers):
            if layer.index not in active or not layer.sources:
                continue
            if isinstance(layer, Elementwise):  # the same neurons
                source = layer.sources[0]
                same = active[layer.index]
                active[source] = active[source] | same if source in active else same.clone()
            else:
                visit(layer, active)
        return active

    def _kept(self, layer: Layer, values: Values, active: Active) -> Iterator[Kept]:
        """Kept synapses of the active neurons, a bounded number of contributions at a time."""
        relative = {s: (values[s] - self._means[s]).float() for s in layer.sources}
        for source in layer.sources:
            _neurons(active, source, values)
        sample, unit = active[layer.index].nonzero(as_tuple=True)
        chunk = _CHUNK if self.activations.device.type == "cpu" else _CHUNK_ON_DEVICE
        for rows in torch.arange(len(sample), device=sample.device).split(
            max(1, chunk // self._wirings[layer.index].fan_in)
        ):
            c = contributions(layer, self._weights, relative, sample[rows], unit[rows])
            _require_finite(layer, c)
            neuron, synapse = keep_prefix(c, self.gamma, absolute=self.absolute).nonzero(
                as_tuple=True
            )
            kept = Kept(sample[rows][neuron], unit[rows][neuron], synapse)
            origin, predecessor = predecessors(layer, kept.unit, kept.synapse)
            for position, source in enumerate(layer.sources):
                here = origin == position
                active[source][kept.sample[here], predecessor[here]] = True
            yield kept


def _neurons(active: Active, layer: int, values: Values) -> torch.Tensor:
    """Which neurons of a layer are active, none yet unless another reader made some."""
    if layer not in active:
        value = values[layer]
        active[layer] = torch.zeros(value.shape, dtype=torch.bool, device=value.device)
    return active[layer]


def _require_finite(layer: Layer, c: torch.Tensor) -> None:
    largest = c.abs().max() * c.shape[1] if c.numel() else c.sum()  # a bound of every sum
    if not torch.isfinite(8 * largest):
        raise _not_finite(layer)


def _not_finite(layer: Layer) -> ModelError:
    return ModelError(
        "model-nonfinite",
        "Contributions of synapses must be finite",
        got=f"NaN or infinity at layer {layer.name!r}",
        cure="Check the weights there and the scaling of the inputs.",
    )
