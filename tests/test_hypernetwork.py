"""The hypernetwork writes weights, the hybrid finishes them: closed forms, differences, and both their halves."""

import contracts
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metarun import base, config, errors, losses, optimizer
from metarun.algorithms import _conditioning, hypernetwork, maml
from metarun.base import Episode, Examples, Weights
from metarun.config import optimizers, schema

KEY = jax.random.key(0)  # the outer loss uses no random numbers
RATE = 0.07  # α
TURNS = (("encoder", "generator"), ("params",))
FORMS = ["all", "head", "head_and_modulation"]


@pytest.fixture(autouse=True)
def in_float64():
    with contracts.float64():
        yield


def examples(seed: int, spec: base.Spec, count: int = 5) -> Examples:
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((count, *spec.input_shape))
    return Examples(jnp.asarray(inputs), jnp.asarray(generator.standard_normal((count, spec.output_size))))


def episode(spec: base.Spec) -> Episode:
    return Episode(examples(0, spec), examples(1, spec))


def network(name: str = "mlp") -> tuple[base.Model, Episode]:
    """A small smooth network, modulated layer by layer where it is modulated, and an episode."""
    spec = base.Spec((4, 4, 1), 2) if name == "conv4" else base.Spec((3,), 2)
    small = {"hidden": (4,), "activation": "tanh", "modulation": "features", "depth": 1, "width": 2}
    return contracts.build_model(name, spec, **small), episode(spec)


def build(model: base.Model, **options) -> base.Algorithm:
    small = {"inner_lr": RATE, "width": 5, "embed": 3, "condition": 2}
    return hypernetwork.build(hypernetwork.Config(**{**small, **options}), model, losses.regression())


def start(algorithm: base.Algorithm, episode: Episode):
    """Trained weights of random numbers."""
    episodes = jax.tree.map(lambda leaf: leaf[None], episode)
    shapes = jax.eval_shape(lambda: algorithm.init(KEY, episodes, {})).trained
    return contracts.to_float64(jax.tree.map(lambda leaf: leaf / 3, contracts.normal_like(shapes, 5)))


def outer_of(algorithm: base.Algorithm, episode: Episode):
    return lambda trained: algorithm.loss(Weights(trained), episode, KEY)[0]


@pytest.mark.parametrize("writes", FORMS)
def test_the_second_order_gradient_through_start_and_steps_is_that_of_differences(writes):
    model, task = network()
    algorithm = build(model, writes=writes, inner_steps=2, learned_lr="layer")
    trained = start(algorithm, task)
    outer = outer_of(algorithm, task)
    contracts.assert_gradient_is_that_of(outer, jax.jit(jax.grad(outer))(trained), trained)


def test_what_is_written_is_the_sum_of_the_shared_weights_and_the_generators_numbers():
    model, task = network()
    algorithm = build(model)
    trained = start(algorithm, task)
    pairs = np.concatenate([task.support.inputs, task.support.targets], axis=1)
    read = np.maximum(relu_layers(trained["encoder"]["pair"], pairs), 0).mean(axis=0)
    flat = relu_layers(trained["generator"], relu_layers(trained["encoder"]["whole"], read))
    found = algorithm.adapt(Weights(trained), task.support).params
    offsets = jax.tree.map(jnp.subtract, found, trained["params"])
    np.testing.assert_allclose(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(offsets)]), flat)


def relu_layers(layers, inputs):
    """A perceptron in numpy."""
    for index, layer in enumerate(layers):
        inputs = np.asarray(inputs) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        inputs = inputs if index == len(layers) - 1 else np.maximum(inputs, 0)
    return inputs


def test_the_weights_do_not_depend_on_the_order_of_the_support():
    model, task = network()
    algorithm = build(model)
    weights = Weights(start(algorithm, task))
    shuffled = jax.tree.map(lambda leaf: leaf[np.array([3, 1, 4, 0, 2])], task.support)
    found, moved = (algorithm.adapt(weights, support).params for support in (task.support, shuffled))
    contracts.assert_close(found, moved, rtol=1e-12)


def test_with_a_silent_generator_the_hybrid_is_maml():
    model, task = network()
    algorithm = build(model, inner_steps=3)
    trained = start(algorithm, task)
    trained["generator"] = jax.tree.map(jnp.zeros_like, trained["generator"])
    plain = maml.build(maml.Config(inner_steps=3, inner_lr=RATE), model, losses.regression())
    expected = plain.adapt(Weights(trained["params"]), task.support).params
    contracts.assert_close(algorithm.adapt(Weights(trained), task.support).params, expected, rtol=1e-12)


def test_the_hybrid_is_maml_from_the_start_that_the_hypernetwork_writes():
    model, task = network()
    alone, hybrid = build(model), build(model, inner_steps=3)
    trained = start(alone, task)
    written = alone.adapt(Weights(trained), task.support).params
    plain = maml.build(maml.Config(inner_steps=3, inner_lr=RATE), model, losses.regression())
    expected = plain.adapt(Weights(written), task.support).params
    contracts.assert_close(hybrid.adapt(Weights(trained), task.support).params, expected, rtol=1e-12)


def test_without_inner_steps_the_step_size_is_of_no_account():
    model, task = network()
    weights = Weights(start(build(model), task))
    learners = [build(model, inner_lr=rate).adapt(weights, task.support) for rate in (5.0, 0.1)]
    contracts.assert_equal(*learners)


