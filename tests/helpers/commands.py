"""What a command of `metarun` printed, and what every error looks like."""

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


def assert_three_lines(said: Said, code: int, *words: str) -> None:
    """Check the exit code, and that stderr ends with an error in three lines."""
    assert said.code == code, said
    error = said.err[-3:]
    assert [line.partition(": ")[0] for line in error] == ["error", "where", "to do"]
    assert not any("Traceback" in line for line in said.err)
    for word in words:
        assert any(word in line for line in error), (word, error)
