"""Pre-training and what adapts it: each against an independent solution, and the stages that they name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from helpers import builders, gradients, trees
from metarun import base, errors
from metarun.algorithms import centroid, finetune, logistic

KEY = jax.random.key(0)


class Case:
    """A pre-training stage on a family, and an algorithm on top of it."""

    def __init__(self, name: str, family: base.TaskFamily, **options) -> None:
        self.family, self.episode = family, family.sample((), KEY)
        self.model = builders.build_model("mlp", family.problem.spec)
        first = builders.build_algorithm("pretrain", self.model, family.problem)
        episodes = jax.tree.map(lambda leaf: leaf[None], self.episode)
        self.before = jax.jit(first.init)(KEY, episodes, {})
        self.algorithm = builders.build_algorithm(name, self.model, family.problem, **options)
        self.weights = jax.jit(self.algorithm.init)(KEY, episodes, {"pretrain": self.before})

    def features(self, part: base.Examples):
        return np.asarray(self.model.embed(self.before.trained["body"], part.inputs))

    def predict(self):
        learner = jax.jit(self.algorithm.adapt)(self.weights, self.episode.support)
        return jax.jit(self.algorithm.predict)(learner, self.episode.query.inputs)


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_logistic_finds_the_minimum_that_scipy_finds(strength):
    generator = np.random.default_rng(0)
    features, labels = generator.standard_normal((12, 5)), np.arange(12, dtype=np.int32) % 3

    def objective(flat):
        kernel, bias = flat[:15].reshape(5, 3), flat[15:]
        scores = features @ kernel + bias
        return (special.logsumexp(scores, axis=1) - scores[np.arange(12), labels]).sum() + strength / 2 * (
            kernel**2
        ).sum()

    expected = optimize.minimize(objective, np.zeros(18), tol=1e-10)
    with gradients.float64():
        config = logistic.Config(strength=strength, tolerance=1e-8)
        found = logistic.fit(config, jnp.asarray(features), jnp.asarray(labels), 3)
    np.testing.assert_allclose(found["kernel"], expected.x[:15].reshape(5, 3), atol=1e-4)
    bias = np.asarray(found["bias"])
    np.testing.assert_allclose(bias - bias.mean(), expected.x[15:] - expected.x[15:].mean(), atol=1e-4)


def fit_logistic(**options):
    """Return the classifier of three separable classes, and the largest entry of the problem's gradient there."""
    generator = np.random.default_rng(0)
    features, labels = jnp.asarray(generator.standard_normal((12, 5)), jnp.float32), jnp.arange(12) % 3
    classifier = logistic.fit(logistic.Config(strength=0.1, **options), features, labels, 3)

    def objective(classifier):
        scores = features @ classifier["kernel"] + classifier["bias"][None]
        misfit = (jax.nn.logsumexp(scores, axis=1) - scores[jnp.arange(12), labels]).sum()
        return misfit + 0.05 * jnp.square(classifier["kernel"]).sum()

    slopes = jax.tree.leaves(jax.grad(objective)(classifier))
    return classifier, max(float(jnp.abs(slope).max()) for slope in slopes)


def test_logistic_stops_at_its_tolerance_or_at_its_limit():
    assert fit_logistic(tolerance=1e-3)[1] <= 1e-3
    (loose, steepest), (short, _) = fit_logistic(tolerance=1e6), fit_logistic(limit=1)
    trees.assert_equal(loose, short)
    assert steepest > 1e-1


