"""Checkpoints of ``torch.save`` as data: checked, and packed again, before torch reads them.

Such a file is a zip archive of a list of tensors, ``data.pkl`` (see ``pickled``), and a member for
the numbers of each. Torch reads an archive that is written here, so it does not matter where two
readers of zip files would disagree about the original.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from fairneuron.errors import printable
from fairneuron.pickled import storages
from fairneuron.preflight import AGAIN, CONVERT, PICKLE, SAVE, SHORT, Refusal, bomb, other, refuse

_MOST_PICKLE = 1 << 22  # bytes; a state_dict takes about 150 per tensor
_LOCAL, _END = 30, 22  # bytes of a member's own header before its name, of the end of an archive

_MEMBERS: tuple[tuple[re.Pattern[str], Refusal], ...] = (
    (
        re.compile(r"[^/]+/(archive_format|models/.*)|serialized_exported_program\.json"),
        ("-pt2", "an exported program (.pt2), which can run code when it is read", SAVE),
    ),
    (
        re.compile(r"[^/]+/(constants\.pkl|code/.*)"),
        ("-torchscript", "a TorchScript archive, which is a program", CONVERT),
    ),
    (re.compile(r"[^/]+/\.data/(extern_modules|python_version)"), PICKLE),  # torch.package
    (re.compile(r".*\.npy"), other("an archive of NumPy arrays (.npz)")),
    (re.compile(r"model\.weights\.h5"), other("a Keras model")),
)


def checked_checkpoint(content: bytes, path: Path) -> bytes:
    """Checks a zip archive of ``torch.save`` and packs it again from what was checked.

    Args:
        content: The whole file.
        path: Where it came from, for messages.

    Returns:
        An archive of a flat map of names to tensors whose storages are as large as they say.

    Raises:
        ModelError: With a code and a cure for what it is instead.
    """
    members = _members(content, path)
    sizes = {name: len(member) for name, member in members.items()}
    used = {"data.pkl", "version", "byteorder", *storages(bytes(members["data.pkl"]), sizes, path)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, member in members.items():
            if name in used:
                archive.writestr(f"archive/{name}", member)
    return packed.getvalue()


def _members(content: bytes, path: Path) -> dict[str, memoryview]:
    """The members of an archive without its prefix; none is packed, overlaps or is there twice."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
    except Exception:  # it raises many kinds of errors for damaged directories
        end = content.rfind(b"PK\x05\x06")
        short = end < 0 or len(content) - end < _END
        refuse(path, SHORT if short else ("", "a damaged zip archive", AGAIN))
    names = [info.filename for info in infos]
    for pattern, refusal in _MEMBERS:
        if any(pattern.fullmatch(name) for name in names):
            refuse(path, refusal)
    prefix = names[0].partition("/")[0] + "/" if names else ""
    if f"{prefix}data.pkl" not in names or not all(name.startswith(prefix) for name in names):
        refuse(path, other("a zip archive, but not one of torch.save"))
    if len(set(names)) < len(names):
        refuse(path, bomb("members of the same name"))
    members = {}
    for info, start, end in [*_extents(content, infos, path)]:
        member = memoryview(content)[start:end]
        if zlib.crc32(member) != info.CRC:
            cure = f"{AGAIN} Or save it again, with CRC sums."
            refuse(path, ("", f"a damaged archive (see {printable(info.filename)})", cure))
        members[info.filename.removeprefix(prefix)] = member
    if len(members["data.pkl"]) > _MOST_PICKLE:
        refuse(path, bomb(f"a list of tensors of {len(members['data.pkl']):,} bytes"))
    return members


def _extents(
    content: bytes, infos: list[zipfile.ZipInfo], path: Path
) -> Iterator[tuple[zipfile.ZipInfo, int, int]]:
    """Each member with the first byte of its content and the one behind its last."""
    free = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        packed = info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size
        if packed or info.flag_bits & 1:
            refuse(path, bomb("compressed members, which torch.save never writes"))
        own = info.header_offset
        head = content[own : own + _LOCAL] if own >= 0 else b""
        if len(head) < _LOCAL or not head.startswith(b"PK\x03\x04"):
            refuse(path, ("", "a damaged zip archive", AGAIN))
        start = own + _LOCAL + sum(int.from_bytes(head[i : i + 2], "little") for i in (26, 28))
        if start + info.file_size > len(content):
            refuse(path, bomb("members larger than the file"))
        if own < free:
            refuse(path, bomb("members that overlap"))
        free = start + info.file_size
        yield info, start, free
