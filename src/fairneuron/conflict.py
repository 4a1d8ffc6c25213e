"""Conflict neurons: the few whose weights carry the gap (Gao et al., sections 1 and 2.3).

A hidden neuron's two goals, accuracy and fairness, can pull its weights in different directions.
Here the pull of a goal on a neuron is the gradient of that goal with respect to the neuron's
incoming weights. Where the gap pulls across the direction of the loss, it can be lowered at the
least cost: the neurons with the most of this leverage are retrained, the others keep their weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from fairneuron.data.dataset import Dataset, Floats
from fairneuron.errors import ModelError, require_range
from fairneuron.forward import evaluation, logits, one_thread, placed, rows_at_once
from fairneuron.graph import Graph, Recorder, Weighted
from fairneuron.models import Penalty, Scores, TaskLoss, task_loss

CRITERIA = {"dp": "dp", "dpr": "dp", "eo": "eo", "eodds": "eodds", "mcd": "mcd", "cv": "cv"}
"""Which differentiable gap stands for a limited metric."""
BY_CLASS = {"mcd", "cv"}
"""Gaps between classes, whatever the group."""


def soft_gap(
    scores: torch.Tensor,
    y: torch.Tensor,
    group: torch.Tensor,
    criteria: Sequence[str],
    weight: torch.Tensor | None = None,
    *,
    true: torch.Tensor | None = None,
    everyone: torch.Tensor | None = None,
) -> torch.Tensor:
    """The differentiable gap: largest difference of two groups' mean scores.

    Args:
        scores: ``(..., n)`` probabilities of class 1, for example of several networks.
        y: ``(n,)`` labels.
        group: ``(n,)`` groups.
        criteria: "dp": over everybody; "eo": over those with y = 1; "eodds": the larger of that and
            the same over the others; "mcd": between the classes' means of the scores of their own
            class; "cv": the variance of these. Several are added.
        weight: ``(n,)`` how much each sample counts in its group's mean; all alike unless given.
            A group without weight is left out.
        true: ``(..., n)`` probabilities of the label, for "mcd" and "cv".
        everyone: ``(n,)`` the weights for these, which leave no group out.

    Returns:
        ``(...)``, at least 0; 0 where fewer than two groups have samples.
    """
    gaps = []
    for criterion in criteria:
        if criterion in BY_CLASS:
            assert true is not None  # noqa: S101  # whoever asks for these has it
            means = _means(true, y, everyone)
            gaps.append(_range(means) if criterion == "mcd" else means.var(-1, unbiased=False))
        else:
            gaps.append(_soft_gap(scores, y, group, criterion, weight))
    return torch.stack(gaps).sum(0)


def gap_penalty(criteria: Sequence[str]) -> Penalty:
    """The differentiable gap as what is added to a task loss."""

    def penalty(
        scores: Scores,
        y: torch.Tensor,
        group: torch.Tensor,
        weight: torch.Tensor | None,
    ) -> torch.Tensor:
        true = scores.true if BY_CLASS & {*criteria} else None
        return soft_gap(
            scores.positive, y, group, criteria, weight, true=true, everyone=scores.weight
        )

    return penalty


def _soft_gap(
    scores: torch.Tensor,
    y: torch.Tensor,
    group: torch.Tensor,
    criterion: str,
    weight: torch.Tensor | None,
) -> torch.Tensor:
    if criterion == "dp":
        return _range(_means(scores, group, weight))

    def among(rows: torch.Tensor) -> torch.Tensor:
        part = scores[..., rows]
        return _range(_means(part, group[rows], None if weight is None else weight[rows]))

    positive = y == 1
    gap = among(positive)
    return gap if criterion == "eo" else torch.maximum(gap, among(~positive))


def _means(scores: torch.Tensor, group: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Means ``(..., groups)`` of scores ``(..., n)`` over the groups that have samples."""
    part = scores if weight is None else scores * weight
    count = torch.bincount(group, weight)  # (groups,)
    there = count > 0
    if not there.any():
        return part.sum(-1, keepdim=True)
    total = part.new_zeros(*part.shape[:-1], len(count)).index_add(-1, group, part)
    return total[..., there] / count[there]


