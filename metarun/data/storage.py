"""The errors of full disks and closed folders, told apart from bugs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from metarun.errors import StorageError


@contextlib.contextmanager
def storage_errors(what: str, where: Path, variable: str) -> Iterator[None]:
    """Turn an OSError into a StorageError. `variable` is the setting that moves the folder."""
    try:
        yield
    except OSError as error:
        remedy = f"allow access there and free some space, or set {variable} to another folder"
        raise StorageError(f"{what}: {error.strerror or error}", str(where), remedy) from error
