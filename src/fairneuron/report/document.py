"""What a report says, for programs: ``report.json``, under a schema with a version.

``report.schema.json`` beside this file is that schema (JSON Schema, draft 2020-12). Within a
version names are only added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from fairneuron.metrics.definitions import METRICS
from fairneuron.report.governance import audit_card, impact_of, repair_card
from fairneuron.report.parts import RATES, base_of, bounds_of, caveats, reference_accuracy

Values = dict[str, Any]
VERSION = 1
_BASELESS = {
    "tpr": "nobody in this group has y = 1",
    "fpr": "everybody in this group has y = 1",
}


def schema() -> Values:
    """The JSON Schema of all documents."""
    file = resources.files("fairneuron.report") / "report.schema.json"
    found: Values = json.loads(file.read_text(encoding="utf-8"))
    return found


def headed(kind: str, title: str, sentences: Sequence[str]) -> Values:
    """How every document begins.

    Args:
        kind: "audit", "repair" or "comparison".
        title: Of the page.
        sentences: What was found.
    """
    about = {"name": "fairneuron-report", "version": VERSION}
    return {"schema": about, "kind": kind, "title": title, "sentences": list(sentences)}


def repair_document(result: Values) -> Values:
    """The document of a repair; ``result`` is what ``Run.to_dict`` gives."""
    data, test = result["data"], result["verdicts"]["test"]
    both = {"before": result["before"], "after": result["after"]}
    title = f"Repair of a model on {data['name']}: {test['outcome']}"
    return {
        **headed("repair", title, [test["sentence"]]),
        "limits": [
            {
                "metric": name,
                "limit": change["limit"],
                "value": change["after"],
                "interval": result["after"]["intervals"][name],
                "holds": change["met"],
                "reason": result["after"]["undefined"].get(name),
            }
            for name, change in test["changes"].items()
            if "limit" in change
        ],
        **_measured(both, data),
        "verdicts": result["verdicts"],
        "card": repair_card(result),
        "caveats": caveats(list(both.values())),
        "versions": result["versions"],
    }


def audit_document(audited: Values, sentence: str) -> Values:
    """The document of an audit.

    Args:
        audited: What ``audit_page`` gets.
        sentence: What was found.
    """
    data = audited["data"]
    title = f"Audit of {audited['model']} on {data['name']}"
    return {
        **headed("audit", title, [sentence]),
        "limits": list(audited["limits"]),
        **_measured({"measured": audited}, data),
        "card": audit_card(audited),
        "caveats": caveats([audited]),
        "versions": audited["versions"],
    }


def _measured(audits: Mapping[str, Values], data: Values) -> Values:
    """Data, figures, rates and impact ratios of audits of the same people."""
    each = [
        (model, one)
        for model, audited in audits.items()
        for one in (audited, *audited.get("by_column", {}).values())
    ]
    return {
        "data": {"outcome": None, **data},
        "most_frequent_class_accuracy": reference_accuracy(next(iter(audits.values()))),
        "figures": [figure for model, one in each for figure in _figures(model, one)],
        "rates": [rate for model, one in each for rate in _rates(model, one)],
        "classes": [
            {"model": model, **one}
            for model, audited in audits.items()
            for one in audited.get("classes", ())
        ],
        "impact": impact_of(audits, data),
    }


def _figures(model: str, audited: Values) -> Iterator[Values]:
    compared = sum(g["n"] for g in audited["groups"] if g["compared"])
    for name, value in audited["metrics"].items():
        bounds = audited["intervals"][name]
        yield {
            "model": model,
            "by": audited["sensitive"],
            "metric": name,
            "title": METRICS[name].title,
            "n": compared if METRICS[name].groupwise else audited["n"],
            "value": value,
            "interval": None if bounds is None else list(bounds),
            "noise_floor": audited["noise_floor"].get(name),
            "undefined": audited["undefined"].get(name),
        }


def _rates(model: str, audited: Values) -> Iterator[Values]:
    for group in audited["groups"]:
        for rate in RATES:
            reason = _BASELESS.get(rate, "") if group["n"] else "nobody is in this group"
            yield {
                "model": model,
                "by": audited["sensitive"],
                "group": group["group"],
                "compared": group["compared"],
                "rate": rate,
                "n": base_of(group, rate),
                "value": group[rate],
                "interval": bounds_of(group, rate),
                "undefined": reason if group[rate] is None else None,
            }
