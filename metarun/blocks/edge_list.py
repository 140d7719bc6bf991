"""A user's own knowledge graph: a file of edges between names, which is checked line by line.

    zebra,horse          on each line two names and, if it is not 1, the weight of the edge before training
    zebra,striped,0.5    a name that is no class is a concept: it needs two edges, or it would relate nothing
    # a comment          empty lines and comments are skipped

CSV in UTF-8. The first name of an edge is the member and the second the concept, if the two differ in rank.
"""

import csv
import difflib
import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from metarun.errors import DataError

MOST_BYTES = 1 << 26  # size of the file
LARGEST = 1e30  # weight of an edge; the smallest is 1 / LARGEST, and float32 holds both
LAYOUT = "write MEMBER,CONCEPT or MEMBER,CONCEPT,WEIGHT on every line"


class Edge(NamedTuple):
    """One line of the file."""

    member: str
    concept: str
    weight: float  # above 0
    line: int


def read(path: Path, names: Collection[str]) -> list[Edge]:
    """Read the edges of a file, in its order; `names` are those that the task family knows.

    Raises:
      DataError: names the file, and the line if there is one.
    """
    lines = enumerate(read_lines(path), 1)
    edges = [read_edge(cells, path, line) for line, text in lines if (cells := split_line(text, path, line))]
    if not edges:
        raise DataError("the edge list has no edges", str(path), LAYOUT)
    refuse_repeats(edges, path)
    refuse_strangers(edges, names, path)
    return edges


def read_lines(path: Path) -> list[str]:
    """Read the lines of the file."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # opening a pipe would never return
            raise DataError("the edge list is not a regular file", str(path), "write the edges into a file")
        if path.stat().st_size > MOST_BYTES:
            raise DataError(
                f"the edge list has more than {MOST_BYTES:,} bytes", str(path), "take fewer edges"
            )
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(
            "there is no such edge list",
            str(path),
            "put the file there, or train with graph set to none, to family, or to the path of a CSV file",
        ) from error
    except OSError as error:
        what = f"the edge list cannot be read: {error.strerror or error}"
        raise DataError(what, str(path), "give a file, and allow to read it") from error
    except UnicodeDecodeError as error:
        raise DataError("the edge list is not UTF-8", str(path), "save it as UTF-8") from error
    return text.splitlines()


def split_line(text: str, path: Path, line: int) -> list[str]:
    """Return the values of one line; an empty line and a comment have none.

    Lines are read one by one, because a quotation mark without its other half would swallow the lines after it.
    """
    if text.lstrip().startswith("#"):
        return []
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise make_error(f"this is no line of CSV: {error}", path, line, LAYOUT) from error
    cells = [cell.strip() for row in rows for cell in row]
    return cells if any(cells) else []


def read_edge(cells: list[str], path: Path, line: int) -> Edge:
    """Return the edge of one line."""
    if len(cells) not in (2, 3) or not all(cells):
        raise make_error(f"{len(cells)} values, or an empty one, are no edge", path, line, LAYOUT)
    if not "".join(cells).isprintable():
        what = "a name has characters that cannot be printed"
        raise make_error(what, path, line, "write names of text alone")
    member, concept = cells[:2]
    if member == concept:
        raise make_error(f"{member} is related to itself", path, line, "take the line out")
    try:
        weight = float(cells[2]) if len(cells) == 3 else 1.0
    except ValueError:
        weight = math.nan
    if not 1 / LARGEST <= weight <= LARGEST:
        what = f"{cells[2]} is no weight of an edge"
        remedy = f"give a number from {1 / LARGEST:g} to {LARGEST:g}, or leave it out for 1"
        raise make_error(what, path, line, remedy)
    return Edge(member, concept, weight, line)


def refuse_repeats(edges: list[Edge], path: Path) -> None:
    """Refuse two edges between the same names, in either direction."""
    first_lines: dict[frozenset[str], int] = {}
    for edge in edges:
        first_line = first_lines.setdefault(frozenset(edge[:2]), edge.line)
        if first_line != edge.line:
            what = f"{edge.member} and {edge.concept} are related in line {first_line} already"
            raise make_error(what, path, edge.line, "keep one of the two")


def refuse_strangers(edges: list[Edge], names: Collection[str], path: Path) -> None:
    """Refuse a name that the family does not know and that stands in one edge only: most likely it is misspelt."""
    counts = Counter(name for edge in edges for name in edge[:2])
    if not counts.keys() & set(names):
        examples = ", ".join(list(names)[:3])
        what = "no edge names a class or a kind of task of this family"
        raise DataError(what, str(path), f"use its names, such as {examples}")
    for edge in edges:
        for name in edge[:2]:
            if name not in names and counts[name] == 1:
                close_names = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {close_names[0]}? " if close_names else ""
                what = f"this family has no {name}, and as a concept it has only one edge and relates nothing"
                raise make_error(what, path, edge.line, f"{hint}correct the name, or give it a second edge")


def make_error(what: str, path: Path, line: int, remedy: str) -> DataError:
    """Make the error that says what is wrong with a line."""
    return DataError(what, f"{path}, line {line}", remedy)
