"""Pre-training and what adapts it: each against an independent solution, and the stages that they name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from helpers import builders, compiled, gradients, trees
from metarun import base, errors
from metarun.algorithms import centroid, finetune, logistic, pretrain

KEY = jax.random.key(0)


class Before:
    """A pre-training stage on a family."""

    def __init__(self, family: base.TaskFamily) -> None:
        self.family, self.episodes = family, compiled.sample(family, KEY, 1)
        self.episode = compiled.select(self.episodes, 0)
        self.model = compiled.compile_model(builders.build_model("mlp", family.problem.spec))
        first = builders.build_algorithm("pretrain", self.model, family.problem)
        self.first = compiled.compile_algorithm(first)
        self.weights = self.first.init(KEY, self.episodes, {})


@functools.cache
def blobs(classes: int = 64) -> Before:
    return Before(builders.blobs(classes=classes))


@functools.cache
def sinusoid() -> Before:
    return Before(builders.build_task("sinusoid", shots=6, queries=5))


class Case:
    """An algorithm on top of such a stage."""

    def __init__(self, name: str, before: Before, **options) -> None:
        self.family, self.episode, self.model = before.family, before.episode, before.model
        self.episodes, self.before = before.episodes, before.weights
        algorithm = builders.build_algorithm(name, self.model, self.family.problem, **options)
        self.algorithm = compiled.compile_algorithm(algorithm)
        self.weights = self.algorithm.init(KEY, self.episodes, {"pretrain": self.before})

    def features(self, part: base.Examples):
        return np.asarray(self.model.embed(self.before.trained["body"], part.inputs))

    def predict(self):
        support, inputs = self.episode.support, self.episode.query.inputs
        return np.asarray(compiled.answer(self.algorithm, self.weights, support, inputs))


fit = jax.jit(logistic.fit, static_argnums=(0, 3))


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
        found = fit(config, features, labels, 3)
    np.testing.assert_allclose(found["kernel"], expected.x[:15].reshape(5, 3), atol=1e-4)
    bias = np.asarray(found["bias"])
    np.testing.assert_allclose(bias - bias.mean(), expected.x[15:] - expected.x[15:].mean(), atol=1e-4)


def fit_logistic(**options):
    """Return the classifier of three separable classes, and the largest entry of the problem's gradient there."""
    generator = np.random.default_rng(0)
    features, labels = generator.standard_normal((12, 5)).astype(np.float32), np.arange(12) % 3
    classifier = fit(logistic.Config(strength=0.1, **options), features, labels, 3)

    def objective(classifier):
        scores = features @ classifier["kernel"] + classifier["bias"][None]
        misfit = (jax.nn.logsumexp(scores, axis=1) - scores[np.arange(12), labels]).sum()
        return misfit + 0.05 * jnp.square(classifier["kernel"]).sum()

    slopes = jax.tree.leaves(jax.jit(jax.grad(objective))(classifier))
    return classifier, max(np.abs(slope).max() for slope in slopes)


def test_logistic_stops_at_its_tolerance_or_at_its_limit():
    assert fit_logistic(tolerance=1e-3)[1] <= 1e-3
    (loose, steepest), (short, _) = fit_logistic(tolerance=1e6), fit_logistic(limit=1)
    trees.assert_equal(loose, short)
    assert steepest > 1e-1


