"""The training loops beside textbook PyTorch: a DataLoader, Adam, ``loss.item()`` per batch.

    python benchmarks/training.py [--quick]

Both loops of a pair train the same network on the same rows with the same schedule, loss, dropout
and masks, on one thread and without validation. They take turns, so that whatever else the machine
does hits both alike.
"""

import argparse
import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler, TensorDataset

import fairneuron as fn
from fairneuron.conflict import conflict_neurons, incoming_weights, neuron_pulls
from fairneuron.data.dataset import Dataset
from fairneuron.gaps import soft_gap
from fairneuron.models import Penalty, Scores, TaskLoss, task_loss
from fairneuron.terms import Terms
from fairneuron.tracing import trace
from fairneuron.training import reproducible, train

TARGET = 0.45
SEED = 0
SETTINGS = {  # title, whether the sensitive column is an input, hidden layers, epochs per timing
    "census": ("Census", False, (128, 128, 128), 2),
    "compas": ("COMPAS", True, (32, 32, 32), 10),
}
TEXT = """## Training loops

Time per epoch beside a textbook loop: `DataLoader(TensorDataset(...), shuffle=True)`, default `torch.optim.Adam`,
`loss.item()` per batch. Both train the same network on the same rows with the same schedule, loss, dropout and masks,
on one thread, without validation. They take turns; the times are medians of {} turns of {} (Census) or {} epochs (COMPAS).
The target is a ratio of {:g}.

The losses are compared over three epochs when the textbook loop gets the rows in our order: the largest relative
difference of an epoch's loss, with the fused Adam of our loop, and of the first epoch's with the default one. The two
Adams round differently, and training amplifies that from epoch to epoch.

The matrix products alone are what both loops do alike; where they are a large part of the textbook loop, as in Census's network on a processor on which they are slow,
the ratio cannot reach the target. Without them it is that of the last column.

| data | loop | rows | batch | ours, ms | textbook, ms | ratio | of the fastest turns | losses, fused Adam | default Adam, first epoch | products alone, ms | ratio without them |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""  # noqa: E501


@dataclass(frozen=True, eq=False)
class Job:
    """What both loops do.

    Attributes:
        title: Of the loop.
        model: To train copies of.
        data: To train on.
        schedule: Without a plateau and a patience.
        dropped: ``(n,)`` rows that are trained with dropout.
        rate: Of the dropout.
        only: The elements that may change, by parameter name.
        penalty: Added to the loss.
    """

    title: str
    model: nn.Module
    data: Dataset
    schedule: fn.Schedule
    dropped: np.ndarray | None = None
    rate: float = 0.0
    only: dict[str, torch.Tensor] | None = None
    penalty: Penalty | None = None

    def copies(self) -> tuple[nn.Module, nn.Module]:
        """A model to train and what to run in its place, on the same parameters."""
        model = copy.deepcopy(self.model)
        return model, model if self.dropped is None else trace(model).with_dropout(self.rate)


def ours(job: Job, **arguments: Any) -> None:
    """The package's loop."""
    model, network = job.copies()
    run = None if network is model else network
    chosen = {"dropped": job.dropped, "run": run, "only": job.only, "penalty": job.penalty}
    finite = train(model, job.data, job.data, job.schedule, seed=SEED, **chosen, **arguments)
    assert finite  # noqa: S101


def textbook(job: Job, *, ordered: bool = False, fused: bool | None = None) -> list[float]:
    """The same as one writes it at first; the sum of the batches' losses for each epoch.

    Args:
        job: What to do.
        ordered: Whether to take the rows in the order of the package's loop.
        fused: Of Adam.
    """
    torch.manual_seed(SEED)
    model, network = job.copies()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(job.only is None or name in job.only)
    optimiser = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad],
        lr=job.schedule.learning_rate,
        betas=(0.9, 0.9999),
        fused=fused,
    )
    loaders = [(loader(job, rows, ordered), active) for rows, active in parts(job)]
    sums = []
    for _ in range(job.schedule.epochs):
        total = 0.0
        for batches, active in loaders:
            network.train(active)  # dropout alone minds: there is no batch norm
            for x, y, *group in batches:
                out = network(x).squeeze(1)
                loss = functional.binary_cross_entropy_with_logits(out, y)
                if job.penalty is not None:
                    loss = loss + job.penalty(Scores(out, y, by_class=False), y, *group, None)
                optimiser.zero_grad()
                loss.backward()
                if job.only is not None:
                    for name, parameter in model.named_parameters():
                        if name in job.only:
                            parameter.grad *= job.only[name]
                optimiser.step()
                total += loss.item()
        sums.append(total)
    return sums


def parts(job: Job) -> list[tuple[torch.Tensor, bool]]:
    """The rows without, then those with dropout."""
    if job.dropped is None:
        return [(torch.arange(len(job.data)), False)]
    return [(torch.from_numpy(np.flatnonzero(job.dropped == on)), on) for on in (False, True)]


def loader(job: Job, rows: torch.Tensor, ordered: bool) -> DataLoader:
    """Batches of some rows, shuffled; its own generator leaves the global one to dropout."""
    columns = [job.data.x, torch.from_numpy(job.data.y).float()]
    if job.penalty is not None:
        columns.append(torch.from_numpy(job.data.group))
    table = TensorDataset(*(column[rows] for column in columns))
    how: dict[str, Any] = {"sampler": Permuted(len(rows))} if ordered else {"shuffle": True}
    return DataLoader(table, batch_size=job.schedule.batch_size, generator=torch.Generator(), **how)


