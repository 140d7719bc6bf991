"""Files of weights in the safetensors format, which nobody vouches for: the header is checked before all else.

The format is eight bytes with the length of the header, the header in JSON, and the bytes of the arrays. It is read
here and not by the package of that name, because the checks of this module are stricter, numpy has no bfloat16, and
anything wrong must become three plain lines. The file is mapped into memory, so an array takes memory only while it is
read. Nothing is loaded with pickle.
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarun.errors import DataError

MOST_HEADER = 1 << 23  # bytes; that of the largest published networks for pictures has less than 2^19
MOST_ARRAYS = 1 << 16
MOST_AXES = 8
# Bytes of one number of each type that may stand in a file; of these only the types of WEIGHTS are read.
BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
BYTES |= {"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}
WEIGHTS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar")
CONVERSION = (
    'python -c "import torch, safetensors.torch as s; '
    "s.save_file(torch.load('IN', weights_only=True), 'OUT.safetensors')\" with the packages torch and safetensors"
)
REMEDY = "give a whole .safetensors file; docs/backbones.md says which"


class Entry(NamedTuple):
    """Where one array lies in the file."""

    dtype: str  # a key of BYTES
    shape: tuple[int, ...]
    start: int  # of its bytes, from the beginning of the file


@dataclass(frozen=True)
class WeightFile:
    """A file whose header is in order."""

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def read(self, name: str) -> np.ndarray:
        """Return an array as float32; where the file has float32, it is a view of the mapped file.

        Raises:
          DataError: it is of another type than float32, float16 and bfloat16, it holds an infinity or a NaN, or the
            file has become shorter.
        """
        entry = self.entries[name]
        if entry.dtype not in WEIGHTS:
            raise _refuse(self.path, f"{name!r} has the type {entry.dtype}: weights are F32, F16 or BF16")
        try:
            whole = np.memmap(self.path, np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise _refuse(self.path, f"the file cannot be read: {error}") from error
        length = math.prod(entry.shape) * BYTES[entry.dtype]
        if entry.start + length > len(whole):
            raise _refuse(self.path, f"the file ends before the array {name!r}")
        raw = np.ndarray(entry.shape, WEIGHTS[entry.dtype], whole, entry.start)
        if entry.dtype == "BF16":
            values = (raw.astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise _refuse(self.path, f"the array {name!r} holds a number that is not finite")
        return values

    def digest(self) -> str:
        """Return the SHA-256 of the file's bytes, 64 hexadecimal digits."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def open_file(path: Path) -> WeightFile:
    """Read the header of a file of weights, and nothing else.

    Raises:
      DataError: there is no such file, it is of another format, or its header is damaged or does not fit the file.
    """
    if not path.exists():
        raise DataError(f"there is no {path.name}", str(path), "give the path of a .safetensors file")
    if not path.is_file():  # opening a pipe would never return
        raise _refuse(path, f"{path.name} is no file")
    try:
        with path.open("rb") as stream:
            begin = stream.read(8)
            _refuse_other_formats(path, begin)
            size, (length,) = path.stat().st_size, struct.unpack("<Q", begin)
            if length > min(MOST_HEADER, size - 8):
                raise _refuse(path, f"the header is said to have {length:,} bytes, in a file of {size:,}")
            text = stream.read(length)
    except OSError as error:
        raise _refuse(path, f"the file cannot be read: {error}") from error
    header = _parse(path, text)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refuse(path, "the metadata of the header are not texts by their names")
    return WeightFile(path, _check_entries(path, header, 8 + length, size), metadata)


def _refuse(path: Path, what: str) -> DataError:
    return DataError(what, str(path), REMEDY)


def _refuse_other_formats(path: Path, begin: bytes) -> None:
    """Raise DataError if the first bytes, or the name, are those of a pickle or of too short a file."""
    is_pickled = begin.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04"))
    if is_pickled or path.suffix.lower() in PICKLED:
        what = (
            f"{path.name} is a file of PyTorch's, which can run any code when it is loaded, and is not read"
        )
        raise DataError(what, str(path), f"convert it where you trust it: {CONVERSION}")
    if len(begin) < 8:
        raise _refuse(path, f"{path.name} has {len(begin)} bytes and no header")


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    """Return the header as a dict."""

    def refuse_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name stands there twice")
        return found

    def refuse_constant(name: str) -> None:
        raise ValueError(f"{name} is no number")

    try:
        header = json.loads(
            text.decode("utf-8"), object_pairs_hook=refuse_doubles, parse_constant=refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise _refuse(path, f"the header is not the JSON of safetensors: {str(error)[:200]}") from error
    if not isinstance(header, dict):
        raise _refuse(path, "the header is not an object of JSON")
    if len(header) > MOST_ARRAYS:
        raise _refuse(path, f"the header names {len(header):,} arrays")
    return header


def _check_entries(path: Path, header: dict[str, Any], first: int, size: int) -> dict[str, Entry]:
    """Return the arrays of a header, which must fill the file from `first` to its end, without gap or overlap."""
    spans: list[tuple[int, int, str]] = []
    entries: dict[str, Entry] = {}
    for name, value in header.items():
        dtype, shape, (start, end) = _check_entry(path, name, value)
        entries[name] = Entry(dtype, shape, first + start)
        spans.append((start, end, name))
    place = 0
    for start, end, name in sorted(spans):
        if start != place:
            raise _refuse(path, f"the array {name!r} begins at byte {start:,} and not at {place:,}")
        place = end
    if first + place != size:
        raise _refuse(path, f"the arrays end at byte {first + place:,}, and the file at {size:,}")
    return entries


def _check_entry(path: Path, name: str, value: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """Return type, shape and span of one array of the header."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _refuse(path, f"the array {name[:100]!r} has no dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise _refuse(path, f"the array {name[:100]!r} has the unknown type {str(dtype)[:20]!r}")
    if not _is_whole_list(shape) or len(shape) > MOST_AXES:
        raise _refuse(path, f"the array {name[:100]!r} has no shape of at most {MOST_AXES} whole numbers")
    if not _is_whole_list(offsets) or len(offsets) != 2:
        raise _refuse(path, f"the array {name[:100]!r} has no two offsets")
    start, end = offsets
    if end - start != math.prod(shape) * BYTES[dtype]:
        what = f"the array {name[:100]!r} of shape {str(tuple(shape))[:100]} does not fill its {end - start:,} bytes"
        raise _refuse(path, what)
    return dtype, tuple(shape), (start, end)


def _is_whole_list(value: Any) -> bool:
    """Return whether a value is a list of whole numbers that a file can have bytes for."""
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 1 << 48 for number in value)
