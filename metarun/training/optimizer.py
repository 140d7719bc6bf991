"""What the outer step does with a gradient: an optax transformation, for all that is trained at once or in turns."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from metarun import errors, numbers
from metarun.base import PyTree
from metarun.config import Selection, Training, optimizers
from metarun.numbers import Number


class Step(NamedTuple):
    """What one outer step gave."""

    trained: PyTree
    memory: PyTree
    gradient: PyTree  # of all that is trained
    metrics: dict[str, jax.Array]  # before the step


class Optimizer(NamedTuple):
    """How an outer step changes what is trained."""

    init: Callable[[PyTree], PyTree]  # trained -> memory; raises ConfigError if a part is not there
    step: Callable[[Callable, PyTree, PyTree], Step]  # (trained -> (gradient, metrics), trained, memory)


def build(training: Training) -> Optimizer:
    """Build the optimizer of a stage: for all that is trained at once, or with `training.turns` in turns."""
    if training.turns:
        return make_turns({turn: make_transformation(training, turn) for turn in training.turns})
    return make_joint(make_transformation(training))


def make_joint(transformation: optax.GradientTransformation) -> Optimizer:
    """Make the optimizer whose one gradient updates everything."""

    def step(differentiate, trained: PyTree, memory: PyTree) -> Step:
        gradient, metrics = differentiate(trained)
        updates, memory = transformation.update(gradient, memory, trained)
        return Step(optax.apply_updates(trained, updates), memory, gradient, metrics)

    return Optimizer(transformation.init, step)


def make_turns(transformations: dict[tuple[str, ...], optax.GradientTransformation]) -> Optimizer:
    """Make the optimizer that updates one group of parts after the other, on the same tasks.

    Each group is updated by the gradient at what the groups before it have become, which costs one gradient for each
    group. A transformation sees its own group alone, for instance as the norm that it clips.
    """

    def init(trained: PyTree) -> PyTree:
        refuse_other_parts(transformations, trained)
        return [transform.init(pick(trained, turn)) for turn, transform in transformations.items()]

    def step(differentiate, trained: PyTree, memory: PyTree) -> Step:
        memories: list[PyTree] = []
        gradient: dict[str, PyTree] = {}
        first_metrics: dict[str, jax.Array] = {}
        for (turn, transform), turn_memory in zip(transformations.items(), memory, strict=True):
            slopes, metrics = differentiate(trained)
            params, slope = pick(trained, turn), pick(slopes, turn)
            updates, turn_memory = transform.update(slope, turn_memory, params)
            trained = trained | optax.apply_updates(params, updates)
            memories, gradient = [*memories, turn_memory], gradient | slope
            first_metrics = first_metrics or metrics
        return Step(trained, memories, gradient, first_metrics)

    return Optimizer(init, step)


def pick(tree: dict[str, PyTree], parts: tuple[str, ...]) -> dict[str, PyTree]:
    """Return some of the parts."""
    return {name: tree[name] for name in parts}


def list_parts(trained: PyTree) -> list[str]:
    """Return the keys of the outermost level of what is trained; none if it is no dict."""
    return list(trained) if isinstance(trained, dict) else []


def refuse_other_parts(turns: Iterable[tuple[str, ...]], trained: PyTree) -> None:
    """Raise ConfigError unless the turns have each part of what is trained."""
    named, parts = {name for turn in turns for name in turn}, list_parts(trained)
    wrong = [f"what is trained has no part {name}" for name in sorted(named - set(parts))]
    wrong += [f"the part {name} has no turn" for name in parts if name not in named]
    if wrong:
        raise errors.ConfigError(
            wrong[0],
            "training.turns",
            f"name each of {', '.join(parts)} once" if parts else "leave turns out",
        )


def make_transformation(
    training: Training, parts: tuple[str, ...] | None = None
) -> optax.GradientTransformation:
    """Chain clipping by value, clipping by global norm, the optimizer with its schedule, and the factors of the parts.

    The optimizers are optax's, by name; `training.optimizer.learning_rate` is the peak that the schedule scales.
    The numbers of the training may be traced; see `metarun.numbers`.

    Args:
      parts: the ones that it updates; None: all.
    """
    config = training.optimizer.config
    rate = make_schedule(config.schedule, config.learning_rate, training.last_step)
    factors = {
        part_rate.part: part_rate.factor
        for part_rate in training.part_rates
        if parts is None or part_rate.part in parts
    }
    chain = [
        optax.clip(training.clip_value) if training.clip_value is not None else None,
        optax.clip_by_global_norm(training.clip_norm) if training.clip_norm is not None else None,
        getattr(optax, training.optimizer.name)(rate, **optimizers.collect_options(config)),
        scale_parts(factors) if factors else None,
    ]
    return optax.chain(*[transform for transform in chain if transform])


def make_schedule(selection: Selection, peak: Number, steps: Number) -> optax.Schedule | Number:
    """Make the learning rate as a function of the step; `metarun.config.schedules` has the equations.

    optax has these schedules, too, but it compares their numbers with zero, and ours may be traced.
    """
    config = selection.config
    match selection.name:
        case "constant":
            return peak
        case "cosine":
            return make_cosine(peak, steps, config.final, config.warmup_steps)
        case "linear":
            return lambda step: fall(step, steps, peak, peak * config.final)
        case "exponential":
            return lambda step: peak * jnp.power(config.decay, step / config.every)
        case "step":
            return lambda step: peak * jnp.power(config.factor, jnp.floor(step / config.every))
    raise AssertionError(f"no schedule {selection.name}: the config layer lets none through")


def make_cosine(peak: Number, steps: Number, final: Number, warmup_steps: Number) -> optax.Schedule:
    """Make half a cosine from the peak down to its share `final`, after a rise from zero if there are warm-up steps."""
    length = steps - warmup_steps

    def descend(step):
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step, length) / length))
        return peak * ((1 - final) * cosine + final)

    def rise_and_descend(step):
        rise = fall(step, warmup_steps, 0.0, peak)
        return jnp.where(step < warmup_steps, rise, descend(step - warmup_steps))

    return descend if numbers.is_zero(warmup_steps) else rise_and_descend


def fall(step: Number, steps: Number, first: Number, last: Number) -> jax.Array:
    """Return a point of the straight line from `first` at step 0 to `last` at `steps`, and of its flat end."""
    return (first - last) * (1 - jnp.clip(step, 0, steps) / steps) + last


def scale_parts(factors: Mapping[str, Number]) -> optax.GradientTransformation:
    """Make a transformation that multiplies the updates of some parts of what is trained, its outermost keys.

    Behind an optimizer, whose updates are proportional to its learning rate, this is a learning rate of their own.

    Raises:
      ConfigError: in `init`, there is no such part.
    """

    def init(trained):
        parts = list_parts(trained)
        for name in factors.keys() - set(parts):
            raise errors.ConfigError(
                f"what is trained has no part {name}",
                "training.part_rates",
                f"name one of {', '.join(parts)}" if parts else "leave part_rates out",
            )
        return optax.EmptyState()

    def update(updates, state, params=None):
        scaled = {
            name: jax.tree.map(lambda leaf, name=name: factors.get(name, 1.0) * leaf, subtree)
            for name, subtree in updates.items()
        }
        return scaled, state

    return optax.GradientTransformation(init, update)
