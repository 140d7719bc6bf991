"""Files that appear whole, or not at all."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from metarun import errors
from metarun.runs import files


def test_a_pipe_gets_the_content_and_stays_a_pipe(tmp_path):
    """As root, a device such as /dev/null would else be lost to all programs of the machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    files.write_output(pipe, b"content")
    reader.join(timeout=10)
    assert received == [b"content"] and pipe.is_fifo()


WRITES = """
import pathlib, sys
from metarun.runs import files
print("printed")
for place in sys.argv[1:]:
    files.write_output(pathlib.Path(place), f"{place}\\n".encode())
print("ended")
"""


@pytest.mark.parametrize("redirected", [False, True])
def test_the_output_gets_the_content_in_its_order_and_its_links_stay(tmp_path, redirected):
    """Where it is redirected to a file these are links to that file, and as root they could be replaced."""
    link, file = tmp_path / "link", tmp_path / "redirected"
    link.symlink_to("/dev/stdout")
    places = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", str(link)]
    call = [sys.executable, "-c", WRITES, *places]
    linked = Path("/dev/stdout").readlink()
    if redirected:
        file.write_text("before\n")
        with file.open("a") as output:
            subprocess.run(call, stdout=output, check=True)
        assert file.read_text().split() == ["before", "printed", *places, "ended"]
    else:
        assert subprocess.check_output(call, text=True).split() == ["printed", *places, "ended"]
    assert Path("/dev/stdout").readlink() == linked and link.readlink() == Path("/dev/stdout")
    assert not list(Path("/dev").glob(f"{files.TEMPORARY}*"))


def test_an_open_file_that_can_only_be_read_is_refused(tmp_path):
    (tmp_path / "input").write_text("old")
    with (tmp_path / "input").open() as stream, pytest.raises(errors.StorageError, match="permission denied"):
        files.write_output(Path(f"/dev/fd/{stream.fileno()}"), b"content")
    assert (tmp_path / "input").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "words", "place"),
    [
        ("none/file", "there is no such folder", "none"),
        ("folder", "a folder is there", "folder"),
        (".", "a folder is there", "."),
        ("whole/file", "a file is on the way", "whole"),
    ],
)
def test_a_place_where_no_file_can_be_is_named_as_it_was_given(tmp_path, monkeypatch, name, words, place):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("whole").write_text("old")
    with pytest.raises(errors.StorageError, match=words) as refusal:
        files.write_bytes(Path(name), b"content")
    assert refusal.value.where.startswith(place)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "whole"]
