"""A network's last sigmoid or softmax: what to set aside so that logits come out."""

from __future__ import annotations

import torch
from torch import nn

from fairneuron.forward import evaluation, placed

HEADS = (nn.Sigmoid, nn.Softmax, nn.LogSoftmax)


def head_of(model: nn.Module, x: torch.Tensor) -> str | None:
    """Name of the submodule that makes probabilities, or their logarithms, of the logits.

    It is a ``nn.Sigmoid`` of one output, or a ``nn.Softmax`` or ``nn.LogSoftmax`` over classes,
    whose output is what the model returns, and which runs once.

    Args:
        model: Any module.
        x: ``(n, features)``, a few rows.
    """
    ran: list[tuple[str, nn.Module, torch.Tensor]] = []
    handles = [
        module.register_forward_hook(
            lambda module, _, out, name=name: ran.append((name, module, out))
        )
        for name, module in model.named_modules()
        if name and isinstance(module, HEADS)
    ]
    try:
        with evaluation(model):
            out = model(placed(model, x))
    except Exception:  # the checks of a repair say what is wrong with the model
        return None
    finally:
        for handle in handles:
            handle.remove()
    if not ran or not isinstance(out, torch.Tensor):
        return None
    name, module, value = ran[-1]
    one_output = value.numel() == len(x)
    fits = (
        one_output if isinstance(module, nn.Sigmoid) else module.dim in (1, -1) and not one_output
    )
    same = value.data_ptr() == out.data_ptr() and value.numel() == out.numel()
    once = sum(other is module for _, other, _ in ran) == 1
    return name if fits and same and once else None
