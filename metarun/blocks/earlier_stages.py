"""The earlier stages that an algorithm names in its options."""

from collections.abc import Mapping, Sequence

from metarun import base

Algorithms = Mapping[str, base.Algorithm]  # {stage name: algorithm}, in the order of the stages


def find(
    option: str,
    stage: str,
    earlier: Algorithms | None,
    remedy: str = "put a stage that trains before this one",
) -> base.Algorithm:
    """Return the algorithm of the earlier stage that an option names.

    Args:
      remedy: what to do if this is the first stage.

    Raises:
      ValueError: there is no stage of this name before this one.
    """
    known = earlier or {}
    if stage not in known:
        raise ValueError(
            f"{option} names the stage {stage}, and there is none of that name before this one",
            f"set {option} to one of {', '.join(known)}" if known else remedy,
        )
    return known[stage]


def find_all(option: str, stages: Sequence[str], earlier: Algorithms | None) -> dict[str, base.Algorithm]:
    """Return {stage: algorithm} of the earlier stages that an option names.

    Raises:
      ValueError: one of them is not there, or is named twice.
    """
    for place, stage in enumerate(stages):
        if stage in stages[:place]:
            raise ValueError(f"{option} names the stage {stage} twice", "name each stage once")
    return {stage: find(option, stage, earlier) for stage in stages}
