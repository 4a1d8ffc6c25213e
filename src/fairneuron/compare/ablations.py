"""FairNeuron with other neurons in the place of those that carry the gap."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairneuron.conflict import Neuron
from fairneuron.limits import Limit
from fairneuron.recipes import Conflict, Task
from fairneuron.repair import FairNeuron


class _InOrder(Conflict):
    """The default recipe with as many neurons, the first ones of ``slice``."""

    def cluster(self, sliced: list[Neuron]) -> dict[float, list[Neuron]]:
        """Picks as many as the recipe."""
        return {share: sliced[: len(own)] for share, own in super().cluster(sliced).items()}


class RandomNeurons(_InOrder):
    """The default recipe with as many neurons drawn at random."""

    def slice(self, task: Task) -> list[Neuron]:
        """All neurons in an order that is drawn from the seed."""
        neurons = super().slice(task)
        order = np.random.default_rng(task.seed).permutation(len(neurons))
        return [neurons[i] for i in order]


class WeakestNeurons(_InOrder):
    """The default recipe with the neurons that it would pick last."""

    def slice(self, task: Task) -> list[Neuron]:
        """All neurons, the last one first."""
        (ranked,) = Conflict(neuron_share=1.0).cluster(super().slice(task)).values()
        return ranked[::-1]


def random_neurons(limit: Limit, threshold: float = 0.5, **settings: Any) -> FairNeuron:
    """FairNeuron with random neurons.

    Args:
        limit: As in ``repair``.
        threshold: As in ``repair``.
        **settings: Of the recipe.
    """
    return FairNeuron(RandomNeurons(**settings), limit=limit, threshold=threshold)


def weakest_neurons(limit: Limit, threshold: float = 0.5, **settings: Any) -> FairNeuron:
    """FairNeuron with the neurons that carry least.

    Args:
        limit: As in ``repair``.
        threshold: As in ``repair``.
        **settings: Of the recipe.
    """
    return FairNeuron(WeakestNeurons(**settings), limit=limit, threshold=threshold)
