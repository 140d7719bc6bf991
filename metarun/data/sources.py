"""What a data-set module says of its files. Knows no data set."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from metarun.data.storage import storage_errors
from metarun.errors import DataError

Progress = Callable[[int, int, str], None]  # (done, total, description); total 0 when it is not known


class Source(NamedTuple):
    """One file of a data set, and where the public one is."""

    file: str  # below the data root, separated by "/"; its first folder is the name of the data set
    urls: tuple[str, ...]  # tried in this order
    packed: str  # "md5:..." or "sha256:..." of the public download
    content: str  # SHA-256 of what the file holds: the same however it is packed
    bytes: int  # of the public download

    def path(self, root: Path) -> Path:
        """Where the file lies below the data root."""
        return root / self.file

    @property
    def remedy(self) -> str:
        """What to do when the file is missing or not what it should be."""
        name = PurePosixPath(self.file).parts[0]
        return f"run `metarun data fetch {name}`, or set METARUN_DATA to the folder that holds {self.file}"


def stamp(source: Source, root: Path) -> dict[str, int | str]:
    """Identifies the file as it lies there without reading it: a file that was altered has another stamp.

    Raises DataError when it is missing, StorageError when it may not be looked at.
    """
    path = source.path(root)
    with storage_errors(f"cannot look at {source.file}", path, "METARUN_DATA"):
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(f"{source.file} is missing", str(path), source.remedy) from error
    return {"content": source.content, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
