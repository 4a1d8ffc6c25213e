"""Files of weights: what is read, what is refused by name, and how weights get into a module."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_model
from torch import nn
from torch.nn.utils import parametrizations

from fairneuron.checkpoints import read_tensors, tensor_bytes
from fairneuron.errors import FairNeuronWarning, ModelError
from fairneuron.weights import load_into, load_mlp, module_weights
from tests.fuzzing import fuzz_weights


class Net(nn.Module):
    """Layers with buffers of floats and integers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 2)."""
        return self.last(self.norm(self.first(x)).relu())


class Tied(nn.Module):
    """Two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 3)."""
        return self.second(self.first(x).relu())


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def made(kind: Callable[[], nn.Module] = Net, seed: int = 0) -> nn.Module:
    """A module of known weights."""
    torch.manual_seed(seed)
    return kind()


def saved(value: object, **options: Any) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def written(path: Path, content: bytes) -> Path:
    """A file of this content."""
    path.write_bytes(content)
    return path


def refused(tmp_path: Path, content: bytes) -> ModelError:
    """Reads content that must be refused in our words; returns the refusal."""
    with pytest.raises(ModelError) as refusal:
        read_tensors(written(tmp_path / "weights.pt", content))
    assert refusal.value.cure
    assert "weights_only=False" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    return refusal.value


def repacked(content: bytes, **changes: Any) -> bytes:
    """An archive of the same members, some replaced; others are packed as told."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", **changes) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return file.getvalue()


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    """A checkpoint whose program has other bytes in one or more places."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(file, "w") as after:
        for name in before.namelist():
            member = before.read(name)
            if name.endswith("data.pkl"):
                assert old in member
                member = member.replace(old, new)
            after.writestr(name, member)
    return file.getvalue()


def program(code: bytes, **members: bytes) -> bytes:
    """An archive as torch.save packs them, of this program and these storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + code + b".")
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")
        for name, member in members.items():
            archive.writestr(f"archive/data/{name.lstrip('_')}", member)
    return file.getvalue()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two states have the same names, types and values."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a
    )


# Reading


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.safetensors", "w"])
def test_checkpoint_is_read(name: str, tmp_path: Path) -> None:
    """A state_dict of torch.save comes back to the bit, whatever the file is called."""
    state = made().state_dict()
    metadata, found = read_tensors(written(tmp_path / name, saved(state)))
    assert metadata == {}
    assert same(found, dict(state))
    assert [*found] == [*state]


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_safetensors_is_read(name: str, tmp_path: Path) -> None:
    """A safetensors file comes back to the bit with its metadata, whatever it is called."""
    state = made().state_dict()
    path = written(tmp_path / name, save(state, {"a": "1", "ü": "2"}))
    metadata, found = read_tensors(path)
    assert metadata == {"a": "1", "ü": "2"}
    assert same(found, dict(state))
    assert [*found] == sorted(state)


REAL = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64),
)


@pytest.mark.parametrize("dtype", REAL, ids=str)
@pytest.mark.parametrize("write", [saved, save], ids=["checkpoint", "safetensors"])
def test_arrays_of_all_types(
    write: Callable[..., bytes], dtype: torch.dtype, tmp_path: Path
) -> None:
    """Arrays of all real types and shapes are read, empty and single ones too."""
    arrays = {
        "x": torch.arange(6).reshape(2, 3).to(dtype),
        "none": torch.ones(0, 3).to(dtype),
        "one": torch.ones(()).to(dtype),
    }
    _, found = read_tensors(written(tmp_path / "arrays", write(arrays)))
    assert same(found, arrays)


def test_views_and_parameters_are_read(tmp_path: Path) -> None:
    """Parts of a tensor, transposed ones and parameters come back as plain values."""
    x = torch.arange(12.0).reshape(3, 4)
    state = {"row": x[1], "turned": x.T, "p": nn.Parameter(x), "step": x[:, ::2]}
    _, found = read_tensors(written(tmp_path / "w.pt", saved(state)))
    assert same(found, {name: value.detach() for name, value in state.items()})
    assert not any(value.requires_grad for value in found.values())
    assert {type(value) for value in found.values()} == {torch.Tensor}


