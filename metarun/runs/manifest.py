"""manifest.json: what a checkpoint consists of. A checkpoint counts only if its manifest verifies.

A manifest is written last, when everything that it names is on the disk. It may come from a stranger, so nothing in
it is opened, followed or built before it has been compared with the files in the folder.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, TypeVar

from metarun import errors
from metarun.runs import files, regular_files, strict_json

Kind = TypeVar("Kind")
Sealed = Mapping[str, tuple[str, ...]]  # {file of the run: the SHA-256 that it may have}; see `runs.seals`

FORMAT = 3  # 1 had one folder, state/, for weights and memory together
UNSEALED = 2  # this format had no digest of the manifest itself, nor of the run's config
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


class Skipped(NamedTuple):
    """A checkpoint that could not be used, in the place of which an older one was."""

    path: Path
    why: str


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
    sealed: Sealed = MappingProxyType({})  # of the run that it was saved in; empty: an older version wrote it
    skipped: tuple[Skipped, ...] = ()  # newer ones that were passed over when this one was chosen


def parse_step(name: str) -> int | None:
    """Return the step that a folder of this name holds; None: it holds none.

    Only a name that is its number again counts, so that no two names mean the same step: not 007, +5, 1_0 or ٣.
    """
    return int(name) if re.fullmatch("0|[1-9][0-9]{0,17}", name) else None


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
        "sealed": checkpoint.sealed,
    }
    _write_content(checkpoint.path, content)


def write_seal(path: Path, sealed: Sealed) -> None:
    """Replace what a checkpoint holds of its run, as one step; all else in its manifest stays.

    Raises:
      CheckpointError: the manifest is damaged.
      StorageError: the disk refuses.
    """
    read(path)
    _write_content(path, _load(path) | {"format": FORMAT, "sealed": sealed})


def _write_content(path: Path, content: dict[str, Any]) -> None:
    plain = {name: list(digests) for name, digests in content["sealed"].items()}
    files.write_json(path / NAME, strict_json.seal(content | {"sealed": plain}))


def read(path: Path) -> Checkpoint:
    """Return what the manifest of a checkpoint says. It is well formed, but not compared with the files.

    Raises:
      OldCheckpointError: an older version of metarun wrote it.
      CheckpointError: there is no manifest, or it is damaged, edited, or of an unknown format.
    """
    content = _load(path)
    _refuse_other_format(path, content)
    try:
        sealed = _open_seal(content)
        return Checkpoint(
            path=path,
            stage=_typed(content["stage"], str),
            step=_parse_natural(content["step"]),
            best=_typed(content["best"], bool),
            facts=_typed(content["facts"], dict),
            leaves={name: _parse_leaf(leaf) for name, leaf in _typed(content["leaves"], dict).items()},
            files={
                _check_name(name): _parse_file(file) for name, file in _typed(content["files"], dict).items()
            },
            sealed=sealed,
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
    """Return the content of the manifest of a checkpoint, as it stands."""
    try:
        return regular_files.read_object(path / NAME, LARGEST)
    except FileNotFoundError as error:
        _refuse(path, "it has no manifest: it was never completed, or this is no checkpoint", error)
    except (OSError, ValueError) as error:
        _refuse(path, f"its manifest cannot be read: {error}", error)


def _open_seal(content: dict[str, Any]) -> Sealed:
    """Return what a manifest holds of its run, after comparing the manifest with the digest of itself.

    A manifest of format 2 has neither, and is taken as it is.
    """
    if content["format"] == UNSEALED:
        return {}
    strict_json.open_seal({strict_json.SEAL: None} | content)  # a missing digest is a wrong one
    return parse_seal(content["sealed"])


def parse_seal(content: Any) -> Sealed:
    """Return the seal in a JSON object.

    Raises:
      TypeError: it is none.
    """
    return {
        name: tuple(_typed(value, str) for value in _typed(values, list))
        for name, values in _typed(content, dict).items()
    }


def parse_diverged(facts: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Return the (replica, step) of trials that have diverged, from the facts of a checkpoint; () if there are none.

    Raises:
      TypeError, ValueError: the facts say something else there.
    """
    pairs = [_typed(pair, list) for pair in _typed(facts.get("diverged", []), list)]
    return tuple((_parse_natural(replica), _parse_natural(step)) for replica, step in pairs)


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


def _refuse_other_format(path: Path, content: dict[str, Any]) -> None:
    """Refuse formats that this version does not read, and a number that was changed, beside a digest."""
    number = content.get("format")
    if strict_json.SEAL in content and number in range(1, FORMAT):
        _refuse(path, f"its manifest is damaged: format {number} has no digest of itself")
    if number in range(1, UNSEALED):
        what = "the checkpoint was written by an older version of metarun"
        remedy = "open it with the metarun version in the run's environment.json, or train again in another --run-dir"
        raise OldCheckpointError(what, str(path), remedy)
    if type(number) is not int or number not in range(UNSEALED, FORMAT + 1):
        _refuse(path, f"its manifest is of format {str(number)[:40]!r}; this metarun reads {FORMAT}")


def _refuse(path: Path, why: str, cause: Exception | None = None) -> NoReturn:
    remedy = "use another step of the same stage, or train again with --resume, which skips this one"
    raise errors.CheckpointError(f"the checkpoint cannot be used: {why}", str(path), remedy) from cause
