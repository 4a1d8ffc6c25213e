"""Slicing on CUDA, where the torch twin of the kernel does the work.

    python benchmarks/gpu.py [--quick]

Absolute times. Every partition is compared with that of the CPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import fairneuron as fn
from fairneuron.models import mlp
from fairneuron.reproduce.resnet import resnet18

TEXT = """## CUDA

Slicing where the network and its activations are on the GPU, by the torch twin of the kernel (γ = 0.9, batches of {batch:,}): {device}, torch {torch}.
Paths are compared with those of the same machine's CPU.

| network | samples | forward, float32, ms | whole call, ms | samples a second | same paths as on the CPU |
| --- | --- | --- | --- | --- | --- |"""  # noqa: E501
BATCH = 16384


def networks(quick: bool) -> list[tuple[str, nn.Module, torch.Tensor]]:
    """A trained one with its data, and two made up."""
    data = fn.load_dataset("census")
    train, valid, _ = data.split(seed=0)
    schedule = fn.Schedule(epochs=2 if quick else 10)
    net = fn.train_classifier(train, valid, hidden=(128,) * 3, seed=0, schedule=schedule)
    torch.manual_seed(0)
    n = 2000 if quick else 20_000
    images = torch.randn(n // 10, 3, 32, 32)
    return [
        ("census, standardised, 3 × 128", net, train.x[:2000] if quick else train.x),
        ("untrained, 4 × 512", mlp(128, (512,) * 4).eval(), torch.randn(n, 128)),
        ("untrained, 2 × 128, 100 inputs", mlp(100, (128, 128)).eval(), torch.randn(10 * n, 100)),
        ("untrained, ResNet-18, 3 × 32 × 32", resnet18().eval(), images),
    ]


def milliseconds(run: Callable[[], object], turns: int) -> float:
    """Median time of a call, until the GPU is done."""
    times = []
    for turn in range(turns + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times += [time.perf_counter() - start] * bool(turn)  # the first one warms up
    return 1e3 * statistics.median(times)


@torch.no_grad()
def forward(model: nn.Module, x: torch.Tensor) -> None:
    """In float32."""
    for batch in x.split(BATCH):
        model(batch)


def row(title: str, model: nn.Module, x: torch.Tensor, turns: int) -> str:
    """A line of the table."""
    on_cpu = fn.activation_paths(model, x)
    there = x.cuda()
    model.cuda()
    once = milliseconds(lambda: forward(model, there), 5)
    whole = milliseconds(lambda: fn.activation_paths(model, x, batch_size=BATCH), turns)
    found = fn.activation_paths(model, x, batch_size=BATCH)
    pairs = found.signatures[found.path_of], on_cpu.signatures[on_cpu.path_of]
    different = int((pairs[0] != pairs[1]).any(1).sum())
    same = f"no: {different} differ" if different else "yes"
    speed = 1e3 * len(x) / whole
    return f"| {title} | {len(x):,} | {once:.2f} | {whole:.0f} | {speed:,.0f} | {same} |"


def section(quick: bool = False) -> str:
    """The section of ``docs/performance.md``."""
    device = torch.cuda.get_device_name()
    lines = [TEXT.format(batch=BATCH, device=device, torch=torch.__version__)]
    lines += [row(*network, 1 if quick else 3) for network in networks(quick)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Small data and few turns.")
    print(section(parser.parse_args().quick))


if __name__ == "__main__":
    main()
