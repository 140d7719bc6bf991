"""Reads idx files, plain or gzipped, straight into memory: a magic number, the sizes of the axes, the bytes.

The format of MNIST (LeCun, Cortes): two zero bytes, the type of the values, the number of axes, one big-endian
32-bit size an axis, then the values in row-major order. Only unsigned bytes are read here. Whatever is wrong
with a file is a DataError. Nothing that a header claims is believed: no more bytes are decompressed than its sizes
ask for, and those stay within a bound.
"""

import contextlib
import gzip
import io
import math
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from metarun.errors import DataError, StorageError

LARGEST = 1 << 30  # bytes decompressed: 17 times the training pictures of MNIST
RATIO = 100  # decompressed to compressed bytes; MNIST's is 5
_UNSUSPECTED = 1 << 24  # bytes that may be compressed as well as they can be
_GZIP = b"\x1f\x8b"  # RFC 1952, section 2.3.1
_UNSIGNED_BYTE = 8  # the type of the values, third byte of the magic number
_UNREADABLE = (gzip.BadGzipFile, zlib.error, EOFError, OSError)  # what gzip raises on bytes that are not good


class _Refused(Exception):
    """Why a file is not read. Leaves this module as a DataError."""


def read_sizes(path: Path, axes: int, remedy: str) -> tuple[int, ...]:
    """The sizes of the `axes` axes, from the header alone.

    Raises DataError, whose third line is `remedy`, when the file is missing, damaged, no idx file of unsigned bytes
    with as many axes, or larger than `LARGEST`; StorageError when it may not be read.
    """
    with _errors_for_the_user(path, remedy), _opened(path) as file:
        return _sizes(_header(file, axes))


def read_bytes(path: Path, axes: int, remedy: str) -> tuple[bytes, bytes]:
    """The decompressed file as (header, values), for its digest. Errors as those of `read_sizes`."""
    with _errors_for_the_user(path, remedy), _opened(path) as file:
        header = _header(file, axes)
        expected = math.prod(_sizes(header))
        if expected > max(_UNSUSPECTED, RATIO * (size := path.stat().st_size)):
            raise _Refused(f"its header states {expected} bytes, beyond reason for a file of {size}")
        values = file.read(expected + 1)  # one more: at the end of the stream gzip checks the CRC
    if len(values) != expected:
        fault = "ends before" if len(values) < expected else "goes on after"
        what = f"{path.name} is not a good idx file: it {fault} the {expected} bytes that its header states"
        raise DataError(what, str(path), remedy)
    return header, values


def to_array(header: bytes, values: bytes) -> np.ndarray:
    """What `read_bytes` gave as a read-only array, uint8 with an axis for each that the header states."""
    return np.frombuffer(values, np.uint8).reshape(_sizes(header))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """The file, decompressed where its first bytes are gzip's, whatever its name is."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise _Refused("not a regular file")
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield unpacked


def _header(file: io.BufferedIOBase, axes: int) -> bytes:
    header = file.read(4 + 4 * axes)
    magic = bytes((0, 0, _UNSIGNED_BYTE, axes))
    if header[:4] != magic:
        raise _Refused(
            f"it begins with {header[:4].hex() or 'nothing'}, not with the magic number {magic.hex()}"
        )
    if len(header) != 4 + 4 * axes:
        raise _Refused("it ends within its header")
    total = math.prod(_sizes(header))
    if not 0 < total <= LARGEST:
        raise _Refused(f"its header states {total} bytes, and 1 to {LARGEST} are allowed")
    return header


def _sizes(header: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(header) // 4 - 1}I", header[4:])


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
        raise DataError(f"{path.name} is not a good idx file: {error}", str(path), remedy) from error
    except _UNREADABLE as error:
        raise DataError(f"{path.name} is truncated or damaged ({error})", str(path), remedy) from error