def test_checkpoint_saved_by_path(tmp_path: Path) -> None:
    """The archive's folder is named after the file when torch writes to a path."""
    torch.save(made().state_dict(), tmp_path / "größe [1].pt")
    assert same(read_tensors(tmp_path / "größe [1].pt")[1], dict(made().state_dict()))


def test_checkpoint_without_entries(tmp_path: Path) -> None:
    """A module without weights has a state_dict too."""
    assert read_tensors(written(tmp_path / "w.pt", saved(nn.ReLU().state_dict()))) == ({}, {})


def test_cuda_checkpoint_is_read_on_the_cpu(tmp_path: Path) -> None:
    """Weights that were saved on a GPU load on a machine without one."""
    content = replaced(
        saved(made().state_dict()), b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    )
    _, found = read_tensors(written(tmp_path / "w.pt", content))
    assert same(found, dict(made().state_dict()))
    assert {value.device.type for value in found.values()} == {"cpu"}


def test_reading_in_a_hostile_environment(tmp_path: Path) -> None:
    """No variable of the environment makes torch read more than weights."""
    path = written(tmp_path / "w.pt", saved({"x": Evil(tmp_path / "marker")}))
    code = (
        "import sys, pathlib\n"
        "from fairneuron.checkpoints import read_tensors\n"
        "from fairneuron.errors import ModelError\n"
        "try:\n    read_tensors(pathlib.Path(sys.argv[1]))\n"
        "except ModelError as error:\n    print(error.code)\n"
    )
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code, path],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        timeout=60,
        check=True,
    )
    assert done.stdout == "model-file-pickle\n"
    assert not (tmp_path / "marker").exists()


def test_safe_globals_of_the_user_change_nothing(tmp_path: Path) -> None:
    """A class that somebody told torch to trust is refused all the same."""
    with torch.serialization.safe_globals([Path.touch, getattr]):
        error = refused(tmp_path, saved({"x": Evil(tmp_path / "marker")}))
    assert error.code == "model-file-pickle"
    assert not (tmp_path / "marker").exists()


# Refused by name


