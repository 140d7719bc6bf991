"""What several tests share: plug-ins at a size for tests, derivatives by differences, comparisons of trees."""

import atexit
import contextlib
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from metarun import base, errors, losses, plugins

# Options that make any plug-in small and quick, where it has them.
TINY = {
    "model": {"width": 4, "depth": 2, "hidden": (8, 8), "multiples": (0.5,), "heads": 2, "feedforward": 8},
    "task": {},
    "algorithm": {"inner_lr": 0.1, "width": 32, "depth": 2, "heads": 4},
}
OWN = {
    "reptile": {"inner_lr": 0.02},
    "alfa": {"inner_lr": 0.02},
    "distillation": {"teachers": ("maml",), "student": "cavia"},
    "fusion": {"members": ("maml", "cavia")},
}  # of single plug-ins: nothing holds Reptile and ALFA back where 0.1 is too much for a task
# On these tasks these answer the same whatever the support is.
DEAF = {("pretrain", "regression")}
# The earlier stages that an algorithm needs, each named as its algorithm.
EARLIER = dict.fromkeys(("finetune", "logistic", "centroid"), ("pretrain",)) | {"task_embedding": ("maml",)}
EARLIER |= {"extraction": ("pretrain",)} | dict.fromkeys(("distillation", "fusion"), ("maml", "cavia"))
SPECS = (
    base.Spec((8, 8, 1), 3),
    base.Spec((3,), 2),
    base.Spec((5,), 7, vocabulary=6),
)  # a model is tested with the first that it accepts


def options(kind: str, name: str, **given: Any) -> dict[str, Any]:
    """The given options, and the tiny ones, of those that the plug-in has."""
    known = {field.name for field in plugins.fields(kind, name)}
    return {key: value for key, value in (TINY[kind] | OWN.get(name, {}) | given).items() if key in known}


def build_model(name: str, spec: base.Spec, **given: Any) -> base.Model:
    module = plugins.load("model", name)
    return module.build(module.Config(**options("model", name, **given)), spec)


def build_algorithm(name: str, model: base.Model, objective: base.Objective, **given: Any) -> base.Algorithm:
    """The algorithm, on the earlier stages that it needs."""
    module = plugins.load("algorithm", name)
    earlier = {stage: build_algorithm(stage, model, objective) for stage in EARLIER.get(name, ())}
    return module.build(module.Config(**options("algorithm", name, **given)), model, objective, earlier)


@functools.cache
def picture_folder(classes: int = 30, pictures: int = 6) -> str:
    """A folder of class folders of noise, 8×8 in colour; removed when the tests end."""
    folder = tempfile.TemporaryDirectory(prefix="metarun-pictures-")
    atexit.register(folder.cleanup)
    noise = np.random.default_rng(0).integers(0, 256, (classes, pictures, 8, 8, 3), dtype=np.uint8)
    for index, number in np.ndindex(classes, pictures):
        path = Path(folder.name) / f"class{index:02}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise[index, number]).save(path)
    return folder.name


@functools.cache
def text_folder(pairs: int = 10, lines: int = 340) -> str:
    """A folder of pairs of made-up languages, half of them tables; removed when the tests end."""
    folder = tempfile.TemporaryDirectory(prefix="metarun-text-")
    atexit.register(folder.cleanup)
    generator = np.random.default_rng(0)
    syllables = np.array(["ba", "do", "gi", "ku", "le", "mä", "no", "ру", "λι", "ste"])
    for index in range(pairs):
        words = syllables[generator.integers(0, 10, (2, lines, 4, 2))]
        sides = [[" ".join("".join(word) for word in sentence) for sentence in side] for side in words]
        place = Path(folder.name) / f"l{index}-m{index}"
        if index % 2:
            table = "\n".join("\t".join(row) for row in zip(*sides, strict=True))
            place.with_suffix(".tsv").write_text(table, "utf-8")
        else:
            place.mkdir()
            for language, side in zip(("l", "m"), sides, strict=True):
                (place / f"{language}{index}.txt").write_text("\n".join(side) + "\n", "utf-8")
    return folder.name


def build_task(name: str, **given: Any) -> base.TaskFamily:
    """The family; skips the test where there are no data sets at all."""
    if name == "image_folder":
        given = {"folder": picture_folder(), "size": 8, **given}
    if name == "parallel_text":
        given = {"folder": text_folder(), "vocabulary": 320, "holdout": "sentences", **given}
    module = plugins.load("task", name)
    try:
        return module.build(module.Config(**given))
    except errors.DataError as error:
        if os.environ.get("METARUN_DATA"):
            raise
        pytest.skip(f"set METARUN_DATA: {error.what}")


def blobs(ways: int = 3, shots: int = 4, classes: int = 64) -> base.TaskFamily:
    """Classification of points around some of many centres: as small a family as there is, without data."""
    known = 2 * np.random.default_rng(0).standard_normal((classes, 4)).astype(np.float32)

    def sample(data, key) -> base.Episode:
        centre_key, support_key, query_key = jax.random.split(key, 3)
        chosen = jax.random.choice(centre_key, classes, (ways,), replace=False).astype(jnp.int32)
        centres = jnp.asarray(known)[chosen]
        labels = jnp.repeat(jnp.arange(ways, dtype=jnp.int32), shots)

        def around(key):
            return base.Examples(centres[labels] + 0.5 * jax.random.normal(key, (ways * shots, 4)), labels)

        return base.Episode(around(support_key), around(query_key), {"class": chosen, "centres": centres})

    names = [f"class{index}" for index in range(classes)] + [f"kin{index}" for index in range(classes // 8)]
    edges = tuple((index, classes + index // 8) for index in range(classes // 8 * 8))
    relations = base.Relations(tuple(names), classes, edges, lambda facts: facts["class"])
    objective = losses.classification(ways, classes)._replace(relations=relations)
    return base.TaskFamily({"train": (), "test": ()}, sample, objective, base.Spec((4,), ways))


def inputs_for(spec: base.Spec, generator: np.random.Generator, count: int):
    """Inputs [example, ...] as a model for `spec` takes them: normal numbers, or random tokens, some padding."""
    if spec.vocabulary is None:
        return generator.standard_normal((count, *spec.input_shape)).astype(np.float32)
    shape = (count, *spec.input_shape)
    source = generator.integers(1, spec.vocabulary, shape).astype(np.int32)
    source[:, -1] = 0
    return {"source": source, "prefix": generator.integers(0, spec.output_size, shape).astype(np.int32)}


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
