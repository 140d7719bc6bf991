"""Bounds on what a configuration multiplies: learners, tasks, ways and shots, each of them reasonable by itself.

Each number counts what has at least one float32 for each unit. So what goes beyond a bound would take gigabytes at the
least, and is refused before anything is allocated. The bounds do not depend on the machine: a run from a larger one can
be read on any other. What a stage really needs is known when it is traced; see `training.room`.
"""

from metarun.config.origin import Origin
from metarun.config.schema import RunConfig, Training

MOST_LEARNERS = 10_000  # that a stage trains side by side: replicas times copies
MOST_TRIALS = 500  # of one run; the run's own config has every number of each
MOST_EXAMPLES = 10**8  # of the episodes that are computed side by side, for all learners
MOST_VALUES = 10**8  # of an evaluation: episodes times learners


def check(config: RunConfig, origin: Origin) -> None:
    """Refuse a run whose learners and episodes are too many to be held.

    Raises:
      ConfigError: names the product, and what to lower.
    """
    if config.trials is not None and len(config.trials.seeds) > MOST_TRIALS:
        what = f"there are {len(config.trials.seeds):,} trials in one run"
        raise origin.make_error("trials", what, f"divide them among runs of at most {MOST_TRIALS:,}")
    for stage in config.stages:
        learners = config.replicas * (stage.copies or 1)
        if learners > MOST_LEARNERS:
            what = f"the stage {stage.name} has {learners:,} learners: replicas times copies"
            raise origin.make_error(
                "replicas", what, f"lower one of them: {MOST_LEARNERS:,} learners at most"
            )
        values = learners * config.evaluation.episodes
        if values > MOST_VALUES:
            what = f"{learners:,} learners on {config.evaluation.episodes:,} episodes give {values:,} values"
            raise origin.make_error(
                "evaluation.episodes", what, f"lower one of them: {MOST_VALUES:,} values at most"
            )
        tasks = count_tasks_at_once(stage.training)
        for place in ("task", "evaluation"):
            ways, shots, queries = (count(name, config, place) for name in ("ways", "shots", "queries"))
            examples = learners * tasks * ways * (shots + queries)
            if examples > MOST_EXAMPLES:
                what = f"{learners:,} learners, {tasks:,} tasks at once, {ways:,} ways, {shots:,} shots and "
                what += f"{queries:,} queries make {examples:,} examples side by side"
                remedy = f"lower one of them: {MOST_EXAMPLES:,} examples at most"
                raise origin.make_error(f"{place}.shots", what, remedy)


def count_tasks_at_once(training: Training) -> int:
    """Return how many tasks are computed side by side at the least."""
    chunk = training.task_chunk
    if chunk == "auto":  # then there may be one at a time
        return 1
    return int(chunk or training.tasks_per_step)


def count(name: str, config: RunConfig, place: str) -> int:
    """Return a number of an episode of the training or of the evaluation; 1 if the task family has no such option."""
    sections = [config.task.config, config.evaluation] if place == "evaluation" else [config.task.config]
    numbers = [getattr(section, name, None) for section in reversed(sections)]
    return next((number for number in numbers if type(number) is int), 1)
