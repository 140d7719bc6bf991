"""Which stage of another run somebody means: RUN, RUN/STAGE or RUN/checkpoints/STAGE/STEP.

sources.json   what a run has from others: {stages: {stage: where its weights come from}, extended: the run that it
               goes on with}; a run that has nothing from others has no such file
"""

import json
from pathlib import Path
from typing import Any

from metarun import errors, folders
from metarun.runs import catalogue, directory, files


def find_stage(name: str) -> tuple[Path, str | None, int | None]:
    """Return the whole path of the run that a name means, and the stage and the step where it says them.

    RUN is a path, or another name of a run; see `catalogue.resolve`.

    Raises:
      CheckpointError: there is no such run.
      UsageError: several runs have the name.
    """
    path = folders.expand_home(name)
    try:
        return split(catalogue.resolve(path))
    except errors.CheckpointError as missing:
        if path.parent in (Path(), path):
            raise
        try:
            run, stage, _ = split(catalogue.resolve(path.parent))
        except errors.CheckpointError:
            raise missing from None
        if stage is not None:  # a checkpoint, and something below it
            raise
        return run, path.name, None


def split(path: Path) -> tuple[Path, str | None, int | None]:
    """Return the run, the stage and the step of a run directory or of RUN/checkpoints/STAGE/STEP."""
    whole = path.resolve()
    if whole.parent.parent.name == "checkpoints" and whole.name.isdecimal():
        return whole.parents[2], whole.parent.name, int(whole.name)
    return whole, None, None


def read_records(run: Path) -> dict[str, Any]:
    """Return what a run has from other runs: the content of its sources.json; {} if it has nothing.

    Raises:
      DataError: the file is damaged.
    """
    file = run / directory.SOURCES
    with files.storage_errors(file):
        try:
            content = json.loads(file.read_text("utf-8"))
            if not isinstance(content, dict):
                raise ValueError("it is no JSON object")
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError) as error:
            what = f"what the run has from other runs cannot be read: {error}"
            raise errors.DataError(what, str(file), "restore the file, or train again") from error
    return content