def zipped(*names: str) -> bytes:
    """An archive with members of these names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    return file.getvalue()


def numpy_bytes(write: Callable[..., None]) -> bytes:
    """What numpy writes for an array."""
    file = io.BytesIO()
    write(file, np.ones(3))
    return file.getvalue()


PT2 = ("archive_format", "models/model.json", "data/weights/weight_0")
KINDS: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "-empty", "Get the file again"),
    "web page": (b"<!DOCTYPE html>\n<html>404", "-html", "Download the file itself"),
    "web page with a mark": (b"\xef\xbb\xbf \n<HTML lang=en>", "-html", "Download"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "-lfs",
        "git lfs pull",
    ),
    "pt2": (zipped(*(f"archive/{name}" for name in PT2)), "-pt2", "state_dict"),
    "old pt2": (zipped("serialized_exported_program.json", "version"), "-pt2", "state_dict"),
    "pickle": (pickle.dumps({"a": 1}), "-pickle", "fairneuron convert"),
    "pickle 0": (pickle.dumps({"a": 1}, 0), "-pickle", "fairneuron convert"),
    "pickle 0 of a function": (pickle.dumps(os.getcwd, 0), "-pickle", "fairneuron convert"),
    "pickle 1": (pickle.dumps({"a": 1}, 1), "-pickle", "fairneuron convert"),
    "pickle 2": (pickle.dumps([1, 2], 2), "-pickle", "fairneuron convert"),
    "compressed joblib": (b"x\x9c" + bytes(range(99)), "-pickle", "fairneuron convert"),
    "legacy": (
        saved({"a": torch.ones(2)}, _use_new_zipfile_serialization=False),
        "-pickle",
        "fairneuron convert",
    ),
    "package": (zipped("p/.data/extern_modules", "p/m/x.pkl"), "-pickle", "fairneuron convert"),
    "npy": (numpy_bytes(np.save), "", "NumPy array"),
    "npz": (numpy_bytes(np.savez), "", ".npz"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "", "HDF5"),
    "keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "", "Keras"),
    "gguf": (b"GGUF\x03" + bytes(99), "", "GGUF"),
    "onnx": (b"\x08\x08\x12\x07pytorch" + bytes(99), "", "ONNX"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(99), "", "TFLite"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), "", "gzip"),
    "tar": (b"a" + bytes(256) + b"ustar" + bytes(99), "", "tar"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "", "XML"),
    "text": (b"epoch,loss\n1,0.5\n", "", "text"),
    "json": (b'{"error": "not found"}', "", "text"),
    "noise": (bytes(range(1, 200)), "", "none of the known kinds"),
    "documents": (zipped("[Content_Types].xml", "word/document.xml"), "", "zip archive"),
    "no members": (zipped(), "", "empty zip archive"),
    "two folders": (zipped("a/data.pkl", "b/data/0"), "", "zip archive"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_files(kind: str, tmp_path: Path) -> None:
    """What is no file of weights is refused by the name of what it is, with its own cure."""
    content, end, said = KINDS[kind]
    error = refused(tmp_path, content)
    assert error.code == f"model-file{end}"
    assert said in str(error)


def test_real_programs(tmp_path: Path) -> None:
    """Files of torch.jit and torch.export are refused by name."""
    files = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(made()), files[0])
        torch.export.save(torch.export.export(nn.Linear(2, 1), (torch.ones(1, 2),)), files[1])
    codes = [refused(tmp_path, file.getvalue()).code for file in files]
    assert codes == ["model-file-torchscript", "model-file-pt2"]


def test_whole_module(tmp_path: Path) -> None:
    """A pickled module is refused with the name of the class that it needs."""
    error = refused(tmp_path, saved(made()))
    assert error.code == "model-file-pickle"
    assert f"{__name__}.Net" in str(error)
    assert "fairneuron convert" in error.cure


@pytest.mark.parametrize("extra", [Path("x"), np.float64(1), torch.Size([1]), torch.device("cpu")])
def test_checkpoint_with_objects(extra: object, tmp_path: Path) -> None:
    """A training checkpoint with pickled objects is refused, and the cure names convert."""
    error = refused(tmp_path, saved({"state_dict": made().state_dict(), "hyper": extra}))
    assert error.code == "model-file-pickle"
    assert "fairneuron convert" in error.cure


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("at", ["x", "state_dict"])
def test_evil_checkpoint_runs_nothing(at: str, protocol: int, tmp_path: Path) -> None:
    """Code in a checkpoint never runs."""
    content = saved({"w": torch.ones(1), at: Evil(tmp_path / "marker")}, pickle_protocol=protocol)
    torch.load(io.BytesIO(content), weights_only=False)
    (tmp_path / "marker").unlink()  # to see that it would
    assert refused(tmp_path, content).code == "model-file-pickle"
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_nested_checkpoint(key: str, tmp_path: Path) -> None:
    """A state_dict in another dict is refused, with the line that saves it alone; that works."""
    net = made()
    optimiser = torch.optim.Adam(net.parameters())
    checkpoint = {"epoch": 3, key: net.state_dict(), "loss": 0.5}
    if key != "net":
        checkpoint["optimizer"] = optimiser.state_dict()
    error = refused(tmp_path, saved(checkpoint))
    assert error.code == "model-file-nested"
    line = error.cure[error.cure.index("torch.save(") :]
    done = subprocess.run(  # noqa: S603  # the line that we tell people to run
        [sys.executable, "-c", f"import torch\n{line}"], cwd=tmp_path, timeout=60, check=False
    )
    assert done.returncode == 0
    assert same(read_tensors(tmp_path / "weights-weights.pt")[1], dict(net.state_dict()))


@pytest.mark.parametrize(
    "value",
    [torch.ones(2), [torch.ones(2)], 3, "x", {"a": 3}, {"a": [1]}, {1: torch.ones(1)}, {"a": None}],
    ids=str,
)
def test_no_map_of_tensors(value: object, tmp_path: Path) -> None:
    """A checkpoint of anything but names and tensors is refused."""
    assert refused(tmp_path, saved(value)).code == "model-file"


def unsuitable() -> dict[str, object]:
    """Tensors that are not dense and real."""
    with warnings.catch_warnings(action="ignore"):
        return {
            "complex": torch.ones(2, dtype=torch.complex64),
            "sparse": torch.eye(3).to_sparse(),
            "compressed": torch.eye(3).to_sparse_csr(),
            "quantised": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            "meta": torch.ones(2, device="meta"),
            "nested": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
            "float8": torch.ones(2).to(torch.float8_e4m3fn),
        }


@pytest.mark.parametrize("kind", unsuitable())
def test_unsuitable_tensors(kind: str, tmp_path: Path) -> None:
    """Complex, sparse, quantised, meta and other special tensors are refused."""
    with warnings.catch_warnings(action="ignore"):
        content = saved({"w": torch.ones(1), kind: unsuitable()[kind]})
    assert refused(tmp_path, content).code in {"model-file", "model-file-pickle"}
    if kind not in {"compressed", "nested"}:
        assert refused(tmp_path, content).code == "model-file"


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn], ids=str)
def test_unsuitable_safetensors(dtype: torch.dtype, tmp_path: Path) -> None:
    """Safetensors files of other numbers are refused with the name of the tensor."""
    error = refused(tmp_path, save({"odd": torch.ones(2).to(dtype)}))
    assert error.code == "model-file"
    assert "odd" in str(error)


# Damage


def test_truncated_checkpoint(tmp_path: Path) -> None:
    """A checkpoint that was cut off anywhere is refused as such."""
    whole = saved(made().state_dict())
    for length in range(1, len(whole), 7):
        assert refused(tmp_path, whole[:length]).code == "model-file-truncated"


@pytest.mark.parametrize("member", ["data.pkl", "data/0", "version"])
def test_flipped_bit_in_a_checkpoint(member: str, tmp_path: Path) -> None:
    """A changed bit, also within the numbers, is seen by the sums of the archive."""
    whole = bytearray(saved(made().state_dict()))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        content = archive.read(f"archive/{member}")
    whole[bytes(whole).index(content) + len(content) // 2] ^= 1
    assert refused(tmp_path, bytes(whole)).code == "model-file"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_damaged_files(seed: int, tmp_path: Path) -> None:
    """Damaged files load or are refused; nothing else happens, and a refused load is none."""
    fuzz_weights(np.random.default_rng(seed), tmp_path)


# Bombs


def test_compressed_members(tmp_path: Path) -> None:
    """A small archive that unpacks to much is refused before it is unpacked."""
    content = repacked(saved({"w": torch.zeros(1_000_000)}), compression=zipfile.ZIP_DEFLATED)
    assert len(content) < 10_000
    assert refused(tmp_path, content).code == "model-file-bomb"


def directory(content: bytes) -> int:
    """Where an archive's list of members begins."""
    return zipfile.ZipFile(io.BytesIO(content)).start_dir  # type: ignore[attr-defined]


