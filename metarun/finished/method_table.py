"""One table of many runs on the same frozen episodes: which of them can stand in it, and their comparison by mode."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from metarun import errors
from metarun.finished.candidates import Candidate, collect_candidates
from metarun.finished.comparison import (
    Choice,
    choose_metric,
    compare,
    describe,
    rank_key,
    read_headline,
)
from metarun.finished.finished_run import read_result


class Row(NamedTuple):
    """One learner of a table."""

    label: str
    run: Path
    stage: str
    seeds: int
    scores: dict[str, dict[str, Any]]  # {mode: {"mean", "ci95", "behind", …}}
    cost: dict[str, Any]


class MethodTable(NamedTuple):
    """Learners that answered the same episodes, best first in the first mode."""

    metric: str
    higher_is_better: bool
    modes: list[str]
    episodes: dict[str, Any]  # split, count and hash
    rows: list[Row]


def choose_same_episodes(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the runs on the episodes that most of them answered, and the others.

    Raises:
      CheckpointError, DataError: a path is no run, or its run is not finished or damaged.
    """
    hashes = {path: read_result(path)["episodes"]["hash"] for path in paths}
    if not hashes:
        return [], []
    most_frequent = Counter(hashes.values()).most_common(1)[0][0]
    same = [path for path, digest in hashes.items() if digest == most_frequent]
    return same, [path for path in paths if path not in same]


def group_by_episodes(paths: Iterable[Path]) -> list[list[Path]]:
    """Return the runs in groups that answered the same episodes.

    Raises:
      CheckpointError, DataError: a path is no run, or its run is not finished or damaged.
    """
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in paths:
        result = read_result(path)
        groups[result["split"], result["episodes"]["hash"]].append(path)
    return list(groups.values())


def compare_modes(paths: list[Path]) -> list[dict[str, Any]]:
    """Compare runs in every mode that all of them measured, in the order of the first run; see `comparison.compare`.

    Raises:
      UsageError: there is no run, no mode that all of them measured, or nothing to compare.
      CheckpointError, DataError: a path is no run, or its run is not finished or damaged.
    """
    if not paths:
        raise errors.UsageError(
            "no run has a result", "metarun table", "see what is said above of each config"
        )
    modes = [read_result(path)["modes"] for path in paths]
    shared = [mode for mode in modes[0] if all(mode in others for others in modes)]
    if not shared:
        raise errors.UsageError(
            "there is no mode that all runs measured",
            "metarun table",
            "give the configs the same evaluation.modes",
        )
    return [compare(paths, Choice(mode)) for mode in shared]


def tabulate(paths: list[Path]) -> MethodTable:
    """Return every stage of runs on the same episodes with its score in each mode that it measured.

    Unlike `compare_modes` it takes one run, too, and runs that measured different modes. The members of a stage with
    copies have no row beside stages that make one learner of them.

    Raises:
      UsageError: the runs have no metric in common.
      CheckpointError, DataError: a path is no run, or its run is not finished or damaged.
    """
    results = {path: read_result(path) for path in paths}
    first = next(iter(results.values()))
    modes = list(dict.fromkeys(mode for result in results.values() for mode in result["modes"]))
    columns = {
        mode: leave_out_members(
            collect_candidates(
                {path: result for path, result in results.items() if mode in result["modes"]}, mode, "adapted"
            )[0]
        )
        for mode in modes
    }
    metric = choose_metric(
        [candidate for own in columns.values() for candidate in own], None, read_headline(results)
    )
    higher = metric in first["higher_is_better"]
    rows: dict[tuple[Path, str], Row] = {}
    for mode, candidates in columns.items():
        ranked = sorted(candidates, key=lambda candidate: rank_key(candidate.values[metric], higher))
        for candidate in ranked:
            row = rows.setdefault((candidate.run, candidate.name), start_row(candidate))
            row.scores[mode] = describe(candidate, ranked[0], metric)
    episodes = {"split": first["split"], **first["episodes"]}
    return MethodTable(metric, higher, modes, episodes, list(rows.values()))


def leave_out_members(candidates: list[Candidate]) -> list[Candidate]:
    """Return the candidates without single members of runs that have other candidates, too."""
    whole = {candidate.run for candidate in candidates if candidate.member is None}
    return [candidate for candidate in candidates if candidate.run not in whole or candidate.member is None]


def start_row(candidate: Candidate) -> Row:
    """Return the row of a learner without scores."""
    return Row(
        candidate.label,
        candidate.run,
        candidate.name,
        max(1, len(candidate.seeds)),
        {},
        candidate.cost._asdict(),
    )
