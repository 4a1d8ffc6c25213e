"""The command that gives a result again, for a shell."""

from __future__ import annotations

import shlex
from typing import Any

_OPTIONS = {  # of a configuration, in the order of the command line
    "data": "--data",
    "train": "--train",
    "valid": "--valid",
    "test": "--test",
    "split_column": "--split-column",
    "target": "--target",
    "positive": "--positive",
    "outcome": "--outcome",
    "sensitive": "--sensitive",
    "drop": "--drop",
    "weight": "--weight-column",
    "delimiter": "--delimiter",
    "encode": "--encode",
    "model": "--model",
    "weights": "--weights",
    "intended_use": "--intended-use",
}


def command_of(result: dict[str, Any]) -> str:
    """The command that gives the result again, for a shell."""
    c = result["configuration"]
    words = ["fairneuron", "repair"]
    for key, option in _OPTIONS.items():
        values = c.get(key, [])
        for value in values if isinstance(values, (list, tuple)) else [values]:
            words += [option, value]
    for name, kind in c.get("types", {}).items():
        words += ["--type", f"{name}={kind}"]
    words += ["--include-sensitive"] if c.get("include_sensitive") else []
    words += ["--hidden", ",".join(map(str, c["hidden"]))] if c.get("hidden") else []
    words += ["--outputs", str(c["outputs"])] if c["outputs"] != 1 else []
    words += ["--threshold", repr(c["threshold"])] if c["threshold"] != 0.5 else []
    for name, bound in c["limit"].items():
        words += ["--limit", f"{name}={bound!r}"]
    words += ["--recipe", c["recipe"]]
    settings = c["settings"]
    for option in ("neuron_share", "strengths", "gamma", "theta", "dropout"):
        if option in settings:
            value = settings[option]
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [f"--{option.replace('_', '-')}", ",".join(map(repr, values))]
    words += ["--drop-neurons", settings["drop"]] if "drop" in settings else []
    if not settings["schedule"]["min_steps"]:  # else the epochs follow from the data
        words += ["--epochs", str(settings["schedule"]["epochs"])]
    if "class_weight" in c:
        weight = c["class_weight"]
        pairs = weight if isinstance(weight, str) else [f"{k}={w!r}" for k, w in weight.items()]
        words += ["--class-weight", pairs if isinstance(pairs, str) else ",".join(pairs)]
    if "time_budget" in c:
        words += ["--time-budget", repr(c["time_budget"])]
    words += ["--seed", str(c["seed"]), "--out", "DIR"]
    return " ".join(map(shell_word, words))


def shell_word(text: str) -> str:
    """A word of a command, for a shell; bash and zsh read what is not printable in $'…'."""
    if text.isprintable():
        return shlex.quote(text)
    inside = (c if c.isprintable() and c not in "\\'" else _ansi_c(c) for c in text)
    return f"$'{''.join(inside)}'"


def _ansi_c(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    undecodable = "\udc80" <= character <= "\udcff"  # a byte of a path that is no UTF-8
    raw = character.encode("utf-8", "surrogateescape" if undecodable else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in raw)
