"""The list of tensors in a checkpoint of ``torch.save``, read as data.

It is a program for pickle's stack machine. Here it runs on a machine that knows what a state_dict
needs and calls nothing; all else that such programs could do is refused.
"""

from __future__ import annotations

import pickletools
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from fairneuron.errors import printable
from fairneuron.preflight import AGAIN, CONVERT, SAVE, bomb, refuse

_STORAGES = {  # bytes per element
    "torch.storage UntypedStorage": 1,
    **{f"torch {kind}Storage": 1 for kind in ("Byte", "Char", "Bool")},
    **{f"torch {kind}Storage": 2 for kind in ("Short", "Half", "BFloat16")},
    **{f"torch {kind}Storage": 4 for kind in ("Int", "Float")},
    **{f"torch {kind}Storage": 8 for kind in ("Long", "Double")},
}
_DICT, _PARAMETER = "collections OrderedDict", "torch._utils _rebuild_parameter"
_TENSORS = {"torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3"}
_DTYPES = re.compile(r"torch (bool|bfloat16|u?int\d+|float\d\w*)")
_UNSUITABLE = {
    "complex numbers": re.compile(r"torch (Complex\w+Storage|complex\d+)"),
    "quantised tensors": re.compile(r"torch Q\w+Storage|torch._utils _rebuild_qtensor"),
    "sparse tensors": re.compile(r"torch._utils _rebuild_sparse_\w+"),
    "nested tensors": re.compile(r"torch._utils _rebuild_nested_tensor"),
    "tensors on the meta device": re.compile(r"torch._utils _rebuild_meta_tensor_no_storage"),
    "tensors of another device": re.compile(r"torch._utils _rebuild_(device|xla|wrapper)_?\w+"),
}
_NESTED = ("state_dict", "model_state_dict", "model")


