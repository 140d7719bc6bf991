"""Large pages: asked for once, at the start of a command that computes, and never against the user's own word."""

import os
import subprocess
import sys

import pytest

from metarun import large_pages

PROGRAM = """
import os, sys
from metarun import large_pages
large_pages.use_large_pages()
print(os.environ[large_pages.VARIABLE], *sys.argv[1:])
"""


def run(**variables: str) -> list[str]:
    environment = {
        name: value for name, value in os.environ.items() if name != large_pages.VARIABLE
    } | variables
    return subprocess.check_output(
        [sys.executable, "-c", PROGRAM, "a b", "c"], env=environment, text=True
    ).split("\n")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_a_process_starts_itself_anew_with_large_pages_and_the_same_arguments():
    assert run()[0] == f"{large_pages.LARGE_PAGES} a b c"


def test_what_the_user_says_of_glibc_stays():
    assert run(GLIBC_TUNABLES="glibc.malloc.check=0")[0] == "glibc.malloc.check=0 a b c"
    assert large_pages.add_large_pages({"GLIBC_TUNABLES": "x", "A": "b"}) == {
        "GLIBC_TUNABLES": "x",
        "A": "b",
    }
