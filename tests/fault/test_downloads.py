"""Servers that misbehave at random: a download gives the published bytes, or nothing at all."""

import gzip
import http.server
import random
import time
import tracemalloc
from pathlib import Path

import pytest

from fault.share import seed, share
from helpers import local_servers
from metarun.data import downloads
from metarun.errors import DataError, StorageError

CONTENT = random.Random(0).randbytes(60_000)
BOMB = gzip.compress(bytes(100_000_000))
MOST_BYTES = 32 << 20  # of memory
MOST_SECONDS = 20.0  # without a byte a download waits for TIMEOUT
TIMEOUT = 0.5  # seconds, in place of half a minute
BEHAVIOURS = (
    "good", "other bytes", "cut", "longer", "endless", "wrong range", "no ranges", "error", "loop", "elsewhere",
    "silent", "no length", "wrong length", "packed bomb", "headers", "no http", "other range unit",
)  # fmt: skip


class Server(local_servers.LocalServer):
    """Answers each request as `behaviours` says, one after the other, and then well."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.behaviours: list[str] = []
        self.chooser = random.Random(0)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        behaviour = server.behaviours.pop(0) if server.behaviours else "good"
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        getattr(self, "be_" + behaviour.replace(" ", "_"))(start)

    def answer(self, body: bytes, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def be_good(self, start: int) -> None:
        if start >= len(CONTENT):
            self.send_error(416)
        elif start:
            whole = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.answer(CONTENT[start:], 206, Content_Range=whole)
        else:
            self.answer(CONTENT)

    def be_other_bytes(self, start: int) -> None:
        self.answer(self.server.chooser.randbytes(len(CONTENT)))

    def be_cut(self, start: int) -> None:
        self.answer(CONTENT[: self.server.chooser.randrange(len(CONTENT))], Content_Length=len(CONTENT))

    def be_longer(self, start: int) -> None:
        self.answer(CONTENT + bytes(1000))

    def be_endless(self, start: int) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(2000):  # 128 MB, if nobody stops it
            self.wfile.write(bytes(1 << 16))

    def be_wrong_range(self, start: int) -> None:
        wrong = self.server.chooser.choice(
            (f"bytes {start + 7}-9/60000", "bytes */60000", "", "bytes x", "-1")
        )
        self.answer(CONTENT[start + 7 :], 206, Content_Range=wrong)

    def be_no_ranges(self, start: int) -> None:
        self.answer(CONTENT)

    def be_error(self, start: int) -> None:
        self.send_error(self.server.chooser.choice((401, 403, 404, 410, 416, 429, 500, 503)))

    def be_loop(self, start: int) -> None:
        self.server.behaviours = ["loop"] * 40
        self.answer(b"", 302, Location="/again")

    def be_elsewhere(self, start: int) -> None:
        places = (
            "file:///etc/passwd",
            "ftp://127.0.0.1/x",
            "//",
            "http://127.0.0.1:1/",
            "",
            "data:text/plain,x",
        )
        self.answer(b"", 301, Location=self.server.chooser.choice(places))

    def be_silent(self, start: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100])
        self.wfile.flush()
        time.sleep(3 * TIMEOUT)

    def be_no_length(self, start: int) -> None:
        self.answer(CONTENT, Content_Length=None)

    def be_wrong_length(self, start: int) -> None:
        self.answer(CONTENT, Content_Length=self.server.chooser.choice(("-1", "0", "9" * 30, "x", "12", "")))

    def be_packed_bomb(self, start: int) -> None:
        self.answer(BOMB, Content_Encoding="gzip")

    def be_headers(self, start: int) -> None:
        name = self.server.chooser.choice(("X-Many", "Set-Cookie"))
        self.send_response(200)
        for number in range(self.server.chooser.choice((90, 200))):
            self.send_header(name, f"{number}=" + "a" * 500)
        self.end_headers()
        self.wfile.write(CONTENT)

    def be_no_http(self, start: int) -> None:
        self.wfile.write(self.server.chooser.randbytes(300) + b"\r\n\r\n")

    def be_other_range_unit(self, start: int) -> None:
        self.answer(CONTENT, 206, Content_Range=f"pages 0-1/{len(CONTENT)}")

    def log_message(self, *message) -> None:
        """Say nothing."""


@pytest.fixture
def server():
    with local_servers.serve(Server()) as running:
        yield running


@pytest.fixture
def published(monkeypatch) -> None:
    """A data set of one file."""
    local_servers.publish(monkeypatch, CONTENT)
    monkeypatch.setattr(downloads, "TIMEOUT", TIMEOUT)


def test_a_server_that_misbehaves_gives_the_published_bytes_or_nothing(attack, server, published, tmp_path):
    folder = tmp_path / "sample"
    folder.mkdir()
    target, ends = folder / "file.bin", set()
    for number in range(share(51)):
        server.chooser = chooser = random.Random(f"{seed()} download {number}")
        server.behaviours = [BEHAVIOURS[number % len(BEHAVIOURS)], *chooser.choices(BEHAVIOURS, k=2)]
        said = f"download {number} ({', '.join(server.behaviours)}), seed {seed()}"
        before = prepare(folder, target, chooser)
        attack.tries += 1
        began = time.monotonic()
        tracemalloc.start()
        try:
            downloads.fetch("sample", tmp_path, None, server.address)
            ends.add("fetched")
        except (DataError, StorageError) as error:
            ends.add("refused")
            if str(error).count("\n") != 2:
                attack.fail(f"{said}: more than three lines: {error}")
            if read(target) != before:
                attack.fail(f"{said}: the old file is gone")
        except Exception as error:
            attack.fail(f"{said}: {error!r}")
        else:
            if read(target) != CONTENT:
                attack.fail(f"{said}: other bytes were kept")
        peak, taken = tracemalloc.get_traced_memory()[1], time.monotonic() - began
        tracemalloc.stop()
        if peak > MOST_BYTES or taken > MOST_SECONDS:
            attack.fail(f"{said}: {peak:,} bytes, {taken:.1f} s")
        if beyond := {path.name for path in folder.iterdir()} - {"file.bin", ".file.bin.part"}:
            attack.fail(f"{said}: left {beyond}")
    assert ends == {"fetched", "refused"}


def prepare(folder: Path, target: Path, chooser: random.Random) -> bytes | None:
    """Leave what an earlier attempt may have left, and return what lies in the file's place."""
    for path in folder.iterdir():
        path.unlink()
    if chooser.random() < 0.3:
        target.write_bytes(b"what was there")
    if chooser.random() < 0.5:
        parts = (CONTENT[: chooser.randrange(len(CONTENT))], bytes(500), CONTENT + b"more")
        (folder / ".file.bin.part").write_bytes(chooser.choice(parts))
    return read(target)


def read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
