"""Slicing beside a forward pass of the same network on the same data.

    python benchmarks/slicing.py [--quick]

The float32 forward pass and everything that is compared with it take turns in one run, so that
whatever else the machine does hits all alike.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import fairneuron as fn
from fairneuron.batches import Batches
from fairneuron.data.dataset import Dataset
from fairneuron.models import mlp
from fairneuron.progress import quiet
from fairneuron.slicing import Slicer

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.oracles import literal_paths

GAMMA = 0.9
ORACLE = 12  # samples for the literal oracle
TEXT = """## Slicing

What `activation_paths` costs, in float32 forward passes of the same network on the same data (γ = {gamma}). The whole call is tracing, recording
in float64, means, kernel and counting; the kernel is its inner loop alone. "Rows" are the active neurons per sample: the
work grows with them, and they depend on how a network was trained, so each network is made by a seeded recipe. Times are medians of {turns} turns
in which everything is run once. "At most" and "aim" are what we set ourselves beforehand; where the whole call is above the first, it was missed.

| network | samples | rows | forward, µs a sample | whole call | at most | aim | kernel alone | whole call, 2 threads | its time, of that with one | samples a second | torch twin | literal oracle |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""  # noqa: E501
NOTES = """
Forward passes run over the same batches as slicing or in one piece, whichever is faster; with 2 threads both have 2, and
forward passes gain more from the second one than slicing does. Encoded means inputs as they
are in the table, standardised what `Dataset.split` makes of them. The oracle is `tests/oracles.py`, sample by sample, on {oracle} samples.

On small data most of a call does not depend on the samples: tracing and checking the network take {setup:.1f} ms here (3 × 32), some {fixed:.0f} forward passes of COMPAS's
training part.

The first call in a process: {first:.0f} ms, of which loading the compiled kernel {load:.1f} ms (there is no compilation at run time); the second call {second:.0f} ms.
Instruction sets of this machine: {sets}; the kernel used {best}.
"""  # noqa: E501


@dataclass(frozen=True, eq=False)
class Network:
    """A network with the data that it is sliced on.

    Attributes:
        title: Of its recipe.
        model: In eval mode.
        x: ``(n, features)``.
        most: The whole call may cost so many forward passes, and should cost ``aim``.
        aim: See there.
    """

    title: str
    model: nn.Module
    x: torch.Tensor
    most: float | None
    aim: float | None


def networks(quick: bool) -> list[Network]:
    """Those of the table, made by seeded recipes."""
    targets = {
        "fast": (8, 4),
        "slow": (28, 9),
        "compas": (28, 14),
        "wide": (26, 8),
        "": (None, None),
    }
    recipes = [
        ("census", False, 1e-2, 32, "fast"),
        ("census", False, 1e-3, 128, "slow"),
        ("census", True, 1e-2, 128, "slow"),
        ("census", True, 1e-3, 128, ""),
        ("compas", False, 1e-2, 128, "compas"),
        ("compas", True, 1e-2, 128, "compas"),
    ]
    found = []
    for name, standardised, rate, batch, target in recipes[-2:] if quick else recipes:
        train, valid = parts(name, standardised)
        width = 128 if name == "census" else 32
        schedule = fn.Schedule(epochs=10, learning_rate=rate, batch_size=batch, plateau=None)
        model = fn.train_classifier(train, valid, hidden=(width,) * 3, seed=0, schedule=schedule)
        kind = "standardised" if standardised else "encoded"
        title = f"{name}, {kind}, 3 × {width}, 10 epochs, rate {rate:g}, batches of {batch}"
        found.append(Network(title, model, train.x, *targets[target]))
    torch.manual_seed(0)
    wide = mlp(128, (512,) * 4).eval()
    x = torch.randn(512 if quick else 4096, 128)
    return [*found, Network("untrained, 4 × 512", wide, x, *targets["wide"])]


