"""Conversion of files that run code: only of the given sum, only in a process of its own."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import pickle
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from fairneuron import checkpoints
from fairneuron.checkpoints import read_tensors
from fairneuron.convert import convert
from fairneuron.errors import FairNeuronError, ModelError, OptionError, OutputError

HERE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, x):
        return self.layer(x)
"""


def sha(content: bytes) -> str:
    """The SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def net() -> nn.Module:
    """A network of known weights, of classes that every process has."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def saved(value: object, **options: Any) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def script() -> bytes:
    """What torch.jit.save writes."""
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(net()), file)
    return file.getvalue()


def dumped(value: object, **options: Any) -> bytes:
    """What joblib writes."""
    file = io.BytesIO()
    joblib.dump(value, file, **options)
    return file.getvalue()


def arrays() -> dict[str, Any]:
    """The state_dict in NumPy."""
    return {name: value.numpy() for name, value in net().state_dict().items()}


LIGHTNING = {"epoch": 3, "state_dict": net().state_dict(), "hyper_parameters": {"p": Path("x")}}
FILES = {
    "whole module": saved(net()),
    "whole module of old torch": saved(net(), _use_new_zipfile_serialization=False),
    "state_dict of old torch": saved(net().state_dict(), _use_new_zipfile_serialization=False),
    "state_dict": saved(net().state_dict()),
    "lightning": saved(LIGHTNING),
    "module in a checkpoint": saved({"model": net(), "epoch": 3}),
    "torchscript": script(),
    "pickled module": pickle.dumps(net()),
    "pickled state_dict": pickle.dumps(net().state_dict()),
    "pickled arrays": pickle.dumps(arrays()),
    "joblib module": dumped(net()),
    "joblib arrays": dumped(arrays()),
    "compressed joblib": dumped(net().state_dict(), compress=3),
}


def converted(folder: Path, content: bytes, **options: Any) -> dict[str, Any]:
    """Converts a file of this content with its right sum into out.safetensors."""
    path = folder / "given.bin"
    path.write_bytes(content)
    return convert(path, sha(content), folder / "out.safetensors", **options)


def refused(folder: Path, content: bytes, **options: Any) -> FairNeuronError:
    """Converts a file that must be refused; nothing is written."""
    with pytest.raises(FairNeuronError) as refusal:
        converted(folder, content, **options)
    assert not (folder / "out.safetensors").exists()
    assert "\n" not in str(refusal.value)
    return refusal.value


class Runs:
    """Runs a line of code when it is unpickled."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


@pytest.mark.parametrize("kind", FILES)
def test_conversion(kind: str, tmp_path: Path) -> None:
    """The weights of every kind of file come out to the bit, in a file that is safe to read."""
    result = converted(tmp_path, FILES[kind])
    _, found = read_tensors(tmp_path / "out.safetensors")
    state = net().state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert all(found[name].dtype == value.dtype for name, value in state.items())
    assert result == {
        "tensors": 7,
        "parameters": 2 * 3 + 3 + 4 * 3 + 1,
        "keys": sorted(state)[:5],
        "sha256_out": sha((tmp_path / "out.safetensors").read_bytes()),
    }
    assert {path.name for path in tmp_path.iterdir()} == {"given.bin", "out.safetensors"}


def test_classes_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module whose class lives in the current folder is converted, by a relative path too."""
    (tmp_path / "their_code.py").write_text(HERE, encoding="utf-8")
    line = "import torch, their_code; torch.save(their_code.Net(), 'whole.pt')"
    subprocess.run([sys.executable, "-c", line], cwd=tmp_path, timeout=60, check=True)  # noqa: S603
    monkeypatch.chdir(tmp_path)
    content = Path("whole.pt").read_bytes()
    result = convert(Path("whole.pt"), sha(content).upper(), Path("out.safetensors"))
    assert result["keys"] == ["layer.bias", "layer.weight"]
    assert "their_code" not in sys.modules


def test_same_bytes_again(tmp_path: Path) -> None:
    """A file is converted to the same bytes each time."""
    sums = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        sums.add(converted(tmp_path / name, FILES["lightning"])["sha256_out"])
    assert len(sums) == 1


