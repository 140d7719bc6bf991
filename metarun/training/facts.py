"""What a checkpoint records beside the state."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from metarun import errors
from metarun.runs.checkpoints import Checkpoint

OPTIONAL = ("flops_at_least", "diverged")  # facts that a checkpoint leaves out where they say nothing


class Spent(NamedTuple):
    """What the training of a stage took."""

    steps: int
    seconds: float  # of training, without compiling, validation and saving, for all replicas side by side
    step_flops: float | None  # of one replica; None: an older version of metarun did not count them
    flops_at_least: bool  # whether a step may take more: a loop of unknown length counts once
    ended_by: str | None  # the budget that was used up: steps, seconds or flops


@dataclass(frozen=True)
class Facts:
    """What a checkpoint records beside the state, so that a resumed run is the uninterrupted one."""

    step: int = 0
    best: float | None = None  # the best validation so far
    seconds: float = 0.0  # spent in training
    # FLOPs of a step of one replica; None: an older version of metarun did not count them.
    step_flops: float | None = None
    metrics_bytes: int = 0  # length of metrics.jsonl
    flops_at_least: bool = False  # whether a step may take more FLOPs; a checkpoint leaves it out if not
    # (replica, step) of trials; a checkpoint without any leaves it out.
    diverged: tuple[tuple[int, int], ...] = ()


def write_facts(facts: Facts) -> dict[str, Any]:
    """Return the facts as a checkpoint has them."""
    return {name: value for name, value in asdict(facts).items() if value or name not in OPTIONAL}


def read_facts(checkpoint: Checkpoint) -> Facts:
    """Return what a checkpoint recorded beside the state.

    Raises:
      CheckpointError: it was written by a version that recorded something else.
    """
    facts = dict(checkpoint.facts)
    if isinstance(facts.get("best"), str):  # JSON has no infinity: "inf"
        facts["best"] = float(facts["best"])
    if "diverged" in facts:  # JSON has no tuples
        facts["diverged"] = tuple((replica, step) for replica, step in facts["diverged"])
    try:
        return Facts(**facts)
    except TypeError as error:
        raise errors.CheckpointError(
            f"the checkpoint records other facts than this version of metarun: {error}",
            str(checkpoint.path),
            "use the version in the run's environment.json, or train again",
        ) from error
