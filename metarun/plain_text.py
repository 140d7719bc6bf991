"""Text that no terminal, no log and no encoding stumbles over. Imports no part of metarun.

Names of files, folders and classes are bytes that mean what they like: escape codes, line ends, half a letter.
"""

import logging
import os
import types


def escape(text: str) -> str:
    """Return the text on one line: what is no printable letter becomes U+FFFD."""
    try:
        whole = os.fsencode(text).decode("utf-8", "replace")
    except UnicodeEncodeError:  # half a letter that no name of a file can hold, such as JSON may
        whole = text
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in whole)


def escape_lines(text: str) -> str:
    """Return the text with the line ends that it has, and each line escaped."""
    return "\n".join(map(escape, text.split("\n")))


class PlainFormatter(logging.Formatter):
    """Log records whose message is one line. Only a traceback has more of them."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the record, without its traceback, on one line."""
        return escape(super().formatMessage(record))

    def formatException(
        self, ei: "tuple[type, BaseException, types.TracebackType | None] | tuple[None, ...]"
    ) -> str:
        """Return the lines of a traceback."""
        return escape_lines(super().formatException(ei))  # type: ignore[arg-type]
