"""The checks of signatures that all tests run under are not lost where they are written once for many functions."""

import jax.numpy as jnp
import jaxtyping
import pytest
from jaxtyping import Array, Float

from helpers import type_checks

checked = jaxtyping.jaxtyped(typechecker=type_checks.check)


def make_scale(kind: type, factor: float):
    """Return an inner function that a def makes anew, with the type `kind` in its signature."""

    @checked
    def scale(values: Float[Array, "row column"], number: kind = factor) -> Float[Array, "column row"]:
        return (values * number).T if factor else values

    return scale


def test_each_inner_function_runs_its_own_body_under_the_same_checks():
    values = jnp.ones((2, 3))
    before = len(type_checks.written)
    double, triple = make_scale(float, 2.0), make_scale(float, 3.0)
    assert len(type_checks.written) == before + 2  # of the arguments, and of the result
    assert double(values)[0, 0] == 2 and triple(values)[0, 0] == 3
    for scale in (double, triple):
        with pytest.raises(jaxtyping.TypeCheckError, match="values"):
            scale(jnp.ones(3))
        with pytest.raises(jaxtyping.TypeCheckError, match="number"):
            scale(values, "2")
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        make_scale(float, 0.0)(values)


def test_a_function_with_another_type_at_the_same_place_has_checks_of_its_own():
    values = jnp.ones((2, 3))
    assert make_scale(float, 2.0)(values, 1.5).shape == (3, 2)
    with pytest.raises(jaxtyping.TypeCheckError, match="number"):
        make_scale(str, 2.0)(values, 1.5)
