"""The stages of a run traced before anything compiles, so that what cannot work fails early and costs nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from metarun import base, config, errors
from metarun.assembly import Tasks
from metarun.evaluation import episodes, variants
from metarun.stages import Stage
from metarun.training import optimizer


def trace(settings: config.Evaluation, tasks: Tasks, stages: list[Stage]) -> dict[str, base.Weights]:
    """Build and trace every stage, and return the shapes of its weights by its name. Computes nothing.

    Raises:
      ConfigError: what a stage cannot do, or the final evaluation.
    """
    episodes.freeze(tasks, settings)
    for stage in stages:
        stage.build_algorithm()
    variants.refuse_steps_without_loop(stages, settings)
    for stage in stages:
        variants.choose_variants(stage, tasks.family.problem, settings.modes, settings.inner_steps)
    shapes: dict[str, base.Weights] = {}
    for stage in stages:
        with name_stage(stage, alone=len(stages) == 1):
            weights = stage.trace_weights(tasks.family.sample, tasks.data["train"], shapes)
            jax.eval_shape(optimizer.build(stage.training).init, weights.trained)
            variants.check_ways(stage, tasks, settings.modes[0], weights)
        shapes[stage.name] = weights
    return shapes


@contextmanager
def name_stage(stage: Stage, alone: bool) -> Iterator[None]:
    """Let a ConfigError say which stage it is about, unless the stage is alone."""
    try:
        yield
    except errors.ConfigError as error:
        if alone:
            raise
        raise errors.ConfigError(error.what, f"stage {stage.name}: {error.where}", error.remedy) from error
