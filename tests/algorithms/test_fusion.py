"""Fusion: identical members fuse to themselves, mixtures against numpy, soups by their criterion, re-basin undone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy.optimize import linear_sum_assignment

from helpers import builders, compiled, trees
from metarun import base, errors
from metarun.algorithms import fusion, maml
from metarun.algorithms.fusion import model_soup, weight_matching
from metarun.base import Weights
from metarun.blocks import ensemble, last_layer

KEY = jax.random.key(0)
FAMILY = builders.build_task("sinusoid", shots=6, queries=6)
MODEL = builders.build_model("mlp", FAMILY.problem.spec)
MAML = compiled.compile_algorithm(maml.build(maml.Config(inner_lr=0.05), MODEL, FAMILY.problem))
OUTPUTS = ("average", "weighted", "per_task")


@functools.cache
def episodes() -> base.Episode:
    return compiled.sample(FAMILY, KEY, 8)


def episode() -> base.Episode:
    return compiled.select(episodes(), 0)


@functools.cache
def members(count: int, seed: int = 1) -> Weights:
    """Weights of different starts, [member, ...], as a stage with copies has them."""
    keys, batch = jax.random.split(jax.random.key(seed), count), episodes()
    start = jax.jit(jax.vmap(lambda key: MAML.init(key, batch, {})))(keys)
    return jax.tree.map(np.asarray, start)


def member(weights: Weights, index: int) -> Weights:
    return compiled.select(weights, index)


@functools.cache
def build(stages=("members",), problem=FAMILY.problem, **options) -> base.Algorithm:
    config = fusion.Config(members=stages, **options)
    algorithm = fusion.build(config, MODEL, problem, dict.fromkeys(stages, MAML))
    return compiled.compile_algorithm(algorithm)


def answer(algorithm: base.Algorithm, weights: Weights, task: base.Episode | None = None) -> np.ndarray:
    task = task or episode()
    outputs = compiled.answer(algorithm, weights, task.support, task.query.inputs)
    return np.asarray(outputs, np.float64)


def query_losses(algorithm: base.Algorithm, weights: Weights) -> jax.Array:
    """[task]"""

    def one(task):
        outputs = algorithm.predict(algorithm.adapt(weights, task.support), task.query.inputs)
        return FAMILY.problem.objective.loss(outputs, task.query.targets)

    return jax.vmap(one)(episodes())


@pytest.mark.parametrize("kind", [*OUTPUTS, "soup", "greedy_soup", "rebasin"])
def test_identical_members_fuse_to_themselves(kind):
    one = member(members(1), 0)
    same = jax.tree.map(lambda leaf: np.stack([leaf] * 3), one)
    algorithm = build(kind=kind)
    weights = algorithm.init(KEY, episodes(), {"members": same})
    np.testing.assert_allclose(answer(algorithm, weights), answer(MAML, one), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [*OUTPUTS, "soup", "rebasin"])
def test_one_stage_with_copies_is_several_stages_without(kind):
    copies, names = members(3), ("a", "b", "c")
    together, apart = build(kind=kind), build(names, kind=kind)
    stages = {name: member(copies, index) for index, name in enumerate(names)}
    first = answer(together, together.init(KEY, episodes(), {"members": copies}))
    second = answer(apart, apart.init(KEY, episodes(), stages))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_are_mixed_by_the_weights_of_the_docstring(kind):
    copies = members(3)
    algorithm = build(kind=kind)
    weights = algorithm.init(KEY, episodes(), {"members": copies})
    each = [answer(MAML, member(copies, index)) for index in range(3)]
    support = episode()._replace(query=episode().support)
    losses_ = [
        np.square(answer(MAML, member(copies, i), support) - episode().support.targets).mean()
        for i in range(3)
    ]
    scores = {
        "average": np.zeros(3),
        "weighted": np.array([0.5, -1.0, 2.0]),
        "per_task": -np.array(losses_) / 2,
    }
    trained = {
        "weighted": {"scores": jnp.asarray(scores["weighted"], jnp.float32)},
        "per_task": {"log_temperature": jnp.log(2.0)},
    }
    weights = weights._replace(trained=trained.get(kind, ()))
    shares = np.exp(scores[kind]) / np.exp(scores[kind]).sum()
    mixed = sum(share * output for share, output in zip(shares, each, strict=True))
    np.testing.assert_allclose(answer(algorithm, weights), mixed, rtol=1e-4, atol=1e-5)


def test_probabilities_are_averaged_and_not_logits():
    logits = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    shares = np.array([0.2, 0.3, 0.5])
    mix = jax.jit(functools.partial(ensemble.mix, probabilities=True))
    mixed = mix(logits, np.log(shares).astype(np.float32))
    probabilities = special.softmax(logits, axis=-1)
    np.testing.assert_allclose(
        special.softmax(mixed, axis=-1), np.einsum("m,mew->ew", shares, probabilities), rtol=1e-5
    )


def test_a_fused_classifier_averages_what_its_option_names():
    blobs = builders.blobs()
    model = builders.build_model("mlp", blobs.problem.spec)
    solver = compiled.compile_algorithm(builders.build_algorithm("maml", model, blobs.problem))
    batch = compiled.sample(blobs, KEY, 2)
    task = compiled.select(batch, 0)
    stages = {name: solver.init(jax.random.key(seed), batch, {}) for seed, name in enumerate("ab")}
    logits = np.stack([answer(solver, weights, task) for weights in stages.values()])
    expected = {
        "outputs": logits.mean(axis=0),
        "probabilities": np.log(special.softmax(logits, axis=-1).mean(axis=0)),
    }
    for mixes, outputs in expected.items():
        config = fusion.Config(members=("a", "b"), kind="average", mixes=mixes)
        algorithm = fusion.build(config, model, blobs.problem, dict.fromkeys("ab", solver))
        weights = jax.jit(algorithm.init)(KEY, batch, stages)
        fused = answer(algorithm, weights, task)
        np.testing.assert_allclose(fused, outputs, rtol=1e-4, atol=1e-5)


def test_the_loss_of_both_is_that_of_the_fused_model_and_the_weighted_members():
    earlier = {"members": members(2)}
    values = {}
    for outer_loss in ("fused", "members", "both"):
        algorithm = build(kind="weighted", outer_loss=outer_loss)
        weights = algorithm.init(KEY, episodes(), earlier)
        values[outer_loss] = algorithm.loss(weights, episode(), KEY, 0.0)[0]
    np.testing.assert_allclose(values["both"], values["fused"] + values["members"], rtol=1e-6)
    single = [MAML.loss(member(earlier["members"], index), episode(), KEY, 0.0)[0] for index in range(2)]
    np.testing.assert_allclose(values["members"], np.mean(single), rtol=1e-6)
    assert values["fused"] < values["members"]  # squared error is convex, and the members differ


def test_steps_of_the_fused_model_lower_its_support_loss_and_leave_the_reference():
    earlier = {"members": members(2)}
    support = episode()._replace(query=episode().support)

    def support_loss(**options):
        algorithm = build(kind="average", **options)
        weights = algorithm.init(KEY, episodes(), earlier)
        learner = algorithm.adapt(weights, episode().support)
        np.testing.assert_array_equal(learner.members["members"].reference[0], episode().support.inputs)
        return np.square(answer(algorithm, weights, support) - episode().support.targets).mean()

    before = support_loss()
    mixture, everything = (support_loss(fused_steps=5, fused_lr=0.01, adapts=a) for a in ("fusion", "all"))
    assert everything < mixture < before


def test_the_features_are_what_the_last_layer_multiplies():
    weights = member(members(1), 0)
    learner = MAML.adapt(weights, episode().support)
    inputs = episode().query.inputs
    compute = jax.jit(lambda learner: last_layer.compute_features(MAML.predict, learner, inputs, "members"))
    found, expected = compute(learner), jax.jit(MODEL.embed)(learner.params, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_head_on_concatenated_features_is_linear_in_the_features_of_all_members():
    copies = members(2)
    algorithm = build(kind="concatenate")
    weights = algorithm.init(KEY, episodes(), {"members": copies})
    features = []
    for index in range(2):
        learner = MAML.adapt(member(copies, index), episode().support)
        features.append(jax.jit(MODEL.embed)(learner.params, episode().query.inputs))
    head = jax.tree.map(np.asarray, weights.trained["head"])
    expected = np.concatenate(features, axis=1) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(answer(algorithm, weights), expected, rtol=1e-4, atol=1e-5)


def test_the_step_size_on_concatenated_features_is_divided_by_their_squared_length():
    copies = members(2)
    algorithm = build(kind="concatenate", fused_steps=1, fused_lr=0.5)
    weights = algorithm.init(KEY, episodes(), {"members": copies})
    learners = [MAML.adapt(member(copies, index), episode().support) for index in range(2)]
    embed = jax.jit(MODEL.embed)
    embedded = [embed(learner.params, episode().support.inputs) for learner in learners]
    features, head = np.concatenate(embedded, axis=1), weights.trained["head"]

    def loss(head):
        outputs = features @ head["kernel"] + head["bias"][None]
        return jnp.mean(jnp.square(outputs - episode().support.targets))

    rate = 0.5 / (1 + np.square(features).sum(axis=1).mean())
    slopes = jax.jit(jax.grad(loss))(head)
    expected = jax.tree.map(lambda leaf, slope: np.asarray(leaf) - rate * np.asarray(slope), head, slopes)
    fused = algorithm.adapt(weights, episode().support).fusion
    trees.assert_close(fused, expected, rtol=1e-4, atol=1e-6)


def test_a_metric_learner_has_no_last_layer_to_concatenate():
    blobs = builders.blobs()
    model = builders.build_model("mlp", blobs.problem.spec)
    protonet = builders.build_algorithm("protonet", model, blobs.problem)
    batch = compiled.sample(blobs, KEY, 2)
    algorithm = fusion.build(
        fusion.Config(members=("protonet",), kind="concatenate"),
        model,
        blobs.problem,
        {"protonet": protonet},
    )
    start = jax.eval_shape(protonet.init, KEY, batch, {})
    with pytest.raises(errors.ConfigError, match="no last layer"):
        jax.eval_shape(algorithm.init, KEY, batch, {"protonet": start})


def test_a_greedy_soup_is_by_its_criterion_at_least_as_good_as_the_best_member():
    noise = trees.normal_like(jax.tree.map(lambda leaf: np.zeros((6, *leaf.shape[1:]), "f"), members(1)), 2)
    around = jax.tree.map(lambda leaf, part: leaf + 0.3 * np.asarray(part), members(1), noise)
    judge = jax.jit(functools.partial(query_losses, MAML))
    best = min(np.mean(judge(member(around, index))) for index in range(6))
    algorithm = build(kind="greedy_soup")
    soup = algorithm.init(KEY, episodes(), {"members": around})
    greedy = np.mean(jax.jit(functools.partial(query_losses, algorithm))(soup))
    assert greedy <= best + 1e-6


def test_a_greedy_soup_takes_the_helpful_members_and_leaves_the_others():
    def criterion(weights):
        return jnp.square(weights - 1.0)

    # 0.8 is the best; with 1.3 the mean is 1.05, which is better; with −3 it is far worse.
    choose = jax.jit(functools.partial(model_soup.choose_greedily, criterion=criterion))
    soup = choose(np.float32([-3.0, 1.3, 0.8]))
    np.testing.assert_allclose(soup, 1.05, rtol=1e-6)


def shuffled(tree, seed: int):
    """The network with its hidden units in a random order, which computes the same."""
    chain, generator = weight_matching.find_chain(tree), np.random.default_rng(seed)
    leaves = [
        np.asarray(leaf).reshape(s) for leaf, s in zip(jax.tree.leaves(tree), chain.shapes, strict=True)
    ]
    for places in chain.layers:
        order = generator.permutation(leaves[places[0].leaf].shape[places[0].axis])
        for leaf, axis in places:
            leaves[leaf] = np.take(leaves[leaf], order, axis)
    old = jax.tree.leaves(tree)
    return jax.tree.unflatten(
        jax.tree.structure(tree),
        [jax.device_put(a.reshape(b.shape)) for a, b in zip(leaves, old, strict=True)],
    )


NETWORKS = [
    ("mlp", base.Spec((40,), 2, "numbers"), {"hidden": (7, 6, 5), "normalisation": "layer"}),
    ("conv4", base.Spec((8, 8, 5), 3, "classes"), {"width": 5, "depth": 3}),
    (
        "conv4",
        base.Spec((8, 8, 5), 3, "classes"),
        {"width": 5, "depth": 2, "head": "flatten", "normalisation": "none"},
    ),
]


@pytest.mark.parametrize(("name", "spec", "options"), NETWORKS)
def test_rebasin_undoes_any_order_of_hidden_units(name, spec, options):
    model = builders.build_model(name, spec, **options)
    inputs, apply = builders.inputs_for(spec, np.random.default_rng(0), 5), jax.jit(model.apply)
    params = trees.normal_like(jax.eval_shape(model.init, KEY, inputs), 0)
    other = shuffled(params, 1)
    assert trees.differ(other, params)
    np.testing.assert_allclose(apply(other, inputs), apply(params, inputs), rtol=1e-3, atol=1e-4)
    trees.assert_equal(jax.jit(weight_matching.align)(params, other), params)


def test_an_assignment_is_the_best_there_is():
    products = np.random.default_rng(0).normal(size=(20, 20))
    order = jax.jit(weight_matching.assign)(products)
    rows, columns = linear_sum_assignment(-products)
    np.testing.assert_array_equal(np.asarray(order)[rows], columns)


def test_rebasin_brings_members_nearer_than_they_were_and_changes_none_of_them():
    copies = members(2)
    first, second = (member(copies, index) for index in range(2))
    moved = second._replace(trained=jax.jit(weight_matching.align)(first.trained, second.trained))
    np.testing.assert_allclose(answer(MAML, moved), answer(MAML, second), rtol=1e-4, atol=1e-5)
    assert trees.dot(first.trained, moved.trained) > trees.dot(first.trained, second.trained)


@pytest.mark.parametrize("name", ["resnet12", "seq2seq"])
def test_rebasin_refuses_what_is_no_chain_of_layers(name):
    spec = builders.SPECS[0 if name == "resnet12" else 2]
    model = builders.build_model(name, spec)
    inputs = builders.inputs_for(spec, np.random.default_rng(0), 2)
    params = jax.eval_shape(model.init, KEY, inputs)
    with pytest.raises(errors.ConfigError, match="no part of one"):
        jax.eval_shape(weight_matching.align, params, params)


def test_weights_of_different_shapes_make_no_soup():
    wide = builders.build_model("mlp", FAMILY.problem.spec, hidden=(9, 9))
    other = maml.build(maml.Config(), wide, FAMILY.problem)
    algorithms = {"a": MAML, "b": other}
    algorithm = fusion.build(
        fusion.Config(members=("a", "b"), kind="soup"), MODEL, FAMILY.problem, algorithms
    )
    stages = {name: jax.eval_shape(stage.init, KEY, episodes(), {}) for name, stage in algorithms.items()}
    with pytest.raises(errors.ConfigError, match="different shapes"):
        jax.eval_shape(algorithm.init, KEY, episodes(), stages)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": ()}, "no members"),
        ({"kind": "soup", "fused_steps": 1}, "nothing of its own"),
        ({"kind": "average", "outer_loss": "both"}, "trains no weights"),
        ({"kind": "soup", "mixes": "probabilities"}, "averages no outputs"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fusion.Config(**options)


def test_a_missing_member_and_probabilities_of_numbers_are_refused():
    with pytest.raises(ValueError, match="none of that name"):
        fusion.build(fusion.Config(members=("nobody",)), MODEL, FAMILY.problem, {"members": MAML})
    with pytest.raises(ValueError, match="no classes"):
        build(mixes="probabilities", problem=builders.regression_problem())


def test_a_member_that_is_named_twice_is_refused_and_not_counted_once():
    with pytest.raises(ValueError, match="twice"):
        build(stages=("members", "members"))
