"""What a comparison says, for programs: ``report.json``, from ``comparison.json`` alone.

Times are left out, as on the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fairneuron.compare.html import sentence
from fairneuron.metrics.definitions import METRICS
from fairneuron.report.document import headed

Figures = dict[str, Any]


def comparison_document(result: Figures) -> Figures:
    """The document; ``result`` is what ``Comparison.to_dict`` gives."""
    setup = result["setup"]
    said = [sentence(figures, result) for figures in result["criteria"]]
    return {
        **headed("comparison", f"Comparison of methods on {setup['data']}", said),
        "data": setup,
        "seeds": result["seeds"],
        "figures": [one for criterion in result["criteria"] for one in _figures(criterion)],
        "versions": result["versions"],
    }


def _figures(criterion: Figures) -> Iterator[Figures]:
    """Accuracy and gap of the base model, and of every method at every ε."""
    name, base = criterion["criterion"], criterion["base"]
    about = {"criterion": name, "epsilon": None, "method": None}
    yield about | _figure("accuracy", base["accuracy"], None)
    yield about | _figure(name, base["gap"], base["noise_floor"])
    for at in criterion["at"]:
        for method, one in at["methods"].items():
            about = {"criterion": name, "epsilon": at["epsilon"], "method": method}
            yield about | _figure("accuracy", one["accuracy"], None)
            yield about | _figure(name, one["gap"], base["noise_floor"])


def _figure(metric: str, found: Figures, floor: float | None) -> Figures:
    none = "no seed has a configuration that can be measured"
    return {
        "metric": metric,
        "title": METRICS[metric].title,
        "n": found["n"],
        "value": found["mean"],
        "sd": found["sd"],
        "interval": found["interval"],
        "noise_floor": floor,
        "undefined": none if found["mean"] is None else None,
    }
