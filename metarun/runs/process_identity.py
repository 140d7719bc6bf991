"""Which process this is, told apart from all others, and whether one still lives."""

import contextlib
import os
import platform
from pathlib import Path
from typing import Any


def describe_process() -> dict[str, Any]:
    """Return what tells this process from all others: its number, its machine, and when it began, in clock ticks."""
    pid = os.getpid()
    return {"pid": pid, "host": platform.node(), "process_started": read_start(pid)}


def read_start(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the machine started; None: there is none, or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[19])  # the name in brackets may hold anything
    except (OSError, ValueError, IndexError):
        return None


def is_alive(pid: int, started: int | None) -> bool:
    """Return whether the process lives. A number that was given to another process since does not count."""
    if pid <= 0:
        return False
    with contextlib.suppress(PermissionError):  # it lives, and belongs to somebody else
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return started is None or read_start(pid) in (None, started)
