"""How far a sink has come with a run: RUN/sinks/NAME.json, and the lock that keeps two writers apart."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from metarun import errors
from metarun.runs import files, metrics, regular_files

FOLDER = "sinks"  # in the run directory


@dataclass(frozen=True)
class Bookmark:
    """What is known of earlier copies to one place."""

    size: int = 0  # bytes of metrics.jsonl that were copied
    tail: str = ""  # the line that ends there; if it is another now, the file was cut back
    steps: dict[str, int] = field(default_factory=dict)  # {series: its last step in the sink}
    # `steps` after a batch that may or may not have arrived; null: there is none.
    sending: dict[str, int] | None = None
    time: int = 0  # of that batch, in ms since 1970
    # What the sink itself remembers, such as the name of its run.
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> metrics.Place:
        """Where to read on."""
        return metrics.Place(self.size, self.tail.encode())


def find_path(run: Path, sink: str, folder: Path | None) -> Path:
    """Return the file of a bookmark. Each folder that somebody names has its own."""
    place = "" if folder is None else "-" + hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return run / FOLDER / f"{sink}{place}.json"


def read(path: Path) -> Bookmark:
    """Return the bookmark, or that of a sink that has nothing yet.

    Raises:
      DataError: the file is damaged.
    """
    with files.storage_errors(path):
        try:
            return Bookmark(**regular_files.read_sealed(path))
        except FileNotFoundError:
            return Bookmark()
        except (ValueError, TypeError) as error:
            remedy = "remove the file and what the sink has of this run; then everything is copied again"
            raise errors.DataError("the bookmark of a sink is damaged", str(path), remedy) from error


def write(path: Path, bookmark: Bookmark) -> None:
    """Replace the bookmark as one step."""
    files.write_sealed(path, asdict(bookmark))


@contextmanager
def lock(path: Path, wait: bool) -> Iterator[None]:
    """Keep other writers of this bookmark away.

    Raises:
      RunDirectoryError: there is one, and `wait` is false.
    """
    files.make_folder(path.parent, path.parents[1])
    descriptor = files.open_own(path.with_suffix(".lock"), os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError as error:
        remedy = "the training does this itself; wait until it ends"
        raise errors.RunDirectoryError("another process copies to this sink", str(path), remedy) from error
    finally:
        os.close(descriptor)
