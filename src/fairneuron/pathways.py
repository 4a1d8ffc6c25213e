"""What paths look like, and where those of biased samples differ from those of benign ones.

Counts, shares and names alone; no value of a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fairneuron.batches import Batches
from fairneuron.clustering import rare_paths, summarise_paths
from fairneuron.data.dataset import Dataset, Floats, Ints
from fairneuron.errors import FairNeuronError
from fairneuron.graph import Elementwise, Graph, Input, Layer, Linear
from fairneuron.slicing import Slicer, activation_paths, predecessors

TOP = 12  # synapses to tell of each cluster
_ROWS = 20_000  # samples whose paths are counted, at most
_FEW = 20  # samples of a cluster, at least: the path of one says too much of it
_DRAWN = 300  # of each cluster, whose synapses are looked at, at most
_WORK = 2e8  # contributions to compute for that, at most
_BATCH = 1 << 24  # contributions held at once, about
_WIDEST = 1 << 24  # synapses of a layer, at most


class _Layer(NamedTuple):
    """A layer of synapses between neurons: who reads, who is read, and by how many paths."""

    reads: str | None  # None for the output
    read: str | None  # None for the input
    fan_in: int
    counts: Ints  # (2, units · fan-in): of benign and of biased samples


def pathways(
    model: nn.Module,
    data: Dataset,
    *,
    gamma: float = 0.9,
    theta: float = 1e-3,
    contribution: str = "signed",
    seed: int,
) -> dict[str, Any] | None:
    """Counts paths, and compares those of biased samples with those of benign ones.

    The clusters were made by looking at the paths, so they differ in noise too: these are
    descriptions, without a test.

    Args:
        model: The network.
        data: What to send through it; of more than 20,000 samples as many, drawn at random.
        gamma: As for ``activation_paths``.
        theta: As for ``rare_paths``.
        contribution: As for ``activation_paths``.
        seed: Of what is drawn.

    Returns:
        As plain values: what ``PathSummary.to_dict`` has, of how many samples those were drawn, the
        sizes of the hidden layers, how many samples of each cluster were looked at closely, and the
        synapses whose share of the paths of
        a cluster exceeds that of the other's most; none if one is too small, or the network too
        wide. None for a network that cannot be sliced.
    """
    rng, rows = np.random.default_rng(seed), len(data)
    if len(data) > _ROWS:
        data = data.subset(np.sort(rng.permutation(len(data))[:_ROWS]))
    try:
        paths = activation_paths(model, data.x, gamma=gamma, contribution=contribution)
        slicer = Slicer(model, data.x[:1], gamma, contribution)
    except FairNeuronError:
        return None
    slicer.relative_to(paths.means)
    graph = slicer.graph
    sizes = [graph.weight(layer).numel() for layer in graph.linear]
    rare = rare_paths(paths, theta)
    drawn = [_some(rng, np.flatnonzero(rare == biased), sizes) for biased in (False, True)]
    layers: list[_Layer] = []
    if max(sizes) <= _WIDEST and min(map(len, drawn)) >= _FEW:
        layers = _counted(slicer, data.x, drawn, size=max(1, _BATCH // sum(sizes)))
    names = list(data.feature_names)
    return {
        **summarise_paths(paths, data, theta).to_dict(),
        "drawn_from": rows,
        "layers": {name: len(graph.weight(layer)) for name, layer in graph.neurons.items()},
        "looked_at": {"benign": len(drawn[0]), "biased": len(drawn[1])},
        "more_biased": [*_most(layers, drawn, names, sign=1)],
        "more_benign": [*_most(layers, drawn, names, sign=-1)],
    }


def _some(rng: np.random.Generator, rows: Ints, sizes: list[int]) -> Ints:
    most = min(_DRAWN, max(20, int(_WORK / 2 / sum(sizes))))
    return np.sort(rng.permutation(rows)[:most])


def _counted(slicer: Slicer, x: torch.Tensor, drawn: list[Ints], *, size: int) -> list[_Layer]:
    """How many paths of each cluster have each synapse, layer by layer."""
    graph = slicer.graph
    counts: dict[int, Ints] = {}
    for cluster, rows in enumerate(drawn):
        own = x[torch.from_numpy(rows)]
        for values in slicer.activations.of(Batches(own, size)):
            for layer, kept in slicer.synapses(values):
                if not isinstance(layer, Linear):
                    continue
                units, fan_in = graph.weight(layer).shape
                _, predecessor = predecessors(layer, kept.unit, kept.synapse)
                here = (kept.unit * fan_in + predecessor).cpu().numpy()
                found = counts.setdefault(
                    layer.index, np.zeros((2, units * fan_in), dtype=np.int64)
                )
                found[cluster] += np.bincount(here, minlength=units * fan_in)
    return [layer for index, found in counts.items() for layer in _between(graph, index, found)]


def _between(graph: Graph, index: int, counts: Ints) -> Iterator[_Layer]:
    """The layer, if its synapses come from neurons and not from a sum."""
    layer = graph.layers[index]
    assert isinstance(layer, Linear)  # noqa: S101  # as they are counted
    source, fan_in = _origin(graph, layer.sources[0]), graph.weight(layer).shape[1]
    if isinstance(source, Input):
        yield _Layer(graph.owner.get(index), None, fan_in, counts)
    elif isinstance(source, Linear) and source.index in graph.owner:
        yield _Layer(graph.owner.get(index), graph.owner[source.index], fan_in, counts)


def _origin(graph: Graph, index: int) -> Layer:
    """Whose neurons a step's are."""
    layer = graph.layers[index]
    while isinstance(layer, Elementwise):
        layer = graph.layers[layer.sources[0]]
    return layer


def _most(
    layers: list[_Layer], drawn: list[Ints], names: list[str], *, sign: int
) -> Iterator[dict[str, Any]]:
    """The synapses with the largest differences of shares, the largest first."""
    benign, biased = map(len, drawn)
    found: list[tuple[float, int, int]] = []
    for number, layer in enumerate(layers):
        difference: Floats = sign * (layer.counts[1] / biased - layer.counts[0] / benign)
        order = np.argsort(-difference, kind="stable")[:TOP]
        found += [(float(difference[i]), number, int(i)) for i in order if difference[i] > 0]
    for _, number, i in sorted(found, key=lambda one: (-one[0], one[1], one[2]))[:TOP]:
        layer = layers[number]
        unit, predecessor = divmod(i, layer.fan_in)
        yield {
            "from": layer.read,
            "from_unit": predecessor,
            "feature": names[predecessor] if layer.read is None else None,
            "to": layer.reads,
            "to_unit": unit,
            "biased": float(layer.counts[1][i] / biased),
            "benign": float(layer.counts[0][i] / benign),
        }
