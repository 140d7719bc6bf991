"""The lines of a text file that nobody vouches for, plain or gzipped, within a bound of bytes."""

import gzip
import unicodedata
import zlib
from pathlib import Path

from metarun.errors import DataError

MOST_BYTES = 1 << 28  # of one file, as it is after decompression
RATIO = 100  # decompressed to compressed bytes; that of natural text is below 10
HARMLESS = 1 << 24  # bytes decompressed; up to this size the ratio is not checked
GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file, in one normal form (NFC), without spaces around them.

    Only line feeds end a line. The other line breaks of Unicode would shift one language against the other.

    Raises:
      DataError: the file cannot be read, is too large, empty, or no text in UTF-8.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"line {line} is not UTF-8", str(path), "save the text as UTF-8") from error
    if not text.strip():
        raise DataError("the file is empty", str(path), "write one sentence a line, or take it out")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(
            f"line {line} holds a zero byte, as no text does", str(path), "save the text as UTF-8"
        )
    return [unicodedata.normalize("NFC", line).strip() for line in text.removesuffix("\n").split("\n")]


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file, decompressed if its first bytes are those of gzip.

    Raises:
      DataError: it cannot be read, is damaged, or holds more than `MOST_BYTES`.
    """
    try:
        if not path.is_file():  # opening a pipe would never return
            raise DataError("this is not a regular file", str(path), "write the text into a file")
        with path.open("rb") as file:
            packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if packed else file
            size = path.stat().st_size
            # A read takes memory for as much as it is asked for, whether or not it is there.
            bound = min(MOST_BYTES, max(HARMLESS, RATIO * size) if packed else size)
            content = stream.read(bound + 1) if size <= MOST_BYTES else b""
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        what = f"the file is truncated or damaged ({error})"
        raise DataError(what, str(path), "compress the text again") from error
    except OSError as error:
        what = f"the file cannot be read: {error.strerror or error}"
        raise DataError(what, str(path), "allow to read it") from error
    if max(size, len(content)) > MOST_BYTES:
        raise DataError(f"the file has more than {MOST_BYTES:,} bytes", str(path), "split it")
    if len(content) > bound:
        fault = (
            f"is compressed beyond reason, to more than {bound:,} bytes"
            if packed
            else "grows while it is read"
        )
        raise DataError(f"the file {fault}", str(path), "give a text that is complete and not packed")
    return content


def strip_gzip(name: str) -> str:
    """Return the name of a file without .gz at its end."""
    return name.removesuffix(".gz")


def list_visible(folder: Path) -> list[Path]:
    """Return what is in a folder and not hidden, sorted by name.

    Raises:
      DataError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        what = f"the folder cannot be read: {error.strerror or error}"
        raise DataError(what, str(folder), "allow to read it") from error


def refuse_outside(path: Path, folder: Path) -> None:
    """Refuse a link that leads out of a folder."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError("this link leads out of the folder", str(path), "copy the text into the folder")
