"""Vectors of tasks against closed forms and independent computations, and every source of them by its contract."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, compiled
from metarun import base, errors, losses
from metarun.algorithms import task_embedding
from metarun.algorithms.task_embedding import (
    collaborative_filter,
    fitted_source,
    long_vectors,
    solver_network,
    task_encoder,
    vector_reduction,
)

KEY = jax.random.key(0)
TASKS = 24
FAMILIES = {
    "regression": lambda: builders.build_task("mixture", shots=6, queries=6),
    "classification": builders.blobs,
}
SOURCES = ("gradient", "fisher", "adapted", "prototype", "collaborative", "variational", "adversarial")
SMALL: dict[str, Any] = {"dimensions": 3, "width": 8, "depth": 2, "probes": 6, "observed": 4}
every_source = pytest.mark.parametrize(
    ("source", "family"), [(source, family) for source in SOURCES for family in FAMILIES]
)


class Solved:
    """A family with some tasks, and a small perceptron for it that MAML has not yet trained."""

    def __init__(self, family: str) -> None:
        self.family = FAMILIES[family]()
        self.model = builders.build_model("mlp", self.family.problem.spec)
        solver = builders.build_algorithm("maml", self.model, self.family.problem)
        self.solver = compiled.compile_algorithm(solver)
        self.episodes = compiled.sample(self.family, KEY, TASKS)
        self.base = self.solver.init(jax.random.key(1), self.episodes, {})


make_solved = functools.cache(Solved)


class Case:
    """A source on such a perceptron."""

    def __init__(self, family: str, **options: Any) -> None:
        solved = make_solved(family)
        self.family, self.model, self.solver = solved.family, solved.model, solved.solver
        self.episodes, self.base = solved.episodes, solved.base
        self.algorithm = build(self, **options)
        self.weights = self.algorithm.init(KEY, self.episodes, {"maml": self.base})

    def support(self, task: int) -> base.Examples:
        return compiled.select(self.episodes, task).support

    @functools.cached_property
    def vectors(self) -> np.ndarray:
        """[task, embed]."""
        adapt = jax.vmap(self.algorithm.adapt, in_axes=(None, 0))
        return np.asarray(jax.jit(adapt)(self.weights, self.episodes.support).embedding)

    def embed(self, support: base.Examples) -> np.ndarray:
        """[embed], of one task."""
        return np.asarray(self.algorithm.adapt(self.weights, support).embedding)


@functools.cache
def make_case(family: str, **options: Any) -> Case:
    return Case(family, **options)


def build(case: Case, **options: Any) -> base.Algorithm:
    """Build the algorithm of these options on the earlier stage of a case."""
    config = task_embedding.Config(**(SMALL | options))
    algorithm = task_embedding.build(config, case.model, case.family.problem, {"maml": case.solver})
    return compiled.compile_algorithm(algorithm)


# Every source


@every_source
def test_the_vector_has_the_dimensions_asked_for_and_differs_between_tasks(source, family):
    vectors = make_case(family, source=source).vectors
    assert vectors.shape == (TASKS, 3)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert (vectors.std(axis=0) > 0).all()


@every_source
def test_under_vmap_a_task_has_the_vector_that_it_has_alone(source, family):
    case = make_case(family, source=source)
    np.testing.assert_allclose(case.vectors[5], case.embed(case.support(5)), rtol=2e-3, atol=1e-4)


@every_source
def test_the_vector_does_not_depend_on_the_order_of_the_examples(source, family):
    case = make_case(family, source=source)
    support = case.support(2)
    order = np.random.default_rng(0).permutation(len(support.targets))
    left, right = (case.embed(part) for part in (support, compiled.select(support, order)))
    np.testing.assert_allclose(left, right, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("source", SOURCES)
def test_in_a_classification_the_vector_does_not_depend_on_which_class_has_which_label(source):
    case = make_case("classification", source=source)
    support = case.support(2)
    renamed = support._replace(targets=(support.targets + 1) % case.family.problem.spec.ways)
    left, right = (case.embed(part) for part in (support, renamed))
    np.testing.assert_allclose(left, right, rtol=2e-3, atol=1e-4)


@every_source
def test_the_loss_is_finite_and_every_trained_leaf_has_a_gradient(source, family):
    case = make_case(family, source=source)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def value_and_gradient(trained, frozen, episode):
        return case.algorithm.loss(base.Weights(trained, frozen), episode, KEY, 0.0)

    (loss, metrics), slopes = value_and_gradient(
        case.weights.trained, case.weights.frozen, compiled.select(case.episodes, 0)
    )
    assert all(np.isfinite(value) for value in (loss, *metrics.values()))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes))
    assert bool(case.weights.trained) == (source in task_embedding.ENCODERS)


@pytest.mark.parametrize("source", ["gradient", "collaborative"])
def test_a_source_that_trains_nothing_answers_as_the_earlier_stage_does(source):
    case = make_case("regression", source=source)
    support, query = case.support(0), compiled.select(case.episodes, 0).query
    answers = [
        compiled.answer(algorithm, weights, support, query.inputs)
        for algorithm, weights in ((case.algorithm, case.weights), (case.solver, case.base))
    ]
    np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-6)


# Sources of long vectors


def test_the_gradient_of_a_line_is_its_closed_form():
    """f(x) = w·x, L = mean (w·x − y)²: ∇L = 2 mean (w·x − y) x."""
    model = base.Model(
        None, lambda params, inputs, *, condition=None, reference=None: inputs @ params["w"], None
    )
    regression = base.Spec((1,), 1, "numbers")
    support = base.Examples(jnp.array([[1.0], [2.0], [-1.0]]), jnp.array([[3.0], [1.0], [0.5]]))
    outputs = solver_network.make_outputs(model, None)

    def loss(params, support):
        return losses.mean_squared_error(outputs(params, support), support.targets)

    adapt = solver_network.make_descent(task_embedding.Config(adapted_steps=1, adapted_lr=0.1), loss)

    @jax.jit
    def compute(params):
        slope = long_vectors.compute_gradient(loss, params, support, "all")
        change = long_vectors.compute_change(adapt, params, support, "all")
        return slope, change, long_vectors.compute_fisher(outputs, params, support, "all", regression)

    slope, change, information = compute({"w": np.float32([[0.5]])})
    errors_ = 0.5 * np.array([1.0, 2.0, -1.0]) - np.array([3.0, 1.0, 0.5])
    np.testing.assert_allclose(slope, [2 * np.mean(errors_ * np.array([1.0, 2.0, -1.0]))], rtol=1e-6)
    np.testing.assert_allclose(change, -0.1 * np.asarray(slope), rtol=1e-6)
    np.testing.assert_allclose(information, [np.mean([1.0, 4.0, 1.0])], rtol=1e-6)


def test_the_fisher_information_of_a_softmax_is_the_mean_square_of_its_scores():
    """Against an independent computation: all labels of all examples, one derivative each, in numpy."""
    generator = np.random.default_rng(0)
    kernel = generator.standard_normal((4, 3)).astype(np.float32)
    inputs = generator.standard_normal((5, 4)).astype(np.float32)
    support = base.Examples(jax.device_put(inputs), np.zeros(5, np.int32))
    information = jax.jit(
        lambda params: long_vectors.compute_fisher(
            lambda params, support: support.inputs @ params["kernel"],
            params,
            support,
            "all",
            base.Spec((4,), 3, "classes"),
        )
    )({"kernel": kernel})
    chances = np.exp(inputs @ kernel)
    chances /= chances.sum(axis=1, keepdims=True)
    expected = np.zeros((4, 3))
    for row, chance in zip(inputs, chances, strict=True):
        for label in range(3):
            score = np.outer(row, np.eye(3)[label] - chance)
            expected += chance[label] * score**2 / len(inputs)
    np.testing.assert_allclose(information, expected.reshape(-1), rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_change_of_the_parameters_is_that_of_as_many_steps_of_this_size(steps):
    case = make_case(
        "regression",
        source="adapted",
        reduction="none",
        scaling="none",
        adapted_steps=steps,
        adapted_lr=0.02,
    )
    support, start = case.support(0), case.base.trained

    @jax.jit
    def slope(params):
        return jax.grad(
            lambda params: losses.mean_squared_error(
                case.model.apply(params, support.inputs), support.targets
            )
        )(params)

    def descend(leaf, gradient):
        return np.asarray(leaf) - np.float32(0.02) * np.asarray(gradient)

    params = start
    for _ in range(steps):
        params = jax.tree.map(descend, params, slope(params))
    change = np.concatenate(
        [leaf.ravel() for leaf in jax.tree.leaves(jax.tree.map(np.subtract, params, start))]
    )
    np.testing.assert_allclose(case.embed(support), change, rtol=1e-3, atol=1e-6)


def test_the_last_layers_gradient_depends_on_labels_and_that_of_class_means_does_not():
    options = {"source": "gradient", "reduction": "none"}
    cases = {head: make_case("classification", head=head, **options) for head in ("own", "means", None)}
    support = cases["own"].support(2)
    renamed = support._replace(targets=(support.targets + 1) % 3)

    def embed(head, support):
        return cases[head].embed(support)

    np.testing.assert_array_equal(embed(None, support), embed("means", support))
    np.testing.assert_allclose(embed("means", renamed), embed("means", support), rtol=2e-3, atol=1e-4)
    assert np.abs(embed("own", renamed) - embed("own", support)).max() > 1e-2


def test_parameters_choose_which_derivatives_are_in_the_vector():
    sizes = {
        parameters: len(
            make_case("regression", source="gradient", reduction="none", parameters=parameters).vectors[0]
        )
        for parameters in ("all", "head", "body")
    }
    assert sizes["head"] == 8 + 1
    assert sizes["all"] == sizes["head"] + sizes["body"]


def test_pooled_features_of_numbers_hold_the_targets():
    model = base.Model(None, None, lambda params, inputs, *, condition=None, reference=None: 2 * inputs)
    support = base.Examples(jnp.array([[1.0], [3.0]]), jnp.array([[4.0], [5.0]]))
    spec = base.Spec((1,), 1, "numbers")
    pooled = jax.jit(lambda support: long_vectors.pool_features(model, {}, support, spec))(support)
    np.testing.assert_allclose(pooled, [4.0, 4.5, (8 + 30) / 2])


def test_scalings_are_what_they_say():
    vector, names = np.float32([3.0, -4.0, 0.0]), ("unit", "logarithm", "none")
    unit, logarithm, none = jax.jit(lambda vector: [long_vectors.scale(vector, name) for name in names])(
        vector
    )
    np.testing.assert_allclose(unit, [0.6, -0.8, 0], rtol=1e-6)
    logarithms = np.sign(vector) * np.log1p(np.abs(vector) / (7 / 3))
    np.testing.assert_allclose(logarithm, logarithms, rtol=1e-6)
    np.testing.assert_array_equal(none, vector)


# PCA and k-means


def points(tasks: int = 40, features: int = 100) -> np.ndarray:
    """Tasks in a few directions that matter, with falling variance."""
    generator = np.random.default_rng(0)
    scales = 10.0 / (1 + np.arange(features)) ** 2
    mixing = np.linalg.qr(generator.standard_normal((features, features)))[0]
    return ((generator.standard_normal((tasks, features)) * scales) @ mixing + 5).astype(np.float32)


fit_components = jax.jit(vector_reduction.fit_components, static_argnums=(1, 2, 3))
fit_clusters = jax.jit(vector_reduction.fit_clusters, static_argnums=2)


@pytest.mark.parametrize(("tasks", "features"), [(40, 100), (100, 12)])
def test_components_are_those_of_the_singular_value_decomposition(tasks, features):
    vectors = points(tasks, features)
    components = fit_components(vectors, 4, None, False)
    _, lengths, directions = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    overlaps = np.abs(np.sum(np.asarray(components.directions).T * directions[:4], axis=1))
    np.testing.assert_allclose(overlaps, 1, atol=1e-3)
    np.testing.assert_allclose(components.shares, (lengths**2 / np.sum(lengths**2))[:4], rtol=1e-3)


def test_whitened_components_have_variance_one():
    components = fit_components(points(), 4, None, True)
    projected = jax.jit(jax.vmap(vector_reduction.project, in_axes=(None, 0)))(components, points())
    np.testing.assert_allclose(np.cov(np.asarray(projected).T, bias=True), np.eye(4), atol=1e-2)


def test_whitened_vectors_of_the_training_tasks_have_variance_one():
    vectors = make_case("regression", source="gradient", whiten=True).vectors
    np.testing.assert_allclose(vectors.std(axis=0), 1, rtol=2e-2)


def test_a_small_share_of_variance_leaves_one_component():
    vectors = make_case("regression", source="gradient", variance=0.01).vectors
    assert vectors[:, 0].std() > 0
    np.testing.assert_array_equal(vectors[:, 1:], 0)


def test_a_share_of_variance_keeps_the_fewest_components_that_hold_it_and_zeroes_the_rest():
    vectors = points()
    shares = np.cumsum(fit_components(vectors, 6, None, False).shares)
    wanted = float(shares[1] + shares[2]) / 2  # two components hold less, three hold more
    kept = np.asarray(fit_components(vectors, 6, wanted, False).directions)
    assert np.abs(kept[:, :3]).max(axis=0).all()
    assert not np.abs(kept[:, 3:]).any()


def test_dimensions_that_the_tasks_do_not_have_are_zero():
    components = fit_components(points(tasks=3), 5, None, False)
    lengths = np.linalg.norm(components.directions, axis=0)
    np.testing.assert_allclose(lengths, [1, 1, 0, 0, 0], atol=1e-4)


def test_kmeans_finds_clusters_that_lie_apart():
    centres = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    generator = np.random.default_rng(0)
    owner = np.repeat(np.arange(3), 30)
    vectors = (centres[owner] + generator.standard_normal((90, 2))).astype(np.float32)
    clusters = fit_clusters(KEY, vectors, 3)
    means = np.stack([vectors[owner == index].mean(axis=0) for index in range(3)])
    found = np.asarray(clusters.centres)
    nearest = np.linalg.norm(means[:, None] - found[None], axis=-1).argmin(axis=1)
    np.testing.assert_allclose(found[nearest], means, atol=1e-4)
    np.testing.assert_allclose(clusters.variance, np.square(vectors - means[owner]).mean(), rtol=1e-4)


def test_coordinates_that_no_task_has_do_not_make_a_membership_sharper():
    vectors = np.random.default_rng(1).standard_normal((20, 3)).astype(np.float32)
    padded = np.pad(vectors, ((0, 0), (0, 5)))
    found, plain = (fit_clusters(KEY, some, 4) for some in (padded, vectors))
    np.testing.assert_allclose(found.variance, plain.variance, rtol=1e-6)


def test_membership_is_one_hot_or_the_posterior_of_normal_distributions():
    clusters = vector_reduction.Clusters(jnp.array([[0.0], [2.0]]), jnp.array(0.5))
    membership = jax.jit(vector_reduction.compute_membership, static_argnames="hard")
    vector = jnp.array([0.5])
    np.testing.assert_array_equal(membership(clusters, vector, hard=True), [1, 0])
    densities = np.exp(-(np.array([0.5, 1.5]) ** 2) / (2 * 0.5))
    soft = membership(clusters, vector, hard=False)
    np.testing.assert_allclose(soft, densities / densities.sum(), rtol=1e-6)


@pytest.mark.parametrize("membership", ["soft", "hard"])
def test_the_learner_holds_its_membership_in_the_clusters(membership):
    case = make_case("regression", source="gradient", clusters=4, membership=membership)
    cluster = case.algorithm.adapt(case.weights, case.support(0)).cluster
    assert cluster.shape == (4,)
    np.testing.assert_allclose(np.sum(cluster), 1, rtol=1e-5)
    assert (
        make_case("regression", source="gradient").algorithm.adapt(case.weights, case.support(0)).cluster
        is None
    )


@pytest.mark.parametrize("source", ["gradient", "collaborative"])
def test_the_learner_holds_what_the_vectors_of_the_fit_are_like_if_it_is_asked_to(source):
    plain = make_case("regression", source=source, clusters=4)
    case = make_case("regression", source=source, clusters=4, statistics=True)
    fit = case.algorithm.adapt(case.weights, case.support(0)).fit
    np.testing.assert_allclose(fit.mean, case.vectors.mean(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(fit.deviation, case.vectors.std(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(fit.centres, case.weights.frozen["clusters"].centres)
    other = plain.algorithm.adapt(plain.weights, case.support(0)).fit
    assert other.mean is other.deviation is None and "statistics" not in plain.weights.frozen


# Collaborative


def test_a_matrix_of_low_rank_is_recovered_where_nothing_was_observed():
    generator = np.random.default_rng(0)
    tasks, probes = generator.standard_normal((80, 3)), generator.standard_normal((30, 3))
    scores = (tasks @ probes.T + np.arange(30)).astype(np.float32)

    @jax.jit
    def complete(scores):
        observed = collaborative_filter.draw_observed(KEY, 80, 30, 15)
        hidden = jnp.where(observed > 0, scores, 1e6)  # what is hidden must not matter
        factors = collaborative_filter.factorise(KEY, hidden, observed, 3, 1e-3)
        rows = jax.vmap(collaborative_filter.solve, in_axes=(None, 0, 0, None))
        vectors = rows(factors.probes, (scores - factors.means[None]) / factors.deviation, observed, 1e-3)
        return vectors @ factors.probes.T * factors.deviation + factors.means[None], observed

    completed, observed = map(np.asarray, complete(scores))
    np.testing.assert_array_equal(observed.sum(axis=1), 15)
    missed = np.sqrt(np.mean(np.square(completed - scores)[observed == 0]))
    assert missed < 0.3  # of scores whose deviation is about 1.7: the means of what is observed are not exact


def test_a_new_task_is_placed_by_its_first_scores():
    """Ridge regression on the factors of the observed probes, by numpy."""
    generator = np.random.default_rng(0)
    probes = generator.standard_normal((10, 3)).astype(np.float32)
    factors = collaborative_filter.Factors(jax.device_put(probes), jnp.full(10, 2.0), jnp.array(4.0))
    scores = generator.standard_normal(6).astype(np.float32)
    matrix = probes[:6].T @ probes[:6] + 0.5 * np.eye(3)
    expected = np.linalg.solve(matrix, probes[:6].T @ ((scores - 2) / 4))
    found = jax.jit(collaborative_filter.place, static_argnums=2)(factors, scores, 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_task_is_scored_by_the_first_observed_probes_alone():
    case = make_case("regression", source="collaborative")
    frozen, support = case.weights.frozen, case.support(0)
    assert {len(leaf) for leaf in jax.tree.leaves(frozen["probes"])} == {6}

    @jax.jit
    def embed_without(probe):
        probes = jax.tree.map(lambda leaf: leaf.at[probe].set(0), frozen["probes"])
        return case.algorithm.adapt(base.Weights((), frozen | {"probes": probes}), support).embedding

    np.testing.assert_array_equal(embed_without(4), embed_without(5))
    assert np.abs(embed_without(3) - embed_without(5)).max() > 1e-3


def test_four_times_the_probes_do_not_need_four_times_the_memory():
    family = builders.build_task("mixture", shots=100, queries=1)
    model = builders.build_model("mlp", family.problem.spec)
    solver = builders.build_algorithm("maml", model, family.problem)
    episodes = compiled.sample(family, KEY, 64)
    earlier = {"maml": solver.init(KEY, episodes, {})}

    def measure_memory(probes: int) -> int:
        config = task_embedding.Config(source="collaborative", probes=probes, observed=4)
        algorithm = task_embedding.build(config, model, family.problem, {"maml": solver})
        program = jax.jit(lambda episodes: algorithm.init(KEY, episodes, earlier)).lower(episodes).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert measure_memory(64) < 3 * measure_memory(16)


def test_a_larger_ridge_shrinks_the_vectors():
    case = make_case("regression", source="collaborative")
    stiff = build(case, source="collaborative", ridge=1e3)
    vectors = jax.jit(jax.vmap(stiff.adapt, in_axes=(None, 0)))(case.weights, case.episodes.support).embedding
    plain, shrunk = (np.linalg.norm(rows, axis=1).mean() for rows in (case.vectors, vectors))
    assert plain > 100 * shrunk


# Encoders


def test_the_encoder_and_the_decoder_have_the_depth_and_width_of_the_options():
    case = make_case("regression", source="variational")
    algorithm = build(case, source="variational", width=5, depth=3)
    trained = jax.eval_shape(algorithm.init, KEY, case.episodes, {}).trained
    units = {name: [layer["kernel"].shape[1] for layer in trained[name]] for name in ("encoder", "decoder")}
    assert units == {"encoder": [5, 5, 5], "decoder": [5, 5, 1]}


def test_the_divergence_from_the_prior_is_that_of_its_samples():
    mean, deviation = np.array([0.5, -1.0]), np.array([0.3, 2.0])
    draws = np.random.default_rng(0).standard_normal((400_000, 2)) * deviation + mean

    def log_density(values, centre, width):
        return np.sum(-0.5 * ((values - centre) / width) ** 2 - np.log(width), axis=1)

    sampled = np.mean(log_density(draws, mean, deviation) - log_density(draws, 0, np.ones(2)))
    compute = jax.jit(task_encoder.compute_divergence)
    np.testing.assert_allclose(compute(np.float32(mean), np.float32(deviation)), sampled, rtol=1e-2)
    np.testing.assert_allclose(compute(np.zeros(2, "f"), np.ones(2, "f")), 0, atol=1e-6)


def test_the_discriminator_and_the_encoder_do_not_move_each_other():
    shape = task_encoder.Shape(3, 8, 2, False, None)
    layers = jax.jit(task_encoder.init_discriminator, static_argnums=1)(KEY, shape)
    differentiate = jax.jit(jax.jacrev(lambda *both: task_encoder.contest(*both, KEY), (0, 1)))
    both_slopes = differentiate(layers, np.float32([1.0, -2.0, 0.5]))
    for place, moved, still in ((0, 0, 1), (1, 1, 0)):
        slopes = both_slopes[place]
        assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes[moved]))
        assert not any(np.abs(leaf).any() for leaf in jax.tree.leaves(slopes[still]))


def test_the_bound_is_the_loss_of_all_examples_at_a_drawn_vector_and_a_share_of_the_divergence():
    case = make_case("regression", source="variational", divergence_weight=2.0)
    episode, trained = compiled.select(case.episodes, 0), case.weights.trained
    loss, _ = case.algorithm.loss(case.weights, episode, KEY, 0.0)
    shape = task_encoder.Shape(3, 8, 2, True, None)

    @jax.jit
    def compute(trained, support, inputs):
        mean, deviation = task_encoder.encode(shape, case.model, trained, support)
        drawn = mean + deviation * jax.random.normal(KEY, mean.shape)
        answers = [task_encoder.decode(shape, case.model, trained, drawn, support, some) for some in inputs]
        return answers, task_encoder.compute_divergence(mean, deviation)

    support, query = episode.support, episode.query
    answers, divergence = compute(trained, support, (support.inputs, query.inputs))
    missed = [answer - part.targets for answer, part in zip(answers, (support, query), strict=True)]
    expected = np.mean(np.square(missed)) + 2 * divergence / (6 + 6)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_adversarial_weight_is_that_of_the_encoders_loss():
    case = make_case("regression", source="adversarial")
    algorithms = [build(case, source="adversarial", adversarial_weight=weight) for weight in (0.0, 0.5)]
    shape = task_encoder.Shape(3, 8, 2, False, None)

    @jax.jit
    def compute(weights, episode):
        vector, _ = task_encoder.encode(shape, case.model, weights.trained, episode.support)
        _, encoder_loss = task_encoder.contest(weights.trained["discriminator"], vector, KEY)
        return [algorithm.loss(weights, episode, KEY, 0.0)[0] for algorithm in algorithms], encoder_loss

    (without, half), encoder_loss = compute(case.weights, compiled.select(case.episodes, 0))
    np.testing.assert_allclose(half - without, 0.5 * encoder_loss, rtol=1e-4)


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": "variational", "clusters": 2}, "before the variational encoder is trained"),
        ({"head": "means", "parameters": "head"}, "no parameters of a last layer"),
        ({"probes": 4, "observed": 5}, "5 of 4 probes"),
    ],
)
def test_options_that_exclude_one_another_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        task_embedding.Config(**options)


def test_class_means_of_numbers_and_a_missing_stage_are_refused():
    case = make_case("regression", source="gradient")
    with pytest.raises(ValueError, match="numbers have no class means"):
        task_embedding.build(task_embedding.Config(head="means"), case.model, case.family.problem, {})
    with pytest.raises(ValueError, match="names the stage maml"):
        task_embedding.build(task_embedding.Config(), case.model, case.family.problem, {})


@pytest.mark.parametrize("options", [{"clusters": 30}, {"source": "collaborative", "probes": 30}])
def test_fewer_tasks_than_clusters_or_probes_are_refused(options):
    with pytest.raises(errors.ConfigError, match=r"30 (clusters|probes) need at least 30 training tasks"):
        Case("regression", **options)


def test_one_task_has_no_principal_components():
    with pytest.raises(errors.ConfigError, match="components need at least 2 training tasks"):
        fitted_source.refuse_few(task_embedding.Config(), 1)
    fitted_source.refuse_few(task_embedding.Config(), 2)
    fitted_source.refuse_few(task_embedding.Config(reduction="none"), 1)


def test_a_last_layer_of_another_size_is_refused():
    case = make_case("classification", source="gradient")
    body = {name: part for name, part in case.base.trained.items() if name != "head"}
    with pytest.raises(errors.ConfigError, match="no last layer"):
        inputs = case.support(0).inputs
        solver_network.extract_params("maml", base.Weights(body), case.model, inputs, with_head=True)
