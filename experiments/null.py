"""How often the verdict on test data says "improved" where there is nothing to repair.

    python experiments/null.py --seeds 60 --real-seeds 10 > docs/null.md

Null data have their groups shuffled, so that no model of the inputs has a gap but by chance; the
labels are shuffled too, or are not. Beside them two real data sets, to show that the same verdict
does see a gap that went.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import torch

import fairneuron as fn
from fairneuron.metrics.definitions import wilson
from fairneuron.verdict import IMPROVED, NOT_MET

LIMITS = ("dp", "eo", "eodds")
Row = tuple[bool, ...]
HEAD = """# The verdict on null data

Repairs of models on data whose groups are shuffled, so that there is nothing to repair. Counted are verdicts on test data,
with Wilson's 95 % interval of the share. *Broken*: of the runs whose base model breaks the limit on test data, by chance.
*Better*: improved, or reliably better with the limit not met. *Levelled down* and *only raised*: a gap shrank, on test data, by falls
or rises alone. The default recipe; limit {limit:g} for each metric.

Made by `python experiments/null.py {arguments}` with fairneuron {fairneuron}, torch {torch}."""  # noqa: E501
COLUMNS = (
    "data",
    "limit",
    "runs",
    "candidate chosen",
    "better",
    "improved",
    "interval of improved",
    "improved of broken",
    "levelled down",
    "only raised",
    "improved on validation data",
)


def shuffled(data: fn.Dataset, seed: int, *, labels: bool) -> fn.Dataset:
    """Gives every row the group of another one, and the label of a third."""
    rng = np.random.default_rng([seed, 7])
    groups = data.sensitive[rng.permutation(len(data))]
    order = rng.permutation(len(data)) if labels else np.arange(len(data))
    return replace(data, sensitive=groups, y=data.y[order])


def made_up(seed: int) -> fn.Dataset:
    """2,000 rows of three groups; the label follows from two of six features, no group matters."""
    rng = np.random.default_rng([seed, 8])
    x = rng.normal(size=(2000, 6))
    y = (x[:, 0] - x[:, 1] + rng.normal(size=2000) > 0).astype(int)
    return fn.Dataset.from_arrays(x, y, rng.choice(["a", "b", "c"], size=2000, p=(0.6, 0.3, 0.1)))


NULL: dict[str, Callable[[int], fn.Dataset]] = {
    "COMPAS, labels and groups shuffled": lambda seed: shuffled(
        fn.load_dataset("compas"), seed, labels=True
    ),
    "COMPAS, groups shuffled": lambda seed: shuffled(fn.load_dataset("compas"), seed, labels=False),
    "German Credit, groups shuffled": lambda seed: shuffled(
        fn.load_dataset("credit"), seed, labels=False
    ),
    "made up, three groups": made_up,
}
REAL: dict[str, Callable[[int], fn.Dataset]] = {
    "COMPAS, race an input": lambda _: fn.load_dataset("compas", include_sensitive=True),
    "German Credit": lambda _: fn.load_dataset("credit"),
}


def runs(name: str, make: Callable[[int], fn.Dataset], seeds: int, bound: float) -> list[Row]:
    """Prints a row per limited metric, and returns what happened in each run."""
    found: dict[str, list[Row]] = {metric: [] for metric in LIMITS}
    for seed in range(seeds):
        train, valid, test = make(seed).split(seed)
        net = fn.train_classifier(train, valid, hidden=(32, 32), seed=seed)
        for metric, rows in found.items():
            limit = {metric: bound}
            repair = fn.repair(net, train, valid, limit=limit, seed=seed)
            verdict = fn.judge(net, repair.model, test, limit, on="test", seed=seed)
            change = verdict.changes[metric]
            rows.append(
                (
                    repair.chosen.number > 0,
                    verdict.outcome in (IMPROVED, NOT_MET),
                    verdict.outcome == IMPROVED,
                    change.before is not None and change.before > bound,
                    bool(verdict.levelled_down),
                    bool(verdict.only_raised),
                    repair.verdict.outcome == IMPROVED,
                )
            )
            print(name, seed, verdict.sentence(), file=sys.stderr)
    for metric, rows in found.items():
        print(line(name, metric, rows), flush=True)
    return [row for rows in found.values() for row in rows]


def line(name: str, metric: str, rows: list[Row]) -> str:
    """A line of the table."""
    chosen, better, improved, broken, down, up, valid = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    low, high = wilson(improved.sum(), np.array(len(rows)))
    cells = (
        name,
        metric,
        len(rows),
        chosen.sum(),
        better.sum(),
        f"{improved.sum()} ({improved.mean():.1%})",
        f"{low:.1%} to {high:.1%}",
        f"{(improved & broken).sum()} of {broken.sum()}",
        down.sum(),
        up.sum(),
        valid.sum(),
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Prints both tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=60, help="per kind of null data")
    options.add_argument("--real-seeds", type=int, default=10)
    options.add_argument("--limit", type=float, default=0.02)
    given = options.parse_args()
    torch.set_num_threads(1)
    versions = {name: version(name) for name in ("fairneuron", "torch")}
    arguments = f"--seeds {given.seeds} --real-seeds {given.real_seeds} --limit {given.limit:g}"
    print(HEAD.format(limit=given.limit, arguments=arguments, **versions))
    for title, sources, seeds in (
        ("Null data", NULL, given.seeds),
        ("Real data", REAL, given.real_seeds),
    ):
        print(f"\n## {title}\n\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
        rows = [
            row for name, make in sources.items() for row in runs(name, make, seeds, given.limit)
        ]
        if sources is NULL:
            print(line("all", "", rows))


if __name__ == "__main__":
    main()
