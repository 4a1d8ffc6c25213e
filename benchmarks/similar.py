"""Sketches of sets of units, beside a library's and a plain way to make them.

    python benchmarks/similar.py [--quick]

Processor time of one thread, all on the same sets.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from datasketch import MinHash

from fairneuron.similar import Sketcher

TEXT = """## Similar paths

MinHash of sets of units (`similarity=.9`: {hashes} numbers a set), processor time of one thread. *Unit by unit* is ours: each unit lowers the numbers of the sets that have it, all at once. *All at once*: the least of a table of sets × numbers × units, in torch, to the same numbers. datasketch's
`MinHash.bulk` makes a set's numbers after the other's; its hash functions are others.

| sets | of how many units | in each | unit by unit, µs a set | all at once, of that | datasketch, of that |
| --- | --- | --- | --- | --- | --- |
{rows}
"""  # noqa: E501


def all_at_once(active: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """The least rank in each set ``(n, units)``, of each order ``(orders, units)``."""
    none = torch.tensor(active.shape[1], dtype=ranks.dtype)
    size = max(1, (1 << 24) // ranks.numel())
    return torch.cat(
        [torch.where(rows[:, None], ranks, none).amin(2) for rows in active.split(size)]
    )


def by_library(active: np.ndarray, hashes: int) -> list[MinHash]:
    """As its documentation says."""
    names = [str(unit).encode() for unit in range(active.shape[1])]
    sets = [[names[unit] for unit in np.flatnonzero(row)] for row in active]
    return MinHash.bulk(sets, num_perm=hashes)


def each(run: Callable[[], object], sets: int) -> float:
    """Microseconds of one set, the least of three turns."""
    times = []
    for _ in range(3):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1e6 * min(times) / sets


def row(sets: int, units: int, inside: int) -> str:
    """A line of the table."""
    active = np.random.default_rng(0).random((sets, units)) < inside / units
    few = active[:: max(1, sets // 200)]
    sketcher = Sketcher(0.9, units)
    ranks = torch.from_numpy(sketcher._ranks.T.astype(np.int32).copy())
    ours = each(lambda: sketcher.sketch(torch.from_numpy(active)), sets)
    plain = each(lambda: all_at_once(torch.from_numpy(few), ranks), len(few))
    library = each(lambda: by_library(few, len(ranks)), len(few))
    ratios = f"{plain / ours:.0f} | {library / ours:.0f}"
    return f"| {sets:,} | {units:,} | {inside} | {ours:.0f} | {ratios} |"


def section(quick: bool) -> str:
    """The part of ``docs/performance.md``."""
    torch.set_num_threads(1)
    sizes = [(400, 400, 60)] if quick else [(4000, 400, 60), (4000, 4000, 60), (4000, 4000, 600)]
    hashes = Sketcher(0.9, 2)._ranks.shape[1]
    return TEXT.format(hashes=hashes, rows="\n".join(row(*size) for size in sizes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Few sets.")
    print(section(parser.parse_args().quick))
