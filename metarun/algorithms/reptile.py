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
from metarun.algorithms import _inner
from metarun.algorithms._inner import Learner
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config:
    """The inner loop."""

    inner_steps: Annotated[int, AtLeast(0)] = 5  # steps of the inner optimizer
    inner_lr: Annotated[float, Above(0)] = 0.02  # of the inner optimizer
    inner_batch: Annotated[int, AtLeast(1)] | None = None  # examples of one inner step; null: all there are
    inner_optimizer: Literal["sgd", "momentum", "rmsprop", "adam", "adam_without_momentum"] = (
        "sgd"  # moments 0.9, 0.999; the paper has adam_without_momentum
    )
    inner_clip_norm: Annotated[float, Above(0)] | None = None  # largest norm of an inner gradient; null: any
    trains_on: Literal["all", "support"] = "all"  # examples of a training episode that the inner loop sees
    loop: Literal["scan", "unroll"] = "unroll"  # of the inner steps: scan compiles faster, unroll runs faster


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    Returns:
      An algorithm whose learner is a `Learner`. Its loss is half the squared distance that the inner loop goes; the
      loss metrics are the objective's on the query, of which `trains_on: all` has made training examples.
    """
    optimizer = _inner.OPTIMIZERS[config.inner_optimizer]()
    predict = _inner.predictor(model)
    support_loss = _inner.support_loss(model, objective)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        return base.Weights(model.init(key, trees.first(episodes.support.inputs)))

    def trained_on(params, examples: base.Examples, key):
        count = jax.tree.leaves(examples.targets)[0].shape[0]
        batches = None
        if config.inner_batch is not None and config.inner_batch < count:
            batches = minibatches(key, count, config.inner_batch, config.inner_steps)

        def step(state, batch):
            params, memory = state
            chosen = examples if batch is None else jax.tree.map(lambda leaf: leaf[batch], examples)
            slope = _inner.bounded(jax.grad(support_loss)(params, chosen), config.inner_clip_norm, "first")
            direction, memory = optimizer.update(slope, memory, params)
            return (trees.descend(params, direction, config.inner_lr), memory), ()

        start = params, optimizer.init(params)
        (params, _), _ = _inner.repeat(step, start, batches, config.inner_steps, config.loop)
        return params

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        return Learner(trained_on(weights.trained, support, jax.random.key(0)), support.inputs)

    def update(weights: base.Weights, learner: Learner, support: base.Examples) -> Learner:
        return Learner(trained_on(learner.params, support, jax.random.key(0)), support.inputs)

    def loss(weights: base.Weights, episode: base.Episode, key):
        examples = episode.support
        if config.trains_on == "all":
            examples = jax.tree.map(lambda *parts: jnp.concatenate(parts), episode.support, episode.query)
        start = jax.lax.stop_gradient(weights.trained)
        params = jax.lax.stop_gradient(trained_on(start, examples, key))
        squares = jax.tree.map(lambda old, new: jnp.sum(jnp.square(old - new)), weights.trained, params)
        outputs = predict(Learner(params, episode.support.inputs), episode.query.inputs)
        _, metrics = _inner.query_loss(objective, outputs, episode.query)
        return 0.5 * sum(jax.tree.leaves(squares)), metrics

    return base.Algorithm(init, loss, adapt, predict, update=update)


def minibatches(key, count: int, size: int, steps: int):
    """Which of `count` examples each step sees, int32 [step, size]: pass after pass, each in a new random order."""
    passes = -(-steps * size // count)
    order = jax.vmap(lambda pass_key: jax.random.permutation(pass_key, count))(jax.random.split(key, passes))
    return order.reshape(-1)[: steps * size].reshape(steps, size)
