"""Random inputs that must never make anything but a success or a coded error."""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import gzip
import io
import json
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import typer.main
from safetensors.numpy import save
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import fairneuron as fn
from fairneuron import cli
from fairneuron.checkpoints import read_tensors
from fairneuron.data.dataset import Dataset
from fairneuron.data.inputs import describe_columns
from fairneuron.data.tables import read_table
from fairneuron.errors import FairNeuronError, FairNeuronWarning, InputError
from fairneuron.io import MANIFEST, write_folder
from fairneuron.loading import load_parts, read_own_table
from fairneuron.models import mlp
from fairneuron.predictions import audit_predictions_file
from fairneuron.saved import Saved
from fairneuron.subject import DataChoice, Subject
from fairneuron.weights import load_into, mlp_weights, module_weights

Step = Callable[[torch.Tensor], object]


class Grab(nn.Module):
    """Steps, one after the other; those that are modules are registered."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.modules_ = nn.ModuleList(s for s in steps if isinstance(s, nn.Module))
        object.__setattr__(self, "steps", steps)

    def forward(self, x: torch.Tensor) -> object:
        """Runs them; modules are found again after a copy."""
        own = iter(self.modules_)
        value: object = x
        for step in self.steps:
            value = (next(own) if isinstance(step, nn.Module) else step)(value)
        return value


def residual(width: int) -> nn.Module:
    """A block that adds its input."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.inner(x).relu()

    return Residual()


def random_steps(rng: np.random.Generator, width: int) -> list[Step]:
    """A few layers and functions; now and then one that fits badly or is not supported."""
    steps: list[Step] = []
    for _ in range(int(rng.integers(0, 8))):
        wide = int(rng.integers(1, 9))
        kind = rng.choice(["linear", "activation", "keep", "function", "rare"], p=[
            0.4, 0.32, 0.15, 0.1, 0.03])  # fmt: skip
        if kind == "linear":
            steps.append(nn.Linear(width, wide, bias=bool(rng.random() < 0.8)))
            width = wide if rng.random() < 0.95 else wide + 1
        elif kind == "activation":
            steps.append(_pick(rng, [
                nn.ReLU(), nn.ReLU(inplace=True), nn.Tanh(), nn.GELU(), nn.PReLU(width),
                nn.Softmax(1), nn.RReLU(), nn.Sigmoid(), nn.GLU(), nn.Threshold(0.1, 0),
            ]))  # fmt: skip
        elif kind == "keep":
            steps.append(_pick(rng, [
                nn.Dropout(float(rng.choice([0, 0.5, 1]))), nn.BatchNorm1d(width), nn.Identity(),
                nn.BatchNorm1d(width, track_running_stats=False), nn.AlphaDropout(0.2),
                parametrizations.weight_norm(nn.Linear(width, width)), residual(width),
                parametrizations.spectral_norm(nn.Linear(width, width)), nn.LayerNorm(width),
            ]))  # fmt: skip
        elif kind == "function":
            steps.append(_pick(rng, [
                torch.relu, torch.relu_, torch.sin, functional.dropout, lambda x: x + 1,
                lambda x: x * x, lambda x: 2 - x / 3, lambda x: x.mul_(2), lambda x: x.double(),
                lambda x: x - x.mean(0), lambda x: x.detach(), lambda x: x.half(), lambda x: x.T,
                lambda x: x.view(-1), lambda x: x.unsqueeze(1).squeeze(1), lambda x: x[:, :1],
                lambda x: x + torch.randn_like(x), lambda x: x + x[:, :1], lambda x: x.exp().exp(),
                lambda x: x if x.sum() > 0 else -x, lambda x: torch.cat([x, x], 1),
                lambda x: x.view(x.size(0), -1), lambda x: torch.where(x > 0, x, 0 * x),
                lambda x: functional.relu(input=x, inplace=True),
            ]))  # fmt: skip
        else:
            steps.append(_pick(rng, [
                nn.LSTM(width, width), nn.Embedding(4, width), nn.Flatten(0), nn.LazyLinear(3),
                nn.Unflatten(1, (1, width)), nn.Conv1d(1, 1, 1), nn.Linear(width, 0 + wide).half(),
                nn.Linear(width, wide).to("meta"), nn.Linear(width, wide).requires_grad_(False),
                nn.MultiheadAttention(width, 1), nn.InstanceNorm1d(width),
            ]))  # fmt: skip
    outputs = int(rng.choice([1, 2, 3]))
    steps.append(nn.Linear(width, outputs))
    if rng.random() < 0.2:
        steps.append(_pick(rng, [
            nn.Flatten(0), lambda x: (x, x), lambda x: {"out": x}, lambda x: None,
            lambda x: x.argmax(1), lambda x: x.squeeze(), lambda x: x.sum(), lambda x: x[None],
            lambda x: x[:0], lambda x: x[:, :0], lambda x: x > 0, lambda x: x.numpy(), nn.Sigmoid(),
            lambda x: x * float("nan"), lambda x: x.to(torch.complex64), lambda x: [*x],
        ]))  # fmt: skip
    return steps


