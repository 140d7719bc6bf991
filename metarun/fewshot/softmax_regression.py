"""Logistic regression for several classes on features of length 1, and all its refits in one compiled program.

    W = argmin  Σ_i w_i · −log softmax(Wᵀ·x_i)[y_i] + strength/2 · ‖W‖²,        w_i = n / (ways · n_{y_i})

x_i are the features with a 1 behind them, so the bias is one more feature with the same regularisation (as in
LIBLINEAR, Fan et al. 2008, JMLR 9:1871). The weights w_i let each class count the same, whatever its number of
pictures. `strength` is 1/C of scikit-learn.

The solver. ½·XᵀwX + strength is never below the curvature (Böhning 1992, Annals of the Institute of Statistical
Mathematics 44:197). In the basis of the singular vectors of √w·X it is a diagonal, so a step divides by it, with
Nesterov's momentum, which starts anew where it leads uphill (O'Donoghue and Candès 2015, arXiv 1204.3982). The basis
has at most as many directions as there are pictures, and the solution lies in it.

Leaving out. Each refit has the weights of a fit to the others alone, and starts at the solution for all. A support of n
examples takes n refits, one for each example, as long as these take about 10¹² operations; beyond that the examples
are shared out into fewer parts, five at least, and each refit leaves one part out. No refit leaves a class without
examples: an example that is alone in its class is never left out.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

STRENGTH = 1.0
TOLERANCE = 1e-4  # largest entry of the gradient at the solution, for 100 examples or fewer
LIMIT = 2000  # steps of one fit
USUAL_STEPS = 200  # of a refit; with these the operations of the refits are counted
OPERATIONS = 1e12  # of all refits together
FEWEST_PARTS = 5
ENTRIES = 1 << 24  # scores that the refits at one time hold: 64 MB


class Regression(NamedTuple):
    """A fitted classifier."""

    kernel: Float[np.ndarray, "input way"]  # of the features with a 1 behind them
    basis: Float[np.ndarray, "input direction"]
    coefficients: Float[np.ndarray, "direction way"]  # kernel = basis · coefficients


def extend(features: Float[np.ndarray, "example feature"]) -> Float[np.ndarray, "example input"]:
    """Return the features with a 1 behind them."""
    return np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)


def balance(labels: Int[np.ndarray, "example"], kept: np.ndarray, ways: int) -> Float[np.ndarray, "example"]:
    """Return the weight of each example in a fit to those that are kept; 0 for the others."""
    counts = np.bincount(labels[kept], minlength=ways)
    weights = kept.sum() / (ways * np.maximum(counts, 1)[labels])
    return np.where(kept, weights, 0.0).astype(np.float32)


def fit(
    features: Float[np.ndarray, "example feature"], labels: Int[np.ndarray, "example"], strength: float
) -> Regression:
    """Return the classifier of a support. Labels go from 0 without gaps."""
    inputs, ways = extend(features), int(labels.max()) + 1
    weights = balance(labels, np.ones(len(labels), bool), ways)
    _, sizes, basis = np.linalg.svd(np.sqrt(weights)[:, None] * inputs, full_matrices=False)
    bound = np.square(sizes).astype(np.float32) / 2
    start = np.zeros((len(sizes), ways), np.float32)
    arguments = (inputs @ basis.T, labels.astype(np.int32), weights[None], bound, np.float32(strength), start)
    coefficients = np.asarray(solve_all(*arguments, at_once=1))[0]
    return Regression(basis.T @ coefficients, np.ascontiguousarray(basis.T), coefficients)


def score(regression: Regression, features: Float[np.ndarray, "example feature"]) -> np.ndarray:
    """Return the scores [example, way]."""
    return extend(features) @ regression.kernel


def share_out(labels: Int[np.ndarray, "example"], directions: int) -> Int[np.ndarray, "example"]:
    """Return the part in which each example is left out; −1: it is alone in its class, and never left out."""
    has_company = np.bincount(labels)[labels] > 1
    places = np.flatnonzero(has_company)
    operations = 4.0 * len(labels) * directions * (labels.max() + 1) * USUAL_STEPS
    parts = min(len(places), max(int(OPERATIONS / operations), FEWEST_PARTS))
    own = np.full(len(labels), -1)
    own[places[np.argsort(labels[places], kind="stable")]] = np.arange(len(places)) % max(parts, 1)
    return own


def score_left_out(
    regression: Regression,
    features: Float[np.ndarray, "example feature"],
    labels: Int[np.ndarray, "example"],
    parts: Int[np.ndarray, "example"],
    strength: float,
) -> Float[np.ndarray, "example way"]:
    """Return the scores of each example by the refit that has left it out; zeros for the part −1.

    Args:
      features, labels, strength: what the classifier was fitted to.
      parts: as `share_out` gives them.
    """
    inputs, ways = extend(features) @ regression.basis, regression.kernel.shape[1]
    scores = np.zeros((len(labels), ways), np.float32)
    numbers = range(int(parts.max(initial=-1)) + 1)
    if not numbers:
        return scores
    weights = np.stack([balance(labels, parts != number, ways) for number in numbers])
    full = balance(labels, np.ones(len(labels), bool), ways)
    squares = (np.square(inputs) * full[:, None]).sum(axis=0)  # the basis makes XᵀwX a diagonal of these
    bound = (squares / 2 * (weights / full[None]).max()).astype(np.float32)
    at_once = max(1, min(len(weights), ENTRIES // max(1, len(labels) * ways)))
    start = regression.coefficients.astype(np.float32)
    arguments = (inputs, labels.astype(np.int32), weights, bound, np.float32(strength), start)
    refits = np.asarray(solve_all(*arguments, at_once=at_once))
    for number in numbers:
        scores[parts == number] = inputs[parts == number] @ refits[number]
    return scores


@functools.partial(jax.jit, static_argnames="at_once")
def solve_all(inputs, labels, weights, bound, strength, start, at_once: int):
    """Return the solutions [refit, direction, way] for weights [refit, example].

    Args:
      inputs: [example, direction], in a basis in which ½·XᵀwX is below the diagonal `bound`, for all the weights.
      start: [direction, way].
      at_once: refits that are solved side by side.
    """
    targets = jax.nn.one_hot(labels, start.shape[1], dtype=inputs.dtype)
    tolerance = TOLERANCE * max(1.0, len(labels) / 100)

    def solve(own):
        def slope(kernel):
            gap = jax.nn.softmax(inputs @ kernel) - targets
            return inputs.T @ (own[:, None] * gap) + strength * kernel

        def is_unfinished(state):
            *_, steps, steepest = state
            return (steps < LIMIT) & (steepest > tolerance)

        def advance(state):
            kernel, ahead, momentum, steps, _ = state
            gradient = slope(ahead)
            new = ahead - gradient / (bound + strength)[:, None]
            is_uphill = (gradient * (new - kernel)).sum() > 0
            later = jnp.where(is_uphill, 1.0, (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2)
            carried = jnp.where(is_uphill, 0.0, (momentum - 1) / later)
            return new, new + carried * (new - kernel), later, steps + 1, jnp.abs(gradient).max()

        first = (start, start, jnp.ones(()), jnp.zeros((), jnp.int32), jnp.full((), jnp.inf))
        return jax.lax.while_loop(is_unfinished, advance, first)[0]

    return jax.lax.map(solve, weights, batch_size=at_once)