def entries(content: bytes) -> list[int]:
    """Where the entries of that list begin."""
    found, at = [], directory(content)
    while content[at : at + 4] == b"PK\x01\x02":
        found.append(at)
        at += 46 + sum(struct.unpack_from("<3H", content, at + 28))
    return found


def test_member_larger_than_the_file(tmp_path: Path) -> None:
    """A member that claims more bytes than there are is refused."""
    content = bytearray(repacked(saved({"w": torch.zeros(8)})))
    struct.pack_into("<2I", content, entries(bytes(content))[-1] + 20, 1 << 30, 1 << 30)
    assert refused(tmp_path, bytes(content)).code == "model-file-bomb"


def test_overlapping_members(tmp_path: Path) -> None:
    """Members that share their bytes are refused."""
    content = bytearray(repacked(saved({"a": torch.zeros(8), "b": torch.zeros(8)})))
    at = [i for i in entries(bytes(content)) if b"archive/data/" in content[i : i + 60]]
    content[at[1] + 42 : at[1] + 46] = content[at[0] + 42 : at[0] + 46]
    assert refused(tmp_path, bytes(content)).code == "model-file-bomb"


def test_member_within_another(tmp_path: Path) -> None:
    """A member that holds the next one is refused, as in bombs of nested members."""
    content = bytearray(repacked(saved({"a": torch.zeros(8), "b": torch.zeros(8)})))
    at = next(i for i in entries(bytes(content)) if b"archive/data/0" in content[i : i + 60])
    struct.pack_into("<2I", content, at + 20, 64, 64)
    assert refused(tmp_path, bytes(content)).code == "model-file-bomb"


