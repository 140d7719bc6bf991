"""What a run keeps of its task family in `task.json`, so that it needs no training data to answer.

A copied run directory predicts anywhere with it, and a folder of training data that has changed since is noticed by
its fingerprint. Checkpoints hold the digest of this file in their manifests.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarun import errors
from metarun.runs import files, regular_files, seals, strict_json

FILE = "task.json"
MOST_BYTES = 1 << 26  # of the file; a vocabulary of 32,000 sub-words takes about one million
REMEDY = "restore the file from a copy of the run, or train again"


def write(run: Path, kept: Mapping[str, Any] | None) -> None:
    """Write what a task family keeps into a run directory, unless the same is there or it keeps nothing.

    Args:
      kept: as of `base.TaskFamily`.
    """
    if kept is not None and read(run) != kept:
        text = strict_json.encode_indented(dict(kept))
        seals.accept(run, FILE, text.encode())
        files.write_text(run / FILE, text)


def read(run: Path) -> dict[str, Any] | None:
    """Return what the task family of a run keeps; None: nothing, or the run is of an older version.

    Raises:
      CheckpointError: the file is damaged.
      StorageError: the file may not be read.
    """
    file = run / FILE
    with files.storage_errors(file):
        try:
            return regular_files.read_object(file, MOST_BYTES)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise errors.CheckpointError(f"{FILE} is damaged: {error}", str(file), REMEDY) from error
