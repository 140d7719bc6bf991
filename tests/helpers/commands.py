"""What a command of `metarun` printed, and what every error looks like."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

from metarun import cli


class Said(NamedTuple):
    """What a command left: its exit code, and the lines of both streams."""

    code: int
    out: list[str]
    err: list[str]


def make_command(monkeypatch, capsys) -> Callable[..., Said]:
    """Make a function that runs a command in this process."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["metarun", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        out, err = capsys.readouterr()
        return Said(code, out.splitlines(), err.splitlines())

    return run


def run_process(*arguments: object, limit: int = resource.RLIM_INFINITY, **environment: str) -> Said:
    """Run a command in a process of its own, which may write files of at most `limit` bytes."""
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from metarun import cli
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Said(done.returncode, done.stdout.splitlines(), done.stderr.splitlines())


def assert_three_lines(said: Said, code: int, *words: str) -> None:
    """Check the exit code, and that stderr ends with an error in three lines."""
    assert said.code == code, said
    error = said.err[-3:]
    assert [line.partition(": ")[0] for line in error] == ["error", "where", "to do"]
    assert not any("Traceback" in line for line in said.err)
    for word in words:
        assert any(word in line for line in error), (word, error)
