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
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from fairneuron.activations import Activations, Values
from fairneuron.batches import Batches, Samples
from fairneuron.data.dataset import Ints
from fairneuron.errors import ModelError, OptionError, require_known, require_range
from fairneuron.forward import one_thread
from fairneuron.gradients import GradientSlicer
from fairneuron.graph import Layer
from fairneuron.kernel import Wiring, compiled, keep_prefix, unit_signatures
from fairneuron.paths import Means, Paths, count_paths
from fairneuron.progress import Progress, quiet
from fairneuron.rules import Rule, weight_of
from fairneuron.settings import PathOptions
from fairneuron.similar import Sketcher

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
        source: ``(k,)`` name of the layer that it comes from, whose activation is read: one with
            units of its own, such as a linear layer, the input, or a sum.
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
    level: str = "synapses",
    layers: str = "all",
    similarity: float | None = None,
    means: Means | None = None,
    batch_size: int | None = None,
    progress: Progress = quiet,
) -> Paths:
    """Finds the activation path of every sample.

    Two samples share a path if the same synapses explain their predictions. The result depends
    neither on the order of the samples, nor on the batch size, threads or device. Memory grows with
    the batch, and by up to 40 bytes a sample for the result, and as much while it is counted.

    Args:
        model: A traceable network of layers that have a rule: see ``fairneuron.rules``.
        x: ``(n, …)``, as the network reads it; or a DataLoader that does not shuffle, or
            another iterable of batches of it, alone or first in a tuple. It is iterated twice
            unless ``means`` are given.
        gamma: In (0, 1]: the share of a neuron's value that its kept synapses exceed. A larger one
            keeps more.
        contribution: "signed": oriented by the sign of the neuron's value, as Algorithm 1 sorts
            them; "absolute": compared by absolute values, as in the paper's Figure 2; "gradient":
            activation × gradient of units, for networks of any layers (``fairneuron.gradients``).
        level: What a path is a set of: "synapses", or "units", which more samples share. Of
            "gradient" it is units in any case.
        layers: "all", or "last": the path ends at what the last layer with weights reads, as the
            paper slices convolutional networks (section 4.4, Table 7).
        similarity: In (0, 1): also finds how many samples have nearly the same set of units, for
            ``rare_paths(..., similar=True)``. Samples whose sets have this share of their union in
            common count as sharing a path half the time; those with equal sets always.
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
    PathOptions(contribution, level, layers, similarity)  # checks them
    by_unit = level == "units" or contribution == "gradient"
    batches = Batches(x, batch_size, once=means is not None)
    slicer = make_slicer(model, batches.peek(), gamma, contribution, layers)
    sketcher = None if similarity is None else Sketcher(similarity, slicer.total)
    means = slicer.activations.means(batches, progress) if means is None else means
    slicer.relative_to(means)
    parts, sketches, done = [], [], 0
    with one_thread() if slicer.device.type == "cpu" else nullcontext(1) as threads:
        for values in slicer.activations.of(batches):
            signature, active = slicer.signatures(values, threads)
            parts.append((unit_signatures(active) if by_unit else signature).cpu().numpy())
            if sketcher is not None:
                sketches.append(sketcher.sketch(active))
            done += len(parts[-1])
            progress("slicing", done, batches.total)
    found = count_paths(np.concatenate(parts), means, gamma, contribution)
    level = "units" if by_unit else "synapses"
    return replace(
        found,
        level=level,
        layers=layers,
        sketches=np.concatenate(sketches) if sketches else None,
    )


def mean_activations(
    model: nn.Module,
    x: Samples,
    *,
    contribution: str = "signed",
    batch_size: int | None = None,
    progress: Progress = quiet,
) -> Means:
    """Finds the mean activation of every neuron that synapses come from.

    Those of parts add up (``+``) to those of the whole; given to ``activation_paths`` they make the
    paths of parts comparable, and ``Paths.merge`` joins them.

    The arguments are those of ``activation_paths``; ``x`` is read once.
    """
    batches = Batches(x, batch_size, once=True)
    slicer = make_slicer(model, batches.peek(), 1.0, contribution)
    return slicer.activations.means(batches, progress, remember=False)


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
    x[paths.first[[p]]], gamma=paths.gamma, means=paths.means)``. There are none of "gradient".

    The arguments are those of ``activation_paths``; give the ``means`` of the data that the paths
    were found on.
    """
    batches = Batches(x, max(len(x), 1))
    slicer = Slicer(model, batches.peek(), gamma, contribution)
    slicer.relative_to(slicer.activations.means(batches, quiet) if means is None else means)
    found: list[Synapses] = []
    for values in slicer.activations.of(batches):
        for layer, kept in slicer.synapses(values):
            rule = slicer.units.rules[layer.index]
            unit = rule.sources(kept.unit, kept.synapse).cpu()
            owners = {u: slicer.units.layer_of(u) for u in unit.unique().tolist()}
            source = [owners[u] for u in unit.tolist()]
            found.append(
                Synapses(
                    layer=layer.name,
                    sample=kept.sample.cpu().numpy(),
                    unit=kept.unit.cpu().numpy(),
                    source=tuple(slicer.graph.layers[s].name for s in source),
                    predecessor=unit.numpy() - np.array([slicer.units.first[s] for s in source]),
                )
            )
    return found


