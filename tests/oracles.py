"""Slow, literal versions that the tests compare the real ones with. Nothing here is clever."""

import numpy as np
import torch
from torch import nn

Synapse = tuple[int, int, int]
"""Number of the linear layer (from 0 at the input), neuron, predecessor."""


def literal_forward(model: nn.Sequential, row: np.ndarray) -> list[np.ndarray]:
    """Activations of the input and after each linear layer's activation function.

    One sample, float64.
    """
    activations, value = [row.astype(np.float64)], row.astype(np.float64)
    for module in model:
        if isinstance(module, nn.Linear):
            weight = module.weight.detach().double().numpy()
            bias = (
                np.zeros(len(weight))
                if module.bias is None
                else module.bias.detach().double().numpy()
            )
            value = (
                np.array([sum(w * a for w, a in zip(line, value, strict=True)) for line in weight])
                + bias
            )
            activations.append(value)
        else:
            value = module(torch.from_numpy(value)[None]).numpy()[0]
            activations[-1] = value
    return activations


def literal_paths(
    model: nn.Sequential,
    x: np.ndarray,
    gamma: float,
    *,
    absolute: bool = False,
    zero_means: bool = False,
) -> list[frozenset[Synapse]]:
    """Algorithm 1, lines 12 to 28, sample by sample and neuron by neuron."""
    weights = [m.weight.detach().double().numpy() for m in model if isinstance(m, nn.Linear)]
    activations = [literal_forward(model, row) for row in x]
    means = [np.mean([a[depth] for a in activations], axis=0) for depth in range(len(weights) + 1)]
    paths = []
    for sample in activations:
        relative = [
            (a - (0 if zero_means else mean)).astype(np.float32)
            for a, mean in zip(sample, means, strict=True)
        ]
        active = {int(np.argmax(sample[-1]))}
        path: set[Synapse] = set()
        for layer in range(len(weights) - 1, -1, -1):
            kept: set[int] = set()
            for neuron in active:
                contributions = [
                    float(w) * float(r)
                    for w, r in zip(weights[layer][neuron], relative[layer], strict=True)
                ]
                value = 0.0
                for c in contributions:
                    value += c
                sign = -1.0 if value < 0 else 1.0
                oriented = [abs(c) if absolute else sign * c for c in contributions]
                order = sorted(range(len(oriented)), key=lambda i: (-oriented[i], i))
                total = 0.0
                for rank, i in enumerate(order):
                    if rank > 0 and (total > gamma * abs(value) or oriented[i] <= 0):
                        break
                    total += oriented[i]
                    kept.add(i)
                    path.add((layer, neuron, i))
            active = kept
        paths.append(frozenset(path))
    return paths


def same_partition(a: list, b: list) -> bool:
    """Whether two labellings put the same samples together."""
    first: dict = {}
    second: dict = {}
    return all(
        first.setdefault(p, q) == q and second.setdefault(q, p) == p
        for p, q in zip(a, b, strict=True)
    )


def literal_convolution_paths(model: nn.Sequential, x: np.ndarray, gamma: float) -> list[frozenset]:
    """The same for two convolutions and a linear layer; a unit is a channel.

    Synapses are (layer, channel, source, channel), the contributions of all places added up.
    """
    first, second, head = (m for m in model if isinstance(m, (nn.Conv2d, nn.Linear)))
    inputs = [torch.from_numpy(row)[None] for row in x]
    middles = [model[:2].double()(row).detach() for row in inputs]
    ends = [model[2:4].double()(row).detach() for row in middles]
    outs = [model[4:].double()(row).detach() for row in ends]
    stages = [a - sum(s) / len(s) for s in (inputs, middles, ends) for a in s]
    n = len(x)
    paths = []
    for k in range(n):
        relative = [stages[stage * n + k][0].float().double() for stage in range(3)]
        path: set = set()
        active = {int(outs[k].argmax())}
        weight = head.weight.detach().double()
        places = relative[2][0].numel()
        weights = weight.reshape(len(weight), -1, places)
        table = {
            q: {
                i: float((own * relative[2][i].reshape(-1)).sum())
                for i, own in enumerate(weights[q])
            }
            for q in active
        }
        active = _kept(path, "5", table, "2", gamma)
        for name, layer, source, value in (
            ("2", second, "0", relative[1]),
            ("0", first, "input", relative[0]),
        ):
            table = {q: _convolved(layer, value, q) for q in active}
            active = _kept(path, name, table, source, gamma)
        paths.append(frozenset(path))
    model.float()
    return paths


def _convolved(layer: nn.Conv2d, value: torch.Tensor, q: int) -> dict[int, float]:
    """Contribution of each channel that channel q reads, weight by weight and place by place."""
    weight, (top, left) = layer.weight.detach().double(), layer.padding
    _, height, width = value.shape
    reach = [d * (k - 1) for d, k in zip(layer.dilation, weight.shape[2:], strict=True)]
    rows = (height + 2 * top - reach[0] - 1) // layer.stride[0] + 1
    columns = (width + 2 * left - reach[1] - 1) // layer.stride[1] + 1
    group = q // (len(weight) // layer.groups)
    found = {}
    for i in range(weight.shape[1]):
        channel, total = group * weight.shape[1] + i, 0.0
        for r in range(rows):
            for c in range(columns):
                for a in range(weight.shape[2]):
                    for b in range(weight.shape[3]):
                        y = r * layer.stride[0] + a * layer.dilation[0] - top
                        z = c * layer.stride[1] + b * layer.dilation[1] - left
                        if 0 <= y < height and 0 <= z < width:
                            total += float(weight[q, i, a, b] * value[channel, y, z])
        found[channel] = total
    return found


def _kept(
    path: set, layer: str, table: dict[int, dict[int, float]], source: str, gamma: float
) -> set:
    """Keeps the prefix of each unit's contributions; which predecessors are kept."""
    kept = set()
    for q, contributions in table.items():
        value = sum(contributions.values())
        oriented = {i: -c if value < 0 else c for i, c in contributions.items()}
        order = sorted(oriented, key=lambda i: (-oriented[i], i))
        total = 0.0
        for rank, i in enumerate(order):
            if rank > 0 and (total > gamma * abs(value) or oriented[i] <= 0):
                break
            total += oriented[i]
            kept.add(i)
            path.add((layer, q, source, i))
    return kept