def storages(program: bytes, sizes: Mapping[str, int], path: Path) -> set[str]:
    """Checks that a program makes a flat map of names to tensors.

    Args:
        program: The member ``data.pkl`` of an archive.
        sizes: Bytes of all members by name.
        path: Where it came from, for messages.

    Returns:
        Names of the members that the tensors need; each is as large as the program says.

    Raises:
        ModelError: With a code and a cure for what it makes instead.
    """
    machine = _Machine(sizes, path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes in names
            root = machine.run(program)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        refuse(path, ("", "a checkpoint whose list of tensors is damaged", AGAIN))
    _check_flat(root, path)
    return machine.storages


def _check_flat(root: object, path: Path) -> None:
    """Refuses all but a map of names to tensors."""
    if not isinstance(root, dict):
        refuse(
            path, ("", f"a checkpoint of one {_kind(root)}, not a map of names to tensors", SAVE)
        )
    maps = [name for name, value in root.items() if isinstance(value, dict)]
    if maps:
        name = next((name for name in _NESTED if name in maps), maps[0])
        old, new = printable(path.name), f"{printable(path.stem)}-weights.pt"
        line = f"torch.save(torch.load({old!r}, weights_only=True)[{_short(name)}], {new!r})"
        what = f"a checkpoint with more than the state_dict (it has {_short(name)})"
        refuse(path, ("-nested", what, f"Save the state_dict alone: {line}"))
    for name, value in root.items():
        if type(name) is not str or not isinstance(value, _Tensor):
            what = f"a checkpoint with a value of type {_kind(value)} at {_short(name)}"
            refuse(path, ("", f"{what}, not a map of names to tensors", SAVE))


def _short(name: object) -> str:
    return repr(printable(name)[:60]) if isinstance(name, str) else repr(name)[:60]


def _kind(value: object) -> str:
    return type(value).__name__.lstrip("_").lower()


class _Global(str):
    """The name of a function or class: its module, a space, its own name."""

    __slots__ = ()


class _Storage(NamedTuple):
    record: str


class _Tensor(NamedTuple):
    storage: _Storage


class _Machine:
    """Reads the program of a state_dict; nothing is called and no class looked up.

    Attributes:
        storages: Names of the members that it reads.
    """

    def __init__(self, sizes: Mapping[str, int], path: Path) -> None:
        self.storages: set[str] = set()
        self._sizes, self._path = sizes, path
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, program: bytes) -> object:
        """Returns what the program makes: text, numbers, dicts, and names in place of objects.

        Raises:
            ModelError: If it needs more than a state_dict does.
            ValueError: If it is damaged; so do other errors of lookups.
        """
        for code, value, _ in pickletools.genops(program):
            name = code.name
            if name in self._PUSHED:
                self._stack.append(value)
            elif name in self._CONSTANTS:
                self._stack.append(self._CONSTANTS[name])
            elif name in self._MADE:
                self._stack.append(self._MADE[name]([]))
            else:
                self._STEPS[name](self, value)
        return self._stack.pop()

    def _popped(self, count: int) -> list[Any]:
        if not 0 <= count <= len(self._stack):
            raise IndexError(count)
        at = len(self._stack) - count
        items = self._stack[at:]
        del self._stack[at:]
        return items

    def _to_mark(self) -> list[Any]:
        return self._popped(len(self._stack) - self._marks.pop())

    def _protocol(self, number: int) -> None:
        if number != 2:
            refuse(
                self._path, ("-pickle", f"a checkpoint of pickle protocol {number}, not 2", SAVE)
            )

    def _mark(self, _: None) -> None:
        self._marks.append(len(self._stack))

    def _put(self, at: int) -> None:
        self._memo[at] = self._stack[-1]

    def _get(self, at: int) -> None:
        self._stack.append(self._memo[at])

    def _tuple(self, _: None) -> None:
        self._stack.append(tuple(self._to_mark()))

    def _tuple_1(self, _: None) -> None:
        self._stack.append(tuple(self._popped(1)))

    def _tuple_2(self, _: None) -> None:
        self._stack.append(tuple(self._popped(2)))

    def _tuple_3(self, _: None) -> None:
        self._stack.append(tuple(self._popped(3)))

    def _set(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int, float, bool):  # to hash deep tuples would crash
                raise TypeError(type(key))
            self._stack[-1].update({key: value})

    def _set_item(self, _: None) -> None:
        self._set(self._popped(2))

    def _set_items(self, _: None) -> None:
        self._set(self._to_mark())

    def _append(self, _: None) -> None:
        items = self._popped(1)
        self._stack[-1].extend(items)

    def _appends(self, _: None) -> None:
        items = self._to_mark()
        self._stack[-1].extend(items)

    def _global(self, name: str) -> None:
        for what, pattern in _UNSUITABLE.items():
            if pattern.fullmatch(name):
                refuse(
                    self._path,
                    ("", f"a checkpoint of {what}", "Convert them to dense real tensors."),
                )
        known = name in {_DICT, _PARAMETER, *_TENSORS, *_STORAGES}
        if not known and not _DTYPES.fullmatch(name):
            needed = printable(name.replace(" ", "."))[:100]
            refuse(
                self._path,
                ("-pickle", f"a checkpoint that needs {needed}, a pickled object", CONVERT),
            )
        self._stack.append(_Global(name))

    def _storage(self, _: None) -> None:
        word, kind, key, location, count = self._stack.pop()
        if [type(v) for v in (word, kind, key, location, count)] != [str, _Global, str, str, int]:
            raise TypeError(word)
        if word != "storage":
            raise ValueError(word)
        record, size = f"data/{key}", count * _STORAGES[kind]
        if self._sizes[record] != size:
            refuse(self._path, bomb(f"{size:,} bytes said, {self._sizes[record]:,} there"))
        self.storages.add(record)
        self._stack.append(_Storage(record))

    def _reduce(self, _: None) -> None:
        function, arguments = self._popped(2)
        if not isinstance(function, _Global):
            raise TypeError(function)
        if function == _DICT and arguments == ():
            made: object = {}
        elif function in _TENSORS and isinstance(arguments[0], _Storage):
            made = _Tensor(arguments[0])
        elif function == _PARAMETER and isinstance(arguments[0], _Tensor):
            made = arguments[0]
        else:
            raise ValueError(function)
        self._stack.append(made)

    def _build(self, _: None) -> None:
        """The attributes of a state_dict: ``_metadata``, the versions of its modules."""
        made, attributes = self._stack[-2], self._stack.pop()
        if not isinstance(made, dict) or [*attributes] != ["_metadata"]:  # others hide methods
            raise ValueError(type(made))

    _PUSHED = frozenset({"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"})
    _CONSTANTS: ClassVar[dict[str, bool | None]] = {
        "NONE": None,
        "NEWTRUE": True,
        "NEWFALSE": False,
    }
    _MADE: ClassVar[dict[str, Callable[[list[Any]], object]]] = {
        "EMPTY_DICT": dict,
        "EMPTY_LIST": list,
        "EMPTY_TUPLE": tuple,
    }
    _STEPS: ClassVar[dict[str, Callable[[Any, Any], None]]] = {
        "PROTO": _protocol,
        "GLOBAL": _global,
        "BINPERSID": _storage,
        "REDUCE": _reduce,
        "BUILD": _build,
        "MARK": _mark,
        "BINPUT": _put,
        "LONG_BINPUT": _put,
        "BINGET": _get,
        "LONG_BINGET": _get,
        "TUPLE": _tuple,
        "TUPLE1": _tuple_1,
        "TUPLE2": _tuple_2,
        "TUPLE3": _tuple_3,
        "SETITEM": _set_item,
        "SETITEMS": _set_items,
        "APPEND": _append,
        "APPENDS": _appends,
        "STOP": lambda *_: None,
    }
