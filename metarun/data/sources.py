"""The files that a data set consists of. Knows no data set."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from metarun.data.storage import storage_errors
from metarun.errors import DataError

Progress = Callable[[int, int, str], None]  # (done, total, description); total is 0 if it is not known


class Source(NamedTuple):
    """One file of a data set, and where it is published."""

    file: str  # its path below the data root, with "/"; the first folder is the name of the data set
    urls: tuple[str, ...]  # tried in this order
    packed: str  # "md5:..." or "sha256:..." of the public download
    content: str  # SHA-256 of what the file holds, which is the same however it is packed
    bytes: int  # of the public download

    def path(self, root: Path) -> Path:
        """Return where the file lies below the data root."""
        return root / self.file

    @property
    def remedy(self) -> str:
        """What a user can do if the file is missing or damaged."""
        name = PurePosixPath(self.file).parts[0]
        return f"run `metarun data fetch {name}`, or set METARUN_DATA to the folder that holds {self.file}"


def stamp(source: Source, root: Path) -> dict[str, int | str]:
    """Identify a file without reading it. A file that was altered has another stamp.

    Raises:
      DataError: the file is missing.
      StorageError: this user may not look at it.
    """
    path = source.path(root)
    with storage_errors(f"cannot look at {source.file}", path, "METARUN_DATA"):
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(f"{source.file} is missing", str(path), source.remedy) from error
    return {"content": source.content, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
