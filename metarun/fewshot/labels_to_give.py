"""The list in which somebody writes labels: each call puts the pictures that are worth a label next at its end.

    file,label,guess
    photos/0007.jpg,cat,dog 0.52
    photos/0012.jpg,,cat 0.47

Rows with a label stay as they are, with columns of one's own, and so do rows with a text in such a column. All others
were suggestions, and give way to the new ones. So the same command is called again and again, and the list grows by the
labels that somebody writes.
"""

import csv
import io
import os
from pathlib import Path

from metarun.data import labels_file
from metarun.data.labels_file import FILE, LABEL, Labels
from metarun.fewshot.outcome import Outcome
from metarun.runs import files

GUESS = "guess"
NEW = Labels((FILE, LABEL, GUESS), ",", ())


def write(path: Path, outcome: Outcome) -> int:
    """Write the list, and return how many rows wait for a label.

    Raises:
      DataError: a file is there that is no such list.
      StorageError: the disk refuses.
    """
    known = labels_file.read_labels(path) if path.exists() else NEW
    guesses = {one.file: " ".join(map(format_share, one.best[:1])) for one in outcome.predictions}
    lines = [format_line(known, dict(zip(known.columns, known.columns, strict=True)))]
    kept = [
        row
        for row in known.rows
        if row.label or any(row.others[name] for name in row.others if name != GUESS)
    ]
    lines += [row.line for row in kept]
    there = {row.file.resolve() for row in kept}
    for file in [file for file in outcome.next if file.resolve() not in there]:
        cells = {FILE: os.path.relpath(file.absolute(), path.parent.absolute()), GUESS: guesses.get(file, "")}
        lines.append(format_line(known, cells))
    files.write_text(path, "".join(f"{line}\n" for line in lines))
    return len(outcome.next)


def format_share(best: tuple[str, float]) -> str:
    """Return `cat 0.52`."""
    return f"{best[0]} {best[1]:.2f}"


def format_line(known: Labels, cells: dict[str, str]) -> str:
    """Return a row with the columns of a list."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=known.separator, lineterminator="")
    writer.writerow([cells.get(name, "") for name in known.columns])
    return text.getvalue()
