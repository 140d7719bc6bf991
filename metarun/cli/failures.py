"""From an exception to three lines on stderr and an exit code."""

import os
import signal
import sys
import traceback

from metarun import errors

NO_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory")


def report(error: BaseException) -> int:
    """Print what the user needs to know of the error, and return the exit code for it."""
    if code := getattr(error, "exit_code", None) if not isinstance(error, errors.MetarunError) else None:
        print(f"stopped by {error}; the state is saved: go on with --resume", file=sys.stderr)
        return code
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    explanation = explain(error)
    if os.environ.get("METARUN_DEBUG"):
        traceback.print_exception(error)
    print(explanation, file=sys.stderr)
    return explanation.exit_code


def explain(error: BaseException) -> errors.MetarunError:
    """Return the error itself if it speaks to the user, or what to say in its place."""
    if isinstance(error, errors.MetarunError):
        return error
    text = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY):
        return errors.AcceleratorError(
            f"the accelerator has too little memory: {text}",
            "the compiled step",
            "set training.task_chunk to a divisor of tasks_per_step, or algorithm.rematerialise=true",
        )
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
    return errors.MetarunError(
        f"this is a bug of metarun: {text}", where, "report it with the traceback that METARUN_DEBUG=1 shows"
    )
