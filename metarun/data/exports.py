"""Data written as the files that a user would bring: something to try the families of own files with."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from PIL import Image

from metarun.data.sets.omniglot_files import DRAWINGS, Omniglot
from metarun.data.storage import storage_errors
from metarun.errors import UsageError


def export_drawings(
    folder: Path, omniglot: Omniglot, characters: np.ndarray, count: int, shots: int, seed: int
) -> None:
    """Write characters of Omniglot as PNG files, dark ink on white paper, in a folder for each character.

    Args:
      folder: `folder/<character>/<drawing>.png`; with `shots`, `folder/support/...` and `folder/query/...`.
      characters: the numbers of the characters to choose from, [character].
      count: how many of them are chosen at random.
      shots: how many drawings of each character are its support; the others are its queries. 0: no such parts.
      seed: of both choices.

    Raises:
      UsageError: the folder is not empty.
      StorageError: the disk is full, or the folder may not be written.
    """
    make_folder(folder)
    generator = np.random.default_rng(seed)
    for character in sorted(generator.permutation(characters)[:count]):
        order = generator.permutation(DRAWINGS) if shots else np.arange(DRAWINGS)
        name = omniglot.class_names[character].replace("/", "_")
        for position, drawing in enumerate(order):
            side = ("support" if position < shots else "query") if shots else ""
            path = folder / side / name / f"{drawing + 1:02}.png"
            write_drawing(path, omniglot.images[character, drawing])


def export_sentences(folder: Path, texts: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Write `folder/<name>.tsv` for each text, with SOURCE<tab>TARGET on every line.

    Raises:
      UsageError: the folder is not empty.
      StorageError: the disk is full, or the folder may not be written.
    """
    make_folder(folder)
    for name, pairs in texts.items():
        path = folder / f"{name}.tsv"
        with export_errors(path):
            path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")


def make_folder(folder: Path) -> None:
    """Make a folder, or take an empty one; see `refuse_used_folder`.

    Raises:
      StorageError: it cannot be made.
    """
    refuse_used_folder(folder)
    with export_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def refuse_used_folder(folder: Path) -> None:
    """Raise UsageError if a path is there, and is no empty folder."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError("this is not an empty folder", str(folder), "name a new folder, or empty this one")


def write_drawing(path: Path, ink: np.ndarray) -> None:
    """Write one drawing [height, width], 255 = ink, as black ink on white paper."""
    with export_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - ink).convert("1").save(path)


def export_errors(path: Path) -> AbstractContextManager[None]:
    """Turn what the disk refuses into a StorageError."""
    return storage_errors("the files cannot be written", path, "FOLDER")
