"""A user's own knowledge graph: a file of edges between names, which nobody vouches for.

    zebra,horse          on each line two names and, if it is not 1, the weight of the edge before training
    zebra,striped,0.5    a name that is no class is a concept: it needs two edges, or it would relate nothing
    # a comment          empty lines and comments are passed over

CSV in UTF-8. The first name of an edge is the member and the second the concept, where the two differ in rank.
"""

import csv
import difflib
import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from metarun.errors import DataError

MOST_BYTES = 1 << 26  # of the file
LARGEST = 1e30  # weight of an edge, and one over it the smallest: float32 holds both
LAYOUT = "write MEMBER,CONCEPT or MEMBER,CONCEPT,WEIGHT on every line"


class Edge(NamedTuple):
    """One line of the file."""

    member: str
    concept: str
    weight: float  # above 0
    line: int


def read(path: Path, names: Collection[str]) -> list[Edge]:
    """The edges of a file, in its order; `names` are those that the task family knows.

    Raises:
      DataError: names the file, and the line where there is one.
    """
    lines = enumerate(read_lines(path), 1)
    edges = [read_edge(cells, path, line) for line, text in lines if (cells := split(text, path, line))]
    if not edges:
        raise DataError("the edge list has no edges", str(path), LAYOUT)
    refuse_repeats(edges, path)
    refuse_strangers(edges, names, path)
    return edges


def read_lines(path: Path) -> list[str]:
    """The lines of the file."""
    try:
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


def split(text: str, path: Path, line: int) -> list[str]:
    """The values of one line; none of an empty one and of a comment.

    Lines are read one by one: a quotation mark without its other half would take the lines after it for its text.
    """
    if text.lstrip().startswith("#"):
        return []
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise refused(f"this is no line of CSV: {error}", path, line, LAYOUT) from error
    cells = [cell.strip() for row in rows for cell in row]
    return cells if any(cells) else []


def read_edge(cells: list[str], path: Path, line: int) -> Edge:
    """One line."""
    if len(cells) not in (2, 3) or not all(cells):
        raise refused(f"{len(cells)} values, or an empty one, are no edge", path, line, LAYOUT)
    if not "".join(cells).isprintable():
        raise refused("a name has characters that cannot be printed", path, line, "write names of text alone")
    member, concept = cells[:2]
    if member == concept:
        raise refused(f"{member} is related to itself", path, line, "take the line out")
    try:
        weight = float(cells[2]) if len(cells) == 3 else 1.0
    except ValueError:
        weight = math.nan
    if not 1 / LARGEST <= weight <= LARGEST:
        what = f"{cells[2]} is no weight of an edge"
        remedy = f"give a number from {1 / LARGEST:g} to {LARGEST:g}, or leave it out for 1"
        raise refused(what, path, line, remedy)
    return Edge(member, concept, weight, line)


def refuse_repeats(edges: list[Edge], path: Path) -> None:
    """Refuse two edges between the same names, in whatever order they are."""
    first: dict[frozenset[str], int] = {}
    for edge in edges:
        before = first.setdefault(frozenset(edge[:2]), edge.line)
        if before != edge.line:
            what = f"{edge.member} and {edge.concept} are related in line {before} already"
            raise refused(what, path, edge.line, "keep one of the two")


def refuse_strangers(edges: list[Edge], names: Collection[str], path: Path) -> None:
    """Refuse a name that the family does not know and that stands in a single edge: most likely it is misspelt."""
    counts = Counter(name for edge in edges for name in edge[:2])
    if not counts.keys() & set(names):
        some = ", ".join(list(names)[:3])
        what = "no edge names a class or a kind of task of this family"
        raise DataError(what, str(path), f"use its names, such as {some}")
    for edge in edges:
        for name in edge[:2]:
            if name not in names and counts[name] == 1:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                what = (
                    f"this family has no {name}, and as a concept it has one edge only, which relates nothing"
                )
                raise refused(what, path, edge.line, f"{hint}correct the name, or give it a second edge")


def refused(what: str, path: Path, line: int, remedy: str) -> DataError:
    """What is wrong with a line."""
    return DataError(what, f"{path}, line {line}", remedy)
