"""Results and lists as text: aligned on a terminal and in a pipe, without escape codes."""

import difflib
from collections.abc import Iterable
from dataclasses import MISSING
from typing import Any

import typer

from metarun import errors, plugins

TITLES = {"task": "Task families", "model": "Models", "algorithm": "Algorithms"}


def aligned(rows: Iterable[Iterable[str]]) -> str:
    """Rows of cells as text, every column as wide as its widest cell."""
    table = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return "\n".join(line.rstrip() for line in lines)


def print_result(result: dict[str, Any]) -> None:
    """The table of an evaluation: a line a stage, mode and number of inner steps; then groups and seeds, if any."""
    stages = result["stages"]
    rows = [row for name, stage in stages.items() for row in stage_rows(name, stage, result["modes"])]
    names = list(dict.fromkeys(name for row in rows for name in row[3]))
    header = ["stage", "mode", "learner", *names]
    cells = [[*row[:3], *(spoken(row[3].get(name)) for name in names)] for row in rows]
    episodes, seeds = result["episodes"], result.get("seeds", [])
    typer.echo(aligned([header, *cells]))
    if any("groups" in stage[mode] for stage in stages.values() for mode in result["modes"]):
        print_groups(result)
    if seeds:
        print_seeds(rows, seeds)
    over = f"; in brackets that over {len(seeds)} seeds" if seeds else ""
    typer.echo(
        f"{episodes['count']} {result['split']} episodes ({episodes['hash']}), step {result['step']}, "
        f"mean ± 95 % confidence interval{over}"
    )


def stage_rows(name: str, stage: dict[str, Any], modes: list[str]) -> list[tuple[str, str, str, dict]]:
    """(stage, mode, learner, {metric: interval}) for every variant of a stage, and of each of its members.

    A stage with copies is the mean over its members; `stage[0]` is one of them.
    """
    rows = variant_rows(name, stage, modes)
    for number, member in enumerate(stage.get("members", [])):
        rows += variant_rows(f"{name}[{number}]", member, modes)
    if "best" in stage:
        rows += variant_rows(f"{name}[best]", stage["best"], modes)
    return rows


def variant_rows(name: str, stage: dict[str, Any], modes: list[str]) -> list[tuple[str, str, str, dict]]:
    """(stage, mode, learner, {metric: interval}) for every variant."""
    rows = []
    for mode in modes:
        for learner, part in stage[mode].items():
            if learner == "groups":
                continue
            if learner == "inner_steps":
                rows += [
                    (name, mode, f"after {count} inner step{'s' * (count != '1')}", metrics)
                    for count, metrics in part.items()
                ]
            else:
                rows.append((name, mode, learner, part))
    return rows


def print_seeds(rows: list[tuple[str, str, str, dict]], seeds: list[int]) -> None:
    """A line a stage, mode, learner and metric, with the mean of each replica."""
    cells = [
        [*row[:3], metric, *(f"{value:.4f}" for value in part["seeds"]["values"])]
        for row in rows
        for metric, part in row[3].items()
    ]
    header = ["stage", "mode", "learner", "metric", *(f"seed {seed}" for seed in seeds)]
    typer.echo("\n" + aligned([header, *cells]) + "\n")


def print_groups(result: dict[str, Any]) -> None:
    """A line a stage, mode, kind of task and learner."""
    rows = [
        (name, mode, group, learner, metrics)
        for name, stage in result["stages"].items()
        for mode in result["modes"]
        for group, learners in stage[mode].get("groups", {}).items()
        for learner, metrics in learners.items()
    ]
    names = list(dict.fromkeys(name for row in rows for name in row[4]))
    cells = [[*row[:4], *(spoken(row[4].get(name)) for name in names)] for row in rows]
    typer.echo("\n" + aligned([["stage", "mode", "task", "learner", *names], *cells]) + "\n")


def spoken(interval: dict[str, Any] | None) -> str:
    """`0.9873 ± 0.0031`, and with several seeds `0.9873 ± 0.0031 (± 0.0102)`."""
    if not interval:
        return ""
    over_seeds = f" (± {interval['seeds']['ci95']:.4f})" if "seeds" in interval else ""
    return f"{interval['mean']:.4f} ± {interval['ci95']:.4f}{over_seeds}"


def print_plugins() -> None:
    """Every plug-in with the first line of its docstring."""
    for kind, title in TITLES.items():
        typer.echo(f"{title}:")
        typer.echo(aligned(["  " + name, plugins.summary(kind, name)] for name in plugins.names(kind)))
    typer.echo("\n`metarun list NAME` shows the options of one of them.")


def print_options(name: str) -> None:
    """The options of a plug-in: name, default, allowed values, meaning.

    Raises:
      UsageError: there is no such plug-in.
    """
    kinds = [kind for kind in plugins.FOLDERS if name in plugins.names(kind)]
    if not kinds:
        known = [each for kind in plugins.FOLDERS for each in plugins.names(kind)]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise errors.UsageError(
            f"there is no task family, model or algorithm {name}",
            f"metarun list {name}",
            f"{hint}choose one of {', '.join(known)}",
        )
    for kind in kinds:
        typer.echo(f"{kind} {name}: {plugins.summary(kind, name)}")
        rows = [
            [f"  {f.name}", "required" if f.default is MISSING else f"{f.default}", f.description, f.comment]
            for f in plugins.fields(kind, name)
        ]
        typer.echo(aligned([["  option", "default", "allowed", "meaning"], *rows]))
