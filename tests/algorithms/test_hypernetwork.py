"""The hypernetwork writes weights, the hybrid finishes them: closed forms, differences, and both their halves."""

import jax
import numpy as np
import pytest

from helpers import builders, compiled, gradients, numpy_networks, trees
from metarun import base, config, errors
from metarun.algorithms import hypernetwork, maml
from metarun.base import Episode, Examples, Weights
from metarun.config import optimizers, schema
from metarun.training import optimizer

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)  # the outer loss uses no random numbers
RATE = 0.07  # α
PROBLEM = builders.regression_problem(3, 2)
PICTURES = builders.make_problem(base.Spec((4, 4, 1), 2, "numbers"))
TURNS = (("encoder", "generator"), ("params",))
FORMS = ["all", "head", "head_and_modulation"]


def examples(seed: int, spec: base.Spec, count: int = 5) -> Examples:
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((count, *spec.input_shape))
    return Examples(
        jax.device_put(inputs), jax.device_put(generator.standard_normal((count, spec.output_size)))
    )


def episode(spec: base.Spec) -> Episode:
    return Episode(examples(0, spec), examples(1, spec))


def network(name: str = "mlp") -> tuple[base.Model, Episode]:
    """A small smooth network, modulated layer by layer where it is modulated, and an episode."""
    spec = PICTURES.spec if name == "conv4" else PROBLEM.spec
    small = {"hidden": (4,), "activation": "tanh", "modulation": "features", "depth": 1, "width": 2}
    return builders.build_model(name, spec, **small), episode(spec)


def build(model: base.Model, problem: base.Problem = PROBLEM, **options) -> base.Algorithm:
    small = {"inner_lr": RATE, "width": 5, "embed": 3, "condition": 2}
    config = hypernetwork.Config(**{**small, **options})
    return compiled.compile_algorithm(hypernetwork.build(config, model, problem))


def build_maml(model: base.Model) -> base.Algorithm:
    return compiled.compile_algorithm(maml.build(maml.Config(inner_steps=3, inner_lr=RATE), model, PROBLEM))


def start(algorithm: base.Algorithm, episode: Episode):
    """Trained weights of random numbers."""
    episodes = jax.tree.map(lambda leaf: np.asarray(leaf)[None], episode)
    shapes = jax.eval_shape(algorithm.init, KEY, episodes, {}).trained
    return gradients.to_float64(jax.tree.map(lambda leaf: np.asarray(leaf) / 3, trees.normal_like(shapes, 5)))


def outer_of(algorithm: base.Algorithm, episode: Episode):
    return lambda trained: algorithm.loss(Weights(trained), episode, KEY, 0.0)[0]


@pytest.mark.parametrize("writes", FORMS)
def test_the_second_order_gradient_through_start_and_steps_is_that_of_differences(writes):
    model, task = network()
    algorithm = build(model, writes=writes, inner_steps=2, learned_lr="layer")
    trained = start(algorithm, task)
    outer = outer_of(algorithm, task)
    gradients.assert_gradient_is_that_of_differences(outer, trained)


def test_what_is_written_is_the_sum_of_the_shared_weights_and_the_generators_numbers():
    model, task = network()
    algorithm = build(model)
    trained = start(algorithm, task)
    pairs = np.concatenate([task.support.inputs, task.support.targets], axis=1)
    read = np.maximum(numpy_networks.perceptron(trained["encoder"]["pair"], pairs), 0).mean(axis=0)
    flat = numpy_networks.perceptron(
        trained["generator"], numpy_networks.perceptron(trained["encoder"]["whole"], read)
    )
    found = algorithm.adapt(Weights(trained), task.support).params
    offsets = jax.tree.map(np.subtract, found, trained["params"])
    np.testing.assert_allclose(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(offsets)]), flat)


def test_the_weights_do_not_depend_on_the_order_of_the_support():
    model, task = network()
    algorithm = build(model)
    weights = Weights(start(algorithm, task))
    shuffled = compiled.select(task.support, np.array([3, 1, 4, 0, 2]))
    found, moved = (algorithm.adapt(weights, support).params for support in (task.support, shuffled))
    trees.assert_close(found, moved, rtol=1e-12)


def test_with_a_silent_generator_the_hybrid_is_maml():
    model, task = network()
    algorithm = build(model, inner_steps=3)
    trained = start(algorithm, task)
    trained["generator"] = jax.tree.map(np.zeros_like, trained["generator"])
    plain = build_maml(model)
    expected = plain.adapt(Weights(trained["params"]), task.support).params
    trees.assert_close(algorithm.adapt(Weights(trained), task.support).params, expected, rtol=1e-12)


def test_the_hybrid_is_maml_from_the_start_that_the_hypernetwork_writes():
    model, task = network()
    alone, hybrid = build(model), build(model, inner_steps=3)
    trained = start(alone, task)
    written = alone.adapt(Weights(trained), task.support).params
    plain = build_maml(model)
    expected = plain.adapt(Weights(written), task.support).params
    trees.assert_close(hybrid.adapt(Weights(trained), task.support).params, expected, rtol=1e-12)


