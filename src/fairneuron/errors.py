"""Every error and warning that FairNeuron raises on purpose.

::

    FairNeuronError            exit code 3
    └── InputError             exit code 2: something given to us breaks a rule
        ├── DataError          tables, labels, sensitive columns
        ├── ModelError         networks that cannot be traced, run or loaded
        ├── OptionError        settings out of range, unknown names
        └── OutputError        folders and files that cannot be written

    UserWarning
    └── FairNeuronWarning      we go on, and say what to know

Each carries a stable ``code`` (``data-nan``) for programs and tests, and tells people three things:
the rule, the value that broke it, and the cure.
"""

import difflib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any


class FairNeuronError(Exception):
    """Base of all our errors.

    Args:
        code: Stable kebab-case identifier, for programs.
        rule: What must hold, as a sentence without the full stop.
        got: The value that broke the rule.
        cure: What to do about it.
        problems: What was found, where it is several things at once.
    """

    exit_code = 3

    def __init__(
        self,
        code: str,
        rule: str,
        *,
        got: object = None,
        cure: str = "",
        problems: Sequence["FairNeuronError"] = (),
    ) -> None:
        self.code, self.rule, self.got, self.cure = code, rule, got, cure
        self.problems = tuple(problems)
        text = rule if got is None else f"{rule}; got {got}"
        lines = [f"  {i}. {problem}" for i, problem in enumerate(self.problems, start=1)]
        super().__init__("\n".join([f"{text}. {cure}".rstrip(), *lines]))

    def __reduce__(self) -> tuple[object, ...]:
        text = {"got": self.got, "cure": self.cure, "problems": self.problems}
        return _rebuild, (type(self), self.code, self.rule, text)


def _rebuild(
    kind: type[FairNeuronError], code: str, rule: str, text: dict[str, Any]
) -> FairNeuronError:
    return kind(code, rule, **text)


class InputError(FairNeuronError):
    """Something that was given to us breaks a rule."""

    exit_code = 2


class DataError(InputError):
    """A table, its labels or its sensitive columns."""


class ModelError(InputError):
    """A network that cannot be traced, run or loaded."""


class OptionError(InputError):
    """A setting out of range or of an unknown name."""


class OutputError(InputError):
    """A folder or file that cannot be written."""


class FairNeuronWarning(UserWarning):
    """We go on, but there is something to know."""


class Problems:
    """Collects what is wrong with a table, so that all of it is told at once."""

    MOST = 20

    def __init__(self) -> None:
        self.found: list[DataError] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keeps a ``DataError`` that is raised inside for later."""
        try:
            yield
        except DataError as error:
            self.found += error.problems or [error]  # type: ignore[arg-type]

    def settle(self) -> None:
        """Raises what was collected: the only problem itself, or one error that lists up to 20."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            codes = {problem.code for problem in self.found}
            more = len(self.found) - self.MOST
            raise DataError(
                codes.pop() if len(codes) == 1 else "data-problems",
                f"{len(self.found)} things in the data must be mended",
                cure=f"The first {self.MOST}:" if more > 0 else "",
                problems=self.found[: self.MOST],
            )


def warn(code: str, message: str) -> None:
    """Warns the caller of the public function with a message that ends in its ``[code]``."""
    warnings.warn(f"{message} [{code}]", FairNeuronWarning, stacklevel=3)


def printable(text: str) -> str:
    """Text from users without control characters, for terminals and reports."""
    return "".join(c if c.isprintable() else "�" for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a cure for an unknown name: the nearest known one, and up to 20 of them."""
    names, most = [str(k) for k in known], 20
    close = difflib.get_close_matches(str(name)[:100], names[:1000], n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{hint}Known: {', '.join(names[:most])}{more}."


def require_known(code: str, what: str, name: str, known: Iterable[str]) -> None:
    """Raises an ``OptionError`` unless ``name`` is one of ``known``."""
    names = list(known)
    if name not in names:
        raise OptionError(
            code, f"The {what} must be a known one", got=repr(name), cure=did_you_mean(name, names)
        )


def require_range(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Raises an ``OptionError`` unless ``value`` is a number between ``low`` and ``high``."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    above = number and (value > low if open_low else value >= low)
    below = number and (value < high if open_high else value <= high)
    if not (above and below):
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise OptionError(
            "option-range",
            f"{name} must lie in {interval}",
            got=repr(value),
            cure="Choose a value in there.",
        )


def require_whole(name: str, value: float) -> None:
    """Raises an ``OptionError`` unless ``value`` is a whole number."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise OptionError(
            "option-range", f"{name} must be a whole number", got=repr(value), cure="Round it."
        )