def parts(name: str, standardised: bool) -> tuple[Dataset, Dataset]:
    """70 % of the rows to train on and 10 % to validate."""
    data = fn.load_dataset(name, include_sensitive=name == "compas")
    if standardised:
        train, valid, _ = data.split(seed=0)
        return train, valid
    order = np.random.default_rng(0).permutation(len(data))
    first, last = int(0.7 * len(data)), int(0.8 * len(data))
    return data.subset(order[:first]), data.subset(order[first:last])


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Sliced:
    """What of slicing is timed, for one network."""

    def __init__(self, network: Network) -> None:
        self.model, self.x = network.model, network.x
        self.slicer = Slicer(self.model, self.x, GAMMA, "signed")
        batches = Batches(self.x, None)
        self.slicer.relative_to(self.slicer.activations.means(batches, quiet, remember=False))
        self.values = list(self.slicer.activations.of(batches))
        self.size = batches.size

    @torch.no_grad()
    def forward(self) -> None:
        """In float32, over the batches of the slicing."""
        for batch in self.x.split(self.size):
            self.model(batch)

    @torch.no_grad()
    def forward_at_once(self) -> None:
        """In float32, all samples together."""
        self.model(self.x)

    def whole(self) -> None:
        """As a user calls it."""
        fn.activation_paths(self.model, self.x, gamma=GAMMA)

    def kernel(self) -> None:
        """The walk from output to input alone, on recorded activations."""
        for values in self.values:
            self.slicer.signatures(values)

    def rows(self) -> float:
        """Active neurons per sample."""
        units = self.slicer.units
        weighted = [units.places(layer.index) for layer in self.slicer.graph.weighted]
        active = [self.slicer.signatures(values)[1] for values in self.values]
        return sum(float(a[:, own].sum()) for a in active for own in weighted) / len(self.x)


def row(network: Network, turns: int) -> str:
    """A line of the table."""
    sliced = Sliced(network)
    n = len(network.x)
    times: dict[str, list[float]] = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for turn in range(turns + 1):
            for name in ("forward", "forward_at_once", "whole", "kernel"):
                taken = seconds(getattr(sliced, name))
                if turn:  # the first one warms up
                    times.setdefault(f"{name} {threads}", []).append(taken)
    torch.set_num_threads(1)
    middle = {name: statistics.median(values) for name, values in times.items()}
    forward = {t: min(middle[f"forward {t}"], middle[f"forward_at_once {t}"]) for t in (1, 2)}
    os.environ["FAIRNEURON_KERNEL"] = "torch"
    few = network.x[:2000]
    twin = seconds(lambda: fn.activation_paths(network.model, few, gamma=GAMMA)) / len(few)
    del os.environ["FAIRNEURON_KERNEL"]
    some = network.x[:ORACLE].numpy()
    oracle = seconds(lambda: literal_paths(network.model, some, GAMMA)) / len(some)
    one = forward[1] / n
    cells = [
        network.title,
        f"{n:,}",
        f"{sliced.rows():.0f}",
        f"{1e6 * one:.2f}",
        f"**{middle['whole 1'] / forward[1]:.1f}**",
        "" if network.most is None else f"{network.most:g}",
        "" if network.aim is None else f"{network.aim:g}",
        f"{middle['kernel 1'] / forward[1]:.1f}",
        f"{middle['whole 2'] / forward[2]:.1f}",
        f"{middle['whole 2'] / middle['whole 1']:.2f}",
        f"{n / middle['whole 1']:,.0f}",
        f"{twin / one:,.0f}",
        f"{oracle / one:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


FIRST_CALL = """
import time, torch
torch.set_num_threads(1)
import fairneuron as fn
from fairneuron.models import mlp
x = torch.randn(1000, 100)
net = mlp(100, (128, 128)).eval()
net(x)
start = time.perf_counter()
from fairneuron import kernel
start = time.perf_counter()
kernel.extension()
loaded = time.perf_counter()
fn.activation_paths(net, x)
first = time.perf_counter()
fn.activation_paths(net, x)
print(loaded - start, first - start, time.perf_counter() - first)
"""


def fixed_part() -> tuple[float, float]:
    """Seconds of what a call does once, and of a forward pass, on COMPAS's training part."""
    train, _ = parts("compas", True)
    torch.manual_seed(0)
    net = mlp(train.x.shape[1], (32,) * 3).eval()
    runs = [lambda: Slicer(net, train.x, GAMMA, "signed"), torch.no_grad()(lambda: net(train.x))]
    times = [[seconds(run) for run in runs] for _ in range(30)]
    setup, forward = (statistics.median(values) for values in zip(*times, strict=True))
    return setup, forward


def section(quick: bool = False) -> str:
    """The section of ``docs/performance.md``."""
    from fairneuron.kernel import extension

    turns = 3 if quick else 15
    lines = [TEXT.format(gamma=GAMMA, turns=turns)]
    lines += [row(network, turns) for network in networks(quick)]
    shown = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, check=True
    ).stdout
    load, first, second = (1e3 * float(value) for value in shown.split())
    sets = extension().instruction_sets()
    setup, forward = fixed_part()
    notes = NOTES.format(
        load=load,
        first=first,
        second=second,
        sets=", ".join(sets),
        best=sets[0],
        oracle=ORACLE,
        setup=1e3 * setup,
        fixed=setup / forward,
    )
    return "\n".join([*lines, notes])


def main() -> None:
    """Prints the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Small data and few turns.")
    torch.set_num_threads(1)
    print(section(parser.parse_args().quick))


if __name__ == "__main__":
    main()
