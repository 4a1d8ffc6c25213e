"""Neural network slicing: which synapses made a sample's prediction.

Gao et al., section 3.2; Algorithm 1, lines 12 to 28.

From the output neuron backwards, each active neuron keeps the fewest predecessors whose
contributions explain the share γ of its value, and they are the next active ones. The set of kept
synapses is the sample's *activation path*.

Written ``r`` for relative activations (a neuron's activation minus its mean), ``c[i] = W[q, i]
r[i]`` for the contribution of synapse i → q, and ``v[q] = Σ c`` for the value of q.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import singledispatch

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fairneuron.checks import check_model, copied
from fairneuron.data.dataset import Ints
from fairneuron.errors import DataError, ModelError, require_known, require_range
from fairneuron.forward import evaluation
from fairneuron.graph import Elementwise, Layer, Linear, Recorder, Sum
from fairneuron.tracing import trace
from fairneuron.training import Progress, quiet

Means = Mapping[int, torch.Tensor]
Kept = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Kept synapses of a layer, ``(k,)`` each: sample in the batch, unit, and which of the unit's
synapses."""

_CHUNK = 1 << 18  # contributions held at once: 2 MiB of float64 stay in the cache


@dataclass(frozen=True, eq=False)
class Paths:
    """The activation path of each sample.

    ``path_synapses`` lists what a path consists of.

    Attributes:
        path_of: ``(n,)`` id of each sample's path; 0 is the most frequent path.
        counts: ``(paths,)`` samples per path, descending.
        signatures: ``(paths, 2)`` int64: 128 bits that stand for the set of synapses.
        means: Mean activation of each layer, to slice other data relative to this.
        gamma: The share of each neuron's value that its kept synapses exceed.
    """

    path_of: Ints
    counts: Ints
    signatures: Ints
    means: Means = field(repr=False)
    gamma: float

    def __len__(self) -> int:
        return len(self.counts)

    def __repr__(self) -> str:
        return f"Paths({len(self.path_of)} samples, {len(self)} paths, gamma={self.gamma})"


@dataclass(frozen=True)
class Synapses:
    """The synapses of paths, an entry per synapse.

    Attributes:
        layer: Name of the layer that the synapse leads into.
        sample: ``(k,)`` row of the sample.
        unit: ``(k,)`` neuron of that layer.
        source: ``(k,)`` name of the layer that it comes from.
        predecessor: ``(k,)`` neuron of the source.
    """

    layer: str
    sample: Ints
    unit: Ints
    source: tuple[str, ...]
    predecessor: Ints


def activation_paths(
    model: nn.Module,
    x: torch.Tensor,
    *,
    gamma: float = 0.9,
    contribution: str = "signed",
    means: Means | None = None,
    batch_size: int = 1024,
    progress: Progress = quiet,
) -> Paths:
    """Finds the activation path of every sample.

    Two samples share a path if the same synapses explain their predictions. The result depends
    neither on the order of the samples nor on the batch size.

    Args:
        model: A traceable network of linear layers, elementwise activations, dropout, batch norm
            and additions.
        x: ``(n, features)``, as the network reads it.
        gamma: In (0, 1]: the share of a neuron's value that its kept synapses exceed. A larger one
            keeps more.
        contribution: "signed": oriented by the sign of the neuron's value, as Algorithm 1 sorts
            them; "absolute": compared by absolute values, as in the paper's Figure 2.
        means: Mean activations to subtract, as in ``Paths.means``; those of ``x`` unless given.
        batch_size: Samples in memory at once.
        progress: Told after each batch.

    Returns:
        Path ids and counts.

    Raises:
        OptionError: For gamma outside (0, 1].
        ModelError: For a network that cannot be traced, or non-finite activations, naming the
            layer.
    """
    _require_samples(model, x)
    slicer = _Slicer(model, gamma, contribution)
    means = slicer.means(x, batch_size) if means is None else means
    keys = slicer.keys(means)
    parts = []
    for start in range(0, len(x), batch_size):
        batch = x[start : start + batch_size]
        signature = torch.zeros(len(batch), 2, dtype=torch.int64, device=slicer.device)
        for layer, (sample, unit, synapse) in slicer.kept(batch, means):
            signature.index_add_(0, sample, keys[layer.index][unit, synapse])
        parts.append(signature.cpu())
        progress("slicing", min(start + batch_size, len(x)), len(x))
    signatures, path_of, counts = _count(torch.cat(parts).numpy())
    return Paths(path_of, counts, signatures, means, gamma)