def test_without_inner_steps_the_step_size_is_of_no_account():
    model, task = network()
    weights = Weights(start(build(model), task))
    learners = [build(model, inner_lr=rate).adapt(weights, task.support) for rate in (5.0, 0.1)]
    trees.assert_equal(*learners)


@pytest.mark.parametrize("writes", ["head", "head_and_modulation"])
def test_only_the_head_is_written_where_the_head_is_named(writes):
    model, task = network()
    algorithm = build(model, writes=writes)
    trained = start(algorithm, task)
    learner = algorithm.adapt(Weights(trained), task.support)
    assert trees.differ(learner.params["head"], trained["params"]["head"])
    for name in trained["params"].keys() - {"head"}:
        trees.assert_equal(learner.params[name], trained["params"][name])
    assert (learner.condition is None) == (writes == "head")
    assert writes == "head" or learner.condition.shape == (2,)  # `condition`


def test_every_array_descends_at_its_own_learned_rate():
    model, task = network()
    trained = start(build(model), task)
    rates = {name: jax.tree.map(lambda leaf: 0.0, layer) for name, layer in trained["params"].items()}
    rates["head"]["bias"] = 2 * RATE
    written = build(model).adapt(Weights(trained), task.support).params
    twice = build(model, inner_steps=1, inner_lr=2 * RATE).adapt(Weights(trained), task.support).params
    learner = build(model, inner_steps=1, learned_lr="layer").adapt(
        Weights(trained | {"rates": rates}), task.support
    )
    expected = written | {"head": written["head"] | {"bias": twice["head"]["bias"]}}
    trees.assert_close(learner.params, expected, rtol=1e-12)


def test_the_maps_of_the_modulation_do_not_adapt_and_the_layers_do():
    model, task = network("conv4")
    algorithm = build(model, PICTURES, writes="head_and_modulation", inner_steps=2)
    trained = start(algorithm, task)
    block = algorithm.adapt(Weights(trained), task.support).params["blocks_0"]
    trees.assert_equal(block["Modulation_0"], trained["params"]["blocks_0"]["Modulation_0"])
    assert trees.differ(block["kernel"], trained["params"]["blocks_0"]["kernel"])


def test_a_model_that_takes_no_condition_is_refused():
    spec = base.Spec((3,), 2, "numbers")
    algorithm = build(builders.build_model("affine", spec), writes="head_and_modulation")
    with pytest.raises(errors.ConfigError, match="takes no condition"):
        algorithm.init(KEY, jax.tree.map(lambda leaf: np.asarray(leaf)[None], episode(spec)), {})


def descend(outer, trained, rate: float, turns=()):
    """What one step of plain descent makes of the trained."""
    sgd = config.Selection("sgd", optimizers.SGD(learning_rate=rate))
    chain = optimizer.build(config.Training(steps=1, optimizer=sgd, turns=turns))

    @jax.jit
    def step(trained):
        return chain.step(lambda x: (jax.grad(outer)(x), {"loss": 0.0}), trained, chain.init(trained)).trained

    return step(trained)


def test_in_turns_the_generator_steps_first_and_the_shared_weights_through_what_it_then_writes():
    """The proposal's update: φ by ∇_φ L_Q(θ_K), then θ by ∇_θ of the same at the new φ."""
    model, task = network()
    outer = jax.jit(outer_of(build(model, inner_steps=2), task))
    trained = start(build(model, inner_steps=2), task)
    first, rate = {name: trained[name] for name in ("encoder", "generator")}, 0.1
    gradient = jax.jit(jax.grad(outer))

    def move(part, slope):
        return jax.tree.map(lambda x, g: np.asarray(x) - rate * np.asarray(g), part, slope)

    slope = gradient(trained)
    phi = move(first, {name: slope[name] for name in first})
    slope = gradient(phi | {"params": trained["params"]})
    expected = phi | {"params": move(trained["params"], slope["params"])}
    trees.assert_close(descend(outer, trained, rate, TURNS), expected, rtol=1e-9)


def test_updating_in_turns_differs_from_updating_at_once_by_the_square_of_the_rates():
    """With rates ten times smaller, by a hundredth."""
    model, task = network()
    outer = jax.jit(outer_of(build(model, inner_steps=2), task))
    trained = start(build(model, inner_steps=2), task)

    def gap(rate: float) -> float:
        moved, together = descend(outer, trained, rate, TURNS), descend(outer, trained, rate)
        distances = jax.tree.map(lambda a, b: np.square(np.subtract(a, b)).sum(), moved, together)
        return sum(jax.tree.leaves(distances)) ** 0.5

    wide = gap(1e-4)
    assert wide > 0
    np.testing.assert_allclose(wide / gap(1e-5), 100, rtol=0.02)


