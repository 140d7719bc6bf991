"""What the outer step does with a gradient: schedules, optimizers, clipping, and parts in turns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metarun import errors
from metarun.config import Selection, Training, optimizers, schedules
from metarun.config.schema import PartRate
from metarun.training import optimizer


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection("constant", schedules.Constant()), lambda t: 1.0),
        (Selection("linear", schedules.Linear(final=0.1)), lambda t: 1 - 0.9 * t / 100),
        (
            Selection("cosine", schedules.Cosine(final=0.1)),
            lambda t: 0.1 + 0.45 * (1 + np.cos(np.pi * t / 100)),
        ),
        (Selection("exponential", schedules.Exponential(0.5, 10)), lambda t: 0.5 ** (t / 10)),
        (Selection("step", schedules.Step(0.5, 10)), lambda t: 0.5 ** (t // 10)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_schedules_scale_the_learning_rate_by_their_equation(selection, expected):
    rate = optimizer.make_schedule(selection, 2.0, 100)
    for step in (0, 7, 10, 55, 99):
        value = rate(step) if callable(rate) else rate
        np.testing.assert_allclose(value, 2.0 * expected(step), rtol=1e-5)


def test_warm_up_rises_from_zero_to_the_peak():
    rate = optimizer.make_schedule(Selection("cosine", schedules.Cosine(warmup_steps=20)), 2.0, 100)
    np.testing.assert_allclose([rate(0), rate(10), rate(20), rate(100)], [0.0, 1.0, 2.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_every_optimizer_descends(name):
    config = Training(steps=200, optimizer=Selection(name, optimizers.OPTIMIZERS[name](learning_rate=0.05)))
    transformation = optimizer.make_transformation(config)
    params = {"x": jnp.array([1.0, -2.0])}
    memory = transformation.init(params)

    @jax.jit
    def descend(params, memory):
        gradient = jax.grad(lambda p: jnp.sum(p["x"] ** 2))(params)
        updates, memory = transformation.update(gradient, memory, params)
        return optax.apply_updates(params, updates), memory

    for _ in range(100):
        params, memory = descend(params, memory)
    assert float(jnp.sum(params["x"] ** 2)) < 4.0


def test_clipping_bounds_every_entry_and_the_norm():
    config = Training(
        steps=9, clip_value=1.0, clip_norm=0.5, optimizer=Selection("sgd", optimizers.SGD(learning_rate=1.0))
    )
    transformation = optimizer.make_transformation(config)
    gradient = {"x": jnp.array([100.0, -100.0, 0.0])}
    updates, _ = transformation.update(gradient, transformation.init(gradient), gradient)
    np.testing.assert_allclose(updates["x"], np.array([-1.0, 1.0, 0.0]) * 0.5 / np.sqrt(2), rtol=1e-6)


def coupled(trained) -> jax.Array:
    """A loss in which the slope of each number depends on the other."""
    return trained["x"] ** 2 * trained["y"] + trained["y"] ** 2


def descent(turns=(), **options) -> optimizer.Step:
    """One step of plain descent from (2, 3) on that loss."""
    sgd = Selection("sgd", optimizers.SGD(learning_rate=0.1))
    chain = optimizer.build(Training(steps=9, optimizer=sgd, turns=turns, **options))
    trained = {"x": jnp.array(2.0), "y": jnp.array(3.0)}

    def gradient_at(trained):
        loss, slope = jax.value_and_grad(coupled)(trained)
        return slope, {"loss": loss}

    return chain.step(gradient_at, trained, chain.init(trained))


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((), (2 - 1.2, 3 - 1.0)),  # ∂x = 2xy = 12, ∂y = x² + 2y = 10
        ((("x", "y"),), (2 - 1.2, 3 - 1.0)),
        ((("x",), ("y",)), (0.8, 3 - 0.1 * (0.8**2 + 6))),
        ((("y",), ("x",)), (2 - 0.1 * (2 * 2 * 2), 2.0)),
    ],
)
def test_in_turns_each_group_steps_from_what_those_before_it_have_become(turns, expected):
    step = descent(turns)
    np.testing.assert_allclose([step.trained["x"], step.trained["y"]], expected, rtol=1e-6)
    np.testing.assert_allclose(step.metrics["loss"], 21.0)  # before the step
    assert step.gradient.keys() == step.trained.keys()


def test_in_turns_a_norm_is_clipped_and_a_rate_is_scaled_for_each_group_alone():
    step = descent((("x",), ("y",)), clip_norm=1.0, part_rates=(PartRate("y", 0.5),))
    np.testing.assert_allclose([step.trained["x"], step.trained["y"]], [2 - 0.1, 3 - 0.05], rtol=1e-6)


@pytest.mark.parametrize(
    ("turns", "what"), [((("x",), ("z",)), "no part z"), ((("x",),), "the part y has no turn")]
)
def test_turns_that_do_not_name_each_part_are_refused(turns, what):
    with pytest.raises(errors.ConfigError, match=what) as refused:
        descent(turns)
    assert refused.value.remedy == "name each of x, y once"
