"""Adam as torch has it, without its class.

``torch.optim.Optimizer`` imports torch's compiler when the first one is made, which takes as long
as importing torch itself; the functions below it do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.adam import adam

BETAS = (0.9, 0.9999)


class Adam:
    """What ``torch.optim.Adam(parameters, lr, betas=(0.9, 0.9999), fused=True)`` does, to the bit.

    Args:
        parameters: Whose ``grad`` each step reads; without one they stay.
        learning_rate: At the start.

    Attributes:
        param_groups: One group with the rate, "lr", which may be changed.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], learning_rate: float) -> None:
        self._parameters = list(parameters)
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = [torch.zeros((), device=p.device) for p in self._parameters]
        self.param_groups: list[dict[str, Any]] = [{"lr": learning_rate}]

    @torch.no_grad()
    def step(self) -> None:
        """Moves the parameters."""
        state = zip(self._parameters, self._means, self._squares, self._steps, strict=True)
        moved = [values for values in state if values[0].grad is not None]
        if not moved:
            return
        parameters, means, squares, steps = map(list, zip(*moved, strict=True))
        adam(
            parameters,
            [p.grad for p in parameters],
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.param_groups[0]["lr"],
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
