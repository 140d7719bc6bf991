"""The implicit gradient against its closed form on a quadratic, and against a long unrolled inner loop; its memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, compiled, gradients
from metarun import base
from metarun.algorithms import imaml, maml
from metarun.base import Episode, Examples, Weights

KEY = jax.random.key(0)  # the outer loss uses no random numbers
PROXIMITY = 0.7  # λ


def linear_model() -> base.Model:
    """f(x) = x·θ: every loss is a quadratic in θ."""

    def apply(params, inputs, *, condition=None, reference=None):
        return inputs @ params

    return base.Model(lambda key, inputs: jnp.zeros((inputs.shape[1], 1)), apply, apply)


def random_examples(seed: int, count: int, features: int = 4) -> Examples:
    generator = np.random.default_rng(seed)
    return Examples(generator.standard_normal((count, features)), generator.standard_normal((count, 1)))


def on_device(*parts: Examples) -> Episode:
    return jax.tree.map(jax.device_put, Episode(*parts))


def gradient(algorithm: base.Algorithm, start, episode: Episode):
    return jax.jit(jax.grad(lambda start: algorithm.loss(Weights(start), episode, KEY, 0.0)[0]))(start)


class Quadratic:
    """A support and a query of a linear model; H = 2XᵀX/n."""

    support, query = random_examples(0, 6), random_examples(1, 5)
    start = np.random.default_rng(2).standard_normal((4, 1))
    hessian = 2 * support.inputs.T @ support.inputs / 6

    def solution(self):
        """φ* of (H + λI) φ* = 2Xᵀy/n + λθ."""
        right = 2 * self.support.inputs.T @ self.support.targets / 6 + PROXIMITY * self.start
        return np.linalg.solve(self.hessian + PROXIMITY * np.eye(4), right)

    def outer_gradient(self, damping: float = 0.0):
        """((1 + d)I + H/λ)⁻¹ ∇L_Q(φ*)."""
        left = self.query.inputs @ self.solution() - self.query.targets
        slope = 2 * self.query.inputs.T @ left / 5
        return np.linalg.solve((1 + damping) * np.eye(4) + self.hessian / PROXIMITY, slope)


def exactly(**options) -> base.Algorithm:
    """Both solvers run until they are done."""
    given = {
        "inner_steps": 3000,
        "inner_lr": 0.1,
        "tolerance": 1e-12,
        "cg_steps": 20,
        "cg_tolerance": 1e-12,
        "proximity": PROXIMITY,
    }
    config = imaml.Config(**{**given, **options})
    algorithm = imaml.build(config, linear_model(), builders.regression_problem(4))
    return compiled.compile_algorithm(algorithm)


@pytest.mark.parametrize(("damping", "solver"), [(0.0, "searched"), (1.0, "searched"), (0.0, "hessian_free")])
def test_on_a_quadratic_learner_and_gradient_have_their_closed_form(damping, solver):
    with gradients.float64():
        problem, algorithm = Quadratic(), exactly(damping=damping, solver=solver)
        start, episode = jax.device_put(problem.start), on_device(problem.support, problem.query)
        learner = algorithm.adapt(Weights(start), episode.support)
        np.testing.assert_allclose(learner.params, problem.solution(), atol=1e-10)
        found = gradient(algorithm, start, episode)
        np.testing.assert_allclose(found, problem.outer_gradient(damping), atol=1e-9)


def test_in_single_precision_the_gradient_on_a_quadratic_is_exact_to_1e_5():
    problem = Quadratic()
    start, episode = jnp.float32(problem.start), on_device(problem.support, problem.query)
    found = gradient(exactly(tolerance=1e-6, cg_tolerance=1e-7), start, episode)
    np.testing.assert_allclose(found, problem.outer_gradient(), atol=1e-5)


def test_the_gradient_is_that_of_differences_of_the_solved_problem_of_a_network():
    with gradients.float64():
        model = builders.build_model(
            "mlp", builders.regression_problem(4).spec, hidden=(3,), activation="tanh"
        )
        options = {"inner_steps": 4000, "tolerance": 1e-11, "cg_steps": 30, "cg_tolerance": 1e-12}
        config = imaml.Config(inner_lr=0.1, proximity=2.0, **options)
        algorithm = imaml.build(config, model, builders.regression_problem(4))
        episode = on_device(random_examples(0, 6), random_examples(1, 5))
        start = gradients.to_float64(jax.jit(model.init)(KEY, episode.support.inputs))

        def outer(start):
            return algorithm.loss(Weights(start), episode, KEY, 0.0)[0]

        gradients.assert_gradient_is_that_of_differences(outer, start)


def test_the_solver_stops_at_the_tolerance_and_says_how_far_it_is():
    with gradients.float64():
        problem = Quadratic()
        start, episode = jax.device_put(problem.start), on_device(problem.support, problem.query)

        def left(**options):
            return float(exactly(**options).loss(Weights(start), episode, KEY, 0.0)[1]["inner_gradient_norm"])

        assert 1e-5 < left(tolerance=1e-3) <= 1e-3
        assert left(inner_steps=2) > 1e-2


def test_a_first_rate_far_too_large_is_shortened_until_the_problem_is_solved():
    with gradients.float64():
        problem = Quadratic()
        support = jax.tree.map(jax.device_put, problem.support)
        learner = exactly(inner_lr=1e4).adapt(Weights(jax.device_put(problem.start)), support)
        np.testing.assert_allclose(learner.params, problem.solution(), atol=1e-10)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("options", [{"cg_steps": 1}, {"cg_tolerance": 0.5}], ids=str)
def test_conjugate_gradients_stop_after_their_steps_or_at_their_tolerance(options):
    """The first step is that of steepest descent: s·(sᵀs)/(sᵀAs), for the query gradient s and the matrix A."""
    problem, algorithm = Quadratic(), exactly(**options)
    episode = on_device(problem.support, problem.query)
    matrix = np.eye(4) + problem.hessian / PROXIMITY
    slope = matrix @ problem.outer_gradient()
    step = slope * (slope.T @ slope) / (slope.T @ matrix @ slope)
    assert np.linalg.norm(slope - matrix @ step) < 0.5 * np.linalg.norm(slope)
    found = gradient(algorithm, jax.device_put(problem.start), episode)
    np.testing.assert_allclose(found, step, rtol=1e-8)


def test_one_newton_step_solves_a_quadratic_of_as_many_unknowns_as_steps_of_conjugate_gradients():
    with gradients.float64():
        problem, algorithm = Quadratic(), exactly(solver="hessian_free", inner_steps=1, cg_steps=4)
        support = jax.tree.map(jax.device_put, problem.support)
        learner = algorithm.adapt(Weights(jax.device_put(problem.start)), support)
        np.testing.assert_allclose(learner.params, problem.solution(), atol=1e-10)


@pytest.mark.usefixtures("in_float64")
def test_a_newton_step_leads_downhill_where_the_curvature_is_negative():
    """From the slope (1, 1) of diag(−1, 2): its own curvature is positive, that of the second direction is not."""
    curvatures, slope = np.array([-1.0, 2.0]), np.ones(2)

    @functools.partial(jax.jit, static_argnums=1)
    def find(curvatures, steps):
        config = imaml.Config(solver="hessian_free", cg_steps=steps)
        return imaml.find_newton_step(
            config, lambda params: curvatures * params, jnp.zeros(2), jax.device_put(slope)
        )

    # The first step of conjugate gradients is gᵀg/gᵀAg = 2; if it does not exist either, the slope itself is taken.
    np.testing.assert_allclose(find(curvatures, 3), 2 * slope)
    np.testing.assert_allclose(find(-np.abs(curvatures), 3), slope)


def descend_by_hand(problem: Quadratic, steps: int, proximity: float) -> np.ndarray:
    """Steps of rate 0.1 on L_S, and one on the proximal term."""
    params = problem.start
    for _ in range(steps):
        left = problem.support.inputs @ params - problem.support.targets
        params = params - 0.1 * 2 * problem.support.inputs.T @ left / 6
    return params - 0.1 * proximity * (params - problem.start)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("test_proximity", [True, False])
def test_the_authors_solver_takes_fixed_steps_and_then_one_of_the_proximal_term(test_proximity):
    problem = Quadratic()
    options = {"damping": 1.0, "curvature_damping": 10.0, "test_proximity": test_proximity}
    algorithm = exactly(solver="fixed", inner_steps=5, **options)
    start, episode = jax.device_put(problem.start), on_device(problem.support, problem.query)
    reached = descend_by_hand(problem, 5, PROXIMITY)
    learner = algorithm.adapt(Weights(start), episode.support)
    expected = reached if test_proximity else descend_by_hand(problem, 5, 0.0)
    np.testing.assert_allclose(learner.params, expected, rtol=1e-12)
    slope = 2 * problem.query.inputs.T @ (problem.query.inputs @ reached - problem.query.targets) / 5
    matrix = 2 * np.eye(4) + problem.hessian / (PROXIMITY + 10)
    np.testing.assert_allclose(gradient(algorithm, start, episode), np.linalg.solve(matrix, slope), atol=1e-9)


def test_without_proximity_at_test_time_the_searched_descent_ends_at_least_squares():
    with gradients.float64():
        problem = Quadratic()
        support = jax.tree.map(jax.device_put, problem.support)
        learner = exactly(test_proximity=False).adapt(Weights(jax.device_put(problem.start)), support)
        expected = np.linalg.lstsq(problem.support.inputs, problem.support.targets)[0]
        np.testing.assert_allclose(learner.params, expected, atol=1e-9)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("solver", ["fixed", "hessian_free"])
def test_the_curve_of_one_adaptation_is_that_of_as_many_adaptations(solver):
    problem, counts = Quadratic(), (0, 1, 3)
    start, support = jax.device_put(problem.start), jax.tree.map(jax.device_put, problem.support)
    points = base.Points(counts, lambda learner: learner.params)
    options = {"solver": solver, "cg_steps": 1}
    watched = jax.jit(lambda start: exactly(**options).watch(Weights(start), support, points))(start)
    alone = [exactly(inner_steps=count, **options).adapt(Weights(start), support).params for count in counts]
    np.testing.assert_allclose(watched, np.stack(alone), rtol=1e-12)


def test_without_inner_steps_nothing_is_adapted():
    with gradients.float64():
        problem = Quadratic()
        support = jax.tree.map(jax.device_put, problem.support)
        learner = exactly(inner_steps=0).adapt(Weights(jax.device_put(problem.start)), support)
        np.testing.assert_array_equal(learner.params, problem.start)


def peak_bytes(module, steps: int, **options) -> int:
    """Working memory of the compiled outer gradient."""
    problem = builders.regression_problem(16)
    model = builders.build_model("mlp", problem.spec, hidden=(32, 32))
    algorithm = module.build(module.Config(inner_steps=steps, **options), model, problem)
    episode = jax.tree.map(jnp.float32, Episode(random_examples(0, 64, 16), random_examples(1, 64, 16)))
    params = jax.eval_shape(model.init, KEY, episode.support.inputs)
    outer = jax.jit(jax.grad(lambda params: algorithm.loss(Weights(params), episode, KEY, 0.0)[0]))
    return outer.lower(params).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_does_not_grow_with_the_inner_steps_while_that_of_maml_does():
    implicit = [peak_bytes(imaml, steps) for steps in (5, 50)]
    through = [peak_bytes(maml, steps, loop="scan") for steps in (5, 50)]
    assert implicit[1] == implicit[0]
    assert through[1] > 3 * through[0]
