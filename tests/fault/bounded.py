"""Readers of hostile files in processes of their own, whose time and memory are measured and bounded.

A decoder is C code: on bad bytes it may crash, hang or take all memory, which must not end the attacker. The child
writes one line for each file; if it ends early, the next file is at fault, and another child goes on behind it.
"""

import contextlib
import importlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from helpers import processes

MOST_MEMORY = 6 << 30  # bytes of address space of a child: beyond it an allocation fails


class Outcome(NamedTuple):
    """What became of one file."""

    path: Path
    said: str  # "read", "refused", or what happened instead
    seconds: float  # of processor time
    peak: int  # bytes of memory that the process held at most, all of Python included


def read_all(reader: str, files: Sequence[Path], folder: Path, seconds: float) -> Iterator[Outcome]:
    """Yield the outcome of each file.

    Args:
      reader: "module:function" of a function that takes a path.
      folder: where the child works. It can create files there or elsewhere, but not write a byte into them.
      seconds: for all files; a child that takes longer is killed.
    """
    rest = list(files)
    while rest:
        command = [sys.executable, "-m", "fault.bounded", reader]
        try:
            done = subprocess.run(
                command,
                input="\n".join(map(str, rest)).encode(),
                capture_output=True,
                cwd=folder,
                env=processes.environment(),
                timeout=seconds,
            )
            output, end = done.stdout, f"ended with {done.returncode}: {done.stderr[-300:]!r}"
        except subprocess.TimeoutExpired as error:
            output, end = error.stdout or b"", f"not read after {seconds} s"
        lines = [json.loads(line) for line in output.splitlines()]
        for path, line in zip(rest, lines, strict=False):
            yield Outcome(path, *line)
        if len(lines) < len(rest):
            yield Outcome(rest[len(lines)], end, 0.0, 0)
        rest = rest[len(lines) + 1 :]


def main() -> None:
    """Read the files that are named on standard input, and say what became of each."""
    module, _, function = sys.argv[1].partition(":")
    read = getattr(importlib.import_module(module), function)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from metarun.errors import DataError, StorageError

    for name in sys.stdin.read().splitlines():
        forget_peak()
        began, said = time.process_time(), "read"
        try:
            read(Path(name))
        except (DataError, StorageError) as error:
            said = "refused" if str(error).count("\n") == 2 else f"an error in other lines: {error}"
        except Exception as error:
            said = repr(error)[:300]
        print(json.dumps([said, time.process_time() - began, read_peak()]), flush=True)


def forget_peak() -> None:
    """Let the peak of memory begin at what is held now, on a Linux that can (proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def read_peak() -> int:
    """Return the bytes of memory that this process has held at most."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