def _pick(rng: np.random.Generator, things: list[Step]) -> Step:
    return things[int(rng.integers(len(things)))]


def random_model(rng: np.random.Generator, width: int) -> object:
    """A stack or a module with a forward of its own, some of its weights broken, or cast."""
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        steps = random_steps(rng, width if rng.random() < 0.95 else width + 1)
        stacked = all(isinstance(s, nn.Module) for s in steps) and rng.random() < 0.5
        model = nn.Sequential(*steps) if stacked else Grab(steps)
    lazy = any(nn.parameter.is_lazy(p) for p in model.parameters())
    if rng.random() < 0.1 and not lazy:
        broken = [p for p in model.parameters() if p.numel()]
        value = float(rng.choice([np.nan, np.inf, 1e38]))
        with torch.no_grad():
            broken[int(rng.integers(len(broken)))].view(-1)[0] = value
    if rng.random() < 0.15:
        dtype = _pick(rng, [torch.half, torch.bfloat16, torch.double, torch.float8_e4m3fn])
        model._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)
    if rng.random() < 0.05 and not lazy:
        model.requires_grad_(False)
    return _pick(rng, [type(model), model.state_dict(), None]) if rng.random() < 0.02 else model


def fuzz_models(rng: np.random.Generator) -> None:
    """Audits, slices and repairs a random model on 40 made-up rows.

    Raises:
        Exception: Whatever comes out that is no ``FairNeuronError``.
    """
    n, width = 40, int(rng.integers(1, 6))
    x = rng.normal(size=(n, width)).astype(np.float32)
    y, group = np.arange(n) % 2, np.arange(n) // 2 % 2
    data = Dataset.from_arrays(x, y, group)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = random_model(rng, width)
        quick = {
            "conflict": {"neuron_share": 0.3, "stops": (0.5, 0.0), "epochs": 1},
            "paper": {"epochs": 1},
        }
        tasks: list[Callable[[], object]] = [
            lambda: fn.audit(model, data),
            lambda: fn.activation_paths(model, data.x),
            *(lambda r=r, o=o: fn.repair(model, data, data, recipe=r, **o)
              for r, o in quick.items()),
        ]  # fmt: skip
        refused = []
        for task in tasks:
            try:
                task()
            except FairNeuronError as error:
                refused.append(error)
        assert all(e.code.startswith("model-") and "\n" not in str(e) for e in refused), refused


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Bytes with some flipped, cut off, left out, doubled or replaced."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        start = int(rng.integers(len(data) + 1))
        end = min(len(data), start + int(rng.choice([1, 2, 8, 64])))
        kind = int(rng.integers(5))
        if kind == 0:
            del data[start:]
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:start] = data[start:end]
        elif kind == 3:
            data[start:end] = rng.bytes(end - start)
        elif start < end:
            data[start] ^= 1 << int(rng.integers(8))
    return bytes(data)


