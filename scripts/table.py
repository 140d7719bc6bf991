"""One table of many methods on the same frozen episodes: train what is not trained yet, then compare.

    python scripts/table.py CONFIG ... [--runs DIR] [--plot PNG] [--markdown FILE]

Every config becomes the run DIR/<its name>, trained by a `metarun train` of its own, one after the other; a finished
run is taken as it is and a run that was stopped goes on, so that the script can be called again after anything. The
rows are the stages of all runs, ranked by the first mode that all of them measured, with a column for every such mode,
the difference to the best by pairs of episodes, and what each cost. A run that answered other episodes is left out and
named; one that fails is named, and makes the exit code 1.

    python scripts/table.py configs/omniglot/*-5way-1shot-table.yaml --runs runs/omniglot-table
    python scripts/table.py configs/sinusoid/maml.yaml configs/sinusoid/anil.yaml --runs runs/sinusoid-table
"""

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from metarun import comparison, errors
from metarun.cli import compare
from metarun.runs import files

SUFFIX = "-5way-1shot-table"  # of the names of configs that exist for the table; not repeated in every row


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG")
    parser.add_argument("--runs", type=Path, default=Path("runs/table"), help="where the runs are")
    parser.add_argument("--plot", type=Path, help="write the comparison as PNG")
    parser.add_argument("--markdown", type=Path, help="write the table to a file too")
    wanted = parser.parse_args()
    runs = {path: wanted.runs / path.stem.removesuffix(SUFFIX) for path in wanted.configs}
    failed = [path for path, run in runs.items() if not trained(path, run)]
    for path in failed:
        print(f"failed: metarun train {path}")
    chosen, others = same_episodes([run for path, run in runs.items() if path not in failed])
    for run in others:
        print(f"left out, because it answered other episodes: {run.name}")
    try:
        found = [comparison.compare(chosen, comparison.Choice(mode)) for mode in shared_modes(chosen)]
    except errors.MetarunError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    text = markdown(found)
    print(text)
    if wanted.markdown is not None:
        files.write_text(wanted.markdown, f"{text}\n")
    if wanted.plot is not None:
        compare.write_plot(wanted.plot, found[0])
    return 1 if failed else 0


def trained(path: Path, run: Path) -> bool:
    """Train a config unless its run is finished; whether there is a result."""
    if not (run / "result.json").exists():
        resume = ["--resume"] if run.exists() else []
        command = [sys.executable, "-m", "metarun", "train", str(path), "--run-dir", str(run), *resume]
        print(f"training {path}", file=sys.stderr, flush=True)
        subprocess.run(command, stdout=subprocess.DEVNULL)
    return (run / "result.json").exists()


def same_episodes(runs: list[Path]) -> tuple[list[Path], list[Path]]:
    """The runs on the episodes that most of them answered, and the others."""
    hashes = {run: comparison.read_result(run)["episodes"]["hash"] for run in runs}
    common = Counter(hashes.values()).most_common(1)[0][0] if hashes else None
    return (
        [run for run, digest in hashes.items() if digest == common],
        [run for run, digest in hashes.items() if digest != common],
    )


def shared_modes(runs: list[Path]) -> list[str]:
    """The modes that every run measured, in the order of the first."""
    measured = [comparison.read_result(run)["modes"] for run in runs]
    if not measured:
        raise errors.UsageError("no run has a result", "the table", "see what is said above of each config")
    return [mode for mode in measured[0] if all(mode in other for other in measured)]


def markdown(found: list[dict[str, Any]]) -> str:
    """The comparisons, one a mode, as one table: the rows are ranked by the first."""
    first = found[0]
    score = compare.interval if first["metric"] == "loss" else percent
    name = "mean squared error" if first["metric"] == "loss" else f"{first['metric']}, %"
    others = [{entry["label"]: entry for entry in each["ranking"]} for each in found[1:]]
    modes = [f"{name}, {each['mode']}" for each in found]
    header = ["", "learner", *modes, "minus the best", "steps", "seconds", "parameters"]
    rows = [
        [
            str(number),
            entry["label"],
            score(entry),
            *[score(other[entry["label"]]) for other in others],
            score(entry["behind"]) if entry["behind"] else "",
            compare.counted(entry["cost"]["steps"]),
            compare.counted(total_seconds(entry["cost"])),
            compare.counted(entry["cost"]["parameters"]),
        ]
        for number, entry in enumerate(first["ranking"], start=1)
    ]
    lines = [header, ["---"] * len(header), *rows]
    episodes = first["episodes"]
    note = f"{episodes['count']} {episodes['split']} episodes ({episodes['hash']}), mean ± 95 % interval"
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}"


def percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['mean']:.1f} ± {100 * interval['ci95']:.1f}"


def total_seconds(cost: dict[str, Any]) -> float | None:
    """Of training, with that of the stages before."""
    return None if cost["seconds"] is None else cost["seconds"] + (cost["earlier_seconds"] or 0.0)


if __name__ == "__main__":
    raise SystemExit(main())
