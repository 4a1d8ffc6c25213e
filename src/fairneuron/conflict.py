"""Conflict neurons: the few whose weights carry the gap (Gao et al., sections 1 and 2.3).

A hidden neuron's two goals, accuracy and fairness, can pull its weights in different directions.
Here the pull of a goal on a neuron is the gradient of that goal with respect to the neuron's
incoming weights. Where the gap pulls across the direction of the loss, it can be lowered at the
least cost: the neurons with the most of this leverage are retrained, the others keep their weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError, require_range
from fairneuron.forward import evaluation, logits, one_thread
from fairneuron.gaps import BY_CLASS, data_gap
from fairneuron.graph import Graph
from fairneuron.models import Scores, TaskLoss, task_loss
from fairneuron.neurons import Activations, hidden_neurons


@dataclass(frozen=True)
class Neuron:
    """A hidden neuron and the pull of both goals on it.

    Attributes:
        layer: Name of its layer.
        unit: Its position there: of a feature, of a channel, or of a head.
        pull: Norm of the gradient of the gap with respect to its incoming weights and bias.
        conflict: Minus the cosine of that gradient and the loss's, in [-1, 1]; above 0 the goals
            contradict each other.
        active: Share of the samples, by weight, on which it is not 0.
    """

    layer: str
    unit: int
    pull: float
    conflict: float
    active: float = 1.0

    @property
    def leverage(self) -> float:
        """How far a change here lowers the gap without touching the loss, on how many samples.

        The part of the pull at right angles to the loss's gradient, times ``active``.
        """
        return self.pull * math.sqrt(max(0.0, 1 - self.conflict**2)) * self.active


@one_thread()
def neuron_pulls(
    graph: Graph, data: Dataset, criteria: Sequence[str], task: TaskLoss = task_loss
) -> list[Neuron]:
    """Computes the pull of the gap, and its conflict with the loss, on each hidden neuron.

    Neurons of frozen layers are left out. The gap is linear in the scores once its two groups are
    known, so its gradient is summed batch by batch. Samples count by their weights.
    """
    parameters = {name: p for name, p in graph.incoming.items() if p.requires_grad}
    if not parameters:
        raise ModelError(
            "model-frozen",
            "A hidden layer must be trainable",
            got="requires_grad = False on all of them",
            cure="Call requires_grad_(True) on those that may change.",
        )
    seen = Activations(graph, data)
    of_gap, of_loss = _gradients(seen, parameters, criteria, task)
    active, neurons = seen.active(), []
    for layer in seen.neurons.values():
        own = {
            name: rows
            for name, rows in (*layer.weights.items(), *layer.biases.items())
            if name in parameters
        }
        if not own.keys() & layer.weights.keys():
            continue
        gap, loss = (
            torch.cat([goal[name][rows].reshape(layer.count, -1) for name, rows in own.items()], 1)
            for goal in (of_gap, of_loss)
        )  # (neurons, incoming weights and biases)
        conflict = -torch.nn.functional.cosine_similarity(gap, loss, dim=1)
        columns = (gap.norm(dim=1), conflict, active[layer.name])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        neurons += [Neuron(layer.name, unit, *row) for unit, row in enumerate(rows)]
    return neurons


def _gradients(
    seen: Activations,
    parameters: Mapping[str, torch.Tensor],
    criteria: Sequence[str],
    task: TaskLoss,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The gradients of the gap and of the loss on all the data, in float64, by parameter name."""
    network, data = seen.graph.module, seen.data
    by_score, by_true = _gap_gradient(seen, criteria)  # (n,) d gap / d score
    weighted = data.relative_weight is not None
    share = (
        torch.from_numpy(data.relative_weight).to(by_score) if weighted else torch.ones(len(data))
    )
    totals = [
        {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
        for _ in range(2)
    ]
    with evaluation(network), torch.enable_grad():
        for x, y, d, t, w in seen.batches(by_score, by_true, share):
            out = logits(network, x)
            loss = task(out, y, w if weighted else None)
            scores = Scores(out, y, out.ndim == 2)
            gap = (scores.positive * d).sum()
            gap = gap + (scores.true * t).sum() if BY_CLASS & {*criteria} else gap
            goals = (gap, loss * float(w.sum()) / len(data))
            for goal, total in zip(goals, totals, strict=True):
                gradients = torch.autograd.grad(
                    goal, list(parameters.values()), retain_graph=True, allow_unused=True
                )
                for name, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None:
                        total[name] += gradient
    return totals[0], totals[1]


def _gap_gradient(seen: Activations, criteria: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivative of the gap by each sample's scores, of class 1 and of its own, ``(n,)`` each."""
    found = seen.scores(seen.graph.module)
    positive, true = found.positive.requires_grad_(), found.true.requires_grad_()
    with torch.enable_grad():
        gap = data_gap(positive, true, seen.data, criteria)
        both = torch.autograd.grad(gap, (positive, true), allow_unused=True)
    return tuple(torch.zeros(len(seen.data)) if g is None else g for g in both)  # type: ignore[return-value]


def conflict_neurons(neurons: Sequence[Neuron], share: float) -> list[Neuron]:
    """Returns at most the given share of the neurons, at least one, the most leverage first."""
    require_range("neuron_share", share, 0, 1, open_low=True)
    ranked = sorted(
        neurons, key=lambda n: -n.leverage
    )  # stable: the earlier one first among equals
    return ranked[: max(1, int(share * len(neurons) + 1e-9))]


def incoming_weights(
    graph: Graph, data: Dataset, neurons: Sequence[Neuron]
) -> dict[str, torch.Tensor]:
    """Masks of the neurons' incoming weights and biases, by parameter name.

    Args:
        graph: The network's.
        data: That it can read.
        neurons: Whose.
    """
    masks: dict[str, torch.Tensor] = {}
    layers = hidden_neurons(graph, data.x)
    for neuron in neurons:
        layer = layers[neuron.layer]
        for name, rows in (*layer.weights.items(), *layer.biases.items()):
            if (parameter := graph.incoming[name]).requires_grad:
                masks.setdefault(name, torch.zeros_like(parameter))[rows[neuron.unit]] = 1
    return masks