def damaged_inside(rng: np.random.Generator, checkpoint: bytes) -> bytes:
    """A whole archive, with the right sums, of which one member is damaged."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as old, zipfile.ZipFile(packed, "w") as new:
        names = old.namelist()
        chosen = names[int(rng.integers(len(names)))] if rng.random() < 0.5 else "archive/data.pkl"
        for name in names:
            new.writestr(name, damaged(rng, old.read(name)) if name == chosen else old.read(name))
    return packed.getvalue()


def fuzz_weights(rng: np.random.Generator, folder: Path) -> None:
    """Loads a damaged file of weights into a network.

    Args:
        rng: Source of the damage.
        folder: Where the file goes.

    Raises:
        Exception: Whatever comes out that is no ``FairNeuronError``.
    """
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    kind = int(rng.integers(3))
    whole = module_weights(model, {"note": "x"}) if kind == 0 else saved.getvalue()
    content = damaged_inside(rng, whole) if kind == 2 else damaged(rng, whole)
    path = folder / "weights"
    path.write_bytes(content)
    before = module_weights(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fn.FairNeuronWarning)
        refusal = None
        try:
            read_tensors(path)
            load_into(model, path)
        except FairNeuronError as error:
            refusal = error
    if refusal is not None:
        assert refusal.code.startswith("model-"), refusal
        assert "\n" not in str(refusal), refusal
        assert "weights_only=False" not in str(refusal), refusal
        assert module_weights(model) == before


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str


def command(folder: Path, *words: object) -> Outcome:
    """Runs ``fairneuron`` in this process, in the folder, as from a pipe."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv, warnings.showwarning, [*sys.path], sys.stdin
    code: object = None
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv, sys.stdin = ["fairneuron", *map(str, words)], io.StringIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")  # pytest makes them errors
                cli.main()
        except SystemExit as stop:
            code = stop.code
        finally:
            sys.argv, warnings.showwarning, sys.path[:], sys.stdin = before
    assert isinstance(code, int), code
    return Outcome(code, out.getvalue(), err.getvalue())


# Tables and arrays


ODD_TEXTS = (
    *(
        "",
        " ",
        "NA",
        "None",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e-400",
        "-0",
        "007",
        "1,234",
        "1.5e3",
    ),
    *(
        "yes",
        "no",
        "1",
        "0",
        "1.0",
        "True",
        "9007199254740993",
        "9" * 400,
        "=1+1",
        "@x",
        "-x",
        "0x10",
    ),
    *("\x1b[31m", "a\tb", "\u202e", "größe", "\ufeff", "x" * 5000, "'", '"', "a b ", "½", "١٢"),
)


def random_table(rng: np.random.Generator) -> pd.DataFrame:
    """Some rows with a label "y", groups "g" and other columns; now and then odd values."""
    n = int(rng.choice([1, 5, 40, 60, 60]))
    table = pd.DataFrame(
        {
            "y": rng.choice(["yes", "no"], n),
            "g": rng.choice(["a", "b", "c"][: int(rng.choice([1, 2, 2, 2, 3, 3]))], n),
            "h": rng.choice(["x", "y"], n),
            "number": rng.normal(size=n).round(3),
            "whole": rng.integers(-5, 50, n),
            "text": rng.choice(["p", "q", "r"], n),
            "part": rng.choice(["train", "train", "valid", "test"], n),
            "weight": rng.random(n).round(3),
        }
    ).astype(object)
    for _ in range(int(rng.choice([0, 0, 1, 3]))):
        column = str(rng.choice(table.columns))
        share = float(rng.choice([0.02, 0.3, 1]))
        table.loc[rng.random(n) < share, column] = str(rng.choice(ODD_TEXTS))
    if rng.random() < 0.2:
        a, b = rng.choice(table.columns, 2)
        table[a] = table[b]
    if rng.random() < 0.2:
        table = table.rename(columns={str(rng.choice(table.columns)): str(rng.choice(ODD_TEXTS))})
    if rng.random() < 0.1:
        table = table[list(rng.choice(table.columns, int(rng.integers(1, 9))))]
    return table


