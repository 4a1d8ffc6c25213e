"""How the default compares with its peers and with ablations: docs/effect.md and docs/effect/.

    python experiments/effect.py --workers 2

runs what is missing (hours, once) and writes the pages; ``--pages`` only writes them, ``--only
compas-race`` runs one part. The records are in ``experiments/results/effect``, compressed; they are
unpacked into ``runs/effect``, and packed again when a part is done. None of the splits was looked
at while the recipe was made: their seeds start at 1200.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fairneuron as fn
from fairneuron.compare.methods import ABLATIONS, PEERS

RUNS, PAGES, KEPT = Path("runs/effect"), Path("docs/effect"), Path("experiments/results/effect")
FIRST = 1200  # seed; those below were looked at while the recipe was made
CRITERIA = ("dp", "eo", "eodds")


@dataclass(frozen=True)
class Part:
    """A comparison.

    Attributes:
        title: Of its page.
        data: Name of the data set.
        include_sensitive: Whether the sensitive column is an input.
        seeds: How many.
        methods: What is compared.
        criteria: What is lowered in turn.
    """

    title: str
    data: str
    include_sensitive: bool
    seeds: int
    methods: tuple[str, ...]
    criteria: tuple[str, ...] = CRITERIA

    def run(self, folder: Path, workers: int, seeds: int | None) -> fn.Comparison:
        """Computes what is missing."""

        def show(what: str, done: int, of: int) -> None:
            print(f"{folder.name}: {what}, {done} of {of}", file=sys.stderr, flush=True)

        return fn.compare(
            fn.load_dataset(self.data, include_sensitive=self.include_sensitive),
            methods=self.methods,
            seeds=range(FIRST, FIRST + (seeds or self.seeds)),
            criteria=self.criteria,
            out=folder,
            workers=workers,
            progress=show,
        )


OURS = ("fairneuron", *ABLATIONS)
PARTS = {
    "compas-race": Part("COMPAS, race an input", "compas", True, 20, tuple(PEERS)),
    "census": Part("Census, sex not an input", "census", False, 10, tuple(PEERS)),
    "compas": Part("COMPAS, race not an input", "compas", False, 20, tuple(PEERS)),
    "census-sex": Part("Census, sex an input", "census", True, 10, tuple(PEERS)),
    "credit": Part("German Credit, sex not an input", "credit", False, 10, tuple(PEERS)),
    "ablations-compas-race": Part(
        "Ablations on COMPAS, race an input", "compas", True, 10, OURS, ("dp",)
    ),
    "ablations-census": Part(
        "Ablations on Census, sex not an input", "census", False, 3, OURS, ("dp",)
    ),
}
LEVELS = (  # part, criterion, gap, most accuracy to lose
    ("compas-race", "dp", 0.045, 0.010),
    ("compas-race", "eo", 0.055, 0.010),
    ("census", "dp", 0.05, 0.012),
    ("census", "dp", 0.02, 0.017),
    ("census", "eo", 0.02, 0.0),
)
HEAD = """# Effect

What the default does to the gap between groups, beside {peers} other methods and {ablations} ablations: the same splits and
base models for all, at most 12 configurations each, chosen on validation data, measured on test data that played no part in any choice
([how](compare.md)). None of the splits was looked at while the recipe was made: their seeds start at 1200.
The data sets are those that the recipe was made with, on other splits: results on your data can differ.
Made by `python experiments/effect.py`. Each page says with which versions.

Cells: test accuracy / test gap, means over seeds, of the most accurate configuration within ε on validation data. ↓: *worse* than the default; ↑: the default is *worse* than this one
(accuracy significantly lower while the gap is not significantly lower). Rank: mean rank of the hypervolume over seeds, 1 is best; methods that read the sensitive attribute to predict, marked *, are ranked apart.
Cost: CPU time with all tuning, in base trainings.
"""  # noqa: E501


def main() -> None:
    """Runs and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--methods", nargs="*", help="some of them, for a first look")
    parser.add_argument("--seeds", type=int, help="fewer of them, for a first look")
    parser.add_argument("--pages", action="store_true", help="write the pages from what is there")
    options = parser.parse_args()
    for name, part in PARTS.items():
        unpack(name)
        wanted = there(name) if options.pages else options.methods or part.methods
        methods = tuple(m for m in part.methods if m in wanted)
        if methods and name in options.only:
            replace(part, methods=methods).run(RUNS / name, options.workers, options.seeds)
            pack(name)
    write_pages()


def unpack(name: str) -> None:
    """The kept records of a part, where there are none yet."""
    kept, records = KEPT / f"{name}.jsonl.xz", RUNS / name / "records.jsonl"
    if kept.exists() and not records.exists():
        records.parent.mkdir(parents=True, exist_ok=True)
        records.write_bytes(lzma.decompress(kept.read_bytes()))


def there(name: str) -> set[str]:
    """The methods that a part has records of."""
    records = RUNS / name / "records.jsonl"
    lines = records.read_text().splitlines()[1:] if records.exists() else []
    return {json.loads(line)["method"] for line in lines}


def pack(name: str) -> None:
    """Keeps the records of a part."""
    KEPT.mkdir(parents=True, exist_ok=True)
    records = (RUNS / name / "records.jsonl").read_bytes()
    (KEPT / f"{name}.jsonl.xz").write_bytes(lzma.compress(records, preset=9))


