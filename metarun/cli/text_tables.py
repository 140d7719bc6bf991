"""Results and lists as text: aligned on a terminal and in a pipe, without escape codes."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING
from typing import Any

import typer

from metarun.evaluation import wording
from metarun.plain_text import escape

INTERVAL = ("mean", "ci95", "episodes", "seeds", "not_finite")  # the keys of an interval in a result


def align(rows: Iterable[Iterable[str]]) -> str:
    """Return rows of cells as text, every column as wide as its widest cell."""
    table = [list(map(escape, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return "\n".join(line.rstrip() for line in lines)


def format_markdown_table(header: list[str], rows: Iterable[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def format_default(value: Any) -> str:
    """Return a default as one writes it in a config: `null`, `true`, `[40, 40]`; "required" if there is none."""
    if value is MISSING:
        return "required"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return json.dumps(dataclasses.asdict(value), ensure_ascii=False)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def print_either(
    content: dict[str, Any], as_json: bool, print_text: Callable[[dict[str, Any]], None]
) -> None:
    """Print what a command has found: as one JSON object, or by the function that prints it for people."""
    from metarun.runs import strict_json

    if as_json:
        typer.echo(strict_json.encode(content))
    else:
        print_text(content)


def print_result(result: dict[str, Any]) -> None:
    """Print an evaluation: a line for each stage, mode and number of inner steps; then groups and seeds, if any."""
    stages = result["stages"]
    rows = [row for name, stage in stages.items() for row in make_stage_rows(name, stage, result["modes"])]
    names = list(dict.fromkeys(name for row in rows for name in row[3]))
    header = ["stage", "mode", "learner", *names]
    rules = [(rule, "", "", metrics) for rule, metrics in result.get("baselines", {}).items()]
    shown = [
        *rows,
        *rules,
        *([(wording.BEST_POSSIBLE, "", "", result["ceiling"])] if "ceiling" in result else []),
    ]
    cells = [[*row[:3], *(format_interval(row[3].get(name)) for name in names)] for row in shown]
    episodes, seeds = result["episodes"], result.get("seeds", [])
    typer.echo(align([header, *cells]))
    if any("groups" in stage[mode] for stage in stages.values() for mode in result["modes"]):
        print_groups(result)
    replicas = [f"seed {seed}" for seed in seeds]
    if trials := result.get("trials", []):
        print_trials(trials, result["diverged"])
        replicas = [f"trial {place}" for place in range(len(trials))]
    if seeds:
        print_seeds(rows, replicas)
    typer.echo(
        f"{episodes['count']} {result['split']} episodes ({episodes['hash']}), step {result['step']}, "
        f"mean ± 95 % confidence interval {wording.describe_spread(len(seeds), len(trials))}"
    )
    for sentence in result.get("data", []):
        typer.echo(sentence)
    print_ended_by_seconds(result.get("costs", {}))
    if any(not is_finite(interval) for row in rows for interval in row[3].values()):
        typer.echo(
            "not finite: adaptation has overflowed there; take fewer inner steps (evaluation.adapted_steps), or train "
            "with a lower inner_lr or with the number of shots that is measured"
        )


def print_ended_by_seconds(costs: dict[str, Any]) -> None:
    """Print a line for each stage whose training seconds have ended: it cannot be repeated bit for bit."""
    for name, cost in costs.items():
        spent = cost["own"]
        if spent["ended_by"] == "seconds":
            typer.echo(
                f"{name} ended by seconds: {spent['steps']:,} steps in {spent['seconds']:.1f} s of training; "
                "another run takes another number of steps"
            )


def make_stage_rows(name: str, stage: dict[str, Any], modes: list[str]) -> list[tuple[str, str, str, dict]]:
    """Return (stage, mode, learner, {metric: interval}) for every variant of a stage, and of each of its members.

    A stage with copies is the mean over its members; `stage[0]` is one of them.
    """
    rows = make_variant_rows(name, stage, modes)
    for number, member in enumerate(stage.get("members", [])):
        rows += make_variant_rows(f"{name}[{number}]", member, modes)
    if "best" in stage:
        rows += make_variant_rows(f"{name}[best]", stage["best"], modes)
    return rows


def make_variant_rows(name: str, stage: dict[str, Any], modes: list[str]) -> list[tuple[str, str, str, dict]]:
    """Return (stage, mode, learner, {metric: interval}) for every variant."""
    rows = []
    for mode in modes:
        for learner, metrics in stage[mode].items():
            if learner == "groups":
                continue
            if learner == "inner_steps":
                rows += [
                    (name, mode, f"after {count} inner step{'s' * (count != '1')}", values)
                    for count, values in metrics.items()
                ]
            else:
                rows.append((name, mode, learner, metrics))
    return rows


def print_trials(trials: list[dict[str, Any]], diverged: list[dict[str, Any]]) -> None:
    """Print the seed and the numbers of each trial, and which of them have diverged."""
    cells = [[str(place), *map(format_default, trial.values())] for place, trial in enumerate(trials)]
    typer.echo("\n" + align([["trial", *trials[0]], *cells]))
    for lost in diverged:
        typer.echo(
            f"trial {lost['trial']} has diverged at step {lost['step']} of {lost['stage']}: "
            "its values are those of the step before"
        )


def print_seeds(rows: list[tuple[str, str, str, dict]], replicas: list[str]) -> None:
    """Print a line for each stage, mode, learner and metric, with the mean of each replica, under its name."""
    cells = [
        [*row[:3], metric, *(f"{value:.4f}" for value in interval["seeds"]["values"])]
        for row in rows
        for metric, interval in row[3].items()
    ]
    header = ["stage", "mode", "learner", "metric", *replicas]
    typer.echo("\n" + align([header, *cells]) + "\n")


def print_groups(result: dict[str, Any]) -> None:
    """Print a line for each stage, mode, kind of task and learner."""
    rows = [
        (name, mode, group, learner, metrics)
        for name, stage in result["stages"].items()
        for mode in result["modes"]
        for group, learners in stage[mode].get("groups", {}).items()
        for learner, metrics in learners.items()
    ]
    names = list(dict.fromkeys(name for row in rows for name in row[4]))
    cells = [[*row[:4], *(format_interval(row[4].get(name)) for name in names)] for row in rows]
    typer.echo("\n" + align([["stage", "mode", "task", "learner", *names], *cells]) + "\n")


def is_finite(interval: dict[str, Any]) -> bool:
    """Tell whether a mean and its interval are numbers."""
    return math.isfinite(float(interval["mean"])) and math.isfinite(float(interval["ci95"]))


def format_interval(interval: dict[str, Any] | None) -> str:
    """Return `0.9873 ± 0.0031`, and with several seeds `0.9873 ± 0.0031 (± 0.0102)`; "" for None.

    A mean that is not finite is `not finite in 3 episodes`, if their number is known.
    """
    if not interval:
        return ""
    if not is_finite(interval):
        count = interval.get("not_finite")
        return f"not finite in {count} episode{'s' * (count != 1)}" if count else "not finite"
    over_seeds = f" (± {interval['seeds']['ci95']:.4f})" if "seeds" in interval else ""
    return f"{interval['mean']:.4f} ± {interval['ci95']:.4f}{over_seeds}"


def format_mean(section: dict[str, Any] | None) -> str:
    """Return `0.0085 ± 0.0016` for whatever has a mean and its interval, and perhaps seeds; "" for None."""
    if not section:
        return ""
    return format_interval({name: section[name] for name in INTERVAL if name in section})


def format_count(value: float | None) -> str:
    """Return `70,000`, with a digit after the point if it is small; "" for None."""
    if value is None:
        return ""
    return f"{value:,.1f}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"
