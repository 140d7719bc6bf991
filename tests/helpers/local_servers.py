"""Servers on this machine, and a data set of one file that they offer."""

import contextlib
import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest

from metarun.data import datasets
from metarun.data.sources import Source

NAME = "sample"  # the data set
FILE = "sample/file.bin"


class LocalServer(http.server.ThreadingHTTPServer):
    """A server with a port of its own, which only this machine reaches."""

    daemon_threads = True

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: the client may leave at any time."""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Offers the files of a folder."""

    def log_message(self, *message: object) -> None:
        """Say nothing."""


Server = TypeVar("Server", bound=LocalServer)


@contextlib.contextmanager
def serve(server: Server) -> Iterator[Server]:
    """Let a server answer until the `with` ends. No proxy stands before it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
            server.server_close()


def offer(folder: Path) -> LocalServer:
    """Make a server that offers the files of a folder."""
    return LocalServer(functools.partial(QuietHandler, directory=str(folder)))  # type: ignore[arg-type]


def publish(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Make a data set `sample` of one file with this content."""
    digest = hashlib.sha256(content).hexdigest()
    module = ModuleType(NAME)
    vars(module)["SOURCES"] = (Source(FILE, (), f"sha256:{digest}", digest, len(content)),)
    vars(module)["content_digest"] = lambda source, path, progress: hashlib.sha256(
        path.read_bytes()
    ).hexdigest()
    monkeypatch.setattr(datasets, "load_module", lambda name: module)
