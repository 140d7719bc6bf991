"""Large memory pages for computing on a CPU. Knows nothing of the rest.

A compiled chunk asks the system for its working memory at every call, and on a CPU the first touch of each 4 KiB page
costs as much as computing on it: with pages of 2 MiB a step of Omniglot (15 queries) took 0.69 s in place of 0.83 to
0.99. glibc uses them where GLIBC_TUNABLES says so when the process starts, and only then.
"""

import os
import sys
from collections.abc import Mapping

VARIABLE = "GLIBC_TUNABLES"
LARGE_PAGES = "glibc.malloc.hugetlb=1"


def with_large_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is to use large pages; what it says of glibc itself stays as it is."""
    return {VARIABLE: LARGE_PAGES, **environment}


def use_large_pages() -> None:
    """Start this process anew, in place, with large pages. Does nothing where it has been said already how to."""
    if sys.platform != "linux" or VARIABLE in os.environ:
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], with_large_pages(os.environ))
