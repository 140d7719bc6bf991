"""The checks of signatures that all tests run under are those of jaxtyping, written once for many functions."""

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
import jaxtyping
import pytest
from jaxtyping import Array, Float

from helpers import type_checks
from metarun import losses
from metarun.config import schema


def make_scale(kind: type, factor: float):
    """Return an inner function that a def makes anew, with the type `kind` in its signature."""

    @jaxtyping.jaxtyped(typechecker=None)
    def scale(values: Float[Array, "row column"], number: kind = factor) -> Float[Array, "column row"]:
        return (values * number).T if factor else values

    return scale


def test_each_inner_function_runs_its_own_body_under_the_same_checks():
    values = jnp.ones((2, 3))
    before = len(type_checks.written)
    double, triple = make_scale(float, 2.0), make_scale(float, 3.0)
    assert double(values)[0, 0] == 2 and triple(values)[0, 0] == 3
    assert len(type_checks.written) == before + 1
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


@type_checks.check
def repeat(values: Float[Array, "row"], count: int, *more: "int | None", word: str = "a") -> "list[Array]":
    return [values] * count


@type_checks.check
def draw(count: int) -> Float[Array, "{count}"]:
    return jnp.ones(3)


@type_checks.check
def count_up(last: int) -> Iterator[int]:
    yield from range(last)


@type_checks.check
@dataclasses.dataclass(frozen=True)
class Pair:
    left: int
    right: str = "b"


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: repeat(jnp.ones(2), 1, "one"), "more"),
        (lambda: repeat(jnp.ones(2), 1, word=2), "word"),
        (lambda: draw(4), "return value"),
        (lambda: count_up("3"), "last"),
        (lambda: Pair("1"), "left"),
        (lambda: Pair(1, 2), "right"),
        (lambda: losses.cross_entropy(jnp.ones((2, 3)), jnp.zeros(3, jnp.int32)), "cross_entropy"),
        (lambda: schema.Training(steps="many"), "steps"),
    ],
    ids=["more", "word", "draw", "count_up", "left", "right", "cross_entropy", "steps"],
)
def test_what_a_signature_does_not_allow_is_an_error(call, word):
    with pytest.raises(jaxtyping.TypeCheckError, match=word):
        call()


def test_what_a_signature_allows_passes_and_keeps_its_name():
    assert draw(3).shape == (3,) and list(count_up(2)) == [0, 1]
    assert Pair(1) == Pair(1, "b") and repeat(jnp.ones(2), 0, 1, None, word="b") == []
    assert repeat.__name__ == "repeat" and repeat.__wrapped__.__code__.co_argcount == 2


def test_a_call_that_does_not_fit_is_the_error_of_python():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'count'"):
        repeat(jnp.ones(2))
