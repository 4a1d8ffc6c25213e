"""The page of an experiment as Markdown."""

from __future__ import annotations

from typing import Any

from fairneuron.errors import printable
from fairneuron.reproduce import paper
from fairneuron.reproduce.figures import number
from fairneuron.reproduce.found import Cell, Section
from fairneuron.reproduce.images import HOW
from fairneuron.reproduce.table4 import EPSILON


def page(result: dict[str, Any]) -> str:
    """The page; ``result`` is what ``Reproduction.to_dict`` gives."""
    name = result["name"]
    lines = [f"# {_numbered(name)}: {result['title']}"]
    if result["quick"]:
        lines.append(
            "**Quick run: one seed, few rows and epochs. It shows that everything runs; its "
            "figures say nothing.**"
        )
    lines.append(_head(result))
    for each in result["sections"]:
        lines += [f"## {each['title']}"] if each["title"] else []
        lines.append(_section(each))
        if each["notes"]:
            lines.append("\n".join(f"- {note}" for note in each["notes"]))
    versions = [", ".join(f"{n} {v}" for n, v in each.items()) for each in result["versions"]]
    return "\n\n".join([*lines, *(f"With {text}." for text in versions)]) + "\n"


_HOW = (
    "splits 7:1:2; networks and training as in the paper's section 4.1; the sensitive column is an "
    "input."
)


def _head(result: dict[str, Any]) -> str:
    name, seeds = result["name"], result["seeds"]
    lines = ["Gao et al., *FairNeuron* (ICSE 2022, arXiv 2204.02567), and what this package gives."]
    if name in paper.ASSIGNED:
        lines.append(
            f"What the paper shows as {_numbered(name)} is not known here: content and number are "
            "our choice."
        )
    if name != "table1":
        how = HOW if name == "table7" else _HOW
        lines.append(f"{len(seeds)} seed{'s' * (len(seeds) != 1)}: mean ± sd; {how}")
    if name == "table4":
        lines.append(
            f"Configurations are chosen on validation data: the most accurate one with a DP of at "
            f"most {EPSILON:g}; in the published pipeline by the release's objective. DPR, "
            "directed: the second group's selection rate over the first one's, as in the paper. "
            "Flip rate: share of predictions that change with the stated group alone."
        )
    known = paper.sources(name)
    beside = "; ".join(known) if known else "not known here"
    lines.append(
        f"The paper's figures: {beside}. A dash: not known here, or undefined; (n of m): of the n "
        "of m seeds on which it is defined."
    )
    return "\n".join(f"- {line}" for line in lines)


def _numbered(name: str) -> str:
    return f"{name[:-1].capitalize()} {name[-1]}"


def _section(each: Section) -> str:
    cells = [(key, row["cells"].get(key, {})) for row in each["rows"] for key in each["columns"]]
    paired = {key for key, cell in cells if "paper" in cell}
    head = [""]
    for key, title in each["columns"].items():
        head += [title, "paper"] if key in paired else [title]
    lines = []
    for row in each["rows"]:
        line = [printable(row["label"])]
        for key in each["columns"]:
            cell = row["cells"].get(key, {})
            line.append(_ours(cell))
            if key in paired:
                line.append(number(cell.get("paper")))
        lines.append(line)
    widths = [max(3, *(len(line[i]) for line in [head, *lines])) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *lines]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _ours(cell: Cell) -> str:
    if "text" in cell:
        return printable(str(cell["text"])).replace("|", "¦")
    found = cell.get("ours")
    if found is None or found["mean"] is None:
        return "–"
    sd = "" if found["sd"] is None else f" ± {number(found['sd'])}"
    some = f" ({found['n']} of {found['of']})" if found["n"] < found["of"] else ""
    return number(found["mean"]) + sd + some
