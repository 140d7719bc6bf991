"""task.json, what a run keeps of its data: written once, read back, and refused where it is damaged."""

import os

import pytest

from metarun.errors import CheckpointError
from metarun.runs import task_file

KEPT = {"fingerprint": {"sha256": "ab"}, "names": ["ä", "b"], "number": 3, "nothing": None}


def test_what_is_written_is_read_and_nothing_is_no_file(tmp_path):
    task_file.write(tmp_path, None)
    assert task_file.read(tmp_path) is None and not list(tmp_path.iterdir())
    task_file.write(tmp_path, KEPT)
    assert task_file.read(tmp_path) == KEPT
    before = (tmp_path / task_file.FILE).stat().st_mtime_ns
    task_file.write(tmp_path, KEPT)  # the same is not written again
    assert (tmp_path / task_file.FILE).stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000, b"null"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / task_file.FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"task\.json is damaged"):
        task_file.read(tmp_path)


def test_what_is_no_bounded_file_is_refused(tmp_path):
    file = tmp_path / task_file.FILE
    os.mkfifo(file)
    with pytest.raises(CheckpointError, match=r"task\.json is damaged"):
        task_file.read(tmp_path)
    file.unlink()
    file.touch()
    os.truncate(file, task_file.MOST_BYTES + 1)
    with pytest.raises(CheckpointError, match=r"task\.json is damaged"):
        task_file.read(tmp_path)
