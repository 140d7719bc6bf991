"""Seals: what the checkpoints and the result of a run say of the files that they rest on.

A manifest and result.json hold {"config.yaml": [SHA-256, ...], "task.json": [...]}, of these files as they were. An
edited config would give other numbers under the name of the run, so whoever opens a run compares them first. A run that
is resumed may write its config anew, with another cadence of checkpoints for instance. Before it does, every seal
accepts the new content beside the present one, so that there is no moment at which the two do not fit.

A run of an older version of metarun has no seals, and nothing is compared.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from metarun import errors
from metarun.runs import files, manifest, regular_files, strict_json
from metarun.runs.manifest import Sealed

# The files that are compared, in this order, each with the most bytes that it may have to be read at all.
SEALED = {"config.yaml": regular_files.MOST_TEXT, "task.json": regular_files.MOST_JSON}
RESULT = "result.json"
KEY = "sealed"  # in result.json
KEEP_EDIT = "put the file back as it was; options of the evaluation are overrides, such as evaluation.shots=5"


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    return hashlib.sha256(content).hexdigest()


def digest_file(path: Path, most: int | None = None) -> str | None:
    """Return the SHA-256 of a file, in hex; None: there is none, or it cannot be read, or it is too large.

    Args:
      most: bytes; None: any number. Without it, a sparse file of 40 GB takes a minute.
    """
    try:
        with regular_files.open_file(path, most) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def take(run: Path) -> Sealed:
    """Return the seal of the files of a run as they are now."""
    digests = _digest_all(run)
    return {name: (value,) for name, value in digests.items() if value is not None}


def check(run: Path) -> None:
    """Compare the files of a run with every seal that there is.

    Raises:
      CheckpointError: one is not what a checkpoint or the result was made with, or is gone.
      StorageError: the disk refuses to list the checkpoints.
    """
    now = _digest_all(run)
    for holder, sealed in list_seals(run):
        for name in SEALED:
            if name in sealed and now[name] not in sealed[name]:
                change = "is gone or cannot be read" if now[name] is None else "was changed"
                what = f"{name} {change} after {holder.relative_to(run).as_posix()} was written"
                raise errors.CheckpointError(what, str(run / name), KEEP_EDIT)


def accept(run: Path, name: str, content: bytes) -> None:
    """Let every seal accept the content that a file of the run is about to have, beside the one that it has.

    Raises:
      StorageError: the disk refuses.
    """
    new, now = digest(content), digest_file(run / name, SEALED[name])
    for holder, sealed in list_seals(run):
        accepted = sealed.get(name)
        if accepted is None or new in accepted or holder.is_symlink():  # nothing is written behind a link
            continue
        whole = {**sealed, name: (*[value for value in accepted if value == now], new)}
        if holder.name == RESULT:
            files.write_sealed(holder, regular_files.read_sealed(holder) | {KEY: whole})
        else:
            manifest.write_seal(holder, whole)


def _digest_all(run: Path) -> dict[str, str | None]:
    return {name: digest_file(run / name, most) for name, most in SEALED.items()}


def seal_result(run: Path, sealed: Sealed, result: dict[str, Any], places: Iterable[str]) -> dict[str, Any]:
    """Return a result with the digests of what it rests on, and of itself.

    Args:
      sealed: of the files of the run.
      places: of the files with the values of the episodes, below the run.
    """
    digests = {place: digest_file(run / place) for place in places}
    whole = {**sealed, **{place: (value,) for place, value in digests.items() if value is not None}}
    return strict_json.seal(result | {KEY: whole})


def list_seals(run: Path) -> Iterator[tuple[Path, Sealed]]:
    """Yield (checkpoint or result.json, its seal) of a run.

    What is damaged has none here: it is refused where it is read.
    """
    for path in list_checkpoints(run):
        with contextlib.suppress(errors.CheckpointError):
            yield path, manifest.read(path).sealed
    with contextlib.suppress(OSError, ValueError):
        yield run / RESULT, read_result_seal(run)


def read_result_seal(run: Path) -> Sealed:
    """Return the seal in the result of a run; {} if there is none, as in a run of an older version.

    Raises:
      OSError, ValueError: the result cannot be read.
    """
    return parse(regular_files.read_sealed(run / RESULT).get(KEY, {}))


def parse(content: Any) -> Sealed:
    """Return the seal in a JSON object.

    Raises:
      ValueError: it is none.
    """
    try:
        return manifest.parse_seal(content)
    except TypeError as error:
        raise ValueError(f"its seal is damaged: {error}") from error


def list_checkpoints(run: Path) -> list[Path]:
    """Return the folders of all checkpoints of a run, by stage and step. Raises StorageError."""
    folder = run / "checkpoints"
    with files.storage_errors(folder):
        if not folder.is_dir():  # it is gone, or its links lead back to themselves
            return []
        stages = sorted(path for path in folder.iterdir() if path.is_dir())
        steps = [
            (stage, step, path)
            for stage in stages
            for path in stage.iterdir()
            if (step := manifest.parse_step(path.name)) is not None
        ]
    return [path for _, _, path in sorted(steps)]
