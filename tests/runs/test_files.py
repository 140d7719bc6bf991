"""Files that appear whole, or not at all."""

import os
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
