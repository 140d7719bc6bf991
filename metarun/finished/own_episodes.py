"""Many supports of somebody's own, each with its queries: answered one after the other by one opened run.

The run is opened once, and its programs are compiled once for each number of support examples. Queries are filled up
to the largest number of them, so that different numbers share one program (inductive mode; the answers are those of
single calls, but for the last digits).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarun import base
from metarun.errors import DataError, UsageError
from metarun.evaluation.statistics import estimate_mean
from metarun.finished import answers
from metarun.finished.answers import Answers
from metarun.finished.prediction import TrainedRun

LAYOUT = "lay it out as FOLDER/<episode>/support and FOLDER/<episode>/query, each a folder or a file"


class OwnEpisode(NamedTuple):
    """A support and its queries."""

    name: str
    support: Path
    queries: list[Path]


def pair_episodes(supports: list[Path], queries: list[Path]) -> list[OwnEpisode]:
    """Return an episode for each support: with all queries if there is one support, else with the query at its place.

    Raises:
      UsageError: there is no support, or several with another number of queries.
    """
    if not supports:
        remedy = "give --support DIR, or a folder of episodes by --episodes DIR"
        raise UsageError("there is nothing to adapt to", "--support", remedy)
    if len(supports) == 1:
        return [OwnEpisode(str(supports[0]), supports[0], queries)]
    if len(supports) != len(queries):
        what = f"there are {len(supports)} supports and {len(queries)} queries"
        remedy = "give --support A --query a --support B --query b; a query may be a folder"
        raise UsageError(what, "--support and --query", remedy)
    pairs = zip(supports, queries, strict=True)
    return [OwnEpisode(str(support), support, [query]) for support, query in pairs]


def list_episodes(folder: Path) -> list[OwnEpisode]:
    """Return the episodes in a folder, sorted by name: its folders with a `support` and a `query` of any suffix.

    Raises:
      DataError: there is no such folder, it has no episodes, or one of them is not whole.
    """
    if not folder.is_dir():
        raise DataError("there is no such folder", str(folder), LAYOUT)
    episodes = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
        found = {path.stem: path for path in sorted(place.iterdir()) if path.stem in ("support", "query")}
        if len(found) == 1:
            missing = ({"support", "query"} - set(found)).pop()
            raise DataError(f"the episode {place.name} has no {missing}", str(place), LAYOUT)
        if found:
            episodes.append(OwnEpisode(place.name, found["support"], [found["query"]]))
    if not episodes:
        raise DataError("the folder has no episodes", str(folder), LAYOUT)
    return episodes


def answer_all(
    run: TrainedRun, episodes: list[OwnEpisode], *, polarity: str = "auto", truth: Path | None = None
) -> Iterator[Answers]:
    """Yield the answers to each episode; see `answers.answer`. Those of many have no contact sheet.

    Raises:
      MetarunError: what is wrong with the examples, or with the run; or `truth` names no query of any episode.
    """
    fill = None
    if isinstance(run.form, base.Pictures):
        files = [answers.list_pictures(episode.queries) for episode in episodes]
        fill = max(map(len, files)) if len(episodes) > 1 else None
        if truth is not None and all(answers.read_truth(truth, queries) is None for queries in files):
            remedy = "its paths are relative to the folder that the list lies in"
            raise DataError("the list names none of the queries", str(truth), remedy)
    for episode in episodes:
        answered = answers.answer(
            run, episode.support, episode.queries, polarity=polarity, truth=truth, fill=fill
        )
        yield answered if len(episodes) == 1 else answered._replace(sheet=None)


def summarise(answered: list[Answers]) -> dict[str, Any] | None:
    """Return {"mean", "ci95", "episodes"} of the accuracy over episodes; None: it is known for none of them."""
    accuracies = [one.facts["accuracy"] for one in answered if "accuracy" in one.facts]
    if not accuracies:
        return None
    interval = estimate_mean(np.array(accuracies)) if len(accuracies) > 1 else None
    return {
        "mean": float(np.mean(accuracies)),
        "ci95": None if interval is None else interval.ci95,
        "episodes": len(accuracies),
    }


def join_tables(episodes: list[OwnEpisode], answered: list[Answers]) -> tuple[list[str], list[list[str]]]:
    """Return one header and the rows of all episodes, each with its name in front. A column may be empty in a row."""
    columns = list(dict.fromkeys(name for one in answered for name in one.header))
    rows = []
    for episode, one in zip(episodes, answered, strict=True):
        for row in one.rows:
            cells = dict(zip(one.header, row, strict=True))
            rows.append([episode.name, *(cells.get(name, "") for name in columns)])
    return ["episode", *columns], rows