def damaged_text(rng: np.random.Generator, content: bytes) -> bytes:
    """Text with some characters added, left out or replaced."""
    text = [*content.decode()]
    for _ in range(int(rng.choice([1, 1, 2, 5]))):
        start, odd = int(rng.integers(len(text))), str(rng.choice([*'a0.-,;" \n\tä\x00']))
        if start and rng.random() < 0.7:
            text[start : start + int(rng.integers(2))] = odd
        else:
            del text[start]
    return "".join(text).encode()


def table_bytes(rng: np.random.Generator, table: pd.DataFrame, delimiter: str) -> bytes:
    """A table as CSV, gzip or Parquet; some of the time damaged."""
    content = table.to_csv(index=bool(rng.random() < 0.05), sep=delimiter).encode()
    if rng.random() < 0.3:
        content = damaged_text(rng, content)
    kind = rng.choice([*["csv"] * 6, *["gzip", "parquet"] * 2, "damaged inside"])
    if kind == "parquet" and table.columns.is_unique:
        packed = io.BytesIO()
        with contextlib.suppress(Exception):  # not all odd columns can be written
            table.convert_dtypes().to_parquet(packed)
            content = packed.getvalue()
    elif kind == "damaged inside":
        return gzip.compress(damaged(rng, content))
    elif kind == "gzip":
        content = gzip.compress(content)
    elif rng.random() < 0.05:
        content = content.decode().encode(str(rng.choice(["utf-16", "utf-8-sig", "utf-32"])))
    if kind == "csv" and rng.random() < 0.2:  # lines mixed up
        lines = content.splitlines(keepends=True)
        content = b"".join(lines[int(i)] for i in rng.integers(0, len(lines), len(lines)))
    return damaged(rng, content) if rng.random() < 0.1 else content


def _maybe(rng: np.random.Generator, chance: float, value: Any, other: Any = None) -> Any:
    return value if rng.random() < chance else other


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Lets our own refusals and warnings pass; other warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FairNeuronWarning)
        with contextlib.suppress(InputError):
            yield


def fuzz_csv(rng: np.random.Generator, folder: Path) -> None:
    """Reads, encodes and splits a random or damaged table, or takes it for predictions.

    Args:
        rng: Source of what it is.
        folder: Where files go.

    Raises:
        Exception: Whatever comes out that is no ``FairNeuronError``.
    """
    delimiter = str(rng.choice([",", ",", ",", ";", "\t", "|"]))
    table = random_table(rng)
    path = folder / "table"
    path.write_bytes(table_bytes(rng, table, delimiter))
    test = folder / "test"
    test.write_bytes(table_bytes(rng, random_table(rng), delimiter))
    column = functools.partial(rng.choice, list(map(str, table.columns)))
    with refusals():
        list(describe_columns(read_table(path, delimiter=delimiter)))
    with refusals(), contextlib.chdir(folder):
        own_split = rng.random() < 0.3
        choice = DataChoice(
            data=None if own_split else "./table",
            train=Path("table") if own_split else None,
            test=Path("test") if own_split else None,
            split_column=None if own_split else _maybe(rng, 0.3, "part"),
            target=_maybe(rng, 0.9, "y", str(column())),
            positive=_maybe(rng, 0.9, "yes", _maybe(rng, 0.5, str(rng.choice(ODD_TEXTS)))),
            sensitive=("g", "h")[: int(rng.integers(1, 3))] if rng.random() < 0.9 else ("g,h",),
            include_sensitive=bool(rng.random() < 0.3),
            drop=() if rng.random() < 0.8 else (str(column()),),
            types={str(column()): str(rng.choice(["number", "category"]))}
            if rng.random() < 0.3
            else {},
            weight=_maybe(rng, 0.3, "weight", _maybe(rng, 0.05, str(column()))),
            delimiter=_maybe(rng, 0.95, delimiter),
        )
        own = read_own_table(choice)
        parts = load_parts(Subject(choice), own)
        schema = own.schema
        assert all(torch.isfinite(part.x).all() for part in parts)
        assert sum(map(len, parts)) == len(own.frame)
        with refusals():
            new = schema.inputs_of(read_table(test, delimiter=delimiter, text=schema.texts))
            assert np.isfinite(new).all()
    with refusals(), contextlib.chdir(folder):
        names = {"prediction": str(column()), "score": str(column())}
        chosen = {k: v for k, v in names.items() if rng.random() < 0.6}
        choice = DataChoice(
            data="./table",
            target="y",
            positive="yes",
            sensitive=("g",),
            delimiter=delimiter,
        )
        whole = read_own_table(choice, inputs=False)
        audit_predictions_file(Subject(choice), whole, path, **chosen)[1].to_dict()


