"""What a stage reports about its learners: lines of metrics.jsonl, and learners in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metarun.stages import Position, Stage
from metarun.training.trial_chunk import ALIVE

NAMED = 8  # learners that a message names at most


def make_training_rows(stage: Stage, first: int, metrics: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return a line of metrics.jsonl for every step and learner; step n is the state's n-th update.

    A trial that has diverged has no lines after that step.

    Args:
      first: the steps before these.
      metrics: {name: [step, replica, member]}.
    """
    shown = {name: column for name, column in metrics.items() if name != ALIVE}
    columns = [column.reshape(len(column), -1).T.tolist() for column in shown.values()]
    alive = metrics.get(ALIVE, np.ones_like(metrics["loss"], bool))
    flags = alive.reshape(len(alive), -1).T.tolist()
    learners = [  # one after the other: (head of its lines, its values at every step, whether it trained at each)
        (make_head(stage, position, "train"), list(zip(*values, strict=True)), trained)
        for position, trained, *values in zip(stage.positions, flags, *columns, strict=True)
    ]
    return [
        {**head, "step": first + number + 1, **dict(zip(shown, steps[number], strict=True))}
        for number in range(len(metrics["loss"]))
        for head, steps, trained in learners
        if trained[number]
    ]


def average_metrics(metrics: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the means over the steps and the learners, of trials while they train."""
    alive = metrics.get(ALIVE, np.ones_like(metrics["loss"], bool))
    return {name: float(column[alive].mean()) for name, column in metrics.items() if name != ALIVE}


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
        words[0] += f" ({format_trial(stage, position['replica'])})"
    return " ".join(words)


def format_trial(stage: Stage, replica: int) -> str:
    """Return `seed 2`, and for a trial its numbers: `seed 2, algorithm.inner_lr 0.1`."""
    listed = stage.trials.numbers if stage.has_trials and stage.trials else ()
    values = [f"{number.path} {number.values[replica]:g}" for number in listed]
    return ", ".join([f"seed {stage.list_seeds()[replica]}", *values])
