"""Files that this process has open already, by the paths that stand for them, such as /dev/stdout.

Such a path is a chain of links. Where the output is redirected to a file, the chain ends at a regular file, and as root
the link itself could be replaced by a new file: then /dev/stdout would be lost to all programs of the machine.
"""

import errno
import fcntl
import os
import re
import sys
from pathlib import Path

LINKS = 40  # as many as Linux follows


def find_descriptor(path: Path) -> int | None:
    """Return the number of the open file of this process that a path stands for; None: it stands for none."""
    own = re.compile(rf"/dev/fd|/proc/{os.getpid()}(/task/[0-9]+)?/fd")
    place = path
    for _ in range(LINKS):
        if own.fullmatch(os.path.realpath(place.parent)) and place.name.isdecimal() and place.exists():
            return int(place.name)
        if not place.is_symlink():
            return None
        place = place.parent / place.readlink()
    return None


def prepare(descriptor: int, path: Path) -> None:
    """Let what is written to an open file come behind all that this process has printed.

    Raises:
      OSError: the file was opened to be read.
    """
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
