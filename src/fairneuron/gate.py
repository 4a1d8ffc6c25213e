"""Gate: whether an audit keeps its limits, told to continuous integration.

Free of torch: it reads what ``Audit.to_dict`` gives. A limit is compared with the value itself;
the interval and the groups are told beside it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairneuron.errors import printable
from fairneuron.limits import violation

TITLE = "fairneuron audit"
MOST_GROUPS = 10
_RATES = {"dp": ("selection_rate",), "dpr": ("selection_rate",), "eo": ("tpr",)}
_TITLES = {"selection_rate": "selection rate", "tpr": "TPR", "fpr": "FPR"}


@dataclass(frozen=True)
class Held:
    """A limit, and whether it held.

    Attributes:
        metric: Its name.
        limit: The worst accepted value.
        value: What was measured; None if undefined.
        interval: Its 95 % interval; None if undefined.
        reason: Why it does not hold, in a sentence; None if it holds.
    """

    metric: str
    limit: float
    value: float | None
    interval: tuple[float, float] | None
    reason: str | None

    @property
    def holds(self) -> bool:
        """Whether the value is defined and within the limit."""
        return self.reason is None

    @property
    def title(self) -> str:
        """The limit in words, for example "dp at most 0.05"."""
        return f"{self.metric} {bound_text(self.metric, self.limit)}"

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "metric": self.metric,
            "limit": self.limit,
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "holds": self.holds,
            "reason": self.reason,
        }


def compare_limits(found: Mapping[str, Any], limits: Mapping[str, float]) -> list[Held]:
    """Compares an audit with limits.

    Args:
        found: What ``Audit.to_dict`` gives.
        limits: What ``check_limit`` gives.
    """
    return [_compared(found, metric, limit) for metric, limit in limits.items()]


def _compared(found: Mapping[str, Any], metric: str, limit: float) -> Held:
    from fairneuron.metrics.definitions import METRICS

    value, bounds = found["metrics"][metric], found["intervals"][metric]
    interval = None if bounds is None else (bounds[0], bounds[1])
    if value is not None and violation(metric, value, limit) == 0:
        return Held(metric, limit, value, interval, None)
    everybody = METRICS[metric].between_classes
    rows = [row for row in found["groups"] if row["n"] and (row["compared"] or everybody)]
    n, asked = sum(row["n"] for row in rows), bound_text(metric, limit)
    if value is None:
        said = f"{metric} is undefined: {found['undefined'][metric]}; limit {asked}"
        people = "; ".join(_group(row["group"], row["n"]) for row in rows[:MOST_GROUPS])
        more = len(rows) - MOST_GROUPS
        groups = people + (f" and {more} more groups" if more > 0 else "")
    else:
        around = "" if interval is None else f" (95 % interval {_digits(interval)})"
        said = f"{metric} is {_exact(metric, value, limit)}{around}, limit {asked}"
        groups = _classes(found.get("classes", ())) if everybody else _farthest(rows, metric)
    reason = "; ".join(part for part in (said, f"n = {n}", groups) if part)
    return Held(metric, limit, value, interval, reason)


def bound_text(metric: str, limit: float) -> str:
    """The limit in words: "at most" for gaps, "at least" for ratios."""
    from fairneuron.metrics.definitions import METRICS

    return f"at {'most' if METRICS[metric].best == 0 else 'least'} {limit:g}"


def _exact(metric: str, value: float, limit: float) -> str:
    """The value with three digits, or as many as show that it is beyond the limit."""
    short = f"{value:.3f}"
    return short if violation(metric, float(short), limit) else repr(value)


def _digits(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _farthest(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The two groups that are farthest apart, in the rate that the metric compares."""
    spans = []
    for rate in _RATES.get(metric, ("tpr", "fpr")):
        known = [row for row in rows if row[rate] is not None]
        low, high = (pick(known, key=lambda row: row[rate]) for pick in (min, max))
        spans.append((high[rate] - low[rate], rate, low, high))
    _, rate, low, high = max(spans, key=lambda span: span[0])
    people = {"tpr": "positive", "selection_rate": "n"}
    shares = [
        f"{row[rate]:.3f} of {_group(row['group'], row[people[rate]])}"
        if rate in people
        else f"{row[rate]:.3f} of {_group(row['group'], row['n'] - row['positive'])}"
        for row in (low, high)
    ]
    return f"{_TITLES[rate]} {' and '.join(shares)}"


def _classes(rows: Sequence[Mapping[str, Any]]) -> str:
    """The two classes that are farthest apart; nothing where an audit does not list them."""
    if not rows:
        return ""
    ends = (pick(rows, key=lambda row: row["accuracy"]) for pick in (min, max))
    shares = (f"{row['accuracy']:.3f} of class {_group(row['class'], row['n'])}" for row in ends)
    return f"accuracy {' and '.join(shares)}"


def _group(name: str, n: int) -> str:
    return f"'{printable(name)}' (n = {n})"


def junit(held: Sequence[Held], name: str) -> bytes:
    """JUnit XML: a test case per limit.

    Args:
        held: The limits.
        name: What was audited.
    """
    counts = {
        "tests": str(len(held)),
        "failures": str(sum(not one.holds for one in held)),
        "errors": "0",
        "skipped": "0",
    }
    suites = ET.Element("testsuites", {"name": TITLE, **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": printable(name), **counts})
    for one in held:
        case = ET.SubElement(suite, "testcase", {"classname": TITLE, "name": one.title})
        if one.reason is not None:
            kind = "undefined" if one.value is None else "limit"
            failure = ET.SubElement(case, "failure", {"message": one.reason, "type": kind})
            failure.text = one.reason
    ET.indent(suites)
    return bytes(ET.tostring(suites, encoding="utf-8", xml_declaration=True)) + b"\n"


def is_junit(content: bytes) -> bool:
    """Whether a file begins as ours do, so that it may be replaced."""
    head, _, rest = content.partition(b"\n")
    return head.startswith(b"<?xml ") and rest.startswith(f'<testsuites name="{TITLE}"'.encode())


def annotation(one: Held) -> str:
    """The workflow command that shows a violation on GitHub."""
    return f"::error title={escaped(f'{TITLE}: {one.title}', inside=True)}::{escaped(one.reason)}"


def escaped(text: str | None, *, inside: bool = False) -> str:
    """Text for a workflow command, by GitHub's rules.

    Args:
        text: What to escape.
        inside: Whether it is the value of a property, where colons and commas count too.
    """
    rules = {"%": "%25", "\r": "%0D", "\n": "%0A"}
    rules |= {":": "%3A", ",": "%2C"} if inside else {}
    return "".join(rules.get(c, c) for c in text or "")
