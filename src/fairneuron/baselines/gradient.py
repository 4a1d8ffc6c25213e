"""Peers trained by gradients: networks trained on loss + λ · a differentiable unfairness.

They differ in where training starts, in the weights that may change, and in the unfairness.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from fairneuron.baselines.protocol import Tuned, listed_strengths
from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError
from fairneuron.forward import in_precision_of, trainable
from fairneuron.gaps import gap_penalty
from fairneuron.limits import DEFAULT_LIMIT, Limit
from fairneuron.models import Network, Penalty
from fairneuron.search.together import Job, train_together
from fairneuron.settings import Schedule
from fairneuron.terms import Loss, MakeOptimiser, Terms
from fairneuron.tracing import trace
from fairneuron.training import reproducible, require_trainable
from fairneuron.trials import Candidate

STRENGTHS = (0.03, 0.05, 0.08, 0.13, 0.2, 0.32, 0.4, 0.5, 0.63, 0.8, 1.4, 3.0)
RETRAINING = Schedule(epochs=5, batch_size=1024, learning_rate=0.002, plateau=None, min_steps=100)
HEAD = Schedule(epochs=5, batch_size=1024, learning_rate=0.02, plateau=None, min_steps=300)
FROM_SCRATCH = Schedule(epochs=5, batch_size=512, learning_rate=0.003, plateau=None, min_steps=200)


class FineTuning(Tuned):
    """All weights of the trained model are retrained on loss + λ · gap.

    The gap is the recipe conflict's (``fairneuron.gaps.soft_gap``), so what is left out is the
    selection of neurons.

    Args:
        limit: As in ``repair``; it also says which gap is lowered.
        strengths: The λ to try, each at least 0; the class's own unless given.
        schedule: Of each training; the class's own unless given.
        loss: As in ``repair``.
        optimiser: As in ``repair``.

    Raises:
        OptionError: For no λ or one below 0, and for what is no limit, loss or optimiser.
    """

    strengths: tuple[float, ...] = STRENGTHS
    schedule: Schedule = RETRAINING

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        strengths: Sequence[float] | None = None,
        schedule: Schedule | None = None,
        loss: Loss | None = None,
        optimiser: MakeOptimiser | None = None,
    ) -> None:
        super().__init__(limit)
        self.strengths = listed_strengths(self.strengths if strengths is None else strengths)
        self.schedule = schedule or self.schedule
        self.terms = Terms(loss, optimiser)

    def penalty(self) -> Penalty:
        """What is added to the task loss, times λ."""
        return gap_penalty(self.criteria)

    def start(self, model: nn.Module, seed: int) -> nn.Module:
        """Where training starts: a network of the model's class, which is copied for each λ."""
        return model

    def only(self, model: nn.Module) -> Mapping[str, torch.Tensor] | None:
        """Masks of the weights that may change, as in ``train``; None for all."""
        return None

    def candidates(
        self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int
    ) -> Iterator[Candidate]:
        """A network for each λ.

        Raises:
            ModelError: For networks that cannot be retrained.
            DataError: As ``require_trainable``.
        """
        penalty = self.penalty()
        own = checked(model, train, valid, self.terms)
        start, only = self.start(own, seed), self.only(own)
        jobs = [Job(copy.deepcopy(start), only, strength) for strength in self.strengths]
        finite = train_together(
            jobs, train, valid, self.schedule, seed=seed, penalty=penalty, terms=self.terms
        )
        for job, ok in zip(jobs, finite, strict=True):
            yield {"strength": job.strength}, in_precision_of(model, job.model), ok


class LastLayer(FineTuning):
    """Only the head is retrained on loss + λ · gap: the weights and biases that make the logits.

    The usual cheap repair, which leaves the representation as it is.

    Its arguments are those of ``FineTuning``; the model must be traceable.
    """

    strengths = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
    schedule = HEAD

    def only(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Masks of the head's parameters; frozen ones stay as they are."""
        graph = trace(model)
        parts = [part for layer in graph.head for part in graph.rows(layer)]
        return {
            name: torch.ones_like(parameter)
            for part in parts
            for name, parameter in part.items()
            if parameter.requires_grad
        }


class DiffDP(FineTuning):
    """Networks trained from scratch on loss + λ · gap, the gap regularisation of the benchmarks.

    DiffDP, DiffEopp and DiffEodd in Han et al., *FFB: A Fair Fairness Benchmark for In-Processing
    Group Fairness Methods* (ICLR 2024), by the limit. All λ share one initialisation, which is
    drawn from the seed.

    Its arguments are those of ``FineTuning``. Frozen parameters keep their values. Batch norm
    starts with the mean 0 and the variance 1 and keeps them.
    """

    strengths = (0.0, 0.05, 0.08, 0.13, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.3, 2.5)
    schedule = FROM_SCRATCH

    def start(self, model: nn.Module, seed: int) -> nn.Module:
        """A freshly initialised copy.

        Raises:
            ModelError: For modules that have parameters of their own but no ``reset_parameters``.
        """
        return initialised(model, seed)


def initialised(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose trainable modules have drawn their parameters anew.

    Args:
        model: Each of its modules with trainable parameters of its own has ``reset_parameters``.
        seed: Same seed, same parameters.

    Raises:
        ModelError: For the first module that has not.
    """
    fresh = copy.deepcopy(model)
    frozen = {n: p.detach().clone() for n, p in fresh.named_parameters() if not p.requires_grad}
    with reproducible(seed):
        for name, module in fresh.named_modules():
            if not any(p.requires_grad for p in module.parameters(recurse=False)):
                continue
            reset = getattr(module, "reset_parameters", None)
            if not callable(reset):
                raise ModelError(
                    "model-initialisation",
                    "To train from scratch, modules with parameters need reset_parameters()",
                    got=f"{type(module).__name__} at {name!r} without it",
                    cure="Define it, or choose a mitigator that starts from the trained model.",
                )
            reset()
    with torch.no_grad():
        for name, value in frozen.items():
            fresh.get_parameter(name).copy_(value)
    return fresh


def checked(model: nn.Module, train: Dataset, valid: Dataset, terms: Terms) -> nn.Module:
    """The model in full precision, after all refusals of what cannot be retrained.

    Raises:
        ModelError: As ``check_model``.
        DataError: As ``require_trainable``.
        OptionError: For what is no loss.
    """
    Network(model).check(train, retrained=True)
    own = trainable(model)
    require_trainable(own, train, valid, terms)
    return own
