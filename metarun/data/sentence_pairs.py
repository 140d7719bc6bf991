"""A folder of sentences in pairs of languages that nobody vouches for, as text.

    root/en-de/en.txt, root/en-de/de.txt    a subfolder for a pair: line n of one file translates line n of the other
    root/en-de.tsv                          or a table for a pair: SOURCE<tab>TARGET on every line

The text is UTF-8, and its lines end with LF or CRLF. A line that is empty in both languages is passed over. A line
whose sentence has occurred before, in either language, is left out, so that no sentence of a pair is there twice.
"""

import unicodedata
from pathlib import Path
from typing import NamedTuple

from metarun.errors import DataError

MOST_BYTES = 1 << 28  # of one file
MOST_PAIRS = 10_000  # of languages

LAYOUT = "give FOLDER/en-de/en.txt with FOLDER/en-de/de.txt, or FOLDER/en-de.tsv, for each pair of languages"


class Pair(NamedTuple):
    """The sentences of two languages; `sources[i]` means `targets[i]`."""

    source: str  # the language's name
    target: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]


def read(root: Path) -> list[Pair]:
    """Return all pairs of languages of a folder, sorted by name.

    Raises:
      DataError: something is wrong with the text. The message names the file, and the line if there is one.
    """
    if not root.is_dir():
        fault = "this is a file, not a folder" if root.exists() else "there is no such folder"
        raise DataError(fault, str(root), LAYOUT)
    entries = list_entries(root)
    if not entries:
        raise DataError("there is no pair of languages in this folder", str(root), LAYOUT)
    if len(entries) > MOST_PAIRS:
        raise DataError(f"there are more than {MOST_PAIRS:,} pairs of languages", str(root), "take fewer")
    pairs = [read_pair(path) for path in entries]
    path_of: dict[frozenset[str], Path] = {}
    for pair, path in zip(pairs, entries, strict=True):
        names = frozenset((pair.source, pair.target))
        if names in path_of:
            what = f"{pair.source} and {pair.target} are also the pair of {path_of[names].name}"
            raise DataError(what, str(path), "put all sentences of two languages in one place")
        path_of[names] = path
    return pairs


def list_entries(root: Path) -> list[Path]:
    """Return the subfolders and tables of a folder that are not hidden, sorted by name."""
    try:
        visible = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    except OSError as error:
        what = f"the folder cannot be read: {error.strerror or error}"
        raise DataError(what, str(root), "allow to read it") from error
    entries = [path for path in visible if path.is_dir() or path.suffix == ".tsv"]
    for path in entries:
        if not path.resolve().is_relative_to(root.resolve()):
            raise DataError("this link leads out of the folder", str(path), "copy the text into the folder")
    return entries


def read_pair(path: Path) -> Pair:
    """Read the pair of a subfolder or of a table, whose name says the languages."""
    name = path.stem if path.suffix == ".tsv" and not path.is_dir() else path.name
    languages = name.split("-")
    if len(languages) != 2 or not all(languages) or languages[0] == languages[1]:
        remedy = "name it like en-de, with one hyphen"
        raise DataError(f"{name!r} does not name two languages", str(path), remedy)
    source, target = languages
    rows = read_folder(path, source, target) if path.is_dir() else read_table(path)
    kept = drop_repeats(rows)
    return Pair(source, target, tuple(row[0] for row in kept), tuple(row[1] for row in kept))


def read_folder(path: Path, source: str, target: str) -> list[tuple[str, str]]:
    """Return (source, target) of the lines of two files."""
    files = [path / f"{language}.txt" for language in (source, target)]
    for file in files:
        if not file.is_file():
            raise DataError(f"this pair has no {file.name}", str(path), LAYOUT)
        if not file.resolve().is_relative_to(path.resolve()):
            raise DataError("this link leads out of the folder", str(file), "copy the text into the folder")
    sources, targets = map(read_lines, files)
    if len(sources) != len(targets):
        what = f"{files[0].name} has {len(sources):,} lines and {files[1].name} has {len(targets):,}"
        raise DataError(what, str(path), "line n of one file must translate line n of the other")
    for number, row in enumerate(zip(sources, targets, strict=True), start=1):
        if any(row) and not all(row):
            empty = files[row.index("")]
            what = f"line {number} is empty, and has a sentence in the other language"
            raise DataError(what, str(empty), "translate the line, or empty it in both files")
    return [row for row in zip(sources, targets, strict=True) if all(row)]


def read_table(path: Path) -> list[tuple[str, str]]:
    """Return (source, target) of the lines of a table."""
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        sentences = [sentence.strip() for sentence in line.split("\t")]
        if not line:
            continue
        if len(sentences) != 2 or not all(sentences):
            what = f"line {number} is not a source and a target with one tab between them"
            raise DataError(what, str(path), "write SOURCE<tab>TARGET on every line")
        rows.append((sentences[0], sentences[1]))
    return rows


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file, in one normal form (NFC), without spaces around them.

    Only line feeds end a line. The other line breaks of Unicode would shift one language against the other.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"the file has more than {MOST_BYTES:,} bytes", str(path), "split it")
        content = path.read_bytes()
    except OSError as error:
        what = f"the file cannot be read: {error.strerror or error}"
        raise DataError(what, str(path), "allow to read it") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"line {line} is not UTF-8", str(path), "save the text as UTF-8") from error
    if not text.strip():
        raise DataError("the file is empty", str(path), "write one sentence a line, or take it out")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(
            f"line {line} holds a zero byte, as no text does", str(path), "save the text as UTF-8"
        )
    return [unicodedata.normalize("NFC", line).strip() for line in text.removesuffix("\n").split("\n")]


def drop_repeats(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the rows whose source and target are both new."""
    sources, targets, kept = set(), set(), []
    for source, target in rows:
        if source not in sources and target not in targets:
            kept.append((source, target))
        sources.add(source)
        targets.add(target)
    return kept
