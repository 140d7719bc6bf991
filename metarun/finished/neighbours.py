"""Two stages that embed tasks, beside one another: how often the nearest task shares a fact, by seed and task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from metarun.finished import pairwise
from metarun.finished.finished_run import find_run
from metarun.finished.opened_run import open_run
from metarun.finished.pairwise import Measured
from metarun.finished.retrieval import retrieve
from metarun.finished.task_vectors import embed

TASKS, DISTANCE = 400, "euclidean"  # as `metarun embed` has them if nothing else is said


class Neighbours(NamedTuple):
    """Whether the nearest task shares each fact, with the learners of one stage and without any."""

    facts: Mapping[str, Measured]  # {fact: [seed, query], 1 or 0}
    raw: Mapping[str, Measured]  # the same with the raw support as the vector, which is one for all seeds


def find_neighbours(run: Path, stage: str, tasks: int = TASKS) -> Neighbours:
    """Embed frozen tasks with every seed of a stage, and look for the nearest other one.

    Raises:
      MetarunError: what is wrong with the run, or with the stage, which gives no vector of a task.
    """
    opened = open_run(find_run(run, (), stage=stage))
    seeds = tuple(opened.stage.list_seeds().tolist())
    learners = [
        retrieve(embed(opened, tasks, place).tasks, DISTANCE) for place in range(len(opened.stage.positions))
    ]
    return Neighbours(
        {fact: stack([learner[fact].embedding for learner in learners], seeds) for fact in learners[0]},
        {fact: stack([learner[fact].raw for learner in learners], seeds) for fact in learners[0]},
    )


def stack(found: Sequence[Bool[np.ndarray, "query"]], seeds: tuple[int, ...]) -> Measured:
    """Return what was found with each seed."""
    return Measured(np.stack(found).astype(np.float64), seeds)


def subtract(method: Mapping[str, Measured], control: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """Return a line for each fact, ready for JSON.

    Returns:
      [{"fact", "method_share", "control_share", "mean", "ci95", "p"}]: the share of queries with each, and the
      difference method minus control.
    """
    lines = []
    for fact, left in method.items():
        right = control[fact]
        pair = pairwise.subtract(left, right)
        lines.append(
            {
                "fact": fact,
                "method_share": float(left.values.mean()),
                "control_share": float(right.values.mean()),
                **pair.estimate.interval._asdict(),
                "p": pairwise.find_p_value(pair.estimate),
            }
        )
    return lines
