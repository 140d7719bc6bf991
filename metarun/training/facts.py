"""What a checkpoint records beside the state."""

from dataclasses import asdict, dataclass
from typing import Any

from metarun import errors
from metarun.runs.checkpoints import Checkpoint


@dataclass(frozen=True)
class Facts:
    """What a checkpoint records beside the state, so that a resumed run is the uninterrupted one."""

    step: int = 0
    best: float | None = None  # the best validation so far
    seconds: float = 0.0  # spent in training
    metrics_bytes: int = 0  # length of metrics.jsonl
    diverged: tuple[
        tuple[int, int], ...
    ] = ()  # (replica, step) of trials; a checkpoint without any leaves it out


def write_facts(facts: Facts) -> dict[str, Any]:
    """Return the facts as a checkpoint has them."""
    return {name: value for name, value in asdict(facts).items() if name != "diverged" or value}


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
