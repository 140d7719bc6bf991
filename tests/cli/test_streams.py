"""The standard streams: full, closed, broken, in another encoding, and a terminal that names of files cannot steer."""

import io
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from helpers.runs import SINGLE
from metarun.cli import streams

pytestmark = pytest.mark.usefixtures("own_place")
METARUN = f"{sys.executable} -m metarun"
HOSTILE = r"a\x1b]0;title\x07b\x1b[31m\nerror: c"  # as a shell reads it in $'...'


@pytest.fixture
def config_file(tmp_path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SINGLE)
    return file


def run(command: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a line of a shell, in which `metarun` is this one."""
    line = f'set -o pipefail; metarun() {{ {METARUN} "$@"; }}; {command}'
    environment = os.environ | variables
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("output", [">&-", "> /dev/full"])
def test_an_output_that_is_closed_or_full_exits_with_8(output):
    done = run(f"metarun list {output}")
    assert done.returncode == 8
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == ["error", "where", "to do"]


def test_a_reader_that_leaves_gets_what_it_wants_and_the_command_exits_with_8_without_words():
    done = run("metarun list | head -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (8, "Task families:\n", "")


@pytest.mark.parametrize("stderr", ["2>&-", "2> /dev/full", "2> >(true)"])
def test_words_that_nobody_takes_change_no_exit_code(stderr):
    assert run(f"metarun list nosuch {stderr}").returncode == 2
    done = run(f"metarun --version {stderr}")
    assert done.returncode == 0 and done.stdout.startswith("metarun ")


@pytest.mark.slow
def test_a_training_whose_words_nobody_takes_goes_on_to_its_end(config_file, tmp_path):
    done = run(f"metarun train {config_file} --run-dir {tmp_path}/run 2> /dev/full")
    assert done.returncode == 0
    assert (tmp_path / "run/result.json").exists()


def test_with_all_streams_closed_no_file_takes_their_place(config_file, tmp_path):
    done = run(f"metarun train {config_file} training.steps=0 --run-dir {tmp_path}/run <&- >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert not any(b"training.steps" in path.read_bytes() for path in tmp_path.rglob("log.txt"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_an_encoding_lacks_are_no_error(tmp_path, encoding):
    (tmp_path / "runs \udcef \N{EURO SIGN}").mkdir()
    done = run("metarun eval runs*", PYTHONIOENCODING=encoding)
    assert done.returncode == 5
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == ["error", "where", "to do"]


def test_no_name_steers_the_terminal():
    done = run(f"metarun eval $'{HOSTILE}'")
    assert done.returncode == 5
    assert len(done.stderr.splitlines()) == 3 and not set(done.stderr) & {"\x1b", "\x07"}


def test_a_terminal_gets_no_escape_code_of_a_path(tmp_path, config_file):
    """What goes into a pipe is the path, byte for byte; a terminal shows a sign in place of what steers it."""
    place = tmp_path / "x\x1b[31my"
    command = [sys.executable, "-m", "metarun", "init", "sinusoid/maml", "--to", str(place / "config.yaml")]
    place.mkdir()
    ours, theirs = pty.openpty()
    code = subprocess.run(
        command, stdout=theirs, stderr=subprocess.PIPE, timeout=120, cwd=tmp_path
    ).returncode
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # a terminal that nobody holds open ends so
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert code == 0 and b"[31my" in shown and b"\x1b" not in shown


def test_a_slow_reader_gets_all_from_a_pipe_that_does_not_wait():
    """Whoever has the other end of a pipe may set it so that a write to it never waits, as some shells and tools do."""
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    content = b"x" * 300_000  # more than a pipe holds
    received: list[bytes] = []

    def read() -> None:
        while part := os.read(theirs, 4096):
            received.append(part)

    reader = threading.Timer(0.1, read)
    reader.start()
    with io.BufferedWriter(streams.OutputFile(ours, "w")) as file:
        file.write(content)
    reader.join()
    os.close(theirs)
    assert b"".join(received) == content
