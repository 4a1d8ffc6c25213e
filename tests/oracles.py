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
