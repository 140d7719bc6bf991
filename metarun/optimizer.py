"""From the training section of a config to an optax gradient transformation."""

import jax
import optax

from metarun import errors
from metarun.config import Selection, Training, optimizers


def build(training: Training) -> optax.GradientTransformation:
    """Clipping by value, then by global norm, then the optimizer with its schedule, then the factors of the parts.

    The optimizers are optax's, by name; `training.optimizer.learning_rate` is the peak that the schedule scales.
    """
    config = training.optimizer.config
    rate = schedule(config.schedule, config.learning_rate, training.steps)
    factors = {each.part: each.factor for each in training.part_rates}
    transformations = [
        optax.clip(training.clip_value) if training.clip_value else None,
        optax.clip_by_global_norm(training.clip_norm) if training.clip_norm else None,
        getattr(optax, training.optimizer.name)(rate, **optimizers.options(config)),
        scale_parts(factors) if factors else None,
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


def scale_parts(factors: dict[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of some parts of what is trained, the keys of its outermost level.

    Behind an optimizer, whose updates are proportional to its learning rate, this is a learning rate of their own.

    Raises:
      ConfigError: in `init`, there is no such part.
    """

    def init(trained):
        parts = list(trained) if isinstance(trained, dict) else []
        for name in factors.keys() - set(parts):
            raise errors.ConfigError(
                f"what is trained has no part {name}",
                "training.part_rates",
                f"name one of {', '.join(parts)}" if parts else "leave part_rates out",
            )
        return optax.EmptyState()

    def update(updates, state, params=None):
        scaled = {
            name: jax.tree.map(lambda leaf, name=name: factors.get(name, 1.0) * leaf, part)
            for name, part in updates.items()
        }
        return scaled, state

    return optax.GradientTransformation(init, update)