def updates(*part_rates: schema.PartRate, **options):
    """Return the updates of one outer step, for a gradient that differs from number to number."""
    trained = {"params": {"kernel": np.ones(3)}, "generator": [np.ones(2)]}
    transformation = optimizer.make_transformation(
        config.Training(steps=10, part_rates=part_rates, **options)
    )
    gradient = jax.tree.map(lambda leaf: np.arange(1.0, leaf.size + 1), trained)

    memory = transformation.init(trained)  # outside jit, which would sort the names of the parts
    return jax.jit(transformation.update)(gradient, memory, trained)[0]


def test_a_factor_is_a_learning_rate_of_a_parts_own():
    slow = config.Selection("adam", optimizers.Adam(learning_rate=2e-4))
    plain, slowed = updates(), updates(optimizer=slow)
    found = updates(schema.PartRate("generator", 0.2))
    trees.assert_equal(found["params"], plain["params"])
    trees.assert_close(found["generator"], slowed["generator"], rtol=1e-12)


def test_a_part_that_is_not_trained_is_refused_with_those_that_are():
    with pytest.raises(errors.ConfigError, match="no part generatr") as refused:
        updates(schema.PartRate("generatr", 0.2))
    assert "params, generator" in refused.value.remedy


PICTURE_CLASSES = builders.make_problem(base.Spec((8, 8, 1), 3, "classes"))
LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)


def draw_classes(ways: int = 3) -> Episode:
    """An episode of classes of pictures, each with two examples in support and query."""
    inputs = np.random.default_rng(ways).standard_normal((2, 2 * ways, 8, 8, 1))
    labels = np.tile(np.arange(ways, dtype=np.int32), 2)
    return Episode(*(Examples(jax.device_put(half), jax.device_put(labels)) for half in inputs))


def build_exchangeable(problem: base.Problem = PICTURE_CLASSES, **options) -> base.Algorithm:
    model = builders.build_model("conv4", PICTURE_CLASSES.spec, depth=1, width=6, head="flatten")
    return build(model, problem, classes="exchangeable", **{"width": 16, "embed": 4, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"writes": "head"},
        {"writes": "head_and_modulation", "shares_body": True},
        {"writes": "all", "inner_steps": 1, "learned_lr": "layer"},
    ],
    ids=str,
)
def test_with_other_labels_exchangeable_classes_have_the_answers_of_those_labels(options):
    algorithm, task = build_exchangeable(**options), draw_classes()
    weights, order = Weights(start(algorithm, task)), np.array([2, 0, 1], np.int32)
    renamed = task.support._replace(targets=jax.device_put(order[np.asarray(task.support.targets)]))
    inputs = task.query.inputs
    answers, moved = (
        np.asarray(compiled.answer(algorithm, weights, support, inputs))
        for support in (task.support, renamed)
    )
    assert np.ptp(answers, axis=1).min() > 1e-3  # the classes are told apart at all
    np.testing.assert_allclose(moved[:, order], answers, rtol=1e-10, atol=1e-12)
    mixed = compiled.select(task.support, np.array([3, 1, 5, 0, 2, 4]))
    again = compiled.answer(algorithm, weights, mixed, inputs)
    np.testing.assert_allclose(again, answers, rtol=1e-10, atol=1e-12)


def test_exchangeable_classes_are_written_from_the_mean_of_each_and_of_all():
    algorithm, task = build_exchangeable(writes="head"), draw_classes()
    trained = start(algorithm, task)
    learner = algorithm.adapt(Weights(trained), task.support)
    model = builders.build_model("conv4", PICTURE_CLASSES.spec, depth=1, width=6, head="flatten")
    inputs = task.support.inputs
    features = np.asarray(jax.jit(model.embed)(trained["encoder"]["body"], inputs, reference=inputs))
    examples = np.maximum(numpy_networks.perceptron(trained["encoder"]["pair"], features), 0)
    classes = np.stack([examples[way == LABELS].mean(axis=0) for way in range(3)])
    whole = np.mean([numpy_networks.perceptron(trained["encoder"]["whole"], row) for row in classes], axis=0)
    for way, summary in enumerate(classes):
        flat = numpy_networks.perceptron(trained["rows"], np.concatenate([summary, whole]))
        np.testing.assert_allclose(learner.params["head"]["bias"][way], trained["row"]["bias"] + flat[0])
        expected = trained["row"]["kernel"] + flat[1:]
        np.testing.assert_allclose(learner.params["head"]["kernel"][:, way], expected, rtol=1e-9)
    assert "generator" not in trained


def test_exchangeable_classes_may_be_more_than_in_training():
    algorithm, task = build_exchangeable(writes="head", shares_body=True), draw_classes()
    weights = Weights(start(algorithm, task))
    more = builders.make_problem(base.Spec((8, 8, 1), 5, "classes"))
    wider, other = build_exchangeable(more, writes="head", shares_body=True), draw_classes(5)
    assert compiled.answer(wider, weights, other.support, other.query.inputs).shape == (10, 5)


def test_only_classes_are_exchangeable_and_only_then_is_a_body_shared():
    model, _ = network()
    with pytest.raises(ValueError, match="tells classes apart"):
        build(model, classes="exchangeable")
    with pytest.raises(ValueError, match="needs exchangeable classes"):
        hypernetwork.Config(shares_body=True)
