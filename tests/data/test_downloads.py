"""A download that was interrupted goes on where it ended, and nothing but the published bytes takes its place."""

import http.server
import random

import pytest

from helpers import local_servers
from metarun import errors
from metarun.data import downloads

CONTENT = random.Random(0).randbytes(300_000)


class Server(local_servers.LocalServer):
    """Offers one file, and does to it what the test asks for."""

    def __init__(self):
        super().__init__(Handler)
        self.content, self.cut, self.ranges, self.shift = CONTENT, None, True, 0
        self.packed = False  # whether it calls the content gzipped
        self.asked = []  # the Range header of each request, or None


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        start = (
            int(asked.removeprefix("bytes=").removesuffix("-")) + server.shift
            if asked and server.ranges
            else 0
        )
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        if server.packed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start : server.cut])

    def log_message(self, *message):
        pass


@pytest.fixture
def server():
    with local_servers.serve(Server()) as running:
        yield running


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    """Fetches the one file of a data set into tmp_path, and returns what is below it then."""
    local_servers.publish(monkeypatch, CONTENT)
    monkeypatch.setattr(downloads, "CHUNK", 1000)  # what has arrived is kept in these pieces

    def run(progress=None):
        downloads.fetch("sample", tmp_path, progress, server.address)
        assert sorted(path.name for path in (tmp_path / "sample").iterdir()) == ["file.bin"]
        assert (tmp_path / "sample" / "file.bin").read_bytes() == CONTENT

    return run


def interrupt(server, fetch, after):
    """A download of which only the first bytes arrive."""
    server.cut = after
    with pytest.raises(errors.DataError, match=r"cannot download sample/file\.bin") as caught:
        fetch()
    assert caught.value.exit_code == 4
    server.cut = None


def test_an_interrupted_download_goes_on_where_it_ended(server, fetch, tmp_path):
    interrupt(server, fetch, 100_000)
    partial = tmp_path / "sample" / ".file.bin.part"
    assert partial.read_bytes() == CONTENT[:100_000]
    assert partial.stat().st_mode & 0o077 == 0
    reports = []
    fetch(lambda *report: reports.append(report))
    assert server.asked == [None, "bytes=100000-"]
    done = [done for done, _, description in reports if description.startswith("fetching")]
    assert (done[0], done[-1]) == (101_000, len(CONTENT))


def test_it_can_be_interrupted_again_and_again(server, fetch):
    for after in (1000, 70_000, 71_000, 299_000):
        interrupt(server, fetch, after)
    fetch()
    assert server.asked == [None, "bytes=1000-", "bytes=70000-", "bytes=71000-", "bytes=299000-"]


def test_a_server_without_ranges_sends_the_whole_file_again(server, fetch):
    interrupt(server, fetch, 100_000)
    server.ranges = False
    fetch()


def test_a_server_that_sends_another_range_than_asked_for_is_not_believed(server, fetch):
    interrupt(server, fetch, 100_000)
    server.shift = 1000
    fetch()
    assert server.asked == [None, "bytes=100000-", None]


def test_what_the_server_calls_packed_is_taken_as_it_is_sent(server, fetch):
    server.packed = True
    fetch()


def test_what_began_wrongly_is_fetched_once_more_from_the_start(server, fetch, tmp_path):
    interrupt(server, fetch, 100_000)
    (tmp_path / "sample" / ".file.bin.part").write_bytes(bytes(100_000))
    fetch()
    assert server.asked == [None, "bytes=100000-", None]


def test_what_is_longer_than_the_file_on_the_server_is_fetched_from_the_start(server, fetch, tmp_path):
    interrupt(server, fetch, 100_000)
    (tmp_path / "sample" / ".file.bin.part").write_bytes(CONTENT + b"more")
    fetch()
    assert server.asked[1:] == [f"bytes={len(CONTENT) + 4}-", None]


def test_other_bytes_are_fetched_once_and_leave_nothing(server, fetch, tmp_path):
    server.content = CONTENT[::-1]
    with pytest.raises(errors.DataError, match="cannot download"):
        fetch()
    assert server.asked == [None]
    assert list((tmp_path / "sample").iterdir()) == []


def test_a_link_in_the_place_of_the_partial_file_is_not_written_through(server, fetch, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / ".file.bin.part").symlink_to(victim)
    with pytest.raises(errors.StorageError):
        fetch()
    assert victim.read_text() == "precious"


def test_of_two_processes_the_second_is_told_to_wait(server, fetch, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "sample").mkdir()
    with (tmp_path / "sample" / ".file.bin.part").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(errors.DataError, match="another process is fetching"):
            fetch()
    fetch()
