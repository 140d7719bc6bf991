"""A user's own examples: class folders of pictures, tables of numbers, pairs of sentences.

Anything wrong with them is a DataError that names the file, and the line if there is one.
"""

import csv
import itertools
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarun.data import picture_files, text_lines
from metarun.errors import DataError

MOST_BYTES = 1 << 28  # of a text file
SHOWN = 100  # letters of a cell in an error
# `splitlines` would also split at signs inside a sentence, such as U+2028.
LINE_END = re.compile("\r\n|\n|\r")

CLASS_LAYOUT = "give a folder with a subfolder of pictures for each class: SUPPORT/<class>/*.png"


class Table(NamedTuple):
    """The rows of a CSV file."""

    names: tuple[str, ...]  # of all columns, from the header; empty if there is none
    numbers: np.ndarray  # float32 [row, column]
    labels: tuple[str, ...]  # [row], the class names in the last column; empty if the table has none


def list_classes(root: Path) -> dict[str, list[Path]]:
    """Return {class: its pictures} of the subfolders of `root`, all sorted by name. Reads no picture.

    Raises:
      DataError: `root` is no folder, has fewer than two subfolders, or one of them has no picture.
    """
    _expect_folder(root, CLASS_LAYOUT)
    folders = [path for path in text_lines.list_visible(root) if path.is_dir()]
    if len(folders) < 2:
        fault = f"only one class folder, {folders[0].name}" if folders else "no class folders"
        raise DataError(f"the support has {fault}", str(root), CLASS_LAYOUT)
    return {folder.name: _list_pictures(folder) for folder in folders}


def list_queries(paths: list[Path]) -> list[Path]:
    """Return the files among these paths, and the pictures of the folders among them and of their subfolders.

    Raises:
      DataError: there is no such file, or no picture in a folder.
    """
    queries: list[Path] = []
    for path in paths:
        if path.is_dir():
            folders = [path, *(folder for folder in text_lines.list_visible(path) if folder.is_dir())]
            files = itertools.chain.from_iterable(map(text_lines.list_visible, folders))
            queries += filter(picture_files.is_picture, files)
        elif path.exists():
            queries.append(path)
        else:
            raise DataError("there is no such file or folder", str(path), "check the path of the query")
    if not queries:
        where = ", ".join(map(str, paths))
        raise DataError("there is no picture to predict", where, "give picture files, or a folder of them")
    return queries


def read_pictures(files: list[Path], shape: tuple[int, int, int], inverted: bool) -> np.ndarray:
    """Return pictures as float32 [example, height, width, channel] in [0, 1]. Inverted, black is 1.

    Raises:
      DataError: a picture cannot be read; see `picture_files.read_picture`.
    """
    height, width, channels = shape
    inputs = np.empty((len(files), *shape), np.float32)
    for index, file in enumerate(files):
        picture = picture_files.read_picture(file, (height, width), channels)
        inputs[index] = (255 - picture if inverted else picture).astype(np.float32) / 255
    return inputs


