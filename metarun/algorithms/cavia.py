"""CAVIA: only a small vector of context parameters adapts to a task; the network is shared by all tasks.

Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson 2019, arXiv 1810.03642. The network f has the parameters θ and, beside its
inputs, a condition c. The inner loop starts from zeros and descends the support loss in c alone,

    c_0 = 0,    c_{k+1} = c_k − α ∇_c L_S(θ, c_k),

and the outer objective is the query loss L_Q(θ, c_K) in θ. `order: first` takes ∂c_K/∂θ for zero.

What a condition does is the model's affair: `mlp` has it beside the inputs, as the paper's regression does; `conv4`
modulates every block by it (FiLM), where the paper modulates one.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metarun import base, errors, trees
from metarun.algorithms import _inner
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config:
    """The context parameters and their inner loop."""

    context: Annotated[int, AtLeast(1)] = 5  # context parameters
    inner_steps: Annotated[int, AtLeast(0)] = 1  # gradient steps on the support
    inner_lr: Annotated[float, Above(0)] = 1.0  # α, for a loss that is the mean over the support
    inner_clip_norm: Annotated[float, Above(0)] | None = None  # largest norm of an inner gradient; null: any
    order: Literal["second", "first"] = "second"  # of the outer gradient
    loop: Literal["scan", "unroll"] = "unroll"  # of the inner steps: scan compiles faster, unroll runs faster
    rematerialise: bool = False  # recompute each inner step in the backward pass: less memory, more time


class Learner(NamedTuple):
    """The shared network, the context of one task, and the inputs that normalise its queries."""

    params: base.PyTree
    context: base.PyTree  # [feature]
    reference: base.PyTree


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage, and a model that takes a condition: its init raises ConfigError.

    Returns:
      An algorithm whose learner is a `Learner` and whose loss metrics are the objective's, after adaptation.
    """

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs = trees.first(episodes.support.inputs)
        try:
            return base.Weights(model.init(key, inputs, condition=jnp.zeros(config.context)))
        except ValueError as refusal:
            raise errors.ConfigError(
                f"cavia needs a model that takes a condition: {refusal}",
                "model",
                "take model.name=mlp or conv4",
            ) from refusal

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        context = jnp.zeros(config.context, jax.tree.leaves(weights.trained)[0].dtype)
        return update(weights, Learner(weights.trained, context, support.inputs), support)

    def update(weights: base.Weights, learner: Learner, support: base.Examples) -> Learner:
        def support_loss(context):
            outputs = model.apply(
                weights.trained, support.inputs, condition=context, reference=support.inputs
            )
            return objective.loss(outputs, support.targets)

        step = _inner.make_step(
            jax.grad(support_loss), optax.identity(), config.inner_lr, config.inner_clip_norm, config.order
        )
        start = learner.context, optax.EmptyState()
        (context, _), _ = _inner.repeat(
            step, start, (), config.inner_steps, config.loop, config.rematerialise
        )
        return Learner(weights.trained, context, support.inputs)

    def predict(learner: Learner, inputs):
        return model.apply(learner.params, inputs, condition=learner.context, reference=learner.reference)

    def loss(weights: base.Weights, episode: base.Episode, key):
        outputs = predict(adapt(weights, episode.support), episode.query.inputs)
        return _inner.query_loss(objective, outputs, episode.query)

    return base.Algorithm(init, loss, adapt, predict, update=update)
