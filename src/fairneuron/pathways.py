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
from fairneuron.graph import Weighted
from fairneuron.slicing import Slicer, activation_paths

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
    predecessor: Ints  # (units, fan_in): which of its units each synapse comes from
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
    sizes = [rule.units * rule.fan_in for rule in slicer.units.rules.values()]
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
    counts: dict[int, Ints] = {}
    for cluster, rows in enumerate(drawn):
        own = x[torch.from_numpy(rows)]
        for values in slicer.activations.of(Batches(own, size)):
            for layer, kept in slicer.synapses(values):
                rule = slicer.units.rules[layer.index]
                here = (kept.unit * rule.fan_in + kept.synapse).cpu().numpy()
                synapses = rule.units * rule.fan_in
                found = counts.setdefault(layer.index, np.zeros((2, synapses), dtype=np.int64))
                found[cluster] += np.bincount(here, minlength=synapses)
    return [layer for index, found in counts.items() for layer in _between(slicer, index, found)]


def _between(slicer: Slicer, index: int, counts: Ints) -> Iterator[_Layer]:
    """The layer, if its synapses are between neurons: those of a sum, or from one, are not."""
    graph, units = slicer.graph, slicer.units
    read = units.rules[index].predecessor.reshape(-1)
    source = units.layer_of(int(read[0]))
    places = units.places(source)
    of_one = bool(((read >= places.start) & (read < places.stop)).all())
    if (
        not isinstance(graph.layers[index], Weighted)
        or not of_one
        or source not in (0, *graph.owner)
    ):
        return
    rule = units.rules[index]
    predecessor = rule.predecessor.cpu().expand(rule.units, -1).numpy() - places.start
    yield _Layer(graph.owner.get(index), graph.owner.get(source), predecessor, counts)


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
        unit, synapse = divmod(i, layer.predecessor.shape[1])
        predecessor = int(layer.predecessor[unit, synapse])
        yield {
            "from": layer.read,
            "from_unit": predecessor,
            "feature": names[predecessor]
            if layer.read is None and predecessor < len(names)
            else None,
            "to": layer.reads,
            "to_unit": unit,
            "biased": float(layer.counts[1][i] / biased),
            "benign": float(layer.counts[0][i] / benign),
        }
