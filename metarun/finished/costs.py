"""What a learner of a finished run has cost, and which of several had other budgets than the best.

The result of a run has the cost of each of its stages (`training.ledger`). A run of an older version has none: then the
steps, the seconds and the parameters are read from the manifest of the measured checkpoint, and the rest is not known.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from metarun import errors
from metarun.runs import manifest

TOLERANCE = 0.1  # budgets that differ by at most this share of the best one's are equal
NOT_RECORDED = "not recorded"

Against = Literal["seconds", "flops", "steps", "parameters", "adaptation"]
# What the cost of a learner is drawn against, and its words with their unit.
MEASURES: dict[str, str] = {
    "seconds": "seconds of training, with the stages it stands on",
    "flops": "FLOPs of training, with the stages it stands on",
    "steps": "outer steps",
    "parameters": "trained parameters, with the stages it stands on",
    "adaptation": "FLOPs of one adaptation",
}


class Cost(NamedTuple):
    """What a learner took; None: that is not known.

    The numbers are those of one replica. For one member of a stage with copies they are those of this member; its
    seconds are those of all members and replicas, which train side by side.
    """

    steps: int | None  # outer steps
    seconds: float | None  # of training, without compiling and measuring, for all replicas side by side
    earlier_seconds: float | None  # of the stages that it stands on
    parameters: int | None  # numbers that are trained, of one learner
    state_bytes: int | None  # of weights and optimizer, in memory and in a checkpoint
    flops: float | None = None  # of training, with the stages that it stands on
    all_parameters: int | None = None  # numbers that are trained, in the stages that it stands on, too
    adaptation_flops: float | None = None  # of one adaptation to an episode's support
    prediction_flops: float | None = None  # of the answer to one example
    flops_at_least: bool = False  # whether FLOPs are a lower bound: a loop of unknown length counts once
    ended_by: str | None = None  # the budget that was used up: steps, seconds or flops
    replicas: int = 1  # that `seconds` are of


def read_cost(path: Path, stage: str, step: int, earlier_seconds: float, learners: int) -> Cost:
    """Read what the stage took, all its learners together, from the manifest of the measured checkpoint.

    A checkpoint that is gone, or of a version before 0.2, tells nothing.

    Raises:
      CheckpointError: its manifest is damaged.
    """
    folder = path / "checkpoints" / stage / str(step)
    if not (folder / manifest.NAME).exists():
        return Cost(step, None, None, None, None)
    try:
        saved = manifest.read(folder)
        width = {name: np.dtype(leaf.dtype).itemsize for name, leaf in saved.leaves.items()}
    except manifest.OldCheckpointError:
        return Cost(step, None, None, None, None)
    except TypeError as error:
        what, remedy = f"its manifest names a type that does not exist: {error}", "restore it, or train again"
        raise errors.CheckpointError(what, str(folder), remedy) from error
    numbers = {name: math.prod(leaf.shape) for name, leaf in saved.leaves.items()}
    trained = sum(count for name, count in numbers.items() if name.startswith("weights.trained"))
    state_bytes = sum(numbers[name] * width[name] for name in numbers)
    seconds = saved.facts.get("seconds")
    seconds = seconds if type(seconds) in (int, float) else None
    return Cost(step, seconds, earlier_seconds, trained // learners, state_bytes)


def add_recorded(saved: Cost, recorded: Mapping[str, Any] | None, members: int = 1) -> Cost:
    """Return the cost with what the result of the run records of it.

    Args:
      saved: what the checkpoint tells.
      recorded: the cost of the stage in result.json; None: an older version of metarun wrote it.
      members: of the stage, if the cost is that of one of them.
    """
    if recorded is None:
        return saved
    own, total = recorded["own"], recorded["total"]
    shares = {name: share_of_member(own, total, name, members) for name in ("flops", "parameters")}
    earlier = None if total["seconds"] is None else total["seconds"] - own["seconds"]
    return saved._replace(
        steps=own["steps"] or saved.steps,
        seconds=saved.seconds if own["seconds"] is None else own["seconds"],
        earlier_seconds=saved.earlier_seconds if earlier is None else earlier,
        flops=shares["flops"],
        all_parameters=shares["parameters"],
        adaptation_flops=recorded["adaptation"]["flops"],
        prediction_flops=recorded["prediction"]["flops"],
        flops_at_least=any(
            part.get("at_least") for part in (total, recorded["adaptation"], recorded["prediction"])
        ),
        ended_by=own["ended_by"],
        replicas=recorded["replicas"],
    )


def share_of_member(own: Mapping[str, Any], total: Mapping[str, Any], name: str, members: int) -> Any:
    """Return the total without what the other members have cost; None: it is not known."""
    if total[name] is None:
        return None
    rest = own[name] - own[name] / members
    return type(total[name])(total[name] - rest)


def measure(cost: Mapping[str, Any], against: str) -> float | None:
    """Return what a learner has cost in one of MEASURES; None: that is not known.

    Args:
      cost: a `Cost` as a comparison has it, {name: value}.
    """
    if against == "seconds":
        seconds, earlier = cost["seconds"], cost["earlier_seconds"]
        return None if seconds is None else seconds + (earlier or 0.0)
    names = {"flops": "flops", "steps": "steps", "adaptation": "adaptation_flops"}
    if against != "parameters":
        return cost.get(names[against])
    known = cost.get("all_parameters")
    return cost["parameters"] if known is None else known


class Budgets(NamedTuple):
    """Whether several learners had the budget of the first one."""

    # The measure that all of them have: flops, else seconds, else steps; None: there is none.
    against: str | None
    shares: list[float | None]  # each budget as a share of the first one
    unequal: list[bool]  # whether it differs by more than TOLERANCE


def judge_budgets(costs: Sequence[Mapping[str, Any]]) -> Budgets:
    """Compare the training of learners with that of the first one, in the fairest measure that all of them have.

    Seconds are compared only where all have as many replicas, because they are those of all replicas together.
    """
    for against in ("flops", "seconds", "steps"):
        values = [measure(cost, against) for cost in costs]
        same_replicas = len({cost.get("replicas", 1) for cost in costs}) == 1
        known = [value for value in values if value]
        if len(known) == len(values) and known and (against != "seconds" or same_replicas):
            shares: list[float | None] = [value / known[0] for value in known]
            return Budgets(against, shares, [abs(value / known[0] - 1) > TOLERANCE for value in known])
    return Budgets(None, [None] * len(costs), [False] * len(costs))


def describe_budgets(budgets: Budgets, labels: Sequence[str]) -> str | None:
    """Return the line about learners that had another budget than the best; None: all had the same.

    Args:
      labels: of the learners, best first.
    """
    if budgets.against is None:
        return "budgets: not recorded, so they are not compared"
    named = [
        f"{label} {share:.3g} times"
        for label, share, unequal in zip(labels, budgets.shares, budgets.unequal, strict=True)
        if unequal
    ]
    if not named:
        return None
    words = {"flops": "FLOPs of training", "seconds": "seconds of training", "steps": "outer steps"}
    return f"unequal budgets: {', '.join(named)} the {words[budgets.against]} of {labels[0]}"
