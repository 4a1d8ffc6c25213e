"""Files: run folders appear whole or not at all; weights are read without running anything."""

from __future__ import annotations

import hashlib
import io as buffers
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fairneuron import io, weights
from fairneuron.errors import ModelError, OutputError
from fairneuron.io import (
    MANIFEST,
    require_free,
    require_free_file,
    to_json,
    write_file,
    write_folder,
)
from fairneuron.models import mlp
from fairneuron.weights import load_mlp, mlp_weights

OLD = {"a.txt": b"old a", "c.bin": b"old c"}
NEW = {"a.txt": b"new a", "b.bin": bytes(range(256))}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, links as what they point to."""
    return {
        str(p.relative_to(folder)): bytes(p.readlink()) if p.is_symlink() else p.read_bytes()
        for p in folder.rglob("*")
        if p.is_symlink() or not p.is_dir()
    }


# Run folders


def test_folder_is_written_whole(tmp_path: Path) -> None:
    """A run folder has the files as given, made with their parents, and nothing beside it."""
    folder = tmp_path / "runs" / "first"
    write_folder(folder, NEW)
    found = contents(folder)
    assert {name: found[name] for name in NEW} == NEW
    assert set(found) == {*NEW, MANIFEST}
    assert [p.name for p in folder.parent.iterdir()] == ["first"]


def test_manifest_has_the_sums(tmp_path: Path) -> None:
    """The manifest has the SHA-256 of every other file."""
    write_folder(tmp_path / "run", NEW)
    manifest = json.loads((tmp_path / "run" / MANIFEST).read_bytes())
    assert manifest == {
        "kind": "fairneuron run",
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in NEW.items()},
    }


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["file", "foreign folder", "link to an empty folder"])
def test_existing_is_refused(kind: str, overwrite: bool, tmp_path: Path) -> None:
    """What exists and is no run folder stays, whether or not it may be overwritten."""
    folder = tmp_path / "run"
    if kind == "file":
        folder.write_bytes(b"mine")
    elif kind == "foreign folder":
        folder.mkdir()
        (folder / "thesis.tex").write_bytes(b"mine")
    else:
        (tmp_path / "empty").mkdir()
        folder.symlink_to("empty")
    before = contents(tmp_path)
    with pytest.raises(OutputError) as refusal:
        write_folder(folder, NEW, overwrite=overwrite)
    assert refusal.value.code == "output-exists"
    assert "overwrite" not in str(refusal.value)
    assert contents(tmp_path) == before
    assert folder.exists()


def test_empty_folder_is_used(tmp_path: Path) -> None:
    """Nothing is lost in it."""
    (tmp_path / "run").mkdir()
    write_folder(tmp_path / "run", NEW)
    assert {*contents(tmp_path / "run")} == {*NEW, MANIFEST}


def test_run_folder_is_refused(tmp_path: Path) -> None:
    """An earlier run folder stays unless overwriting is asked for, and the cure says how."""
    write_folder(tmp_path / "run", OLD)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="--overwrite") as refusal:
        write_folder(tmp_path / "run", NEW)
    assert refusal.value.code == "output-exists"
    assert contents(tmp_path) == before


def test_overwrite_replaces_the_whole_folder(tmp_path: Path) -> None:
    """Overwriting leaves no file of the earlier run."""
    write_folder(tmp_path / "run", OLD)
    write_folder(tmp_path / "run", NEW, overwrite=True)
    assert set(contents(tmp_path)) == {f"run/{name}" for name in (*NEW, MANIFEST)}
    assert (tmp_path / "run" / "a.txt").read_bytes() == NEW["a.txt"]


def test_overwrite_of_nothing(tmp_path: Path) -> None:
    """Overwriting may be asked for when there is nothing yet."""
    write_folder(tmp_path / "run", NEW, overwrite=True)
    assert set(contents(tmp_path / "run")) == {*NEW, MANIFEST}


@pytest.mark.parametrize(
    "manifest", ['{"manifest_version": 3, "name": "my extension"}', "[]", "not JSON", "{}"]
)
def test_foreign_manifest_is_no_run_folder(manifest: str, tmp_path: Path) -> None:
    """A folder with a manifest.json that we did not write is never overwritten."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / MANIFEST).write_text(manifest, encoding="utf-8")
    (folder / "index.html").write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(OutputError) as refusal:
        write_folder(folder, NEW, overwrite=True)
    assert refusal.value.code == "output-exists"
    assert contents(tmp_path) == before


