"""A folder of sentences in pairs of languages that nobody vouches for, as text.

    root/en-de/en.txt, root/en-de/de.txt    a subfolder for a pair: line n of one file translates line n of the other
    root/en-de.tsv                          or a table for a pair: SOURCE<tab>TARGET on every line
    root/train.en, root/train.de, ...       or aligned files of two languages and more; see `aligned_files`

Each may be gzipped, with .gz at the end of its name. The text is UTF-8, and its lines end with LF or CRLF. A line that
is empty in both languages is passed over. A line whose sentence has occurred before, in either language, is left out of
its pair, so that no sentence of a pair is there twice.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from metarun.data import aligned_files, text_lines
from metarun.data.aligned_files import Group
from metarun.data.text_lines import refuse_outside
from metarun.errors import DataError

MOST_PAIRS = 10_000  # of languages

LAYOUT = (
    "give FOLDER/en-de/en.txt with FOLDER/en-de/de.txt, or FOLDER/en-de.tsv, for each pair of languages, "
    "or aligned files FOLDER/train.en, FOLDER/train.de"
)


class Pair(NamedTuple):
    """The sentences of two languages; `sources[i]` means `targets[i]`."""

    source: str  # the language's name
    target: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    # The number of each sentence in the whole corpus: that of its line, which is the same in all languages of a group.
    lines: tuple[int, ...] = ()


class Corpus(NamedTuple):
    """All text of a folder."""

    pairs: list[Pair]
    parts: tuple[str | None, ...]  # of each line, the split that the name of its file says
    files: tuple[Path, ...]  # that were read
    groups: tuple[Group, ...]  # all lines, also those that are left out of the pairs

    @property
    def is_aligned(self) -> bool:
        """Whether some lines are those of aligned files, so that a sentence may be there in several languages."""
        return any(not is_pair_file(file) for file in self.files)


def is_pair_file(file: Path) -> bool:
    """Return whether a file is a table, or a side of a subfolder."""
    return text_lines.strip_gzip(file.name).endswith((".tsv", ".txt"))


def read(root: Path, most: int | None = None) -> Corpus:
    """Return all pairs of languages of a folder: those of subfolders and tables by name, then those of aligned files.

    Args:
      most: lines that are read of each file, from the first on; None: all.

    Raises:
      DataError: something is wrong with the text. The message names the file, and the line if there is one.
    """
    if not root.is_dir():
        fault = "this is a file, not a folder" if root.exists() else "there is no such folder"
        raise DataError(fault, str(root), LAYOUT)
    entries = list_entries(root)
    if len(entries) > MOST_PAIRS:
        raise DataError(f"there are more than {MOST_PAIRS:,} pairs of languages", str(root), "take fewer")
    groups = [read_entry(path, most) for path in entries]
    refuse_repeated_pairs(groups, entries)
    aligned = aligned_files.read_groups(root, most)
    if not groups and not aligned:
        raise DataError("there is no pair of languages in this folder", str(root), LAYOUT)
    taken = {frozenset(group.languages) for group in groups}
    for group in aligned:
        for languages in itertools.combinations(group.languages, 2):
            if frozenset(languages) in taken:
                what = f"{languages[0]} and {languages[1]} are also the pair of a subfolder or of a table"
                raise DataError(what, str(group.files[0]), "put all sentences of two languages in one place")
    return make_corpus([*groups, *aligned])


def make_corpus(groups: list[Group]) -> Corpus:
    """Return the pairs of groups of aligned lines. Where several groups have a pair, its sentences are put together."""
    rows: dict[tuple[str, str], list[tuple[str, str, int]]] = {}
    parts: list[str | None] = []
    for group in groups:
        first = len(parts)
        parts += [group.part] * len(group.columns[0])
        for a, b in itertools.combinations(range(len(group.languages)), 2):
            pair = rows.setdefault((group.languages[a], group.languages[b]), [])
            both = zip(group.columns[a], group.columns[b], strict=True)
            pair += [(*row, line) for line, row in enumerate(both, start=first) if all(row)]
    pairs = []
    for (source, target), own in rows.items():
        kept = list(zip(*drop_repeats(own), strict=True)) or [(), (), ()]
        pairs.append(Pair(source, target, *kept))
    files = tuple(file for group in groups for file in group.files)
    return Corpus(pairs, tuple(parts), files, tuple(groups))


def refuse_repeated_pairs(groups: list[Group], entries: list[Path]) -> None:
    """Refuse two subfolders or tables of the same two languages."""
    path_of: dict[frozenset[str], Path] = {}
    for group, path in zip(groups, entries, strict=True):
        source, target = group.languages
        names = frozenset(group.languages)
        if names in path_of:
            what = f"{source} and {target} are also the pair of {path_of[names].name}"
            raise DataError(what, str(path), "put all sentences of two languages in one place")
        path_of[names] = path


def list_entries(root: Path) -> list[Path]:
    """Return the subfolders and tables of a folder that are not hidden, sorted by name."""
    visible = text_lines.list_visible(root)
    entries = [path for path in visible if path.is_dir() or text_lines.strip_gzip(path.name).endswith(".tsv")]
    for path in entries:
        refuse_outside(path, root)
    return entries


def read_entry(path: Path, most: int | None) -> Group:
    """Read the pair of a subfolder or of a table, whose name says the languages."""
    name = path.name if path.is_dir() else text_lines.strip_gzip(path.name).removesuffix(".tsv")
    languages = name.split("-")
    if len(languages) != 2 or not all(languages) or languages[0] == languages[1]:
        remedy = "name it like en-de, with one hyphen"
        raise DataError(f"{name!r} does not name two languages", str(path), remedy)
    source, target = languages
    if path.is_dir():
        return read_folder(path, source, target, most)
    return Group((source, target), None, read_table(path, most), (path,))


def read_folder(path: Path, source: str, target: str, most: int | None) -> Group:
    """Return the lines of two files that both have a sentence."""
    files = [find_side(path, language) for language in (source, target)]
    for file in files:
        refuse_outside(file, path)
    sources, targets = (text_lines.read_lines(file) for file in files)
    if len(sources) != len(targets):
        what = f"{files[0].name} has {len(sources):,} lines and {files[1].name} has {len(targets):,}"
        raise DataError(what, str(path), "line n of one file must translate line n of the other")
    rows = list(zip(sources, targets, strict=True))[:most]
    for number, row in enumerate(rows, start=1):
        if any(row) and not all(row):
            empty = files[row.index("")]
            what = f"line {number} is empty, and has a sentence in the other language"
            raise DataError(what, str(empty), "translate the line, or empty it in both files")
    return Group((source, target), None, transpose(row for row in rows if all(row)), tuple(files))


def find_side(path: Path, language: str) -> Path:
    """Return the file of one language of a subfolder."""
    for name in (f"{language}.txt", f"{language}.txt.gz"):
        if (path / name).is_file():
            return path / name
    raise DataError(f"this pair has no {language}.txt", str(path), LAYOUT)


def read_table(path: Path, most: int | None) -> tuple[tuple[str, ...], ...]:
    """Return the sources and the targets of a table."""
    rows = []
    for number, line in enumerate(text_lines.read_lines(path)[:most], start=1):
        sentences = [sentence.strip() for sentence in line.split("\t")]
        if not line:
            continue
        if len(sentences) != 2 or not all(sentences):
            what = f"line {number} is not a source and a target with one tab between them"
            raise DataError(what, str(path), "write SOURCE<tab>TARGET on every line")
        rows.append((sentences[0], sentences[1]))
    return transpose(rows)


def transpose(rows: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Return the columns of rows of two."""
    return tuple(zip(*rows, strict=True)) or ((), ())


def drop_repeats(rows: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """Return the rows whose source and target are both new."""
    sources, targets, kept = set(), set(), []
    for row in rows:
        source, target, _ = row
        if source not in sources and target not in targets:
            kept.append(row)
        sources.add(source)
        targets.add(target)
    return kept
