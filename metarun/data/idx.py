"""idx files, plain or gzipped, read straight into memory: a magic number, the sizes of the axes, the bytes.

The format of MNIST (LeCun, Cortes): two zero bytes, the type of the values, the number of axes, one big-endian
32-bit size for each axis, then the values in row-major order. Only unsigned bytes are read here. Anything wrong with a
file is a DataError. What a header claims is not believed: no more bytes are decompressed than its sizes need, and these
stay within a bound.
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
HARMLESS = 1 << 24  # bytes decompressed; up to this size the ratio is not checked
GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1
UNSIGNED_BYTE = 8  # the type of the values, third byte of the magic number
GZIP_ERRORS = (gzip.BadGzipFile, zlib.error, EOFError, OSError)  # what gzip raises on damaged bytes


class _Refused(Exception):
    """The reason why a file is not read. Leaves this module as a DataError."""


def read_sizes(path: Path, axes: int, remedy: str) -> tuple[int, ...]:
    """Return the sizes of the `axes` axes, from the header alone.

    Raises:
      DataError: the file is missing, damaged, no idx file of unsigned bytes with as many axes, or larger than
        `LARGEST`; the third line is `remedy`.
      StorageError: the file may not be read.
    """
    with _user_errors(path, remedy), _open(path) as file:
        return _unpack_sizes(_read_header(file, axes))


def read_bytes(path: Path, axes: int, remedy: str) -> tuple[bytes, bytes]:
    """Return the decompressed file as (header, values), for its digest. Raises as `read_sizes` does."""
    with _user_errors(path, remedy), _open(path) as file:
        header = _read_header(file, axes)
        expected = math.prod(_unpack_sizes(header))
        if expected > max(HARMLESS, RATIO * (size := path.stat().st_size)):
            raise _Refused(f"its header states {expected} bytes, beyond reason for a file of {size}")
        values = file.read(expected + 1)  # one more: at the end of the stream gzip checks the CRC
    if len(values) != expected:
        fault = "ends before" if len(values) < expected else "goes on after"
        what = f"{path.name} is not a good idx file: it {fault} the {expected} bytes that its header states"
        raise DataError(what, str(path), remedy)
    return header, values


def to_array(header: bytes, values: bytes) -> np.ndarray:
    """Return the bytes of `read_bytes` as a read-only array, uint8 with the axes that the header states."""
    return np.frombuffer(values, np.uint8).reshape(_unpack_sizes(header))


@contextlib.contextmanager
def _open(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file, and decompress it if its first bytes are those of gzip, whatever its name is."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would never return
        raise _Refused("not a regular file")
    with path.open("rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield unpacked


def _read_header(file: io.BufferedIOBase, axes: int) -> bytes:
    header = file.read(4 + 4 * axes)
    magic = bytes((0, 0, UNSIGNED_BYTE, axes))
    if header[:4] != magic:
        start = header[:4].hex() or "nothing"
        raise _Refused(f"it begins with {start}, not with the magic number {magic.hex()}")
    if len(header) != 4 + 4 * axes:
        raise _Refused("it ends within its header")
    total = math.prod(_unpack_sizes(header))
    if not 0 < total <= LARGEST:
        raise _Refused(f"its header states {total} bytes, and 1 to {LARGEST} are allowed")
    return header


def _unpack_sizes(header: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(header) // 4 - 1}I", header[4:])


@contextlib.contextmanager
def _user_errors(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path.name} is missing", str(path), remedy) from error
    except PermissionError as error:
        access = "give this user access to it"
        raise StorageError(f"{path.name} may not be read", str(path), access) from error
    except _Refused as error:
        raise DataError(f"{path.name} is not a good idx file: {error}", str(path), remedy) from error
    except GZIP_ERRORS as error:
        raise DataError(f"{path.name} is truncated or damaged ({error})", str(path), remedy) from error
