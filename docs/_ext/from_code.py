"""Parts of pages that are made when the documentation is built, so that they cannot drift.

A page holds the place as an HTML comment: ``<!-- commands -->``, ``<!-- codes -->``,
``<!-- notebook examples/x.ipynb -->``.
"""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

import fairneuron
from fairneuron import errors
from fairneuron.cli import app

ROOT = Path(__file__).parents[2]
SOURCE = Path(fairneuron.__file__).parent


def fill(text: str) -> str:
    """The text of a page, with what is made of the code where its comments stand."""
    made = {"commands": commands, "codes": codes}
    text = re.sub(r"<!-- (commands|codes) -->", lambda found: made[found[1]](), text)
    text = re.sub(r"\]\(\.\./(CHANGELOG|CONTRIBUTING|SECURITY)\.md", _page_of, text)
    text = re.sub(r"\]\(\.\./(examples/\w+)\.ipynb", r"](\1.md", text)
    text = re.sub(r"(?<=\d) (/|×)(?: (?=\d))?(?=.*\|)", _unbroken, text)
    return re.sub(r"<!-- notebook (\S+) -->", lambda found: notebook(ROOT / found[1]), text)


def _page_of(link: re.Match[str]) -> str:
    """A file at the top of the repository is a page here."""
    return f"]({link[1].lower()}.md"


def _unbroken(found: re.Match[str]) -> str:
    """Pairs of figures in tables stay on one line."""
    return found[0].replace(" ", "\N{NO-BREAK SPACE}")


def readable(arguments: str | None, returned: str | None) -> tuple[str | None, str | None]:
    """A signature in which functions and types are names, as in the source."""
    array = r"ndarray\[~?tuple\[[^]]*\], ~?[\w.]*dtype\[~?([\w.]+)\]\]"
    short = {r"<function ([\w.]+)[^>]*>": r"\1", "<factory>": "...", array: r"ndarray[\1]"}
    short[r"TypeAliasForwardRef\('([\w.]+)'\)"] = r"\1"
    for long, name in short.items():
        arguments = arguments and re.sub(long, name, arguments)
        returned = returned and re.sub(long, name, returned)
    return arguments, returned


# Commands


def commands() -> str:
    """A section for each command: what it says of itself, its arguments and options."""
    return "\n\n".join(_command("fairneuron", typer.main.get_command(app)))


def _command(name: str, command: Any) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    if name != "fairneuron":
        yield f"## {name}"
        yield _plain(command.help)
        arguments = [p.name.upper() for p in command.params if _is_argument(p)]
        yield f"```text\n{' '.join([name, *arguments])} {'COMMAND' if inner else '[OPTIONS]'}\n```"
        yield from _parameters(command)
    for key, value in inner.items():
        yield from _command(f"{name} {key}", value)


def _parameters(command: Any) -> Iterator[str]:
    shown = [p for p in command.params if not p.hidden and p.name != "help"]
    panels = dict.fromkeys(getattr(p, "rich_help_panel", None) for p in shown)
    for panel in panels:
        rows = [p for p in shown if getattr(p, "rich_help_panel", None) == panel]
        lines = [_row(p) for p in rows]
        head = f"| {panel or 'Option'} | | Default |\n| --- | --- | --- |"
        yield "\n".join([head, *lines])


def _row(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    names = [parameter.name.upper()] if _is_argument(parameter) else names
    words = ", ".join(f"`{name}`" for name in names)
    return f"| {words} | {_plain(parameter.help or '')} | {_default(parameter)} |"


def _is_argument(parameter: Any) -> bool:
    return not parameter.opts[0].startswith("-")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "*required*"
    if isinstance(parameter.show_default, str):
        return f"`{parameter.show_default}`"
    plain = isinstance(parameter.default, str | int | float)
    there = plain and parameter.default is not False and parameter.default != ""
    return f"`{parameter.default}`" if there and parameter.show_default else ""


def _plain(text: str) -> str:
    """Help as Markdown: its commands and options as code, and nothing else that it could read."""
    pieces = re.split(r"'(fairneuron[^']*)'|(?<![\w-])(--[a-z][\w-]*)", text)
    words, *others = pieces[::3], pieces[1::3], pieces[2::3]
    words = [re.sub(r"([<>*_\[\]`|])", r"\\\1", piece) for piece in words]
    code = [f"`{command or option}`" for command, option in zip(*others, strict=True)]
    return "".join(a + b for a, b in zip(words, [*code, ""], strict=True))


# Codes of errors and warnings


def codes() -> str:
    """A table of every code that an error or warning can carry, with what must hold."""
    lines = ["| code | kind | rule |", "| --- | --- | --- |"]
    for code, (kind, rules) in sorted(found_codes().items()):
        lines.append(f"| `{code}` | {kind} | {'; '.join(sorted(rules))} |")
    return "\n".join(lines)


def found_codes() -> dict[str, tuple[str, set[str]]]:
    """Code to the class it is raised as, or "warning", and its rules, as the source has them."""
    found: dict[str, tuple[str, set[str]]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for kind, code, rule in _carried(node):
                found.setdefault(code, (kind, set()))[1].update(filter(None, [rule]))
    return found


def _carried(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return
    name = node.func.id
    error = getattr(errors, name, None)
    ours = isinstance(error, type) and issubclass(error, errors.FairNeuronError)
    others = {"warn": "warning", "require_known": "OptionError", "fail": "command line"}
    if not (ours or name in others) or len(node.args) < 2:
        return
    rule = _sentence(node.args[1])
    rule = f"The {rule} must be a known one" if rule and name == "require_known" else rule
    for code in _constants(node.args[0]):
        yield others.get(name, name), code, rule


def _constants(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from (*_constants(node.body), *_constants(node.orelse))
    elif text := _text(node):
        yield text


def _sentence(node: ast.expr) -> str:
    text = _text(node)
    return _plain(text.splitlines()[0]) if text else ""


def _text(node: ast.expr) -> str:
    """A literal, with … for what is put into it; empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
    return ""


# Notebooks


def notebook(path: Path) -> str:
    """A notebook as Markdown, with the outputs that are stored in it; nothing runs."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join(part for cell in cells for part in _cell(cell))
    return text.replace("](../docs/", "](../")


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    text = "".join(cell["source"]).strip()
    if cell["cell_type"] != "code":
        yield text
        return
    yield f"````python\n{text}\n````"
    for printed, group in groupby(cell["outputs"], lambda output: "text" in output):
        if printed:
            yield _raw(_pre("".join("".join(output["text"]) for output in group)))
        else:
            yield from (_raw(_shown(output["data"])) for output in group)


def _shown(data: dict[str, Any]) -> str:
    """The richest of an output's forms that needs no script."""
    forms = {form: "".join(data[form]) for form in data}
    for form in ("image/svg+xml", "text/html"):
        if form in forms:
            return forms[form]
    if "image/png" in forms:
        image = forms["image/png"].replace("\n", "")
        return f'<img alt="" src="data:image/png;base64,{image}">'
    return _pre(forms["text/plain"])


def _pre(text: str) -> str:
    return f"<pre>{html.escape(text.rstrip())}</pre>"


def _raw(content: str) -> str:
    return f'````{{raw}} html\n<div class="output">\n{content}\n</div>\n````'
