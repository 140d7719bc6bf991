"""What several tests share: plug-ins at a size for tests, derivatives by differences, comparisons of trees."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarun import base, errors, losses, plugins

# Options that make any plug-in small and quick, where it has them.
TINY = {
    "model": {"width": 4, "depth": 2, "hidden": (8, 8)},
    "task": {},
    "algorithm": {"inner_lr": 0.1},
}
SPECS = (base.Spec((8, 8, 1), 3), base.Spec((3,), 2))  # a model is tested with the first that it accepts


def options(kind: str, name: str, **given: Any) -> dict[str, Any]:
    """The given options, and the tiny ones, of those that the plug-in has."""
    known = {field.name for field in plugins.fields(kind, name)}
    return {key: value for key, value in (TINY[kind] | given).items() if key in known}


def build_model(name: str, spec: base.Spec, **given: Any) -> base.Model:
    module = plugins.load("model", name)
    return module.build(module.Config(**options("model", name, **given)), spec)


def build_algorithm(name: str, model: base.Model, objective: base.Objective, **given: Any) -> base.Algorithm:
    module = plugins.load("algorithm", name)
    return module.build(module.Config(**options("algorithm", name, **given)), model, objective, {})


def build_task(name: str, **given: Any) -> base.TaskFamily:
    """The family; skips the test where there are no data sets at all."""
    module = plugins.load("task", name)
    try:
        return module.build(module.Config(**given))
    except errors.DataError as error:
        if os.environ.get("METARUN_DATA"):
            raise
        pytest.skip(f"set METARUN_DATA: {error.what}")


def blobs(ways: int = 3, shots: int = 4) -> base.TaskFamily:
    """Classification of points around random centres: as small a family as there is, without data."""

    def sample(data, key) -> base.Episode:
        centre_key, support_key, query_key = jax.random.split(key, 3)
        centres = 2 * jax.random.normal(centre_key, (ways, 4))
        labels = jnp.repeat(jnp.arange(ways, dtype=jnp.int32), shots)

        def around(key):
            return base.Examples(centres[labels] + 0.5 * jax.random.normal(key, (ways * shots, 4)), labels)

        return base.Episode(around(support_key), around(query_key), {"centres": centres})

    return base.TaskFamily({"train": (), "test": ()}, sample, losses.classification(), base.Spec((4,), ways))


def transductive(model: base.Model) -> base.Model:
    """The model that lets every batch normalise itself."""

    def alone(function):
        return lambda params, inputs, *, condition=None, reference=None: function(
            params, inputs, condition=condition
        )

    return base.Model(model.init, alone(model.apply), alone(model.embed))


class Counted:
    """A function that counts how often its body runs: under jit, how often it is traced."""

    def __init__(self, function: Callable) -> None:
        self.function, self.traces = function, 0

    def __call__(self, *arguments):
        self.traces += 1
        return self.function(*arguments)


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Computation in double precision, for derivatives by differences."""
    with jax.enable_x64(True):
        yield


def to_float64(tree):
    """The tree with its floating leaves in double precision; call it within `float64()`."""

    def convert(leaf):
        leaf = np.asarray(leaf)
        return jnp.asarray(leaf.astype(np.float64) if leaf.dtype.kind == "f" else leaf)

    return jax.tree.map(convert, tree)


def normal_like(tree, seed: int):
    """Standard normal numbers in the shapes and dtypes of the tree."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(generator.standard_normal(leaf.shape).astype(leaf.dtype)), tree
    )


def dot(left, right) -> float:
    """The sum of the products of all numbers."""
    return sum(float(np.vdot(*pair)) for pair in zip(*map(jax.tree.leaves, (left, right)), strict=True))


def assert_gradient_is_that_of(function: Callable, gradient, point, directions: int = 3) -> None:
    """Compares a gradient with central differences along random unit directions, in float64.

    With this step the error of the difference, h², is that of rounding, 1e-16/h: about 1e-10.
    """
    step, function = 1e-5, jax.jit(function)
    for seed in range(directions):
        direction = normal_like(point, seed)
        length = dot(direction, direction) ** 0.5

        def along(distance, direction=direction, length=length):
            moved = jax.tree.map(
                lambda x, d: np.asarray(x) + distance / length * np.asarray(d), point, direction
            )
            return float(function(moved))

        difference = (along(step) - along(-step)) / (2 * step)
        np.testing.assert_allclose(dot(gradient, direction) / length, difference, rtol=1e-6, atol=1e-8)


def assert_close(actual, expected, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected)


def assert_equal(actual, expected) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def differ(left, right) -> bool:
    """Whether any leaf differs."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return any(not np.array_equal(*pair) for pair in pairs)


def kind_of(tree):
    """What jit looks at: structure, shapes, dtypes and weak types."""
    return jax.tree.map(lambda leaf: jax.typeof(leaf), tree)


def interval(values) -> tuple[float, float]:
    """The ends of the 95 % confidence interval of the mean of many independent values."""
    values = np.asarray(values, np.float64)
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half


def in_subprocess(code: str, devices: int = 1) -> str:
    """What `code` prints in a fresh interpreter with that many simulated devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