def test_overwrite_through_a_link(tmp_path: Path) -> None:
    """Overwriting a link to a run folder is refused, or leaves nothing else behind."""
    write_folder(tmp_path / "real", OLD)
    (tmp_path / "run").symlink_to("real", target_is_directory=True)
    try:
        write_folder(tmp_path / "run", NEW, overwrite=True)
    except OutputError:
        assert contents(tmp_path / "real")["a.txt"] == OLD["a.txt"]
    else:
        assert contents(tmp_path / "run")["a.txt"] == NEW["a.txt"]
    assert {p.name for p in tmp_path.iterdir()} == {"real", "run"}


def test_dangling_link_is_refused_before_any_work(tmp_path: Path) -> None:
    """A link to nowhere counts as something that exists."""
    (tmp_path / "run").symlink_to("nowhere")
    with pytest.raises(OutputError) as refusal:
        require_free(tmp_path / "run")
    assert refusal.value.code == "output-exists"


@pytest.mark.parametrize("overwrite", [False, True])
def test_parent_that_is_a_file(overwrite: bool, tmp_path: Path) -> None:
    """A folder inside a file is refused before any work, however deep."""
    (tmp_path / "file").write_bytes(b"mine")
    for folder in (tmp_path / "file" / "run", tmp_path / "file" / "runs" / "first"):
        for attempt in (require_free, lambda f, **o: write_folder(f, NEW, **o)):
            with pytest.raises(OutputError) as refusal:
                attempt(folder, overwrite=overwrite)
            assert refusal.value.code == "output-readonly"
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("depth", ["run", "a/b/run"])
def test_readonly_parent(depth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent that must not be written is refused before any work."""
    asked = []

    def denied(path: os.PathLike[str], mode: int) -> bool:
        asked.append((Path(path), mode))
        return False

    monkeypatch.setattr(os, "access", denied)
    with pytest.raises(OutputError) as refusal:
        write_folder(tmp_path / depth, NEW)
    assert refusal.value.code == "output-readonly"
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]
    assert contents(tmp_path) == {}
    assert not [*tmp_path.iterdir()]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_really_readonly_parent(tmp_path: Path) -> None:
    """A folder without the right to write is refused before any work."""
    (tmp_path / "fixed").mkdir(mode=0o500)
    with pytest.raises(OutputError) as refusal:
        require_free(tmp_path / "fixed" / "run")
    assert refusal.value.code == "output-readonly"


def test_full_disk_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says stands in the message, with a code of its own."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device") as refusal:
        write_folder(tmp_path / "run", NEW)
    assert refusal.value.code == "output-failed"


def test_failure_leaves_no_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure leaves no parent folders that were made for the run."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError):
        write_folder(tmp_path / "runs" / "first", NEW)
    assert not [*tmp_path.iterdir()]


# Faults at every step. A step is a call of one of these; the fault comes in its place.
STEPS: tuple[tuple[Any, str], ...] = (
    (Path, "mkdir"),
    (tempfile, "mkdtemp"),
    (Path, "open"),
    (Path, "write_bytes"),
    (Path, "chmod"),
    (Path, "rename"),
    (Path, "replace"),
    (os, "chmod"),
    (os, "fsync"),
    (os, "open"),
    (os, "rename"),
    (os, "replace"),
    (io, "_exchanged"),
    (shutil, "rmtree"),
)
MOVES = ("rename", "replace", "_exchanged")


def with_fault(write: Callable[[], None], at: int | None, fault: BaseException) -> list[str]:
    """Calls ``write`` with a fault at a step; returns the steps that were reached."""
    reached: list[str] = []
    inside = False

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            nonlocal inside
            if inside:  # a step that another step is made of
                return real(*args, **options)
            if name != "rmtree":  # cleaning up is no step
                reached.append(name)
                if len(reached) - 1 == at:
                    raise fault
            inside = True
            try:
                return real(*args, **options)
            finally:
                inside = False

        return step

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in STEPS:
            patch.setattr(owner, name, watched(name, getattr(owner, name)))
        write()
    return reached


def broken_steps(
    parent: Path, steps: list[int], kind: type[BaseException], overwrite: bool
) -> dict[int, str]:
    """Faults at these steps that leave anything but the old or the new folder, whole."""
    failures: dict[int, str] = {}
    new = {
        **NEW,
        MANIFEST: to_json(
            {"kind": "fairneuron run", "sha256": {n: sha(c) for n, c in NEW.items()}}
        ),
    }
    for at in steps:
        folder = parent / str(at) / "run"
        folder.parent.mkdir()
        if overwrite:
            write_folder(folder, OLD)
        old = contents(folder)
        fault = kind(5, "Input/output error")
        raised: BaseException | None = None
        try:
            with_fault(lambda: write_folder(folder, NEW, overwrite=overwrite), at, fault)  # noqa: B023
        except (OutputError, KeyboardInterrupt) as error:
            raised = error
        beside = {p.name for p in folder.parent.iterdir()} - {"run"}
        now = contents(folder)
        if beside:
            failures[at] = f"left {sorted(beside)}, run has {sorted(now)}"
        elif now not in (old, new) or folder.exists() != bool(now):
            failures[at] = f"run has {sorted(now)}"
        elif isinstance(raised, OutputError) and now != old:
            failures[at] = f"says {raised} but the new folder is there"
        elif raised is None and now != new:
            failures[at] = "swallowed the fault"
    return failures


def sha(content: bytes) -> str:
    """The SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


PHASES = ("before the swap", "at the swap", "after the swap")


@pytest.mark.parametrize(
    ("kind", "way", "phase"),
    [
        pytest.param(kind, way, phase, id=f"{kind.__name__}, {way}, {phase}")
        for kind in (OSError, KeyboardInterrupt)
        for way in ("new", "overwrite at once", "overwrite in two steps")
        for phase in PHASES
    ],
)
def test_fault_at_every_step(
    kind: type[BaseException], way: str, phase: str, tmp_path: Path, monkeypatch
) -> None:
    """A fault at any step leaves the old state or the new one, whole, and nothing beside it."""
    overwrite = way != "new"
    if way == "overwrite in two steps":
        monkeypatch.setattr(io, "_exchanged", lambda *_: False)
    if overwrite:
        write_folder(tmp_path / "all", OLD)
    steps = with_fault(
        lambda: write_folder(tmp_path / "all", NEW, overwrite=overwrite), None, kind()
    )
    moves = [i for i, name in enumerate(steps) if name in MOVES]
    wanted = {
        PHASES[0]: [*range(moves[0])],
        PHASES[1]: [*range(moves[0], moves[-1] + 1)],
        PHASES[2]: [*range(moves[-1] + 1, len(steps))],
    }[phase]
    assert len(moves) == (3 if way == "overwrite in two steps" else 1)
    assert steps[: moves[0]].count("fsync") > len(NEW)
    if phase == PHASES[2] and not wanted:
        pytest.skip("nothing comes after the swap")
    assert broken_steps(tmp_path, wanted, kind, overwrite) == {}


def test_leftovers_of_writers_that_were_killed_go(tmp_path: Path) -> None:
    """Those of the target, and nothing else that looks like them."""
    folder = tmp_path / "run"
    write_folder(folder, NEW)
    for gone in (tmp_path / ".run-ab12_xyz", folder / ".result.json-ab12_xyz"):
        (gone / "new").mkdir(parents=True)
    mine = [tmp_path / ".other-ab12_xyz", tmp_path / ".run-ab", folder / ".mine-ab12_xyz"]
    for kept in mine:
        kept.mkdir()
        (kept / "mine.txt").touch()
    (tmp_path / ".run-zb12_xyz").symlink_to(mine[0])
    before = {*tmp_path.rglob("*")}
    io.remove_leftovers(folder)
    assert {path.name for path in before - {*tmp_path.rglob("*")}} == {
        ".run-ab12_xyz",
        ".result.json-ab12_xyz",
        "new",
    }


# Single files


def test_file_is_written(tmp_path: Path) -> None:
    """A file has the bytes as given, is made with its folders, and nothing is beside it."""
    path = tmp_path / "new" / "folder" / "file.bin"
    write_file(path, b"content")
    assert contents(tmp_path) == {"new/folder/file.bin": b"content"}
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link"])
def test_existing_file_stays(kind: str, tmp_path: Path) -> None:
    """What exists stays, and only a plain file can be overwritten."""
    path = tmp_path / "out"
    (tmp_path / "real").write_bytes(b"mine")
    if kind == "file":
        path.write_bytes(b"mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("real" if kind == "link" else "nowhere")
    before = contents(tmp_path)
    for overwrite in (False, True) if kind != "file" else (False,):
        for attempt in (require_free_file, lambda p, **o: write_file(p, b"new", **o)):
            with pytest.raises(OutputError) as refusal:
                attempt(path, overwrite=overwrite)
            assert refusal.value.code == "output-exists"
            assert ("--overwrite" in refusal.value.cure) == (kind == "file")
    assert contents(tmp_path) == before
    if kind == "file":
        write_file(path, b"new", overwrite=True)
        assert path.read_bytes() == b"new"


def test_file_in_a_file(tmp_path: Path) -> None:
    """A file below a file is refused before any work."""
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputError) as refusal:
        require_free_file(tmp_path / "file" / "out")
    assert refusal.value.code == "output-readonly"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_fault_at_every_step_of_a_file(
    kind: type[BaseException], overwrite: bool, tmp_path: Path
) -> None:
    """A fault at any step leaves the old file or the new one, whole, and nothing beside it."""
    options = {"overwrite": overwrite}

    def start(name: str) -> Path:
        path = tmp_path / name / "out"
        path.parent.mkdir()
        if overwrite:
            path.write_bytes(b"old")
        return path

    path = start("all")
    steps = with_fault(lambda: write_file(path, b"new", **options), None, kind())
    assert "fsync" in steps[: steps.index("replace")]
    for at, name in enumerate(steps):
        path = start(str(at))
        old = contents(path.parent)
        try:
            with_fault(lambda: write_file(path, b"new", **options), at, kind(5, "Input/output"))  # noqa: B023
        except (OutputError, KeyboardInterrupt):
            after = at > steps.index("replace")
            assert contents(path.parent) == ({"out": b"new"} if after else old), (at, name)
            assert after <= (kind is KeyboardInterrupt)
        else:
            assert contents(path.parent) == {"out": b"new"}, (at, name)


# JSON


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_json_refuses_what_is_no_number(value: float) -> None:
    """NaN and infinity, which JSON does not have, are refused at any depth."""
    for nested in (value, [value], {"a": {"b": [1, value]}}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            to_json(nested)


def test_json_round_trip() -> None:
    """Values come back as they were, letters of all scripts as themselves, floats to the bit."""
    value = {"größe": [0.1 + 0.2, 1e-300, None, True], "b": "→ λ"}
    text = to_json(value)
    assert json.loads(text) == value
    assert "größe".encode() in text
    assert text.endswith(b"}\n")


def test_json_of_undecodable_names() -> None:
    """A path of the command line that is not UTF-8 can be written."""
    path = os.fsdecode(b"weights-\xff.safetensors")
    assert json.loads(to_json({"weights": path})) == {"weights": path}


# Weights

SHAPE: dict[str, Any] = {"inputs": 3, "hidden": [4, 5], "outputs": 2, "dropout": 0.25}
ENTRY = "fairneuron.mlp"


def network(**changes: Any) -> nn.Sequential:
    """A network of known weights."""
    torch.manual_seed(0)
    shape = SHAPE | changes
    return mlp(shape["inputs"], shape["hidden"], outputs=shape["outputs"], dropout=shape["dropout"])


def refused(path: Path) -> ModelError:
    """Loads a file that must be refused; returns the refusal."""
    with pytest.raises(ModelError) as refusal:
        load_mlp(path)
    assert refusal.value.exit_code == 2
    assert str(refusal.value)
    return refusal.value


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("hidden", [[], [4], [4, 5]], ids=str)
def test_weights_round_trip(
    hidden: list[int], dropout: float, outputs: int, tmp_path: Path
) -> None:
    """Weights come back to the bit, in the same layers, in eval mode."""
    model = network(hidden=hidden, dropout=dropout, outputs=outputs)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(mlp_weights(model))
    loaded = load_mlp(path)
    assert str(loaded) == str(model)
    assert not any(module.training for module in loaded.modules())
    assert [*loaded.state_dict()] == [*model.state_dict()]
    for name, value in model.state_dict().items():
        assert loaded.state_dict()[name].numpy().tobytes() == value.numpy().tobytes()
    assert mlp_weights(loaded) == mlp_weights(model)


def test_weights_leave_the_model_alone() -> None:
    """Writing weights changes neither mode nor weights, and gives the same bytes again."""
    model = network().train()
    before = [p.clone() for p in model.parameters()]
    assert mlp_weights(model) == mlp_weights(model)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_loaded_weights_are_a_copy(tmp_path: Path) -> None:
    """A loaded network does not change when its file does."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(mlp_weights(network()))
    loaded = load_mlp(path)
    before = loaded[0].weight.clone()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))
    assert torch.equal(loaded[0].weight, before)


@pytest.mark.parametrize("name", ["missing", "folder", "folder/missing", "", "n" * 300])
def test_no_file(name: str, tmp_path: Path) -> None:
    """What is no file is refused."""
    (tmp_path / "folder").mkdir()
    assert refused(tmp_path / name).code == "model-file"


def test_name_with_a_zero_byte() -> None:
    """A name that no file can have is refused."""
    assert refused(Path("a\0b")).code == "model-file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe(tmp_path: Path) -> None:
    """A named pipe is refused; nobody waits for a writer."""
    os.mkfifo(tmp_path / "pipe")
    code = (
        "import sys, pathlib\n"
        "from fairneuron.errors import ModelError\n"
        "from fairneuron.weights import load_mlp\n"
        "try:\n    load_mlp(pathlib.Path(sys.argv[1]))\n"
        "except ModelError as error:\n    print(error.code)\n"
    )
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code, tmp_path / "pipe"],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert done.stdout == "model-file\n"


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="no such device here")
def test_device() -> None:
    """A device is refused; nobody reads it to its end."""
    assert refused(Path("/dev/zero")).code == "model-file"


def test_truncated_file(tmp_path: Path) -> None:
    """A file that was cut off anywhere, or has more than it should, is refused."""
    path, whole = tmp_path / "weights.safetensors", mlp_weights(network())
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert refused(path).code == ("model-file-truncated" if length else "model-file-empty")
    path.write_bytes(whole + b"\0")
    assert refused(path).code == "model-file"


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes(seed: int, tmp_path: Path) -> None:
    """Random bytes are refused, also behind a plausible length of the header."""
    noise = torch.randint(
        256, (500,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    path = tmp_path / "weights.safetensors"
    for content in (bytes(noise.tolist()), (100).to_bytes(8, "little") + bytes(noise.tolist())):
        path.write_bytes(content)
        assert refused(path).code == "model-file"


def test_flipped_bits(tmp_path: Path) -> None:
    """A damaged header is refused with a code, or makes no difference to the shapes."""
    path, whole = tmp_path / "weights.safetensors", mlp_weights(network())
    end = 8 + int.from_bytes(whole[:8], "little")
    codes = set()
    for position in range(end):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 7
        path.write_bytes(damaged)
        try:
            loaded = load_mlp(path)
        except ModelError as error:
            codes.add(error.code)
        else:
            found = [value.shape for value in loaded.state_dict().values()]
            assert found == [value.shape for value in network().state_dict().values()]
    assert codes >= {"model-file", "model-keys"}
    assert all(code.startswith(("model-file", "model-keys")) for code in codes)


class Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_run_nothing(zipped: bool, tmp_path: Path) -> None:
    """A pickle, as torch.save makes them, is refused and none of it runs."""
    marker = tmp_path / "marker"
    saved, plain = buffers.BytesIO(), pickle.dumps(Marker(marker))
    torch.save(
        {"0.weight": torch.ones(2), "x": Marker(marker)},
        saved,
        _use_new_zipfile_serialization=zipped,
    )
    pickle.loads(plain)  # noqa: S301  # to see that it would
    assert marker.exists()
    marker.unlink()
    for content in (saved.getvalue(), plain):
        (tmp_path / "weights.safetensors").write_bytes(content)
        assert refused(tmp_path / "weights.safetensors").code == "model-file-pickle"
    assert not marker.exists()


def save(path: Path, entry: str | None, **changes: torch.Tensor | None) -> Path:
    """Saves the known weights, some changed or left out (None), under a header's entry."""
    state = {**network().state_dict(), **changes}
    save_file(
        {name: value for name, value in state.items() if value is not None},
        path,
        metadata=None if entry is None else {ENTRY: entry},
    )
    return path


def header(**raw: str) -> str:
    """A header's entry with some values as raw JSON."""
    parts = {name: json.dumps(value) for name, value in SHAPE.items()} | raw
    return "{" + ", ".join(f'"{name}": {value}' for name, value in parts.items()) + "}"


def test_header_is_what_is_written(tmp_path: Path) -> None:
    """The header of these tests is the right one: with it the weights load."""
    loaded = load_mlp(save(tmp_path / "weights.safetensors", header()))
    assert str(loaded) == str(network())


HOSTILE = {
    "no header": None,
    "empty": "",
    "no JSON": "{",
    "null": "null",
    "list": "[]",
    "number": "7",
    "text": '"inputs"',
    "no entries": "{}",
    "negative inputs": header(inputs="-3"),
    "no inputs": header(inputs="0"),
    "huge inputs": header(inputs="100000000"),
    "inputs of 5,000 digits": header(inputs="9" * 5000),
    "inputs of NaN": header(inputs="NaN"),
    "inputs in words": header(inputs='"three"'),
    "inputs of null": header(inputs="null"),
    "inputs in a list": header(inputs="[3]"),
    "negative hidden": header(hidden="[4, -5]"),
    "hidden of 0": header(hidden="[4, 0]"),
    "huge hidden": header(hidden="[4, 1000000000000]"),
    "hidden of a number": header(hidden="4"),
    "hidden of null": header(hidden="null"),
    "hidden of lists": header(hidden="[[4], [5]]"),
    "a million layers": header(hidden="[" + "1, " * 999_999 + "1]"),
    "no outputs": header(outputs="0"),
    "negative outputs": header(outputs="-1"),
    "dropout of NaN": header(dropout="NaN"),
    "dropout of infinity": header(dropout="Infinity"),
    "negative dropout": header(dropout="-0.1"),
    "dropout of 1": header(dropout="1"),
    "dropout in words": header(dropout='"much"'),
    "infinite inputs": header(inputs="1e400"),
    "infinite hidden": header(hidden="[4, 1e400]"),
    "huge dropout": header(dropout="1" + "0" * 400),
    "nested": "[" * 200_000,
}


@pytest.mark.parametrize("entry", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_header(entry: str | None, tmp_path: Path) -> None:
    """A header that describes no network is refused."""
    assert refused(save(tmp_path / "weights.safetensors", entry)).code == "model-file"


def test_header_of_a_giant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that claims a giant network is refused before memory is taken for it."""

    def no_memory(inputs: int, hidden: list[int], **options: Any) -> nn.Sequential:
        if torch.get_default_device().type != "meta":
            raise MemoryError(f"{inputs} x {hidden}")
        return mlp(inputs, hidden, **options)

    monkeypatch.setattr(weights, "mlp", no_memory)
    giant = header(inputs="65536", hidden=str([65536] * 64))
    assert refused(save(tmp_path / "weights.safetensors", giant)).code in (
        "model-file",
        "model-keys",
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"0.bias": None}, "0.bias"),
        ({"6.weight": None, "6.bias": None}, "6.bias, 6.weight"),
        ({"7.weight": torch.ones(1)}, "7.weight"),
        ({"0.bias": torch.ones(5)}, "0.bias"),
        ({"0.weight": torch.ones(3, 4)}, "0.weight"),
        ({"3.weight": torch.ones(20)}, "3.weight"),
        ({"6.bias": torch.ones(())}, "6.bias"),
        ({"0.weight": torch.ones(0, 3)}, "0.weight"),
    ],
    ids=str,
)
def test_other_keys(changes: dict[str, torch.Tensor], named: str, tmp_path: Path) -> None:
    """Missing, additional and misshapen weights are refused and named."""
    error = refused(save(tmp_path / "weights.safetensors", header(), **changes))
    assert error.code == "model-keys"
    assert str(error.got).endswith(named)


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (header(inputs="4"), "model-keys"),
        (header(hidden="[]"), "model-keys"),
        (header(outputs="1"), "model-keys"),
        (header(dropout="0"), "model-keys"),
    ],
)
def test_header_of_another_network(entry: str, code: str, tmp_path: Path) -> None:
    """A header that does not fit the weights is refused."""
    assert refused(save(tmp_path / "weights.safetensors", entry)).code == code


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["0.weight", "6.bias"])
def test_weights_that_are_not_finite(name: str, value: float, tmp_path: Path) -> None:
    """NaN and infinity anywhere in the weights are refused."""
    weights = network().state_dict()[name].clone()
    weights.view(-1)[-1] = value
    path = save(tmp_path / "weights.safetensors", header(), **{name: weights})
    assert refused(path).code == "model-nonfinite"


def test_weights_beyond_float32(tmp_path: Path) -> None:
    """Weights that are finite in float64 alone are refused; no loaded weight is infinite."""
    changes = {"6.bias": torch.tensor([1e300, 0.0], dtype=torch.float64)}
    path = save(tmp_path / "weights.safetensors", header(), **changes)
    assert refused(path).code == "model-nonfinite"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64], ids=str)
def test_weights_of_other_types(dtype: torch.dtype, tmp_path: Path) -> None:
    """Weights that are no real numbers of an ordinary width are refused."""
    weights = network().state_dict()["0.weight"].to(dtype)
    path = save(tmp_path / "weights.safetensors", header(), **{"0.weight": weights})
    assert refused(path).code in ("model-file", "model-keys")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_weights_of_other_widths(dtype: torch.dtype, tmp_path: Path) -> None:
    """Floats of another width become float32 of the same value."""
    state = {name: value.to(dtype) for name, value in network().state_dict().items()}
    loaded = load_mlp(save(tmp_path / "weights.safetensors", header(), **state)).state_dict()
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[name], value.float()) for name, value in state.items())


def test_file_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is removed between the check and the reading is refused like a missing one."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(mlp_weights(network()))
    real = Path.stat

    def gone(self: Path, **options: Any) -> os.stat_result:
        found = real(self, **options)
        if self == path:
            shutil.move(path, tmp_path / "elsewhere")
        return found

    monkeypatch.setattr(Path, "stat", gone)
    assert refused(path).code == "model-file"
