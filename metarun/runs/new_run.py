"""The folder of a new run: `runs/<config name>/<UTC time>-<8 hex>`, which no other process gets."""

import contextlib
import datetime
import secrets
from collections.abc import Iterator
from pathlib import Path

from metarun import errors
from metarun.runs import directory, files

MOST_DRAWS = 100  # names for one run


@contextlib.contextmanager
def hold_folder(config_name: str, root: Path = Path("runs")) -> Iterator[Path]:
    """Make the folder of a new run; in the end, if it is still empty, remove it with those that it leaves empty.

    Raises:
      ConfigError: the name of the config can name no folder.
      StorageError: the disk refuses.
    """
    path = make_folder(config_name, root)
    try:
        yield path
    finally:
        directory.remove_empty(path)


def make_folder(config_name: str, root: Path = Path("runs")) -> Path:
    """Make and return the folder of a new run.

    The system makes a folder of a name once, so two processes never get the same: the second one draws another name.
    """
    group = files.child(root, config_name)
    with files.storage_errors(group):
        for _ in range(MOST_DRAWS):
            path = group / draw_name()
            # Another process may just remove the group, which it has left empty.
            with contextlib.suppress(FileNotFoundError):
                group.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    return path
    what, remedy = f"no folder could be made for the run in {MOST_DRAWS} tries", "choose one with --run-dir"
    raise errors.StorageError(what, str(group), remedy)


def draw_name() -> str:
    """Return the time and four random bytes: 20261122-064851-0f3a9c41."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