def test_duplicate_names(tmp_path: Path) -> None:
    """Two members of a name, of which readers may take either, are refused."""
    file = io.BytesIO(repacked(saved({"w": torch.zeros(8)})))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/data/0", bytes(32))
    assert refused(tmp_path, file.getvalue()).code == "model-file-bomb"


def test_huge_program(tmp_path: Path) -> None:
    """A list of tensors out of all proportion is refused."""
    assert refused(tmp_path, program(b"}" + b"]0" * (1 << 21))).code == "model-file-bomb"


@pytest.mark.parametrize("write", [saved, None], ids=["torch.save", "numbers in the program"])
def test_expanded_tensor(write: Callable[..., bytes] | None, tmp_path: Path) -> None:
    """A tensor that claims more numbers than its storage has is refused."""
    content = saved({"w": torch.zeros(1).expand(1 << 40)}) if write else None
    if content is None:
        content = replaced(saved({"w": torch.zeros(4)}), b"K\x04\x85", b"J\0\0\0\x40\x85")
        assert refused(tmp_path, content).code == "model-file"  # torch says so itself
    else:
        assert refused(tmp_path, content).code == "model-file-bomb"


def test_storage_larger_than_its_member(tmp_path: Path) -> None:
    """A storage that claims more numbers than the archive has for it is refused before torch."""
    content = replaced(saved({"w": torch.zeros(4)}), b"K\x04t", b"J\0\0\0\x10t")
    assert refused(tmp_path, content).code == "model-file-bomb"


def test_storage_that_is_not_there(tmp_path: Path) -> None:
    """A storage without a member is refused."""
    content = replaced(saved({"w": torch.zeros(4)}), b"X\x01\0\0\x000", b"X\x01\0\0\x009")
    assert refused(tmp_path, content).code == "model-file"


PROGRAMS = {
    "call of a class": b"ctorch\nFloatStorage\nJ\0\0\0\x40\x85R",
    "call of a type": b"}X\x01\0\0\0actorch\nfloat32\n)Rs",
    "a text as a function": b"X\x17\0\0\0collections OrderedDict)R",
    "a dict with items": b"ccollections\nOrderedDict\n]\x85R",
    "hidden methods": b"ccollections\nOrderedDict\n)R}X\x05\0\0\0itemsK\x01sb",
    "attributes of a list": b"]}b",
    "deep tuples": b"}" + b")" + b"\x85" * 1_000_000 + b"K\x01s",
    "deep tuples as a value": b"}K\x01" + b")" + b"\x85" * 1_000_000 + b"s",
    "deep lists": b"]" * 100_000 + b"a" * 99_999,
    "a storage of text": b"X\x07\0\0\0storageQ",
    "an incomplete storage": b"(X\x07\0\0\0storagetQ",
    "a name that was never put": b"h\x07",
    "an empty stack": b"0",
    "too few items": b"}K\x01s",
    "no mark": b"}u",
    "an unknown step": b"\xff",
    "big integers": b"\x8a\xff" + b"\x7f" * 255,
    "a tensor of a tensor": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    "an escaped name": b"ccollections\n\\x4frderedDict\n)R",
    "an odd escape": b"ccollections\n\\qOrderedDict\n)R",
    "bytes that are no text": b"X\x02\0\0\0\xff\xfe",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_odd_programs(name: str, tmp_path: Path) -> None:
    """Programs that no state_dict has are refused, without a crash and at once."""
    assert refused(tmp_path, program(PROGRAMS[name])).code in {"model-file", "model-file-pickle"}


@pytest.mark.parametrize(
    "code",
    [b"cbuiltins\neval\n", b"c__builtin__\nbytearray\n", b"ctorch\nTensor\n", b"cos\nsystem\n"],
)
def test_functions_are_refused_by_name(code: bytes, tmp_path: Path) -> None:
    """A function that a state_dict does not need is refused by its name, even if torch has it."""
    error = refused(tmp_path, program(code + b")R"))
    assert error.code == "model-file-pickle"
    assert code[1:-1].decode().replace("\n", ".") in str(error)


@pytest.mark.parametrize("shape", ["[1073741824]", "[-4]", "[18446744073709551615, 2]", "[0.5]"])
def test_safetensors_with_wrong_shapes(shape: str, tmp_path: Path) -> None:
    """A header whose shapes do not fit its bytes is refused."""
    header = f'{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,16]}}}}'.encode()
    content = len(header).to_bytes(8, "little") + header + bytes(16)
    assert refused(tmp_path, content).code == "model-file"


def test_safetensors_with_a_deep_header(tmp_path: Path) -> None:
    """A header that nests very deeply is refused without a crash."""
    header = b'{"w":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert refused(tmp_path, len(header).to_bytes(8, "little") + header).code == "model-file"


def test_names_are_made_printable(tmp_path: Path) -> None:
    """Control characters of a file's names do not reach the terminal."""
    error = refused(tmp_path, saved({"\x1b[31m" + "x" * 9999: 3}))
    assert "\x1b" not in str(error)
    assert len(str(error)) < 500


# Into a module


def test_load_into_round_trip(tmp_path: Path) -> None:
    """Weights of a module get into another one, to the bit and in eval mode."""
    net = made(seed=1)
    net(torch.randn(8, 3))  # moves the buffers
    for content in (module_weights(net), saved(net.state_dict())):
        other = made(seed=2).train()
        assert load_into(other, written(tmp_path / "w", content)) is other
        assert same(dict(other.state_dict()), dict(net.state_dict()))
        assert not any(module.training for module in other.modules())
        assert all(p.requires_grad for p in other.parameters())


def test_load_into_parametrised(tmp_path: Path) -> None:
    """A module with weight_norm takes its own weights."""

    def kind() -> nn.Module:
        return nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 3)))

    net, other = made(kind, 1), made(kind, 2)
    load_into(other, written(tmp_path / "w.pt", saved(net.state_dict())))
    x = torch.randn(4, 2)
    assert torch.equal(other(x), net(x))


