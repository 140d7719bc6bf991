"""`metarun table`."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from metarun import errors
from metarun.cli.arguments import Plot
from metarun.cli.text_tables import format_count, format_markdown_table, format_mean
from metarun.evaluation import wording


def table(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG...", help="YAML files, one for each run.")],
    runs: Annotated[
        Path, typer.Option(help="The folder of the runs; each has the name of its config.")
    ] = Path("runs/table"),
    plot: Plot = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table to a file, too.")] = None,
) -> None:
    """Train many configs, and rank their runs in one table.

    Every config becomes the run FOLDER/NAME, trained by a `metarun train` of its own, one after the other. A finished
    run is taken as it is, and one that was stopped goes on. So the command can be called again after anything. The
    rows are the stages of all runs, ranked by the first mode that all of them measured. There is a column for every
    such mode, one for the difference to the best by pairs of episodes, and what each cost. A run that answered other
    episodes is left out and named. A config that cannot be trained is named, and makes the exit code 1.
    """
    folders = choose_folders(configs, runs)
    failed = [config for config, run in folders.items() if not train_unfinished(config, run)]
    for config in failed:
        typer.echo(f"failed: metarun train {config}")
    from metarun.figures import comparison_plot
    from metarun.finished import method_table
    from metarun.runs import files

    finished = [run for config, run in folders.items() if config not in failed]
    same, others = method_table.choose_same_episodes(finished)
    for run in others:
        typer.echo(f"left out, because it answered other episodes: {run.name}")
    comparisons = method_table.compare_modes(same)
    text = format_markdown(comparisons)
    typer.echo(text)
    if markdown is not None:
        files.write_output(markdown, f"{text}\n".encode())
    if plot is not None:
        comparison_plot.write_comparison(plot, comparisons[0])
    if failed:
        raise typer.Exit(1)


def choose_folders(configs: list[Path], runs: Path) -> dict[Path, Path]:
    """Return {config: its run}.

    Raises:
      UsageError: two configs have one name, and would be one run.
    """
    names = Counter(config.stem for config in dict.fromkeys(configs))
    if twice := [name for name, count in names.items() if count > 1]:
        raise errors.UsageError(
            f"two configs have the name {twice[0]}",
            "metarun table",
            "rename one, or make a table of each folder",
        )
    return {config: runs / config.stem for config in configs}


def train_unfinished(config: Path, run: Path) -> bool:
    """Train a config unless its run is finished, and return whether there is a result."""
    from metarun.runs import directory

    result = run / directory.RESULT
    if not result.exists():
        resume = ["--resume"] if run.exists() else []
        command = [sys.executable, "-m", "metarun", "train", str(config), "--run-dir", str(run), *resume]
        print(f"training {config}", file=sys.stderr, flush=True)
        subprocess.run(command, stdout=subprocess.DEVNULL)
    return result.exists()


def format_markdown(comparisons: list[dict[str, Any]]) -> str:
    """Return the comparisons, one for each mode, as one table. The rows are ranked by the first."""
    first, *others = comparisons
    is_loss = first["metric"] == "loss"
    format_score = format_mean if is_loss else format_percent
    name = "mean squared error" if is_loss else f"{first['metric']}, %"
    scores = [{entry["label"]: entry for entry in other["ranking"]} for other in others]
    header = ["", "learner", *(f"{name}, {comparison['mode']}" for comparison in comparisons)]
    header += ["minus the best", "steps", "seconds", "parameters"]
    rows = [
        [
            str(number),
            entry["label"],
            format_score(entry),
            *(format_score(other[entry["label"]]) for other in scores),
            format_score(entry["behind"]) if entry["behind"] else "",
            format_count(entry["cost"]["steps"]),
            format_count(add_seconds(entry["cost"])),
            format_count(entry["cost"]["parameters"]),
        ]
        for number, entry in enumerate(first["ranking"], start=1)
    ]
    if reached := first["ceiling"]:
        best = [format_score(other["ceiling"]) for other in comparisons]
        rows.append(["", wording.BEST_POSSIBLE, *best, format_score(reached["behind"]), "", "", ""])
    episodes = first["episodes"]
    note = f"{episodes['count']} {episodes['split']} episodes ({episodes['hash']}), mean ± 95 % interval"
    seeded = any("seeds" in entry for entry in first["ranking"])
    note += (
        f" over {'seeds and ' * seeded}episodes{', in brackets over the seeds alone' * (seeded and is_loss)}"
    )
    note = ". ".join([note, *first["notes"]])
    return f"{format_markdown_table(header, rows)}\n\n{note}"


def format_percent(interval: dict[str, Any]) -> str:
    """Return `98.7 ± 0.3` for shares."""
    return f"{100 * interval['mean']:.1f} ± {100 * interval['ci95']:.1f}"


def add_seconds(cost: dict[str, Any]) -> float | None:
    """Return the seconds of training, with those of the stages before; None: they are not known."""
    return None if cost["seconds"] is None else cost["seconds"] + (cost["earlier_seconds"] or 0.0)