def random_array(rng: np.random.Generator, n: int) -> np.ndarray[Any, Any]:
    """Numbers or texts of a random type and shape, some of them odd."""
    shape = [(n,), (n,), (n, 1), (n, 3), (n, 0), (), (n, 2, 2), (n + 1,), (0,)][
        int(rng.integers(9))
    ]
    kind = str(rng.choice(["f4", "f8", "f2", "i8", "u1", "i1", "?", "U3", "S3", "c8", "M8[s]"]))
    values = rng.integers(0, int(rng.choice([1, 2, 2, 3, 300])), shape)
    array = values.astype(kind)
    if kind[0] == "f" and array.size and rng.random() < 0.3:
        array.flat[int(rng.integers(array.size))] = rng.choice([np.nan, np.inf, -1.5, 6e4])
    return array


def fuzz_arrays(rng: np.random.Generator, folder: Path) -> None:
    """Reads and splits random or damaged arrays.

    Args:
        rng: Source of what they are.
        folder: Where the file goes.

    Raises:
        Exception: Whatever comes out that is no ``FairNeuronError``.
    """
    n = int(rng.choice([1, 30, 60]))
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "x": rng.normal(size=(n, 3)).astype(np.float32),
        "y": rng.integers(0, 2, n),
        "sensitive": rng.integers(0, 2, n),
    }
    for name in ("x", "y", "sensitive", "split", "weight", "feature_names", "sensitive_names"):
        if rng.random() < 0.15:
            arrays[name] = random_array(rng, n)
    if rng.random() < 0.1:
        del arrays[str(rng.choice(list(arrays)))]
    suffix = str(rng.choice([".npz", ".npz", ".safetensors", ".pt"]))
    saved = io.BytesIO()
    numbers = {k: v for k, v in arrays.items() if v.dtype.kind in "biuf"}
    if suffix == ".npz":
        (np.savez if rng.random() < 0.7 else np.savez_compressed)(saved, **arrays)  # type: ignore[operator]
        content = saved.getvalue()
    elif suffix == ".safetensors":
        content = save({k: np.array(v, order="C") for k, v in numbers.items()})
    else:
        torch.save({k: torch.tensor(v) for k, v in numbers.items()}, saved)
        content = saved.getvalue()
    if rng.random() < 0.3:
        content = damaged(rng, content)
    elif rng.random() < 0.2 and suffix == ".npz":
        content = damaged_inside(rng, content)
    (folder / f"a{suffix}").write_bytes(content)
    with refusals(), contextlib.chdir(folder):
        choice = DataChoice(
            data=f"./a{suffix}",
            positive=_maybe(rng, 0.2, str(rng.choice(["1", "0", "yes"]))),
            sensitive=() if rng.random() < 0.8 else (str(rng.choice(["sensitive", "sex", "1"])),),
        )
        parts = load_parts(Subject(choice))
        assert all(torch.isfinite(part.x).all() for part in parts)


# Words of the command line