@pytest.mark.parametrize(
    "sum_given", ["", "0" * 63, "0" * 65, "g" * 64, "0" * 63 + "\n", " " + "0" * 63, "0" * 64]
)
def test_wrong_sum(sum_given: str, tmp_path: Path) -> None:
    """Without the right sum nothing runs, and the right one is not told."""
    content = pickle.dumps(Runs(f"open({str(tmp_path / 'marker')!r}, 'w')"))
    path = tmp_path / "given.pkl"
    path.write_bytes(content)
    with pytest.raises(OptionError) as refusal:
        convert(path, sum_given, tmp_path / "out.safetensors")
    assert refusal.value.code == "option-sha256"
    assert sha(content)[:8] not in str(refusal.value).lower()
    assert "Ask whoever gave" in str(refusal.value) or "whoever gave it" in str(refusal.value)
    assert {p.name for p in tmp_path.iterdir()} == {"given.pkl"}


def test_code_runs_in_the_child_alone(tmp_path: Path) -> None:
    """What a file runs, it runs in another process, with few variables and no input."""
    code = (
        f"import os, sys; f = open({str(tmp_path / 'seen')!r}, 'w'); "
        "print([os.getpid(), sorted(os.environ), sys.stdin.read()], file=f); f.close()"
    )
    content = pickle.dumps({"w": torch.ones(2), "x": Runs(code)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_TOKEN", "x")
        assert refused(tmp_path, content).code == "model-convert"  # None is no tensor
    process, variables, given = ast.literal_eval((tmp_path / "seen").read_text(encoding="utf-8"))
    assert process != os.getpid()
    assert "SECRET_TOKEN" not in variables
    assert "PATH" in variables
    assert given == ""


def test_changed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes after its sum was taken is not unpickled."""
    marker, path = tmp_path / "marker", tmp_path / "given.pkl"
    content = FILES["pickled module"]
    path.write_bytes(content)
    real = subprocess.Popen

    def changed(*arguments: Any, **options: Any) -> Any:
        path.write_bytes(pickle.dumps(Runs(f"open({str(marker)!r}, 'w')")))
        return real(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", changed)
    with pytest.raises(ModelError, match="has changed") as refusal:
        convert(path, sha(content), tmp_path / "out.safetensors")
    assert refusal.value.code == "model-convert"
    assert not marker.exists()


FAILURES = {
    "exception": (Runs("raise KeyError('some\\n\\x1b[31mlines')"), "KeyError"),
    "exit": (Runs("raise SystemExit(3)"), "exit code 3"),
    "exit without an error": (Runs("raise SystemExit(0)"), "without weights"),
    "crash": (Runs("import os; os.abort()"), "signal 6"),
    "killed": (Runs("import os; os.kill(os.getpid(), 9)"), "signal 9"),
    "noise": (
        Runs("import sys; sys.stderr.write('a\\n' * 99_999 + 'last\\n'); sys.exit(1)"),
        "last",
    ),
    "no weights": ([1, 2], "list"),
    "text": ("text", "str"),
    "numbers": ({"a": 1}, "int"),
    "nothing": ({}, "no state_dict"),
    "numbers for names": ({1: torch.ones(1)}, "no state_dict"),
    "complex": ({"w": torch.ones(1, dtype=torch.complex64)}, "complex64"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_failure_of_the_child(kind: str, tmp_path: Path) -> None:
    """Whatever goes wrong in the child is one error with its last line, made printable."""
    value, said = FAILURES[kind]
    error = refused(tmp_path, pickle.dumps(value))
    assert error.code == "model-convert"
    assert error.exit_code == 2
    assert said in str(error)
    assert "\x1b" not in str(error)
    assert "Traceback" not in str(error)
    assert len(str(error)) < 600


def test_missing_class(tmp_path: Path) -> None:
    """A file whose classes are not here says which module is missing, and what to do."""
    content = b"\x80\x02cnot_installed.models\nNet\n)\x81."
    error = refused(tmp_path, content)
    assert error.code == "model-convert"
    assert "not_installed" in str(error)
    assert "importable" in error.cure


def test_timeout(tmp_path: Path) -> None:
    """A file that takes too long is given up, and nothing of it goes on."""
    alive = tmp_path / "alive"
    forever = (
        "import time, pathlib\nwhile True:\n"
        f"    pathlib.Path({str(alive)!r}).touch()\n    time.sleep(0.05)"
    )
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {forever!r}])\ntime.sleep(600)"
    )
    start = time.monotonic()
    error = refused(tmp_path, pickle.dumps(Runs(code)), timeout=8)
    assert time.monotonic() - start < 60
    assert error.code == "model-convert"
    assert "8 seconds" in str(error)
    assert alive.exists()
    alive.unlink()
    time.sleep(0.5)
    assert not alive.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    """Weights of NaN or infinity are not written."""
    content = pickle.dumps({"w": torch.tensor([1.0, value]), "n": torch.tensor(3)})
    assert refused(tmp_path, content).code == "model-nonfinite"


def test_hostile_output_of_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the child leaves is read like any file: the parent never unpickles."""
    marker = tmp_path / "marker"
    inner = pickle.dumps(Runs(f"open({str(marker)!r}, 'w')"))
    code = f"import sys, os; open(sys.argv[3], 'wb').write({inner!r}); os._exit(0)"
    error = refused(tmp_path, pickle.dumps(Runs(code)))
    assert error.code == "model-convert"
    assert not marker.exists()
    monkeypatch.setattr(checkpoints, "read_tensors", None)  # it is what the parent reads with
    with pytest.raises(TypeError):
        converted(tmp_path, FILES["state_dict"])


def test_output_is_checked_before_anything_runs(tmp_path: Path) -> None:
    """An output that exists, cannot be written or has another ending is refused first."""
    marker = tmp_path / "marker"
    content = pickle.dumps(Runs(f"open({str(marker)!r}, 'w')"))
    path = tmp_path / "given.pkl"
    path.write_bytes(content)
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    outputs = {
        "there.safetensors": "output-exists",
        "given.pkl/out.safetensors": "output-readonly",
        "out.pt": "output-suffix",
        "out": "output-suffix",
    }
    for name, code in outputs.items():
        with pytest.raises(OutputError) as refusal:
            convert(path, sha(content), tmp_path / name)
        assert refusal.value.code == code
    assert not marker.exists()
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["missing", "folder", ""])
def test_no_file(name: str, tmp_path: Path) -> None:
    """What is no file is refused."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError) as refusal:
        convert(tmp_path / name, "0" * 64, tmp_path / "out.safetensors")
    assert refusal.value.code == "model-file"


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_timeout_out_of_range(timeout: float, tmp_path: Path) -> None:
    """A timeout that is no time is refused."""
    with pytest.raises(OptionError) as refusal:
        converted(tmp_path, FILES["state_dict"], timeout=timeout)
    assert refusal.value.code == "option-range"


class Storages:
    """Unpickles like the tensors in a plain pickle."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.storage._load_from_bytes, (self.content,)


def test_pickle_of_a_gpu(tmp_path: Path) -> None:
    """Tensors that were pickled on a GPU come out on a machine without one."""
    content = saved({"w": torch.ones(2)}, _use_new_zipfile_serialization=False)
    moved = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert moved != content
    converted(tmp_path, pickle.dumps(Storages(moved)))
    assert read_tensors(tmp_path / "out.safetensors")[1]["w"].tolist() == [1, 1]


def test_overwrite(tmp_path: Path) -> None:
    """A file that is there is replaced if that is asked for."""
    (tmp_path / "out.safetensors").write_bytes(b"old")
    converted(tmp_path, FILES["state_dict"], overwrite=True)
    assert len(read_tensors(tmp_path / "out.safetensors")[1]) == 7


def test_exported_program(tmp_path: Path) -> None:
    """An exported program is not converted."""
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(torch.export.export(nn.Linear(2, 1), (torch.ones(1, 2),)), file)
    error = refused(tmp_path, file.getvalue())
    assert error.code == "model-convert"
    assert ".pt2" in str(error)


def test_refusals_need_no_torch(tmp_path: Path) -> None:
    """A wrong sum is refused before torch is imported."""
    (tmp_path / "given.pt").write_bytes(b"x")
    code = (
        "import sys, pathlib\n"
        "from fairneuron.convert import convert\n"
        "from fairneuron.errors import OptionError\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "try:\n    convert(here / 'given.pt', '0' * 64, here / 'out.safetensors')\n"
        "except OptionError as error:\n    print(error.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert done.stdout == "option-sha256 False\n"


def test_docstring_is_plain() -> None:
    """The documentation says that the file's code runs with all rights of the user."""
    assert "runs the code in it, with all your\n    rights" in str(convert.__doc__)


def test_numpy_types_survive(tmp_path: Path) -> None:
    """Arrays keep their types and shapes."""
    state = {"a": np.ones((2, 1), np.float16), "b": np.arange(3, dtype=np.int32)}
    converted(tmp_path, pickle.dumps(state))
    _, found = read_tensors(tmp_path / "out.safetensors")
    assert {name: value.dtype for name, value in found.items()} == {
        "a": torch.float16,
        "b": torch.int32,
    }
