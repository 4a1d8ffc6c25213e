"""Networks whose training a stopped run need not repeat, kept in its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from fairneuron.checkpoints import tensor_bytes, tensors_in
from fairneuron.errors import ModelError
from fairneuron.state import State
from fairneuron.training import Keep

_FINITE = "finite"


def kept_in(state: State) -> Keep:
    """Keeps the networks of each training in the state of a run, and finds them there again."""

    def keep(name: str, networks: Sequence[nn.Module], run: Callable[[], list[bool]]) -> list[bool]:
        content = state.get(name)
        found = None if content is None else _put_into(networks, content)
        if found is not None:
            return found
        finite = run()
        content = _content(networks, finite)
        if content is not None:
            state.put(name, content)
        return finite

    return keep


def _content(networks: Sequence[nn.Module], finite: Sequence[bool]) -> bytes | None:
    """As a safetensors file; None for networks that hold something else than numbers."""
    tensors = {
        f"{number}.{name}": value
        for number, network in enumerate(networks)
        for name, value in network.state_dict().items()
    }
    try:
        return tensor_bytes({_FINITE: torch.tensor(finite), **tensors}, {})
    except ModelError:
        return None


def _put_into(networks: Sequence[nn.Module], content: bytes) -> list[bool] | None:
    """Puts in place what was kept; None, and nothing changed, if it is of other networks."""
    tensors = tensors_in(content)
    states = [network.state_dict() for network in networks]
    names = {f"{n}.{name}": value for n, own in enumerate(states) for name, value in own.items()}
    if tensors is None or tensors.keys() != {_FINITE, *names}:
        return None
    if any(_kind(tensors[name]) != _kind(value) for name, value in names.items()):
        return None
    with torch.no_grad():
        for name, value in names.items():
            value.copy_(tensors[name])
    return [bool(one) for one in tensors[_FINITE]]


def _kind(value: torch.Tensor) -> tuple[torch.dtype, torch.Size]:
    return value.dtype, value.shape
