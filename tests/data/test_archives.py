"""An archive is read whole and in order, or refused with a DataError: whatever is in it."""

import os
import random
import re
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from metarun.data import archives
from metarun.errors import DataError

EXPECTED = re.compile(r"folder/\w+\.txt")
LIMITS = archives.Limits(members=10, member_bytes=1000, total_bytes=4000)
GOOD = {"folder/b.txt": b"second", "folder/a.txt": b"first", "folder/c.txt": bytes(range(256)) * 2}


def pack(path, members, compression=zipfile.ZIP_DEFLATED):
    """Writes (name or ZipInfo, content) pairs, two of the same name included, as a ZIP archive."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content, compression)
    return path


def read(path):
    return list(archives.read_members(path, EXPECTED, LIMITS, "fetch it again"))


def with_mode(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def patch(path, signature, offset, layout, *values):
    """Overwrites fields of every header that starts with `signature`."""
    content = bytearray(path.read_bytes())
    for match in re.finditer(re.escape(signature), bytes(content)):
        struct.pack_into(layout, content, match.start() + offset, *values)
    path.write_bytes(content)


CENTRAL, LOCAL = b"PK\x01\x02", b"PK\x03\x04"


def test_members_come_whole_and_in_sorted_order(tmp_path):
    path = pack(tmp_path / "good.zip", [("folder/", b""), *GOOD.items()])
    assert read(path) == sorted(GOOD.items())


def test_regular_files_with_unix_modes_are_read(tmp_path):
    path = pack(tmp_path / "good.zip", [(with_mode("folder/a.txt", stat.S_IFREG | 0o600), b"first")])
    assert read(path) == [("folder/a.txt", b"first")]


def test_a_member_without_a_name_is_refused(tmp_path):
    path = pack(tmp_path / "nameless.zip", [("folder/a.txt", b"first")])
    patch(path, CENTRAL, 28, "<3H", 0, 0, len("folder/a.txt"))  # the name is taken for a comment
    with pytest.raises(DataError):
        read(path)


HOSTILE_NAMES = {
    "parent": ("../a.txt", "outside"),
    "parent below": ("folder/../../a.txt", "outside"),
    "parent folder": ("folder/../", "outside"),
    "here": ("./folder/a.txt", "outside"),
    "absolute": ("/folder/a.txt", "outside"),
    "double slash": ("folder//a.txt", "outside"),
    "drive": ("C:/a.txt", "not expected"),
    "backslash": ("folder\\a.txt", "backslash"),
    "other name": ("folder/a.exe", "not expected"),
    "name with more after it": ("folder/a.txt.exe", "not expected"),
    "symbolic link": (with_mode("folder/a.txt", stat.S_IFLNK | 0o777), "link or a device"),
    "device": (with_mode("folder/a.txt", stat.S_IFCHR | 0o600), "link or a device"),
    "pipe": (with_mode("folder/a.txt", stat.S_IFIFO | 0o600), "link or a device"),
    "file that says it is a folder": (with_mode("folder/a.txt", stat.S_IFDIR | 0o700), "link or a device"),
    "folder that is a link": (with_mode("folder/a/", stat.S_IFLNK | 0o777), "link or a device"),
}


@pytest.mark.parametrize("case", HOSTILE_NAMES)
def test_a_member_that_is_no_expected_regular_file_is_refused_before_any_is_read(tmp_path, case):
    member, reason = HOSTILE_NAMES[case]
    path = pack(tmp_path / "hostile.zip", [("folder/0.txt", b"harmless"), (member, b"hostile")])
    members = archives.read_members(path, EXPECTED, LIMITS, "fetch it again")
    with pytest.raises(DataError, match=reason):
        next(members)


def test_a_nul_in_a_name_does_not_hide_the_rest_of_it(tmp_path):
    path = pack(tmp_path / "hostile.zip", [("folder/a.txtX.exe", b"hostile")])
    path.write_bytes(path.read_bytes().replace(b"txtX.exe", b"txt\0.exe"))
    with pytest.raises(DataError, match="NUL"):
        read(path)


HOSTILE_CONTENTS = {
    "too many members": ([(f"folder/{number}.txt", b"") for number in range(11)], "11 members"),
    "too large a member": ([("folder/a.txt", random.Random(0).randbytes(1001))], "too large"),
    "bomb": ([("folder/a.txt", bytes(1_000_000))], "too large"),
    "too large in all": (
        [(f"folder/{number}.txt", b"0123456789" * 90) for number in range(5)],
        "decompresses to more than the 4000 bytes",
    ),
}


@pytest.mark.parametrize("case", HOSTILE_CONTENTS)
def test_an_archive_beyond_its_limits_is_refused(tmp_path, case):
    members, reason = HOSTILE_CONTENTS[case]
    with pytest.raises(DataError, match=reason):
        read(pack(tmp_path / "hostile.zip", members))


def test_an_archive_file_larger_than_all_it_may_hold_is_refused_unopened(tmp_path):
    path = tmp_path / "large.zip"
    path.write_bytes(bytes(4001))
    with pytest.raises(DataError, match="4001 bytes"):
        read(path)


def test_a_member_compressed_beyond_reason_is_refused(tmp_path):
    path = pack(tmp_path / "bomb.zip", [("folder/a.txt", bytes(1_000_000))])
    generous = archives.Limits(members=10, member_bytes=2_000_000, total_bytes=4_000_000)
    with pytest.raises(DataError, match="beyond reason"):
        list(archives.read_members(path, EXPECTED, generous, "fetch it again"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path):
    path = pack(tmp_path / "twice.zip", [("folder/a.txt", b"first"), ("folder/a.txt", b"second")])
    with pytest.raises(DataError, match="same name"):
        read(path)


@pytest.mark.parametrize("flag", [0x1, 0x40])
def test_encrypted_members_are_refused(tmp_path, flag):
    path = pack(tmp_path / "encrypted.zip", GOOD.items())
    patch(path, LOCAL, 6, "<H", flag)
    patch(path, CENTRAL, 8, "<H", flag)
    with pytest.raises(DataError, match="encrypted"):
        read(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_decompress_without_a_bound_are_refused(tmp_path, method):
    with pytest.raises(DataError, match="other than deflate"):
        read(pack(tmp_path / "bomb.zip", [("folder/a.txt", bytes(500))], method))


LIES = {
    "less than the size": (24, 100),
    "more than the size": (24, 900),
    "less compressed": (20, 5),
    "more compressed than the archive": (20, 100_000),
    "another CRC": (16, 12345),
    "another place": (42, 7),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_found_out(tmp_path, lie):
    offset, value = LIES[lie]
    path = pack(tmp_path / "lies.zip", [("folder/a.txt", random.Random(0).randbytes(300) * 2)])
    patch(path, CENTRAL, offset, "<I", value)
    with pytest.raises(DataError):
        read(path)


def test_a_bomb_behind_a_small_stated_size_stays_small(tmp_path):
    """The header says 100 bytes, the stream holds a million: what comes out is cut, and its CRC is wrong."""
    path = pack(tmp_path / "bomb.zip", [("folder/a.txt", bytes(1_000_000))])
    patch(path, CENTRAL, 24, "<I", 100)
    with pytest.raises(DataError, match="CRC"):
        read(path)


@pytest.mark.parametrize("kept", [0, 1, 30, 100, -100, -22, -1])
def test_a_truncated_archive_is_refused(tmp_path, kept):
    path = pack(tmp_path / "good.zip", GOOD.items())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="truncated"):
        read(path)


def test_any_damaged_byte_gives_the_same_content_or_a_data_error(tmp_path):
    path = pack(tmp_path / "good.zip", GOOD.items())
    good, chooser = path.read_bytes(), random.Random(0)
    for _ in range(500):
        damaged = bytearray(good)
        for _ in range(chooser.randint(1, 4)):
            damaged[chooser.randrange(len(good))] = chooser.randrange(256)
        path.write_bytes(damaged)
        try:
            content = dict(read(path))
        except DataError:
            continue
        assert set(content.values()) <= set(GOOD.values())


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, lambda path: path.write_text("hello")])
def test_what_is_no_archive_says_what_where_and_what_to_do(tmp_path, make):
    path = tmp_path / "wrong.zip"
    make(path)
    with pytest.raises(DataError) as caught:
        read(path)
    assert "wrong.zip" in caught.value.what
    assert (caught.value.where, caught.value.remedy, caught.value.exit_code) == (
        str(path),
        "fetch it again",
        4,
    )


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    path = tmp_path / "pipe.zip"
    os.mkfifo(path)
    with pytest.raises(DataError, match="regular file"):
        read(path)
