"""manifest.json: what a checkpoint consists of. A checkpoint counts only if its manifest verifies.

A manifest is written last, when everything that it names is on the disk. It may come from a stranger, so nothing in
it is opened, followed or built before it has been compared with the files in the folder.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn, TypeVar

from metarun import errors
from metarun.runs import files

Kind = TypeVar("Kind")

FORMAT = 2  # 1 had one folder, state/, for weights and memory together
NAME, WEIGHTS, MEMORY = "manifest.json", "weights", "memory"
LARGEST = 16 * 1024 * 1024  # bytes of JSON, enough for some 100,000 leaves


class OldCheckpointError(errors.CheckpointError):
    """A checkpoint was written by a version of metarun whose format this one no longer reads."""


class Leaf(NamedTuple):
    """The shape and dtype of one array."""

    shape: tuple[int, ...]
    dtype: str


class File(NamedTuple):
    """The size and hash of one file."""

    bytes: int
    sha256: str


class Checkpoint(NamedTuple):
    """A checkpoint on the disk, as its manifest describes it."""

    path: Path
    stage: str
    step: int
    best: bool
    facts: dict[str, Any]  # values of the caller, as JSON
    # By the name of the array, which begins with its folder: "weights.trained['kernel']", "memory[0].mu['kernel']".
    leaves: dict[str, Leaf]
    files: dict[str, File]  # by their path in the checkpoint: "weights/d/..."


def write(checkpoint: Checkpoint) -> None:
    """Write the manifest of the files that lie in the folder now. All of them must be on the disk already."""
    content = {
        "format": FORMAT,
        "stage": checkpoint.stage,
        "step": checkpoint.step,
        "best": checkpoint.best,
        "facts": checkpoint.facts,
        "leaves": {name: leaf._asdict() for name, leaf in checkpoint.leaves.items()},
        "files": {name: _describe(path)._asdict() for name, path in _list_files(checkpoint.path).items()},
    }
    files.write_json(checkpoint.path / NAME, content)


def read(path: Path) -> Checkpoint:
    """Return what the manifest of a checkpoint says. It is well formed, but not compared with the files.

    Raises:
      OldCheckpointError: an older version of metarun wrote it.
      CheckpointError: there is no manifest, or it is damaged or of an unknown format.
    """
    content = _load(path / NAME)
    _refuse_other_format(path, content.get("format"))
    try:
        return Checkpoint(
            path=path,
            stage=_typed(content["stage"], str),
            step=_typed(content["step"], int),
            best=_typed(content["best"], bool),
            facts=_typed(content["facts"], dict),
            leaves={name: _parse_leaf(leaf) for name, leaf in _typed(content["leaves"], dict).items()},
            files={
                _check_name(name): _parse_file(file) for name, file in _typed(content["files"], dict).items()
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        _refuse(path, f"its manifest is damaged: {error}", error)


def verify(path: Path) -> Checkpoint:
    """Return the checkpoint at a path after comparing every byte with its manifest.

    The folder `memory/` may be absent as a whole.

    Raises:
      CheckpointError: a file is missing, altered, or not in the manifest. The message names the first one.
    """
    checkpoint = read(path)
    if (str(checkpoint.step), checkpoint.stage) != (path.name, path.parent.name):
        _refuse(path, f"its manifest is of step {checkpoint.step} of stage {checkpoint.stage!r}")
    try:
        present = _list_files(path)
        described = checkpoint.files
        if not (path / MEMORY).exists():
            described = {name: file for name, file in described.items() if not name.startswith(f"{MEMORY}/")}
        for name in sorted(described.keys() ^ present.keys()):
            _refuse(path, f"{name} " + ("is not in its manifest" if name in present else "is missing"))
        for name, file in described.items():
            if _describe(present[name], file.bytes) != file:
                _refuse(path, f"{name} is not what was saved")
    except OSError as error:
        _refuse(path, f"it cannot be read: {error}", error)
    return checkpoint


def _list_files(path: Path) -> Mapping[str, Path]:
    """Return the files under weights/ and memory/.

    A link or a device is refused: metarun writes none, and it could lead anywhere.
    """
    folders = [path / WEIGHTS, *([path / MEMORY] if (path / MEMORY).exists() else [])]
    entries = [entry for folder in folders for entry in (folder, *sorted(folder.rglob("*")))]
    for entry in entries:
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            _refuse(path, f"{entry.relative_to(path)} is neither a file nor a folder")
    return {entry.relative_to(path).as_posix(): entry for entry in entries if entry.is_file()}


def _describe(path: Path, expected_bytes: int | None = None) -> File:
    """Return size and hash. The hash is left out if the size already shows that this is another file."""
    size = path.stat().st_size
    if expected_bytes is not None and size != expected_bytes:
        return File(size, "")
    with path.open("rb") as content:
        return File(size, hashlib.file_digest(content, "sha256").hexdigest())


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            _refuse(path.parent, f"its manifest is larger than {LARGEST} bytes")
        return _typed(json.loads(content), dict)
    except FileNotFoundError as error:
        _refuse(path.parent, "it has no manifest: it was never completed, or this is no checkpoint", error)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        _refuse(path.parent, f"its manifest cannot be read: {error}", error)


def _typed(value: Any, kind: type[Kind]) -> Kind:
    if type(value) is not kind:
        raise TypeError(f"{str(value)[:80]!r} should be of type {kind.__name__}")
    return value


def _parse_leaf(content: dict[str, Any]) -> Leaf:
    shape = tuple(_parse_natural(size) for size in _typed(content["shape"], list))
    return Leaf(shape, _typed(content["dtype"], str))


def _parse_file(content: dict[str, Any]) -> File:
    return File(_parse_natural(content["bytes"]), _typed(content["sha256"], str))


def _parse_natural(value: Any) -> int:
    if _typed(value, int) < 0:
        raise ValueError(f"{value} is negative")
    return value


def _check_name(name: str) -> str:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{name!r} leads out of the checkpoint")
    return name


def _refuse_other_format(path: Path, number: Any) -> None:
    if type(number) is int and 0 < number < FORMAT:
        what = "the checkpoint was written by an older version of metarun"
        remedy = "open it with the metarun version in the run's environment.json, or train again in another --run-dir"
        raise OldCheckpointError(what, str(path), remedy)
    if number != FORMAT:
        _refuse(path, f"its manifest is of format {number!r}; this metarun reads {FORMAT}")


def _refuse(path: Path, why: str, cause: Exception | None = None) -> NoReturn:
    remedy = "use another step of the same stage, or train again with --resume, which skips this one"
    raise errors.CheckpointError(f"the checkpoint cannot be used: {why}", str(path), remedy) from cause