def _range(means: torch.Tensor) -> torch.Tensor:
    """The largest less the smallest, ``(...)``."""
    return means.amax(-1) - means.amin(-1)


@dataclass(frozen=True)
class Neuron:
    """A hidden neuron and the pull of both goals on it.

    Attributes:
        layer: Name of its layer.
        unit: Its position there: of a feature, or of a channel.
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
    by_score, by_true = _gap_gradient(graph, data, criteria)  # (n,) d gap / d score
    weight = _tensor(data.relative_weight, by_score)
    share = torch.ones(len(data)) if weight is None else weight  # of each sample in the loss
    flat = list(parameters.values())
    of_gap = [torch.zeros_like(p, dtype=torch.float64) for p in flat]
    of_loss = [torch.zeros_like(p, dtype=torch.float64) for p in flat]
    with evaluation(graph.module), torch.enable_grad():
        for x, y, _, d, t, w in _batches(graph, data, by_score, by_true, share):
            out = logits(graph.module, x)
            loss = task(out, y, None if weight is None else w)
            scores = Scores(out, y, out.ndim == 2)
            gap = (scores.positive * d).sum()
            gap = gap + (scores.true * t).sum() if BY_CLASS & {*criteria} else gap
            goals = (gap, loss * float(w.sum()) / len(data))
            for goal, total in zip(goals, (of_gap, of_loss), strict=True):
                gradients = torch.autograd.grad(goal, flat, retain_graph=True, allow_unused=True)
                for sum_, gradient in zip(total, gradients, strict=True):
                    if gradient is not None:
                        sum_ += gradient  # noqa: PLW2901  # in place
    position = {name: i for i, name in enumerate(parameters)}
    active, neurons = _active_shares(graph, data), []
    for layer in graph.neurons.values():
        weight_rows, bias_rows = graph.rows(layer)
        own = [position[name] for name in (*weight_rows, *bias_rows) if name in position]
        if not any(name in position for name in weight_rows):
            continue
        gap, loss = (
            torch.cat([total[i].reshape(len(total[i]), -1) for i in own], dim=1)
            for total in (of_gap, of_loss)
        )  # (units, fan_in + 1)
        conflict = -torch.nn.functional.cosine_similarity(gap, loss, dim=1)
        columns = (gap.norm(dim=1), conflict, active[layer.name])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        neurons += [Neuron(layer.name, unit, *row) for unit, row in enumerate(rows)]
    return neurons


def _active_shares(graph: Graph, data: Dataset) -> dict[str, torch.Tensor]:
    """Share of the samples, by weight, on which each hidden neuron is not 0, by layer.

    Of weights that several layers share, the mean over these layers.
    """
    owners = {graph.activation_of(layer): graph.owner[layer.index] for layer in graph.hidden}
    axes = _sample_axes(graph, data)
    total: dict[str, torch.Tensor] = {}

    def add(index: int, value: torch.Tensor, weight: torch.Tensor) -> None:
        if index in owners:
            layer = graph.neurons[owners[index]]
            value = value.movedim(axes[index], 0)
            there = (layer.by_unit(value) != 0).double()  # (n, units, …)
            there = there.reshape(*there.shape[:2], -1).mean(2)
            total[owners[index]] = total.get(owners[index], 0) + (there * weight).sum(0)

    for x, weight in _weighted_batches(graph, data):
        Recorder(graph, partial(add, weight=weight)).run(x)
    layers = list(owners.values())
    return {name: t / len(data) / layers.count(name) for name, t in total.items()}


def conflict_neurons(neurons: Sequence[Neuron], share: float) -> list[Neuron]:
    """Returns at most the given share of the neurons, at least one, the most leverage first."""
    require_range("neuron_share", share, 0, 1, open_low=True)
    ranked = sorted(
        neurons, key=lambda n: -n.leverage
    )  # stable: the earlier one first among equals
    return ranked[: max(1, int(share * len(neurons) + 1e-9))]


def incoming_weights(graph: Graph, neurons: Sequence[Neuron]) -> dict[str, torch.Tensor]:
    """Masks of the neurons' incoming weights and biases, by parameter name."""
    masks: dict[str, torch.Tensor] = {}
    for neuron in neurons:
        layer = graph.neurons[neuron.layer]
        for rows in graph.rows(layer):
            for name, parameter in rows.items():
                if parameter.requires_grad:
                    masks.setdefault(name, torch.zeros_like(parameter))[neuron.unit] = 1
    return masks


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
        gap_without_random: The same with as many random hidden neurons held instead, the mean of 10
            draws.
    """

    criteria: tuple[str, ...]
    neurons: tuple[Neuron, ...]
    hidden: int
    retrained: int
    layers: dict[str, int]
    gap: float
    gap_without: float
    gap_without_random: float

    @property
    def carried(self) -> float:
        """Share of the gap that goes when the chosen neurons are held at their mean; at most 1."""
        return 1 - self.gap_without / self.gap if self.gap else 0.0

    @property
    def carried_by_random(self) -> float:
        """The same for random neurons."""
        return 1 - self.gap_without_random / self.gap if self.gap else 0.0

    def sentence(self) -> str:
        """It in one sentence."""
        layers: dict[str, int] = {}
        for neuron in self.neurons:
            layers[neuron.layer] = layers.get(neuron.layer, 0) + 1
        where = ", ".join(f"{n} in layer {name!r}" for name, n in layers.items())
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
    axes = _sample_axes(graph, data)
    means = _activation_means(graph, data, axes)
    everyone = [
        (name, unit)
        for name, layer in graph.neurons.items()
        for unit in range(len(graph.weight(layer)))
    ]
    generator = torch.Generator().manual_seed(seed)
    draws = [
        torch.randperm(len(everyone), generator=generator)[: len(neurons)].tolist()
        for _ in range(10)
    ]
    random = [
        _gap_without(graph, data, [everyone[i] for i in draw], criteria, means, axes)
        for draw in draws
    ]
    return ConflictExplanation(
        criteria=tuple(criteria),
        neurons=tuple(neurons),
        hidden=len(everyone),
        retrained=len(neurons) if retrained is None else retrained,
        layers={name: len(graph.weight(layer)) for name, layer in graph.neurons.items()},
        gap=_gap_without(graph, data, [], criteria, means, axes),
        gap_without=_gap_without(
            graph, data, [(n.layer, n.unit) for n in neurons], criteria, means, axes
        ),
        gap_without_random=sum(random) / len(random),
    )


def _sample_axes(graph: Graph, data: Dataset) -> dict[int, int]:
    """Along which axis the hidden neurons' activations have the samples, by position.

    Raises:
        ModelError: For a layer that has something else along that axis too.
    """
    shapes: list[dict[int, torch.Size]] = [{}, {}]
    rows = placed(graph.module, data.x[:1]).to(graph.device)
    with evaluation(graph.module):
        for samples, seen in zip((2, 3), shapes, strict=True):
            x = torch.cat([rows] * samples)
            Recorder(graph, lambda i, value, seen=seen: seen.update({i: value.shape})).run(x)  # type: ignore[misc]
    axes: dict[int, int] = {}
    for layer in graph.hidden:
        index = graph.activation_of(layer)
        two, three = (seen[index] for seen in shapes)
        sizes = list(zip(two, three, strict=False))
        if sizes.count((2, 3)) != 1 or len({*sizes} - {(k, k) for k in two}) != 1:
            raise ModelError(
                "model-unsupported",
                "The values of a layer must have the samples along one axis",
                got=f"{tuple(two)} for two samples, {tuple(three)} for three at {layer.name!r}",
                cure="Give steps an axis of their own, (n, steps, features), or flatten them into "
                "the features.",
            )
        axes[index] = sizes.index((2, 3))
    return axes


def _activation_means(
    graph: Graph, data: Dataset, axes: Mapping[int, int]
) -> dict[int, torch.Tensor]:
    """Mean activations of the hidden neurons, by position of the layer that holds them."""
    total: dict[int, torch.Tensor] = {}

    def add(index: int, value: torch.Tensor, weight: torch.Tensor) -> None:
        if index in axes:
            value = value.movedim(axes[index], 0)
            weighted = value.double() * weight.reshape(-1, *[1] * (value.ndim - 1))
            total[index] = total.get(index, 0) + weighted.sum(0)

    for x, weight in _weighted_batches(graph, data):
        Recorder(graph, partial(add, weight=weight)).run(x)
    return {index: value / len(data) for index, value in total.items()}


def _gap_without(  # noqa: PLR0917
    graph: Graph,
    data: Dataset,
    held: Sequence[tuple[str, int]],
    criteria: Sequence[str],
    means: Mapping[int, torch.Tensor],
    axes: Mapping[int, int],
) -> float:
    """The score gap with some neurons (name of the layer, unit) held at their mean activation."""
    units: dict[int, tuple[Weighted, list[int]]] = {}
    for layer in graph.hidden:
        chosen = [unit for name, unit in held if name == graph.owner[layer.index]]
        if chosen:
            units[graph.activation_of(layer)] = layer, chosen

    def hold(index: int, value: torch.Tensor) -> torch.Tensor | None:
        if index not in units:
            return None
        layer, chosen = units[index]
        changed, mean = value.clone(), means[index][None].to(value)
        by_unit = layer.by_unit(changed.movedim(axes[index], 0))
        by_unit[:, chosen] = layer.by_unit(mean)[:, chosen]
        return changed

    runner = Recorder(graph, hold)
    with evaluation(graph.module):
        return float(_data_gap(_outputs(graph, data, runner.run), data, criteria))


def _outputs(graph: Graph, data: Dataset, run: Callable[..., Any]) -> Scores:
    """What a network says of all the data."""
    out = torch.cat([logits(run, x) for x, *_ in _batches(graph, data)]).cpu()
    return Scores(out, torch.from_numpy(data.y), out.ndim == 2)


def _gap_gradient(
    graph: Graph, data: Dataset, criteria: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivative of the gap by each sample's scores, of class 1 and of its own, ``(n,)`` each."""
    with evaluation(graph.module):
        found = _outputs(graph, data, graph.module)
    scores = [found.positive.requires_grad_(), found.true.requires_grad_()]
    with torch.enable_grad():
        gap = _gap(scores[0], scores[1], data, criteria)
        both = torch.autograd.grad(gap, scores, allow_unused=True)
    return tuple(torch.zeros(len(data)) if g is None else g for g in both)  # type: ignore[return-value]


