"""Arrays from ``.npz`` files, read without pickles and without unpacking bombs."""

from __future__ import annotations

import math
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from fairneuron.data.arrays import Array
from fairneuron.data.csvfile import duplicate_column
from fairneuron.data.tables import most_unpacked, require_file
from fairneuron.errors import DataError


def read_npz(path: Path) -> dict[str, Array]:
    """Reads the arrays of a ``.npz`` file.

    Raises:
        DataError: For other and damaged files, arrays of objects, and files that would unpack to
            far more than their size.
    """
    require_file(path)
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names):
                raise duplicate_column(names)
            most = most_unpacked(path)
            if sum(member.file_size for member in members) > most:
                raise DataError(
                    "data-bomb",
                    "A packed file must unpack to a size that fits it",
                    got=f"{sum(m.file_size for m in members)} bytes from {path}",
                    cure="Save the arrays with numpy.savez.",
                )
            return {
                name: _array(name, file.read(member))
                for name, member in zip(names, members, strict=True)
            }
    except DataError:
        raise
    except Exception as error:  # zipfile and numpy raise many kinds for damaged files
        raise DataError(
            "data-file",
            "Arrays must be in a whole .npz file",
            got=f"{path}: {type(error).__name__}: {error}",
            cure="Save them with numpy.savez(path, x=..., y=..., sensitive=...).",
        ) from error


def _array(name: str, content: bytes) -> Array:
    file = BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = read_header[version](file)
    if dtype.hasobject:
        raise DataError(
            "data-type",
            f"The array {name!r} must hold numbers or texts",
            got="Python objects, which only a pickle can hold",
            cure="Convert it, for example with array.astype(str), before saving.",
        )
    size = math.prod(shape) * dtype.itemsize
    if size != len(content) - file.tell() or min(shape, default=0) < 0 or not dtype.itemsize:
        raise DataError(
            "data-bomb",
            "An array must be as large as its header says",
            got=f"{shape} of {dtype} in {len(content)} bytes of {name!r}",
            cure="Save it again.",
        )
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
