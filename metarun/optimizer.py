"""From the training section of a config to an optax gradient transformation."""

import optax

from metarun.config import Selection, Training, optimizers


def build(training: Training) -> optax.GradientTransformation:
    """Clipping by value, then by global norm, then the optimizer with its schedule.

    The optimizers are optax's, by name; `training.optimizer.learning_rate` is the peak that the schedule scales.
    """
    config = training.optimizer.config
    rate = schedule(config.schedule, config.learning_rate, training.steps)
    transformations = [
        optax.clip(training.clip_value) if training.clip_value else None,
        optax.clip_by_global_norm(training.clip_norm) if training.clip_norm else None,
        getattr(optax, training.optimizer.name)(rate, **optimizers.options(config)),
    ]
    return optax.chain(*[transformation for transformation in transformations if transformation])


def schedule(selection: Selection, peak: float, steps: int) -> optax.Schedule | float:
    """The learning rate as a function of the step; `metarun.config.schedules` has the equations."""
    config = selection.config
    match selection.name:
        case "constant":
            return peak
        case "cosine" if config.warmup_steps:
            return optax.warmup_cosine_decay_schedule(
                0.0, peak, config.warmup_steps, steps, end_value=peak * config.final
            )
        case "cosine":
            return optax.cosine_decay_schedule(peak, steps, alpha=config.final)
        case "linear":
            return optax.linear_schedule(peak, peak * config.final, steps)
        case "exponential":
            return optax.exponential_decay(peak, config.every, config.decay)
        case "step":
            return optax.exponential_decay(peak, config.every, config.factor, staircase=True)
    raise AssertionError(f"no schedule {selection.name}: the config layer lets none through")
