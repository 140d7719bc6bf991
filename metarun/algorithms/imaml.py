"""Implicit MAML: the outer gradient follows from where the inner problem ends, not from the way there.

Rajeswaran, Finn, Kakade, Levine 2019, arXiv 1909.04630. Adaptation solves a problem that stays near the start θ,

    φ*(θ) = argmin over φ of  L_S(φ) + λ/2·‖φ − θ‖²,

and where its gradient is zero the derivative of the query loss is, without a single inner step in it,

    dL_Q(φ*)/dθ = (I + H/λ)⁻¹ ∇L_Q(φ*),    H = ∇²L_S(φ*).

Conjugate gradients solve the linear system; each of their steps takes one product with H. So the memory of the outer
gradient does not grow with the number of inner steps.

Gradient descent solves the inner problem: until the norm of its gradient g is at most `tolerance`, for `inner_steps`
steps at most. Nothing in the implicit gradient keeps the curvature where a fixed rate converges, so the rate is
searched: a step is undone and the rate halved where g'·g < −½‖g‖² for the gradient g' behind the step (the approximate
Wolfe condition of Hager and Zhang 2005, which needs no exact values); else the rate grows. The authors' code descends
L_S for a fixed number of steps at a fixed rate, and then takes one step of the proximal term. The paper's Hessian-free
inner solver is not here.

`damping` d replaces I by (1 + d)·I, against directions of negative curvature, where the system has no meaning; the
authors' code damps as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from metarun import base, trees
from metarun.blocks import inner_loop, outer_loss
from metarun.blocks.inner_loop import Learner
from metarun.ranges import Above, AtLeast

GROWTH = 1.5  # factor of the inner rate after a step that is kept
SHRINKAGE = 0.5  # factor of the inner rate after a step that is undone


@dataclass(frozen=True)
class Config:
    """The inner problem, its solver, and the solver of the linear system."""

    inner_steps: Annotated[int, AtLeast(0)] = 16  # gradient steps at most, the undone ones included
    inner_lr: Annotated[float, Above(0)] = 0.01  # rate of the first gradient step
    proximity: Annotated[float, Above(0)] = 2.0  # λ, the weight of half the squared distance to the start
    tolerance: Annotated[float, AtLeast(0)] = 1e-6  # norm of the inner problem's gradient at which to stop
    cg_steps: Annotated[int, AtLeast(1)] = 5  # steps of conjugate gradients, at most
    # Norm of the linear system's residual at which to stop, as a share of the norm of ∇L_Q.
    cg_tolerance: Annotated[float, AtLeast(0)] = 1e-6
    damping: Annotated[float, AtLeast(0)] = 0.0  # d, added to the identity in the linear system


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Return implicit MAML's functions. It needs no earlier stage.

    Returns:
      An algorithm whose learner is a `Learner`. Its loss metrics are the objective's, after adaptation, and
      `inner_gradient_norm`, the norm of the inner problem's gradient where the solver stopped: zero where the problem
      is solved.
    """
    predict = inner_loop.make_predict(model)
    support_loss = inner_loop.make_support_loss(model, problem.objective)
    gradient = make_inner_gradient(config, support_loss)
    solve = make_solve(config, support_loss, gradient)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        return base.Weights(model.init(key, trees.first(episodes.support.inputs)))

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        return Learner(solve(weights.trained, support), support.inputs)

    def watch(weights: base.Weights, support: base.Examples, points: base.Points):
        start = weights.trained
        kept = descend(config, lambda params: gradient(params, start, support), start, points.counts)
        return jax.lax.map(lambda params: points.observe(Learner(params, support.inputs)), kept)

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        learner = adapt(weights, episode.support)
        outputs = predict(learner, episode.query.inputs)
        value, metrics = outer_loss.judge(problem.objective, outputs, episode.query)
        constants = jax.lax.stop_gradient((learner.params, weights.trained))
        residual = gradient(*constants, episode.support)
        return value, metrics | {"inner_gradient_norm": optax.tree.norm(residual)}

    return base.Algorithm(init, loss, adapt, predict, watch=watch)


def make_inner_gradient(config: Config, support_loss: Callable) -> Callable:
    """Make (params, start, support) -> the gradient of the inner problem: ∇L_S(φ) + λ (φ − θ)."""

    def gradient(params, start, support: base.Examples):
        slope = jax.grad(support_loss)(params, support)
        return jax.tree.map(lambda s, now, then: s + config.proximity * (now - then), slope, params, start)

    return gradient


def make_solve(config: Config, support_loss: Callable, gradient: Callable) -> Callable:
    """Make (start, support) -> φ*, with the implicit derivative in the start and none in the support."""

    def forward(start, support: base.Examples):
        kept = descend(config, lambda params: gradient(params, start, support), start, (config.inner_steps,))
        params = trees.first(kept)
        return params, (params, support)

    def backward(residual, cotangent):
        params, support = residual
        slope = jax.grad(lambda params: support_loss(params, support))
        return solve_system(config, slope, params, cotangent), None  # the support is data

    solve = jax.custom_vjp(lambda start, support: forward(start, support)[0])
    solve.defvjp(forward, backward)
    return solve


def descend(config: Config, gradient: Callable, start: base.PyTree, counts: tuple[int, ...]) -> base.PyTree:
    """Return where gradient descent from the start is after some numbers of steps, leaves [point, ...].

    The rate is searched on the way. Where the descent ends earlier, it stays.

    Args:
      gradient: params -> the gradient of the inner problem at them.
      counts: the numbers of steps, ascending.
    """

    def is_unfinished(state):
        count, _, slope, _, _ = state
        return (count < counts[-1]) & (optax.tree.norm(slope) > config.tolerance)

    def keep(kept, count, params):
        """Return what is kept, with the parameters at every point that is not behind `count` steps."""
        ahead = count <= jnp.asarray(counts)
        return jax.tree.map(
            lambda states, leaf: jnp.where(ahead.reshape(-1, *(1,) * leaf.ndim), leaf[None], states),
            kept,
            params,
        )

    def step(state):
        count, params, slope, rate, kept = state
        trial = trees.descend(params, slope, rate)
        trial_slope = gradient(trial)
        is_kept = optax.tree.vdot(trial_slope, slope) >= -0.5 * optax.tree.vdot(slope, slope)  # false for NaN
        params, slope = jax.tree.map(
            lambda new, old: jnp.where(is_kept, new, old), (trial, trial_slope), (params, slope)
        )
        rate = rate * jnp.where(is_kept, GROWTH, SHRINKAGE)
        return count + 1, params, slope, rate, keep(kept, count + 1, params)

    rate = jnp.asarray(config.inner_lr, jax.tree.leaves(start)[0].dtype)
    kept = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(counts), *leaf.shape)), start)
    first_state = jnp.zeros((), jnp.int32), start, gradient(start), rate, kept
    return jax.lax.while_loop(is_unfinished, step, first_state)[-1]


def solve_system(config: Config, slope: Callable, params: base.PyTree, right: base.PyTree) -> base.PyTree:
    """Return ((1 + d) I + H/λ)⁻¹ `right`, with H the derivative of `slope` at the parameters."""

    def multiply(vector):
        curved = jax.jvp(slope, (params,), (vector,))[1]
        return jax.tree.map(lambda v, h: (1 + config.damping) * v + h / config.proximity, vector, curved)

    return jax.scipy.sparse.linalg.cg(multiply, right, tol=config.cg_tolerance, maxiter=config.cg_steps)[0]