def make_slicer(
    model: nn.Module,
    example: torch.Tensor,
    gamma: float,
    contribution: str,
    layers: str = "all",
) -> Slicer | GradientSlicer:
    """A network made ready for slicing; see ``Slicer`` for the arguments.

    Raises:
        OptionError: For gamma outside (0, 1] and unknown contributions.
    """
    require_range("gamma", gamma, 0, 1, open_low=True)
    PathOptions(contribution, layers=layers)  # checks them
    last = layers == "last"
    if contribution == "gradient":
        return GradientSlicer(model, example, gamma, last=last)
    return Slicer(model, example, gamma, contribution, last=last)


class Slicer:
    """A network made ready for slicing.

    Args:
        model: The network.
        example: ``(n, …)`` a few samples that it can read.
        gamma: In (0, 1].
        contribution: "signed" or "absolute".
        last: Whether paths end at what the last layers with weights read.

    Attributes:
        activations: What records its values.
        graph: The traced network.
        units: Its units and rules.
        total: How many units there are.
        device: Where it runs.
        compiled: Whether linear layers are left to the compiled kernel.
    """

    def __init__(
        self,
        model: nn.Module,
        example: torch.Tensor,
        gamma: float,
        contribution: str,
        *,
        last: bool = False,
    ) -> None:
        require_range("gamma", gamma, 0, 1, open_low=True)
        known = ("signed", "absolute")
        require_known("option-contribution", "contribution", contribution, known)
        self.gamma, self.absolute, self._last = gamma, contribution == "absolute", last
        self.activations = Activations(model, example)
        self.graph = self.activations.graph
        self.units, self.device = self.activations.units, self.activations.device
        self.total = self.units.total
        self._means: Values = {}
        self._weights: dict[int, torch.Tensor | None] = {}
        self._wirings: dict[int, Wiring] = {}
        self.compiled = compiled() and self.device.type == "cpu"

    def relative_to(self, means: Means) -> None:
        """Sets the means that activations are relative to."""
        device = self.device
        sums = means.sums if isinstance(means, Means) else ()
        self._means = {index: means[index].to(device) for index in sums}
        if not isinstance(means, Means) or self._means.keys() != self.units.rules.keys():
            raise OptionError(
                "option-means", "Means must be those of this network", got="other layers",
                cure="Take Paths.means or mean_activations of it.",
            )  # fmt: skip
        for index, rule in self.units.rules.items():
            weight = weight_of(self.graph, self.graph.layers[index], rule)
            self._weights[index] = None if weight is None else weight.double()
            whole = None if rule.groups > 1 else weight
            self._wirings[index] = Wiring(whole, rule.units, rule.fan_in, index, device)

    def signatures(self, values: Values, threads: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Signature of each sample's path ``(batch, 2)`` int64, and the units on it.

        Args:
            values: Of ``activations.of``.
            threads: For the compiled kernel to use at most.

        Returns:
            The signatures, and ``(batch, units)`` bool; ``units`` says whose they are.
        """
        signature = torch.zeros(len(values[-1]), 2, dtype=torch.int64)
        signature = signature.to(self.device)

        def visit(layer: Layer, rule: Rule, active: torch.Tensor) -> None:
            wiring = self._wirings[layer.index]
            if self.compiled and wiring.weight is not None:
                source = active.new_zeros(len(active), rule.fan_in)
                finite = wiring.fold(
                    values[layer.index], self._means[layer.index],
                    active[:, self.units.places(layer.index)], source, signature,
                    gamma=self.gamma, absolute=self.absolute, threads=threads,
                )  # fmt: skip
                if not finite:
                    raise _not_finite(layer)
                _activate(active, source, rule.predecessor)
                return
            for kept in self._kept(layer, rule, values, active):
                signature.index_add_(0, kept.sample, wiring.keys(kept.unit, kept.synapse))

        return signature, self._walk(values, visit)

    @property
    def layers(self) -> list[tuple[str, tuple[slice, ...]]]:
        """The layers of neurons by name, and where each use of them is among all units.

        The input comes first; of layers that share their weights, the first one has the name.
        """
        steps: dict[str, list[int]] = {self.graph.layers[0].name: [0]}
        for index, name in self.graph.owner.items():
            steps.setdefault(name, []).append(index)
        return [
            (name, tuple(self.units.places(step) for step in own)) for name, own in steps.items()
        ]

    def synapses(self, values: Values) -> list[tuple[Layer, Kept]]:
        """The kept synapses of each layer, from the output to the input."""
        found: list[tuple[Layer, Kept]] = []

        def visit(layer: Layer, rule: Rule, active: torch.Tensor) -> None:
            parts = zip(*self._kept(layer, rule, values, active), strict=True)
            found.append((layer, Kept(*(torch.cat(column) for column in parts))))

        self._walk(values, visit)
        return found

    def _walk(
        self, values: Values, visit: Callable[[Layer, Rule, torch.Tensor], None]
    ) -> torch.Tensor:
        """From the output neuron to the input: visits the layers that have synapses.

        A visit makes the units active that the kept synapses come from.

        Returns:
            ``(batch, units)`` bool: which are active.
        """
        out = values[-1]  # (batch, outputs)
        outputs = self.units.of[self.graph.output].reshape(-1).to(out.device)
        active = torch.zeros(len(out), self.units.total + 1, dtype=torch.bool, device=out.device)
        active[torch.arange(len(out), device=out.device), outputs[out.argmax(1)]] = True
        end = min(layer.index for layer in self.graph.head) if self._last else 0
        for index, rule in reversed(self.units.rules.items()):
            if index >= end:
                visit(self.graph.layers[index], rule, active)
        return active[:, :-1]  # the last one stands for constants

    def _kept(
        self, layer: Layer, rule: Rule, values: Values, active: torch.Tensor
    ) -> Iterator[Kept]:
        """Kept synapses of the active neurons, a bounded number of contributions at a time."""
        relative = (values[layer.index] - self._means[layer.index]).float()
        weight = self._weights[layer.index]
        sample, unit = active[:, self.units.places(layer.index)].nonzero(as_tuple=True)
        chunk = _CHUNK if self.device.type == "cpu" else _CHUNK_ON_DEVICE
        taps = 1 if weight is None else weight.shape[1]
        for rows in torch.arange(len(sample), device=sample.device).split(
            max(1, chunk // (rule.fan_in * taps))
        ):
            c = rule.contributions(weight, relative, sample[rows], unit[rows])
            _require_finite(layer, c)
            neuron, synapse = keep_prefix(c, self.gamma, absolute=self.absolute).nonzero(
                as_tuple=True
            )
            kept = Kept(sample[rows][neuron], unit[rows][neuron], synapse)
            active[kept.sample, rule.sources(kept.unit, kept.synapse)] = True
            yield kept


def _activate(active: torch.Tensor, source: torch.Tensor, units: torch.Tensor) -> None:
    """Makes units active where synapses come from, ``(batch, fan_in)``, in place."""
    first = int(units[0])
    if torch.equal(units, torch.arange(first, first + len(units))):
        active[:, first : first + len(units)] |= source
    else:  # some may be the same
        sample, synapse = source.nonzero(as_tuple=True)
        active[sample, units[synapse]] = True


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
