"""Reading files of strangers: regular files of a bounded size alone, and never a wait."""

import os

import pytest

from metarun.runs import regular_files
from metarun.runs.regular_files import UnreadableError


def make_sparse(path, size=40 * 10**9):
    with path.open("wb") as file:
        file.truncate(size)


STRANGE = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "40,000,000,000 bytes": make_sparse,
    "lead back to themselves": lambda path: path.symlink_to(path.name),
    "not UTF-8": lambda path: path.write_bytes(b'{"a": "\xff"}'),
    "nested too deeply": lambda path: path.write_text('{"a":' * 100_000),
    "no JSON:": lambda path: path.write_text('{"a": 1'),
    "no JSON object": lambda path: path.write_text("[1]"),
}


@pytest.mark.parametrize("said", STRANGE)
def test_a_strange_file_is_refused_at_once_and_said(tmp_path, said):
    path = tmp_path / "file.json"
    STRANGE[said](path)
    with pytest.raises(UnreadableError, match=said):
        regular_files.read_object(path)


def test_a_missing_file_and_one_that_may_not_be_read_are_left_to_the_caller(tmp_path):
    (tmp_path / "nowhere").symlink_to("missing")
    for name in ("missing", "nowhere"):
        with pytest.raises(FileNotFoundError):
            regular_files.read_object(tmp_path / name)


def test_a_file_that_becomes_a_pipe_after_the_first_look_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    regular = (tmp_path / "file").stat()
    monkeypatch.setattr(type(tmp_path), "stat", lambda path: regular)
    with pytest.raises(UnreadableError, match="a pipe"):
        regular_files.read_object(tmp_path / "pipe")


def test_a_linked_file_is_read_like_any_other(tmp_path):
    (tmp_path / "there.json").write_text('{"a": "ü"}')
    (tmp_path / "here.json").symlink_to("there.json")
    assert regular_files.read_object(tmp_path / "here.json") == {"a": "ü"}


def test_a_file_is_read_up_to_its_bound_and_not_beyond(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert regular_files.read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(UnreadableError, match="5 bytes, and 4 are the most"):
        regular_files.read_bytes(tmp_path / "file", 4)


def test_lines_are_read_one_by_one_and_a_line_without_end_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(regular_files, "MOST_LINE", 10)
    path = tmp_path / "lines"
    path.write_bytes(b"one\n\ntwo")
    with regular_files.open_file(path) as file:
        assert list(regular_files.read_lines(file)) == [b"one\n", b"\n", b"two"]
    make_sparse(path)
    with regular_files.open_file(path) as file, pytest.raises(UnreadableError, match="a line has more"):
        list(regular_files.read_lines(file))


@pytest.mark.parametrize(("read", "most"), [("read_text", 1_048_576), ("read_object", 67_108_864)])
def test_texts_have_a_mebibyte_at_most_and_results_sixty_four(tmp_path, read, most):
    make_sparse(tmp_path / "file", most + 1)
    with pytest.raises(UnreadableError, match=f"it has {most + 1:,} bytes, and {most:,} are the most"):
        getattr(regular_files, read)(tmp_path / "file")


def test_a_text_of_a_mebibyte_is_read(tmp_path):
    make_sparse(tmp_path / "file", 1_048_576)
    assert len(regular_files.read_text(tmp_path / "file")) == 1_048_576


def test_a_line_has_sixteen_mebibytes_at_most(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"a" * 16_777_215 + b"\n" + b"b" * 16_777_217)
    with regular_files.open_file(path) as file:
        lines = regular_files.read_lines(file)
        assert len(next(lines)) == 16_777_216
        with pytest.raises(UnreadableError, match="a line has more than 16,777,216 bytes"):
            next(lines)
