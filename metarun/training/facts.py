"""What a checkpoint records beside the state."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from metarun import errors
from metarun.runs import manifest
from metarun.runs.checkpoints import Checkpoint

# Facts that a checkpoint leaves out where they say nothing.
OPTIONAL = ("flops_at_least", "diverged", "unvalidated", "metrics_sha256")
# The types of the facts in JSON; `diverged` is parsed.
KINDS: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "best": (int, float, type(None)),
    "seconds": (int, float),
    "step_flops": (int, float, type(None)),
    "metrics_bytes": (int,),
    "metrics_sha256": (str,),
    "flops_at_least": (bool,),
    "unvalidated": (bool,),
}


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
    metrics_sha256: str = ""  # of these bytes; "": an older version of metarun wrote the checkpoint
    flops_at_least: bool = False  # whether a step may take more FLOPs; a checkpoint leaves it out if not
    # (replica, step) of trials; a checkpoint without any leaves it out.
    diverged: tuple[tuple[int, int], ...] = ()
    # Whether a signal cut short the validation that is due at this step; a checkpoint leaves it out if not.
    unvalidated: bool = False


def write_facts(facts: Facts) -> dict[str, Any]:
    """Return the facts as a checkpoint has them."""
    return {name: value for name, value in asdict(facts).items() if value or name not in OPTIONAL}


def read_facts(checkpoint: Checkpoint) -> Facts:
    """Return what a checkpoint recorded beside the state.

    Raises:
      CheckpointError: it was written by a version that recorded something else.
    """
    try:
        facts = dict(checkpoint.facts)
        if isinstance(facts.get("best"), str):  # JSON has no infinity: "inf"
            facts["best"] = float(facts["best"])
        if "diverged" in facts:
            facts["diverged"] = manifest.parse_diverged(facts)
        refuse_other_values(facts, checkpoint.step)
        return Facts(**facts)
    except (TypeError, ValueError, OverflowError) as error:
        raise errors.CheckpointError(
            f"the checkpoint records other facts than this version of metarun: {error}",
            str(checkpoint.path),
            "use the version in the run's environment.json, or train again",
        ) from error


def refuse_other_values(facts: dict[str, Any], step: int) -> None:
    """Raise TypeError or ValueError if a fact is of another type than `Facts` says, or means nothing.

    Args:
      step: of the checkpoint.
    """
    for name, kinds in KINDS.items():
        if name in facts and type(facts[name]) not in kinds:
            raise TypeError(f"{name} is {str(facts[name])[:40]!r}")
    for name in ("metrics_bytes", "seconds"):
        if not facts.get(name, 0) >= 0:
            raise ValueError(f"{name} is {facts[name]}")
    if facts.get("step", step) != step:
        raise ValueError(f"they are of step {facts['step']}")