def write_pages() -> None:
    """A page and its plots for each part that has been run whole, and the summary."""
    PAGES.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, part in PARTS.items():
        folder = RUNS / name
        if not (folder / "comparison.json").exists():
            continue
        found[name] = json.loads((folder / "comparison.json").read_text())
        page = (folder / "comparison.md").read_text()
        plots = "\n".join(
            f"![{c['criterion']}]({name}-{c['criterion']}.svg)" for c in found[name]["criteria"]
        )
        body = page.split("\n", 1)[1]
        (PAGES / f"{name}.md").write_text(
            f"# {part.title}\n{body.rstrip()}\n\n## Fronts\n\n{plots}\n"
        )
        for criterion in found[name]["criteria"]:
            svg = f"front-{criterion['criterion']}.svg"
            (PAGES / f"{name}-{criterion['criterion']}.svg").write_bytes(
                (folder / svg).read_bytes()
            )
    Path("docs/effect.md").write_text(summary(found))


def summary(found: dict[str, Any]) -> str:
    """The page of results, from the figures of all parts."""
    head = HEAD.format(peers=len(PEERS) - 1, ablations=len(ABLATIONS))
    parts = [head, "## In short\n", *short(found), "\n## Levels\n", levels(found)]
    for name, figures in found.items():
        parts.append(f"\n## {PARTS[name].title}\n")
        parts.append(f"[All figures](effect/{name}.md), {len(figures['seeds'])} seeds.\n")
        for criterion in figures["criteria"]:
            parts.append(table(criterion) + "\n")
            parts.append(f"![front](effect/{name}-{criterion['criterion']}.svg)\n")
    notes = Path(__file__).with_name("effect-notes.md")
    return "\n".join([*parts, notes.read_text()])


def short(found: dict[str, Any]) -> list[str]:
    """Where the default is worse than another method, and its rank, over all comparisons."""
    worse, better, count, ranks = [], 0, 0, []
    for name, figures in found.items():
        if name.startswith("ablations"):
            continue
        for criterion in figures["criteria"]:
            blind = {m: f for m, f in criterion["methods"].items() if not f["needs_sensitive"]}
            ours = blind["fairneuron"]["rank"]
            best = min((m for m in blind if m != "fairneuron"), key=lambda m: blind[m]["rank"])
            ranks.append(
                (PARTS[name].title, criterion["criterion"], ours, best, blind[best]["rank"])
            )
            for at in criterion["at"]:
                for method in blind:
                    other = at["methods"].get(method, {})
                    if "reference_is_worse" not in other:
                        continue
                    count += 1
                    if other["reference_is_worse"]["verdict"] == "worse":
                        worse.append(
                            (PARTS[name].title, criterion["criterion"], at["epsilon"], method)
                        )
                    better += other["is_worse"]["verdict"] == "worse"
    return [
        f"Of {count} comparisons (data, criterion, ε, method) with methods that predict without "
        f"the sensitive attribute, the default is *worse* in {len(worse)}, the other in {better}.",
        *(f"- Worse than `{m}`: {t}, {c} ≤ {e:g}." for t, c, e, m in worse),
        "",
        "| data | criterion | mean rank of the default | best other method | its mean rank |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {t} | {c} | {r:.1f} | {b} | {br:.1f} |" for t, c, r, b, br in ranks),
    ]


def levels(found: dict[str, Any]) -> str:
    """What was aimed for, and what came of it: at each ε the gap and the accuracy lost."""
    rows = [
        "Mean gap (with its sign), and accuracy lost.\n",
        "| data | criterion | aimed for | ε ≤ .01 | .02 | .05 | .10 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, metric, gap, lost in LEVELS:
        if name not in found:
            continue
        (criterion,) = (c for c in found[name]["criteria"] if c["criterion"] == metric)
        base = criterion["base"]["accuracy"]["mean"]
        cells = []
        for at in criterion["at"]:
            ours = at["methods"]["fairneuron"]
            gap_is = f"{ours['gap']['mean']:.3f} ({ours['signed_gap']:+.3f})"
            cells.append(f"{gap_is}, {base - ours['accuracy']['mean']:+.4f}")
        aim = f"gap ≤ {gap:g}, at most {lost:g} of accuracy lost"
        aim = "signed gap within ±.02, no accuracy lost" if metric == "eo" and not lost else aim
        rows.append(f"| {PARTS[name].title} | {metric} | {aim} | {' | '.join(cells)} |")
    return "\n".join(rows)


def table(criterion: dict[str, Any]) -> str:
    """Test accuracy and gap of every method at each ε, its rank and its cost."""
    metric = criterion["criterion"]
    heads = [f"{metric} ≤ {at['epsilon']:g}" for at in criterion["at"]]
    rows = [
        f"| {' | '.join(['method', *heads, 'rank', 'cost'])} |",
        f"|{' --- |' * (len(heads) + 3)}",
    ]
    base = criterion["base"]
    rows.append(
        f"| base model | {base['accuracy']['mean']:.3f} / {base['gap']['mean']:.3f} |"
        + " |" * (len(heads) + 1)
    )
    methods = criterion["methods"]
    for method in sorted(
        methods, key=lambda m: (methods[m]["needs_sensitive"], methods[m]["rank"] or 99)
    ):
        cells = []
        for at in criterion["at"]:
            found = at["methods"][method]
            if found["accuracy"] is None:
                cells.append("–")
                continue
            text = f"{found['accuracy']['mean']:.3f} / {found['gap']['mean']:.3f}"
            if found.get("is_worse", {}).get("verdict") == "worse":
                text += " ↓"
            if found.get("reference_is_worse", {}).get("verdict") == "worse":
                text += " ↑"
            cells.append(text)
        figures = methods[method]
        name = f"**{method}**" if method == "fairneuron" else method
        star = " *" if figures["needs_sensitive"] else ""
        rank = "–" if figures["rank"] is None else f"{figures['rank']:.1f}"
        cost = "–" if figures["cpu_cost"] is None else f"{figures['cpu_cost']:.1f}"
        rows.append(f"| {name}{star} | {' | '.join(cells)} | {rank} | {cost} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
