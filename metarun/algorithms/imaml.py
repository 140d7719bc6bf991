"""Implicit MAML: the outer gradient follows from where the inner problem ends, not from the way there.

Rajeswaran, Finn, Kakade, Levine 2019, arXiv 1909.04630. Adaptation solves a problem that stays near the start θ,

    φ*(θ) = argmin over φ of  L_S(φ) + λ/2·‖φ − θ‖²,

and where its gradient is zero the derivative of the query loss is, without a single inner step in it,

    dL_Q(φ*)/dθ = (I + H/λ)⁻¹ ∇L_Q(φ*),    H = ∇²L_S(φ*).

Conjugate gradients solve the linear system; each of their steps takes one product with H. So the memory of the outer
gradient does not grow with the number of inner steps.

`solver` says how the inner problem is solved:

- `searched`: gradient descent, until the norm of the problem's gradient g is at most `tolerance`, for `inner_steps`
  steps at most. Nothing in the implicit gradient keeps the curvature where a fixed rate converges, so the rate is
  searched: a step along d is undone and the rate halved where g'·d < −½ g·d for the gradient g' behind the step (the
  approximate Wolfe condition of Hager and Zhang 2005, which needs no exact values); else the rate grows.
- `hessian_free`: the paper's second variant. A step goes along the d that `cg_steps` conjugate gradients find for
  (H + λI) d = g, and ends where they meet negative curvature (Martens 2010; Steihaug 1983). Its rate starts at 1, which
  is its largest, and is searched by the same rule; `inner_lr` is not read.
- `fixed`: the authors' code. `inner_steps` steps on L_S at the rate `inner_lr`, and after them one step at this rate on
  the proximal term. `tolerance` is not read.

`damping` d and `curvature_damping` c make the system (1 + d)·I + H/(λ + c), against directions of negative curvature,
where it has no meaning. The authors' code has d = 1 and c = 10. With its λ = 2 that is a sixth of 12·I + H/2, so that
d = 11 and c = 0 give the same direction, a sixth as long: an outer Adam with a large `eps` tells them apart, and theirs
has 1e-3. They test without proximity (`test_proximity: false`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

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

    # What solves the inner problem: gradient steps whose rate is searched, Newton steps, or the authors' gradient steps
    # at a fixed rate with one step of the proximal term behind them.
    solver: Literal["searched", "hessian_free", "fixed"] = "searched"
    inner_steps: Annotated[int, AtLeast(0)] = 16  # steps at most, the undone ones included
    inner_lr: Annotated[float, Above(0)] = 0.01  # rate of the first gradient step; fixed: of every step
    proximity: Annotated[float, Above(0)] = 2.0  # λ, the weight of half the squared distance to the start
    test_proximity: bool = True  # the inner problem has the proximal term in evaluation, too
    tolerance: Annotated[float, AtLeast(0)] = 1e-6  # norm of the inner problem's gradient at which to stop
    # Steps of conjugate gradients, at most, for the implicit gradient and for each Newton step.
    cg_steps: Annotated[int, AtLeast(1)] = 5
    # Norm of the linear system's residual at which to stop, as a share of the norm of ∇L_Q.
    cg_tolerance: Annotated[float, AtLeast(0)] = 1e-6
    damping: Annotated[float, AtLeast(0)] = 0.0  # d, added to the identity in the linear system
    # c, added to λ where it divides H in the linear system.
    curvature_damping: Annotated[float, AtLeast(0)] = 0.0


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Return implicit MAML's functions. It needs no earlier stage.

    Returns:
      An algorithm whose learner is a `Learner`. Its loss metrics are the objective's, after adaptation, and
      `inner_gradient_norm`, the norm of the inner problem's gradient where the solver stopped: zero where the problem
      is solved.
    """
    predict = inner_loop.make_predict(model)
    support_loss = inner_loop.make_support_loss(model, problem.objective)
    train = make_solve(config, support_loss)
    test_proximity = config.proximity if config.test_proximity else 0.0

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        return base.Weights(model.init(key, trees.first(episodes.support.inputs)))

    def watch(weights: base.Weights, support: base.Examples, points: base.Points):
        kept = reach(config, support_loss, test_proximity, weights.trained, support, points.counts)
        return jax.lax.map(lambda params: points.observe(Learner(params, support.inputs)), kept)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        if config.test_proximity:
            return Learner(train(weights.trained, support), support.inputs)
        counts = (config.inner_steps,)
        kept = reach(config, support_loss, test_proximity, weights.trained, support, counts)
        return Learner(trees.first(kept), support.inputs)

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        support = episode.support
        learner = Learner(train(weights.trained, support), support.inputs)
        outputs = predict(learner, episode.query.inputs)
        value, metrics = outer_loss.judge(problem.objective, outputs, episode.query)
        params, start = jax.lax.stop_gradient((learner.params, weights.trained))
        residual = add_pull(jax.grad(support_loss)(params, support), params, start, config.proximity)
        return value, metrics | {"inner_gradient_norm": optax.tree.norm(residual)}

    return base.Algorithm(init, loss, adapt, predict, watch=watch)


