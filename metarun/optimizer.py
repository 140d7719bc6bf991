"""From the training section of a config to what the outer step does with a gradient: optax, all at once or in turns."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import optax

from metarun import errors
from metarun.base import PyTree
from metarun.config import Selection, Training, optimizers


class Step(NamedTuple):
    """What one outer step gave."""

    trained: PyTree
    memory: PyTree
    gradient: PyTree  # of all that is trained
    metrics: dict[str, jax.Array]  # before the step


class Optimizer(NamedTuple):
    """How an outer step changes what is trained."""

    init: Callable[[PyTree], PyTree]  # trained -> memory; raises ConfigError where a part is not there
    step: Callable[[Callable, PyTree, PyTree], Step]  # (trained -> (gradient, metrics), trained, memory)


def build(training: Training) -> Optimizer:
    """All that is trained at once, or with `training.turns` one group of its parts after the other."""
    if training.turns:
        return in_turns({turn: transformation(training, turn) for turn in training.turns})
    return at_once(transformation(training))


def at_once(transformation: optax.GradientTransformation) -> Optimizer:
    """One gradient updates everything."""

    def step(gradient_at, trained: PyTree, memory: PyTree) -> Step:
        gradient, metrics = gradient_at(trained)
        updates, memory = transformation.update(gradient, memory, trained)
        return Step(optax.apply_updates(trained, updates), memory, gradient, metrics)

    return Optimizer(transformation.init, step)


def in_turns(transformations: dict[tuple[str, ...], optax.GradientTransformation]) -> Optimizer:
    """Each group of parts is updated by the gradient at what the groups before it have become, on the same tasks.

    Costs one gradient a group. What a transformation sees, a norm to clip for instance, is its own group.
    """

    def init(trained: PyTree) -> PyTree:
        refuse_other_parts(transformations, trained)
        return [each.init(pick(trained, turn)) for turn, each in transformations.items()]

    def step(gradient_at, trained: PyTree, memory: PyTree) -> Step:
        memories: list[PyTree] = []
        gradient: dict[str, PyTree] = {}
        before: dict[str, jax.Array] = {}
        for (turn, each), own in zip(transformations.items(), memory, strict=True):
            slopes, metrics = gradient_at(trained)
            part, slope = pick(trained, turn), pick(slopes, turn)
            updates, own = each.update(slope, own, part)
            trained = trained | optax.apply_updates(part, updates)
            memories, gradient, before = [*memories, own], gradient | slope, before or metrics
        return Step(trained, memories, gradient, before)

    return Optimizer(init, step)


def pick(tree: dict[str, PyTree], parts: tuple[str, ...]) -> dict[str, PyTree]:
    """Some of the parts."""
    return {name: tree[name] for name in parts}


def part_names(trained: PyTree) -> list[str]:
    """The keys of the outermost level of what is trained; none where that is no dict."""
    return list(trained) if isinstance(trained, dict) else []


def refuse_other_parts(turns: Iterable[tuple[str, ...]], trained: PyTree) -> None:
    """Raise ConfigError unless the turns have each part of what is trained."""
    named, parts = {name for turn in turns for name in turn}, part_names(trained)
    wrong = [f"what is trained has no part {name}" for name in sorted(named - set(parts))]
    wrong += [f"the part {name} has no turn" for name in parts if name not in named]
    if wrong:
        raise errors.ConfigError(
            wrong[0],
            "training.turns",
            f"name each of {', '.join(parts)} once" if parts else "leave turns out",
        )


def transformation(training: Training, parts: tuple[str, ...] | None = None) -> optax.GradientTransformation:
    """Clipping by value, then by global norm, then the optimizer with its schedule, then the factors of the parts.

    The optimizers are optax's, by name; `training.optimizer.learning_rate` is the peak that the schedule scales.

    Args:
      parts: those that it updates; None: all.
    """
    config = training.optimizer.config
    rate = schedule(config.schedule, config.learning_rate, training.steps)
    factors = {each.part: each.factor for each in training.part_rates if parts is None or each.part in parts}
    chain = [
        optax.clip(training.clip_value) if training.clip_value else None,
        optax.clip_by_global_norm(training.clip_norm) if training.clip_norm else None,
        getattr(optax, training.optimizer.name)(rate, **optimizers.options(config)),
        scale_parts(factors) if factors else None,
    ]
    return optax.chain(*[each for each in chain if each])


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
        parts = part_names(trained)
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
