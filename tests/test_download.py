"""Downloads: over HTTPS, of the known file, whole or not at all; from servers in this process."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

import fairneuron as fn
from fairneuron.data import download, imagesets
from fairneuron.data.download import fetch
from fairneuron.data.imagesets import Download
from fairneuron.errors import DataError, OutputError
from tests.fuzzing import command

CONTENT = np.random.default_rng(0).bytes(300_000)
WANTED = Download("file.bin", (), hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


@dataclass
class Server:
    """What is asked of it, by path; and what it was asked.

    Attributes:
        url: Its address.
        context: What believes it.
        asked: The paths and ranges, in their order.
    """

    url: str
    context: ssl.SSLContext
    asked: list[tuple[str, str | None]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Answers as the path says."""

    server: Any

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        """Answers."""
        told = self.headers.get("Range")
        self.server.asked.append((self.path, told))
        answer = getattr(self, self.path.strip("/").partition("/")[0])
        answer(int(re.fullmatch(r"bytes=(\d+)-", told)[1]) if told else 0)  # type: ignore[index]

    def send(
        self, content: bytes, *, status: int = 200, told: int | None = -1, **more: str
    ) -> None:
        """Sends headers and a body; ``told`` is the length that is claimed."""
        self.send_response(status)
        length = len(content) if told == -1 else told
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def good(self, start: int) -> None:
        """The file, from where it is asked for."""
        if start:
            places = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.send(CONTENT[start:], status=206, Content_Range=places)
        else:
            self.send(CONTENT)

    def ranges_unknown(self, _: int) -> None:
        """All of it, whatever is asked."""
        self.send(CONTENT)

    def without_length(self, _: int) -> None:
        """All of it, without saying how long it is."""
        self.send(CONTENT, told=None)

    def other(self, _: int) -> None:
        """Another file of the same length."""
        self.send(CONTENT[::-1])

    def cut(self, _: int) -> None:
        """A part, and the connection is closed."""
        self.send(CONTENT[:100_000], told=len(CONTENT))

    def larger(self, _: int) -> None:
        """A file that says it is larger."""
        self.send(CONTENT + b"x")

    def endless(self, _: int) -> None:
        """A file that does not say how large it is, and is larger."""
        self.send(CONTENT * 3, told=None)

    def shorter(self, _: int) -> None:
        """A file that says it is shorter."""
        self.send(CONTENT[:-1])

    def missing(self, _: int) -> None:
        """No such file."""
        self.send(b"<html>", status=404)

    def moved(self, _: int) -> None:
        """It is elsewhere, over HTTPS."""
        self.send(b"", status=302, Location="/good")

    def to_http(self, _: int) -> None:
        """It is elsewhere, over HTTP."""
        self.send(b"", status=302, Location=f"{self.server.plain}/good")

    def to_file(self, _: int) -> None:
        """It is a file of this machine."""
        self.send(b"", status=302, Location="file:///etc/hostname")

    def circle(self, _: int) -> None:
        """It is here."""
        self.send(b"", status=302, Location="/circle")


def serving(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """A server at a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the server's certificate."""
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server over HTTPS that the client's context believes, and a plain one beside it."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    secret = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(secret)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    running, plain = serving(Handler), serving(Handler)
    running.socket = secret.wrap_socket(running.socket, server_side=True)
    found = Server(f"https://127.0.0.1:{running.server_port}", client)
    for each in (running, plain):
        each.asked = found.asked  # type: ignore[attr-defined]
        each.plain = f"http://127.0.0.1:{plain.server_port}"  # type: ignore[attr-defined]
    found.__dict__["plain"] = f"http://127.0.0.1:{plain.server_port}"
    yield found
    for each in (running, plain):
        each.shutdown()
        each.server_close()


def get(server: Server, folder: Path, *paths: str) -> Path:
    """Fetches the file from these paths of the server."""
    urls = [path if ":" in path else f"{server.url}/{path}" for path in paths]
    return fetch(WANTED, folder, urls=urls, context=server.context)


def refused(server: Server, folder: Path, *paths: str) -> str:
    """The message of the refusal; the file does not appear."""
    with pytest.raises(DataError) as caught:
        get(server, folder, *paths)
    assert caught.value.code == "data-download"
    assert not (folder / "file.bin").exists()
    return str(caught.value)


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("path", ["good", "ranges_unknown", "without_length", "moved"])
def test_a_file_comes_whole(path: str, server: Server, tmp_path: Path) -> None:
    """Under its name, in a folder that is made; the second time nothing is asked."""
    folder = tmp_path / "new" / "folder"
    assert get(server, folder, path) == folder / "file.bin"
    assert (folder / "file.bin").read_bytes() == CONTENT
    assert names(folder) == ["file.bin"]
    asked = len(server.asked)
    assert get(server, folder, path) == folder / "file.bin"
    assert len(server.asked) == asked


def test_progress_is_told(server: Server, tmp_path: Path) -> None:
    """The bytes that are there, up to all of them."""
    told: list[tuple[str, int, int]] = []
    fetch(
        WANTED,
        tmp_path,
        urls=[f"{server.url}/good"],
        context=server.context,
        progress=lambda *step: told.append(step),
    )
    assert told[-1] == ("file.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("other", "SHA-256"),
        ("larger", "300001 bytes, not 300000"),
        ("endless", "more than 300000 bytes"),
        ("shorter", "299999 bytes, not 300000"),
        ("missing", "Not Found"),
        ("to_http", "leaves HTTPS"),
        ("to_file", "Redirection to url"),
        ("circle", "infinite loop"),
    ],
)
def test_other_answers_are_refused(path: str, word: str, server: Server, tmp_path: Path) -> None:
    """With what is wrong; nothing but a part that may go on is left."""
    message = refused(server, tmp_path, path)
    assert word in message
    assert f"{server.url}/{path}" in message
    left = tmp_path / "file.bin.part"
    assert not left.exists() or left.stat().st_size <= len(CONTENT)
    assert get(server, tmp_path, "good").read_bytes() == CONTENT  # it did no harm