def refused_load(model: nn.Module, path: Path) -> ModelError:
    """Loads a file that must be refused; the module stays as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    with pytest.raises(ModelError) as refusal:
        load_into(model, path)
    assert same(dict(model.state_dict()), before)
    assert model.training
    return refusal.value


def test_other_module(tmp_path: Path) -> None:
    """One error tells what is missing, unexpected and of another shape, with the shapes."""
    state = dict(made().state_dict())
    state["extra"] = state.pop("first.bias")
    state["last.weight"] = torch.ones(2, 5)
    state["norm.num_batches_tracked"] = torch.tensor(1.0)
    error = refused_load(made(), written(tmp_path / "w.pt", saved(state)))
    assert error.code == "model-keys"
    for part in (
        "missing: first.bias (4,)",
        "unexpected: extra (4,)",
        "last.weight (2, 5) in place of (2, 4)",
        "norm.num_batches_tracked () in place of int64()",
    ):
        assert part in str(error)


def test_five_names_of_a_kind(tmp_path: Path) -> None:
    """Long lists of names are cut to five."""
    state = {f"odd.{i}": torch.ones(1) for i in range(100)}
    error = refused_load(made(), written(tmp_path / "w.pt", saved(state)))
    assert "odd.4 (1,) and 95 more" in str(error)
    assert "odd.5" not in str(error)


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod."]
)
def test_prefixes_of_wrappers(prefix: str, tmp_path: Path) -> None:
    """Names that torch.compile and DataParallel made longer are read without, with a warning."""
    state = {prefix + name: value for name, value in made(seed=1).state_dict().items()}
    other = made(seed=2)
    with pytest.warns(
        FairNeuronWarning, match=r"'(_orig_mod|module)\.'.*\[model-prefix\]$"
    ) as said:
        load_into(other, written(tmp_path / "w.pt", saved(state)))
    assert said[0].filename == __file__
    assert same(dict(other.state_dict()), dict(made(seed=1).state_dict()))


def test_compiled_part(tmp_path: Path) -> None:
    """A part of a module that was compiled has the prefix inside its names."""
    state = {
        name.replace("first.", "first._orig_mod."): value
        for name, value in made(seed=1).state_dict().items()
    }
    other = made(seed=2)
    with pytest.warns(FairNeuronWarning, match="model-prefix"):
        load_into(other, written(tmp_path / "w.pt", saved(state)))
    assert same(dict(other.state_dict()), dict(made(seed=1).state_dict()))


def test_model_with_such_names_itself(tmp_path: Path) -> None:
    """Names that the model itself has are no prefixes."""
    wrapped = nn.DataParallel(made(seed=1))
    other = nn.DataParallel(made(seed=2))
    load_into(other, written(tmp_path / "w.pt", saved(wrapped.state_dict())))
    assert same(dict(other.state_dict()), dict(wrapped.state_dict()))
    code = refused_load(other, written(tmp_path / "w.pt", saved(made().state_dict()))).code
    assert code == "model-keys"


def test_names_that_fall_together(tmp_path: Path) -> None:
    """Names with and without a prefix in one file are refused, not chosen from."""
    state = {"_orig_mod.weight": torch.ones(1, 1), "weight": torch.zeros(1, 1)}
    model = nn.Linear(1, 1, bias=False)
    assert refused_load(model, written(tmp_path / "w.pt", saved(state))).code == "model-keys"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    """NaN and infinity are refused with the name of the weight."""
    state = made().state_dict()
    state["last.bias"][1] = value
    error = refused_load(made(), written(tmp_path / "w.pt", saved(state)))
    assert error.code == "model-nonfinite"
    assert "last.bias" in str(error)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("own", [torch.float32, torch.float64], ids=str)
def test_other_precision(own: torch.dtype, dtype: torch.dtype, tmp_path: Path) -> None:
    """Floats of any width become the model's own."""
    state = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in made(seed=1).state_dict().items()
    }
    other = load_into(made(seed=2).to(own), written(tmp_path / "w.pt", saved(state)))
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name].to(value.dtype))
        assert value.dtype in (own, torch.int64)


