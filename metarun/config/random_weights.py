"""Which learners stand on a network that nothing has trained, so that no number of theirs is taken for that of another.

Such a network shows that everything runs, and is a baseline.
"""

from metarun.config.schema import RunConfig, Stage

SAID = "random weights where those of a file could stand"


def has_random_network(stage: Stage) -> bool:
    """Return whether a stage adapts the network that its model begins with, and this has no file of weights."""
    options = stage.algorithm.config
    begins_anew = getattr(options, "trains_nothing", False) and getattr(options, "pretrained", "") is None
    return begins_anew and getattr(stage.model.config, "weights", "") is None


def has_random_features(run_config: RunConfig) -> bool:
    """Return whether the inputs of a run are features of a network without a file of weights."""
    options = run_config.task.config
    return "weights" in getattr(options, "data_places", ()) and options.weights is None


def stands_on_random_weights(run_config: RunConfig, stage: str) -> bool:
    """Return whether a stage of a run does; a name of no stage, such as that of a baseline, does not."""
    own = next((settings for settings in run_config.stages if settings.name == stage), None)
    return own is not None and (has_random_features(run_config) or has_random_network(own))
