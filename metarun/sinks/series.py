"""Rows of metrics.jsonl become points of named series, the same names in all sinks."""

from collections.abc import Iterator
from typing import Any, NamedTuple

HEAD = ("stage", "replica", "member", "split", "step", "mode")  # the keys of a row that are no values


class Point(NamedTuple):
    """The values of one learner at one step."""

    series: str  # STAGE/SPLIT, and the learner if it is not the first: maml/train/replica-1
    stage: str
    step: int
    values: dict[str, float]  # by their names in the sink: maml/train/loss/replica-1


def make_point(row: dict[str, Any]) -> Point:
    """Return the point of a row. Replica 0 and member 0 are not named."""
    axes = [f"/{axis}-{row[axis]}" for axis in ("replica", "member") if row.get(axis)]
    stem, learner = f"{row['stage']}/{row['split']}", "".join(axes)
    values = {f"{stem}/{name}{learner}": float(row[name]) for name in row if name not in HEAD}
    return Point(f"{stem}{learner}", row["stage"], row["step"], values)


def make_result_points(result: dict[str, Any]) -> list[Point]:
    """Return a point for each stage of a result: means and intervals.

    A name is maml/test-result/inductive/adapted/loss.
    """
    split, points = result["split"], []
    for stage, measured in result["stages"].items():
        stem = f"{stage}/{split}-result"
        modes = {mode: measured[mode] for mode in result["modes"] if mode in measured}
        values = {f"{stem}/{name}": value for name, value in flatten_intervals(modes)}
        points.append(Point(stem, stage, measured["step"], values))
    return points


def flatten_intervals(section: dict[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Yield (slashed path, value) of all means and 95 % intervals below a section."""
    for name, value in section.items():
        inner = f"{path}/{name}".lstrip("/")
        if isinstance(value, dict) and {"mean", "ci95"} <= value.keys():
            yield from [(inner, float(value["mean"])), (f"{inner}_ci95", float(value["ci95"]))]
        elif isinstance(value, dict):
            yield from flatten_intervals(value, inner)
