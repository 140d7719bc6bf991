"""How a run stands: what its status.json says, and whether the process that wrote it is still there."""

import platform
from pathlib import Path
from typing import Any, NamedTuple

from metarun.runs import directory, process_identity, regular_files

LARGEST = 2**20  # bytes of a status.json

# The words of status.json, and those that a list of runs has for them.
STATES = {"done": "done", "preempted": "stopped", "diverged": "diverged", "failed": "failed"}


class RunStatus(NamedTuple):
    """How a run stands."""

    # running, done, stopped (by a signal), diverged, failed; killed: its process is gone; unknown: its process is on
    # another machine, or nothing says; damaged: status.json cannot be read.
    state: str
    stage: str | None = None
    step: int | None = None
    updated: str | None = None  # when status.json was written, in UTC
    pid: int | None = None
    host: str | None = None
    message: str | None = None


def read_status(run: Path) -> RunStatus:
    """Return how a run stands. Whatever is wrong with status.json, nothing is raised."""
    try:
        content = regular_files.read_sealed(run / directory.STATUS, LARGEST)
    except FileNotFoundError:
        if (run / directory.STATUS).is_symlink():
            return RunStatus("damaged")
        return RunStatus("done" if (run / directory.RESULT).is_file() else "unknown")
    except (OSError, ValueError):
        return RunStatus("damaged")
    if not isinstance(content.get("status"), str):
        return RunStatus("damaged")
    return RunStatus(
        judge(content),
        take(content, "stage", str),
        take(content, "step", int),
        take(content, "updated", str),
        take(content, "pid", int),
        take(content, "host", str),
        take(content, "message", str),
    )


def take(content: dict[str, Any], key: str, kind: type) -> Any:
    """Return the value of a key; None: it is missing, or of another type."""
    value = content.get(key)
    return value if type(value) is kind else None


def judge(content: dict[str, Any]) -> str:
    """Return the state that status.json and the processes of this machine give together."""
    if content["status"] != "running":
        return STATES.get(content["status"], "unknown")
    pid, host = take(content, "pid", int), take(content, "host", str)
    if pid is None or host != platform.node():  # an older version wrote no host
        return "unknown"
    lives = process_identity.is_alive(pid, take(content, "process_started", int))
    return "running" if lives else "killed"
