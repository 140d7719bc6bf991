"""Standard streams that take nothing, in place of those of this process: full, closed, or without a reader."""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from metarun import cli
from metarun.cli import streams

WAYS = ("full", "closed", "broken")


def open_descriptor(way: str) -> int:
    """Open what takes nothing."""
    if way == "broken":
        reader, writer = os.pipe()
        os.close(reader)
        return writer
    return os.open("/dev/full", os.O_WRONLY) if way == "full" else os.open(os.devnull, os.O_RDONLY)


@contextmanager
def replace(name: str, way: str) -> Iterator[None]:
    """Let `stdout` or `stderr` be such a stream, made as `streams.secure` makes it."""
    codecs.register_error(streams.HANDLER, streams.keep_bytes)
    descriptor = open_descriptor(way)
    kind = streams.OutputFile if name == "stdout" else streams.ErrorFile
    with pytest.MonkeyPatch.context() as patch:
        file = kind(descriptor, "w", closefd=False)
        patch.setattr(sys, name, streams.wrap(file, None, io.TextIOWrapper))
        try:
            yield
        finally:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)  # what the stream still holds back goes there
            os.close(nowhere)
            getattr(sys, name).detach()
            os.close(descriptor)


def run(arguments: list[object]) -> int:
    """Run a command of metarun in this process, and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["metarun", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
    return 0


def find_fault(arguments: list[object], way: str, capsys: pytest.CaptureFixture) -> str | None:
    """Return what is wrong with a command whose output cannot be written; None: it ends with 8 as it should."""
    capsys.readouterr()
    with replace("stdout", way):
        code = run(arguments)
    lines = capsys.readouterr().err.splitlines()
    error = [line for line in lines if not line.startswith("warning: ")]
    said = [line.partition(": ")[0] for line in error[-3:]]
    expected = [] if way == "broken" else ["error", "where", "to do"]
    right = code == 8 and (said == expected if expected else "error" not in said)
    words = " ".join(map(str, arguments))
    return None if right else f"{way}: `metarun {words}` ended with {code} and said {lines[-5:]}"
