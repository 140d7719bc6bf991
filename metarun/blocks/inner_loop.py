"""Gradient descent on the support: the loss it descends, its steps, their optimizers, and the learner they give.

`descend` is the whole loop. An algorithm that does more in a step, or looks at the learner between steps, calls `run`
with a step of its own, made of `take_step` or `bound`. Both give the learner after all steps, or what is noted of it at
the points of its curve, which is `Algorithm.watch`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metarun import base, trees
from metarun.options import InnerLoop, InnerSteps

UNROLLED = 16  # inner steps that are unrolled at most: compiling takes longer with every one
EPSILON = 1e-8  # added to the root of a second moment; optax's default
EPSILON_ROOT = 1e-16  # added under it: without, the root of a gradient of zero has no derivative

SGD = optax.identity()
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: SGD,
    "momentum": lambda: optax.trace(decay=0.9),
    "rmsprop": lambda: optax.scale_by_rms(decay=0.9, eps=EPSILON_ROOT),
    "adam": lambda: optax.scale_by_adam(eps=EPSILON, eps_root=EPSILON_ROOT),
    "adam_without_momentum": lambda: optax.scale_by_adam(b1=0.0, eps=EPSILON, eps_root=EPSILON_ROOT),
}


class Learner(NamedTuple):
    """The network adapted to one task."""

    params: base.PyTree
    reference: base.PyTree  # the inputs that normalise its queries
    condition: base.PyTree = None  # [feature], which modulates the network; None: nothing does


def make_support_loss(model: base.Model, objective: base.Objective) -> Callable:
    """Make (params, support, condition) -> scalar: the mean loss of the support, normalised by itself."""

    def support_loss(params, support: base.Examples, condition=None):
        inputs = support.inputs
        outputs = model.apply(params, inputs, condition=condition, reference=inputs)
        return objective.loss(outputs, support.targets)

    return support_loss


def make_predict(model: base.Model) -> Callable:
    """Make (learner, inputs) -> outputs."""

    def predict(learner: Learner, inputs):
        return model.apply(learner.params, inputs, condition=learner.condition, reference=learner.reference)

    return predict


def descend(
    config: InnerLoop,
    gradient: Callable,
    params: base.PyTree,
    rates: base.PyTree | None = None,
    optimizer: optax.GradientTransformation = SGD,
    finish: Callable = lambda params: params,
    points: base.Points | None = None,
) -> base.PyTree:
    """Return the learner after all inner steps, or what is noted of it at some points.

    Args:
      gradient: params -> the gradient of the support loss at them.
      rates: as in `trees.descend`; None: `inner_lr`.
      finish: params -> the learner.
      points: as in `run`.
    """
    rates = config.inner_lr if rates is None else rates

    def step(state, _):
        first_order = config.order == "first"
        return take_step(config, state, gradient(state[0]), rates, optimizer, first_order), ()

    start = params, optimizer.init(params)
    return run(config, step, start, lambda state: finish(state[0]), points, config.rematerialise)


def take_step(
    config: InnerSteps,
    state: tuple[base.PyTree, optax.OptState],
    gradient: base.PyTree,
    rates: base.PyTree,
    optimizer: optax.GradientTransformation = SGD,
    first_order: bool = False,
) -> tuple[base.PyTree, optax.OptState]:
    """Return the parameters and the optimizer's memory after one inner step from `state`.

    Args:
      gradient: of the support loss at the parameters.
      rates: as in `trees.descend`.
    """
    params, memory = state
    direction, memory = optimizer.update(bound(config, gradient, first_order), memory, params)
    return trees.descend(params, direction, rates), memory


def bound(config: InnerSteps, gradient: base.PyTree, first_order: bool) -> base.PyTree:
    """Return an inner gradient with a norm of at most `inner_clip_norm`; `first_order` makes it a constant."""
    if config.inner_clip_norm is not None:
        gradient = trees.clip_norm(gradient, config.inner_clip_norm)
    return jax.lax.stop_gradient(gradient) if first_order else gradient


def run(
    config: InnerSteps,
    step: Callable,
    start: base.PyTree,
    finish: Callable,
    points: base.Points | None = None,
    rematerialise: bool = False,
    rows: base.PyTree = (),
) -> base.PyTree:
    """Return the learner after all inner steps, or what is noted of it at some points, leaves [point, ...].

    Args:
      step: (state, row) -> (state, note), as in `repeat`.
      finish: state -> the learner.
      points: None: the learner is returned.
      rows: as many as `count_steps` says.
    """
    if points is None:
        return finish(repeat(config, step, start, rows, rematerialise)[0])
    return watch(points, step, start, finish, rows)


def count_steps(config: InnerSteps, points: base.Points | None) -> int:
    """Return how many inner steps `run` takes."""
    return config.inner_steps if points is None else points.counts[-1]


def select_rows(tree: base.PyTree, steps: int) -> base.PyTree:
    """Return leaves [step, ...] of leaves [trained step, ...]: steps beyond the trained ones have the last one's."""
    return jax.tree.map(lambda leaf: leaf[np.minimum(np.arange(steps), leaf.shape[0] - 1)], tree)


def watch(
    points: base.Points, step: Callable, start: base.PyTree, finish: Callable, rows: base.PyTree = ()
) -> base.PyTree:
    """Return what is noted of the learner at the points of one inner loop, leaves [point, ...].

    The loop is compiled as one step, whatever `loop` says: nobody differentiates it. States are kept at the points
    alone, and the learners are observed one after the other, so that memory does not grow with the steps.
    """
    steps = points.counts[-1]
    # Each step writes its state to the next point, so that the last one to write there is the point's own.
    places = np.searchsorted(points.counts, np.arange(1, steps + 1)).astype(np.int32)

    def keep(carry, row):
        place, own_row = row
        state, _ = step(carry[0], own_row)
        kept = jax.tree.map(
            lambda states, leaf: jax.lax.dynamic_update_index_in_dim(states, leaf, place, 0), carry[1], state
        )
        return (state, kept), ()

    kept = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(points.counts), *jnp.shape(leaf))), start)
    (_, kept), _ = jax.lax.scan(keep, (start, kept), (places, rows), length=steps)
    return jax.lax.map(lambda state: points.observe(finish(state)), kept)


def repeat(config: InnerSteps, step: Callable, state, rows=(), rematerialise: bool = False):
    """Call step(state, row) -> (state, note) as often as there are inner steps.

    With `loop: scan` the loop is compiled once. With `loop: unroll` it is a loop in Python, whose first step under vmap
    still has the weights that all tasks share; of more than UNROLLED steps all but the first are scanned.

    Args:
      rows: what differs from step to step, leaves [step, ...]; () if nothing does.
      rematerialise: compute each step again in the backward pass.

    Returns:
      The last state, and the notes, leaves [step, ...]; () if there are no steps.
    """
    count = config.inner_steps
    step = jax.checkpoint(step) if rematerialise else step
    if count == 0:
        return state, ()
    if config.loop == "scan":
        return jax.lax.scan(step, state, rows, length=count)
    notes = []
    for index in range(1 if count > UNROLLED else count):
        state, note = step(state, jax.tree.map(lambda leaf, index=index: leaf[index], rows))
        notes.append(note)
    first_notes = jax.tree.map(lambda *leaves: jnp.stack(leaves), *notes)
    if len(notes) == count:
        return state, first_notes
    later_rows = jax.tree.map(lambda leaf: leaf[1:], rows)
    state, later_notes = jax.lax.scan(step, state, later_rows, length=count - 1)
    return state, jax.tree.map(lambda *halves: jnp.concatenate(halves), first_notes, later_notes)
