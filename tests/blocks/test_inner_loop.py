"""The steps of the inner loop in closed form, one rate for all or one for each leaf, and how they are repeated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarun.blocks import inner_loop
from metarun.options import InnerLoop, InnerSteps

pytestmark = pytest.mark.usefixtures("in_float64")


def shrink(params):
    """Return the gradient of ½‖params‖²."""
    return params


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_each_leaf_descends_at_its_own_rate(loop):
    params = {"a": jnp.full(2, 3.0), "b": jnp.full((), 5.0)}
    config = InnerLoop(inner_steps=3, inner_lr=0.1, loop=loop)
    moved = inner_loop.descend(config, shrink, params, {"a": 0.1, "b": jnp.asarray(0.5)})
    np.testing.assert_allclose(moved["a"], 3 * 0.9**3)
    np.testing.assert_allclose(moved["b"], 5 * 0.5**3)
    common = inner_loop.descend(config, shrink, params)
    np.testing.assert_allclose(common["b"], 5 * 0.9**3)


def test_a_step_goes_no_further_than_the_rate_times_the_limit():
    config = InnerLoop(inner_lr=0.1, inner_clip_norm=2.0)
    np.testing.assert_allclose(inner_loop.descend(config, shrink, jnp.array([3.0, 4.0])), [2.88, 3.84])
    within = jnp.array([0.6, 0.8])
    np.testing.assert_allclose(inner_loop.descend(config, shrink, within), 0.9 * within)


@pytest.mark.parametrize(("order", "slope"), [("second", 0.9**2), ("first", 1.0)])
def test_the_first_order_takes_the_gradients_for_constants(order, slope):
    config = InnerLoop(inner_steps=2, inner_lr=0.1, order=order)
    derivative = jax.grad(lambda start: inner_loop.descend(config, shrink, start))(jnp.asarray(2.0))
    np.testing.assert_allclose(derivative, slope)


@pytest.mark.parametrize("loop", ["scan", "unroll"])
@pytest.mark.parametrize("count", [1, 3, inner_loop.UNROLLED, inner_loop.UNROLLED + 2])
def test_every_step_gets_its_row_and_leaves_its_note(count, loop):
    def step(total, row):
        return total + row, 10 * total

    rows = jnp.arange(1.0, count + 1)
    total, notes = inner_loop.repeat(InnerSteps(count, loop=loop), step, jnp.zeros(()), rows)
    np.testing.assert_allclose(total, rows.sum())
    np.testing.assert_allclose(notes, 10 * (np.cumsum(rows) - rows))


def test_without_steps_the_state_stays_and_there_are_no_notes():
    state = jnp.ones(2)
    assert inner_loop.repeat(InnerSteps(0), lambda state, row: (-state, row), state) == (state, ())
