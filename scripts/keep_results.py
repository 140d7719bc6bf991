"""Keep what the tables need of finished runs, 30 to 120 KB each: configs, results and the values of every episode.

    python scripts/keep_results.py RUNS_FOLDER KEPT_FOLDER
    python scripts/results.py KEPT_FOLDER --out docs/results.md

Weights, metrics and pictures stay behind, and so do the controls of a method, of which only the comparison is kept. So
a table can be made anew, and its pairs with it, when the runs are gone.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import results

from metarun import errors
from metarun.finished import ceiling
from metarun.runs import directory, files


def list_needed(run: Path) -> list[Path]:
    """Return the files of a finished run that its rows are made of."""
    needed = [run / name for name in (directory.CONFIG, directory.RESULT, ceiling.FILE)]
    needed += sorted((run / "episodes").glob("*.npz"))
    if results.is_method(run):
        needed += [run.parent / name for name in (results.CONTROLS, results.COMPARISON)]
    return [file for file in needed if file.is_file()]


def keep(folder: Path, kept: Path) -> list[Path]:
    """Copy what is needed of every finished run below a folder, and return the runs.

    Raises:
      UsageError: there is no finished run.
      StorageError: a file cannot be written.
    """
    runs = results.find_runs(folder)
    if not runs:
        raise errors.UsageError("there is no finished run", str(folder), "give a folder of runs")
    for run in runs:
        for file in list_needed(run):
            copy = kept / file.relative_to(folder)
            with files.storage_errors(copy):
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep the results, and return the exit code."""
    parser = argparse.ArgumentParser(description="Keep what the tables need of finished runs.")
    parser.add_argument("runs", type=Path, help="the folder of the runs")
    parser.add_argument("kept", type=Path, help="the folder to write, with one folder for each run")
    asked = parser.parse_args(arguments)
    try:
        runs = keep(asked.runs, asked.kept)
    except errors.MetarunError as error:
        print(f"error: {error.what}\nwhere: {error.where}\nto do: {error.remedy}", file=sys.stderr)
        return error.exit_code
    print(f"{len(runs)} runs are kept in {asked.kept}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
