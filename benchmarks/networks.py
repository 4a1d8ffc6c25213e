"""Slicing of whole networks: a residual network of images, by the rules of its convolutions.

    python benchmarks/networks.py [--quick]

In forward passes of the same network on the same images, float32, all in turn on one thread.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import fairneuron as fn
from fairneuron.reproduce.resnet import resnet18

TEXT = """## Slicing of whole networks

ResNet-18 (`fairneuron.reproduce.resnet`, width 64) on images of 3 × 32 × 32 of noise, after {steps} steps of training on noise (γ = 0.9), in float32 forward passes of the same
images in batches of 64; processor time of one thread, of one call (forward passes: the median of three). Nearly all of it is the network's own forward in float64, which makes paths independent of batches: a double convolution costs
several single ones. Up to some 450 images it runs once, as what is read for the means is remembered (128 MiB); of more it runs twice. Target: at most 10 forward passes.

| images | forward passes, exact rules | activation × gradient | one forward pass in float64, by torch's convolutions |
| --- | --- | --- | --- |
{rows}

Memory, more than before the call at the most (batches of 64): {small} MB for {few} images, {large} MB for {many}. A ResNet-18 of width 16: {narrow} MB for {many}, {most} MB for {sixteen:,}: it is
bounded by the batch and what is remembered, not by the data.
"""  # noqa: E501
STEPS = 20


def network(steps: int = STEPS) -> nn.Module:
    """With statistics and weights that training has moved."""
    torch.manual_seed(0)
    net = resnet18().train()
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(torch.randn(32, 3, 32, 32)), torch.arange(32) % 10)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def processor_time(run: Callable[[], object], turns: int) -> float:
    """Median of some calls."""
    times = []
    for _ in range(turns):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def row(net: nn.Module, images: int, *, gradient: bool) -> str:
    """A line of the table."""
    x = torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    twin = network(0).double()
    twin.load_state_dict(net.state_dict())

    @torch.no_grad()
    def forward(model: nn.Module, x: torch.Tensor) -> None:
        for batch in x.split(64):
            model(batch)

    forward(net, x[:64])
    one = processor_time(lambda: forward(net, x), 3)
    ways: list[dict[str, str]] = [{}, {"contribution": "gradient"}] if gradient else [{}]
    cells = [
        processor_time(lambda o=options: fn.activation_paths(net, x, batch_size=64, **o), 1)
        for options in ways
    ]
    double = processor_time(lambda: forward(twin, x.double()), 1)
    shown = [f"{cell / one:.1f}" for cell in cells] + [""] * (2 - len(cells))
    return f"| {images} | {' | '.join(shown)} | {double / one:.1f} |"


def growth(images: int, width: int = 64) -> int:
    """Peak memory of slicing so many images in a process of its own, over what it had, in MB."""
    code = f"import networks; networks.print_growth({images}, {width})"
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=__file__.rpartition("/")[0] or ".",
    )  # fmt: skip
    return int(done.stdout)


def print_growth(images: int, width: int) -> None:
    """Of this process."""
    torch.set_num_threads(1)
    net = resnet18(width=width).eval()
    x = torch.randn(images, 3, 32, 32)
    fn.activation_paths(net, x[:2])
    before = peak()
    fn.activation_paths(net, x, batch_size=64)
    print(peak() - before)


def peak() -> int:
    """Of this process so far, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def section(quick: bool) -> str:
    """The part of ``docs/performance.md``."""
    torch.set_num_threads(1)
    net = network(2 if quick else STEPS)
    counts = (64,) if quick else (256, 1024)
    rows = "\n".join(row(net, n, gradient=n == counts[0]) for n in counts)
    few, many = counts[0], 4 * counts[0]
    return TEXT.format(
        steps=2 if quick else STEPS, rows=rows, few=few, many=many, sixteen=8 * many,
        small=growth(few), large=growth(many), narrow=growth(many, 16), most=growth(8 * many, 16),
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Few images and turns.")
    print(section(parser.parse_args().quick))
