"""Hidden neurons to drop at inference, found by simulated annealing."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fairneuron.baselines.postprocess import Scores, fitted_groups, measured_gap, positive_scores
from fairneuron.baselines.protocol import Tuned
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import ModelError, require_range, require_whole
from fairneuron.forward import evaluation, logits, placed
from fairneuron.graph import Graph
from fairneuron.limits import DEFAULT_LIMIT, Limit
from fairneuron.models import Network, positive_score
from fairneuron.recording import Recorder
from fairneuron.tracing import trace
from fairneuron.trials import Candidate

ROWS = 4096  # that the cost is measured on
COOLING = 100.0  # the temperature's fall from the first step to the last
HOT = 0.01  # the temperature at the start: a rise of the cost by so much is often accepted


class NeuronDropping(Tuned):
    """Some hidden neurons give 0 at inference; which ones, simulated annealing finds.

    Dasu, Kumar, Tizpaz-Niari and Tan, *NeuFair: Neural Network Fairness Repair with Dropout* (ISSTA
    2024, section 4). A state is a set of dropped neurons, a step adds or removes one, and the cost
    is the gap plus a penalty on the accuracy that is lost. Theirs is a constant once F1 falls below
    a bound; ours is in proportion to the loss, so its factor leads from one end of the front to the
    other; and each search starts from the best set that those before it met. Cost is measured at a
    threshold of .5 on training rows, at most 4,096 drawn ones: small data have a few hundred for
    validation, and these choose among the results.

    Args:
        limit: As in ``repair``.
        penalties: The factors of lost accuracy to try, at least 0.
        most: In (0, 1]: at most this share of the neurons is dropped.
        steps: Of each search.

    Raises:
        OptionError: For what is no limit, and settings out of range.
    """

    PENALTIES = (30.0, 20.0, 14.0, 10.0, 7.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.7)

    def __init__(
        self,
        limit: Limit = DEFAULT_LIMIT,
        *,
        penalties: Sequence[float] = PENALTIES,
        most: float = 0.4,
        steps: int = 150,
    ) -> None:
        super().__init__(limit)
        for penalty in penalties:
            require_range("penalties", penalty, 0, np.inf, open_high=True)
        require_range("most", most, 0, 1, open_low=True)
        require_whole("steps", steps)
        require_range("steps", steps, 1, np.inf)
        self.penalties, self.most, self.steps = tuple(penalties), most, steps

    def candidates(
        self, model: nn.Module, train: Dataset, valid: Dataset, *, seed: int
    ) -> Iterator[Candidate]:
        """A network per penalty.

        Raises:
            ModelError: For networks that cannot be traced, with more than two classes, or whose
                neurons do not give 0 where their incoming weights are 0.
            DataError: For fewer than two groups.
        """
        Network(model).check(train)
        fitted_groups(train)
        positive_scores(model, train)
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permutation(len(train))[:ROWS])
        neurons = _Neurons.of(trace(model))
        neurons.check(model, valid)
        search = _Search(neurons, train.subset(rows), self.criteria)
        for penalty in self.penalties:
            search.anneal(penalty, self.most, self.steps, rng)
        for penalty in self.penalties:
            kept = search.cheapest(penalty)
            settings = {"penalty": penalty, "dropped": int((~kept).sum())}
            yield settings, neurons.without(model, ~kept), True


@dataclass(frozen=True, eq=False)
class _Neurons:
    """The hidden neurons of a network, in one row.

    Attributes:
        graph: The traced network.
        first: Name of a layer to the position of its first neuron.
        total: How many they are.
    """

    graph: Graph
    first: dict[str, int]
    total: int

    @classmethod
    def of(cls, graph: Graph) -> _Neurons:
        first, total = {}, 0
        for name, layer in graph.neurons.items():
            graph.rows(layer)  # refuses weights that are computed together
            first[name], total = total, total + len(graph.weight(layer))
        if not total:
            raise ModelError(
                "model-no-neurons",
                "A model must have hidden neurons",
                got="none",
                cure="Give a model with a hidden layer.",
            )
        return cls(graph, first, total)

    def places(self, name: str) -> slice:
        """Where a layer's neurons are in the row."""
        units = len(self.graph.weight(self.graph.neurons[name]))
        return slice(self.first[name], self.first[name] + units)

    def scores(self, x: torch.Tensor, kept: Mask) -> Scores:
        """P(y = 1) ``(n,)`` where only some neurons ``(total,)`` give what they give."""
        layers = {self.graph.activation_of(layer): layer for layer in self.graph.hidden}

        def keep(index: int, value: torch.Tensor) -> torch.Tensor | None:
            if index not in layers:
                return None
            layer, changed = layers[index], value.clone()
            dropped = torch.from_numpy(~kept[self.places(self.graph.owner[layer.index])])
            layer.by_unit(changed)[:, dropped] = 0
            return changed

        recorder = Recorder(self.graph, keep)
        with evaluation(self.graph.module):
            return positive_score(logits(recorder.run, x)).double().cpu().numpy()

    def check(self, model: nn.Module, data: Dataset) -> None:
        """Refuses networks in which a neuron gives something without incoming weights and bias."""
        nobody = np.zeros(self.total, dtype=bool)
        changed, x = self.without(model, ~nobody), placed(model, data.x)
        with evaluation(changed):
            found = positive_score(logits(changed, x)).double().cpu().numpy()
        if not np.allclose(found, self.scores(x, nobody), atol=1e-3):
            raise ModelError(
                "model-unsupported",
                "A neuron must give 0 where its incoming weights and bias are 0",
                got="other scores than with all hidden neurons at 0",
                cure="Use activations with f(0) = 0, such as ReLU, without batch norm.",
            )

    def without(self, model: nn.Module, dropped: Mask) -> nn.Module:
        """A copy of the network whose dropped neurons have no incoming weights and no bias."""
        changed = copy.deepcopy(model)
        parameters = dict(changed.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, layer in self.graph.neurons.items():
                those = torch.from_numpy(dropped[self.places(name)])
                for names in self.graph.rows(layer):
                    for parameter in names:
                        parameters[parameter][those.to(parameters[parameter].device)] = 0
        return changed


class _Search:
    """Simulated annealing over the neurons that are kept; what one search met, the others know.

    Args:
        neurons: Of the network.
        data: What the cost is measured on.
        criteria: The gaps in it, summed.
    """

    def __init__(self, neurons: _Neurons, data: Dataset, criteria: Sequence[str]) -> None:
        self.neurons, self.data, self.criteria = neurons, data, criteria
        self.x = placed(neurons.graph.module, data.x)
        self.met: dict[bytes, tuple[float, float]] = {}
        self.accuracy, _ = self.measure(np.ones(neurons.total, dtype=bool))

    def anneal(self, penalty: float, most: float, steps: int, rng: np.random.Generator) -> None:
        """Searches from the cheapest set that was met on."""
        most_dropped = max(1, int(most * self.neurons.total))
        kept = self.cheapest(penalty)
        here = self.cost(self.measure(kept), penalty)
        for temperature in HOT * COOLING ** -np.linspace(0, 1, steps):
            state = kept.copy()
            state[rng.integers(len(state))] ^= True
            if (~state).sum() > most_dropped:
                continue
            there = self.cost(self.measure(state), penalty)
            if there <= here or rng.random() < np.exp((here - there) / temperature):
                kept, here = state, there

    def cheapest(self, penalty: float) -> Mask:
        """The cheapest set that was met, ``(neurons,)``: those that are kept."""
        best = min(self.met, key=lambda key: self.cost(self.met[key], penalty))
        return np.frombuffer(best, dtype=bool)

    def cost(self, measured: tuple[float, float], penalty: float) -> float:
        """The gap, and the penalty on lost accuracy."""
        accuracy, gap = measured
        return gap + penalty * max(0.0, self.accuracy - accuracy)

    def measure(self, kept: Mask) -> tuple[float, float]:
        """Accuracy and gap; each set is measured once."""
        key = kept.tobytes()
        if key not in self.met:
            decisions = self.neurons.scores(self.x, kept) >= 0.5
            gap = sum(float(measured_gap(decisions, self.data, c)) for c in self.criteria)
            self.met[key] = float(np.mean(decisions == (self.data.y == 1))), gap
        return self.met[key]
