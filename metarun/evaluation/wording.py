"""What every table says of its intervals, in one place. Imports nothing, so that `metarun --help` is quick."""

ONE_SEED = "one seed: says nothing about training noise"
BEST_POSSIBLE = "best possible"  # the row of the best rule, where a task family knows it


def describe_spread(seeds: int, trials: int = 0, crossed: bool = True) -> str:
    """Return over what the intervals of a result are.

    Args:
      seeds: of the run; 0 if there is one.
      trials: 0 if the replicas differ in their seeds alone.
      crossed: whether the intervals are over seeds and episodes; an older version wrote those over episodes.
    """
    if trials:
        return f"over episodes; in brackets that over {trials} trials, which differ in numbers"
    if seeds and not crossed:
        return f"over episodes; in brackets that over the {seeds} seeds"
    if seeds:
        return f"over seeds and episodes; in brackets that over the {seeds} seeds alone"
    return f"over episodes; {ONE_SEED}"
