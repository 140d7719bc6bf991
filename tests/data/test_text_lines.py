"""The lines of text files: plain or gzipped, and what is refused."""

import gzip
import os

import pytest

from metarun.data import text_lines
from metarun.errors import DataError


def test_packed_text_is_read_as_plain_text_is(tmp_path):
    for name, content in (("plain.en", b"one\r\ntwo \n"), ("packed.en.gz", gzip.compress(b"one\r\ntwo \n"))):
        (tmp_path / name).write_bytes(content)
        assert text_lines.read_lines(tmp_path / name) == ["one", "two"]


def test_text_that_is_packed_beyond_reason_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, "HARMLESS", 1000)
    path = tmp_path / "text.en.gz"
    path.write_bytes(gzip.compress(b"a\n" * 500))
    assert len(text_lines.read_lines(path)) == 500
    path.write_bytes(gzip.compress(b"a\n" * 500_000))
    with pytest.raises(DataError, match="compressed beyond reason"):
        text_lines.read_lines(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "text.en")
    with pytest.raises(DataError, match="not a regular file"):
        text_lines.read_lines(tmp_path / "text.en")
