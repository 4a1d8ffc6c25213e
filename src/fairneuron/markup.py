"""HTML by construction: every text is escaped when it becomes part of an element."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from fairneuron.errors import printable

VOID = frozenset({"br", "hr", "meta"})
FEW = 100  # rows of a table; more are counted


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign; a digit more where it would round to 0: "-0.0003"."""
    if round(value, digits) == 0 != round(value, digits + 1):
        digits += 1
    return f"{round(value, digits) + 0:+.{digits}f}"


class Html(str):
    """Finished markup, which ``el`` takes as it is; any other text is escaped."""

    __slots__ = ()


def el(tag: str, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
        tag: Its name.
        *children: ``Html`` stands as it is; of anything else the text, without markup and control
            characters. None is left out.
        **attributes: By name; ``class_`` for ``class``, ``stroke_width`` for ``stroke-width``; None
            is left out.
    """
    names = {
        name.rstrip("_").replace("_", "-"): value
        for name, value in attributes.items()
        if value is not None
    }
    inside = "".join(f' {name}="{text(value)}"' for name, value in names.items())
    if tag in VOID:
        return Html(f"<{tag}{inside}>")
    return Html(f"<{tag}{inside}>{joined(children)}</{tag}>")


def joined(children: Iterable[object]) -> Html:
    """Elements and texts one after the other."""
    return Html("".join(text(child) for child in children if child is not None))


def text(value: object) -> Html:
    """A text as markup that shows it: nothing in it can act, in elements and in attributes."""
    return value if isinstance(value, Html) else Html(escape(printable(str(value)), quote=True))


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, words: bool = False
) -> Html:
    """A table that scrolls in its own box; the first cell of a row is its head.

    Args:
        caption: What it shows.
        head: Of the columns.
        rows: Their cells.
        words: Whether the cells hold words and not numbers.
    """
    shown = list(rows)
    body = [
        el("tr", el("th", first, scope="row"), *(el("td", cell) for cell in rest))
        for first, *rest in shown[:FEW]
    ]
    more = f"{len(shown) - FEW} more rows are left out here." if len(shown) > FEW else None
    return joined(
        (
            el(
                "div",
                el(
                    "table",
                    el("caption", el("span", caption)),
                    el("thead", el("tr", *(el("th", name, scope="col") for name in head))),
                    el("tbody", *body),
                    class_="words" if words else None,
                ),
                class_="scroll",
                role="region",
                aria_label=caption,
                tabindex=0,
            ),
            None if more is None else el("p", more, class_="note"),
        )
    )


def snippet(sentence: str, *tables: Html) -> str:
    """A sentence and tables, for notebooks."""
    return el("div", el("p", sentence), *tables)
