"""The steps of the inner loop in closed form, one rate for all or one for each leaf, and how they are repeated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarun import base
from metarun.blocks import inner_loop
from metarun.options import InnerLoop, InnerSteps

pytestmark = pytest.mark.usefixtures("in_float64")


def shrink(params):
    """Return the gradient of ½‖params‖²."""
    return params


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_each_leaf_descends_at_its_own_rate(loop):
    params = {"a": np.full(2, 3.0), "b": np.full((), 5.0)}
    descend = functools.partial(inner_loop.descend, InnerLoop(inner_steps=3, inner_lr=0.1, loop=loop), shrink)
    rates = {"a": 0.1, "b": jnp.asarray(0.5)}
    moved, common = jax.jit(lambda params: (descend(params, rates), descend(params)))(params)
    np.testing.assert_allclose(moved["a"], 3 * 0.9**3)
    np.testing.assert_allclose(moved["b"], 5 * 0.5**3)
    np.testing.assert_allclose(common["b"], 5 * 0.9**3)


def test_a_step_goes_no_further_than_the_rate_times_the_limit():
    config = InnerLoop(inner_lr=0.1, inner_clip_norm=2.0)
    descend = jax.jit(functools.partial(inner_loop.descend, config, shrink))
    np.testing.assert_allclose(descend(np.array([3.0, 4.0])), [2.88, 3.84])
    within = np.array([0.6, 0.8])
    np.testing.assert_allclose(descend(within), 0.9 * within)


@pytest.mark.parametrize(("order", "slope"), [("second", 0.9**2), ("first", 1.0)])
def test_the_first_order_takes_the_gradients_for_constants(order, slope):
    config = InnerLoop(inner_steps=2, inner_lr=0.1, order=order)
    derivative = jax.jit(jax.grad(lambda start: inner_loop.descend(config, shrink, start)))(2.0)
    np.testing.assert_allclose(derivative, slope)


@pytest.mark.parametrize("loop", ["scan", "unroll"])
@pytest.mark.parametrize("count", [1, 3, inner_loop.UNROLLED, inner_loop.UNROLLED + 2])
def test_every_step_gets_its_row_and_leaves_its_note(count, loop):
    def step(total, row):
        return total + row, 10 * total

    rows = np.arange(1.0, count + 1)
    repeat = jax.jit(functools.partial(inner_loop.repeat, InnerSteps(count, loop=loop), step))
    total, notes = repeat(np.zeros(()), rows)
    np.testing.assert_allclose(total, rows.sum())
    np.testing.assert_allclose(notes, 10 * (np.cumsum(rows) - rows))


def test_without_steps_the_state_stays_and_there_are_no_notes():
    state = jnp.ones(2)
    assert inner_loop.repeat(InnerSteps(0), lambda state, row: (-state, row), state) == (state, ())


@pytest.mark.parametrize("counts", [(0,), (0, 1, 4), (2, 3), (5,)])
def test_what_is_noted_at_the_points_is_the_state_after_their_steps(counts):
    def step(total, row):
        return total + row, ()

    points, rows = base.Points(counts, lambda learner: 10 * learner), jnp.arange(1.0, counts[-1] + 1)
    noted = jax.jit(lambda start: inner_loop.watch(points, step, start, lambda total: -total, rows))(
        jnp.asarray(0.5)
    )
    np.testing.assert_allclose(noted, [-10 * (0.5 + count * (count + 1) / 2) for count in counts])
