"""Reptile: move the start towards the parameters that training on each task ends with; no second derivative.

Nichol, Achiam, Schulman 2018, arXiv 1803.02999. θ̃ is θ after `inner_steps` steps of an inner optimizer on
mini-batches of the task, and the outer step is θ ← θ + ε·mean(θ̃ − θ) over the tasks. That is gradient descent with
learning rate ε on

    ½‖θ − θ̃‖²,    θ̃ held constant,

so the paper's outer schedule is `optimizer: {name: sgd, learning_rate: ε, schedule: {name: linear}}`.

In training the inner loop sees all examples of the episode, support and query, as the paper has no query in training;
`trains_on: support` leaves the query out. In evaluation it sees the support alone. The mini-batches go through the
examples in random order, pass after pass, each pass in a new order; `adapt` has no random key, and takes the orders of
a fixed one. Batch statistics are those of the mini-batch.

Different here: the moments of the inner optimizer start at zero in every task, where the authors' code carries them
from task to task.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.blocks import inner_loop, outer_loss, target_kinds
from metarun.blocks.inner_loop import Learner
from metarun.options import InnerSteps
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config(InnerSteps):
    """The inner loop."""

    inner_steps: Annotated[int, AtLeast(0)] = 5  # steps of the inner optimizer; 0: none
    inner_lr: Annotated[float, Above(0)] = 0.02  # learning rate of the inner optimizer
    inner_batch: Annotated[int, AtLeast(1)] | None = None  # examples of one inner step; null: all there are
    # Decay rates of the moments are 0.9 and 0.999. The paper has adam_without_momentum.
    inner_optimizer: Literal["sgd", "momentum", "rmsprop", "adam", "adam_without_momentum"] = "sgd"
    trains_on: Literal["all", "support"] = "all"  # examples of a training episode that the inner loop sees


EXAMPLE = base.Example(options={"inner_lr": 0.02})


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Return Reptile's functions. It needs no earlier stage.

    Returns:
      An algorithm whose learner is a `Learner`. Its loss is half the squared distance that the inner loop goes. The
      loss metrics are the objective's on the query, whose examples the inner loop has seen with `trains_on: all`.
    """
    optimizer = inner_loop.OPTIMIZERS[config.inner_optimizer]()
    predict = inner_loop.make_predict(model)
    support_loss = inner_loop.make_support_loss(model, problem.objective)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        return base.Weights(model.init(key, trees.first(episodes.support.inputs)))

    def descend(params, examples: base.Examples, reference, key, points: base.Points | None = None):
        def step(state, batch):
            chosen = examples if batch is None else jax.tree.map(lambda leaf: leaf[batch], examples)
            gradient = jax.grad(support_loss)(state[0], chosen)
            return inner_loop.take_step(config, state, gradient, config.inner_lr, optimizer, True), ()

        def finish(state):
            return Learner(state[0], reference)

        start = params, optimizer.init(params)
        rows = draw_batches(config, examples, key, inner_loop.count_steps(config, points))
        return inner_loop.run(config, step, start, finish, points, rows=rows)

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        return descend(weights.trained, support, support.inputs, jax.random.key(0), points)

    def update(weights: base.Weights, learner: Learner, support: base.Examples) -> Learner:
        return descend(learner.params, support, support.inputs, jax.random.key(0))

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        support, query = episode.support, episode.query
        examples = target_kinds.join(support, query) if config.trains_on == "all" else support
        start = jax.lax.stop_gradient(weights.trained)
        learner = jax.lax.stop_gradient(descend(start, examples, support.inputs, key))
        squares = jax.tree.map(
            lambda old, new: jnp.sum(jnp.square(old - new)), weights.trained, learner.params
        )
        _, metrics = outer_loss.judge(problem.objective, predict(learner, query.inputs), query)
        return 0.5 * sum(jax.tree.leaves(squares)), metrics

    return base.Algorithm(init, loss, adapt, predict, update, watch=adapt)


def draw_batches(config: Config, examples: base.Examples, key, steps: int):
    """Return the examples of every inner step, int32 [step, size]; None if each step sees them all."""
    count = jax.tree.leaves(examples.targets)[0].shape[0]
    if config.inner_batch is None or config.inner_batch >= count:
        return None
    return draw_passes(key, count, config.inner_batch, steps)


def draw_passes(key, count: int, size: int, steps: int):
    """Return which of `count` examples each step sees: pass after pass, each in a new random order.

    More steps begin with the same orders, because the keys of `split` do not depend on how many there are.
    """
    passes = -(-steps * size // count)
    order = jax.vmap(lambda pass_key: jax.random.permutation(pass_key, count))(jax.random.split(key, passes))
    return order.reshape(-1)[: steps * size].reshape(steps, size)
