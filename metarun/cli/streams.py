"""The standard streams, made safe: a full, closed or broken one is an exit code at most, and never ends a training.

- What the error stream does not take is dropped: words about the work are worth less than the work.
- An output stream that is full or closed is an OSError, which ends the command with 8.
- The reader of an output stream may leave, such as `head`: the command goes on without words, and then ends with 8.
- A terminal gets no escape codes but those that metarun writes: names of files may have their own.
"""

import codecs
import errno
import io
import os
import select
import sys
import threading
from typing import Any, TextIO

from metarun.plain_text import escape

INPUT, OUTPUT, ERROR = range(3)  # the numbers of the standard streams
HANDLER = "metarun.keep-bytes"  # the name of our way with letters that an encoding does not have


class ErrorFile(io.FileIO):
    """A file that takes everything, and drops what cannot be written."""

    def write(self, content: Any, /) -> int:
        """Write the bytes, or drop them."""
        try:
            return super().write(content) or len(memoryview(content))
        except OSError:
            return len(memoryview(content))


class OutputFile(io.FileIO):
    """A file that notes when its reader has left, and takes everything from then on."""

    reader_left = False

    def write(self, content: Any, /) -> int:
        """Write the bytes; wait for the reader of a pipe that is full, also where the pipe itself would not wait.

        Raises:
          OSError: they cannot be written, for another reason than that nobody reads.
        """
        try:
            while (written := super().write(content)) is None:
                select.select([], [self], [])
            return written
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            self.reader_left = True
            return len(memoryview(content))


class TerminalText(io.TextIOWrapper):
    """Text for a terminal: line ends and tabs pass, other control characters do not."""

    def write(self, text: str, /) -> int:
        """Write the text, each line escaped."""
        super().write("\n".join("\t".join(map(escape, line.split("\t"))) for line in text.split("\n")))
        return len(text)


def secure() -> None:
    """Take the place of the standard streams of this process. Does nothing where others stand in for them already."""
    occupy_numbers()
    codecs.register_error(HANDLER, keep_bytes)
    if sys.stderr is sys.__stderr__:
        sys.stderr = wrap(ErrorFile(ERROR, "w", closefd=False), sys.stderr, io.TextIOWrapper)
    if sys.stdout is sys.__stdout__:
        kind = TerminalText if os.isatty(OUTPUT) else io.TextIOWrapper
        sys.stdout = wrap(OutputFile(OUTPUT, "w", closefd=False), sys.stdout, kind)


def occupy_numbers() -> None:
    """Open closed standard streams, else a file of ours gets their number, and with it what is meant for them.

    A closed output becomes a file that cannot be written to: its reader is to learn that nothing arrives.
    """
    for number in (INPUT, OUTPUT, ERROR):
        try:
            os.fstat(number)
        except OSError:  # a new file gets the lowest number that is free: this one
            os.open(os.devnull, os.O_WRONLY if number == ERROR else os.O_RDONLY)


def wrap(file: io.FileIO, before: TextIO | None, kind: type[io.TextIOWrapper]) -> io.TextIOWrapper:
    """Return a text stream on a file, with the encoding of the stream before it."""
    encoding = before.encoding if before else "utf-8"
    return kind(io.BufferedWriter(file), encoding=encoding, errors=HANDLER, line_buffering=file.isatty())


def keep_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Let the bytes of a name that is no text pass as they are, and write `\\u2026` for a letter that cannot be had."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def has_lost_reader() -> bool:
    """Return whether the reader of the output has left before its end."""
    return isinstance(file := find_file(sys.stdout), OutputFile) and file.reader_left


def drop_last_words() -> None:
    """Keep quiet about errors of objects and threads of libraries, which come up while a process ends after an error.

    Such as "Event loop is closed", after a checkpoint that the disk refused. Does nothing where others stand in for the
    streams.
    """
    if isinstance(find_file(sys.stderr), ErrorFile):
        sys.unraisablehook = lambda _: None
        threading.excepthook = lambda _: None


def find_file(stream: object) -> io.RawIOBase | None:
    """Return the file below a text stream, if it has one."""
    return getattr(getattr(stream, "buffer", None), "raw", None)
