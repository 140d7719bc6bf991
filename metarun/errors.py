"""The errors that a user can act on: three plain lines and an exit code.

An error of this module is printed without a traceback. Any other exception that escapes is a bug, and exits with 1.
"""

from typing import ClassVar

from metarun.plain_text import escape


class MetarunError(Exception):
    """An error that the user can act on: what is wrong, where, and what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__(what, where, remedy)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        """Return the three lines that go to stderr. A name in them cannot add a line, nor an escape code."""
        return f"error: {escape(self.what)}\nwhere: {escape(self.where)}\nto do: {escape(self.remedy)}"


class UsageError(MetarunError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class ConfigError(MetarunError):
    """The configuration cannot be read, or asks for something impossible."""

    exit_code = 3


class DataError(MetarunError):
    """Data is missing, truncated, altered or of the wrong kind."""

    exit_code = 4


class CheckpointError(MetarunError):
    """A checkpoint is missing, damaged, of another run, or of an older version of metarun."""

    exit_code = 5


class RunDirectoryError(MetarunError):
    """The run directory is in use by another process, or exists already."""

    exit_code = 6


class DivergedError(MetarunError):
    """The loss or its gradient is no longer finite."""

    exit_code = 7


class StorageError(MetarunError):
    """The disk is full, or a file may not be written."""

    exit_code = 8


class AcceleratorError(MetarunError):
    """The chosen accelerator is not there, or has too little memory."""

    exit_code = 9