def read_table(path: Path, columns: int, labelled: bool = False) -> Table:
    """Read a CSV file with `columns` columns of numbers, followed by a column of class names if it is `labelled`.

    The first row is a header if it has no number where numbers belong. Empty lines are left out.

    Raises:
      DataError: there is no row, a row has another number of columns, or a cell is no finite number.
    """
    table = [
        (line, row)
        for line, text in enumerate(read_lines(path), start=1)
        if (row := _split(path, line, text))
    ]
    names: tuple[str, ...] = ()
    if table and len(table[0][1]) == columns + labelled and not any(map(_is_number, table[0][1][:columns])):
        names, table = tuple(table[0][1]), table[1:]
    if not table:
        raise DataError("the table has no row of numbers", str(path), "write one example a line")
    for line, row in table:
        _check_row(path, line, row, columns, labelled)
    with np.errstate(over="ignore"):
        numbers = np.array([row[:columns] for _, row in table], np.float64).astype(np.float32)
    if not np.isfinite(numbers).all():
        line = table[int(np.argmin(np.isfinite(numbers).all(axis=1)))][0]
        raise DataError(f"line {line} has a number that is not finite", str(path), "repair or remove it")
    return Table(names, numbers, tuple(row[-1] for _, row in table) if labelled else ())


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Return (source, target) of a UTF-8 file with a pair on each line, separated by a tab. Empty lines are left out.

    Raises:
      DataError: there is no pair, or a line does not have exactly two sentences.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        sentences = [sentence.strip() for sentence in line.split("\t")]
        if len(sentences) == 2 and all(sentences):
            pairs.append((sentences[0], sentences[1]))
        elif line.strip():
            what = f"line {number} is not a source and a target with one tab between them"
            raise DataError(what, str(path), "write SOURCE<tab>TARGET on every line")
    if not pairs:
        raise DataError("there is no pair of sentences", str(path), "write SOURCE<tab>TARGET on every line")
    return pairs


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file.

    Raises:
      DataError: there is no such file, or it is too large or not UTF-8.
    """
    if not path.exists():
        raise DataError("there is no such file", str(path), "check the path")
    if not path.is_file():
        raise DataError("a text file is expected, and this is none", str(path), "give a text file")
    if path.stat().st_size > MOST_BYTES:
        raise DataError(f"the file has more than {MOST_BYTES:,} bytes", str(path), "split it")
    try:
        return decode_lines(path.read_bytes(), str(path))
    except OSError as error:
        what = f"the file cannot be read: {error.strerror or error}"
        raise DataError(what, str(path), "allow to read it") from error


def decode_lines(content: bytes, where: str) -> list[str]:
    """Return the lines of UTF-8 text, which end with a line feed, a carriage return or both, and with nothing else.

    Raises:
      DataError: it is not UTF-8.
    """
    try:
        lines = LINE_END.split(content.decode("utf-8-sig"))
        return lines if lines[-1] else lines[:-1]
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"line {line} is not UTF-8", where, "save the text as UTF-8") from error


def _split(path: Path, line: int, text: str) -> list[str]:
    """Return the cells of a line. No cell goes over the end of its line."""
    try:
        return [cell.strip() for row in csv.reader([text], strict=True) for cell in row]
    except csv.Error as error:
        raise DataError(f"line {line} is no CSV: {error}", str(path), "repair the line") from error


def _check_row(path: Path, line: int, row: list[str], columns: int, labelled: bool) -> None:
    """Refuse a row of the wrong length, a cell that is no number, and a class without a name."""
    if len(row) != columns + labelled:
        expected = f"{columns} number{'s' * (columns != 1)}{' and a class' * labelled}"
        what = f"line {line} has {len(row)} column{'s' * (len(row) != 1)}, not {columns + labelled}"
        raise DataError(what, str(path), f"write {expected} on every line, separated by commas")
    wrong = next((cell for cell in row[:columns] if not _is_number(cell)), None)
    if wrong is not None:
        raise DataError(
            f"line {line} has {wrong[:SHOWN]!r} for a number", str(path), "write numbers such as 0.25"
        )
    if labelled and not row[-1]:
        raise DataError(f"line {line} has no class", str(path), "write the class in the last column")


def _is_number(cell: str) -> bool:
    if "_" in cell:  # Python reads 3_4 as 34
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _expect_folder(path: Path, remedy: str) -> None:
    if not path.exists():
        raise DataError("there is no such folder", str(path), remedy)
    if not path.is_dir():
        raise DataError("this is a file, not a folder", str(path), remedy)


def _list_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a class folder; there is at least one."""
    entries = text_lines.list_visible(folder)
    files = [path for path in entries if picture_files.is_picture(path)]
    if not files:
        others = ", ".join(path.name for path in entries[:3])
        what = f"the class folder {folder.name} has no picture{f', only {others}' if others else ''}"
        raise DataError(what, str(folder), f"put pictures there: {', '.join(picture_files.SUFFIXES)}")
    return files
