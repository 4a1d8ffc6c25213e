"""Files that want to run code, fill the memory or mislead a reader, offered to all that read files.

``python -m tests.hostile FOLDER`` makes them in the folder, gives them to every command and option
that reads a file, in one process under an audit hook, and prints as JSON what came of it.
"""

from __future__ import annotations

import ast
import functools
import gzip
import hashlib
import importlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
import torch
import typer.main

from fairneuron.io import MANIFEST
from fairneuron.models import mlp
from fairneuron.state import State
from fairneuron.weights import mlp_weights
from tests.conftest import made_up
from tests.fuzzing import command

MARKS = Path("marks")  # where code that runs leaves a file; relative, so that bytes do not differ
EVIL = f"""
import pathlib

def build(*_):
    pathlib.Path({str(MARKS)!r}, "evil").touch()

build()

class Evil:
    __setstate__ = build
"""


# What would run


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def pickles() -> Iterator[tuple[str, bytes]]:
    """Programs for pickle that leave a mark, in all protocols."""
    shell, line = f"echo > {MARKS}/shell", f"open('{MARKS}/line', 'w').close()"
    run = Calls(os.system, shell)
    values = {
        "os.system": run,
        "exec": Calls(exec, line),
        "eval": Calls(eval, line),
        "Popen": Calls(subprocess.call, ["touch", f"{MARKS}/popen"]),
        "Path.touch": Calls(Path.touch, Path(MARKS, "touch")),
        "import": Calls(importlib.import_module, "evil"),
        "getattr": Calls(getattr, Calls(importlib.import_module, "evil"), "build"),
        "nested": OrderedDict(a=[{"b": (1, [run])}]),
        "weights and more": {"0.weight": [1.0], "x": run},
        "pickle in a pickle": Calls(pickle.loads, pickle.dumps(run)),
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for name, value in values.items():
            yield f"{name} {protocol}", pickle.dumps(value, protocol)
    text = shell.encode()
    yield "words of protocol 0", b"cos\nsystem\n(S'" + text + b"'\ntR."
    yield "inst", b"(S'" + text + b"'\nios\nsystem\n."
    yield "obj", b"(cos\nsystem\nS'" + text + b"'\no."
    yield "setstate", b"\x80\x02cevil\nEvil\n)\x81}b."
    yield "behind the end", b"\x80\x02}." + pickle.dumps(run)


def packed(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def checkpoint(program: bytes, **more: bytes) -> bytes:
    """A checkpoint as torch.save packs it, with this list of tensors."""
    own = {"data.pkl": program, "version": b"3\n", "byteorder": b"little", "data/0": bytes(64)}
    return packed({f"archive/{name}": content for name, content in (own | more).items()})


def saved(value: object, **options: Any) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def objects(write: Callable[..., None]) -> bytes:
    """What numpy writes for an array of objects."""
    array = np.array([Calls(os.system, f"echo > {MARKS}/numpy")] * 2, dtype=object)
    file = io.BytesIO()
    if write is np.savez:
        write(file, x=np.ones((2, 1)), y=np.arange(2), sensitive=array)
    else:
        write(file, array)
    return file.getvalue()


def running() -> Iterator[tuple[str, bytes]]:
    """Files that run code when a lenient reader opens them."""
    for name, program in pickles():
        yield f"pickle: {name}", program
        if name[-1] in "024" or not name[-1].isdigit():
            yield f"checkpoint: {name}", checkpoint(program)
    run = Calls(os.system, f"echo > {MARKS}/shell")
    plain = pickle.dumps(run)
    for old in (False, True):
        value = {"0.weight": torch.ones(1), "x": run}
        yield f"torch.save: {old}", saved(value, _use_new_zipfile_serialization=not old)
    yield "torchscript", checkpoint(plain, **{"constants.pkl": plain, "code/__torch__.py": b"1"})
    yield "pt2", checkpoint(plain, archive_format=b"pt2", **{"data/weights/weight_0": plain})
    yield "package", checkpoint(plain, **{".data/extern_modules": b"", "m/x.pkl": plain})
    yield "joblib", zlib.compress(plain)
    yield "npy of objects", objects(np.save)
    yield "npz of objects", objects(np.savez)


# What misleads


def good() -> dict[str, bytes]:
    """Files that are as they should be, of every kind."""
    torch.manual_seed(0)
    network, rng = mlp(5, (4,)), np.random.default_rng(0)
    data, file, table = made_up(80), io.BytesIO(), io.BytesIO()
    groups = np.array(data.group_names)[data.group]
    np.savez(file, x=data.x.numpy(), y=data.y, sensitive=groups)
    frame = pd.DataFrame(data.x.numpy().round(3), columns=list("abcde"))
    frame = frame.assign(sex=groups, y=data.y, score=rng.random(80).round(3))
    frame.to_parquet(table)
    return {
        "w.safetensors": mlp_weights(network),
        "w.pt": saved(network.state_dict()),
        "a.npz": file.getvalue(),
        "t.parquet": table.getvalue(),
        "t.csv.gz": gzip.compress(frame.to_csv(index=False).encode(), mtime=0),
        "t.csv": frame.to_csv(index=False).encode(),
    }


def tensors(header: object, data: bytes = bytes(8), length: int | None = None) -> bytes:
    """A safetensors file of this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    """What a safetensors header says of a tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def array(shape: str, descr: str = "'<f8'", data: bytes = bytes(8)) -> bytes:
    """A NumPy file of this header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text = header.encode().ljust(118 + 64 * (len(header) // 64)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def misleading() -> Iterator[tuple[str, bytes]]:
    """Two kinds in one, sizes that are not true, nesting without end."""
    whole, run = good(), pickle.dumps(Calls(os.system, f"echo > {MARKS}/shell"))
    evil = checkpoint(run)
    for name, first in (("pickle", run), ("web page", b"<!doctype html><html></html>")):
        yield f"{name}, zip", first + evil
        yield f"{name}, good zip", first + whole["w.pt"]
    yield "zip, pickle", evil + run
    yield "safetensors, zip", whole["w.safetensors"] + evil
    yield "safetensors, pickle", whole["w.safetensors"] + run
    yield "safetensors of a pickle", tensors({"x": entry([len(run)], 0, len(run), "U8")}, run)
    yield "length that is a pickle", b"\x80\x04}\x94.\0\0\0{" + run
    yield "table, zip", b"a,b\n1,2\n" + evil
    yield "parquet, pickle", b"PAR1" + run + b"PAR1"
    yield "gzip of a pickle", gzip.compress(run)
    yield "gzip of a zip", gzip.compress(evil)
    two = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(two, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data.pkl", run)
    yield "data.pkl twice", two.getvalue()
    yield "another name in the directory", evil.replace(b"archive/data.pkl", b"archive/data.pk_", 1)
    yield "names that leave the folder", packed({"../data.pkl": run, "../marks/zip": b""})
    # bombs
    yield "packed checkpoint", packed({"archive/data.pkl": bytes(1 << 24)}, zipfile.ZIP_DEFLATED)
    yield "packed arrays", packed({"x.npy": bytes(70 << 20)}, zipfile.ZIP_DEFLATED)
    yield "packed table", gzip.compress(b"a,b\n" + b"1,2\n" * (17 << 20), 1)
    yield "gzip in gzip", gzip.compress(gzip.compress(bytes(80 << 20), 1))
    for shape in ("(9999999999, 999999)", "(-1, 8)", "(2**9,)", "(1, " * 90 + ")" * 90):
        yield f"array {shape[:9]}", packed({"x.npy": array(shape)})
    code = f"__import__('os').system('echo > {MARKS}/header')"
    yield "array of code", packed({"x.npy": array(f"({code},)")})
    yield "type of code", packed({"x.npy": array("(1,)", code)})
    yield "type of objects", packed({"x.npy": array("(1,)", "'|O'", run)})
    for name, header in {
        "huge shape": {"x": entry([1 << 40, 1 << 22], 0, 8)},
        "shape that overflows": {"x": entry([1 << 63, 2], 0, 8)},
        "negative": {"x": entry([-2], -8, 0)},
        "overlap": {"x": entry([2], 0, 8), "y": entry([2], 0, 8)},
        "gap": {"x": entry([1], 0, 4), "y": entry([1], 8, 12)},
        "backwards": {"x": entry([2], 8, 0)},
        "metadata": {"__metadata__": {"fairneuron": "[" * 9999}, "x": entry([2], 0, 8)},
        "no objects": [1, 2],
        "nested": b'{"x":' + b"[" * 50_000,
        "twice": b'{"x":%b,"x":%b}' % ((json.dumps(entry([2], 0, 8)).encode(),) * 2),
    }.items():
        yield f"header: {name}", tensors(header)
    for size in (99_999_999, 1 << 32, (1 << 64) - 1):
        yield f"header of {size}", tensors({}, length=size)
    deep = 40_000
    for name, program in {
        "lists": b"\x80\x02" + b"]" * deep + b"a" * (deep - 1) + b".",
        "marks": b"\x80\x02" + b"(" * deep + b"t" * deep + b".",
        "doubling": b"\x80\x02]q\0" + b"h\0h\0\x86q\0" * 60 + b".",
        "length": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
        "bytes": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",
        "number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "frame": b"\x80\x04\x95" + b"\xff" * 8 + b"}.",
        "memo": b"\x80\x02}r\xff\xff\xff\xff.",
        "itself": b"\x80\x02}q\0X\1\0\0\0ah\0s.",
    }.items():
        yield f"program: {name}", program
        yield f"checkpoint of {name}", checkpoint(program)
    # garbage
    noise = np.random.default_rng(0).bytes(5000)
    yield "parquet of noise", b"PAR1" + noise + b"PAR1"
    yield "parquet with a huge footer", b"PAR1" + noise + b"\xff\xff\xff\x7fPAR1"
    yield "zip of noise", b"PK\x03\x04" + noise + b"PK\x05\x06" + bytes(18)
    yield "noise", b"\xfe" + noise
    for name, content in whole.items():  # cut off anywhere
        if name != "t.csv":
            for share in range(1, 10):
                yield f"{name} to {share}/10", content[: len(content) * share // 10]


@functools.cache
def corpus() -> dict[str, bytes]:
    """All of them by name."""
    return {**dict(running()), **dict(misleading())}


# To whom they are given

RUNS = {"R": "t.csv", "A": "a.npz"}  # a run on a table, a run on arrays
ROLES = ("--target", "y", "--sensitive", "sex")


def readers(given: Path) -> dict[str, tuple[str, ...]]:
    """Every way to have a file read; ``given`` is its name without an ending."""
    table, arrays = f"{given}.csv", f"{given}.npz"
    own = ("--data", "a.npz")
    return {
        "weights": ("audit", *own, "--weights", f"{given}.pt"),
        "weights of a model": ("audit", *own, "--model", "nets:build", "--weights", f"{given}.pt"),
        "table": ("audit", "--data", table, *ROLES),
        "table in JSON": ("audit", "--data", table, *ROLES, "--json"),
        "training table": ("audit", "--train", table, "--test", "t.csv", *ROLES),
        "test table": ("audit", "--train", "t.csv", "--test", table, *ROLES),
        "arrays": ("audit", "--data", arrays),
        "tensors": ("audit", "--data", f"{given}.safetensors"),
        "checkpoint of tensors": ("audit", "--data", f"{given}.pt"),
        "predictions": ("audit", "--data", "t.csv", *ROLES, "--predictions", table),
        "predictions alone": ("audit", "--predictions", table, *ROLES),
        "new table": ("predict", "R", table),
        "new arrays": ("predict", "A", arrays),
        "new tensors": ("predict", "A", f"{given}.pt"),
        "columns": ("data", "show", table),
        "table to begin with": ("init", table, *ROLES, "--out", "new.toml", "--overwrite"),
        "configuration": ("audit", "--config", f"{given}.toml", *own),
        "another sum": ("convert", f"{given}.pt", "--out", "c.safetensors", "--sha256", "0" * 64),
        "no sum": ("convert", f"{given}.pt", "--out", "c.safetensors"),
    }


PARTS = {  # a file of a run, with a right sum, and the command that reads it
    "encoding.json": ("predict", "run", "t.csv"),
    "repaired.safetensors": ("predict", "run", "t.csv"),
    "candidates.safetensors": ("choose", "run", "--limit", "dp=0.3"),
    "result.json": ("choose", "run", "--limit", "dp=0.3"),
    "front.json": ("choose", "run", "--limit", "dp=0.3"),
    MANIFEST: ("predict", "run", "t.csv"),
}
COMPARED = ("--methods", "naive", "--seeds", "1", "--workers", "1", "--no-plots")
CODE = ("--model", "nets:build")
OTHERS = {  # commands that share the options of audit: a few files are enough
    "paths": (),
    "repair": ("--out", "o"),
    "search": ("--samples", "1"),
    "compare": ("--out", "o", *COMPARED),
}
FEW = ("pickle: os.system 4", "checkpoint: exec 2", "npz of objects", "torch.save: False")


def attempts(names: list[str]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """File, reader and words of every attempt, made just before it is to be used."""
    for number, name in enumerate(names):
        for reader, words in readers(Path("given", str(number))).items():
            yield name, reader, words
        if name in FEW:
            for other, more in OTHERS.items():
                weights = (other, "--data", "a.npz", "--weights", f"given/{number}.pt", *more)
                yield name, f"weights of {other}", weights
                yield (
                    name,
                    f"table of {other}",
                    (other, "--data", f"given/{number}.csv", *ROLES, *more),
                )
                yield name, f"arrays of {other}", (other, "--data", f"given/{number}.npz", *more)
        for part, words in PARTS.items():
            if name in FEW or "json" in part or number % 5 == 0:
                prepare(part, Path("given", f"{number}.pt").read_bytes())
                yield name, f"{part} of a run", words
        if name in FEW or number % 5 == 0:
            shutil.copyfile(f"given/{number}.pt", "stopped/state.sqlite")
            yield name, "resume", ("resume", "stopped")
    yield from of_states()
    yield from of_records()
    for option in ("model", "encode"):
        named = json.loads(Path("R", "encoding.json").read_bytes()) | {option: "evil:build"}
        prepare("encoding.json", json.dumps(named).encode())
        yield f"--{option} in a file", "encoding.json of a run", ("predict", "run", "t.csv")


def of_states() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """States of a run whose command names code, or is another one than was ever begun."""
    begun, compared = (["repair", "--data", "a.npz"], ["compare", "--data", "a.npz", *COMPARED])
    paths = sorted(Path("given").glob("*.pt"))
    danger = next(path for path in paths if path.read_bytes().startswith(b"cos"))
    total = hashlib.sha256(danger.read_bytes()).hexdigest()
    for name, words, code in (
        ("another", [*begun, "--model", "evil:build"], ()),
        ("equal sign", [*begun, "--model=evil:build"], ()),
        ("twice", [*begun, "--model", "nets:build", "--model", "evil:build"], CODE),
        ("twice to compare", [*compared, "--model", "nets:build", "--model", "evil:build"], CODE),
        ("twice with one", [*begun, "--model=nets:build", "--model=evil:build"], CODE),
        ("a cluster", [*compared, "--on", "ray://127.0.0.1:9"], ()),
        (
            "a cluster, behind this machine",
            [*compared, "--on=process", "--on=ray://127.0.0.1:9"],
            (),
        ),
        ("convert", ["convert", str(danger), "--sha256", total], ()),
        ("itself", ["resume", "stopped"], ()),
        ("no command", ["--model"], ()),
        ("none", [], ()),
    ):
        shutil.rmtree("stopped.safetensors", ignore_errors=True)
        with State(Path("stopped.safetensors"), words) as state:
            state.agree("run", {"command": "compare"} if words[:1] == ["compare"] else {})
            state.put("step", b"1")
        yield f"state: {name}", "resume", ("resume", "stopped.safetensors", *code)
    for content in (b"[]", b"{", b'{"words": 3}', b'{"words": [], "folder": 3}', b"[" * 99_999):
        with State(Path("stopped.safetensors"), ["repair"]) as state:
            state.put("of/command", content)
        yield f"state: {content!r:.20}", "resume", ("resume", "stopped.safetensors")


def of_records() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Folders of a comparison whose records are none."""
    for content in (
        b'"setup"\n',
        b'["setup"]\n',
        b"[" * 99_999 + b"\n",
        b"\xff\n",
        b"cos\nsystem\n",
    ):
        shutil.rmtree("compared", ignore_errors=True)
        Path("compared").mkdir()
        Path("compared", "records.jsonl").write_bytes(content)
        words = ("compare", "--data", "a.npz", *COMPARED, "--hidden", "4", "--out", "compared")
        yield f"records: {content!r:.20}", "records of a comparison", words


def prepare(part: str, content: bytes) -> None:
    """A run folder in which a file is another one, most often with a manifest that fits."""
    manifest = json.loads(Path("R", MANIFEST).read_bytes())
    manifest["sha256"][part] = hashlib.sha256(content).hexdigest()
    for path in Path("R").iterdir():
        shutil.copyfile(path, Path("run", path.name))
    Path("run", MANIFEST).write_bytes(json.dumps(manifest).encode())
    Path("run", part).write_bytes(content)


# The watcher

DANGERS = (
    *("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"),
    *("subprocess.Popen", "pty.spawn", "pickle.find_class", "marshal.loads", "exec", "compile"),
    *("ctypes.dlopen", "webbrowser.open", "urllib.Request", "socket."),
)


class Watcher:
    """Notes what could harm, as the interpreter tells it.

    Left out are what imports of modules do, literals that ``ast`` reads (the headers of NumPy
    files), and a look at the program's own symbols.
    """

    def __init__(self) -> None:
        self.armed, self.seen = False, set[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.armed and event.startswith(DANGERS) and not self._harmless(event, args):
            self.armed = False  # what is noted below may raise events itself
            self.seen.add(f"{event} {args!r:.90}")
            self.armed = True

    @staticmethod
    def _harmless(event: str, args: tuple[Any, ...]) -> bool:
        frame: FrameType | None = sys._getframe(2)
        if event == "compile" and frame is not None and frame.f_code.co_filename == ast.__file__:
            return True
        while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
            frame = frame.f_back
        return frame is not None or (event, args) == ("ctypes.dlopen", (None,))

    def of(self, act: Callable[[], Any]) -> tuple[Any, list[str]]:
        """What something comes to, with what is noted meanwhile and the marks that are left."""
        self.seen, self.armed = set(), True
        try:
            result = act()
        finally:
            self.armed = False
        marks = [f"mark {path.name}" for path in MARKS.iterdir()]
        for path in MARKS.iterdir():
            path.unlink()
        sys.modules.pop("evil", None)
        return result, sorted(self.seen) + marks


def opened(content: bytes) -> None:
    """Opens a file as somebody careless does."""
    for read in (
        pickle.loads,
        lambda c: torch.load(io.BytesIO(c), weights_only=False),
        lambda c: [*np.load(io.BytesIO(c), allow_pickle=True).items()],
        lambda c: np.load(io.BytesIO(c), allow_pickle=True),
        lambda c: pickle.loads(zlib.decompress(c)),  # noqa: S301  # to see that it would run
    ):
        with suppress(Exception), warnings.catch_warnings(action="ignore"):
            read(content)


def set_up() -> None:
    """Good files and runs of both kinds; every command has then run once."""
    MARKS.mkdir()
    Path("given").mkdir()
    Path("stopped").mkdir()
    Path("stopped.safetensors").mkdir()
    Path("compared").mkdir()
    Path("evil.py").write_text(EVIL, encoding="utf-8")
    code = "from fairneuron.models import mlp\n\n\ndef build():\n    return mlp(5, (4,))\n"
    Path("nets.py").write_text(code, encoding="utf-8")
    for name, content in good().items():
        Path(name).write_bytes(content)
    for folder, data in RUNS.items():
        roles = ROLES if data == "t.csv" else ()
        words = ("repair", "--data", data, *roles, "--hidden", "4", "--epochs", "1")
        assert command(Path(), *words, "--out", folder).code in (0, 1)
    for word in ("t.parquet", "t.csv.gz"):
        assert command(Path(), "audit", "--predictions", word, *ROLES, "--score", "score").code == 0
    for words in (("--weights", "w.safetensors"), ("--model", "nets:build", "--weights", "w.pt")):
        assert command(Path(), "audit", "--data", "a.npz", *words).code == 0
    assert command(Path(), "predict", "R", "t.csv").code == 0
    shutil.copytree("R", "run")
    assert command(Path(), "choose", "run", "--limit", "dp=0.3").code in (0, 1)


def main(folder: str) -> None:
    """All attempts; what ran or was accepted, and how long and large the process was."""
    os.chdir(folder)
    sys.path.insert(0, "")
    typer.main.get_command = functools.cache(typer.main.get_command)  # it takes most of the time
    set_up()
    files = corpus()
    for number, content in enumerate(files.values()):
        for end in (".pt", ".csv", ".npz", ".safetensors", ".toml"):
            Path("given", f"{number}{end}").write_bytes(content)
    watcher, before = Watcher(), {path.name for path in Path().iterdir()}
    found: list[tuple[str, str, int, str, str, list[str], float]] = []
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, reader, words in attempts([*files]):
        start = time.perf_counter()
        outcome, seen = watcher.of(lambda w=words: command(Path(), *w))  # type: ignore[misc]
        seconds = time.perf_counter() - start
        found.append((name, reader, outcome.code, outcome.out, outcome.err, seen, seconds))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    left = sorted({path.name for path in Path().iterdir()} - before)
    control = {n: watcher.of(lambda c=c: opened(c))[1] for n, c in running()}  # type: ignore[misc]
    json.dump({"found": found, "grown": grown, "left": left, "control": control}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