VALUES = (
    *("0", "1", "-1", "0.5", "2", "nan", "inf", "-inf", "1e400", "1e-400", "99999999999999999999"),
    *("dp=0.05", "dp", "eo=", "=1", "dp=nan", "dp=0.05=1", "accuracy=0.5", "dp=1e999", "DP=0.1"),
    *("yes", "no", "y", "g", "g,h", ",", "", " ", "number", "number=category", "text=number", "=x"),
    *(
        "0=1,1=3",
        "balanced",
        "0=inf",
        "1",
        "0=1,0=2",
        "7=1",
        "8,8",
        "8,,8",
        "x",
        "9" * 5000,
        "a=b=c",
    ),
    *(
        "t.csv",
        "t.npz",
        "w",
        "run",
        "taken",
        "gone.csv",
        "gone",
        ".",
        "..",
        "a/b",
        "/dev/null",
        "pipe",
    ),
    *(
        "compas",
        "credit",
        "comps",
        "train",
        "test",
        "all",
        "conflict",
        "paper",
        "signed",
        "absolute",
    ),
    *(
        "os:getcwd",
        "json:dumps",
        "gone:build",
        "a.b:c",
        ":",
        "os:",
        ":f",
        "os.path:join",
        "builtins:exit",
    ),
    *(
        "\x1b[31mred",
        "new\nline",
        "tab\t",
        "\udcff",
        "\u202e",
        "größe",
        "x" * 5000,
        "\0",
        ";",
        "\\t",
    ),
    *(
        "--",
        "-",
        "-x",
        "--help",
        "--version",
        "---",
        "--=",
        "--data=",
        "--data=t.csv",
        "$(id)",
        "%s",
    ),
)


NUMERIC = (
    *("--gamma", "--theta", "--dropout", "--epochs", "--neuron-share", "--time-budget"),
    *("--threshold", "--seed", "--outputs"),
)


@functools.cache
def options_of() -> dict[tuple[str, ...], dict[str, bool]]:
    """The words of every command; its options, and whether they take a value."""
    found: dict[tuple[str, ...], dict[str, bool]] = {}

    def look(command: Any, words: tuple[str, ...]) -> None:
        inner = getattr(command, "commands", {})
        for name, below in inner.items():
            look(below, (*words, name))
        if not inner:
            found[words] = {
                opt: not getattr(p, "is_flag", False)
                for p in command.params
                for opt in p.opts
                if opt.startswith("--")
            }

    look(typer.main.get_command(cli.app), ())
    return found


def _misspelt(rng: np.random.Generator, word: str) -> str:
    place = int(rng.integers(len(word)))
    return str(rng.choice([word[:place] + word[place + 1 :], word + word[place], word.upper()]))


