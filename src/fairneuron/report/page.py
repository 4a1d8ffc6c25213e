"""The frame of every HTML report: one file, without references; reports have no scripts either."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources

from fairneuron.markup import Html, el

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(
    title: str,
    lead: Sequence[Html],
    sections: Iterable[Html],
    *,
    script: Html | None = None,
    data: Html | None = None,
) -> bytes:
    """A whole page.

    Args:
        title: Of the page, and its only heading of the first level.
        lead: What stands before the first section.
        sections: From ``section``.
        script: The only one that may run; the page's policy has its sum. Reports have none.
        data: An element that the script reads.
    """
    policy, does = _POLICY, "loads nothing and runs nothing"
    if script is not None:
        policy += f"; script-src {_sum(script)}"
        does = "loads nothing, and runs one script, which stands in it"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="generator", content="fairneuron"),
        el("title", title),
        el("style", _style()),
    )
    body = el(
        "body",
        el("header", el("h1", title), *lead),
        el("main", *sections),
        el("footer", el("p", f"Made by fairneuron. This page {does}.")),
        data,
        None if script is None else el("script", script),
    )
    html = f"<!DOCTYPE html>\n{el('html', head, body, lang='en')}\n"
    return html.replace("<section>", "\n<section>").encode()


def _sum(script: str) -> str:
    """What a policy calls a script."""
    total = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{total}'"


@cache
def _style() -> Html:
    """The style sheet; it is ours, and has nothing that ends a style element."""
    file = resources.files("fairneuron.report") / "page.css"
    return Html("\n" + file.read_text(encoding="utf-8"))


def section(title: str, *blocks: object) -> Html:
    """A part of the page under a heading of the second level."""
    return el("section", el("h2", title), *blocks)


def paragraph(*words: object) -> Html:
    """Words."""
    return el("p", *words)


def note(*words: object) -> Html:
    """Words that explain what stands above them."""
    return el("p", *words, class_="note")


def bullets(points: Iterable[object]) -> Html:
    """A list."""
    return el("ul", *(el("li", point) for point in points))


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Terms with what they are."""
    return el("dl", *(part for term, said in pairs for part in (el("dt", term), el("dd", said))))


def figure(svg: Html, caption: str) -> Html:
    """A drawing that scrolls in its own box, with what it shows."""
    box = el("div", svg, class_="scroll", role="region", aria_label=caption, tabindex=0)
    return el("figure", box, el("figcaption", caption))


def panels(drawn: Iterable[tuple[str, Html]]) -> Html:
    """Small drawings side by side, each under its name."""
    each = (el("figure", el("figcaption", name), svg) for name, svg in drawn)
    return el("div", *each, class_="panels")


def verbatim(words: str) -> Html:
    """A command."""
    return el("pre", el("code", words))
