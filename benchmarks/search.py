"""A search over 36 candidates beside one plain training of a network with a DataLoader.

    python benchmarks/search.py [--quick | --repairs]

The plain training is that of one network of the search: the same rows, batch size and number of
epochs, in a textbook loop. All run on one thread, and take turns.
"""

import argparse
import copy
import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn
from training import Job as Loop
from training import textbook

import fairneuron as fn
from fairneuron.data.dataset import Dataset
from fairneuron.gaps import gap_penalty
from fairneuron.search.together import Job, train_together

SETTINGS = {  # title, whether the sensitive column is an input, hidden layers
    "compas": ("COMPAS", True, (32, 32, 32)),
    "census": ("Census", False, (128, 128, 128)),
}
SHARES, STOPS = (0.03, 0.1, 0.3), tuple(np.linspace(0.9, 0, 12).tolist())
GAMMAS = (0.5, 0.7, 0.9)
THETAS = tuple(np.geomspace(1e-4, 1, 12).tolist())
STRENGTHS = tuple(np.geomspace(0.05, 3, 36).tolist())
EPOCHS = 10
TEXT = """## Search

What a search over 36 candidates costs, slicing, training and auditing of all candidates included, as a ratio to one plain training of one of its networks:
a textbook loop (`DataLoader`, default Adam, `loss.item()` per batch) over the same rows, with the same batch size and number of epochs, without a penalty or dropout.
On one thread; medians of {} turns. The target is a ratio of 2 on COMPAS and of 8 on Census.

- *Default recipe*: 3 shares of neurons × 12 stops on the way; 3 networks are retrained.
- *36 strengths*: the default recipe's retraining of all neurons with 36 λ, so 36 networks, without stops.
- *Recipe paper*: 3 γ × 12 θ. γ is sliced once; splits that come out alike are one. {} epochs in batches of 128.

| data | search | networks trained | search, s | plain training, s | ratio |
| --- | --- | --- | --- | --- | --- |"""  # noqa: E501


def searches(
    model: nn.Module, train: Dataset, valid: Dataset
) -> dict[str, tuple[Callable[[], int], fn.Schedule]]:
    """By name what to run, which returns how many networks it trained, and their schedule."""
    retraining = fn.Conflict().schedule
    published = dataclasses.replace(fn.Paper().schedule, epochs=EPOCHS)

    def conflict() -> int:
        found = fn.FairNeuron(neuron_share=SHARES, stops=STOPS)
        tried = [settings for settings, *_ in found.candidates(model, train, valid, seed=0)]
        return len({settings["neuron_share"] for settings in tried})

    def strengths() -> int:
        jobs = [Job(copy.deepcopy(model), strength=s) for s in STRENGTHS]
        train_together(jobs, train, valid, retraining, seed=0, penalty=gap_penalty(("dp",)))
        for job in jobs:
            fn.audit(job.model, valid)
        return len(jobs)

    def paper() -> int:
        found = fn.FairNeuron("paper", gamma=GAMMAS, theta=THETAS, schedule=published)
        return sum(1 for _ in found.candidates(model, train, valid, seed=0))

    return {
        "default recipe": (conflict, retraining),
        "36 strengths": (strengths, retraining),
        "recipe paper": (paper, published),
    }


REPAIR = """
A whole repair with the default recipe (slicing, search, choice, explanation, verdict with its bootstrap) as a ratio to one training of the base model by `train_classifier`, in memory.
Medians of {} turns. The target is a ratio of 6 on COMPAS and of 3 on Census. Candidates: the same without choice, explanation and verdict.

| data | repair, s | candidates, s | base training, s | repair / base | candidates / base |
| --- | --- | --- | --- | --- | --- |"""  # noqa: E501


def repairs(name: str, turns: int) -> str:
    """A row of the second table."""
    title, include, hidden = SETTINGS[name]
    train, valid, _ = fn.load_dataset(name, include_sensitive=include).split(0)
    train_base = partial(fn.train_classifier, train, valid, hidden=hidden, seed=0)
    model = train_base()

    def candidates() -> None:
        for _ in fn.FairNeuron().candidates(model, train, valid, seed=0):
            pass

    timed = (partial(fn.repair, model, train, valid), candidates, train_base)
    times = [[seconds(one) for one in timed] for _ in range(turns)]
    whole, search, base = (statistics.median(t) for t in zip(*times, strict=True))
    ratios = f"{whole / base:.2f} | {search / base:.2f}"
    return f"| {title} | {whole:.2f} | {search:.2f} | {base:.2f} | {ratios} |"


def seconds(run: Callable[[], object]) -> float:
    """What it takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def section(quick: bool = False) -> str:
    """Measures everything.

    Args:
        quick: Whether to take one turn instead of three.

    Returns:
        A Markdown section.
    """
    turns = 1 if quick else 3
    lines = [TEXT.format(turns, EPOCHS)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, (title, include, hidden) in SETTINGS.items():
            train, valid, _ = fn.load_dataset(name, include_sensitive=include).split(0)
            model = fn.train_classifier(train, valid, hidden=hidden, seed=0)
            for what, (run, schedule) in searches(model, train, valid).items():
                epochs = schedule.epochs_for(len(train))
                plain = dataclasses.replace(schedule, epochs=epochs, plateau=None)
                loop = Loop(title=title, model=model, data=train, schedule=plain)
                networks, once = run(), dataclasses.replace(plain, epochs=1)
                textbook(dataclasses.replace(loop, schedule=once))  # warms up
                pair = run, partial(textbook, loop)
                times = [[seconds(one) for one in pair] for _ in range(turns)]
                ours, theirs = (statistics.median(t) for t in zip(*times, strict=True))
                lines.append(
                    f"| {title} | {what} | {networks} | {ours:.2f} | {theirs:.2f} "
                    f"| {ours / theirs:.2f} |"
                )
    finally:
        torch.set_num_threads(threads)
    return "\n".join([*lines, whole_repairs(turns)])


def whole_repairs(turns: int) -> str:
    """The second table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return "\n".join([REPAIR.format(turns), *(repairs(name, turns) for name in SETTINGS)])
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    """Prints the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one turn instead of three")
    parser.add_argument("--repairs", action="store_true", help="the second table, five turns")
    given = parser.parse_args()
    print(whole_repairs(5) if given.repairs else section(given.quick))


if __name__ == "__main__":
    main()
