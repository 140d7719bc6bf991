"""T-nets in closed form, as MAML where T is the identity, by differences; their masks; WarpGrad's objective."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, compiled, gradients, trees
from metarun import base, errors, losses
from metarun.algorithms import maml, preconditioned
from metarun.base import Episode, Examples, Weights

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)
PROBLEM = builders.regression_problem(3, 2)
RATE = 0.07  # α


def examples(seed: int, count: int = 5) -> Examples:
    generator = np.random.default_rng(seed)
    shapes = (count, 3), (count, 2)
    return Examples(*(jax.device_put(generator.standard_normal(shape)) for shape in shapes))


def episode() -> Episode:
    return Episode(examples(0), examples(1))


def episodes() -> Episode:
    """A batch of one task."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], episode())


def linear_model() -> base.Model:
    """f(x) = xW + b in a layer of the name that models give to the last one."""

    def init(key, inputs):
        return {"head": {"kernel": jax.device_put(np.full((3, 2), 0.2)), "bias": jnp.asarray([0.1, -0.3])}}

    def apply(params, inputs, *, condition=None, reference=None):
        return inputs @ params["head"]["kernel"] + params["head"]["bias"].reshape(1, -1)

    return base.Model(init, apply, apply)


def perceptron() -> base.Model:
    return builders.build_model("mlp", PROBLEM.spec, hidden=(4,), activation="tanh", normalisation="layer")


def build(model: base.Model, **options) -> base.Algorithm:
    config = preconditioned.Config(**{"inner_lr": RATE, **options})
    return compiled.compile_algorithm(preconditioned.build(config, model, PROBLEM))


def start(algorithm: base.Algorithm):
    """Trained weights of random numbers."""
    shapes = jax.eval_shape(algorithm.init, KEY, episodes(), {}).trained
    return gradients.to_float64(trees.normal_like(shapes, 5))


def gradient(algorithm: base.Algorithm, trained, key=KEY):
    return outer_gradient(algorithm, trained, episode(), key)


@functools.partial(jax.jit, static_argnums=0)
def outer_gradient(algorithm: base.Algorithm, trained, task: Episode, key):
    return jax.grad(lambda trained: algorithm.loss(Weights(trained), task, key, 0.0)[0])(trained)


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_a_step_moves_the_effective_kernel_by_the_gradient_times_the_learned_metric(loop):
    algorithm = build(linear_model(), loop=loop)
    trained = start(algorithm)
    head, (inputs, targets) = trained["params"]["head"], map(np.asarray, episode().support)
    kernel, bias, warp = map(np.asarray, (head["kernel"], head["bias"], trained["warps"]["head"]["layer"]))
    left = inputs @ (kernel @ warp) + (bias @ warp) - targets
    metric = warp.T @ warp  # TTᵀ for our order of the axes
    learner = algorithm.adapt(Weights(trained), episode().support)
    head = learner.params["head"]
    slope = 2 * inputs.T @ left / left.size
    np.testing.assert_allclose(head["kernel"], kernel @ warp - RATE * slope @ metric, rtol=1e-10)
    np.testing.assert_allclose(
        head["bias"], bias @ warp - RATE * 2 * left.sum(0) / left.size @ metric, rtol=1e-10
    )


def test_where_every_t_is_the_identity_it_is_maml():
    model = perceptron()
    algorithm = build(model, inner_steps=2)
    trained = start(algorithm)
    trained["warps"] = jax.tree.map(lambda warp: np.eye(len(warp)), trained["warps"])
    plain = maml.build(maml.Config(inner_steps=2, inner_lr=RATE), model, PROBLEM)
    trees.assert_close(
        jax.jit(algorithm.adapt)(Weights(trained), episode().support),
        jax.jit(plain.adapt)(Weights(trained["params"]), episode().support),
        rtol=1e-10,
    )
    trees.assert_close(
        gradient(algorithm, trained)["params"], gradient(plain, trained["params"]), rtol=1e-9, atol=1e-12
    )


def test_training_starts_at_the_identity():
    weights = build(perceptron()).init(KEY, episodes(), {})
    assert weights.trained["warps"].keys() == {"hidden_0", "head"}
    for name, size in (("hidden_0", 4), ("head", 2)):
        np.testing.assert_array_equal(weights.trained["warps"][name]["layer"], np.eye(size))


def test_the_second_order_gradient_is_that_of_differences_of_the_outer_loss():
    algorithm = build(perceptron(), inner_steps=2)
    trained = start(algorithm)

    def outer(trained):
        return algorithm.loss(Weights(trained), episode(), KEY, 0.0)[0]

    gradients.assert_gradient_is_that_of_differences(outer, trained)


