"""The only place that uses the network by itself: a known file over HTTPS, checked by its sum.

What is there half stays as ``NAME.part`` and goes on next time; the file appears whole, with the
sum that is known for it, or not at all. Nothing here looks into it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from fairneuron.data.imagesets import Download
from fairneuron.errors import DataError, OutputError, printable

Progress = Callable[[str, int, int], None]
TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 16
_FAILURES = (OSError, http.client.HTTPException, ValueError)


def fetch(
    wanted: Download,
    folder: Path,
    *,
    urls: Sequence[str] = (),
    context: ssl.SSLContext | None = None,
    progress: Progress = lambda *_: None,
) -> Path:
    """Downloads a file unless it is there already.

    Args:
        wanted: Which.
        folder: Where to; it is made.
        urls: Where from, in the place of its own addresses; HTTPS alone.
        context: Which servers are believed; those that the system believes unless given.
        progress: Told of the bytes that are there.

    Returns:
        Its path.

    Raises:
        DataError: If no address gives a file of its sum.
        OutputError: If the folder cannot be written.
    """
    path, part = folder / wanted.name, folder / f"{wanted.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _is(path, wanted):
            return path
        failures = []
        for url in urls or wanted.urls:
            problem = _one(url, wanted, part, context, progress)
            if not problem:
                _put(part, path)
                return path
            failures.append(f"{url}: {problem}")
    except OSError as error:
        raise OutputError(
            "output-readonly",
            "The folder of downloads must be writable",
            got=f"{printable(str(folder))}: {error.strerror or error}",
            cure="Free some space, or set FAIRNEURON_DATA_FOLDER to another folder.",
        ) from error
    raise DataError(
        "data-download",
        f"{wanted.name} must come whole from one of its addresses",
        got=printable("; ".join(failures)),
        cure="Try again later (it goes on where it stopped), or get the file otherwise and put it "
        f"into {printable(str(folder))}.",
    )


def _one(
    url: str, wanted: Download, part: Path, context: ssl.SSLContext | None, progress: Progress
) -> str:
    """Gets ``part`` from one address; says what went wrong, nothing if it is whole."""
    if _is(part, wanted):  # who got it was stopped before it was named
        return ""
    for _ in range(2):  # a second time from the beginning, if the first part was another file's
        begun = part.stat().st_size if part.exists() else 0
        if begun >= wanted.size:
            part.unlink()
            begun = 0
        problem = _transfer(url, wanted, part, begun=begun, context=context, progress=progress)
        if problem:
            return problem
        if _is(part, wanted):
            return ""
        part.unlink()
        if not begun:
            break
    return "another file (its SHA-256 is not the known one)"


def _transfer(
    url: str,
    wanted: Download,
    part: Path,
    *,
    begun: int,
    context: ssl.SSLContext | None,
    progress: Progress,
) -> str:
    """Appends to ``part`` what is missing, never more than the file has."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "fairneuron"})  # noqa: S310  # the opener knows HTTPS alone
        if begun:
            request.add_header("Range", f"bytes={begun}-")
        response = _opener(context).open(request, timeout=TIMEOUT)
    except _FAILURES as error:
        return _said(error)
    with response:
        at = _start(response, begun)
        length = response.headers.get("Content-Length", "")
        if re.fullmatch(r"\d{1,18}", length) and at + int(length) != wanted.size:
            return f"a file of {at + int(length)} bytes, not {wanted.size}"
        with part.open("r+b" if at else "wb") as file:
            file.seek(at)
            file.truncate()
            return _copied(response, file, wanted, progress)


def _start(response: Any, begun: int) -> int:
    """Where the answer begins: servers may send all of the file again."""
    asked = re.fullmatch(r"bytes (\d{1,18})-.*", response.headers.get("Content-Range", ""))
    return begun if response.status == http.HTTPStatus.PARTIAL_CONTENT and asked and (
        int(asked[1]) == begun
    ) else 0  # fmt: skip


def _copied(response: Any, file: IO[bytes], wanted: Download, progress: Progress) -> str:
    there = file.tell()
    while there < wanted.size:
        try:
            chunk = response.read(min(_CHUNK, wanted.size - there))
        except _FAILURES as error:
            return _said(error)
        if not chunk:
            return f"the connection was cut after {there} of {wanted.size} bytes"
        file.write(chunk)
        there += len(chunk)
        progress(wanted.name, there, wanted.size)
    with suppress(*_FAILURES):
        if response.read(1):
            return f"a file of more than {wanted.size} bytes"
    file.flush()
    os.fsync(file.fileno())
    return ""


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows no redirect that leaves HTTPS."""

    def redirect_request(  # noqa: PLR0917  # as the base has it
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, url: str
    ) -> Any:
        if not url.lower().startswith("https://"):
            raise urllib.error.URLError("a redirect that leaves HTTPS")
        return super().redirect_request(req, fp, code, msg, headers, url)


def _opener(context: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    """An opener that knows HTTPS alone: no HTTP, FTP, files or data."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPSHandler(context=context or ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _HttpsOnly(),
    ):
        opener.add_handler(handler)
    return opener


def _said(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error or type(error).__name__)


def _is(path: Path, wanted: Download) -> bool:
    """Whether the file is there, with its size and sum."""
    if not path.is_file() or path.stat().st_size != wanted.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256


def _put(part: Path, path: Path) -> None:
    part.replace(path)
    with suppress(OSError):  # not every file system syncs folders
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
