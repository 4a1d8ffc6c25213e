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

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from fairneuron.activations import Values
from fairneuron.batches import Batches
from fairneuron.checks import check_model
from fairneuron.errors import ModelError, OptionError
from fairneuron.forward import evaluation, logits
from fairneuron.kernel import keep_prefix, unit_signatures
from fairneuron.paths import Means
from fairneuron.training import Progress

_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_SAME_UNITS = (
    *(nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU),
)
_ROWS = 256  # of a batch, at most: their activations are held for the gradient
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
        layers: Its layers of units by name, with where they are among all units: the input, if it
            is of real numbers, and the modules with weights in the order in which they run, but
            for the last one.
        total: How many units there are.
        device: Where it runs.
    """

    def __init__(
        self, model: nn.Module, example: torch.Tensor, gamma: float, *, last: bool = False
    ) -> None:
        check_model(model, example)
        self.gamma = gamma
        self._module, self._dtype = _widened(model, example)
        self.device = next(self._module.parameters()).device
        self._names = {m: name for name, m in self._module.named_modules() if _has_units(m)}
        self._modules = {name: module for module, name in self._names.items()}
        self._means: Values = {}
        values, _ = self._run(example[:2])
        self._kept = list(values)[:-1]  # the last one makes the logits
        if len(self._kept) < 2:
            raise ModelError(
                "model-no-hidden",
                "The network must have a hidden layer of units with weights",
                got=f"{len(values) - 1} modules with weights",
                cure="A linear model has no units to slice.",
            )
        self._kept = self._kept[-1:] if last else self._kept
        self.layers: list[tuple[str, tuple[slice, ...]]] = []
        self.total = 0
        for name in self._kept:
            units = self._by_unit(name, values[name]).shape[1]
            self.layers.append((name, (slice(self.total, self.total + units),)))
            self.total += units

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
                total = self._by_unit(name, values[name]).double().sum(0)
                sums[position] = sums[position] + total if samples else total
            samples += len(x[0])
            progress("mean activations", samples, batches.total)
        return Means({position: total.cpu() for position, total in sums.items()}, samples)

    def of(self, batches: Batches) -> Iterator[Values]:
        """Samples, batch by batch."""
        batches.size = batches.size or _ROWS
        for batch in batches:
            yield {0: batch}

    def relative_to(self, means: Means) -> None:
        """Sets the means that values are relative to."""
        if not isinstance(means, Means) or len(means.sums) != len(self.layers):
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
        with torch.enable_grad():
            gradients = torch.autograd.grad(chosen.sum(), kept, allow_unused=True)
        found = []
        for position, (value, gradient) in enumerate(zip(kept, gradients, strict=True)):
            name = self._kept[position]
            relative = self._by_unit(name, value.detach()).double() - self._means[position]
            slope = torch.zeros_like(value) if gradient is None else gradient
            product = relative * self._by_unit(name, slope).double()
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
        x = x.to(self.device, self._dtype if x.is_floating_point() else x.dtype)
        x = x.clone().requires_grad_(gradient and x.is_floating_point())
        if x.is_floating_point():
            seen[_INPUT] = x

        def see(module: nn.Module, _: Any, out: Any) -> Any:
            value = out[0] if isinstance(out, tuple) else out
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                if gradient and not value.requires_grad:  # an embedding that is frozen
                    value = value.clone().requires_grad_()
                    out = (value, *out[1:]) if isinstance(out, tuple) else value
                name = self._names[module]
                seen.pop(name, None)  # of layers that run twice, the last time
                seen[name] = value
            return out

        handles = [module.register_forward_hook(see) for module in self._names]
        try:
            with (
                evaluation(self._module),
                torch.backends.cudnn.flags(enabled=False),
                torch.set_grad_enabled(gradient),
            ):
                out = logits(self._module, x)
        finally:
            for handle in handles:
                handle.remove()
        return seen, out

    def _by_unit(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """A view ``(n, units, …)`` of a layer's values or slopes."""
        module = self._modules.get(name)
        if isinstance(module, nn.RNNBase) and not module.batch_first and value.ndim == 3:
            value = value.transpose(0, 1)
        channels = module is None or isinstance(module, _CONVOLUTIONS)
        return value if channels or value.ndim < 3 else value.movedim(-1, 1)


def _widened(model: nn.Module, example: torch.Tensor) -> tuple[nn.Module, torch.dtype]:
    """A copy in float64, or in the precision of the model if it does not run in float64."""
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    twin = copy.deepcopy(model)
    for dtype in (torch.float64, own):
        twin = twin.to(dtype)
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


def _has_units(module: nn.Module) -> bool:
    """Whether a module's outputs are units: it has weights of its own, or is recurrent."""
    own = any(True for _ in module.parameters(recurse=False))
    return own and not isinstance(module, _SAME_UNITS)