def test_http_is_never_asked(server: Server, tmp_path: Path) -> None:
    """Neither by redirect nor by address."""
    plain = f"{vars(server)['plain']}/good"
    refused(server, tmp_path, "to_http")
    assert [path for path, _ in server.asked] == ["/to_http"]
    for url in (plain, "file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "x:y"):
        refused(server, tmp_path, url)
    assert [path for path, _ in server.asked] == ["/to_http"]


def test_a_server_that_nobody_vouches_for_is_refused(server: Server, tmp_path: Path) -> None:
    """The system's own authorities decide unless others are given."""
    with pytest.raises(DataError, match="certificate"):
        fetch(WANTED, tmp_path, urls=[f"{server.url}/good"])
    assert server.asked == []


def test_a_cut_download_goes_on(server: Server, tmp_path: Path) -> None:
    """Where it stopped, also from another address."""
    assert "was cut" in refused(server, tmp_path, "cut")
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:100_000]
    assert get(server, tmp_path, "good").read_bytes() == CONTENT
    assert server.asked == [("/cut", None), ("/good", "bytes=100000-")]
    assert names(tmp_path) == ["file.bin"]


def test_the_next_address_is_tried(server: Server, tmp_path: Path) -> None:
    """What one has failed to give, another one gives; if all fail, each is named."""
    assert get(server, tmp_path, "missing", "cut", "good").read_bytes() == CONTENT
    assert server.asked[-1] == ("/good", "bytes=100000-")
    message = refused(server, tmp_path / "x", "missing", "other")
    assert "Not Found" in message
    assert "SHA-256" in message


def test_where_ranges_are_unknown_it_begins_again(server: Server, tmp_path: Path) -> None:
    """All of the file in the answer is not put behind the part."""
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    assert get(server, tmp_path, "ranges_unknown").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)])
def test_a_part_of_another_file_is_dropped(part: bytes, server: Server, tmp_path: Path) -> None:
    """It begins again by itself."""
    (tmp_path / "file.bin.part").write_bytes(part)
    assert get(server, tmp_path, "good").read_bytes() == CONTENT


def test_a_whole_part_is_taken(server: Server, tmp_path: Path) -> None:
    """If only its name was missing."""
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert get(server, tmp_path, "good").read_bytes() == CONTENT
    assert server.asked == []


def test_a_damaged_file_is_replaced(server: Server, tmp_path: Path) -> None:
    """Whole, when the new one is there."""
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1] + b"x")
    assert get(server, tmp_path, "good").read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    """Is told before anything is asked."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError) as caught:
        get(server, tmp_path / "file" / "folder", "good")
    assert caught.value.code == "output-readonly"
    assert server.asked == []


def test_the_command(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It puts the file where it is looked for."""
    known = imagesets.IMAGE_SETS["mnist"]
    wanted = replace(WANTED, name="mnist.npz", urls=(f"{server.url}/good",))
    monkeypatch.setitem(imagesets.IMAGE_SETS, "mnist", replace(known, download=wanted))
    monkeypatch.setenv("FAIRNEURON_DATA_FOLDER", str(tmp_path / "data"))
    monkeypatch.setattr(download.ssl, "create_default_context", lambda: server.context)
    done = command(tmp_path, "data", "get", "mnist")
    assert done.code == 0, done.err
    assert done.out.strip().endswith(str(tmp_path / "data" / "mnist.npz"))
    assert imagesets.place_of("mnist") == tmp_path / "data" / "mnist.npz"
    with pytest.raises(fn.FairNeuronError, match=r"\.npz"):
        fn.load_dataset("mnist")  # it is noise
    unknown = command(tmp_path, "data", "get", "compas")
    assert unknown.code == 2
    assert "error[option-data]" in unknown.err


def test_the_known_files_are_pinned() -> None:
    """Each has HTTPS addresses, a SHA-256 and a size."""
    for known in imagesets.IMAGE_SETS.values():
        wanted = known.download
        assert re.fullmatch(r"[0-9a-f]{64}", wanted.sha256)
        assert 10 << 20 < wanted.size < 200 << 20
        assert len(wanted.urls) > 1
        assert all(url.startswith("https://") for url in wanted.urls)
