"""A file system that is really full: a small tmpfs, filled by the run itself or by somebody else.

Needs the right to mount one, as root has it; elsewhere these tests are skipped, and `test_storage` does the same with
single operations.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fault.share import share
from helpers import failing_streams
from helpers.runs import SINGLE, assert_same_run, train
from metarun import errors
from metarun.runs.checkpoints import Checkpoints

# Orbax 0.12 writes all arrays at once in a loop of its own, and closes it when the first one fails, without waiting
# for the others (`_run_sync_via_new_loop`). Their end then finds the loop closed, in a thread of TensorStore, where
# nobody can catch it. The command line keeps quiet about it: `cli.streams.drop_last_words`.
LATE = "ignore:(?s).*RuntimeError. Event loop is closed:pytest.PytestUnraisableExceptionWarning"
pytestmark = [pytest.mark.usefixtures("own_place", "shared_programs"), pytest.mark.filterwarnings(LATE)]
LARGE = 64 * 1024  # KiB: more than a run needs


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={LARGE}k", "none", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=10)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, timeout=10)


def resize(place: Path, kibibytes: int) -> None:
    """Give the file system another size."""
    command = ["mount", "-o", f"remount,size={kibibytes}k", str(place)]
    subprocess.run(command, check=True, capture_output=True, timeout=10)


def measure(place: Path) -> int:
    """Return how many KiB are used."""
    done = subprocess.run(
        ["df", "-k", "--output=used", str(place)], check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[-1])


def test_a_run_that_fills_its_disk_ends_with_8_and_goes_on_when_there_is_space(
    attack, disk, tmp_path, single
):
    train(disk / "run")
    largest = measure(disk)
    tries, refused = share(12), 0
    for number in range(tries):
        subprocess.run(["rm", "-rf", str(disk / "run")], check=True)
        resize(disk, 4 + largest * number // tries // 4 * 4)
        attack.tries += 1
        try:
            train(disk / "run", pictures=number % 4 == 3)
        except errors.StorageError:
            refused += 1
        except BaseException as error:
            attack.fail(f"{number}: {type(error).__name__}: {error}")
        folder = disk / "run" / "checkpoints" / "maml"
        if folder.is_dir() and Checkpoints(folder).steps() and Checkpoints(folder).newest_valid() is None:
            attack.fail(f"{number}: no checkpoint is whole")
        resize(disk, LARGE)
        try:
            assert_same_run(train(disk / "run", resume=True), single)
        except BaseException as error:
            attack.fail(f"{number}: after there is space again: {type(error).__name__}: {error}")
    assert refused, "the disk was never full"


def test_a_command_that_writes_to_a_full_disk_ends_with_8(attack, disk, tmp_path, single, capsys):
    (tmp_path / "small.yaml").write_text(SINGLE)
    (disk / "sweep").mkdir()
    other = shutil.copytree(single, tmp_path / "other")
    resize(disk, 8)
    with pytest.raises(OSError):
        (disk / "filler").write_bytes(b"x" * 64 * 1024)
    commands: list[list[object]] = [
        ["init", "sinusoid/maml", "--to", disk / "copy.yaml"],
        ["init", "model", "mine", "--to", disk],
        ["export", single, "--out", disk / "learner.metarun"],
        ["report", single, "--out", disk / "report.html"],
        ["train", "small.yaml", "--run-dir", disk / "run"],
        ["compare", single, other, "--plot", disk / "plot.png"],
        ["sweep", "small.yaml", "training.steps=4,8", "--sweep-dir", disk / "sweep"],
        ["sync", single, "--to", "tensorboard", "--dir", disk / "logs"],
    ]
    for command in commands:
        attack.tries += 1
        capsys.readouterr()
        code = failing_streams.run(command)
        said = capsys.readouterr().err.splitlines()[-3:]
        if code != 8 or [line.partition(": ")[0] for line in said] != ["error", "where", "to do"]:
            attack.fail(f"`metarun {' '.join(map(str, command))}` ended with {code} and said {said}")
