"""A pretend second device: what would break on CUDA breaks here, on a CPU.

Its tensors hold a CPU tensor with their values, and say that they are elsewhere. Each operation is
first held to CUDA's rules about devices, then run on these values. So results are those of the CPU,
and what CUDA refuses is refused: tensors of two devices in one operation, ``numpy()``, indices that
are there for a tensor that is here, generators of the CPU, matrix products of integers.

    with PretendMode():
        net.to(DEVICE)

The device is torch's "lazy", which a CPU build knows and does not have: the autograd engine of such
a build takes no CUDA device. What is not pretended: ``Tensor.cuda()`` and ``is_cuda``, generators
of the device, streams, that CUDA adds in another order, the ways that torch chooses for CUDA within
an operation (cuDNN).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("lazy", 0)

_CROSSING = {"copy_", "_to_copy"}
_INDEXING = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}
_SCALARS = {"fill_", "fill", "masked_fill", "masked_fill_", "index_fill", "index_fill_"}
"""Operations that take a CPU tensor of one value beside others, as all pointwise ones do."""
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "vdot", "convolution"}


class Pretend(torch.Tensor):
    """A tensor on the pretend device.

    Args:
        values: Its values, on the CPU; both share them.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "Pretend":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )
        made.values_ = values
        return made

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})

    @property
    def data(self) -> torch.Tensor:
        """As of any tensor; the setter takes the values along."""
        return self.detach()

    @data.setter
    def data(self, other: "Pretend") -> None:
        with torch._C._DisableTorchDispatch():
            torch.Tensor.data.__set__(self, other)
        self.values_ = other.values_

    def numpy(self, *, force: bool = False) -> Any:
        """Refused, as of a tensor on CUDA."""
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            f"can't convert {DEVICE} device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def tolist(self) -> Any:
        """Its values."""
        return self.detach().cpu().tolist()

    def data_ptr(self) -> int:
        """Where its values are."""
        return self.values_.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        """Where its values are."""
        return self.values_.untyped_storage()


class PretendMode(TorchDispatchMode):
    """While it is on, tensors can be made on the pretend device and moved there."""

    def __enter__(self) -> "PretendMode":
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) moves what it made
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [*_tensors((args, *kwargs.values()))]
    device = kwargs.get("device")
    there = any(isinstance(tensor, Pretend) for tensor in tensors)
    on_device = there if device is None else device.type == DEVICE.type
    if not there and not on_device:
        return function(*args, **kwargs)
    _require_allowed(function, args, kwargs, tensors)
    if device is not None and on_device:
        kwargs = kwargs | {"device": torch.device("cpu")}
    values = {name: _mapped(_values, value) for name, value in kwargs.items()}
    out = function(*_mapped(_values, args), **values)
    for tensor in tensors:
        if tensor.shape != _values(tensor).shape:  # given another one in place
            tensor.data = Pretend(_values(tensor))
    if not on_device:
        return out
    given = {id(_values(tensor)): tensor for tensor in tensors}  # what steps in place return

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return given[id(value)] if id(value) in given else Pretend(value)

    return _mapped(wrapped, out)


def _values(value: Any) -> Any:
    return value.values_ if isinstance(value, Pretend) else value


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)([_mapped(change, part) for part in value])
    return change(value)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def _require_allowed(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[torch.Tensor]
) -> None:
    """Raises what CUDA raises."""
    name = function.overloadpacket.__name__
    if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
        raise RuntimeError(f"Expected a '{DEVICE.type}' device type for generator but found 'cpu'")
    if name in _PRODUCTS and not all(tensor.is_floating_point() for tensor in tensors):
        raise RuntimeError(f'"{name}_cuda" not implemented for whole numbers')
    if name in _CROSSING or len({tensor.device for tensor in tensors}) < 2:
        return
    if name in _INDEXING:
        indices = [*_tensors(args[1])]
        if not isinstance(args[0], Pretend) and any(isinstance(i, Pretend) for i in indices):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        tensors = [*_tensors((args[0], args[2:]))]  # indices may be on the CPU
    written = [
        tensor
        for argument, value in zip(function._schema.arguments, args, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
        for tensor in _tensors(value)
    ]
    if name in _SCALARS | _INDEXING or torch.Tag.pointwise in function.tags:
        others = [tensor for tensor in tensors if tensor.ndim or isinstance(tensor, Pretend)]
        if len(tensors) - len(others) > 1 and name != "where":
            raise RuntimeError("Trying to pass too many CPU scalars to non-CPU kernel!")
        tensors = others + written
    if len({tensor.device for tensor in tensors}) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{DEVICE} and cpu! (in {function})"
        )


DEVICES = [
    "pretended",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]
"""For fixtures that run tests on each device."""


@contextmanager
def device_named(name: str) -> Iterator[torch.device]:
    """The pretend device, or CUDA."""
    if name == "cuda":
        yield torch.device("cuda", 0)
        return
    with PretendMode():
        yield DEVICE