class Permuted(Sampler):
    """The order that the package's loop draws from torch's global generator."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(self.rows).tolist()


@dataclass(frozen=True, eq=False)
class Noting(Terms):
    """The default terms, which also note each training loss."""

    seen: list[float] = field(default_factory=list)

    @property
    def task_loss(self) -> TaskLoss:
        """Cross entropy."""
        return self.noted(task_loss)

    def noted(self, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """The function, whose values are noted."""

        def noting(*arguments: Any) -> torch.Tensor:
            value = function(*arguments)
            self.seen.append(value.item())
            return value

        return noting


def losses(job: Job) -> list[float]:
    """The sum of the batches' losses in the package's loop, for each epoch."""
    terms, sums = Noting(), []
    if job.penalty is not None:
        job = dataclasses.replace(job, penalty=terms.noted(job.penalty))

    def epoch_ends(*_: object) -> None:
        sums.append(sum(terms.seen))
        terms.seen.clear()

    ours(job, terms=terms, progress=epoch_ends)
    return sums


def differences(job: Job, *, fused: bool | None) -> list[float]:
    """Relative difference of each of three epochs' losses, over the rows in the same order."""
    job = dataclasses.replace(job, schedule=dataclasses.replace(job.schedule, epochs=3))
    with reproducible(SEED):
        theirs = textbook(job, ordered=True, fused=fused)
    pairs = zip(losses(job), theirs, strict=True)
    return [abs(a - b) / abs(b) for a, b in pairs]


@torch.no_grad()
def products(job: Job) -> None:
    """The matrix products of a training of all weights, and nothing else; no loop can do less."""
    layers = [module for module in job.model if isinstance(module, nn.Linear)]
    for _ in range(job.schedule.epochs):
        for x in job.data.x.split(job.schedule.batch_size):
            inputs = [x]
            for layer in layers:
                inputs.append(torch.addmm(layer.bias, inputs[-1], layer.weight.T))
            gradient = inputs.pop()
            for layer in reversed(layers):
                _ = gradient.T @ inputs.pop()
                gradient = gradient @ layer.weight if inputs else gradient


def seconds(run: Callable[[Job], object], job: Job) -> float:
    """Per epoch."""
    start = time.perf_counter()
    run(job)
    return (time.perf_counter() - start) / job.schedule.epochs


def gap(
    scores: Scores, y: torch.Tensor, group: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    """The penalty of the default recipe for λ = 0.33."""
    return 0.33 * soft_gap(scores.positive, y, group, ("dp",), weight)


def jobs(model: nn.Module, data: Dataset, epochs: int) -> Iterator[Job]:
    """Every kind of loop: of training, and of either recipe."""
    make = partial(Job, model=model, data=data)
    plan = partial(dataclasses.replace, epochs=epochs, plateau=None, min_steps=0)
    yield make(title="ordinary", schedule=plan(fn.Schedule()))

    paper, conflict = fn.Paper(), fn.Conflict()
    rows = np.random.default_rng(SEED).random(len(data)) < 0.3
    schedule = plan(paper.schedule)
    yield make(title="selective dropout", schedule=schedule, dropped=rows, rate=paper.dropout)

    graph = trace(model)
    neurons = conflict_neurons(neuron_pulls(graph, data, ("dp",)), 0.1)
    only = incoming_weights(graph, data, neurons)
    schedule = plan(conflict.schedule)
    yield make(title="conflict neurons", schedule=schedule, only=only, penalty=gap)


def on_data(name: str) -> Iterator[Job]:
    """The same on a data set, for a network that was trained for a while."""
    _, include, hidden, epochs = SETTINGS[name]
    data, valid, _ = fn.load_dataset(name, include_sensitive=include).split(SEED)
    schedule = fn.Schedule(epochs=epochs, plateau=None)
    model = fn.train_classifier(data, valid, hidden=hidden, seed=SEED, schedule=schedule)
    yield from jobs(model, data, epochs)


def section(quick: bool = False) -> str:
    """Measures everything.

    Args:
        quick: Whether to take three turns instead of fifteen.

    Returns:
        A Markdown section.
    """
    turns = 3 if quick else 15
    lines = [TEXT.format(turns, *(setting[-1] for setting in SETTINGS.values()), TARGET)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, (title, *_) in SETTINGS.items():
            for job in on_data(name):
                same = max(differences(job, fused=True))  # warms both up too
                first = differences(job, fused=None)[0]
                timed = (ours, textbook, products)
                times = [[seconds(run, job) for run in timed] for _ in range(turns)]
                one, other, least = (statistics.median(t) for t in zip(*times, strict=True))
                best, other_best, _ = (min(t) for t in zip(*times, strict=True))
                rest = f"{least * 1e3:.1f} | {(one - least) / (other - least):.2f}"
                rest = rest if job.only is None else " | "
                lines.append(
                    f"| {title} | {job.title} | {len(job.data):,} | {job.schedule.batch_size} "
                    f"| {one * 1e3:.1f} | {other * 1e3:.1f} | {one / other:.2f} "
                    f"| {best / other_best:.2f} | {same:.0e} | {first:.0e} | {rest} |"
                )
    finally:
        torch.set_num_threads(threads)
    return "\n".join(lines)


def main() -> None:
    """Prints the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="three turns instead of fifteen")
    print(section(parser.parse_args().quick))


if __name__ == "__main__":
    main()
