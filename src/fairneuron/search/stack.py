"""The parameters of several networks of one architecture, stacked, and their common forward."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap

from fairneuron.data.dataset import Mask
from fairneuron.forward import logits

ALIGNED = 16  # elements; products of operands in other places of a cache line have other bits
Masks = Mapping[str, torch.Tensor] | None
Tensors = dict[str, torch.Tensor]
Forward = Callable[[Tensors, torch.Tensor], torch.Tensor]
"""Maps stacked tensors by name, and inputs, to logits ``(networks, n)`` or ``(…, n, classes)``."""


class Stack:
    """What may change of several networks, as one tensor ``(networks, elements)``.

    A network's elements are a row, so that an optimiser steps each network by itself. A parameter
    is a view ``(networks, *shape)`` of all rows, so that one call runs all networks.

    Args:
        networks: Of the same class and shapes, what may change of the same precision; what may not
            change is read from the first one.
        only: For each network the elements that may change, by parameter name; None for all that
            require a gradient.

    Attributes:
        rows: A parameter for each network, with its gradient.
        tensors: A parameter of all networks by name, likewise.
    """

    def __init__(self, networks: Sequence[nn.Module], only: Sequence[Masks]) -> None:
        self._networks = networks
        masks = [_masks(network, own) for network, own in zip(networks, only, strict=True)]
        shapes = {
            n: p.shape for n, p in networks[0].named_parameters() if any(n in m for m in masks)
        }
        places, end = {}, 0
        for name, shape in shapes.items():
            places[name] = end, end + shape.numel()
            end += math.ceil(shape.numel() / ALIGNED) * ALIGNED
        like = dict(networks[0].named_parameters())[next(iter(shapes))]
        values, self._gradients, free = (
            torch.zeros(len(networks), end, dtype=like.dtype, device=like.device) for _ in range(3)
        )
        for b, network in enumerate(networks):
            for name, parameter in network.named_parameters():
                if name in places:
                    part = slice(*places[name])
                    values[b, part] = parameter.detach().reshape(-1)
                    free[b, part] = (
                        masks[b]
                        .get(name, torch.zeros(()))
                        .to(free)
                        .expand(parameter.shape)
                        .reshape(-1)
                    )
        self._free = None if all(own is None for own in only) else free
        self.rows = [nn.Parameter(row) for row in values]
        self.tensors: Tensors = {}
        self._places: Tensors = {}
        for name, shape in shapes.items():
            self.tensors[name], self._places[name] = (
                t[:, slice(*places[name])].view(len(networks), *shape)
                for t in (values, self._gradients)
            )
            self.tensors[name].requires_grad_()

    def forward(self, network: nn.Module, *, shared: bool) -> Forward:
        """What runs a network of this architecture with the tensors of each row.

        Args:
            network: One of them, or a twin that has its parameters.
            shared: Whether all get the same inputs ``(n, features)``, or each its own ``(networks,
                n, features)``.
        """  # either way the products are batched: their bits do not depend on how many there are
        of_network = {n for n, _ in network.named_parameters(remove_duplicate=False)}
        of_network |= {n for n, _ in network.named_buffers(remove_duplicate=False)}

        def run(tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
            own = {name: t for name, t in tensors.items() if name in of_network}
            return logits(lambda x: functional_call(network, own, (x,)), x)

        many = vmap(run)
        if not shared:
            return many
        return lambda tensors, x: many(tensors, x.expand(len(self.rows), *x.shape))

    def backward(self, losses: torch.Tensor, trained: Mask) -> None:
        """Gives each row the gradient of its own loss, or none if it is not trained now.

        Args:
            losses: ``(networks,)``; each depends on its own row alone, and so does its gradient.
            trained: ``(networks,)``.
        """
        tensors = list(self.tensors.values())
        gradients = torch.autograd.grad(losses.sum(), tensors, allow_unused=True)
        for place, gradient in zip(self._places.values(), gradients, strict=True):
            place.zero_() if gradient is None else place.copy_(gradient)
        if self._free is not None:
            self._gradients.mul_(self._free)
        for row, gradient, go in zip(self.rows, self._gradients, trained, strict=True):
            row.grad = gradient if go else None

    @torch.no_grad()
    def write_back(self) -> None:
        """Gives each network its row."""
        for b, network in enumerate(self._networks):
            for name, parameter in network.named_parameters():
                if name in self.tensors:
                    parameter.copy_(self.tensors[name][b])


def _masks(network: nn.Module, only: Masks) -> dict[str, torch.Tensor]:
    """Masks by the first name of each parameter that may change."""
    first = {id(parameter): name for name, parameter in network.named_parameters()}
    every = dict(network.named_parameters(remove_duplicate=False))
    if only is None:
        return {n: torch.ones(()) for n, p in network.named_parameters() if p.requires_grad}
    return {first[id(every[name])]: mask for name, mask in only.items() if name in every}
