"""An inner loop whose step sizes and decays are generated at each step, from the learner's gradients and weights.

Baik et al. 2020, ALFA, arXiv 2011.00209. For each array l of the parameters (a kernel, a bias) and each inner step j,

    θ_{j+1,l} = β_{j,l} · θ_{j,l} − α_{j,l} · ∇L_S(θ_j)_l,      (α_j, β_j) = (a, b) ∘ (1 + g(τ_j)),

where τ_j holds the mean gradient and the mean weight of every array, g is a perceptron with one hidden layer as wide as
τ, and a (from `inner_lr`) and b (from 1) are learned, one of each an array. The outer objective is the query loss after
the last step; it trains g, a, b and, with `initial: learned`, the start θ_0. With `initial: random` θ_0 stays as it was
drawn, as in the paper's "ALFA + random initialisation".

Deviations: the paper writes (α_j, β_j) = g(τ_j); a, b and the 1 are ours, so that before training the inner loop is
about that of MAML: the last layer of g begins a tenth as large as other layers.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.algorithms import _inner, _network
from metarun.ranges import Above, AtLeast

FIRST_SCALE = 0.1  # of the last layer of g before training


@dataclass(frozen=True)
class Config:
    """The inner loop."""

    inner_steps: Annotated[int, AtLeast(0)] = 5  # steps on the support
    inner_lr: Annotated[float, Above(0)] = 0.01  # where a begins, for a mean over the support
    initial: Literal["learned", "random"] = "learned"  # the start of every task: trained, or as it was drawn
    order: Literal["second", "first"] = "second"  # of the outer gradient; first drops the Hessian
    loop: Literal["scan", "unroll"] = "unroll"  # of the inner steps: scan compiles faster, unroll runs faster
    rematerialise: bool = False  # recompute each inner step in the backward pass: less memory, more time


def means(tree):
    """The mean of every array, [array]."""
    return jnp.stack([leaf.mean() for leaf in jax.tree.leaves(tree)])


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    Returns:
      An algorithm that trains {"generator", "rates" [array], "decays" [array]}, with "params" among them or frozen.
    """
    support_loss = _inner.support_loss(model, objective)
    predict = _inner.predictor(model)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        model_key, generator_key = jax.random.split(key)
        params = model.init(model_key, trees.first(episodes.support.inputs))
        arrays = len(jax.tree.leaves(params))
        first, last = _network.init_perceptron(generator_key, [2 * arrays] * 3)
        trained = {
            "generator": [first, jax.tree.map(lambda leaf: FIRST_SCALE * leaf, last)],
            "rates": jnp.full(arrays, config.inner_lr, first["bias"].dtype),
            "decays": jnp.ones(arrays),
        }
        if config.initial == "random":
            return base.Weights(trained, params)
        return base.Weights(trained | {"params": params})

    def adapt(weights: base.Weights, support: base.Examples) -> _inner.Learner:
        start = weights.trained["params"] if config.initial == "learned" else weights.frozen
        return update(weights, _inner.Learner(start, support.inputs), support)

    def update(weights: base.Weights, learner: _inner.Learner, support: base.Examples) -> _inner.Learner:
        trained = weights.trained

        def step(params, _):
            slope = _inner.bounded(jax.grad(support_loss)(params, support), None, config.order)
            rates, decays = generate(trained, slope, params)
            leaves, structure = jax.tree.flatten(params)
            slopes = jax.tree.leaves(slope)
            stepped = [
                decays[index] * leaf - rates[index] * slopes[index] for index, leaf in enumerate(leaves)
            ]
            return jax.tree.unflatten(structure, stepped), ()

        params, _ = _inner.repeat(
            step, learner.params, (), config.inner_steps, config.loop, config.rematerialise
        )
        return _inner.Learner(params, support.inputs)

    def loss(weights: base.Weights, episode: base.Episode, key):
        learner = adapt(weights, episode.support)
        return _inner.query_loss(objective, predict(learner, episode.query.inputs), episode.query)

    return base.Algorithm(init, loss, adapt, predict, update=update)


def generate(trained, gradient, params):
    """(α, β) of one inner step, each [array]."""
    state = jnp.concatenate([means(gradient), means(params)])
    rates, decays = jnp.split(1 + _network.perceptron(trained["generator"], state), 2)
    return trained["rates"] * rates, trained["decays"] * decays
