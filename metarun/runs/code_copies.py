"""code/: a copy and the hash of the plug-ins from elsewhere that a run was trained with.

code/hashes.json     [{kind, name, sha256}], each with the folder of its copy
code/<kind>-<label>/ the files

A run is opened with the code that lies where its config says, and only if it still has this hash. The copies are never
run: they are there to be looked at, and to be put back.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from metarun import errors, outside
from metarun.outside import Code
from metarun.runs import files, regular_files

FOLDER, HASHES = "code", "hashes.json"


def settle(path: Path, codes: Iterable[Code]) -> None:
    """Write the copies of a new run. Compare the code with them if the run has them already.

    Raises:
      ConfigError: a run that is resumed was begun with other code.
    """
    codes = list(codes)
    records = read_records(path)
    if not records:
        write(path, codes)
    for code in codes:
        for record in records:
            if (record["kind"], record["name"]) == (code.kind, code.name):
                compare(path, record, code)


def check(path: Path, read_code: Callable[[str, str], Code] = outside.read_code) -> None:
    """Compare the code of every outside plug-in of a run with its hash.

    Raises:
      ConfigError: some code is gone, or is not what the run was trained with.
    """
    for record in read_records(path):
        try:
            code = read_code(record["kind"], record["name"])
        except errors.ConfigError as error:
            what = f"the {record['kind']} that the run was trained with is not where it was: {error.what}"
            raise errors.ConfigError(what, record["name"], make_remedy(path, record)) from error
        compare(path, record, code)


def compare(path: Path, record: dict[str, str], code: Code) -> None:
    """Raise ConfigError if the code is not that of the record."""
    if code.digest != record["sha256"]:
        what = (
            f"the {code.kind} {outside.make_label(code.name)} is not the code that the run was trained with"
        )
        raise errors.ConfigError(what, record["name"], make_remedy(path, record))


def make_remedy(path: Path, record: dict[str, str]) -> str:
    """Return what brings the code back."""
    copy = path / FOLDER / record["folder"]
    if outside.is_file_name(record["name"]):
        return f"put the copy back from {copy / Path(record['name']).name}, or train a new run"
    return f"install the version that is copied in {copy}, or train a new run"


def write(path: Path, codes: Iterable[Code]) -> None:
    """Write a copy of every code, and then the hashes of all."""
    records: list[dict[str, Any]] = []
    for code in codes:
        folder = f"{code.kind}-{outside.make_label(code.name)}"
        taken = sum(record["folder"].partition(".")[0] == folder for record in records)
        folder = f"{folder}.{taken}" if taken else folder
        for name, content in code.files.items():
            file = path / FOLDER / folder / name
            files.make_folder(file.parent, path)
            files.write_bytes(file, content)
        records.append({"kind": code.kind, "name": code.name, "sha256": code.digest, "folder": folder})
    if records:
        files.write_sealed(path / FOLDER / HASHES, {"codes": records})


def read_records(path: Path) -> list[dict[str, str]]:
    """Return the records of a run; none if all its plug-ins are metarun's own.

    Raises:
      DataError: the file of the hashes is damaged.
    """
    file = path / FOLDER / HASHES
    with files.storage_errors(file):
        try:
            records = regular_files.read_sealed(file)["codes"]
            keys = ("kind", "name", "sha256", "folder")
            if not all(isinstance(record[key], str) for record in records for key in keys):
                raise ValueError("a value is no text")
            if not all(record["kind"] in outside.GROUPS for record in records):
                raise ValueError("a kind is unknown")
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (ValueError, KeyError, TypeError) as error:
            what = f"the hashes of the run's own code cannot be read: {error}"
            raise errors.DataError(what, str(file), "restore the file, or train again") from error
    return list(records)
