"""episodes/<stage>-<split>.npz: the values of every episode of a stage, read without trusting the file.

The file is an archive of arrays that are stored as they are, `mode/learner/metric.npy`. Nothing is unpacked that is
larger than the result of the run says, and nothing is loaded with pickle.
"""

import hashlib
import io
import math
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarun import errors
from metarun.runs import regular_files

REMEDY = "restore the file, or train again with `metarun train --resume`, which measures a run once more"
MOST_ARRAYS = 10_000  # in one file
MOST_OVERHEAD = 1024  # bytes of the archive and of the header for each array
SUFFIX = ".npy"
# What reading an archive may raise about its bytes.
DAMAGE = (OSError, ValueError, EOFError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile)

Shape = tuple[int, ...]


def read(file: Path, shapes: Collection[Shape], accepted: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Return {variant/metric: values} of all arrays of numbers; `group` beside them is left out.

    Args:
      shapes: that an array may have.
      accepted: SHA-256 that the file may have; empty: any, because the run does not say.

    Raises:
      DataError: the file or an array is missing, damaged, or not what the run has measured. Names both.
    """
    largest = max(math.prod(shape) for shape in shapes) * 8 + MOST_OVERHEAD
    try:
        with regular_files.open_file(file, MOST_ARRAYS * largest) as content:
            if accepted and _digest(content) not in accepted:
                raise ValueError("the file was changed after the result was written")
            content.seek(0)
            with zipfile.ZipFile(content) as archive:
                return _read_members(archive, shapes)
    except DAMAGE as error:
        said = f"{error.strerror}" if isinstance(error, OSError) else f"{error}"
        what = f"the values of the episodes are missing or damaged: {said or type(error).__name__}"
        raise errors.DataError(what, str(file), REMEDY) from error


def list_shapes(result: Mapping[str, Any], stage: str) -> set[Shape]:
    """Return the shapes that the arrays of a stage may have: [episode], and with replicas and members before it.

    A file of an older version of metarun has the mean over the replicas.

    Args:
      result: the content of result.json.
    """
    count = result["episodes"]["count"]
    members = result["stages"][stage].get("members")
    inner = (count,) if members is None else (len(members), count)
    return {inner, (len(result["seeds"]), *inner)} if "seeds" in result else {inner}


def refuse_missing(
    file: Path, start: str, values: Collection[str], summaries: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse a file without an array of a metric that the result summarises.

    Args:
      start: of the names of the arrays of one learner: mode/learner/.
      values: the metrics that there are.

    Raises:
      DataError: names the file and the array.
    """
    for metric in summaries:
        if metric not in values:
            what = f"the array {start}{metric} is missing, which the result of the run summarises"
            raise errors.DataError(what, str(file), REMEDY)


def refuse_not_finite(
    file: Path, values: Mapping[str, np.ndarray], summaries: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse values that are not finite where the result says of none, or of fewer episodes.

    Args:
      values: {metric: values} of one learner.
      summaries: {metric: {"mean", "ci95", "not_finite"}}, what the result says of it.

    Raises:
      DataError: names the file and the array.
    """
    for metric, column in values.items():
        failed = int((~np.isfinite(column)).reshape(-1, column.shape[-1]).any(axis=0).sum())
        told = summaries.get(metric, {})
        if failed and not told.get("not_finite") and np.isfinite(float(told.get("mean", 0.0))):
            what = (
                f"{metric}: the values of {failed} episodes are not finite, and the result says that all are"
            )
            raise errors.DataError(what, str(file), REMEDY)


def _read_members(archive: zipfile.ZipFile, shapes: Collection[Shape]) -> dict[str, np.ndarray]:
    members = archive.infolist()
    if len(members) > MOST_ARRAYS or len({member.filename for member in members}) < len(members):
        raise ValueError("it has too many arrays, or two of one name")
    columns = {}
    for member in members:
        name = member.filename.removesuffix(SUFFIX)
        if "/" not in name:  # the groups of the episodes, which nobody reads here
            continue
        try:
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("it is compressed")
            with archive.open(member) as stream:
                columns[name] = _read_array(stream, shapes)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"the array {name}: {error}") from error
    return columns


def _read_array(stream: Any, shapes: Collection[Shape]) -> np.ndarray:
    """Return an array, of which no byte is read before its shape and its type are known to be right."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it is of format {version}")
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, by_columns, dtype = read_header(stream)
    if dtype.hasobject or dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise ValueError(f"it is of type {dtype}, and not of numbers")
    if shape not in shapes:
        expected = " or ".join(str(list(allowed)) for allowed in sorted(shapes, key=len))
        raise ValueError(f"it has the shape {list(shape)}, and the run has measured {expected}")
    size = int(np.prod(shape)) * dtype.itemsize
    content = stream.read(size)
    if len(content) != size or stream.read(1):  # at the end the archive compares its checksum
        raise ValueError("it is cut short, or longer than it says")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C").copy()


def _digest(content: io.BufferedReader) -> str:
    return hashlib.file_digest(content, "sha256").hexdigest()
