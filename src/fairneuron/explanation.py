"""What the recipe conflict found: which neurons carry the gap, and how much of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from fairneuron.conflict import Neuron
from fairneuron.data.dataset import Dataset
from fairneuron.forward import one_thread
from fairneuron.gaps import data_gap
from fairneuron.graph import Convolution, Graph, Heads
from fairneuron.neurons import Activations, Neurons


@dataclass(frozen=True)
class ConflictExplanation:
    """Which neurons carry the gap, how much of it, and how many were retrained.

    Attributes:
        criteria: The gaps, added.
        neurons: The retrained neurons, the most leverage first; if all were, those of the smallest
            share that was tried.
        hidden: Number of hidden neurons.
        retrained: Number of those that were retrained.
        layers: The number of hidden neurons of each layer, in order.
        gap: Score gap of the original model on the training data.
        gap_without: The same with the chosen neurons held at their mean activation.
        gap_without_random: The same with as many random hidden neurons held instead (none of frozen
            layers), the mean of 10 draws.
        kinds: What the neurons of each layer are: "feature", "channel" or "head".
    """

    criteria: tuple[str, ...]
    neurons: tuple[Neuron, ...]
    hidden: int
    retrained: int
    layers: dict[str, int]
    gap: float
    gap_without: float
    gap_without_random: float
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def carried(self) -> float:
        """Share of the gap that goes when the chosen neurons are held at their mean; at most 1."""
        return 1 - self.gap_without / self.gap if self.gap else 0.0

    @property
    def carried_by_random(self) -> float:
        """The same for random neurons."""
        return 1 - self.gap_without_random / self.gap if self.gap else 0.0

    def __repr__(self) -> str:
        return f"ConflictExplanation({self.sentence()})"

    def sentence(self) -> str:
        """It in one sentence."""
        chosen = Counter(neuron.layer for neuron in self.neurons)
        where = ", ".join(
            f"{self._counted(chosen[name], name)} in layer {name!r}"
            for name in self.layers
            if name in chosen
        )
        torn = sum(neuron.conflict > 0 for neuron in self.neurons)
        names = f"{len(self.neurons)} of {self.hidden} hidden neurons ({where})"
        held = f"{self.gap:.3f} with them, {self.gap_without:.3f} with them held at their mean"
        if self.carried <= 0:
            return f"{names} have the most leverage, but do not carry the score gap ({held})."
        return (
            f"{names} carry {self.carried:.0%} of the score gap ({held}); "
            f"as many random neurons carry {max(0.0, self.carried_by_random):.0%}. "
            f"Lowering the gap raises the loss on {torn} of them." + self._retrained()
        )

    def _counted(self, many: int, layer: str) -> str:
        if self.kinds.get(layer) != "head":
            return str(many)
        return f"{many} head{'s' if many != 1 else ''}"

    def _retrained(self) -> str:
        if self.retrained <= len(self.neurons):
            return ""
        count = "all " if self.retrained == self.hidden else ""
        return f" In the chosen candidate {count}{self.retrained} were retrained."

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            **asdict(self),
            "carried": self.carried,
            "carried_by_random": self.carried_by_random,
            "sentence": self.sentence(),
        }


@one_thread()
def explain_conflict(
    graph: Graph,
    data: Dataset,
    neurons: Sequence[Neuron],
    criteria: Sequence[str],
    *,
    retrained: int | None = None,
    seed: int = 0,
) -> ConflictExplanation:
    """Measures how much of the score gap goes when neurons are held at their mean activation.

    Args:
        graph: The network's.
        data: On which.
        neurons: Which.
        criteria: The gaps, added.
        retrained: How many were retrained; these unless given.
        seed: Of the random neurons.
    """
    seen = Activations(graph, data)
    means = seen.means()
    everyone = [
        (name, unit)
        for name, own in seen.neurons.items()
        if any(graph.incoming[weight].requires_grad for weight in own.weights)
        for unit in range(own.count)
    ]
    generator = torch.Generator().manual_seed(seed)

    def gap_without(held: list[tuple[str, int]]) -> float:
        scores = seen.scores(seen.holding(held, means))
        return float(data_gap(scores.positive, scores.true, data, criteria))

    draws = [
        torch.randperm(len(everyone), generator=generator)[: len(neurons)].tolist()
        for _ in range(10)
    ]
    random = [gap_without([everyone[i] for i in draw]) for draw in draws]
    return ConflictExplanation(
        criteria=tuple(criteria),
        neurons=tuple(neurons),
        hidden=sum(own.count for own in seen.neurons.values()),
        retrained=len(neurons) if retrained is None else retrained,
        layers={name: own.count for name, own in seen.neurons.items()},
        gap=gap_without([]),
        gap_without=gap_without([(n.layer, n.unit) for n in neurons]),
        gap_without_random=sum(random) / len(random),
        kinds={name: _kind(own) for name, own in seen.neurons.items()},
    )


def _kind(neurons: Neurons) -> str:
    """What the neurons of a layer are."""
    first = neurons.layers[0]
    if isinstance(first, Heads):
        return "head"
    return "channel" if isinstance(first, Convolution) else "feature"