def path_synapses(
    model: nn.Module,
    x: torch.Tensor,
    *,
    gamma: float = 0.9,
    contribution: str = "signed",
    means: Means | None = None,
) -> list[Synapses]:
    """Lists the synapses of the paths of a few samples, from the output layer to the input.

    The arguments are those of ``activation_paths``; give the ``means`` of the data that the paths
    were found on.
    """
    _require_samples(model, x)
    slicer = _Slicer(model, gamma, contribution)
    means = slicer.means(x, len(x)) if means is None else means
    found = []
    for layer, (sample, unit, synapse) in slicer.kept(x, means):
        source, predecessor = predecessors(layer, unit, synapse)
        names = [slicer.graph.layers[s].name for s in layer.sources]
        found.append(
            Synapses(
                layer=layer.name,
                sample=sample.cpu().numpy(),
                unit=unit.cpu().numpy(),
                source=tuple(names[i] for i in source.tolist()),
                predecessor=predecessor.cpu().numpy(),
            )
        )
    return found


def _require_samples(model: nn.Module, x: torch.Tensor) -> None:
    if len(x) == 0:
        raise DataError("data-empty", "Slicing needs samples", got="none", cure="Check the data.")
    check_model(model, x)


# The rule of each layer type: what its synapses contribute, and where they come from


@singledispatch
def contributions(
    layer: Layer, _weights: Means, _relative: Means, _sample: torch.Tensor, _unit: torch.Tensor
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
    layer: Linear, weights: Means, relative: Means, sample: torch.Tensor, unit: torch.Tensor
) -> torch.Tensor:
    return weights[layer.index][unit] * relative[layer.sources[0]][sample]  # (neurons, fan_in)


