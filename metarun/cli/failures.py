"""From an exception to three lines on stderr and an exit code."""

import contextlib
import errno
import os
import signal
import sys
import traceback

from metarun import errors, outside, signals

# What a stream may refuse, or a file that a library writes; the last: a closed stream.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE, errno.EBADF)
NO_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory")


def report(error: BaseException) -> int:
    """Print what the user needs to know of the error, and return the exit code for it."""
    if isinstance(error, signals.Stopped):
        print(f"stopped by {error}; what was done is saved: go on with {find_way_on(error)}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt) or signals.was_interrupted():
        return 128 + signal.SIGINT
    explanation = explain(error)
    with contextlib.suppress(OSError):  # nothing can be said where stderr takes nothing either
        if os.environ.get("METARUN_DEBUG"):
            traceback.print_exception(error)
        print(explanation, file=sys.stderr)
    return explanation.exit_code


def find_way_on(error: BaseException) -> str:
    """Return the command that goes on with a stopped run, which `metarun train` has noted."""
    notes: list[str] = getattr(error, "__notes__", [])
    return notes[-1] if notes else "--resume"


def flush_output() -> None:
    """Write what stdout holds back. After an error drop it, so that Python does not try again when it ends.

    Raises:
      OSError: stdout takes no more, such as on a full disk.
    """
    try:
        sys.stdout.flush()
    except OSError:
        drop_output()
        raise


def drop_output() -> None:
    """Send to nowhere what stdout holds back, and all that follows."""
    with contextlib.suppress(OSError, ValueError):  # a stand-in of stdout has no number
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def explain(error: BaseException) -> errors.MetarunError:
    """Return the error itself if it speaks to the user, or what to say in its place."""
    if isinstance(error, errors.MetarunError):
        return error
    text = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    if isinstance(error, OSError) and error.errno in FULL:
        reason = "the stream is closed" if error.errno == errno.EBADF else error.strerror
        what = f"what was asked for cannot be written: {reason}"
        where = str(error.filename or "the standard output")
        return errors.StorageError(what, where, "free some space, or write the output to another place")
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY):
        return errors.AcceleratorError(
            f"the accelerator has too little memory: {text}",
            "the compiled step",
            "set training.task_chunk to a divisor of tasks_per_step, or algorithm.rematerialise=true",
        )
    if place := outside.find_place(error):
        what, remedy = f"a plug-in from elsewhere fails: {text}", "METARUN_DEBUG=1 shows the traceback"
        return errors.ConfigError(what, place, remedy)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
    return errors.MetarunError(
        f"this is a bug of metarun: {text}", where, "report it with the traceback that METARUN_DEBUG=1 shows"
    )
