"""Which few neurons carry the gap: what goes when rules pick 3 % of them for retraining.

    python experiments/localisation.py --seeds 20 --census-seeds 10 > docs/localisation.md

Every rule sees training data alone; all retrainings of a data set have the same λ and schedule.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

import numpy as np
import torch
from scipy.stats import wilcoxon
from torch import nn

import fairneuron as fn
from fairneuron.conflict import Neuron, incoming_weights, neuron_pulls
from fairneuron.gaps import gap_penalty, soft_gap
from fairneuron.models import task_loss
from fairneuron.search.together import Job, train_together
from fairneuron.tracing import trace

FIRST_SEED = 300
SHARE = 0.03
DRAWS = 8  # of random neurons, per seed
SETTINGS = {
    "compas": ("COMPAS, race an input", True, (32, 32, 32)),
    "census": ("Census, sex not an input", False, (128, 128, 128)),
}
LEARNING_RATE = {"compas": 0.004, "census": 0.0024}  # wider layers take smaller steps
STEPS, BATCH = 90, 512  # at least; whole epochs
SAMPLE = 4000  # rows for rules that need a pass, or a matrix, per neuron
Scores = list[torch.Tensor]  # (units,) per hidden layer; the largest are picked


@dataclass(frozen=True, eq=False)
class Task:
    """What is retrained on, and how.

    Attributes:
        train: All that rules see.
        valid: Unused by this schedule.
        criterion: The gap, "dp" or "eo".
        strength: λ.
        learning_rate: Of the retraining.
        seed: Of the order of the rows.
    """

    train: fn.Dataset
    valid: fn.Dataset
    criterion: str
    strength: float
    learning_rate: float
    seed: int

    def retrain(
        self, nets: Sequence[nn.Module], neurons: Sequence[list[Neuron] | None], steps: int = STEPS
    ) -> None:
        """Trains networks in place, each its neurons' incoming weights alone (None: everything)."""
        masks = [
            None if n is None else incoming_weights(trace(net), self.train, n)
            for net, n in zip(nets, neurons, strict=True)
        ]
        train_together(
            [Job(net, mask, self.strength) for net, mask in zip(nets, masks, strict=True)],
            self.train,
            self.valid,
            fn.Schedule(
                epochs=max(1, steps * BATCH // len(self.train)),
                batch_size=BATCH,
                learning_rate=self.learning_rate,
                plateau=None,
                min_steps=min(steps, STEPS),
            ),
            seed=self.seed,
            penalty=gap_penalty((self.criterion,)),
        )


class View:
    """What rules read: a network and the training data's gradients in it.

    Args:
        net: Linear layers with an activation after each but the last.
        task: Of which the training data are seen.
    """

    def __init__(self, net: nn.Sequential, task: Task) -> None:
        self.net, self.task, self.data = net, task, task.train
        data = self.data
        self.graph = trace(net)
        linear = [m for m in net if isinstance(m, nn.Linear)]
        self.hidden, self.head = linear[:-1], linear[-1]
        self.names = [name for name, m in net.named_children() if m in set(self.hidden)]
        self.weights = [rows(m.weight, m.bias) for m in self.hidden]
        x = torch.as_tensor(data.x)
        values = [x]
        with torch.enable_grad():
            for module in net:
                values.append(module(values[-1]))
            self.inner = [values[int(name) + 1] for name in self.names]  # before the activation
            self.activations = [values[int(name) + 2] for name in self.names]
            out = values[-1].squeeze(1)
            goals = self.gap(out.sigmoid()), task_loss(out, torch.from_numpy(data.y)), out.sum()
            wanted = [p for m in self.hidden for p in (m.weight, m.bias)]
            found = [
                torch.autograd.grad(
                    goal, [*wanted, *self.activations, *self.inner], retain_graph=True
                )
                for goal in goals
            ]
        n = len(self.hidden)
        self.of_gap, self.of_loss = (
            [rows(*g[2 * i : 2 * i + 2]) for i in range(n)] for g in found[:2]
        )
        self.by_activation = found[0][2 * n : 3 * n]  # (samples, units) d gap / d activation
        self.by_inner = found[2][3 * n :]  # d logit / d value before the activation
        self.out = out.detach()
        self.activations = [a.detach() for a in self.activations]

    def gap(self, scores: torch.Tensor, part: np.ndarray | slice = slice(None)) -> torch.Tensor:
        """The differentiable gap of scores ``(..., n)``."""
        y, group = (torch.from_numpy(c[part]) for c in (self.data.y, self.data.group))
        return soft_gap(scores, y, group, (self.task.criterion,))

    @cached_property
    def sample(self) -> np.ndarray:
        """Some rows."""
        some = np.random.default_rng(self.task.seed).permutation(len(self.data))
        return np.sort(some[:SAMPLE])

    def scores_with(self, layer: int, activation: torch.Tensor) -> torch.Tensor:
        """Scores if the layer's activation were another."""
        return self.net[int(self.names[layer]) + 2 :](activation).squeeze(-1).sigmoid()

    @cached_property
    def all_retrained(self) -> View:
        """The network after all neurons were retrained."""
        net = copy.deepcopy(self.net)
        self.task.retrain([net], [None])
        return View(net, self.task)

    @cached_property
    def path_use(self) -> tuple[Scores, Scores]:
        """Share of the samples whose path has the neuron, and how the groups differ in it."""
        found = fn.path_neurons(self.net, self.data.x, self.data.group)
        counts = [torch.from_numpy(c).double() for c in found.counts[1:]]  # (groups, units)
        people = torch.from_numpy(found.samples).double()
        return (
            [c.sum(0) / people.sum() for c in counts],
            [(c / people[:, None]).diff(dim=0)[0].abs() for c in counts],
        )


def rows(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A neuron's incoming weights and bias as a row, ``(units, fan_in + 1)``."""
    return torch.cat([weight, bias[:, None]], 1).detach()


def norm(view: View) -> Scores:
    """The norm of the gap's gradient by the neuron's incoming weights."""
    return [g.norm(dim=1) for g in view.of_gap]


def across(view: View) -> Scores:
    """The norm of the part of that gradient at right angles to the loss's."""
    pairs = zip(view.of_gap, view.of_loss, strict=True)
    return [g.norm(dim=1) * (1 - cosine(g, h) ** 2).clamp(min=0).sqrt() for g, h in pairs]


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of the rows."""
    return torch.nn.functional.cosine_similarity(a, b, dim=1)


def active(view: View) -> Scores:
    """The share of samples on which the neuron is above 0."""
    return [(a > 0).float().mean(0) for a in view.activations]


def times(*rules: Callable[[View], Scores]) -> Callable[[View], Scores]:
    """The product of rules."""

    def product(view: View) -> Scores:
        return [torch.stack(parts).prod(0) for parts in zip(*(r(view) for r in rules), strict=True)]

    return product


def curved(view: View, ridge: float = 0.01) -> Scores:
    """The gradient's squared norm in the metric of the loss's curvature (Gauss-Newton)."""
    scale = view.out.sigmoid() * (1 - view.out.sigmoid())
    before = [torch.as_tensor(view.data.x), *view.activations]
    found = []
    for g, a, d in zip(view.of_gap, before, view.by_inner, strict=False):
        part = rows(a[view.sample], torch.ones(len(view.sample)))
        weight = scale[view.sample, None] * d[view.sample] ** 2 / len(view.sample)
        eye = ridge * torch.eye(part.shape[1])
        found.append(
            torch.stack(
                [
                    row @ torch.linalg.solve(part.T @ (part * w[:, None]) + eye, row)
                    for row, w in zip(g, weight.T, strict=True)
                ]
            )
        )
    return found


def weighted(view: View) -> Scores:
    """Σ (w · ∂gap/∂w)²."""
    return [((w * g) ** 2).sum(1) for w, g in zip(view.weights, view.of_gap, strict=True)]


def taylor(view: View) -> Scores:
    """By how much removing the neuron's relative activation shrinks the gap, to first order."""
    pairs = zip(view.activations, view.by_activation, strict=True)
    return [((a - a.mean(0)) * g).sum(0) for a, g in pairs]


def ablation(view: View) -> Scores:
    """How far the gap shrinks with the neuron at its mean, on some rows."""
    found = []
    with torch.no_grad():
        for layer, a in enumerate(view.activations):
            gaps = []
            for unit in range(a.shape[1]):
                changed = a[view.sample].clone()
                changed[:, unit] = a[:, unit].mean()
                gaps.append(view.gap(view.scores_with(layer, changed), view.sample))
            found.append(-torch.stack(gaps))
    return found


def moved(view: View) -> Scores:
    """How far its weights move when all neurons are retrained."""
    pairs = zip(view.all_retrained.weights, view.weights, strict=True)
    return [(b - a).norm(dim=1) for b, a in pairs]


def integrated(view: View, steps: int = 5) -> Scores:
    """Integrated gradients of the gap from the network to the all-retrained one."""
    end, net = view.all_retrained, copy.deepcopy(view.net)
    total = [torch.zeros(len(w)) for w in view.weights]
    pairs = list(zip(view.weights, end.weights, strict=True))
    for step in range(steps):
        share = (step + 0.5) / steps
        with torch.no_grad():
            both = zip(view.net.parameters(), end.net.parameters(), strict=True)
            for own, (p, q) in zip(net.parameters(), both, strict=True):
                own.copy_(p + share * (q - p))
        there = View(net, view.task).of_gap
        for sum_, g, (a, b) in zip(total, there, pairs, strict=True):
            sum_ -= (g * (b - a)).sum(1) / steps  # noqa: PLW2901  # in place
    return total


def after_all(view: View) -> Scores:
    """``active`` times ``across`` before and after all neurons were retrained, the mean."""
    rule = times(active, across)
    return [(a + b) / 2 for a, b in zip(rule(view), rule(view.all_retrained), strict=True)]


def balanced(view: View) -> Scores:
    """``norm``, by its norm over the layer."""
    return [s / s.norm() for s in norm(view)]


def within(rule: Callable[[View], Scores], layer: int) -> Callable[[View], Scores]:
    """A rule in one layer alone."""

    def one(view: View) -> Scores:
        found = rule(view)
        kept = range(len(found))[layer]
        return [s if i == kept else torch.full_like(s, -torch.inf) for i, s in enumerate(found)]

    return one


RULES: dict[str, Callable[[View], Scores]] = {
    "norm of ∂gap/∂(incoming weights)": norm,
    "across: its part at right angles to ∂loss/∂(incoming weights)": across,
    "share of samples on which it is active × norm": times(active, norm),
    "**active × across**: share of samples on which it is active × across": times(active, across),
    "share of paths that have it × norm": times(lambda v: v.path_use[0], norm),
    "share of paths that have it × across": times(lambda v: v.path_use[0], across),
    "share of paths that have it": lambda v: v.path_use[0],
    "difference of the groups in that share": lambda v: v.path_use[1],
    "gradient in the metric of the loss's curvature": curved,
    "Σ (w · ∂gap/∂w)²": weighted,
    "first-order effect of its relative activation, absolute": lambda v: [
        t.abs() for t in taylor(v)
    ],
    "the same, signed": taylor,
    "gap with it held at its mean, exact": ablation,
    "norm, balanced over layers": balanced,
    "norm, first hidden layer": within(norm, 0),
    "norm, last hidden layer": within(norm, -1),
    "active × across, before and after all are retrained": after_all,
    "moved farthest when all are retrained": moved,
    "integrated gradients to the network with all retrained": integrated,
    "the weakest norm": lambda v: [-s for s in norm(v)],
}
ITERATED = "active × across, picked in up to 3 rounds, retrained for a while between"
RANDOM, ALL = "random", "all neurons"


def pick(view: View, rule: Callable[[View], Scores], count: int) -> list[Neuron]:
    """The neurons with the largest scores."""
    ranked = sorted(
        (-float(s), layer, unit)
        for layer, scores in enumerate(rule(view))
        for unit, s in enumerate(scores)
    )
    return [Neuron(view.names[layer], unit, -s, 0.0) for s, layer, unit in ranked[:count]]


def iterated(view: View, count: int, rounds: int = 3) -> list[Neuron]:
    """Picks a part, retrains it for a while, looks again."""
    chosen: list[Neuron] = []
    now, rounds = view, min(rounds, count)
    for turn in range(rounds):
        known = {(n.layer, n.unit) for n in chosen}
        ranked = pick(now, times(active, across), count + len(chosen))
        wanted = count * (turn + 1) // rounds - len(chosen)
        chosen += [n for n in ranked if (n.layer, n.unit) not in known][:wanted]
        if turn + 1 < rounds:
            net = copy.deepcopy(view.net)
            view.task.retrain([net], [chosen], STEPS // 2)
            now = View(net, view.task)
    return chosen


@dataclass(frozen=True)
class Row:
    """What a rule reached with one seed, on test data."""

    accuracy: float
    gap: float


def measure(
    name: str, seed: int, criterion: str, strength: float
) -> tuple[dict[str, list[Row]], int, int]:
    """Rows by rule (several of random neurons), and how many neurons of how many."""
    _, include, hidden = SETTINGS[name]
    train, valid, test = fn.load_dataset(name, include_sensitive=include).split(seed)
    net = fn.train_classifier(train, valid, hidden=hidden, seed=seed)
    task = Task(train, valid, criterion, strength, LEARNING_RATE[name], seed)
    view = View(net, task)
    neurons = neuron_pulls(view.graph, train, (criterion,))
    count = max(1, int(SHARE * len(neurons)))
    draw = random.Random(seed)  # noqa: S311
    picks: list[tuple[str, list[Neuron] | None]] = [
        *((title, pick(view, rule, count)) for title, rule in RULES.items()),
        (ITERATED, iterated(view, count)),
        *((RANDOM, draw.sample(neurons, count)) for _ in range(DRAWS)),
        (ALL, None),
    ]
    nets = [copy.deepcopy(net) for _ in picks]
    task.retrain(nets, [chosen for _, chosen in picks])
    found: dict[str, list[Row]] = {"nothing": [row(net, test, criterion)]}
    for repaired, (title, _) in zip(nets, picks, strict=True):
        found.setdefault(title, []).append(row(repaired, test, criterion))
    return found, count, len(neurons)


def row(net: nn.Module, test: fn.Dataset, criterion: str) -> Row:
    """Accuracy and gap."""
    metrics = fn.audit(net, test).metrics
    return Row(metrics["accuracy"], metrics[criterion])


def interval(above: np.ndarray, below: np.ndarray) -> str:
    """Ratio of the means of two columns, with a bootstrap interval over seeds."""
    draws = np.random.default_rng(0).integers(len(above), size=(5000, len(above)))
    low, high = np.percentile(above[draws].mean(1) / below[draws].mean(1), [2.5, 97.5])
    return f"{above.mean() / below.mean():.2f} ({low:.2f} to {high:.2f})"


def table(name: str, seeds: int, criterion: str, strength: float) -> None:
    """Prints the table of a data set."""
    runs, start = [], time.perf_counter()
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        found, count, hidden = measure(name, seed, criterion, strength)
        runs.append(found)
        print(
            name, criterion, strength, seed, f"{time.perf_counter() - start:.0f} s", file=sys.stderr
        )
    accuracy, gap = (
        {
            title: np.array([np.mean([getattr(r, what) for r in run[title]]) for run in runs])
            for title in runs[0]
        }
        for what in ("accuracy", "gap")
    )
    removed = {title: gap["nothing"] - g for title, g in gap.items()}
    print(
        f"\n## {SETTINGS[name][0]}, {criterion.upper()}, λ {strength:g}, {seeds} seeds, "
        f"{count} of {hidden} neurons\n\n"
        f"| rule | accuracy | {criterion.upper()} | removed / removed by all | "
        "removed / removed by random | p, more than twice the random |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for title in sorted(gap, key=lambda t: gap[t].mean()):
        cells = [f"{accuracy[title].mean():.3f}", f"{gap[title].mean():.3f}"]
        if title == "nothing":
            cells += ["", "", ""]
        else:
            twice = removed[title] - 2 * removed[RANDOM]
            p = wilcoxon(twice, alternative="greater").pvalue
            cells += [
                interval(removed[title], removed[ALL]),
                interval(removed[title], removed[RANDOM]),
            ]
            cells += ["" if title == RANDOM else f"{p:.1g}"]
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


HEAD = """# Localisation

Which few neurons carry the gap. Each rule picks {:.0%} of the hidden neurons (rounded down) on training data; their incoming
weights and biases alone are then retrained on loss + λ · gap. Means over seeds, on test data; intervals are 95 %
bootstrap intervals of the ratio of means over seeds; p is Wilcoxon's signed-rank test, one-sided. A random pick is the mean of
{} draws per seed. The seeds start at {}: none of these splits was looked at while the rules were chosen.

Made by `python experiments/localisation.py {}` with fairneuron {}, torch {}."""  # noqa: E501


def main() -> None:
    """Prints a Markdown page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--census-seeds", type=int, default=10)
    parser.add_argument("--criteria", default="dp,eo", help="dp, eo or both")
    parser.add_argument("--strengths", default="1.4", help="λ, several with commas")
    options = parser.parse_args()
    arguments = f"--seeds {options.seeds} --census-seeds {options.census_seeds}"
    arguments += f" --criteria {options.criteria} --strengths {options.strengths}"
    print(HEAD.format(SHARE, DRAWS, FIRST_SEED, arguments, version("fairneuron"), version("torch")))
    for name, seeds in (("compas", options.seeds), ("census", options.census_seeds)):
        for criterion in options.criteria.split(",") if seeds else ():
            for strength in options.strengths.split(","):
                table(name, seeds, criterion, float(strength))


if __name__ == "__main__":
    main()
