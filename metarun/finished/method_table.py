"""One table of many runs on the same frozen episodes: which of them can stand in it, and their comparison by mode."""

from collections import Counter
from pathlib import Path
from typing import Any

from metarun import errors
from metarun.finished.comparison import Choice, compare
from metarun.finished.finished_run import read_result


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
