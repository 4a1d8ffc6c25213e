"""Slicing a million samples of 100 columns, streamed from a Parquet file.

    python benchmarks/memory.py [--quick]

The file is made up by a seed in a temporary folder. The slicing runs in a process of its own, whose
largest resident memory is compared with that of the interpreter alone and of one that has imported
what is needed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

COLUMNS = 100
LIMIT = 1024  # MiB
TEXT = """## Memory

{rows:,} samples of {columns} columns (float32, a Parquet file of {size:.0f} MiB made by a seed) through a network with hidden layers of 128 and 128, γ = 0.9, one thread.
`activation_paths` reads the file twice, for the means and for the paths, in record batches of 4,096.

| | MiB resident, at most |
| --- | --- |
| the interpreter alone | {bare:.0f} |
| after importing torch, pyarrow, fairneuron | {imported:.0f} |
| after reading the file once, forward passes alone | {forward:.0f} |
| slicing | {peak:.0f} |
| slicing above the interpreter's own, target at most {limit} | **{above:.0f}** |

The result itself takes {result:.0f} MiB ({paths:,} paths). Slicing took {slicing:.1f} s ({speed:,.0f} samples a second); reading the file and the float32 forward passes {once:.1f} s, so slicing
costs **{ratio:.1f}** of these ({inference:.1f} s of it is the forward pass).
"""  # noqa: E501


class Parquet:
    """Batches of a file's numeric columns, as often as asked for."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __iter__(self) -> Iterator[torch.Tensor]:
        from pyarrow import parquet

        with parquet.ParquetFile(self.path, pre_buffer=False) as file:  # else it holds the file
            for batch in file.iter_batches(4096, use_threads=False):
                x = np.empty((len(batch), batch.num_columns), dtype=np.float32)
                for i, column in enumerate(batch.columns):
                    x[:, i] = column.to_numpy()
                yield torch.from_numpy(x)


def write(path: str, rows: int) -> None:
    """The file: normal numbers, and columns of zeros and ones."""
    import pyarrow
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    schema = pyarrow.schema([(f"x{i}", pyarrow.float32()) for i in range(COLUMNS)])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 50_000):
            n = min(50_000, rows - start)
            columns = [rng.standard_normal(n, dtype=np.float32) for _ in range(COLUMNS // 2)]
            columns += [(rng.random(n) < 0.3).astype(np.float32) for _ in range(COLUMNS // 2)]
            writer.write_table(pyarrow.table(dict(zip(schema.names, columns, strict=True))))


def resident() -> float:
    """The most MiB that this process ever had."""
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's too
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(path: str) -> None:
    """What the process of its own does; prints the figures."""
    import pyarrow.parquet  # noqa: F401  # counted among the imports

    import fairneuron as fn
    from fairneuron.models import mlp

    torch.set_num_threads(1)
    fn.activation_paths  # noqa: B018  # imports what it needs
    found = {"imported": resident()}
    torch.manual_seed(0)
    net = mlp(COLUMNS, (128, 128)).eval()
    start, inference = time.perf_counter(), 0.0
    with torch.no_grad():
        for batch in Parquet(path):
            began = time.perf_counter()
            net(batch)
            inference += time.perf_counter() - began
    found |= {"once": time.perf_counter() - start, "inference": inference, "forward": resident()}
    start = time.perf_counter()
    paths = fn.activation_paths(net, Parquet(path), gamma=0.9)
    found |= {"slicing": time.perf_counter() - start, "peak": resident(), "paths": len(paths)}
    arrays = (paths.path_of, paths.counts, paths.first, paths.signatures)
    found["result"] = sum(array.nbytes for array in arrays) / 2**20
    print(json.dumps(found))


def run(*arguments: str) -> str:
    """What Python prints for these arguments."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603


def section(quick: bool = False) -> str:
    """The section of ``docs/performance.md``."""
    rows = 50_000 if quick else 1_000_000
    alone = "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/x.parquet"
        write(path, rows)
        size = Path(path).stat().st_size / 2**20
        found = json.loads(run(__file__, "--measure", path))
    bare = int(run("-c", alone)) / 1024
    return TEXT.format(
        rows=rows, columns=COLUMNS, size=size, bare=bare, above=found["peak"] - bare, limit=LIMIT,
        ratio=found["slicing"] / found["once"], speed=rows / found["slicing"], **found,
    )  # fmt: skip


def main() -> None:
    """Prints the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50,000 samples.")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
    else:
        print(section(options.quick))


if __name__ == "__main__":
    main()