def test_numbers_beyond_the_model(tmp_path: Path) -> None:
    """A number that the model's precision cannot hold is refused, not made infinite."""
    state = {name: value.double() for name, value in nn.Linear(2, 1).state_dict().items()}
    state["bias"][0] = 1e300
    error = refused_load(nn.Linear(2, 1), written(tmp_path / "w.pt", saved(state)))
    assert error.code == "model-nonfinite"
    assert "beyond float32" in str(error)


def test_mask_in_a_buffer(tmp_path: Path) -> None:
    """Minus infinity in a buffer, as in masks, is no broken weight; in a weight it is one."""

    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    content = module_weights(made(Masked, 1))
    other = load_into(made(Masked, 2), written(tmp_path / "w", content))
    assert other.state_dict()["mask"].tolist() == [0, -torch.inf]


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    """Weights that are one tensor stay one, from files with one of the names or both."""
    net = made(Tied, 1)
    save_model(net, str(tmp_path / "once"))
    assert len(read_tensors(tmp_path / "once")[1]) == 3
    written(tmp_path / "both", module_weights(net))
    assert len(read_tensors(tmp_path / "both")[1]) == 4
    written(tmp_path / "torch", saved(net.state_dict()))
    for name in ("once", "both", "torch"):
        other = made(Tied, 2)
        load_into(other, tmp_path / name)
        assert other.first.weight is other.second.weight
        assert same(dict(other.state_dict()), dict(net.state_dict()))


def test_tied_weights_that_differ(tmp_path: Path) -> None:
    """Two values for one tensor are refused, not chosen from."""
    state = {name: value.clone() for name, value in made(Tied).state_dict().items()}
    state["second.weight"] += 1
    error = refused_load(made(Tied), written(tmp_path / "w.pt", saved(state)))
    assert error.code == "model-keys"
    assert "first.weight, second.weight" in str(error)


def test_untied_model_needs_all_names(tmp_path: Path) -> None:
    """Where the weights of the model are two tensors, each must be in the file."""

    def kind() -> nn.Module:
        tied = Tied()
        tied.second.weight = nn.Parameter(torch.ones(3, 3))
        return tied

    save_model(made(Tied), str(tmp_path / "once"))
    assert refused_load(made(kind), tmp_path / "once").code == "model-keys"


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (nn.LazyLinear(2), "model-lazy"),
        (nn.Linear(2, 2, device="meta"), "model-meta"),
        ("a path", "model-type"),
    ],
)
def test_models_without_weights(model: Any, code: str, tmp_path: Path) -> None:
    """Nothing is loaded into what has no weights yet, or is no module."""
    path = written(tmp_path / "w.pt", saved(made().state_dict()))
    with pytest.raises(ModelError) as refusal:
        load_into(model, path)
    assert refusal.value.code == code
    with pytest.raises(ModelError) as refusal:
        module_weights(model)
    assert refusal.value.code == code