def fuzz_options(rng: np.random.Generator, folder: Path) -> None:
    """Runs a command with random words, on tiny data.

    Args:
        rng: Source of the words.
        folder: Where it runs; it gets the files that the words name.

    Raises:
        AssertionError: For other exit codes than 0, 1 and 2, and for tracebacks.
    """
    for name, content in small_files().items():
        (folder / name).write_bytes(content)
    if not (folder / "run").exists():
        write_folder(folder / "run", run_files())
    (folder / "taken").mkdir(exist_ok=True)
    (folder / "taken" / "mine").touch()
    apart = {("convert",), ("compare",), ("data", "get")}  # start processes, use the network
    commands = [c for c in options_of() if c not in apart]
    chosen = commands[int(rng.integers(len(commands)))]
    good = {
        "audit": ["--data", "t.csv", "--target", "y", "--positive", "yes", "--sensitive", "g"],
        "paths": ["--data", "t.csv", "--target", "y", "--positive", "yes", "--sensitive", "g"],
        "repair": ["--data", "t.csv", "--target", "y", "--positive", "yes", "--sensitive", "g"],
        "search": ["--data", "t.csv", "--target", "y", "--positive", "yes", "--sensitive", "g"],
        "reproduce": ["table1"],
        "predict": ["run", "t.csv"],
        "choose": ["run", "--limit", "dp=0.1"],
        "resume": ["run"],
        "init": ["t.csv", "--target", "y", "--positive", "yes", "--sensitive", "g"],
        "data": {"show": ["t.csv"], "export": ["credit", "a/b"]}.get(chosen[-1], []),
    }[chosen[0]]
    words = [*good] if rng.random() < 0.8 else []
    if chosen[0] in ("audit", "paths") and rng.random() < 0.6:
        words += ["--weights", "w"]
    for _ in range(int(rng.choice([0, 1, 2, 3, 8]))):
        kinds = options_of()[chosen]
        option = str(rng.choice([*kinds]))
        values = VALUES[:11] if option in NUMERIC else VALUES
        words += [_misspelt(rng, option) if rng.random() < 0.03 else option]
        if kinds[option] and rng.random() < 0.97:
            words += [values[int(rng.integers(len(values)))]]
    for _ in range(int(rng.choice([0] * 9 + [1]))):
        words.insert(int(rng.integers(len(words) + 1)), VALUES[int(rng.integers(len(VALUES)))])
    taken = {"repair": "taken", "reproduce": "taken", "search": "taken/mine"}
    if chosen[0] in taken:  # never trained
        words += ["--out", taken[chosen[0]]]
    outcome = command(folder, *chosen, *words)
    said = f"fairneuron {[*chosen, *words]}\n{outcome}"
    assert outcome.code in (0, 1, 2), said
    assert "Traceback" not in outcome.err, said
    assert all(c.isprintable() or c == "\n" for c in outcome.err), said
    if outcome.code == 2 and "Usage:" not in outcome.out + outcome.err:
        assert "error[" in outcome.err, said


def small_table() -> pd.DataFrame:
    """Forty rows."""
    rng = np.random.default_rng(0)
    n = 40
    number = rng.normal(size=n).round(3)
    return pd.DataFrame(
        {
            "y": np.where(number + np.arange(n) % 2 > 0.5, "yes", "no"),
            "g": np.array(["a", "b"])[np.arange(n) % 2],
            "number": number,
            "text": rng.choice(["p", "q"], n),
        }
    )


@functools.cache
def small_files() -> dict[str, bytes]:
    """A table, arrays and weights that fit them both."""
    table = small_table()
    saved = io.BytesIO()
    np.savez(saved, x=np.random.default_rng(0).normal(size=(40, 3)), y=np.arange(40) // 2 % 2,
             sensitive=np.arange(40) % 2)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = mlp_weights(mlp(3, (4,)))
    return {"t.csv": table.to_csv(index=False).encode(), "t.npz": saved.getvalue(), "w": weights}


# Run folders


