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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from metarun import base, errors, trees
from metarun.blocks import inner_loop, outer_loss
from metarun.blocks.inner_loop import Learner
from metarun.options import DifferentiableSteps
from metarun.ranges import Above


@dataclass(frozen=True)
class Config(DifferentiableSteps):
    """The inner loop, and what of it is learned."""

    # How the outer gradient passes through the steps: first drops the Hessian, trajectory is the way of WarpGrad.
    order: Literal["second", "first", "trajectory"] = "second"
    mask: bool = False  # learn which outputs of each layer adapt: MT-net
    temperature: Annotated[float, Above(0)] = 1.0  # temperature of the masks' Gumbel-softmax


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Return the functions of a T-net. It needs no earlier stage.

    {"params", "warps"} are trained, and "masks" (ζ) with `mask`. "warps" holds the T.

    Returns:
      An algorithm whose learner is a `Learner` of the network with T joined in, and whose loss metrics are the
      objective's, after adaptation. Its init raises ConfigError if no layer of the model has a kernel.
    """
    objective = problem.objective
    predict = inner_loop.make_predict(model)
    descend = make_descend(config, inner_loop.make_support_loss(model, objective))
    is_trajectory = config.order == "trajectory" and config.inner_steps > 0

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        return base.Weights(init_trained(config, model.init(key, trees.first(episodes.support.inputs))))

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        masks = jax.tree.map(jax.nn.sigmoid, weights.trained["masks"]) if config.mask else ()
        return descend(weights.trained, support, masks, points=points)[0]

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        masks = draw_masks(key, weights.trained["masks"], config.temperature) if config.mask else ()
        query = episode.query

        def observe(learner: Learner):
            return objective.loss(predict(learner, query.inputs), query.targets) if is_trajectory else ()

        learner, losses = descend(weights.trained, episode.support, masks, observe)
        last_loss, metrics = outer_loss.judge(objective, predict(learner, query.inputs), query)
        return losses.mean() if is_trajectory else last_loss, metrics

    return base.Algorithm(init, loss, adapt, predict, watch=adapt)


def init_trained(config: Config, params: base.PyTree) -> dict[str, base.PyTree]:
    """Return what is trained, from the parameters of a new model.

    Raises:
      ConfigError: no layer has a kernel.
    """
    warps = map_kernels(lambda kernel: jnp.eye(kernel.shape[-1], dtype=kernel.dtype), params)
    if not jax.tree.leaves(warps):
        raise errors.ConfigError(
            "no layer of the model has a kernel to precondition", "model", "take model.name=mlp or conv4"
        )
    trained = {"params": params, "warps": warps}
    if config.mask:
        trained["masks"] = map_kernels(lambda kernel: jnp.zeros(kernel.shape[-1:], kernel.dtype), params)
    return trained


def make_descend(config: Config, support_loss: Callable) -> Callable:
    """Make (trained, support, masks, observe) -> the learner after all steps, and what `observe` gave after each step.

    `observe` takes the learner after one step; what it gives has leaves [step, ...]. With `points` what they note
    takes the place of the learner, and nothing is given for each step.
    """

    def descend(
        trained, support: base.Examples, masks, observe=lambda learner: (), points: base.Points | None = None
    ):
        first_params, warps = trained["params"], trained["warps"]

        def make_learner(params):
            return Learner(join_warps(params, warps), support.inputs)

        def step(state, _):
            params, memory = state
            if config.order == "trajectory":
                params = jax.tree.map(lambda p, s: s + jax.lax.stop_gradient(p - s), params, first_params)
            gradient = jax.grad(lambda params: support_loss(join_warps(params, warps), support))(params)
            gradient = apply_masks(gradient, masks) if config.mask else gradient
            state = inner_loop.take_step(
                config, (params, memory), gradient, config.inner_lr, first_order=config.order == "first"
            )
            return state, observe(make_learner(state[0]))

        start = first_params, inner_loop.SGD.init(first_params)
        if points is not None:
            return inner_loop.watch(points, step, start, lambda state: make_learner(state[0])), ()
        (params, _), notes = inner_loop.repeat(config, step, start, rematerialise=config.rematerialise)
        return make_learner(params), notes

    return descend


def map_kernels(function: Callable, params: base.PyTree) -> dict:
    """Return {name: ..., "layer": function(kernel)}: the dicts of the parameters, with a value for every kernel."""
    if not isinstance(params, Mapping):
        return {}
    inner = {name: map_kernels(function, node) for name, node in params.items() if isinstance(node, Mapping)}
    return {name: node for name, node in inner.items() if node} | (
        {"layer": function(params[base.KERNEL])} if base.KERNEL in params else {}
    )


def map_layers(function: Callable, params: base.PyTree, values: Mapping) -> dict:
    """Return the parameters with function(array, the value of its layer) for every kernel and bias.

    Args:
      values: what `map_kernels` gave. Layers that it has no value for stay as they are.
    """
    mapped = {}
    for name, node in params.items():
        if isinstance(node, Mapping):
            mapped[name] = map_layers(function, node, values.get(name, {}))
        else:
            is_mapped = "layer" in values and name in (base.KERNEL, base.BIAS)
            mapped[name] = function(node, values["layer"]) if is_mapped else node
    return mapped


def join_warps(params: base.PyTree, warps: Mapping) -> dict:
    """Return the parameters of the network that computes T(Wx + b) in each layer."""
    return map_layers(lambda array, warp: array @ warp, params, warps)


def apply_masks(gradient: base.PyTree, masks: Mapping) -> dict:
    """Return the gradient, with every output of a layer multiplied by its mask."""
    return map_layers(
        lambda array, mask: array * mask.reshape((1,) * (array.ndim - 1) + mask.shape), gradient, masks
    )


def draw_masks(key, logits: base.PyTree, temperature: float | jax.Array) -> base.PyTree:
    """Draw masks of zeros and ones, one with probability σ(logit); their derivative is that of the relaxed mask.

    Jang et al. 2016 (arXiv 1611.01144), Maddison et al. 2016 (1611.00712): the difference of two Gumbel variables is
    logistic.
    """
    leaves, structure = jax.tree.flatten(logits)

    def draw(leaf, leaf_key):
        relaxed = jax.nn.sigmoid((leaf + jax.random.logistic(leaf_key, leaf.shape, leaf.dtype)) / temperature)
        return relaxed + jax.lax.stop_gradient(jnp.where(relaxed > 0.5, 1.0, 0.0) - relaxed)

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [draw(*pair) for pair in zip(leaves, keys, strict=True)])
