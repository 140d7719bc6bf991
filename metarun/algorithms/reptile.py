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

By default the moments of the inner optimizer start at zero in every task. The authors' code carries them from task to
task, at test time too, which is `carries_moments: true`: the mean of squared gradients and the sum of its weights are
trained beside θ, by the same outer step towards their mean over the tasks. There the tasks of an outer step follow each
other, and their moments move whole whatever ε is.

The authors' code has the network `conv4` with `head: flatten`, and its "non-transductive" answers are normalised by the
support and one query (`inductive: support_and_query` of the model).
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

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
    # The moments of the inner optimizer go on from task to task. It needs inner_optimizer: adam_without_momentum, and
    # training.optimizer.name: sgd without momentum.
    carries_moments: bool = False

    def __post_init__(self):
        if self.carries_moments and self.inner_optimizer != "adam_without_momentum":
            raise ValueError(
                f"carries_moments does not know the moments of {self.inner_optimizer}",
                "take inner_optimizer: adam_without_momentum, or carries_moments: false",
            )

    @property
    def needs_optimizer(self) -> str | None:
        """The outer optimizer, without momentum, that keeps moments means of squares: others may make them negative."""
        return "sgd" if self.carries_moments else None


class Moments(NamedTuple):
    """The memory of Adam without momentum: v̂ = second / weight is a mean without bias, however often it was moved."""

    second: base.PyTree  # v ← β v + (1 − β) g²
    weight: base.PyTree  # w ← β w + (1 − β), from 0 to 1


DECAY = 0.999  # β of the carried moments

EXAMPLE = base.Example(options={"inner_lr": 0.02})


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Return Reptile's functions. It needs no earlier stage.

    With `carries_moments` {"params", "moments"} are trained, else the model's parameters alone.

    Returns:
      An algorithm whose learner is a `Learner`. Its loss is half the squared distance that the weights go. The
      loss metrics are the objective's on the query, whose examples the inner loop has seen with `trains_on: all`.
    """
    carries = config.carries_moments
    optimizer = make_carried_adam() if carries else inner_loop.OPTIMIZERS[config.inner_optimizer]()
    predict = inner_loop.make_predict(model)
    support_loss = inner_loop.make_support_loss(model, problem.objective)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        params = model.init(key, trees.first(episodes.support.inputs))
        return base.Weights({"params": params, "moments": optimizer.init(params)} if carries else params)

    def start(trained, params=None):
        """Return the state of the inner loop; without `params` it is at the trained ones."""
        if carries:
            return trained["params"] if params is None else params, trained["moments"]
        params = trained if params is None else params
        return params, optimizer.init(params)

    def descend(state, examples: base.Examples, reference, key, points=None, finish=take_learner):
        def step(state, batch):
            chosen = examples if batch is None else jax.tree.map(lambda leaf: leaf[batch], examples)
            gradient = jax.grad(support_loss)(state[0], chosen)
            return inner_loop.take_step(config, state, gradient, config.inner_lr, optimizer, True), ()

        rows = draw_batches(config, examples, key, inner_loop.count_steps(config, points))
        return inner_loop.run(config, step, state, lambda state: finish(state, reference), points, rows=rows)

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        return descend(start(weights.trained), support, support.inputs, jax.random.key(0), points)

    def update(weights: base.Weights, learner: Learner, support: base.Examples) -> Learner:
        state = start(weights.trained, learner.params)
        return descend(state, support, support.inputs, jax.random.key(0))

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        support, query = episode.support, episode.query
        examples = target_kinds.join(support, query) if config.trains_on == "all" else support
        first = start(weights.trained)
        last = descend(
            jax.lax.stop_gradient(first), examples, support.inputs, key, finish=lambda state, reference: state
        )
        value = measure_way(first[0], last[0])
        if carries:  # it has a gradient, and no place in the loss that the run shows
            way = measure_way(first[1], last[1])
            value = value + way - jax.lax.stop_gradient(way)
        learner = take_learner(jax.lax.stop_gradient(last), support.inputs)
        _, metrics = outer_loss.judge(problem.objective, predict(learner, query.inputs), query)
        return value, metrics

    return base.Algorithm(init, loss, adapt, predict, update, watch=adapt)


def take_learner(state: tuple[base.PyTree, optax.OptState], reference: base.PyTree) -> Learner:
    """Return the learner of a state of the inner loop."""
    return Learner(state[0], reference)


def measure_way(first: base.PyTree, last: base.PyTree):
    """Return ½‖first − last‖², with `last` held constant."""
    last = jax.lax.stop_gradient(last)
    squares = jax.tree.map(lambda old, new: jnp.sum(jnp.square(old - new)), first, last)
    return 0.5 * sum(jax.tree.leaves(squares))


def make_carried_adam() -> optax.GradientTransformation:
    """Make Adam without momentum (Kingma, Ba 2014, arXiv 1412.6980) whose memory can be averaged over tasks.

    The bias is taken out by the sum of the weights, which is 1 − βᵗ after t steps from zero.
    """

    def init(params) -> Moments:
        leaves = jax.tree.leaves(params)
        return Moments(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), leaves[0].dtype))

    def update(gradient, moments: Moments, params=None):
        second = jax.tree.map(lambda v, g: DECAY * v + (1 - DECAY) * g**2, moments.second, gradient)
        weight = DECAY * moments.weight + (1 - DECAY)
        root = inner_loop.EPSILON_ROOT
        direction = jax.tree.map(
            lambda g, v: g / (jnp.sqrt(v / weight + root) + inner_loop.EPSILON), gradient, second
        )
        return direction, Moments(second, weight)

    return optax.GradientTransformation(init, update)


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
