"""A list of picture files with their classes, as an editor or a spreadsheet writes it.

    file,label
    photos/0007.jpg,cat
    photos/0012.jpg,

The first line names the columns. A path is relative to the folder of the list. A row without a label stands for a
picture that nobody has labelled yet. Other columns are passed over, and the separator may be a comma, a semicolon or
a tab.
"""

import csv
from pathlib import Path
from typing import NamedTuple

from metarun.data import examples
from metarun.errors import DataError

FILE, LABEL = "file", "label"
SEPARATORS = (",", ";", "\t")
LAYOUT = "let the first line be `file,label`, and write a path and its class on each of the others"


class Row(NamedTuple):
    """One line of the list."""

    line: str  # as it stands there
    file: Path  # whole, or relative to the working folder
    label: str  # "" if nobody has labelled the picture yet
    others: dict[str, str]  # what stands in columns of another name


class Labels(NamedTuple):
    """A list that was read."""

    columns: tuple[str, ...]
    separator: str
    rows: tuple[Row, ...]

    def by_file(self) -> dict[Path, str]:
        """Return {resolved file: label} of the rows that have a label."""
        return {row.file.resolve(): row.label for row in self.rows if row.label}


def read_labels(path: Path) -> Labels:
    """Read a list of files with their classes.

    Raises:
      DataError: there is no such file, it has no columns `file` and `label`, a row is broken or has no file, or one
        file has two different labels.
    """
    lines = examples.read_lines(path)
    head = next((number for number, line in enumerate(lines) if line.strip()), None)
    if head is None:
        raise DataError("the list of labels is empty", str(path), LAYOUT)
    separator = next((sign for sign in SEPARATORS if sign in lines[head]), ",")
    columns = tuple(name.lower() for name in _split(path, head + 1, lines[head], separator))
    if FILE not in columns or LABEL not in columns:
        raise DataError("the first line names no columns `file` and `label`", str(path), LAYOUT)
    rows = [
        _read_row(path, number, line, columns, separator)
        for number, line in enumerate(lines[head + 1 :], start=head + 2)
        if line.strip(f" {separator}")
    ]
    _refuse_two_labels(path, rows)
    return Labels(columns, separator, tuple(rows))


def _read_row(path: Path, number: int, line: str, columns: tuple[str, ...], separator: str) -> Row:
    cells = dict(zip(columns, _split(path, number, line, separator), strict=False))
    if not cells.get(FILE) or "\0" in cells[FILE]:
        raise DataError(f"line {number} names no file", str(path), LAYOUT)
    file, label = cells.pop(FILE), cells.pop(LABEL, "")
    return Row(line, path.parent / file, label, cells)


def _split(path: Path, number: int, line: str, separator: str) -> list[str]:
    """Return the cells of a line. No cell goes over the end of its line."""
    try:
        return [cell.strip() for row in csv.reader([line], delimiter=separator, strict=True) for cell in row]
    except csv.Error as error:
        raise DataError(f"line {number} is no CSV: {error}", str(path), "repair the line") from error


def _refuse_two_labels(path: Path, rows: list[Row]) -> None:
    known: dict[Path, str] = {}
    for row in rows:
        label = known.setdefault(row.file.resolve(), row.label) or row.label
        if row.label and label != row.label:
            what = f"{row.file.name} has the labels {label} and {row.label}"
            raise DataError(what, str(path), "keep one of the two rows")
        known[row.file.resolve()] = label