def test_hook_that_fails(tmp_path: Path) -> None:
    """A module whose own loading fails half-way is left as it was."""

    class Picky(nn.Linear):
        def _load_from_state_dict(self, *arguments: Any) -> None:
            super()._load_from_state_dict(*arguments)
            raise RuntimeError("on second thoughts")

    path = written(tmp_path / "w.pt", saved(made(lambda: nn.Linear(2, 2), 1).state_dict()))
    assert refused_load(made(lambda: Picky(2, 2), 2), path).code == "model-keys"


def test_load_mlp_from_a_checkpoint(tmp_path: Path) -> None:
    """A checkpoint does not say which network it belongs to, so it needs a model to load into."""
    path = written(tmp_path / "w.pt", saved(nn.Sequential(nn.Linear(2, 1)).state_dict()))
    with pytest.raises(ModelError) as refusal:
        load_mlp(path)
    assert refusal.value.code == "model-file"


# Writing


def test_module_weights_are_the_same_bytes() -> None:
    """The same weights and metadata give the same bytes, in any order of the metadata."""
    notes = {f"key {i}": "ü\n" * i for i in range(9)}
    turned = dict(reversed(notes.items()))
    files = {module_weights(made(), m) for m in (notes, turned) for _ in range(5)}
    assert len(files) == 1


def test_metadata_come_back(tmp_path: Path) -> None:
    """Metadata come back as they were."""
    notes = {"ü": '\u2028 "quoted" \\ \x01', "": ""}
    path = written(tmp_path / "w", module_weights(made(), notes))
    metadata, tensors = read_tensors(path)
    assert metadata == notes
    assert same(tensors, dict(made().state_dict()))


def test_tensor_bytes_of_views(tmp_path: Path) -> None:
    """Tensors that are views of one another or transposed are written with their own values."""
    x = torch.arange(6.0).reshape(2, 3)
    tensors = {"all": x, "turned": x.T, "row": x[0], "wide": x[:1].expand(4, 3)}
    _, found = read_tensors(written(tmp_path / "w", tensor_bytes(tensors, {})))
    assert same(found, tensors)


@pytest.mark.parametrize("kind", unsuitable())
def test_unsuitable_tensors_are_not_written(kind: str) -> None:
    """What would be refused when it is read is not written."""
    value: Any = unsuitable()[kind]
    with pytest.raises(ModelError) as refusal:
        tensor_bytes({"w": value}, {})
    assert refusal.value.code == "model-state"


def test_state_that_is_no_tensor(tmp_path: Path) -> None:
    """A module with other things in its state_dict is neither written nor loaded into."""

    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return {"version": 1}

        def set_extra_state(self, state: object) -> None:
            raise AssertionError(state)

    with pytest.raises(ModelError) as refusal:
        module_weights(Extra(2, 2))
    assert refusal.value.code == "model-state"
    path = written(tmp_path / "w.pt", saved(nn.Linear(2, 2).state_dict()))
    with pytest.raises(ModelError) as refusal:
        load_into(Extra(2, 2), path)
    assert refusal.value.code == "model-keys"


def test_weights_that_are_not_finite_are_not_written() -> None:
    """What would be refused when it is loaded is not written."""
    net = made()
    with torch.no_grad():
        net.last.bias[0] = float("nan")
    with pytest.raises(ModelError) as refusal:
        module_weights(net)
    assert refusal.value.code == "model-nonfinite"


def test_state_dict_metadata_are_read(tmp_path: Path) -> None:
    """The versions that a state_dict carries along do no harm; neither does a plain dict."""
    state = made().state_dict()
    assert hasattr(state, "_metadata")
    for value in (state, dict(state), OrderedDict(state)):
        assert same(read_tensors(written(tmp_path / "w.pt", saved(value)))[1], dict(state))
