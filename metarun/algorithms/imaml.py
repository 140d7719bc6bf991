"""Implicit MAML: the outer gradient follows from where the inner problem ends, not from the way there.

Rajeswaran, Finn, Kakade, Levine 2019, arXiv 1909.04630. Adaptation solves a problem that stays near the start θ,

    φ*(θ) = argmin over φ of  L_S(φ) + λ/2·‖φ − θ‖²,

and where its gradient is zero the derivative of the query loss is, without a single inner step in it,

    dL_Q(φ*)/dθ = (I + H/λ)⁻¹ ∇L_Q(φ*),    H = ∇²L_S(φ*).

The linear system is solved by conjugate gradients, of which each step takes one product with H. So the memory of the
outer gradient does not grow with the number of inner steps.

The inner problem is solved by gradient descent until the norm of its gradient g is at most `tolerance`, for
`inner_steps` steps at most. Nothing in the implicit gradient keeps the curvature where a fixed rate converges, so the
rate is found: a step is undone and the rate halved where g'·g < −½‖g‖² for the gradient g' behind the step (the
approximate Wolfe condition of Hager and Zhang 2005, which needs no exact values); else the rate grows. The authors'
code descends L_S for a fixed number of steps at a fixed rate, and then takes one step of the proximal term. The paper's
Hessian-free inner solver is not here.

`damping` d replaces I by (1 + d)·I, against directions of negative curvature, where the system has no meaning; the
authors' code damps as well.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from metarun import base, trees
from metarun.algorithms import _inner
from metarun.algorithms._inner import Learner
from metarun.ranges import Above, AtLeast

GROWTH = 1.5  # of the inner rate after a step that is kept


@dataclass(frozen=True)
class Config:
    """The inner problem, its solver, and the solver of the linear system."""

    inner_steps: Annotated[int, AtLeast(0)] = 16  # gradient steps at most, undone ones too
    inner_lr: Annotated[float, Above(0)] = 0.01  # the rate of the first of them
    proximity: Annotated[float, Above(0)] = 2.0  # λ, the weight of half the squared distance to the start
    tolerance: Annotated[float, AtLeast(0)] = 1e-6  # norm of the inner problem's gradient at which to stop
    cg_steps: Annotated[int, AtLeast(1)] = 5  # of conjugate gradients, at most
    cg_tolerance: Annotated[float, AtLeast(0)] = (
        1e-6  # norm of the residual at which to stop, over that of ∇L_Q
    )
    damping: Annotated[float, AtLeast(0)] = 0.0  # d, added to the identity in the linear system


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    Returns:
      An algorithm whose learner is a `Learner` and whose loss metrics are the objective's, after adaptation, and
      `inner_gradient_norm`, of the inner problem where the solver stopped: zero where it is solved.
    """
    predict = _inner.predictor(model)
    support_loss = _inner.support_loss(model, objective)

    def inner_gradient(params, start, support: base.Examples):
        slope = jax.grad(support_loss)(params, support)
        return jax.tree.map(lambda s, now, then: s + config.proximity * (now - then), slope, params, start)

    def descended(start, support: base.Examples):
        def unfinished(carry):
            count, _, slope, _ = carry
            return (count < config.inner_steps) & (optax.tree.norm(slope) > config.tolerance)

        def step(carry):
            count, params, slope, rate = carry
            trial = jax.tree.map(lambda leaf, s: leaf - rate * s, params, slope)
            behind = inner_gradient(trial, start, support)
            kept = optax.tree.vdot(behind, slope) >= -0.5 * optax.tree.vdot(slope, slope)  # false for NaN
            params, slope = jax.tree.map(
                lambda new, old: jnp.where(kept, new, old), (trial, behind), (params, slope)
            )
            return count + 1, params, slope, rate * jnp.where(kept, GROWTH, 0.5)

        rate = jnp.asarray(config.inner_lr, jax.tree.leaves(start)[0].dtype)
        first = jnp.zeros((), jnp.int32), start, inner_gradient(start, start, support), rate
        return jax.lax.while_loop(unfinished, step, first)[1]

    @jax.custom_vjp
    def solve(start, support: base.Examples):
        return descended(start, support)

    def forward(start, support: base.Examples):
        params = descended(start, support)
        return params, (params, support)

    def backward(residual, cotangent):
        params, support = residual
        slope = jax.grad(lambda params: support_loss(params, support))

        def system(vector):
            curved = jax.jvp(slope, (params,), (vector,))[1]
            return jax.tree.map(lambda v, h: (1 + config.damping) * v + h / config.proximity, vector, curved)

        solution, _ = jax.scipy.sparse.linalg.cg(
            system, cotangent, tol=config.cg_tolerance, maxiter=config.cg_steps
        )
        return solution, None  # the support is data

    solve.defvjp(forward, backward)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        return base.Weights(model.init(key, trees.first(episodes.support.inputs)))

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        return Learner(solve(weights.trained, support), support.inputs)

    def loss(weights: base.Weights, episode: base.Episode, key):
        learner = adapt(weights, episode.support)
        outputs = predict(learner, episode.query.inputs)
        value, metrics = _inner.query_loss(objective, outputs, episode.query)
        constant = jax.lax.stop_gradient((learner.params, weights.trained))
        left = inner_gradient(*constant, episode.support)
        return value, metrics | {"inner_gradient_norm": optax.tree.norm(left)}

    return base.Algorithm(init, loss, adapt, predict)
