"""What the helpers of files do to the disk, operation by operation."""

import errno
import os
import stat
from pathlib import Path

import pytest

from metarun import errors
from metarun.runs import files


@pytest.fixture
def synced(monkeypatch) -> list[int]:
    """The inodes of what has reached the disk, in order."""
    inodes: list[int] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        inodes.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return inodes


def test_a_file_reaches_the_disk_before_its_name_does(tmp_path, synced):
    path = tmp_path / "file"
    files.write_bytes(path, b"content")
    assert synced == [path.stat().st_ino, tmp_path.stat().st_ino]
    assert path.read_bytes() == b"content" and [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files by /proc")
def test_no_file_stays_open(tmp_path):
    before = os.listdir("/proc/self/fd")  # noqa: PTH208, whose iterator would be one more
    files.write_bytes(tmp_path / "file", b"content")
    files.sync(tmp_path)
    (tmp_path / "second").hardlink_to(tmp_path / "file")
    with pytest.raises(errors.StorageError, match="several names"):
        files.open_to_append(tmp_path / "file")
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_nobody_may_run_a_file_and_everybody_reads_it_whom_the_user_lets(tmp_path):
    before = os.umask(0o022)
    try:
        files.write_bytes(tmp_path / "replaced", b"")
        files.open_to_append(tmp_path / "appended").close()
    finally:
        os.umask(before)
    for name in ("replaced", "appended"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644


def test_a_temporary_file_has_a_name_that_cleaning_knows_and_another_each_time(tmp_path):
    names = {files.temporary_beside(tmp_path / "file").name for _ in range(50)}
    assert len(names) == 50
    assert all(
        name.startswith(".temporary-file-") and len(name) == len(".temporary-file-") + 8 for name in names
    )


def test_a_temporary_name_that_is_taken_is_not_written_over(tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.write_text("old")
    monkeypatch.setattr(files, "temporary_beside", lambda path: taken)
    with pytest.raises(errors.StorageError):
        files.write_bytes(tmp_path / "file", b"content")
    assert not (tmp_path / "file").exists()


def test_what_is_appended_is_in_the_file_at_once(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one\n")
    with files.open_to_append(path) as stream:
        stream.write(b"two\n")
        assert path.read_bytes() == b"one\ntwo\n"
        path.write_bytes(b"")
        stream.write(b"three\n")
    assert path.read_bytes() == b"three\n"  # at the end of the file, wherever that is by then


def test_a_write_that_takes_a_part_goes_on_with_the_rest_and_none_is_a_full_disk(tmp_path, monkeypatch):
    write = os.write
    path = tmp_path / "file"
    monkeypatch.setattr(os, "write", lambda descriptor, rest: write(descriptor, bytes(rest)[:3]))
    files.write_bytes(path, b"0123456789")
    assert path.read_bytes() == b"0123456789"
    monkeypatch.setattr(os, "write", lambda descriptor, rest: 0)
    with pytest.raises(errors.StorageError, match="the disk is full"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"0123456789" and len(list(tmp_path.iterdir())) == 1


def test_errors_of_the_disk_are_explained_and_others_pass(tmp_path):
    explained = files.explain(OSError(errno.ENOSPC, "x"), tmp_path)
    assert explained is not None and (explained.what, explained.where) == ("the disk is full", str(tmp_path))
    named = files.explain(OSError(errno.EACCES, "x", "some/file"), tmp_path)
    assert named is not None and named.where == "some/file"
    assert files.explain(OSError(errno.EINVAL, "x"), tmp_path) is None
    with pytest.raises(OSError, match="x"), files.storage_errors(tmp_path):
        raise OSError(errno.EINVAL, "x")
    with pytest.raises(ZeroDivisionError), files.storage_errors(tmp_path):
        raise ZeroDivisionError


def test_folders_of_ours_are_made_below_the_root_and_may_be_there(tmp_path):
    files.make_folder(tmp_path / "a" / "b", tmp_path)
    files.make_folder(tmp_path / "a" / "b", tmp_path)
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(errors.StorageError, match="a link is there"):
        files.make_folder(tmp_path / "link" / "c", tmp_path)
    assert not (tmp_path / "a" / "c").exists()


def test_folders_and_links_are_listed_and_files_are_not(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert sorted(files.list_folders(tmp_path)) == ["folder", "link"]
    assert files.list_folders(tmp_path / "none") == files.list_folders(tmp_path / "file") == []


def test_what_is_removed_is_gone_and_nothing_else(tmp_path):
    kept = tmp_path / "kept"
    (kept / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    for name in ("link", "file", "folder", "none"):
        files.remove(tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"] and (kept / "inner").is_dir()


def test_what_the_disk_does_not_remove_is_an_error_or_left_for_later(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.touch()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(errors.StorageError, match="read-only"):
        files.remove(path)
    files.discard(path)
    assert path.exists()


def test_text_is_written_in_utf_8_and_tables_with_line_feeds(tmp_path):
    files.write_text(tmp_path / "text", "é\n")
    files.write_csv(tmp_path / "table", [["a", 1], ["b,c", None]])
    files.write_json(tmp_path / "values", {"a": [1.5, None]})
    assert (tmp_path / "text").read_bytes() == b"\xc3\xa9\n"
    assert (tmp_path / "table").read_bytes() == b'a,1\n"b,c",\n'
    assert (tmp_path / "values").read_text().startswith('{\n  "a": [')


@pytest.mark.parametrize("name", ["a", "9", "a-b.c_d", "é"])
def test_a_name_stays_in_its_folder(tmp_path, name):
    assert files.child(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", ".a", "a/b", "a b", "a\n", "../a"])
def test_a_name_that_could_leave_its_folder_is_refused(tmp_path, name):
    with pytest.raises(errors.ConfigError, match="cannot name a file"):
        files.child(tmp_path, name)


def test_what_is_wrong_in_a_folder_of_ours_is_named_by_its_kind(tmp_path):
    (tmp_path / "file").mkdir()
    (tmp_path / "folder").touch()
    (tmp_path / "good").touch()
    (tmp_path / "stage").mkdir()
    files.refuse_links(tmp_path, ["good", "none"], ["stage", "nothing"])
    for names, folders, kind in ((["good", "file"], [], "file"), ([], ["stage", "folder"], "folder")):
        with pytest.raises(errors.RunDirectoryError, match=f"a regular {kind} is needed") as refused:
            files.refuse_links(tmp_path, names, folders)
        assert refused.value.where == str(tmp_path / kind)
    (tmp_path / "link").symlink_to("good")
    with pytest.raises(errors.RunDirectoryError, match="this is a link"):
        files.refuse_links(tmp_path, ["link"], [])
