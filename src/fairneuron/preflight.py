"""What a file of weights is, told from its first bytes, before any library reads it."""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import NoReturn

from fairneuron.errors import ModelError, printable

SAVE = "Save the state_dict alone: torch.save(model.state_dict(), 'weights.pt')."
CONVERT = f"{SAVE} If you trust the file, see `fairneuron convert`."
AGAIN = "Get the file again."
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6
_MOST_HEADER = 100_000_000  # bytes, as the library has it

Refusal = tuple[str, str, str]
"""The end of the code, what the file is, and the cure."""
PICKLE: Refusal = ("-pickle", "a pickle, which can run any code when it is read", CONVERT)
_HTML: Refusal = ("-html", "a web page", "Download the file itself, not the page about it.")
_LFS: Refusal = ("-lfs", "a pointer of git-lfs, not the file itself", "Run `git lfs pull`.")
SHORT: Refusal = ("-truncated", "a file that ends too early", AGAIN)


def other(what: str) -> Refusal:
    """The refusal of a kind of file that has no code of its own."""
    return "", what, "Give a .safetensors file, or a .pt file of a state_dict."


def bomb(what: str) -> Refusal:
    """The refusal of what would fill the memory."""
    return "-bomb", f"an archive that may take far more memory than disk ({what})", SAVE


_STARTS: tuple[tuple[bytes, Refusal], ...] = (
    (b"version https://git-lfs", _LFS),
    (b"version https://hawser", _LFS),
    (LEGACY, ("-pickle", "a file of torch before 1.6, a pickle", CONVERT)),
    (b"\x89HDF\r\n\x1a\n", other("an HDF5 file (Keras?)")),
    (b"\x93NUMPY", other("a NumPy array")),
    (b"GGUF", other("a GGUF file")),
    (b"\x1f\x8b", other("a gzip file")),
    (b"PK\x05\x06", other("an empty zip archive")),
    (b"BZh", other("a bzip2 file")),
    (b"\xfd7zXZ", other("an xz file")),
    (b"\x28\xb5\x2f\xfd", other("a Zstandard file")),
    (b"7z\xbc\xaf", other("a 7z archive")),
    (b"Rar!", other("a RAR archive")),
    (b"PAR1", other("a Parquet table")),
    (b"SQLite format 3", other("an SQLite database")),
    (b"\x7fELF", other("a program")),
    (b"MZ", other("a program")),
    (b"%PDF", other("a PDF file")),
    (b"\x89PNG", other("an image")),
    (b"/annex/objects/", other("a pointer of git-annex")),
    (b"../.git/annex/", other("a pointer of git-annex")),
)
_PATTERNS: tuple[tuple[re.Pattern[bytes], Refusal], ...] = (
    (re.compile(rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|!--|html|head|body)"), _HTML),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<\?xml"), other("an XML file (an error of a server?)")),
    (re.compile(rb"\x80[\x01-\x05]"), PICKLE),
    (re.compile(rb"(c[\w.]+\n[\w.]+\n|\(([cild]|\n)|[\]}]q)"), PICKLE),  # protocols 0 and 1
    (re.compile(rb"x[\x01\x5e\x9c\xda]"), ("-pickle", "a compressed pickle (joblib?)", CONVERT)),
    (re.compile(rb"(?s).{4}TFL3"), other("a TFLite model")),
    (re.compile(rb"(?s)\x08.{0,24}(pytorch|onnx|tf2onnx)"), other("an ONNX model")),
    (re.compile(rb"(?s).{257}ustar"), other("a tar archive")),
)


def refuse(path: Path, refusal: Refusal) -> NoReturn:
    """Raises the ``ModelError`` that names what the file is."""
    end, what, cure = refusal
    raise ModelError(
        f"model-file{end}",
        "The weights must be a .safetensors file, or a .pt file of a state_dict",
        got=f"{printable(str(path))}: {what}",
        cure=cure,
    )


def open_file(path: Path) -> BufferedReader:
    """Opens a regular file; nobody waits for the writer of a pipe, or reads from a device.

    Raises:
        ModelError: For all that is no regular file or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening some devices does things already
            raise OSError
        file = open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK))  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise ModelError(
            "model-file",
            "The weights must be a file that can be read",
            got=printable(str(path)) or "an empty path",
            cure="Check the path.",
        ) from error
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    refuse(path, other("no regular file any more"))


def is_safetensors(head: bytes) -> bool:
    """Whether the first bytes are those of a safetensors file: a length, then a JSON object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _MOST_HEADER


def sniff(content: bytes, path: Path) -> None:
    """Refuses by name all that is neither a safetensors file nor a zip archive.

    Args:
        content: The whole file, or the first kilobyte of it.
        path: Where it came from, for messages.

    Raises:
        ModelError: With a code and a cure for what it looks like.
    """
    if not content:
        refuse(path, ("-empty", "an empty file", AGAIN))
    if is_safetensors(content) or content.startswith(b"PK\x03\x04"):
        return
    for start, refusal in _STARTS:
        if content.startswith(start):
            refuse(path, refusal)
    for pattern, refusal in _PATTERNS:
        if pattern.match(content):
            refuse(path, refusal)
    if len(content) < 9:
        refuse(path, SHORT)
    text = not re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", content[:1000])
    refuse(path, other("text" if text else "none of the known kinds"))


# Safetensors


def safetensors_metadata(content: bytes) -> dict[str, str]:
    """The metadata of bytes that the library has taken for a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8:end]).get("__metadata__") or {})


def refuse_safetensors(content: bytes, path: Path) -> NoReturn:
    """Says what is wrong with bytes that the library has refused."""
    end = 8 + int.from_bytes(content[:8], "little")
    needed = end
    with suppress(
        ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError
    ):
        entries = json.loads(content[8:end]) if len(content) >= end else {}
        offsets = [v["data_offsets"][1] for k, v in entries.items() if k != "__metadata__"]
        needed += max(map(int, offsets), default=0)
    if needed > len(content):
        refuse(path, SHORT)
    refuse(path, ("", "a damaged .safetensors file, or one with unknown types of numbers", AGAIN))