@pytest.mark.parametrize("unit_length", [True, False])
def test_logistic_divides_features_by_their_norm_or_does_not(unit_length):
    case = Case("logistic", builders.blobs(), unit_length=unit_length)
    support, query = (case.features(part) for part in (case.episode.support, case.episode.query))
    if unit_length:
        support, query = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (support, query))
    labels = case.episode.support.targets
    classifier = jax.tree.map(np.asarray, logistic.fit(logistic.Config(), jnp.asarray(support), labels, 3))
    expected = query @ classifier["kernel"] + classifier["bias"]
    np.testing.assert_allclose(case.predict(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("transform", ["none", "unit"])
def test_centroid_answers_with_the_distances_to_the_class_means(transform):
    case = Case("centroid", builders.blobs(), transform=transform)
    support, query = (case.features(part) for part in (case.episode.support, case.episode.query))
    if transform == "unit":
        support, query = (
            part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (support, query)
        )
    labels = np.asarray(case.episode.support.targets)
    means = np.stack([support[labels == way].mean(axis=0) for way in range(3)])
    expected = -((query[:, None] - means[None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(case.predict(), expected, rtol=1e-4, atol=1e-5)


def test_centred_features_have_the_mean_of_the_training_episodes_taken_off():
    case = Case("centroid", builders.blobs())
    np.testing.assert_allclose(
        case.weights.frozen["mean"], case.features(case.episode.support).mean(axis=0), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("adapts", ["head", "all"])
def test_finetune_descends_the_support_loss_from_the_pretrained_network(adapts):
    family = builders.build_task("sinusoid", shots=6, queries=5)
    case = Case("finetune", family, adapts=adapts, inner_steps=2, inner_lr=0.1, inner_optimizer="sgd")
    inputs, targets = case.episode.support
    params = {name: case.before.trained[name] for name in ("body", "head")}

    def loss(params):
        outputs = (
            case.model.embed(params["body"], inputs) @ params["head"]["kernel"] + params["head"]["bias"][None]
        )
        return jnp.mean((outputs - targets) ** 2)

    for _ in range(2):
        slope = jax.grad(loss)(params)
        moving = ("head",) if adapts == "head" else ("head", "body")
        params = params | {
            name: jax.tree.map(lambda leaf, step: leaf - 0.1 * step, params[name], slope[name])
            for name in moving
        }
    learner = case.algorithm.adapt(case.weights, case.episode.support)
    trees.assert_close({"body": learner.body, "head": learner.head}, params, rtol=1e-4, atol=1e-6)


def test_finetune_moves_along_the_direction_of_its_optimizer():
    """With momentum 0.9 the second step also takes 0.9 of the first one's gradient."""
    family = builders.build_task("sinusoid", shots=6, queries=5)
    case = Case("finetune", family, inner_steps=2, inner_lr=0.1, inner_optimizer="momentum")
    features, targets = case.features(case.episode.support), case.episode.support.targets
    head, direction = case.before.trained["head"], None

    def loss(head):
        return jnp.mean((features @ head["kernel"] + head["bias"][None] - targets) ** 2)

    for _ in range(2):
        slope = jax.grad(loss)(head)
        direction = slope if direction is None else jax.tree.map(lambda d, s: 0.9 * d + s, direction, slope)
        head = jax.tree.map(lambda leaf, step: leaf - 0.1 * step, head, direction)
    learner = case.algorithm.adapt(case.weights, case.episode.support)
    trees.assert_close(learner.head, head, rtol=1e-4, atol=1e-6)


def test_finetune_without_steps_is_the_pretrained_network_and_knows_no_class():
    family = builders.build_task("sinusoid", shots=6, queries=5)
    case = Case("finetune", family, inner_steps=0)
    first = builders.build_algorithm("pretrain", case.model, family.problem)
    expected = first.predict(first.adapt(case.before, case.episode.support), case.episode.query.inputs)
    trees.assert_close(case.predict(), expected)
    assert not np.any(Case("finetune", builders.blobs(), inner_steps=0).predict())


def test_pretrain_tells_all_training_classes_apart():
    case = Case("centroid", builders.blobs(classes=20))
    body, head = case.before.trained["body"], jax.tree.map(np.asarray, case.before.trained["head"])
    assert head["kernel"].shape == (8, 20)
    part = jax.tree.map(lambda a, b: np.concatenate([a, b]), case.episode.support, case.episode.query)
    scores = np.asarray(case.model.embed(body, part.inputs)) @ head["kernel"] + head["bias"]
    classes = np.asarray(case.episode.facts["class"])[part.targets]
    expected = np.mean(
        special.logsumexp(scores, axis=1) - np.asarray(scores)[np.arange(len(classes)), classes]
    )
    algorithm = builders.build_algorithm("pretrain", case.model, case.family.problem)
    np.testing.assert_allclose(algorithm.loss(case.before, case.episode, KEY, 0.0)[0], expected, rtol=1e-5)


def test_a_family_that_does_not_number_its_classes_is_refused_by_pretrain():
    family = builders.blobs()
    model = builders.build_model("mlp", family.problem.spec)
    with pytest.raises(ValueError, match="does not number"):
        builders.build_algorithm("pretrain", model, family.problem._replace(training_classes=None))


@pytest.mark.parametrize("module", [finetune, logistic, centroid])
def test_a_stage_that_is_not_there_is_refused_with_those_that_are(module):
    family = builders.blobs()
    model = builders.build_model("mlp", family.problem.spec)
    first = builders.build_algorithm("pretrain", model, family.problem)
    with pytest.raises(ValueError, match="base") as raised:
        module.build(module.Config(pretrained="base"), model, family.problem, {"first": first})
    assert "first" in raised.value.args[1]


@pytest.mark.parametrize("module", [logistic, centroid])
def test_a_regression_is_refused_where_classes_are_needed(module):
    family = builders.build_task("sinusoid")
    model = builders.build_model("mlp", family.problem.spec)
    with pytest.raises(ValueError, match="classes"):
        module.build(module.Config(), model, family.problem, {})


def test_another_model_than_that_of_the_earlier_stage_is_refused():
    case = Case("centroid", builders.blobs())
    wider = builders.build_model("mlp", case.family.problem.spec, hidden=(9, 8))
    algorithm = builders.build_algorithm("centroid", wider, case.family.problem)
    episodes = jax.tree.map(lambda leaf: leaf[None], case.episode)
    with pytest.raises(errors.ConfigError) as raised:
        algorithm.init(KEY, episodes, {"pretrain": case.before})
    assert raised.value.where == "algorithm.pretrained"


def test_a_stage_with_copies_is_no_start_and_that_is_said():
    case = Case("centroid", builders.blobs())
    episodes = jax.tree.map(lambda leaf: leaf[None], case.episode)
    copies = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), case.before)
    with pytest.raises(errors.ConfigError, match="has copies"):
        case.algorithm.init(KEY, episodes, {"pretrain": copies})


def test_the_body_of_a_meta_trained_stage_serves_as_well():
    case = Case("centroid", builders.blobs())
    params = case.model.init(KEY, case.episode.support.inputs)
    episodes = jax.tree.map(lambda leaf: leaf[None], case.episode)
    for trained in (params, {"params": params, "rates": ()}):
        body = case.algorithm.init(KEY, episodes, {"pretrain": base.Weights(trained)}).frozen["body"]
        trees.assert_equal(body, {name: part for name, part in params.items() if name != "head"})


@pytest.mark.parametrize(("rotations", "copies"), [("random", 4), ("classes", 4), ("none", 1)])
def test_omniglot_numbers_its_training_classes(rotations, copies):
    family = builders.build_task("omniglot", rotations=rotations, size=8)
    assert family.problem.training_classes == 1100 * copies
    keys = jax.random.split(KEY, 300)
    facts = jax.jit(jax.vmap(family.sample, in_axes=(None, 0)))(family.data["train"], keys).facts
    named = np.stack([np.asarray(facts[name]).ravel() for name in ("class", "character", "quarter_turns")])
    assert named[0].min() >= 0
    assert named[0].max() < family.problem.training_classes
    pairs = np.unique(named[1:] if copies == 4 else named[1:2], axis=1).shape[1]
    assert (
        len(np.unique(named[0])) == pairs == np.unique(named if copies == 4 else named[:2], axis=1).shape[1]
    )
