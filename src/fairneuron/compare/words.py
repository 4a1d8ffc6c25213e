"""The figures of a comparison in words, for every kind of page."""

from __future__ import annotations

from typing import Any

Figures = dict[str, Any]


def ordered(figures: Figures) -> list[tuple[str, Figures]]:
    """The reference first, then by mean rank; those that read the sensitive attribute last."""

    def place(item: tuple[str, Figures]) -> tuple[bool, bool, float]:
        name, one = item
        rank = float("inf") if one["rank"] is None else one["rank"]
        return one["needs_sensitive"], name != figures["reference"], rank

    return sorted(figures["methods"].items(), key=place)


def label(name: str, one: Figures) -> str:
    """A method's name, marked if it reads the sensitive attribute to predict."""
    return name + " (sensitive)" * one["needs_sensitive"]


def verdict(found: Figures | None, *, p: str = "") -> str:
    """Whether one is worse, with the p of accuracy and of the gap, after the text ``p``."""
    if found is None:
        return ""
    if found["accuracy_p"] is None or found["gap_p"] is None:
        return str(found["verdict"])
    yes = "yes" if found["verdict"] == "worse" else "no"
    return f"{yes} ({p}{found['accuracy_p']:.3f}, {found['gap_p']:.3f})"


def pair(one: Figures, seeds: int) -> str:
    """Mean accuracy and gap, and of how many seeds where those are not all."""
    if one["gap"]["mean"] is None:
        return "none"
    fewer = f" ({count(one, seeds)} seeds)" * (one["gap"]["n"] < seeds)
    return f"{number(one['accuracy']['mean'])} / {number(one['gap']['mean'])}{fewer}"


def count(one: Figures, seeds: int) -> str:
    """How many seeds are in the means, and of how many where some are not."""
    n = one["gap"]["n"]
    return str(n) if n == seeds else f"{n} of {seeds}"


def mean_sd(found: Figures) -> str:
    """A mean with its standard deviation."""
    sd = "" if found["sd"] is None else f" ± {found['sd']:.3f}"
    return number(found["mean"]) + sd


def number(value: float | None, *, scale: float = 1, digits: int = 3) -> str:
    """A value to some digits."""
    return "undefined" if value is None else f"{value * scale:.{digits}f}"
