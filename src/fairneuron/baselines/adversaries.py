"""Adversaries: networks retrained so that their last hidden activations do not tell the group.

A head predicts the group from these activations. It learns by the gradient of its loss; the network
below gets that gradient reversed (Ganin and Lempitsky, *Unsupervised Domain Adaptation by
Backpropagation*, ICML 2015). Heads learn faster than the network: an adversary that lags behind
makes both run in circles (Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to
a Local Nash Equilibrium*, NeurIPS 2017).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import fx, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import skip_init

from fairneuron.baselines.feeder import KERNELS, Feeder
from fairneuron.baselines.gradient import checked
from fairneuron.baselines.postprocess import CONDITIONS, fitted_groups
from fairneuron.baselines.protocol import Tuned, listed_strengths
from fairneuron.baselines.threshold import ThresholdOptimizer
from fairneuron.data.dataset import Dataset
from fairneuron.errors import require_known, require_range, require_whole
from fairneuron.forward import evaluation, in_precision_of, placed
from fairneuron.graph import Graph, Input
from fairneuron.limits import DEFAULT_LIMIT, Limit
from fairneuron.models import Scores, weighted_mean
from fairneuron.settings import Schedule
from fairneuron.terms import Loss, MakeOptimiser, Terms
from fairneuron.tracing import trace
from fairneuron.training import train as train_on
from fairneuron.trials import Candidate

LEAD = 5.0  # how much faster than the network the heads learn
GAME = Schedule(epochs=5, batch_size=512, learning_rate=5e-4, plateau=None, min_steps=300)
ROUND = Schedule(epochs=1, batch_size=512, learning_rate=5e-4, plateau=None, min_steps=30)


class FAD(Tuned):
    """All weights of the trained model are retrained against an adversary that predicts the group.

    Adel, Valera, Ghahramani and Weller, *One-network Adversarial Fairness* (AAAI 2019): the loss is
    the task's, and the network's part of the adversary's gradient is multiplied by −α. The
    adversary is linear in the last hidden activations; the hidden layer that they add below it is
    left out, so that the network keeps its architecture. For equal opportunity it sees those with
    y = 1 alone, for equalised odds there is another one for the others.

    With ``thresholds``, each network's scores then get thresholds per group, without a gap on the
    training rows (Hardt, Price and Srebro 2016, section 4), as Gao et al. (2022) use the method.

    Args:
        limit: As in ``repair``; on one gap with ``thresholds``.
        strengths: The α to try, each at least 0.
        thresholds: Whether decisions are by thresholds per group, which takes fairlearn.
        schedule: Of each training.
        loss: As in ``repair``.
        optimiser: As in ``repair``.

    Raises:
        OptionError: For no α or one below 0, and for what is no limit, loss or optimiser.
    """

    STRENGTHS = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 4.5, 6.5, 9.0, 14.0)

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        strengths: Sequence[float] = STRENGTHS,
        thresholds: bool = False,
        schedule: Schedule = GAME,
        loss: Loss | None = None,
        optimiser: MakeOptimiser | None = None,
    ) -> None:
        super().__init__(limit)
        self.strengths, self.schedule = listed_strengths(strengths), schedule
        self.needs_sensitive = thresholds
        self.thresholds = ThresholdOptimizer(limit, shares=(0.0,)) if thresholds else None
        self.terms = Terms(loss, optimiser)

    def candidates(
        self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int
    ) -> Iterator[Candidate]:
        """A network for each α, with its thresholds if they are wanted and its loss was finite.

        Raises:
            ModelError: For networks that cannot be traced or retrained.
            DataError: For fewer than two groups, and as ``require_trainable``.
            OptionError: For thresholds without their library.
        """
        own = checked(model, train, valid, self.terms)
        fitted_groups(train)
        for strength in self.strengths:
            network = copy.deepcopy(own)
            game = Adversary.beside(network, train, self.criteria, strength)
            finite = game.play(train, valid, self.schedule, seed=seed, terms=self.terms)
            network = in_precision_of(model, network)
            if self.thresholds is None or not finite:
                yield {"strength": strength}, network, finite
                continue
            for candidate in self.thresholds.candidates(network, train, valid, seed=seed):
                candidate[0]["strength"] = strength
                yield candidate


class EthicalAdversaries(Tuned):
    """Two adversaries: one that predicts the group, and one that adds adversarial training rows.

    Delobelle, Temple, Perrouin, Frénay, Heymans and Berendt, *Ethical Adversaries: Towards
    Mitigating Unfairness with Adversarial Machine Learning* (BIAS workshop at ECML PKDD 2020). In
    each iteration the *feeder* moves copies of training rows across the decision boundary of a
    support vector machine that was fitted to the labels (``fairneuron.baselines.feeder``), and the
    *reader*, as in ``FAD``, goes on training on the larger data. Added rows have the labels and
    groups of those that they are copies of; the published code takes the surrogate's labels and
    random groups. It also tunes the surrogate, and moves copies by .1 at most (SecML's ``dmax``, of
    columns scaled to [0, 1]), as far as they get, and adds them whether they are across or not.

    The surrogates see data and labels but no network, so all λ share them and the added rows. The
    networks are trained in every iteration: unless told otherwise, six λ in ten iterations, where
    the authors have one λ in fifty.

    Args:
        limit: As in ``repair``.
        strengths: The λ to try, each at least 0.
        iterations: At least 1.
        points: Rows that the feeder tries in an iteration, at least 1; fewer are added.
        kernel: Of the surrogate: "rbf" or "linear".
        dmax: How far the feeder may move a row, as the Euclidean distance in the inputs as the
            network sees them, above 0. Then rows are added that are not across too. None: as far
            as it takes, and only those that are across are added.
        schedule: Of the training in an iteration.
        loss: As in ``repair``.
        optimiser: As in ``repair``.

    Raises:
        OptionError: For no λ or one below 0, other settings out of range, and for what is no limit,
            loss or optimiser.
    """

    STRENGTHS = (0.3, 0.8, 2.0, 4.0, 7.0, 12.0)

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        strengths: Sequence[float] = STRENGTHS,
        iterations: int = 10,
        points: int = 50,
        kernel: str = "rbf",
        dmax: float | None = None,
        schedule: Schedule = ROUND,
        loss: Loss | None = None,
        optimiser: MakeOptimiser | None = None,
    ) -> None:
        super().__init__(limit)
        for name, value in (("iterations", iterations), ("points", points)):
            require_whole(name, value)
            require_range(name, value, 1, np.inf)
        require_known("option-kernel", "kernel", kernel, KERNELS)
        if dmax is not None:
            require_range("dmax", dmax, 0, np.inf, open_low=True, open_high=True)
        self.strengths, self.schedule = listed_strengths(strengths), schedule
        self.iterations, self.feeder = iterations, Feeder(points, kernel, dmax)
        self.terms = Terms(loss, optimiser)

    def candidates(
        self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int
    ) -> Iterator[Candidate]:
        """A network for each λ.

        Raises:
            ModelError: For networks that cannot be traced or retrained.
            DataError: For fewer than two groups, and as ``require_trainable``.
        """
        own = checked(model, train, valid, self.terms)
        fitted_groups(train)
        networks = [copy.deepcopy(own) for _ in self.strengths]
        games = [
            Adversary.beside(network, train, self.criteria, strength)
            for network, strength in zip(networks, self.strengths, strict=True)
        ]
        finite, data = [True] * len(games), train
        rng = np.random.default_rng(seed)
        for own_seed in np.random.SeedSequence(seed).generate_state(self.iterations).tolist():
            data = self.feeder.feed(data, rng)
            finite = [
                ok and game.play(data, valid, self.schedule, seed=own_seed, terms=self.terms)
                for ok, game in zip(finite, games, strict=True)
            ]
        for strength, network, ok in zip(self.strengths, networks, finite, strict=True):
            settings = {"strength": strength, "added": len(data) - len(train)}
            yield settings, in_precision_of(model, network), ok


class Adversary(nn.Module):
    """A network, and beside it heads that predict the group from its last hidden activations.

    Its forward gives the network's logits; the activations are kept for ``penalty``, which is of
    the batch that was run last. The heads' outputs are scaled up by ``LEAD``: a step of Adam is as
    long whatever the gradient, and so moves them further.

    Args:
        network: It gives logits and activations; its parameters are trained in place.
        units: The activations' width.
        groups: How many there are to tell apart.
        labels: For each head the label of those that it sees; None for everybody.
        strength: The factor of the reversed gradient, at least 0.
    """

    def __init__(
        self,
        network: nn.Module,
        units: int,
        groups: int,
        labels: Sequence[int | None],
        strength: float,
    ) -> None:
        super().__init__()
        self.network, self.labels, self.strength = network, tuple(labels), strength
        self.heads = nn.ModuleList(skip_init(nn.Linear, units, groups) for _ in labels)
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    @classmethod
    def beside(
        cls, model: nn.Module, data: Dataset, criteria: Sequence[str], strength: float
    ) -> Adversary:
        """An adversary beside a model; its heads know nothing yet.

        Args:
            model: Traceable; trained in place.
            data: To be trained on.
            criteria: "dp", "eo", "eodds": which people a head sees.
            strength: As for the class.
        """
        network = with_hidden(trace(model))
        x = placed(model, data.x[:1])
        with evaluation(network):
            units = network(x)[1].shape[1]
        labels = dict.fromkeys(chain(*(CONDITIONS[c] for c in criteria)))
        made = cls(network, units, len(data.group_names), list(labels), strength)
        made.heads.to(x.device, x.dtype)
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The network's logits."""
        out: torch.Tensor
        out, self._hidden = self.network(x)
        return out

    def penalty(
        self,
        _scores: Scores,
        y: torch.Tensor,
        group: torch.Tensor,
        weight: torch.Tensor | None,
    ) -> torch.Tensor:
        """The heads' cross entropy, as what is added to the task loss; see ``Penalty``.

        Its gradient is reversed, and multiplied by the strength, where it enters the network.
        """
        hidden = reversed_gradient(self._hidden, self.strength)
        total = hidden.new_zeros(())
        for label, head in zip(self.labels, self.heads, strict=True):
            losses = cross_entropy(LEAD * head(hidden), group, reduction="none")  # (n,)
            counts = torch.ones_like(losses) if weight is None else weight
            seen = counts if label is None else counts * ((y == 1) == bool(label))
            total = total + weighted_mean(losses, seen)
        return total

    def play(
        self, data: Dataset, valid: Dataset, schedule: Schedule, *, seed: int, terms: Terms
    ) -> bool:
        """Trains network and heads at once, as ``fairneuron.training.train`` does.

        Returns:
            Whether every loss was finite.
        """
        return train_on(self, data, valid, schedule, seed=seed, penalty=self.penalty, terms=terms)


def reversed_gradient(hidden: torch.Tensor, strength: float) -> torch.Tensor:
    """The same values, whose gradient is multiplied by −strength on its way back."""
    value = hidden.detach()
    return value - strength * (hidden - value)


def with_hidden(graph: Graph) -> fx.GraphModule:
    """The same network, on the same parameters, that gives its last hidden activations too.

    Returns:
        A network that maps ``x (n, features)`` to its output and what the layers of its head read,
        ``(n, units)``, inputs apart.
    """
    read = dict.fromkeys(source for layer in graph.head for source in layer.sources)
    hidden = [graph.node_of[i] for i in read if not isinstance(graph.layers[i], Input)]
    twin = fx.GraphModule(graph.module, copy.deepcopy(graph.module.graph))
    nodes = {node.name: node for node in twin.graph.nodes}
    (output,) = (node for node in twin.graph.nodes if node.op == "output")
    with twin.graph.inserting_before(output):
        flat = [twin.graph.call_method("flatten", (nodes[name], 1)) for name in hidden]
        joined = twin.graph.call_function(torch.cat, (flat, 1))
    output.args = ((output.args[0], joined),)
    twin.recompile()
    return twin
