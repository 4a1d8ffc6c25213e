"""Running a network: in which mode, on which device, in which precision, and what may come out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fairneuron.errors import FairNeuronError, ModelError, printable

HALF = (torch.float16, torch.bfloat16)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Puts every module into eval mode without gradients; each gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        try:
            model.eval()
        except Exception as error:  # whatever the user's train(mode) raises
            raise ModelError(
                "model-mode",
                "A model must switch to eval mode",
                got=first_line(error),
                cure="Give the module that it was made or exported from.",
            ) from error
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def one_thread() -> Iterator[int]:
    """Keeps torch to one thread, and gives the number that it had.

    How sums are split among threads changes their last bits; and threads of torch wait busily for
    more to do, on cores that others may want.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def placed(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Inputs on the device and in the precision of the model's parameters."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    return x if first is None else x.to(first.device, first.dtype)


def rows_at_once(x: torch.Tensor) -> int:
    """How many rows of ``(n, …)`` a network runs on at a time; fewer of images."""
    values = max(x[:1].numel(), 1) * (1 if x.ndim == 2 else 4)
    return min(max((1 << 20) // values, 16), 8192)


def logits(model: Callable[[torch.Tensor], object], x: torch.Tensor) -> torch.Tensor:
    """Runs the model and checks its output.

    Returns:
        ``(n,)`` for a one-logit head, ``(n, classes)`` otherwise.

    Raises:
        ModelError: If the forward fails, or its output is not a tensor of such a shape.
    """
    try:
        out = model(x)
    except FairNeuronError:
        raise
    except Exception as error:  # whatever the user's forward raises
        raise ModelError(
            "model-forward",
            f"The model's forward must run on {x.dtype} inputs of shape {tuple(x.shape)}",
            got=first_line(error),
            cure="Check it with model(x). Numbers of words come as such numbers, too: "
            "x.long() in the forward makes them whole.",
        ) from error
    kind = f"{out.dtype}, {out.layout}" if isinstance(out, torch.Tensor) else type(out).__name__
    dense = isinstance(out, torch.Tensor) and out.layout == torch.strided
    if not isinstance(out, torch.Tensor) or not dense or not out.is_floating_point():
        raise ModelError(
            "model-output",
            "The model must return one dense tensor of logits",
            got=kind,
            cure="Wrap it in a module that returns the logits alone, not the classes.",
        )
    if out.ndim == 0 and len(x) == 1:  # squeezed too far
        out = out.reshape(1)
    if out.ndim == 2 and out.shape[1] == 1:
        out = out[:, 0]
    if out.ndim not in (1, 2) or len(out) != len(x) or 0 in out.shape[1:]:
        raise ModelError(
            "model-output",
            "The model must map (n, …) to (n,), (n, 1) or (n, classes)",
            got=f"{tuple(out.shape)} for n = {len(x)}",
            cure="Check the last layer.",
        )
    return out


def require_finite(out: torch.Tensor) -> None:
    """Raises a ``ModelError`` for outputs ``(n,)`` or ``(n, classes)`` with NaN or infinity."""
    bad = ~torch.isfinite(out).reshape(len(out), -1).all(1)
    if bad.any():
        raise ModelError(
            "model-nonfinite",
            "The model's outputs must be finite",
            got=f"NaN or infinity for {int(bad.sum())} of {len(out)} samples",
            cure="Check its weights and the scaling of the inputs.",
        )


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Its parameters and buffers by name."""
    return dict([*model.named_parameters(), *model.named_buffers()])


def full_precision(model: nn.Module) -> nn.Module:
    """Casts what has 16 bits to float32, in place: training diverges in less."""
    if any(value.dtype in HALF for value in tensors_of(model).values()):
        model._apply(lambda t: t.float() if t.dtype in HALF else t)
    return model


def trainable(model: nn.Module) -> nn.Module:
    """The model itself, or a copy in full precision if some of it has 16 bits or no gradients."""
    if any(value.dtype in HALF or value.is_inference() for value in tensors_of(model).values()):
        return full_precision(copy.deepcopy(model))
    return model


def in_precision_of(original: nn.Module, model: nn.Module) -> nn.Module:
    """Casts a retrained copy back, in place, to what the original has."""
    wanted = tensors_of(original)
    for name, value in tensors_of(model).items():
        value.data = value.data.to(wanted[name].dtype)
    return model


def first_line(error: BaseException) -> str:
    """Type and first line of an exception, for a message."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return printable(text).rstrip(".")
