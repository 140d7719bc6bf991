"""Which learner of a finished run is meant: its mode, its place among others, its inner steps. Reads no weights."""

import re
from collections.abc import Iterable

from metarun import assembly, errors
from metarun.finished.finished_run import FinishedRun
from metarun.stages import Position

MODES = ("inductive", "transductive")


def choose_mode(run: FinishedRun, overrides: Iterable[str]) -> str:
    """Return the first mode that the overrides name, or inductive if they name none."""
    is_named = any(re.match(r"evaluation(\.modes)?\s*=.*(in|trans)ductive", text) for text in overrides)
    return run.config.evaluation.modes[0] if is_named else MODES[0]


def choose_position(run: FinishedRun, replica: int, member: int) -> Position:
    """Return the place of a learner on the axes that the chosen stage has. Reads no weights.

    Raises:
      UsageError: there is no such replica or member.
    """
    axes, places = assembly.name_axes(run.config, run.stage_settings), {"replica": replica, "member": member}
    for axis, place in places.items():
        size = axes.get(axis, 1)
        if not 0 <= place < size:
            what = f"there is no {axis} {place}"
            raise errors.UsageError(what, f"stage {run.chosen_stage}", f"give a number from 0 to {size - 1}")
    return {axis: places[axis] for axis in axes}


def choose_inner_steps(run: FinishedRun, inner_steps: int | None) -> int | None:
    """Return how many inner steps the learner takes; None: its algorithm has no inner loop. Reads no weights.

    Raises:
      UsageError: steps are asked for, and there are none, or their number is negative.
    """
    adapted_steps = assembly.choose_adapted_steps(run.config, run.stage_settings)
    if inner_steps is None:
        return adapted_steps
    if adapted_steps is None:
        what = f"{run.stage_settings.algorithm.label} has no inner steps"
        raise errors.UsageError(what, f"stage {run.chosen_stage}", "leave the inner steps out")
    if inner_steps < 0:
        raise errors.UsageError(f"{inner_steps} inner steps cannot be taken", "inner steps", "take 0 or more")
    return inner_steps
