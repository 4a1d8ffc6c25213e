"""What slicing reads of a network's values, in float64, and the means of that."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from fairneuron.batches import Batches
from fairneuron.checks import check_model
from fairneuron.errors import ModelError
from fairneuron.forward import evaluation, logits, placed
from fairneuron.graph import Elementwise, Input, Layer, Layout
from fairneuron.paths import Means
from fairneuron.progress import Progress
from fairneuron.recording import Recorder
from fairneuron.tracing import trace
from fairneuron.units import find_units

Values = dict[int, torch.Tensor]
"""Layer, by its position, to what its rule reads, ``(batch, …)`` float64; the output as -1."""

Twins = dict[nn.Module, nn.Module]

_BY_GRADIENT = ("model-untraceable", "model-unsupported", "model-forward")
_BATCH = 1 << 23  # bytes of inputs and outputs of layers in a batch: most stay in the cache
_PRODUCT = 1 << 23  # bytes of a factor of a matrix product that a convolution becomes
_REMEMBERED = 1 << 27  # bytes of activations that the second pass need not compute again


class Activations:
    """A network that shows the values that slicing needs; it runs a float64 copy.

    Args:
        model: The network.
        example: ``(n, …)`` a few samples that it can read.

    Attributes:
        graph: The traced network.
        units: Its units, and the rules of its layers.
        device: Where it runs.
    """

    def __init__(self, model: nn.Module, example: torch.Tensor) -> None:
        check_model(model, example)
        try:
            self.graph = trace(model)
            _require_the_same(model, self.graph.module, example[:1])
            self.units = find_units(self.graph, example).to(self.graph.device)
        except ModelError as error:
            if error.code not in _BY_GRADIENT:
                raise
            raise ModelError(
                error.code,
                error.rule,
                got=error.got,
                cure=f'{error.cure} Or activation_paths(..., contribution="gradient"): it takes '
                "any network of modules with weights that can be differentiated.",
            ) from error
        self._module = _in_float64(self.graph.module, nn.Module, {}).eval()
        self.device = self.graph.device
        self._computed = sum(of.numel() for of in self.units.of.values())  # of a sample
        self._cloned = False  # values that a later step of the network overwrites
        self._remembered: list[Values] = []

    @property
    def batch_size(self) -> int:
        """Samples whose values take a few MiB."""
        read = {s for index in self.units.rules for s in self.graph.layers[index].sources}
        values = sum(
            of.numel() for i, of in self.units.of.items() if i in {*self.units.rules, *read}
        )
        return min(max(_BATCH // (8 * values), 64), 4096)

    def means(self, batches: Batches, progress: Progress, *, remember: bool = True) -> Means:
        """Mean activations; what fits into a fixed amount of memory is kept for ``of``."""
        sums: Values = {}
        samples, memory = 0, _Memory(_REMEMBERED if remember else 0)
        for values in self.of(batches):
            for index in self.units.rules:
                total = values[index].sum(0)
                sums[index] = sums[index] + total if samples else total
            samples += len(values[-1])
            if (kept := memory.keep(values, self._computed * len(values[-1]))) is not None:
                self._remembered.append(kept)
            progress("mean activations", samples, batches.total)
        return Means({index: total.cpu() for index, total in sums.items()}, samples)

    def of(self, batches: Batches) -> Iterator[Values]:
        """What is read, by layer, and the output as -1, batch by batch.

        Raises:
            ModelError: For a network that cannot read the samples, or non-finite activations,
                naming the layer.
        """
        remembered, self._remembered = self._remembered[::-1], []
        batches.size = batches.size or self.batch_size
        for batch in batches:
            yield remembered.pop() if remembered else self._record(batch)

    def _record(self, batch: torch.Tensor) -> Values:
        if len(batch) == 1:  # squeeze() would take its axis away
            return {index: v[:1] for index, v in self._record(torch.cat([batch] * 2)).items()}
        values: Values = {}
        versions: dict[int, int] = {}

        def keep(index: int, value: torch.Tensor) -> None:
            values[index] = value.clone() if self._cloned else value
            versions[index] = value._version

        def see(index: int, value: torch.Tensor) -> None:
            layer = self.graph.layers[index]
            if index == self.graph.output:
                keep(-1, value.reshape(len(batch), -1))
            if index == self.graph.output or not isinstance(layer, (Elementwise, Layout)):
                _require_finite(layer, value)

        def read(index: int, sources: list[torch.Tensor]) -> None:
            if index in self.units.rules:
                keep(index, self.units.rules[index].read(sources))
                _require_finite(self.graph.layers[index], values[index])

        with evaluation(self._module):
            Recorder(self.graph, see, self._module, read).run(batch.to(self.device).double())
        if any(values[index]._version != version for index, version in versions.items()):
            self._cloned = True
            return self._record(batch)
        return values


class _Memory:
    """A place for values, of a fixed size.

    Values that are few beside those that were computed for them are moved into one piece: left
    where they are, they would keep the memory around them from being used again.

    Args:
        size: In bytes.
    """

    def __init__(self, size: int) -> None:
        self._size = self._room = size
        self._piece: torch.Tensor | None = None

    def keep(self, values: Values, computed: int) -> Values | None:
        """The values, to be kept; None if there is no room for them."""
        needed = sum(8 * value.numel() for value in values.values())
        first = (self._size - self._room) // 8
        self._room -= needed
        if self._room < 0:
            return None
        if needed * 4 > 8 * computed:
            return values
        if self._piece is None:
            self._piece = values[-1].new_empty(self._size // 8)
        parts = self._piece[first : first + needed // 8].split([v.numel() for v in values.values()])
        return {
            index: part.view(value.shape).copy_(value)
            for part, (index, value) in zip(parts, values.items(), strict=True)
        }


def _require_the_same(model: nn.Module, traced: nn.Module, x: torch.Tensor) -> None:
    """What was traced must compute what the model does: a forward can tell symbols from values."""
    if not len(x):
        return
    x = placed(model, torch.cat([x, x]))  # two, as a batch of one may be squeezed
    with evaluation(model), evaluation(traced):
        expected, found = logits(model, x.clone()), logits(traced, x)
    if not torch.allclose(found, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
        raise ModelError(
            "model-untraceable",
            "The traced forward must compute what the model's does",
            got="other outputs",
            cure="Avoid branches that depend on what kind of thing x is.",
        )


class _Convolution(nn.Conv2d):
    """A convolution as a matrix product; in float64 that takes half as long on a CPU."""

    def _conv_forward(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if self.groups > 1 or x.device.type != "cpu" or x.ndim != 4:
            return super()._conv_forward(x, weight, bias)
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = nn.functional.pad(x, self._reversed_padding_repeated_twice, mode)
        for axis, (size, gap, stride) in enumerate(
            zip(self.kernel_size, self.dilation, self.stride, strict=True), start=2
        ):
            padded = padded.unfold(axis, gap * (size - 1) + 1, stride)[..., ::gap]
        n, _, height, width = padded.shape[:4]  # (n, channels, height, width, *kernel_size)
        flat = weight.flatten(1)  # (units, channels · taps)
        out = padded.new_empty(n, len(flat), height, width)
        size = max(1, _PRODUCT // (8 * flat.shape[1] * height * width))
        for some, into in zip(padded.split(size), out.split(size), strict=True):
            columns = some.permute(1, 4, 5, 0, 2, 3).reshape(flat.shape[1], -1)
            into.copy_((flat @ columns).unflatten(1, (-1, height, width)).transpose(0, 1))
        return out if bias is None else out.add_(bias[:, None, None])


def _in_float64(module: nn.Module, kind: type[nn.Module], twins: Twins) -> nn.Module:
    """A twin with tensors of its own in float64; all else is shared, which is quick."""
    if module not in twins:
        twin = twins[module] = nn.Module.__new__(kind)
        vars(twin).update(vars(module))
        for places in ("_parameters", "_buffers"):
            tensors = {name: _double(value) for name, value in getattr(module, places).items()}
            vars(twin)[places] = tensors
        vars(twin)["_modules"] = {
            name: child and _in_float64(child, _KINDS.get(type(child), type(child)), twins)
            for name, child in module._modules.items()
        }
    return twins[module]


_KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: _Convolution}


def _double(value: torch.Tensor | None) -> torch.Tensor | None:
    return value.detach().double() if value is not None and value.is_floating_point() else value


def _require_finite(layer: Layer, value: torch.Tensor) -> None:
    if not torch.isfinite(value.sum()) and not torch.isfinite(value).all():
        raise ModelError(
            "model-nonfinite",
            "Activations must be finite",
            got=f"NaN or infinity at layer {layer.name!r}",
            cure="Fill or drop these samples."
            if isinstance(layer, Input)
            else "Check the weights there and the scaling of the inputs.",
        )