@pytest.mark.parametrize("unit_length", [True, False])
def test_logistic_divides_features_by_their_norm_or_does_not(unit_length):
    case = Case("logistic", blobs(), unit_length=unit_length)
    support, query = (case.features(part) for part in (case.episode.support, case.episode.query))
    if unit_length:
        support, query = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (support, query))
    labels = case.episode.support.targets
    classifier = jax.tree.map(np.asarray, fit(logistic.Config(), support, labels, 3))
    expected = query @ classifier["kernel"] + classifier["bias"]
    np.testing.assert_allclose(case.predict(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("transform", ["none", "unit"])
def test_centroid_answers_with_the_distances_to_the_class_means(transform):
    case = Case("centroid", blobs(), transform=transform)
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
    case = Case("centroid", blobs())
    np.testing.assert_allclose(
        case.weights.frozen["mean"], case.features(case.episode.support).mean(axis=0), rtol=1e-4, atol=1e-6
    )


def descend(leaf, slope):
    """Return a leaf after one step of size 0.1, in numpy."""
    return np.asarray(leaf) - np.float32(0.1) * np.asarray(slope)


@pytest.mark.parametrize("adapts", ["head", "all"])
def test_finetune_descends_the_support_loss_from_the_pretrained_network(adapts):
    case = Case("finetune", sinusoid(), adapts=adapts, inner_steps=2, inner_lr=0.1, inner_optimizer="sgd")
    inputs, targets = case.episode.support
    params = {name: case.before.trained[name] for name in ("body", "head")}

    def loss(params):
        outputs = (
            case.model.embed(params["body"], inputs) @ params["head"]["kernel"] + params["head"]["bias"][None]
        )
        return jnp.mean((outputs - targets) ** 2)

    gradient = jax.jit(jax.grad(loss))
    for _ in range(2):
        slope = gradient(params)
        moving = ("head",) if adapts == "head" else ("head", "body")
        params = params | {name: jax.tree.map(descend, params[name], slope[name]) for name in moving}
    learner = case.algorithm.adapt(case.weights, case.episode.support)
    trees.assert_close({"body": learner.body, "head": learner.head}, params, rtol=1e-4, atol=1e-6)


def adapt_one_step(adapts: str, **options):
    """Return the frozen weights of a network that begins anew, and the learner after one step of size 0.1."""
    family = sinusoid().family
    model = builders.build_model("mlp", family.problem.spec, hidden=(3,), normalisation="layer")
    options |= {"inner_steps": 1, "inner_lr": 0.1, "inner_optimizer": "sgd"}
    algorithm = builders.build_algorithm(
        "finetune", model, family.problem, pretrained=None, adapts=adapts, **options
    )
    support = sinusoid().episode.support

    @jax.jit
    def adapt(episodes):
        weights = algorithm.init(KEY, episodes, {})
        frozen = weights.frozen

        def loss(body):
            head, features = frozen["head"], model.embed(body, support.inputs)
            return jnp.mean((features @ head["kernel"] + head["bias"][None] - support.targets) ** 2)

        begun, slope = model.init(KEY, support.inputs), jax.grad(loss)(frozen["body"])
        return frozen, algorithm.adapt(weights, support), slope, begun

    frozen, learner, slope, begun = adapt(sinusoid().episodes)
    trees.assert_close({**frozen["body"], "head": frozen["head"]}, begun)
    return frozen, learner, slope


def test_finetune_of_low_rank_moves_kernels_alone_by_the_product_of_its_factors():
    """The first step moves the second factor alone, B₁ = −0.1 AᵀG, so the kernel becomes W − 0.1 A AᵀG."""
    frozen, learner, slope = adapt_one_step("lora", rank=2)
    down = np.asarray(frozen["factors"]["hidden_0"]["kernel"]["down"])
    kernel, gradient = (np.asarray(tree["hidden_0"]["kernel"]) for tree in (frozen["body"], slope))
    moved = kernel - 0.1 * down @ down.T @ gradient
    assert np.abs(moved - kernel).max() > 1e-4
    np.testing.assert_allclose(learner.body["hidden_0"]["kernel"], moved, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(learner.body["hidden_0"]["bias"], frozen["body"]["hidden_0"]["bias"])
    trees.assert_equal(learner.body["norms_0"], frozen["body"]["norms_0"])


def test_finetune_of_film_moves_scales_and_offsets_alone():
    frozen, learner, slope = adapt_one_step("film")
    trees.assert_equal(learner.body["hidden_0"], frozen["body"]["hidden_0"])
    moved = jax.tree.map(descend, frozen["body"]["norms_0"], slope["norms_0"])
    assert trees.differ(moved, frozen["body"]["norms_0"])
    trees.assert_close(learner.body["norms_0"], moved, rtol=1e-4, atol=1e-6)
    plain = builders.build_model("mlp", sinusoid().family.problem.spec)
    algorithm = builders.build_algorithm(
        "finetune", plain, sinusoid().family.problem, pretrained=None, adapts="film"
    )
    with pytest.raises(errors.ConfigError, match="no normalisation"):
        jax.eval_shape(lambda: algorithm.init(KEY, sinusoid().episodes, {}))


def test_finetune_moves_along_the_direction_of_its_optimizer():
    """With momentum 0.9 the second step also takes 0.9 of the first one's gradient."""
    case = Case("finetune", sinusoid(), inner_steps=2, inner_lr=0.1, inner_optimizer="momentum")
    features, targets = case.features(case.episode.support), case.episode.support.targets
    head, direction = case.before.trained["head"], None

    def loss(head):
        return jnp.mean((features @ head["kernel"] + head["bias"][None] - targets) ** 2)

    gradient = jax.jit(jax.grad(loss))
    for _ in range(2):
        slope = jax.tree.map(np.asarray, gradient(head))
        direction = slope if direction is None else jax.tree.map(lambda d, s: 0.9 * d + s, direction, slope)
        head = jax.tree.map(descend, head, direction)
    learner = case.algorithm.adapt(case.weights, case.episode.support)
    trees.assert_close(learner.head, head, rtol=1e-4, atol=1e-6)


def test_finetune_without_steps_is_the_pretrained_network_and_knows_no_class():
    case = Case("finetune", sinusoid(), inner_steps=0)
    support, inputs = case.episode.support, case.episode.query.inputs
    expected = np.asarray(compiled.answer(sinusoid().first, case.before, support, inputs))
    trees.assert_close(case.predict(), expected)
    assert not np.any(Case("finetune", blobs(), inner_steps=0).predict())


def test_pretrain_tells_all_training_classes_apart():
    case = Case("centroid", blobs(classes=20))
    body, head = case.before.trained["body"], jax.tree.map(np.asarray, case.before.trained["head"])
    assert head["kernel"].shape == (8, 20)
    part = jax.tree.map(lambda a, b: np.concatenate([a, b]), case.episode.support, case.episode.query)
    scores = np.asarray(case.model.embed(body, part.inputs)) @ head["kernel"] + head["bias"]
    classes = np.asarray(case.episode.facts["class"])[part.targets]
    expected = np.mean(
        special.logsumexp(scores, axis=1) - np.asarray(scores)[np.arange(len(classes)), classes]
    )
    algorithm = blobs(classes=20).first
    np.testing.assert_allclose(algorithm.loss(case.before, case.episode, KEY, 0.0)[0], expected, rtol=1e-5)


def pooled_outputs(before: Before, weights: base.PyTree):
    """Return the outputs over all training classes on all examples of the episode, and their classes."""
    part = jax.tree.map(lambda a, b: np.concatenate([a, b]), before.episode.support, before.episode.query)
    features = np.asarray(before.model.embed(weights["body"], part.inputs))
    classes = np.asarray(before.episode.facts["class"])[part.targets]
    return features @ np.asarray(weights["head"]["kernel"]) + np.asarray(weights["head"]["bias"]), classes


def test_a_pooled_network_learns_from_another_one_beside_its_own_loss():
    """(1 − α) L + α T² KL(softmax(t / T) ‖ softmax(s / T)) with α = 0.3, T = 2: Tian et al. 2020."""
    before = blobs(classes=20)
    options = pretrain.Config(teacher="first", share=0.3, temperature=2.0)
    chain = pretrain.build(options, before.model, before.family.problem, {"first": before.first})
    student = compiled.compile_algorithm(chain)
    weights = student.init(jax.random.key(5), before.episodes, {"first": before.weights})
    trees.assert_equal(weights.frozen, before.weights.trained)
    assert trees.differ(weights.trained["body"], before.weights.trained["body"])
    (own, classes), (taught, _) = (pooled_outputs(before, part) for part in weights)
    own_loss = np.mean(special.logsumexp(own, axis=1) - own[np.arange(len(classes)), classes])
    shares = special.softmax(taught / 2, axis=1)
    divergence = (shares * (np.log(shares) - special.log_softmax(own / 2, axis=1))).sum(axis=1).mean()
    loss, metrics = student.loss(weights, before.episode, KEY, 0.0)
    np.testing.assert_allclose(metrics["matching_loss"], 4 * divergence, rtol=1e-4)
    np.testing.assert_allclose(loss, 0.7 * own_loss + 0.3 * 4 * divergence, rtol=1e-5)


def test_a_teacher_without_a_layer_over_the_training_classes_is_refused():
    before = blobs(classes=20)
    options = pretrain.Config(teacher="first")
    student = pretrain.build(options, before.model, before.family.problem, {"first": before.first})
    body = base.Weights({"body": before.weights.trained["body"]})
    with pytest.raises(errors.ConfigError, match="no last layer over all training classes") as raised:
        jax.eval_shape(student.init, KEY, before.episodes, {"first": body})
    assert raised.value.where == "algorithm.teacher"


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
    case = Case("centroid", blobs())
    wider = builders.build_model("mlp", case.family.problem.spec, hidden=(9, 8))
    algorithm = builders.build_algorithm("centroid", wider, case.family.problem)
    with pytest.raises(errors.ConfigError) as raised:
        jax.eval_shape(algorithm.init, KEY, case.episodes, {"pretrain": case.before})
    assert raised.value.where == "algorithm.pretrained"


def test_a_stage_with_copies_is_no_start_and_that_is_said():
    case = Case("centroid", blobs())
    copies = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), case.before)
    with pytest.raises(errors.ConfigError, match="has copies"):
        case.algorithm.init(KEY, case.episodes, {"pretrain": copies})


def test_the_body_of_a_meta_trained_stage_serves_as_well():
    case = Case("centroid", blobs())
    shapes = jax.eval_shape(case.model.init, KEY, case.episode.support.inputs)
    params = trees.normal_like(shapes, 0)
    for trained in (params, {"params": params, "rates": ()}):
        body = case.algorithm.init(KEY, case.episodes, {"pretrain": base.Weights(trained)}).frozen["body"]
        trees.assert_equal(body, {name: part for name, part in params.items() if name != "head"})


@pytest.mark.parametrize(("rotations", "copies"), [("random", 4), ("classes", 4), ("none", 1)])
def test_omniglot_numbers_its_training_classes(rotations, copies):
    family = builders.build_task("omniglot", rotations=rotations)  # of the size that other tests decode, too
    assert family.problem.training_classes == 1100 * copies
    keys = jax.random.split(KEY, 300)
    sample = jax.vmap(family.sample, in_axes=(None, 0))
    facts = jax.jit(lambda data, keys: sample(data, keys).facts)(family.data["train"], keys)
    named = np.stack([np.asarray(facts[name]).ravel() for name in ("class", "character", "quarter_turns")])
    assert named[0].min() >= 0
    assert named[0].max() < family.problem.training_classes
    pairs = np.unique(named[1:] if copies == 4 else named[1:2], axis=1).shape[1]
    assert (
        len(np.unique(named[0])) == pairs == np.unique(named if copies == 4 else named[:2], axis=1).shape[1]
    )