def make_solve(config: Config, support_loss: Callable) -> Callable:
    """Make (start, support) -> φ*, with the implicit derivative in the start and none in the support."""

    def forward(start, support: base.Examples):
        kept = reach(config, support_loss, config.proximity, start, support, (config.inner_steps,))
        params = trees.first(kept)
        return params, (params, support)

    def backward(residual, cotangent):
        params, support = residual
        slope = jax.grad(lambda params: support_loss(params, support))
        return solve_system(config, slope, params, cotangent), None  # the support is data

    solve = jax.custom_vjp(lambda start, support: forward(start, support)[0])
    solve.defvjp(forward, backward)
    return solve


def reach(
    config: Config,
    support_loss: Callable,
    proximity,
    start: base.PyTree,
    support: base.Examples,
    counts: tuple[int, ...],
) -> base.PyTree:
    """Return where the solver is after some numbers of steps, ascending, leaves [point, ...].

    Args:
      proximity: λ; 0: no proximal term.
    """

    def slope(params):
        return jax.grad(support_loss)(params, support)

    def gradient(params):
        return add_pull(slope(params), params, start, proximity)

    if config.solver == "fixed":
        return descend_at_fixed_rate(config, slope, proximity, start, counts)
    return descend(config, gradient, start, counts)


def add_pull(slope: base.PyTree, params: base.PyTree, start: base.PyTree, proximity) -> base.PyTree:
    """Return the gradient of the inner problem: ∇L_S(φ) + λ (φ − θ)."""
    return jax.tree.map(lambda s, now, then: s + proximity * (now - then), slope, params, start)


def descend_at_fixed_rate(
    config: Config, slope: Callable, proximity, start: base.PyTree, counts: tuple[int, ...]
) -> base.PyTree:
    """Return where steps on L_S and then one of the proximal term lead to, leaves [point, ...]."""

    def step(params, _):
        return trees.descend(params, slope(params), config.inner_lr), ()

    def pull(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return trees.descend(params, add_pull(zeros, params, start, proximity), config.inner_lr)

    return inner_loop.watch(base.Points(counts, lambda params: params), step, start, pull)


def descend(config: Config, gradient: Callable, start: base.PyTree, counts: tuple[int, ...]) -> base.PyTree:
    """Return where a descent from the start is after some numbers of steps, leaves [point, ...].

    The rate is searched on the way. Where the descent ends earlier, it stays.

    Args:
      gradient: params -> the gradient of the inner problem at them.
      counts: the numbers of steps, ascending.
    """
    is_newton = config.solver == "hessian_free"

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
        way = find_newton_step(config, gradient, params, slope) if is_newton else slope
        trial = trees.descend(params, way, rate)
        trial_slope = gradient(trial)
        is_kept = optax.tree.vdot(trial_slope, way) >= -0.5 * optax.tree.vdot(slope, way)  # false for NaN
        params, slope = jax.tree.map(
            lambda new, old: jnp.where(is_kept, new, old), (trial, trial_slope), (params, slope)
        )
        rate = rate * jnp.where(is_kept, GROWTH, SHRINKAGE)
        rate = jnp.minimum(rate, 1.0) if is_newton else rate
        return count + 1, params, slope, rate, keep(kept, count + 1, params)

    rate = jnp.asarray(1.0 if is_newton else config.inner_lr, jax.tree.leaves(start)[0].dtype)
    kept = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(counts), *leaf.shape)), start)
    first_state = jnp.zeros((), jnp.int32), start, gradient(start), rate, kept
    return jax.lax.while_loop(is_unfinished, step, first_state)[-1]


def find_newton_step(
    config: Config, gradient: Callable, params: base.PyTree, slope: base.PyTree
) -> base.PyTree:
    """Return d of (H + λI) d = g as far as some conjugate gradients get, or g itself where its curvature is negative.

    They end at the first direction whose curvature is not positive, so that d leads downhill (Steihaug 1983).
    """
    vdot = optax.tree.vdot

    def step(_, state):
        solution, residual, direction, is_going = state
        product = jax.jvp(gradient, (params,), (direction,))[1]
        curvature, square = vdot(direction, product), vdot(residual, residual)
        is_going = is_going & (curvature > 0)
        length = jnp.where(is_going, square / jnp.where(is_going, curvature, 1.0), 0.0)
        solution = trees.descend(solution, direction, -length)
        residual = trees.descend(residual, product, length)
        growth = vdot(residual, residual) / jnp.where(square > 0, square, 1.0)
        return solution, residual, trees.descend(residual, direction, -growth), is_going

    zeros = jax.tree.map(jnp.zeros_like, slope)
    state = zeros, slope, slope, jnp.asarray(True)
    solution = jax.lax.fori_loop(0, config.cg_steps, step, state)[0]
    is_downhill = vdot(solution, slope) > 0
    return jax.tree.map(lambda found, steepest: jnp.where(is_downhill, found, steepest), solution, slope)


def solve_system(config: Config, slope: Callable, params: base.PyTree, right: base.PyTree) -> base.PyTree:
    """Return ((1 + d) I + H/(λ + c))⁻¹ `right`, with H the derivative of `slope` at the parameters."""
    divisor = config.proximity + config.curvature_damping

    def multiply(vector):
        curved = jax.jvp(slope, (params,), (vector,))[1]
        return jax.tree.map(lambda v, h: (1 + config.damping) * v + h / divisor, vector, curved)

    return jax.scipy.sparse.linalg.cg(multiply, right, tol=config.cg_tolerance, maxiter=config.cg_steps)[0]
