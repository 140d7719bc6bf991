"""Aligned files of a corpus, as many public ones come: line n of every file means the same.

    root/train.en, root/train.de.gz, root/train.fr    NAME.LANGUAGE, plain or gzipped; two languages or more
    root/Tatoeba.de-en.de, root/Tatoeba.de-en.en      the names of OPUS are of this form, too

Every two languages of a NAME are a pair. A NAME may say its split, by its first word: train; val, valid, validation or
dev; test or newstest. An empty line in one language is no sentence of it.
"""

import logging
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from metarun.data import text_lines
from metarun.errors import DataError
from metarun.plain_text import escape

LANGUAGE = r"[a-z]{2,3}(?:[_-][A-Za-z0-9]{2,8})?"  # such as de, deu, pt_BR, zh-Hant
# Endings of other files that look like a language.
OTHER_FILES = re.compile("txt|tsv|csv|md|rst|log|pdf|xml|zip|tar|xz|py|sh|ini|cfg|npy|npz|jpg|png|gif|doc")
PARTS = {
    "train": r"train\w*",
    "validation": r"(?:val|valid|validation|dev)\d*",
    "test": r"(?:news)?test\w*",
}

ORDER = ("test", "validation", "train")
NAMED = 5  # files that a warning names

logger = logging.getLogger("metarun")


class Group(NamedTuple):
    """Lines that mean the same in several languages."""

    languages: tuple[str, ...]
    part: str | None  # train, validation or test, if the name of the files says so
    columns: tuple[tuple[str, ...], ...]  # the lines of each language; "" where there is none
    files: tuple[Path, ...]


def read_groups(root: Path, most: int | None = None) -> list[Group]:
    """Return the groups of aligned files of a folder: those of the test, of the validation, and then all others.

    Each is sorted by name, and their languages too. A sentence that is there twice is that of the first group.

    Args:
      most: lines that are read of each group, from the first on; None: all.

    Raises:
      DataError: the files of a group have different numbers of lines, or one of them cannot be read.
    """
    groups = list_groups(root)
    names = sorted(groups, key=lambda name: (ORDER.index(find_part(name) or "train"), name))
    return [read_group(name, groups[name], most) for name in names]


def list_groups(root: Path) -> dict[str, dict[str, Path]]:
    """Return {name: {language: file}} of the names that have two languages or more."""
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in text_lines.list_visible(root):
        match = re.fullmatch(rf"(.+)\.({LANGUAGE})", text_lines.strip_gzip(path.name))
        if match is None or OTHER_FILES.fullmatch(match[2]) or path.is_dir():
            continue
        name, language = match.groups()
        if language in groups[name]:
            other = groups[name][language].name
            raise DataError(f"this text is also {other}", str(path), "keep one of the two files")
        groups[name][language] = path
    lone = [file for files in groups.values() if len(files) == 1 for file in files.values()]
    if lone:
        warn_of_lone_files(root, lone)
    return {name: files for name, files in groups.items() if len(files) > 1}


def warn_of_lone_files(root: Path, files: list[Path]) -> None:
    """Say which files are passed over because no file of the same name has another language."""
    names = ", ".join(escape(file.name) for file in files[:NAMED])
    more = f" and {len(files) - NAMED:,} more" if len(files) > NAMED else ""
    logger.warning(
        "%s: passed over, because no file of the same name has another language: %s%s",
        escape(str(root)),
        names,
        more,
    )


def read_group(name: str, files: dict[str, Path], most: int | None) -> Group:
    """Read the files of one name."""
    languages = tuple(sorted(files))
    for file in files.values():
        text_lines.refuse_outside(file, file.parent)
    columns = [tuple(text_lines.read_lines(files[language])) for language in languages]
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(
            f"{files[language].name} has {len(column):,}"
            for language, column in zip(languages, columns, strict=True)
        )
        what = f"aligned files have different numbers of lines: {counts}"
        raise DataError(
            what, str(files[languages[0]].parent), "line n of one file must mean line n of the others"
        )
    shortened = tuple(column[:most] for column in columns)
    return Group(languages, find_part(name), shortened, tuple(files[language] for language in languages))


def find_part(name: str) -> str | None:
    """Return the split that the first word of a name says; None: it says none."""
    word = re.split(r"[._-]", name.lower(), maxsplit=1)[0]
    return next((part for part, pattern in PARTS.items() if re.fullmatch(pattern, word)), None)