@pytest.mark.parametrize("writes", ["head", "head_and_modulation"])
def test_only_the_head_is_written_where_the_head_is_named(writes):
    model, task = network()
    algorithm = build(model, writes=writes)
    trained = start(algorithm, task)
    learner = algorithm.adapt(Weights(trained), task.support)
    assert contracts.differ(learner.params["head"], trained["params"]["head"])
    for name in trained["params"].keys() - {"head"}:
        contracts.assert_equal(learner.params[name], trained["params"][name])
    assert (learner.condition is None) == (writes == "head")


def test_the_maps_of_the_modulation_do_not_adapt_and_the_layers_do():
    model, task = network("conv4")
    algorithm = build(model, writes="head_and_modulation", inner_steps=2)
    trained = start(algorithm, task)
    block = algorithm.adapt(Weights(trained), task.support).params["blocks_0"]
    contracts.assert_equal(block["Modulation_0"], trained["params"]["blocks_0"]["Modulation_0"])
    assert contracts.differ(block["kernel"], trained["params"]["blocks_0"]["kernel"])


def test_a_model_that_takes_no_condition_is_refused():
    spec = base.Spec((3,), 2)
    algorithm = build(contracts.build_model("linear", spec), writes="head_and_modulation")
    with pytest.raises(errors.ConfigError, match="takes no condition"):
        algorithm.init(KEY, jax.tree.map(lambda leaf: leaf[None], episode(spec)), {})


def descend(outer, trained, rate: float, turns=()):
    """What one step of plain descent makes of the trained."""
    sgd = config.Selection("sgd", optimizers.SGD(learning_rate=rate))
    chain = optimizer.build(config.Training(steps=1, optimizer=sgd, turns=turns))
    return chain.step(lambda x: (jax.grad(outer)(x), {"loss": 0.0}), trained, chain.init(trained)).trained


def test_in_turns_the_generator_steps_first_and_the_shared_weights_through_what_it_then_writes():
    """The proposal's update: φ by ∇_φ L_Q(θ_K), then θ by ∇_θ of the same at the new φ."""
    model, task = network()
    outer = jax.jit(outer_of(build(model, inner_steps=2), task))
    trained = start(build(model, inner_steps=2), task)
    first, rate = {name: trained[name] for name in ("encoder", "generator")}, 0.1
    slope = jax.grad(lambda phi: outer(phi | {"params": trained["params"]}))(first)
    phi = jax.tree.map(lambda x, g: x - rate * g, first, slope)
    slope = jax.grad(lambda theta: outer(phi | {"params": theta}))(trained["params"])
    expected = phi | {"params": jax.tree.map(lambda x, g: x - rate * g, trained["params"], slope)}
    contracts.assert_close(descend(outer, trained, rate, TURNS), expected, rtol=1e-9)


def test_updating_in_turns_differs_from_updating_at_once_by_the_square_of_the_rates():
    """With rates ten times smaller, by a hundredth."""
    model, task = network()
    outer = jax.jit(outer_of(build(model, inner_steps=2), task))
    trained = start(build(model, inner_steps=2), task)

    def gap(rate: float) -> float:
        moved, together = descend(outer, trained, rate, TURNS), descend(outer, trained, rate)
        return float(optax.tree.norm(jax.tree.map(jnp.subtract, moved, together)))

    assert gap(1e-4) > 0
    np.testing.assert_allclose(gap(1e-4) / gap(1e-5), 100, rtol=0.02)


def updates(*part_rates: schema.PartRate, **options):
    """Of one outer step, for a gradient that differs from number to number."""
    trained = {"params": {"kernel": jnp.ones(3)}, "generator": [jnp.ones(2)]}
    transformation = optimizer.transformation(config.Training(steps=10, part_rates=part_rates, **options))
    gradient = jax.tree.map(lambda leaf: leaf * jnp.arange(1.0, leaf.size + 1), trained)
    return transformation.update(gradient, transformation.init(trained), trained)[0]


def test_a_factor_is_a_learning_rate_of_a_parts_own():
    slow = config.Selection("adam", optimizers.Adam(learning_rate=2e-4))
    plain, slowed = updates(), updates(optimizer=slow)
    found = updates(schema.PartRate("generator", 0.2))
    contracts.assert_equal(found["params"], plain["params"])
    contracts.assert_close(found["generator"], slowed["generator"], rtol=1e-12)


def test_a_part_that_is_not_trained_is_refused_with_those_that_are():
    with pytest.raises(errors.ConfigError, match="no part generatr") as refused:
        updates(schema.PartRate("generatr", 0.2))
    assert "params, generator" in refused.value.remedy


def test_pictures_are_read_by_a_body_of_the_encoders_own():
    model, task = network("conv4")
    support = task.support
    layers = _conditioning.init_encoder(KEY, model, support, _conditioning.Sizes(5, 1, 3))
    assert "head" not in layers["body"]
    assert _conditioning.encode(layers, model, support).shape == (3,)


def test_in_a_classification_the_encoder_reads_the_mean_of_each_class_in_the_order_of_the_labels():
    model, task = network()
    inputs, labels = np.asarray(task.support.inputs), np.array([0, 1, 1, 0, 0], np.int32)
    support = Examples(jnp.asarray(inputs), jnp.asarray(labels))
    layers = contracts.to_float64(
        _conditioning.init_encoder(KEY, model, support, _conditioning.Sizes(6, 2, 3))
    )
    read = np.maximum(relu_layers(layers["pair"], inputs), 0)
    means = np.concatenate([read[labels == 0].mean(axis=0), read[labels == 1].mean(axis=0)])
    np.testing.assert_allclose(
        _conditioning.encode(layers, model, support), relu_layers(layers["whole"], means), rtol=1e-6
    )
