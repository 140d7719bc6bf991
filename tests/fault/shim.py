"""The failing disk of `shim.c`: compiled where there is a compiler, preloaded into a process, armed from inside it."""

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers import processes

SOURCE = Path(__file__).with_name("shim.c")
COUNT, SHORT, KILL = 0, -1, -2  # what happens; a positive number is an errno
KINDS = {
    "full": errno.ENOSPC,
    "quota": errno.EDQUOT,
    "broken": errno.EIO,
    "short": SHORT,
    "kill": KILL,
}
ALL = sys.maxsize  # no operation has this number


def compile_shim(folder: Path) -> Path:
    """Return the compiled library, or skip the test where there is no compiler or another system than Linux."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("a compiler for C on Linux is needed: cc")
    library = folder / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return library


def make_environment(library: Path) -> dict[str, str]:
    """Return the environment of a process with the library in it."""
    return processes.environment() | {"LD_PRELOAD": str(library)}


@contextmanager
def fail(folder: Path, at: int, kind: int, stays: bool = False) -> Iterator[list[int]]:
    """Let operation number `at` below the folder fail, and with `stays` all after it. The list gets their number."""
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    library.shim_disarm.restype = ctypes.c_long
    counted: list[int] = []
    library.shim_arm(
        os.fsencode(folder.resolve()), ctypes.c_long(at), ctypes.c_int(kind), ctypes.c_int(stays)
    )
    try:
        yield counted
    finally:
        counted.append(library.shim_disarm())
