"""T-nets, MT-nets and WarpGrad: linear maps that are fixed within a task shape the gradient of the inner loop.

Lee, Choi 2018, arXiv 1801.05558. Behind every layer with a kernel W and a bias b stands a learned square matrix T, and
the layer computes T(Wx + b). The inner loop changes W and b; the outer loop learns these and T. In what the layer
computes, an inner step of rate α is

    Δ(TW) = −α TTᵀ ∇_{TW} L_S,

so that TTᵀ is a learned metric of the layer's gradient. T starts as the identity, which is MAML.

`mask: true` is the MT-net: output j of a layer adapts (its column of W, and b_j) with probability σ(ζ_j), ζ learned. In
training each task draws 0 or 1, with the straight-through gradient of the Gumbel-softmax; ζ starts at zero. `adapt` has
no random key: it multiplies by the probability, where the authors draw again.

`order: trajectory` learns in the manner of WarpGrad (Flennerhag et al. 2019, 1909.00025), without a derivative through
the whole inner loop: the outer objective is the mean over k of L_Q(θ_{k+1}), where each step has its own derivative in
T, but θ_k is taken for θ plus a constant. Different there: WarpGrad's maps may be any layers, and its start is learned
by another method.

T joins W before the network is applied (WT in the order of our arrays), so that any model with layers of a `kernel`
[..., input, output] and a `bias` will do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import optax

from metarun import base, errors, trees
from metarun.algorithms import _inner
from metarun.algorithms._inner import Learner
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config:
    """The inner loop, and what is learned of it."""

    inner_steps: Annotated[int, AtLeast(0)] = 1  # gradient steps on the support
    inner_lr: Annotated[float, Above(0)] = 0.01  # α, for a loss that is the mean over the support
    inner_clip_norm: Annotated[float, Above(0)] | None = None  # largest norm of an inner gradient; null: any
    mask: bool = False  # learn which outputs of each layer adapt: MT-net
    temperature: Annotated[float, Above(0)] = 1.0  # of the masks' Gumbel-softmax
    order: Literal["second", "first", "trajectory"] = (
        "second"  # of the outer gradient; trajectory: WarpGrad's
    )
    loop: Literal["scan", "unroll"] = "unroll"  # of the inner steps: scan compiles faster, unroll runs faster
    rematerialise: bool = False  # recompute each inner step in the backward pass: less memory, more time


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    What is trained is {"params", "warps"}, and "masks" (ζ) with `mask`.

    Returns:
      An algorithm whose learner is a `Learner` of the network with T joined in, and whose loss metrics are the
      objective's, after adaptation. Its init raises ConfigError where no layer of the model has a kernel.
    """
    predict = _inner.predictor(model)
    support_loss = _inner.support_loss(model, objective)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        params = model.init(key, trees.first(episodes.support.inputs))
        warps = of_layers(lambda kernel: jnp.eye(kernel.shape[-1], dtype=kernel.dtype), params)
        if not jax.tree.leaves(warps):
            raise errors.ConfigError(
                "no layer of the model has a kernel to precondition", "model", "take model.name=mlp or conv4"
            )
        trained = {"params": params, "warps": warps}
        if config.mask:
            trained["masks"] = of_layers(lambda kernel: jnp.zeros(kernel.shape[-1:], kernel.dtype), params)
        return base.Weights(trained)

    def adapted(trained, support: base.Examples, masks, observe=lambda learner: ()):
        """The learner after all steps, and what `observe` gave after each, leaves [step, ...]."""
        start, warps = trained["params"], trained["warps"]

        def gradient(params):
            slope = jax.grad(lambda params: support_loss(warped(params, warps), support))(params)
            return masked(slope, masks) if config.mask else slope

        step = _inner.make_step(
            gradient, optax.identity(), config.inner_lr, config.inner_clip_norm, config.order
        )

        def learner(params):
            return Learner(warped(params, warps), support.inputs)

        def observed_step(state, row):
            params, memory = state
            if config.order == "trajectory":
                params = jax.tree.map(lambda p, s: s + jax.lax.stop_gradient(p - s), params, start)
            state, _ = step((params, memory), row)
            return state, observe(learner(state[0]))

        (params, _), notes = _inner.repeat(
            observed_step,
            (start, optax.EmptyState()),
            (),
            config.inner_steps,
            config.loop,
            config.rematerialise,
        )
        return learner(params), notes

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        masks = jax.tree.map(jax.nn.sigmoid, weights.trained["masks"]) if config.mask else ()
        return adapted(weights.trained, support, masks)[0]

    def loss(weights: base.Weights, episode: base.Episode, key):
        masks = drawn(key, weights.trained["masks"], config.temperature) if config.mask else ()
        query = episode.query

        def of_query(learner: Learner):
            return objective.loss(predict(learner, query.inputs), query.targets)

        every = config.order == "trajectory" and config.inner_steps > 0
        learner, losses = adapted(
            weights.trained, episode.support, masks, of_query if every else lambda learner: ()
        )
        last, metrics = _inner.query_loss(objective, predict(learner, query.inputs), query)
        return losses.mean() if every else last, metrics

    return base.Algorithm(init, loss, adapt, predict)


def of_layers(make, params) -> dict:
    """{name: ..., "layer": make(kernel)}: the parameters' dicts, with a value for each layer that has a kernel."""
    if not isinstance(params, Mapping):
        return {}
    inner = {name: of_layers(make, part) for name, part in params.items() if isinstance(part, Mapping)}
    return {name: part for name, part in inner.items() if part} | (
        {"layer": make(params["kernel"])} if "kernel" in params else {}
    )


def map_layers(function, params, beside):
    """function(array, the value of its layer) of every kernel and bias; all other arrays as they are."""
    mapped = {}
    for name, part in params.items():
        if isinstance(part, Mapping):
            mapped[name] = map_layers(function, part, beside.get(name, {}))
        else:
            of_layer = "layer" in beside and name in ("kernel", "bias")
            mapped[name] = function(part, beside["layer"]) if of_layer else part
    return mapped


def warped(params, warps):
    """The parameters of the network that computes T(Wx + b) in each layer."""
    return map_layers(lambda array, warp: array @ warp, params, warps)


def masked(gradient, masks):
    """The gradient, with each output's share of a layer multiplied by its mask."""
    return map_layers(
        lambda array, mask: array * mask.reshape((1,) * (array.ndim - 1) + mask.shape), gradient, masks
    )


def drawn(key, logits, temperature: float):
    """Masks of zeros and ones, one with probability σ(logit); their derivative is that of the relaxed mask.

    Jang et al. 2016 (arXiv 1611.01144), Maddison et al. 2016 (1611.00712): the difference of two Gumbel variables is
    logistic.
    """
    leaves, structure = jax.tree.flatten(logits)

    def draw(leaf, leaf_key):
        relaxed = jax.nn.sigmoid((leaf + jax.random.logistic(leaf_key, leaf.shape, leaf.dtype)) / temperature)
        return relaxed + jax.lax.stop_gradient(jnp.where(relaxed > 0.5, 1.0, 0.0) - relaxed)

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [draw(*pair) for pair in zip(leaves, keys, strict=True)])
