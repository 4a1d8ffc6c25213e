"""Muting: in training, a sample keeps the neurons of its own activation path alone.

Gao et al., section 1, speak of muting the neurons outside the paths where Algorithm 1 has random
dropout. The activations of these neurons count as 0 for the sample. The others are not scaled up:
a path explains nearly all of each value on it, which no random choice of neurons does.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from fairneuron.batches import Batches
from fairneuron.data.dataset import Ints
from fairneuron.graph import Graph
from fairneuron.paths import Means
from fairneuron.search.steps import Noise, dropout_layers, with_noise
from fairneuron.slicing import Slicer


@dataclass(frozen=True, eq=False)
class OnPath:
    """Which hidden neurons are on the activation paths of some samples, a bit for each.

    Attributes:
        samples: ``(k,)`` positions of the samples in their data, ascending.
        bits: Hidden activation, by its position in the traced network, to ``(k, ⌈values / 8⌉)``:
            whether the neuron of each of its values is on the path.
        units: Its values, likewise.
    """

    samples: Ints
    bits: dict[int, npt.NDArray[np.uint8]] = field(repr=False)
    units: dict[int, int]

    def at(self, activation: int, samples: torch.Tensor) -> torch.Tensor:
        """Whether each neuron is on the paths of these samples, ``(n, units)`` bool."""
        place = np.searchsorted(self.samples, samples.cpu().numpy())
        bits = self.bits[activation][place]
        units = self.units[activation]
        return torch.from_numpy(np.unpackbits(bits, axis=1, count=units).view(bool))


def neurons_on_paths(
    model: nn.Module,
    x: torch.Tensor,
    samples: Ints,
    *,
    gamma: float,
    contribution: str,
    means: Means,
) -> OnPath:
    """Finds the hidden neurons on the activation paths of some samples.

    Memory is a bit for each sample and neuron, and a batch of activations.

    Args:
        model: As for ``activation_paths``.
        x: ``(n, features)``.
        samples: ``(k,)`` the samples to slice, ascending.
        gamma: As for ``activation_paths``.
        contribution: As for ``activation_paths``.
        means: ``Paths.means`` of the data that the samples are of.
    """
    slicer = Slicer(model, x[:1], gamma, contribution)
    slicer.relative_to(means)
    activations = _noisy(slicer.graph)[1].values()
    parts: dict[int, list[npt.NDArray[np.uint8]]] = {}
    units: dict[int, int] = {}
    batches = Batches(x[torch.from_numpy(samples)], None, once=True)
    for values in slicer.activations.of(batches) if len(samples) else ():
        _, active = slicer.signatures(values)
        for index in activations:
            on = active[:, slicer.units.of[index].reshape(-1)]  # (batch, values) bool
            units[index] = on.shape[1]
            parts.setdefault(index, []).append(np.packbits(on.cpu().numpy(), axis=1))
    return OnPath(samples, {index: np.concatenate(part) for index, part in parts.items()}, units)


class Muting(Noise):
    """A layer that mutes, for each sample, the neurons outside its path.

    Args:
        on_path: Of the samples that are trained with it.
        activation: Position of the activation that it follows.
    """

    def __init__(self, on_path: OnPath, activation: int) -> None:
        super().__init__(0.0)
        self.on_path, self.activation = on_path, activation

    def draw(self, rows: torch.Tensor, _generator: torch.Generator) -> torch.Tensor:
        """``(n, *shape)``: 1 for the neurons on each sample's path, 0 for the others."""
        on = self.on_path.at(self.activation, rows)
        return on.reshape(len(rows), *self.shape).to(self.dtype)


def with_muting(graph: Graph, on_path: OnPath) -> tuple[fx.GraphModule, dict[str, Noise]]:
    """The same network, on the same parameters, with muting after each hidden activation.

    Its own dropout layers are left out. The muting comes by the names of its layers.
    """
    network, activations = _noisy(graph)
    layers: dict[str, Noise] = {}
    for name in with_noise(network):
        layers[name] = Muting(on_path, activations[name])
        network.set_submodule(name, layers[name])
    return network, layers


def _noisy(graph: Graph) -> tuple[fx.GraphModule, dict[str, int]]:
    """The network with a dropout layer of ours after each hidden activation, and after which."""
    quiet = fx.GraphModule(graph.module, copy.deepcopy(graph.module.graph))
    for name in dropout_layers(quiet):
        quiet.set_submodule(name, nn.Identity())
    noisy = replace(graph, module=quiet).with_dropout(0.5)
    position = {name: index for index, name in enumerate(graph.node_of)}
    layers = set(dropout_layers(noisy))
    return noisy, {
        str(node.target): position[node.all_input_nodes[0].name]
        for node in noisy.graph.nodes
        if node.op == "call_module" and node.target in layers
    }
