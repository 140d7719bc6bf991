"""What a run keeps of its text: the vocabulary and the shapes that its learner is built from, and the split."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import jax
import numpy as np

from metarun.data.subwords import Subwords
from metarun.data.topics import Topics
from metarun.errors import CheckpointError

LARGEST = (1 << 31) - 1  # of a number that is read
MOST_TOKENS = 100_000  # of a sentence; `task.longest` is bounded so, too


class Record(NamedTuple):
    """What is kept, as it is used."""

    vocabulary: Subwords
    longest: int  # sub-words of a sentence
    groups: tuple[str, ...]  # names
    topics: Topics | None
    fingerprint: Mapping[str, Any]  # of the text
    files: tuple[str, ...]  # of the text, relative to its folder
    options: Mapping[str, Any]  # see `base.TaskFamily.kept`
    shapes: Mapping[str, Mapping[str, int]]  # {split: {rows, tasks, largest}}
    says: list[str]  # of the split, for results


def write(record: Record) -> dict[str, Any]:
    """Return what is kept as JSON values."""
    topics = record.topics
    return {
        "fingerprint": dict(record.fingerprint),
        "files": list(record.files),
        "options": dict(record.options),
        "says": list(record.says),
        "groups": list(record.groups),
        "shapes": {name: dict(sizes) for name, sizes in record.shapes.items()},
        "longest": record.longest,
        "topics": None
        if topics is None
        else {"labels": encode(topics.labels.astype("<u2").tobytes()), "names": list(topics.names)},
        "vocabulary": encode(record.vocabulary.model),
    }


def read(kept: Mapping[str, Any]) -> Record:
    """Return what a run has kept.

    Raises:
      CheckpointError: it is damaged.
      ConfigError: sentencepiece is not installed.
    """
    try:
        topics = kept["topics"]
        return Record(
            vocabulary=Subwords(decode(kept["vocabulary"])),
            longest=take_size(kept["longest"], MOST_TOKENS),
            groups=tuple(map(take_text, kept["groups"])),
            topics=None
            if topics is None
            else Topics(
                np.frombuffer(decode(topics["labels"]), "<u2").astype(np.int64),
                tuple(map(take_text, topics["names"])),
            ),
            fingerprint=dict(kept["fingerprint"]),
            files=tuple(map(take_place, kept["files"])),
            options=dict(kept["options"]),
            shapes={
                take_text(name): {key: take_size(sizes[key]) for key in ("rows", "tasks", "largest")}
                for name, sizes in kept["shapes"].items()
            },
            says=list(map(take_text, kept["says"])),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"what the run has kept of its text is damaged: {error}"
        raise CheckpointError(
            what, "task.json", "restore it from a copy of the run, or train again"
        ) from error


def describe_shapes(data: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, int]]:
    """Return the sizes that the arrays of each split have."""
    return {
        name: {
            "rows": len(arrays["tokens"]),
            "tasks": len(arrays["count"]),
            "largest": len(arrays["member"]),
        }
        for name, arrays in data.items()
    }


def outline_data(record: Record) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Return the arrays of every split as shapes; see `sentence_tables.make_table`."""

    def shape(*sizes: int, dtype: Any = np.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype)

    return {
        name: {
            "tokens": shape(sizes["rows"], 2, record.longest + 1),
            "sentence": shape(sizes["rows"]),
            "backward": shape(sizes["tasks"], dtype=np.bool_),
            **{key: shape(sizes["tasks"]) for key in ("start", "count", "task", "topic")},
            "member": shape(sizes["largest"]),
        }
        for name, sizes in record.shapes.items()
    }


def encode(content: bytes) -> str:
    """Return bytes as text."""
    return base64.b64encode(content).decode("ascii")


def decode(text: Any) -> bytes:
    """Return the bytes of `encode`, or raise ValueError or TypeError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def take_size(value: Any, most: int = LARGEST) -> int:
    """Return a whole number from 1 to `most`, or raise ValueError."""
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{value!r} is no size")
    return value


def take_text(value: Any) -> str:
    """Return a text, or raise ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def take_place(value: Any) -> str:
    """Return a path below a folder, or raise ValueError."""
    path = PurePosixPath(take_text(value))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{value!r} leads out of the folder")
    return str(path)
