"""ZIP archives that nobody vouches for, read straight into memory: nothing is written to disk.

Anything wrong with an archive is a DataError. What its headers claim is not believed: sizes are counted again on the
bytes that really come out.
"""

import contextlib
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from metarun.errors import DataError, StorageError

# What zipfile raises on bytes that are not a good archive. RuntimeError: encryption and unknown methods; IndexError: a
# member without a name, before Python 3.12; OverflowError: a place beyond what a file can have.
ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError),
    *(IndexError, OverflowError),
)
ENCRYPTED_FLAGS = 0x1 | 0x40  # general purpose flags 0 and 6 (PKWARE APPNOTE 4.4.4)
CENTRAL_HEADER = b"PK\x01\x02"  # the first bytes of every entry of the directory (APPNOTE 4.3.12)
# What Mac and Windows leave in archives that they pack. These members are passed over, and never decompressed.
STRAY_NAMES = re.compile(r"(.*/)?(__MACOSX(/.*)?|\._[^/]*|\.DS_Store|Thumbs\.db|desktop\.ini)")
CHUNK = 1 << 20  # bytes
SHOWN = 300  # letters of what zipfile says: it may quote a name of 64 KB
BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile decompresses others without a bound


class Limits(NamedTuple):
    """The limits of a good archive. An archive beyond one of them is refused."""

    members: int  # files and folders
    member_bytes: int  # of one member, decompressed
    total_bytes: int  # of all members, decompressed, and of the archive itself
    ratio: float = 100.0  # decompressed to compressed bytes of one member


class _Refused(Exception):
    """The reason why an archive is not read. Leaves this module as a DataError."""


def read_members(
    path: Path, expected: re.Pattern[str], limits: Limits, remedy: str
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of every file in sorted order of the names, holding one content at a time.

    All members are checked before the first is read: each must be a folder, or a regular file whose whole name matches
    `expected`. Files that Mac or Windows left among them are not read.

    Raises:
      DataError: the archive is missing, damaged or hostile; the third line is `remedy`.
      StorageError: the archive may not be read.
    """
    with _user_errors(path, remedy):
        size = _regular_file_size(path)
        if size > limits.total_bytes:
            raise _Refused(f"{size} bytes, more than the {limits.total_bytes} allowed")
        _check_directory(path, limits)
        with zipfile.ZipFile(path) as archive:
            total = 0
            for member in _select_files(archive.infolist(), expected, limits, size):
                content = _read_content(archive, member, limits)
                total += len(content)
                if total > limits.total_bytes:
                    raise _Refused(f"decompresses to more than the {limits.total_bytes} bytes allowed")
                yield member.filename, content


@contextlib.contextmanager
def _user_errors(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path.name} is missing", str(path), remedy) from error
    except PermissionError as error:
        remedy = "give this user access to it"
        raise StorageError(f"{path.name} may not be read", str(path), remedy) from error
    except _Refused as error:
        raise DataError(f"{path.name} is not a good archive: {error}", str(path), remedy) from error
    except ZIP_ERRORS as error:
        reason = f"{path.name} is truncated, damaged or not a ZIP archive ({error!s:.{SHOWN}})"
        raise DataError(reason, str(path), remedy) from error


def _regular_file_size(path: Path) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would never return
        raise _Refused("not a regular file")
    return status.st_size


def _check_directory(path: Path, limits: Limits) -> None:
    """Refuse a directory of too many entries before zipfile makes an object of 400 bytes from each 47 bytes."""
    entries, kept = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            entries += (kept + chunk).count(CENTRAL_HEADER)
            kept = chunk[1 - len(CENTRAL_HEADER) :]
    if entries > limits.members:
        raise _Refused(f"{entries} members, more than the {limits.members} allowed")


def _select_files(
    members: list[zipfile.ZipInfo], expected: re.Pattern[str], limits: Limits, archive_bytes: int
) -> list[zipfile.ZipInfo]:
    """Return the members that are files, sorted by name. Raises _Refused unless every member is harmless."""
    if len(members) > limits.members:
        raise _Refused(f"{len(members)} members, more than the {limits.members} allowed")
    if len({member.filename.rstrip("/") for member in members}) < len(members):
        raise _Refused("two members have the same name")
    if sum(member.compress_size for member in members) > archive_bytes:
        raise _Refused("members overlap")
    for member in members:
        if fault := _find_fault(member, expected, limits):
            raise _Refused(f"member {member.orig_filename!r} {fault}")
    files = (member for member in members if not (member.is_dir() or STRAY_NAMES.fullmatch(member.filename)))
    return sorted(files, key=lambda member: member.filename)


def _find_fault(member: zipfile.ZipInfo, expected: re.Pattern[str], limits: Limits) -> str | None:
    """Say what is wrong with a member according to its header; None if it may be read."""
    name = member.orig_filename  # as it stands in the file; zipfile cuts `filename` at a NUL
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 when the archive was made without Unix modes
    faults = {
        "has a backslash or a NUL in its name": "\\" in name or "\0" in name,
        "points outside its folder": bool({"", ".", ".."} & set(name.removesuffix("/").split("/"))),
        "is a link or a device": kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG),
        "is encrypted": bool(member.flag_bits & ENCRYPTED_FLAGS),
        "is compressed by a method other than deflate": member.compress_type not in BOUNDED_METHODS,
        "is not expected here": not (
            member.is_dir() or STRAY_NAMES.fullmatch(name) or expected.fullmatch(name)
        ),
        "is too large": member.file_size > limits.member_bytes,
        "is compressed beyond reason": member.file_size > limits.ratio * member.compress_size,
    }
    return next((fault for fault, holds in faults.items() if holds), None)


def _read_content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limits: Limits) -> bytes:
    """Return the bytes of one member, never more than the limits allow. zipfile checks the CRC at the end."""
    bound = min(limits.member_bytes, int(limits.ratio * member.compress_size))
    with archive.open(member) as stream:
        content = stream.read(bound + 1)
    if len(content) > bound:
        raise _Refused(f"member {member.filename!r} decompresses to more than {bound} bytes")
    if len(content) != member.file_size:
        raise _Refused(f"member {member.filename!r} ends before its stated size")
    return content