def _data_gap(scores: Scores, data: Dataset, criteria: Sequence[str]) -> torch.Tensor:
    return _gap(scores.positive, scores.true, data, criteria)


def _gap(
    positive: torch.Tensor, true: torch.Tensor, data: Dataset, criteria: Sequence[str]
) -> torch.Tensor:
    """The gap of all the data, by weights, between the groups that are compared."""
    y, group = torch.from_numpy(data.y), torch.from_numpy(data.group)
    weight, everyone = (_tensor(w, positive) for w in (data.gap_weight, data.relative_weight))
    return soft_gap(positive, y, group, criteria, weight, true=true, everyone=everyone)


def _tensor(values: Floats | None, like: torch.Tensor) -> torch.Tensor | None:
    return None if values is None else torch.from_numpy(values).to(like)


def _weighted_batches(graph: Graph, data: Dataset) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and relative weights ``(n, 1)``, batch by batch, in eval mode."""
    weights = np.ones(len(data)) if data.relative_weight is None else data.relative_weight
    with evaluation(graph.module):
        for x, _, _, weight in _batches(graph, data, torch.from_numpy(weights)[:, None]):
            yield x, weight


def _batches(
    graph: Graph, data: Dataset, *more: torch.Tensor
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Inputs, labels, groups and further columns, batch by batch, on the network's device."""
    size = rows_at_once(data.x)
    device = graph.device
    columns = (
        placed(graph.module, data.x),
        torch.from_numpy(data.y),
        torch.from_numpy(data.group),
        *more,
    )
    for parts in zip(*(column.split(size) for column in columns), strict=True):
        yield tuple(part.to(device) for part in parts)
