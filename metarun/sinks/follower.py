"""The process that copies one run to one sink while the run goes on: `python -m metarun.sinks RUN SINK`.

It takes what time of a processor the training leaves, and imports no jax. It goes on until its standard input ends,
which happens when the training ends, however it ends; then it copies what is left.
"""

import os
import select
import sys
from pathlib import Path

from metarun import errors
from metarun.sinks import transfer

PERIOD = 2.0  # seconds between two looks at the file
NICENESS = 19  # the least claim on a processor


def main(arguments: list[str]) -> int:
    """Copy until the end; return the exit code."""
    run, name = arguments
    os.nice(NICENESS)
    try:
        follow(Path(run), name)
    except errors.MetarunError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def follow(run: Path, name: str) -> None:
    """Copy what is new again and again, and once more after the training."""
    with transfer.open_copy(run, name, wait=True) as copy:
        while not has_ended(PERIOD):
            copy.copy_new()
        copy.copy_new()
        copy.copy_result()


def has_ended(seconds: float) -> bool:
    """Wait that long; return whether the training has ended, at once if so."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable)  # nobody writes to it, so there is nothing to read but its end