def test_the_trajectory_gradient_is_that_of_single_steps_from_constant_points():
    algorithm = build(perceptron(), inner_steps=3, order="trajectory")
    one_step = build(perceptron(), inner_steps=1)
    trained = start(algorithm)
    points = [trained["params"]]
    support_loss = jax.jit(
        jax.grad(
            lambda params, warps: losses.mean_squared_error(
                perceptron().apply(preconditioned.join_warps(params, warps), episode().support.inputs),
                episode().support.targets,
            )
        )
    )
    for _ in range(2):
        slope = support_loss(points[-1], trained["warps"])
        points.append(jax.tree.map(lambda p, s: np.asarray(p) - RATE * np.asarray(s), points[-1], slope))
    single = [gradient(one_step, {"params": point, "warps": trained["warps"]}) for point in points]
    expected = jax.tree.map(lambda *parts: np.mean(parts, axis=0), *single)
    trees.assert_close(gradient(algorithm, trained), expected, rtol=1e-9, atol=1e-12)


def test_masks_are_zeros_and_ones_as_often_as_their_logits_say():
    logits = {"layer": jnp.asarray([-1.0, 0.0, 2.0])}
    keys = jax.random.split(KEY, 4000)
    draw = jax.jit(jax.vmap(lambda key: preconditioned.draw_masks(key, logits, 1.0)["layer"]))
    masks = np.asarray(draw(keys))
    assert set(np.unique(np.round(masks, 12))) == {0.0, 1.0}
    for share, logit in zip(masks.mean(0), logits["layer"], strict=True):
        assert abs(share - 1 / (1 + np.exp(-logit))) < 4 * 0.5 / 4000**0.5


def test_the_derivative_of_a_mask_is_that_of_its_relaxation():
    temperature, logit, key = 0.5, 0.3, jax.random.key(3)
    draw = jax.jit(
        jax.grad(lambda logit: preconditioned.draw_masks(key, {"a": logit}, temperature)["a"].sum())
    )
    slope = draw(np.asarray([logit]))
    leaf_key = jax.random.split(key, 1)[0]
    relaxed = 1 / (1 + np.exp(-(logit + np.asarray(jax.random.logistic(leaf_key, (1,)))) / temperature))
    np.testing.assert_allclose(slope, relaxed * (1 - relaxed) / temperature, rtol=1e-10)


def test_an_output_whose_mask_is_zero_does_not_adapt_and_one_whose_mask_is_one_adapts_as_without():
    algorithm, unmasked = build(linear_model(), mask=True), build(linear_model())
    trained = start(algorithm)
    trained["warps"]["head"]["layer"] = np.eye(2)
    trained["masks"]["head"]["layer"] = np.asarray([-60.0, 60.0])  # probabilities of 0 and 1
    without = {name: trained[name] for name in ("params", "warps")}
    after = algorithm.adapt(Weights(trained), episode().support)
    free = unmasked.adapt(Weights(without), episode().support)
    heads = [part["head"] for part in (after.params, free.params, trained["params"])]
    for name in ("kernel", "bias"):
        column, expected, before = (np.asarray(head[name]) for head in heads)
        np.testing.assert_allclose(column[..., 0], before[..., 0], rtol=1e-12)
        np.testing.assert_allclose(column[..., 1], expected[..., 1], rtol=1e-12)
        assert trees.differ(expected[..., 1], before[..., 1])
    losses_of = [
        float(a.loss(Weights(t), episode(), KEY, 0.0)[0])
        for a, t in ((algorithm, trained), (unmasked, without))
    ]
    assert losses_of[0] != losses_of[1]


def test_the_temperature_changes_the_gradient_of_the_masks_and_not_the_masks():
    cold, warm = (build(perceptron(), mask=True, temperature=value) for value in (0.5, 2.0))
    trained = start(cold)
    outer = [float(algorithm.loss(Weights(trained), episode(), KEY, 0.0)[0]) for algorithm in (cold, warm)]
    np.testing.assert_allclose(*outer, rtol=1e-12)
    slopes = [gradient(algorithm, trained) for algorithm in (cold, warm)]
    trees.assert_close(*(slope["warps"] for slope in slopes), rtol=1e-9)
    assert trees.differ(*(slope["masks"] for slope in slopes))


def test_masks_are_drawn_with_the_key_of_the_task():
    algorithm = build(perceptron(), mask=True)
    trained = start(algorithm)
    losses_of = {
        float(algorithm.loss(Weights(trained), episode(), jax.random.key(seed), 0.0)[0]) for seed in range(4)
    }
    assert len(losses_of) > 1


def test_a_model_without_kernels_is_refused():
    bare = base.Model(lambda key, inputs: jnp.zeros(()), lambda *_: None, lambda *_: None)
    with pytest.raises(errors.ConfigError, match="kernel"):
        build(bare).init(KEY, episodes(), {})
