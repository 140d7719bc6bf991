"""What the algorithms with an inner loop share: its loop, its optimizers, its learner, its outer loss."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from metarun import base, trees

UNROLLED = 16  # inner steps that are unrolled at most: compiling takes longer with every one
EPSILON = 1e-8  # added to the root of a second moment; optax's default
EPSILON_ROOT = 1e-16  # added under it: without, the root of a gradient of zero has no derivative

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": optax.identity,
    "momentum": lambda: optax.trace(decay=0.9),
    "rmsprop": lambda: optax.scale_by_rms(decay=0.9, eps=EPSILON_ROOT),
    "adam": lambda: optax.scale_by_adam(eps=EPSILON, eps_root=EPSILON_ROOT),
    "adam_without_momentum": lambda: optax.scale_by_adam(b1=0.0, eps=EPSILON, eps_root=EPSILON_ROOT),
}


class Learner(NamedTuple):
    """The network adapted to one task, and the inputs that normalise its queries."""

    params: base.PyTree
    reference: base.PyTree


def support_loss(model: base.Model, objective: base.Objective) -> Callable:
    """(params, support) -> scalar: the mean loss of the support, normalised by itself."""

    def loss(params, support: base.Examples):
        return objective.loss(model.apply(params, support.inputs, reference=support.inputs), support.targets)

    return loss


def predictor(model: base.Model) -> Callable:
    """(learner, inputs) -> outputs."""

    def predict(learner: Learner, inputs):
        return model.apply(learner.params, inputs, reference=learner.reference)

    return predict


def query_loss(objective: base.Objective, outputs, query: base.Examples):
    """(the mean loss of the query, the objective's metrics of the same outputs)."""
    metrics = objective.training_metrics(jax.lax.stop_gradient(outputs), query.targets)
    return objective.loss(outputs, query.targets), metrics


def repeat(step: Callable, state, rows, count: int, loop: str, rematerialise: bool = False):
    """`count` times step(state, row) -> (state, note).

    Args:
      rows: what differs from step to step, leaves [step, ...]; () where nothing does.
      loop: "scan", or "unroll": a loop in Python, whose first step under vmap still has the tasks' common weights. Of
        more than UNROLLED steps all but the first are scanned.

    Returns:
      The last state, and the notes, leaves [step, ...]; () where there are no steps.
    """
    step = jax.checkpoint(step) if rematerialise else step
    if count == 0:
        return state, ()
    if loop == "scan":
        return jax.lax.scan(step, state, rows, length=count)
    notes = []
    for index in range(1 if count > UNROLLED else count):
        state, note = step(state, jax.tree.map(lambda leaf, index=index: leaf[index], rows))
        notes.append(note)
    first = jax.tree.map(lambda *leaves: jnp.stack(leaves), *notes)
    if len(notes) == count:
        return state, first
    state, others = jax.lax.scan(step, state, jax.tree.map(lambda leaf: leaf[1:], rows), length=count - 1)
    return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), first, others)


def make_step(
    gradient: Callable, optimizer: optax.GradientTransformation, rate: float, clip_norm, order: str
):
    """((params, memory), _) -> ((params, memory), ()): one step of an inner optimizer at a fixed rate.

    Args:
      gradient: params -> the gradient at them.
      clip_norm: the largest norm of the gradient; None: any.
      order: "first" takes the gradient for a constant in the outer derivative.
    """

    def step(state, _):
        params, memory = state
        slope = bounded(gradient(params), clip_norm, order)
        direction, memory = optimizer.update(slope, memory, params)
        return (trees.descend(params, direction, rate), memory), ()

    return step


def bounded(gradient, clip_norm: float | None, order: str):
    """An inner gradient after `inner_clip_norm` and `order`."""
    if clip_norm is not None:
        gradient = trees.clip_norm(gradient, clip_norm)
    return jax.lax.stop_gradient(gradient) if order == "first" else gradient


def partition(tree, chosen: Callable[[tuple[str, ...]], bool]):
    """The tree twice, with None in place of the leaves that are not chosen, and of those that are.

    Args:
      chosen: (names on the way to a leaf) -> whether it is.
    """

    def pick(wanted: bool):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if chosen(names(path)) == wanted else None, tree
        )

    return pick(True), pick(False)


def merge(left, right):
    """The tree whose two parts `partition` gave, or their like with other leaves."""
    return jax.tree.map(lambda a, b: b if a is None else a, left, right, is_leaf=lambda leaf: leaf is None)


def names(path) -> tuple[str, ...]:
    """The keys on a path of jax.tree_util, as text."""
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)
