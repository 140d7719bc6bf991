"""manifest.json: what a checkpoint consists of. A checkpoint counts only if its manifest verifies.

A manifest is written last, when everything that it names is on the disk. Whoever reads one may have
got it from a stranger: nothing in it is opened, followed or built before it has been compared with
what lies in the folder.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn, TypeVar

from metarun import errors
from metarun.runs import files

Kind = TypeVar("Kind")

FORMAT = 1
NAME, STATE = "manifest.json", "state"
LARGEST = 16 * 1024 * 1024  # bytes of JSON: some 100,000 leaves


class Leaf(NamedTuple):
    """One array of the state."""

    shape: tuple[int, ...]
    dtype: str


class File(NamedTuple):
    """One file under state/."""

    bytes: int
    sha256: str


class Checkpoint(NamedTuple):
    """A checkpoint on the disk, as its manifest describes it."""

    path: Path
    stage: str
    step: int
    best: bool
    facts: dict[str, Any]  # the caller's own, as JSON
    leaves: dict[str, Leaf]  # by their path in the state: "state.weights['kernel']"
    files: dict[str, File]  # by their path under state/


def write(checkpoint: Checkpoint) -> None:
    """Records the files that lie under state/ now. Everything must be on the disk before."""
    content = {
        "format": FORMAT,
        "stage": checkpoint.stage,
        "step": checkpoint.step,
        "best": checkpoint.best,
        "facts": checkpoint.facts,
        "leaves": {name: leaf._asdict() for name, leaf in checkpoint.leaves.items()},
        "files": {name: _describe(path)._asdict() for name, path in _walk(checkpoint.path).items()},
    }
    files.write_json(checkpoint.path / NAME, content)


def read(path: Path) -> Checkpoint:
    """What the manifest of a checkpoint says, well formed but not compared with the files.

    Raises CheckpointError if there is none, or if it is damaged or of another format.
    """
    content = _load(path / NAME)
    if content.get("format") != FORMAT:
        _refuse(path, f"its manifest is of format {content.get('format')!r}; this metarun reads {FORMAT}")
    try:
        return Checkpoint(
            path=path,
            stage=_typed(content["stage"], str),
            step=_typed(content["step"], int),
            best=_typed(content["best"], bool),
            facts=_typed(content["facts"], dict),
            leaves={name: _leaf(leaf) for name, leaf in _typed(content["leaves"], dict).items()},
            files={_inside(name): _file(file) for name, file in _typed(content["files"], dict).items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        _refuse(path, f"its manifest is damaged: {error}", error)


def verify(path: Path) -> Checkpoint:
    """The checkpoint at a path, every byte of it compared with its manifest.

    Raises CheckpointError that names the first file which is missing, too many, or altered.
    """
    checkpoint = read(path)
    if (str(checkpoint.step), checkpoint.stage) != (path.name, path.parent.name):
        _refuse(path, f"its manifest is of step {checkpoint.step} of stage {checkpoint.stage!r}")
    try:
        found = _walk(path)
        for name in sorted(checkpoint.files.keys() ^ found.keys()):
            _refuse(path, f"{STATE}/{name} " + ("is not in its manifest" if name in found else "is missing"))
        for name, file in checkpoint.files.items():
            if _describe(found[name], file.bytes) != file:
                _refuse(path, f"{STATE}/{name} is not what was saved")
    except OSError as error:
        _refuse(path, f"it cannot be read: {error}", error)
    return checkpoint


def _walk(path: Path) -> Mapping[str, Path]:
    """All files under state/. A link or a device is nothing that we wrote, and could lead anywhere."""
    state = path / STATE
    entries = [state, *sorted(state.rglob("*"))]
    for entry in entries:
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            _refuse(path, f"{entry.relative_to(path)} is neither a file nor a folder")
    return {entry.relative_to(state).as_posix(): entry for entry in entries if entry.is_file()}


def _describe(path: Path, expected_bytes: int | None = None) -> File:
    """Size and hash; no hash if the size tells already that this is not the file."""
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
        _refuse(path.parent, "it has no manifest: it was never completed, or is none", error)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        _refuse(path.parent, f"its manifest cannot be read: {error}", error)


def _typed(value: Any, kind: type[Kind]) -> Kind:
    if type(value) is not kind:
        raise TypeError(f"{str(value)[:80]!r} should be of type {kind.__name__}")
    return value


def _leaf(content: dict[str, Any]) -> Leaf:
    shape = tuple(_natural(size) for size in _typed(content["shape"], list))
    return Leaf(shape, _typed(content["dtype"], str))


def _file(content: dict[str, Any]) -> File:
    return File(_natural(content["bytes"]), _typed(content["sha256"], str))


def _natural(value: Any) -> int:
    if _typed(value, int) < 0:
        raise ValueError(f"{value} is negative")
    return value


def _inside(name: str) -> str:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{name!r} leads out of the checkpoint")
    return name


def _refuse(path: Path, why: str, cause: Exception | None = None) -> NoReturn:
    remedy = "use another step of the same stage, or train again with --resume, which skips this one"
    raise errors.CheckpointError(f"the checkpoint cannot be used: {why}", str(path), remedy) from cause
