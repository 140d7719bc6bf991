"""What a stage reports about its learners: lines of metrics.jsonl, and learners in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metarun.stages import Position, Stage

NAMED = 8  # learners that a message names at most


def make_training_rows(stage: Stage, first: int, metrics: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return a line of metrics.jsonl for every step and learner; step n is the state's n-th update.

    Args:
      first: the steps before these.
      metrics: {name: [step, replica, member]}.
    """
    columns = [column.reshape(len(column), -1).T.tolist() for column in metrics.values()]
    learners = [  # one after the other: (head of its lines, its values at every step)
        (make_head(stage, position, "train"), list(zip(*values, strict=True)))
        for position, *values in zip(stage.positions, *columns, strict=True)
    ]
    return [
        {**head, "step": first + number + 1, **dict(zip(metrics, steps[number], strict=True))}
        for number in range(len(metrics["loss"]))
        for head, steps in learners
    ]


def make_head(stage: Stage, position: Position, split: str) -> dict[str, Any]:
    """Return the keys that a line of metrics.jsonl begins with."""
    return {"stage": stage.name, "replica": 0, **position, "split": split}


def name_diverged(stage: Stage, finite: Sequence[bool]) -> str:
    """Return `, of replica 1 (seed 3) member 2 (1 of 6)`: the learners that are not finite; "" for a single one.

    Args:
      finite: whether each learner is finite, in the order of the stage's positions.
    """
    pairs = zip(stage.positions, finite, strict=True)
    names = [format_position(stage, position) for position, flag in pairs if position and not flag]
    if not names:
        return ""
    shown = ", ".join([*names[:NAMED], *["…"] * (len(names) > NAMED)])
    return f", of {shown} ({len(names)} of {len(stage.positions)})"


def format_position(stage: Stage, position: Position) -> str:
    """Return `replica 2 (seed 2) member 0`."""
    words = [f"{axis} {place}" for axis, place in position.items()]
    if "replica" in position:
        words[0] += f" (seed {stage.seed + position['replica']})"
    return " ".join(words)
