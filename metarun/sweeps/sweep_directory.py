"""The directory of a sweep: its files, each written as one step, and the locks that let several machines share it.

sweep.json   study.journal   lock   ranking.json   winner.yaml   array.sh   *.png
rounds/<round>.json                 the settings of a round, as they were proposed
rounds/<round>-<rung>.json          the programs that train them on one rung
programs/<round>-<rung>-<number>/   config.yaml   log.txt   lock   run/
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from metarun import errors
from metarun.runs import directory, files, regular_files
from metarun.sweeps.request import Request

SWEEP, RANKING, WINNER, LOCK, STUDY = "sweep.json", "ranking.json", "winner.yaml", "lock", "study.journal"
REMEDY = "remove the directory and call again, or choose another --sweep-dir"
State = Literal["waiting", "done", "diverged"]


class SweepDirectory(NamedTuple):
    """Where a sweep lies."""

    path: Path

    @classmethod
    def open(cls, path: Path, request: Request) -> "SweepDirectory":
        """Make the directory of a sweep, or take up the sweep that is there.

        Raises:
          RunDirectoryError: there is another sweep, or something that is none.
        """
        others = (
            "there is another sweep here: its config, its values or its options differ",
            "the folder is not empty and is no sweep",
        )
        return cls.take_up(path, SWEEP, request.describe(), others, "choose another --sweep-dir")

    @classmethod
    def take_up(
        cls, path: Path, file: str, description: dict[str, Any], others: tuple[str, str], remedy: str
    ) -> Self:
        """Make a directory of programs, or take up the one that is there.

        Args:
          file: the name of the file that holds the description of what is trained here.
          others: what to say if there is another description, and if there are files but no description.

        Raises:
          RunDirectoryError: something else is there, or a link in the place of a file or a folder of the sweep.
        """
        described = json.loads(json.dumps(description))
        with files.storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in path.iterdir() if not entry.name.startswith(files.TEMPORARY)}
        sweep = cls(path)
        inside = [f"programs/{name}" for name in files.list_folders(path / "programs")]
        files.refuse_links(path, [file, RANKING, WINNER, LOCK, STUDY], ["programs", "rounds", *inside])
        if file in names:
            if sweep.read(file) != described:
                raise errors.RunDirectoryError(others[0], str(path), remedy)
        elif names - {LOCK}:
            raise errors.RunDirectoryError(others[1], str(path), remedy)
        else:
            sweep.write(file, described)
            files.make_folder(path / "programs", path)
        return sweep

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file as one step, with the digest of what it says."""
        files.make_folder((self.path / name).parent, self.path)
        files.write_sealed(self.path / name, content)

    def write_text(self, name: str, content: str) -> None:
        """Write a text file as one step; the folders on the way to it are made."""
        files.make_folder((self.path / name).parent, self.path)
        files.write_text(self.path / name, content)

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the content of a JSON file; None: it is not there.

        Raises:
          DataError: it is damaged, or was changed after it was written.
        """
        file = self.path / name
        with files.storage_errors(file):
            try:
                return regular_files.read_sealed(file)
            except FileNotFoundError:
                return None
            except ValueError as error:
                what = f"a file of the sweep cannot be read: {error}"
                raise errors.DataError(what, str(file), REMEDY) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Wait until no other process plans this sweep, and let none plan it inside the `with`. Raises StorageError."""
        descriptor = files.open_own(self.path / LOCK, os.O_RDWR)
        try:
            with files.storage_errors(self.path / LOCK):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def claim(self, program: str) -> int | None:
        """Return a descriptor that holds the program until it is closed; None: another process holds it."""
        file = self.find_program(program) / LOCK
        descriptor = files.open_own(file, os.O_RDWR)
        with files.storage_errors(file):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
        return descriptor

    def find_program(self, program: str) -> Path:
        """Return the folder of a program."""
        return self.path / "programs" / program

    def find_run(self, program: str) -> Path:
        """Return the run directory of a program."""
        return self.find_program(program) / "run"

    def find_state(self, program: str) -> State:
        """Return whether a program has been trained to its end, or until nothing of it was finite."""
        run = self.find_run(program)
        if (run / directory.RESULT).exists():
            return "done"
        try:
            status = regular_files.read_sealed(run / directory.STATUS)["status"]
        except (OSError, ValueError, KeyError):
            return "waiting"
        return "diverged" if status == "diverged" else "waiting"