@functools.cache
def run_files() -> dict[str, bytes]:
    """The files of a repair of the small table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in small_files().items():
            (folder / file).write_bytes(content)
        words = ("--data", "t.csv", "--target", "y", "--positive", "yes", "--sensitive", "g")
        more = ("--epochs", "5", "--neuron-share", "1", "--hidden", "6", "--out", "run")
        assert command(folder, "repair", *words, *more).code in (0, 1)
        return {p.name: p.read_bytes() for p in (folder / "run").iterdir() if p.name != MANIFEST}


def changed_json(rng: np.random.Generator, content: bytes) -> bytes:
    """JSON with some values replaced, left out or swapped."""
    value = json.loads(content)
    for _ in range(int(rng.integers(1, 4))):
        place, key = value, None
        while (
            isinstance(place, (dict, list)) and len(place) and (key is None or rng.random() < 0.7)
        ):
            inside = list(place) if isinstance(place, dict) else list(range(len(place)))
            parent, key = place, inside[int(rng.integers(len(inside)))]
            place = parent[key]
        if key is None:
            continue
        odd = [
            *(None, True, 0, -1, 1.5, 1e308, float("nan"), 10**30, "", "x", "\x1b[31m", [], {}),
            *([0], {"x": 1}, "0", "1", "dp", copy.deepcopy(value)),
        ]
        if rng.random() < 0.2:
            del parent[key]
        else:
            parent[key] = odd[int(rng.integers(len(odd)))]
    return json.dumps(value).encode()


def fuzz_run_folder(rng: np.random.Generator, folder: Path) -> None:
    """Predicts with, and chooses in, a run folder that was changed, most often with right sums.

    Args:
        rng: Source of the changes.
        folder: Where it goes.

    Raises:
        Exception: Whatever comes out that is no ``FairNeuronError``.
    """
    files = dict(run_files())
    for _ in range(int(rng.integers(1, 3))):
        name = str(rng.choice(sorted(files)))
        kind = rng.random()
        if kind < 0.65 and name.endswith(".json"):
            with contextlib.suppress(ValueError):  # damaged before
                files[name] = changed_json(rng, files[name])
        elif kind < 0.75:
            files[name] = damaged(rng, files[name])
        elif kind < 0.85:
            files[name] = files[str(rng.choice(sorted(files)))]
        elif kind < 0.9 and len(files) > 1:
            del files[name]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        run = Path(place) / "run"
        write_folder(run, files)
        if rng.random() < 0.1:
            path = run / str(rng.choice([*sorted(files), MANIFEST]))
            path.write_bytes(damaged(rng, path.read_bytes()))
        table = Path(place) / "t.csv"
        table.write_bytes(small_files()["t.csv"])
        with refusals():
            saved = Saved.read(run)
            saved.require_code(model=None, encode=None)
            lines = saved.predict(table, original=bool(rng.random() < 0.5)).splitlines()
            assert len(lines) == 41
        limit = {"dp": float(rng.choice([0, 0.1, 0.3, 1]))}
        chosen = None
        with refusals():
            chosen = Saved.read(run).choose(limit)
        if chosen is not None:
            assert json.loads((run / "result.json").read_bytes()) == chosen
            assert Saved.read(run).choose(limit) == chosen


# All of them, for minutes


def _models(rng: np.random.Generator, _folder: Path) -> None:
    fuzz_models(rng)


FUZZERS: dict[str, Callable[[np.random.Generator, Path], None]] = {
    "models": _models,
    "weights": fuzz_weights,
    "csv": fuzz_csv,
    "arrays": fuzz_arrays,
    "options": fuzz_options,
    "run_folder": fuzz_run_folder,
}
_SECONDS = 120  # after which an attempt hangs


def attempt(name: str, seed: int) -> None:
    """One attempt of a fuzzer, in a folder of its own.

    Raises:
        Exception: What the fuzzer raises; a TimeoutError if it hangs.
    """

    def hangs(*_: object) -> None:
        raise TimeoutError(f"no end after {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(_SECONDS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            FUZZERS[name](np.random.default_rng([seed, len(name)]), Path(folder))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Loops over the fuzzers for some minutes; says how often each was run, or what failed."""
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/soak")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, help="of the first attempt; the clock unless given")
    parser.add_argument("--once", action="store_true", help="one attempt each, to see a failure")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FUZZERS)}")
    given = parser.parse_args()
    names = given.names or list(FUZZERS)
    if unknown := {*names} - {*FUZZERS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(FUZZERS)}")
    seed = int(time.time()) if given.seed is None else given.seed
    counts, end = dict.fromkeys(names, 0), time.monotonic() + 60 * given.minutes
    print(f"from seed {seed}", flush=True)  # noqa: T201
    while time.monotonic() < end:
        for name in names:
            try:
                attempt(name, seed)
            except BaseException as error:
                if not isinstance(error, KeyboardInterrupt):
                    again = f"scripts/soak --once --seed {seed} {name}"
                    print(f"{name} failed with seed {seed}; again: {again}")  # noqa: T201
                raise
            counts[name] += 1
        seed += 1
        if given.once:
            break
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
