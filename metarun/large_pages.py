"""Large memory pages for computing on a CPU. Imports no part of metarun.

A compiled chunk asks the system for its working memory at every call, and on a CPU the first touch of each 4 KiB page
costs as much as computing on it. With pages of 2 MiB a step of Omniglot (15 queries) took 0.69 s; without them it took
0.83 to 0.99 s. glibc uses large pages only if GLIBC_TUNABLES says so when the process starts.
"""

import os
import sys
from collections.abc import Mapping

VARIABLE = "GLIBC_TUNABLES"
LARGE_PAGES = "glibc.malloc.hugetlb=1"


def add_large_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that uses large pages. A setting of glibc that is there already stays."""
    return {VARIABLE: LARGE_PAGES, **environment}


def use_large_pages() -> None:
    """Start this process anew, in place, with large pages. Does nothing if the variable is set already."""
    if sys.platform != "linux" or VARIABLE in os.environ:
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], add_large_pages(os.environ))
