"""Activation × gradient: which units of any network made a sample's prediction.

Where a layer has no slicing rule (recurrent layers, gates, forwards that cannot be traced), the
attribution of a unit takes the place of the contributions of synapses:
``Σ (z - mean z) · ∂f / ∂z`` over the positions of its values z, with f the logit of the predicted
class (Shrikumar et al. 2017, section 2, "gradient × input"). In a network of rectifiers with zero
means and without biases it is what contributions add up to when they are handed on to the unit.

Each layer keeps the fewest units that explain the share γ of what all its units explain, so a path
is a set of units, not of synapses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from fairneuron.activations import Values
from fairneuron.batches import Batches
from fairneuron.checks import check_model, copied
from fairneuron.errors import ModelError, OptionError
from fairneuron.forward import evaluation, first_line, logits
from fairneuron.kernel import keep_prefix, unit_signatures
from fairneuron.paths import Means
from fairneuron.progress import Progress

_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_SAME_UNITS = (
    *(nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU),
)
_ROWS = 256  # of a batch, at most: their activations are held for the gradient
_BATCH = 1 << 28  # bytes of units' values in a batch; what lies between them takes more
_INPUT = "input"


class GradientSlicer:
    """A network made ready for slicing by activation × gradient.

    Args:
        model: Any network; it need not be traceable. A copy in float64 is run, or one in its own
            precision if it runs in no other.
        example: ``(n, …)`` a few samples that it can read.
        gamma: In (0, 1].
        last: Whether a path is of the units of the last layer alone that the logits are made from.

    Attributes:
        layers: Its layers of units by name, with where they are among all units: the input, which
            has none if it has no gradient, and the modules with weights that the logits depend on,
            in the order in which they run, but for the last one and those that contain others.
        total: How many units there are.
        device: Where it runs.
        rows: Samples in a batch.
    """

    def __init__(
        self, model: nn.Module, example: torch.Tensor, gamma: float, *, last: bool = False
    ) -> None:
        check_model(model, example)
        self.gamma = gamma
        self._module, self._dtype = _widened(model, example)
        self.device = next(self._module.parameters()).device
        self._names = {m: name for name, m in self._module.named_modules() if _has_units(name, m)}
        self._modules = {name: module for module, name in self._names.items()}
        self._means: Values = {}
        pair = example[[0, min(1, len(example) - 1)]]
        values, out = self._run(pair, gradient=True)
        slopes = zip(values, _slopes(out.sum(), list(values.values())), strict=True)
        used = [name for name, slope in slopes if slope is not None]
        used = [name for name in used if not any(_contains(name, other) for other in used)]
        self._axes: dict[str, int] = {}
        self._find_sample_axes(used, pair)
        self._kept = list(self._axes)[:-1]  # the last one makes the logits
        if not {*self._kept} - {_INPUT}:
            raise ModelError(
                "model-no-hidden",
                "The network must have a hidden layer of units with weights",
                got=f"{len({*used} - {_INPUT})} modules with weights",
                cure="Layers are modules with weights, but for the last one: a linear model has "
                "none, nor do weights count that no module of their own applies.",
            )
        self._kept = self._kept[-1:] if last else self._kept
        self.layers: list[tuple[str, tuple[slice, ...]]] = []
        if _INPUT not in self._kept:
            self.layers.append((_INPUT, (slice(0, 0),)))
        self.total = 0
        for name in self._kept:
            units = self._by_unit(name, values[name], 2).shape[1]
            self.layers.append((name, (slice(self.total, self.total + units),)))
            self.total += units
        held = sum(values[name].numel() for name in self._axes) * 8 // 2
        self.rows = max(1, min(_ROWS, _BATCH // held))

    @property
    def activations(self) -> GradientSlicer:
        """What gives values and their means: itself."""
        return self

    def means(self, batches: Batches, progress: Progress, *, remember: bool = True) -> Means:
        """Mean values of each layer, position by position."""
        del remember  # a second run is needed for the gradient in any case
        sums: Values = {}
        samples = 0
        for x in self.of(batches):
            values, _ = self._run(x[0])
            for position, name in enumerate(self._kept):
                total = self._by_unit(name, values[name], len(x[0])).double().sum(0)
                sums[position] = sums[position] + total if samples else total
            samples += len(x[0])
            progress("mean activations", samples, batches.total)
        return Means({position: total.cpu() for position, total in sums.items()}, samples)

    def of(self, batches: Batches) -> Iterator[Values]:
        """Samples, batch by batch."""
        batches.size = batches.size or self.rows
        for batch in batches:
            yield {0: batch}

    def relative_to(self, means: Means) -> None:
        """Sets the means that values are relative to."""
        if not isinstance(means, Means) or len(means.sums) != len(self._kept):
            raise OptionError(
                "option-means", "Means must be those of this network", got="other layers",
                cure="Take Paths.means or mean_activations of it.",
            )  # fmt: skip
        self._means = {position: means[position].to(self.device) for position in means.sums}

    def attributions(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Activation × gradient ``(n, units)`` float64 of each layer."""
        values, out = self._run(x, gradient=True)
        chosen = out if out.ndim == 1 else out.gather(1, out.argmax(1)[:, None])[:, 0]
        kept = [values[name] for name in self._kept]
        found = []
        for position, (value, slope) in enumerate(
            zip(kept, _slopes(chosen.sum(), kept), strict=True)
        ):
            name = self._kept[position]
            relative = self._by_unit(name, value.detach(), len(x)).double()
            relative = relative - self._means[position]
            slope = torch.zeros_like(value) if slope is None else slope  # noqa: PLW2901
            product = relative * self._by_unit(name, slope, len(x)).double()
            product = product.reshape(*product.shape[:2], -1).sum(2)  # (n, units)
            if not product.isfinite().all():
                raise ModelError(
                    "model-nonfinite",
                    "Attributions must be finite",
                    got=f"NaN or infinity at layer {name!r}",
                    cure="Check the weights there and the scaling of the inputs.",
                )
            found.append(product)
        return found

    def signatures(self, values: Values, _threads: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Signature of each sample's set of units, and the set; see ``Slicer.signatures``."""
        kept = [keep_prefix(c, self.gamma) for c in self.attributions(values[0])]
        active = torch.cat(kept, dim=1)  # (n, total) bool
        return unit_signatures(active), active

    def _run(
        self, x: torch.Tensor, *, gradient: bool = False
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Values by layer, in the order of running, and the logits."""
        seen: dict[str, torch.Tensor] = {}
        x = x if len(x) > 1 else torch.cat([x, x])  # squeeze() would take its axis away
        x = x.to(self.device, self._dtype if x.is_floating_point() else x.dtype)
        x = x.clone().requires_grad_(gradient and x.is_floating_point())
        if x.is_floating_point():
            seen[_INPUT] = x

        def see(module: nn.Module, _: Any, out: Any) -> Any:
            value = out[0] if isinstance(out, tuple) else out
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                return out
            if gradient and not value.requires_grad:  # an embedding that is frozen
                value = value.clone().requires_grad_()
            name = self._names[module]
            seen.pop(name, None)  # of layers that run twice, the last time
            seen[name] = value
            value = value.clone()  # which a later step may overwrite
            return (value, *out[1:]) if isinstance(out, tuple) else value

        handles = [module.register_forward_hook(see) for module in self._names]
        try:
            with (
                evaluation(self._module),
                torch.backends.cudnn.flags(enabled=False),
                torch.set_grad_enabled(gradient),
            ):
                out = logits(self._module, x.clone())
        finally:
            for handle in handles:
                handle.remove()
        return seen, out

    def _find_sample_axes(self, names: list[str], pair: torch.Tensor) -> None:
        """Finds along which axis each layer has its samples; layers without one are left out.

        Raises:
            ModelError: For a layer whose values cannot be told apart by sample.
        """
        runs = [self._run(x)[0] for x in (pair, pair[[0, 1, 0]], pair.flip(0))]
        for name in names:
            two, three, turned = (values[name] for values in runs)
            if two.shape == three.shape:
                continue
            axis = self._axes[name] = next(
                a for a, (k, m) in enumerate(zip(two.shape, three.shape, strict=False)) if k != m
            )  # fmt: skip
            own = two.ndim == three.ndim and 3 * two.numel() == 2 * three.numel()
            if own and two.shape[axis] % 2 == 0:
                samples = self._by_sample(name, two, 2)
                scale = float(samples.abs().max()) * 1e-3
                own = torch.allclose(samples.flip(0), self._by_sample(name, turned, 2), atol=scale)
            if not own:
                raise ModelError(
                    "model-unsupported",
                    "Each layer must have the values of each sample by themselves",
                    got=f"{tuple(two.shape)} for two samples at {name!r}",
                    cure="Keep the samples along one axis.",
                )

    def _by_sample(self, name: str, value: torch.Tensor, samples: int) -> torch.Tensor:
        """A view ``(samples, …)`` of a layer's values; of ``(samples · steps, …)``, by steps."""
        value = value.movedim(self._axes[name], 0)
        ran = max(samples, 2)
        return (value if len(value) == ran else value.unflatten(0, (ran, -1)))[:samples]

    def _by_unit(self, name: str, value: torch.Tensor, samples: int) -> torch.Tensor:
        """A view ``(samples, units, …)`` of a layer's values or slopes."""
        several = value.shape[self._axes[name]] > max(samples, 2)
        value = self._by_sample(name, value, samples)
        module = self._modules.get(name)
        if isinstance(module, _CONVOLUTIONS):
            return value.movedim(2, 1) if several else value
        return value if module is None or value.ndim < 3 else value.movedim(-1, 1)


def _slopes(total: torch.Tensor, values: list[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """Gradients of a sum; None of what it does not depend on.

    Raises:
        ModelError: If there is none.
    """
    try:
        with torch.enable_grad():
            return torch.autograd.grad(total, values, allow_unused=True)
    except Exception as error:  # whatever autograd says about the user's forward
        raise ModelError(
            "model-gradient",
            "The model's output must have a gradient for the values of its layers",
            got=first_line(error),
            cure="Avoid detach, no_grad, inference_mode and reentrant checkpoints in forward.",
        ) from error


def _widened(model: nn.Module, example: torch.Tensor) -> tuple[nn.Module, torch.dtype]:
    """A copy in float64, or in the precision of the model if it does not run in float64."""
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    for dtype in (torch.float64, own):
        twin = copied(model)
        twin = twin.double() if dtype == torch.float64 else twin
        x = example[:2].to(next(twin.parameters()).device)
        try:
            with evaluation(twin):
                logits(twin, x.to(dtype) if x.is_floating_point() else x)
        except ModelError:
            if dtype == own:
                raise
        else:
            return twin, dtype
    raise AssertionError  # the last one returned or raised


def _has_units(name: str, module: nn.Module) -> bool:
    """Whether a module's outputs are units: it has weights, or computes them, or is recurrent."""
    own = any(True for _ in module.parameters(recurse=False)) or parametrize.is_parametrized(module)
    return own and "parametrizations" not in name.split(".") and not isinstance(module, _SAME_UNITS)


def _contains(name: str, other: str) -> bool:
    """Whether a module contains another one, by their names."""
    return other not in {name, _INPUT} and (not name or other.startswith(f"{name}."))