@contributions.register
def _(
    layer: Sum, _: Means, relative: Means, sample: torch.Tensor, unit: torch.Tensor
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


def keep_prefix(c: torch.Tensor, gamma: float, *, absolute: bool = False) -> torch.Tensor:
    """Marks the shortest prefix of the sorted contributions whose sum exceeds ``gamma * |v|``.

    Contributions are oriented by the sign of the neuron's value v (0 counts as positive) and sorted
    descending, the lower index first among equals. At least one synapse is kept, and beyond it none
    whose oriented contribution is not positive.

    Args:
        c: ``(neurons, fan_in)`` float64 contributions.
        gamma: In (0, 1].
        absolute: Compares absolute values instead.

    Returns:
        ``(neurons, fan_in)`` bool.
    """
    value = _sum(c)[:, None]
    oriented = c.abs() if absolute else torch.where(value < 0, -c, c)
    ordered, order = oriented.sort(dim=1, descending=True, stable=True)
    sums = torch.cumsum(ordered, dim=1)
    ahead = torch.cat(
        [torch.zeros_like(sums[:, :1]), sums[:, :-1]], dim=1
    )  # of the synapses before
    kept = (ahead <= gamma * value.abs()) & (ordered > 0)
    kept[:, 0] = True
    return torch.zeros_like(kept).scatter(1, order, kept)


def _sum(c: torch.Tensor) -> torch.Tensor:
    """Row sums in the order of the columns, so that neither batch nor threads change them."""
    return torch.cumsum(c, dim=1)[:, -1]


class _Slicer:
    """A network made ready for slicing: traced, and copied to float64."""

    def __init__(self, model: nn.Module, gamma: float, contribution: str) -> None:
        require_range("gamma", gamma, 0, 1, open_low=True)
        require_known("option-contribution", "contribution", contribution, ("signed", "absolute"))
        self.gamma, self.absolute = gamma, contribution == "absolute"
        self.graph = trace(model)
        self.module = copied(self.graph.module).double().eval()
        self.weights = {
            layer.index: self.graph.weight(layer).detach().double() for layer in self.graph.linear
        }
        self.device = next(iter(self.weights.values())).device
        self.read = {s for layer in self._ruled() for s in layer.sources}  # values needed

    def means(self, x: torch.Tensor, batch_size: int) -> dict[int, torch.Tensor]:
        """Mean of each layer over ``x``, float64."""
        total: dict[int, torch.Tensor] = {}

        def add(index: int, value: torch.Tensor) -> None:
            if index in self.read:
                total[index] = total.get(index, 0) + value.sum(0)

        for batch in x.split(batch_size):
            self._run(batch, add)
        return {index: value / len(x) for index, value in total.items()}

    def kept(self, batch: torch.Tensor, means: Means) -> Iterator[tuple[Layer, Kept]]:
        """Walks from the output to the input and yields the kept synapses of each layer."""
        relative: dict[int, torch.Tensor] = {}
        active: dict[int, torch.Tensor] = {}  # which neurons, (batch, units) bool

        def record(index: int, value: torch.Tensor) -> None:
            if index in self.read:
                relative[index] = (value - means[index]).float()
            if index == self.graph.output:
                active[index] = torch.nn.functional.one_hot(value.argmax(1), value.shape[1]).bool()

        self._run(batch, record)
        for layer in reversed(self.graph.layers):
            if layer.index not in active or not layer.sources:
                continue
            if isinstance(layer, Elementwise):  # the same neurons
                source = layer.sources[0]
                active[source] = (
                    active.get(source, torch.zeros_like(active[layer.index])) | active[layer.index]
                )
                continue
            sample, unit = active[layer.index].nonzero(as_tuple=True)
            kept = self._keep(layer, relative, sample, unit)
            for position, source in enumerate(layer.sources):
                if source not in active:
                    active[source] = torch.zeros_like(relative[source], dtype=torch.bool)
                origin, neuron = predecessors(layer, kept[1], kept[2])
                here = origin == position
                active[source][kept[0][here], neuron[here]] = True
            yield layer, kept

    def keys(self, means: Means) -> dict[int, torch.Tensor]:
        """Two random int64 per synapse, ``(units, fan_in, 2)`` by layer; the same in every run."""
        keys = {}
        for layer in self._ruled():
            table = self.weights if isinstance(layer, Linear) else means
            units = len(table[layer.index if isinstance(layer, Linear) else layer.sources[0]])
            rng = np.random.default_rng([0xFA1, layer.index])
            low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
            words = rng.integers(low, high, (units, self._fan_in(layer), 2))
            keys[layer.index] = torch.from_numpy(words).to(self.device)
        return keys

    def _keep(
        self, layer: Layer, relative: Means, sample: torch.Tensor, unit: torch.Tensor
    ) -> Kept:
        """Kept synapses of the active neurons, a bounded number of contributions at a time."""
        parts = []
        rows_at_once = max(1, _CHUNK // self._fan_in(layer))
        for rows in torch.arange(len(sample), device=self.device).split(rows_at_once):
            c = contributions(layer, self.weights, relative, sample[rows], unit[rows])
            neuron, synapse = keep_prefix(c, self.gamma, absolute=self.absolute).nonzero(
                as_tuple=True
            )
            parts.append((sample[rows][neuron], unit[rows][neuron], synapse))
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]

    def _ruled(self) -> list[Layer]:
        return [layer for layer in self.graph.layers if isinstance(layer, (Linear, Sum))]

    def _fan_in(self, layer: Layer) -> int:
        return (
            self.weights[layer.index].shape[1] if isinstance(layer, Linear) else len(layer.sources)
        )

    def _run(self, batch: torch.Tensor, see: Callable[[int, torch.Tensor], None]) -> None:
        def check(index: int, value: torch.Tensor) -> None:
            if not torch.isfinite(value).all():
                raise ModelError(
                    "model-nonfinite",
                    "Activations must be finite",
                    got=f"NaN or infinity at layer {self.graph.layers[index].name!r}",
                    cure="Check the weights there and the scaling of the inputs.",
                )
            see(index, value)

        with evaluation(self.module):
            Recorder(self.graph, check, self.module).run(batch.to(self.device).double())


def _count(signatures: npt.NDArray[np.int64]) -> tuple[Ints, Ints, Ints]:
    """Distinct signatures ``(paths, 2)``, the most frequent first; ids ``(n,)``; counts."""
    distinct, path_of, counts = np.unique(
        signatures, axis=0, return_inverse=True, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return distinct[order], rank[path_of.reshape(-1)], counts[order]
