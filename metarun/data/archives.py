"""Reads ZIP archives that nobody vouches for, straight into memory: nothing is written to disk.

Whatever is wrong with an archive is a DataError. Nothing that its headers claim is believed: sizes are
counted again on the bytes that really come out.
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

# What zipfile raises on bytes that are not a good archive. RuntimeError: encryption and unknown methods.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)
_ENCRYPTED = 0x1 | 0x40  # general purpose flags 0 and 6 (PKWARE APPNOTE 4.4.4)
_CENTRAL_HEADER = b"PK\x01\x02"  # begins every entry of the directory (APPNOTE 4.3.12)
# What a Mac or Windows leaves in archives that it packs: passed over, and never decompressed.
_STRAY = re.compile(r"(.*/)?(__MACOSX(/.*)?|\._[^/]*|\.DS_Store|Thumbs\.db|desktop\.ini)")
_CHUNK = 1 << 20  # bytes
_BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile decompresses others without a bound


class Limits(NamedTuple):
    """What a good archive stays within; one that does not is refused."""

    members: int  # folders included
    member_bytes: int  # of one member, decompressed
    total_bytes: int  # of all members, decompressed; also of the archive itself
    ratio: float = 100.0  # decompressed to compressed bytes of one member


class _Refused(Exception):
    """Why an archive is not read. Leaves this module as a DataError."""


def read_members(
    path: Path, expected: re.Pattern[str], limits: Limits, remedy: str
) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of every file in sorted order of the names, holding one content at a time.

    All members are checked before the first is read: each is a folder or a regular file whose whole name
    matches `expected`. Strays of a Mac or of Windows may lie among them, and are not read. Raises DataError, whose
    third line is `remedy`, when the archive is missing, damaged or hostile, and StorageError when it may not be
    read.
    """
    with _errors_for_the_user(path, remedy):
        size = _regular_file_size(path)
        if size > limits.total_bytes:
            raise _Refused(f"{size} bytes, more than the {limits.total_bytes} allowed")
        _check_directory(path, limits)
        with zipfile.ZipFile(path) as archive:
            total = 0
            for member in _checked_files(archive.infolist(), expected, limits, size):
                content = _content(archive, member, limits)
                total += len(content)
                if total > limits.total_bytes:
                    raise _Refused(f"decompresses to more than the {limits.total_bytes} bytes allowed")
                yield member.filename, content


@contextlib.contextmanager
def _errors_for_the_user(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path.name} is missing", str(path), remedy) from error
    except PermissionError as error:
        raise StorageError(
            f"{path.name} may not be read", str(path), "give this user access to it"
        ) from error
    except _Refused as error:
        raise DataError(f"{path.name} is not a good archive: {error}", str(path), remedy) from error
    except _UNREADABLE as error:
        reason = f"{path.name} is truncated, damaged or not a ZIP archive ({error})"
        raise DataError(reason, str(path), remedy) from error


def _regular_file_size(path: Path) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise _Refused("not a regular file")
    return status.st_size


def _check_directory(path: Path, limits: Limits) -> None:
    """Refuse a directory of too many entries before zipfile makes an object of each: 400 bytes for 47."""
    entries, kept = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            entries += (kept + chunk).count(_CENTRAL_HEADER)
            kept = chunk[1 - len(_CENTRAL_HEADER) :]
    if entries > limits.members:
        raise _Refused(f"{entries} members, more than the {limits.members} allowed")


def _checked_files(
    members: list[zipfile.ZipInfo], expected: re.Pattern[str], limits: Limits, archive_bytes: int
) -> list[zipfile.ZipInfo]:
    """The members that are files, sorted by name; raises _Refused unless every member is harmless."""
    if len(members) > limits.members:
        raise _Refused(f"{len(members)} members, more than the {limits.members} allowed")
    if len({member.filename.rstrip("/") for member in members}) < len(members):
        raise _Refused("two members have the same name")
    if sum(member.compress_size for member in members) > archive_bytes:
        raise _Refused("members overlap")
    for member in members:
        if fault := _fault(member, expected, limits):
            raise _Refused(f"member {member.orig_filename!r} {fault}")
    files = (member for member in members if not (member.is_dir() or _STRAY.fullmatch(member.filename)))
    return sorted(files, key=lambda member: member.filename)


def _fault(member: zipfile.ZipInfo, expected: re.Pattern[str], limits: Limits) -> str | None:
    """What is wrong with a member by its header; None when it may be read."""
    name = member.orig_filename  # as it is in the file: zipfile cuts `filename` at a NUL
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 when the archive was made without Unix modes
    faults = {
        "has a backslash or a NUL in its name": "\\" in name or "\0" in name,
        "points outside its folder": bool({"", ".", ".."} & set(name.removesuffix("/").split("/"))),
        "is a link or a device": kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG),
        "is encrypted": bool(member.flag_bits & _ENCRYPTED),
        "is compressed by a method other than deflate": member.compress_type not in _BOUNDED_METHODS,
        "is not expected here": not (member.is_dir() or _STRAY.fullmatch(name) or expected.fullmatch(name)),
        "is too large": member.file_size > limits.member_bytes,
        "is compressed beyond reason": member.file_size > limits.ratio * member.compress_size,
    }
    return next((fault for fault, found in faults.items() if found), None)


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limits: Limits) -> bytes:
    """The bytes of one member, never more than the limits allow; zipfile checks the CRC at its end."""
    bound = min(limits.member_bytes, int(limits.ratio * member.compress_size))
    with archive.open(member) as stream:
        content = stream.read(bound + 1)
    if len(content) > bound:
        raise _Refused(f"member {member.filename!r} decompresses to more than {bound} bytes")
    if len(content) != member.file_size:
        raise _Refused(f"member {member.filename!r} ends before its stated size")
    return content
