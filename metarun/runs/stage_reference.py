"""Which stage of another run somebody means: RUN, RUN/STAGE or RUN/checkpoints/STAGE/STEP.

sources.json   what a run has from others: {stages: {stage: where its weights come from}, extended: the run that it
               goes on with}; a run that has nothing from others has no such file
"""

from pathlib import Path
from typing import Any

from metarun import errors, folders
from metarun.runs import catalogue, directory, files, manifest, regular_files, seals


def find_stage(name: str) -> tuple[Path, str | None, int | None]:
    """Return the whole path of the run that a name means, and the stage and the step where it says them.

    RUN is a path, or another name of a run; see `catalogue.resolve`.

    Raises:
      CheckpointError: there is no such run, or its config is not the one that it was trained with.
      UsageError: several runs have the name.
    """
    run, stage, step = look_for(name)
    seals.check(run)
    return run, stage, step


def look_for(name: str) -> tuple[Path, str | None, int | None]:
    """Return what `find_stage` does, without a look at the run."""
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
    step = manifest.parse_step(whole.name)
    if whole.parent.parent.name == "checkpoints" and step is not None:
        return whole.parents[2], whole.parent.name, step
    return whole, None, None


def read_records(run: Path) -> dict[str, Any]:
    """Return what a run has from other runs: the content of its sources.json; {} if it has nothing.

    Raises:
      DataError: the file is damaged.
    """
    file = run / directory.SOURCES
    with files.storage_errors(file):
        try:
            content = regular_files.read_sealed(file)
            check_records(content)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            what = f"what the run has from other runs cannot be read: {error}"
            raise errors.DataError(what, str(file), "restore the file, or train again") from error
    return content


def check_records(content: dict[str, Any]) -> None:
    """Raise ValueError if sources.json does not say of every stage, and of an extended run, what it must."""
    records = content.get("stages", {})
    if not isinstance(records, dict):
        raise ValueError("stages is no JSON object")
    for name, record in [*records.items(), ("extended", content.get("extended"))]:
        if record is None and name == "extended":
            continue
        keys = ("run", "stage") if record is content.get("extended") else ("run", "stage", "key")
        if not isinstance(record, dict) or not all(isinstance(record.get(key), str) for key in keys):
            raise ValueError(f"what it says of {name} is not whole")
        if not isinstance(record.get("step"), int):
            raise ValueError(f"what it says of {name} has no step")
        parts = record.get("parts") or {}
        if not isinstance(parts, dict) or not all(isinstance(cost, dict) for cost in parts.values()):
            raise ValueError(f"what it says of the cost of {name} is not whole")
