"""Plug-ins at a size for tests, and the problems that they are built for."""

import atexit
import functools
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base, losses, plugins

# Options that make any plug-in small and quick, where it has them.
TINY: dict[str, dict[str, Any]] = {
    "model": {
        "width": 4,
        "depth": 2,
        "hidden": (8, 8),
        "multiples": (0.5,),
        "heads": 2,
        "feedforward": 8,
        "patch": 4,
        "blocks": (1, 1),
    },
    "algorithm": {"inner_lr": 0.1, "width": 32, "depth": 2, "heads": 4},
}
# A model is tested with the first of these that it accepts.
SPECS = (
    base.Spec((8, 8, 1), 3, "classes"),
    base.Spec((3,), 2, "numbers"),
    base.Spec((5,), 7, "tokens", vocabulary=6),
)


def make_problem(spec: base.Spec, **facts: Any) -> base.Problem:
    """Make the regression or the classification of a spec; `facts` are further fields of the problem."""
    objective = losses.regression() if spec.targets == "numbers" else losses.classification()
    return base.Problem(spec, objective, **facts)


def get_example(name: str) -> base.Example:
    """Return the smallest setting that the module of an algorithm declares."""
    example: base.Example = getattr(plugins.load("algorithm", name), "EXAMPLE", base.Example())
    return example


def select_options(kind: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the tiny options and these in their place, as far as the plug-in has them."""
    known = {field.name for field in plugins.list_fields(kind, name)}
    return {key: value for key, value in (TINY[kind] | options).items() if key in known}


def build_model(name: str, spec: base.Spec, **options: Any) -> base.Model:
    """Build a small model."""
    module = plugins.load("model", name)
    model: base.Model = module.build(module.Config(**select_options("model", name, options)), spec)
    return model


def build_algorithm(name: str, model: base.Model, problem: base.Problem, **options: Any) -> base.Algorithm:
    """Build a small algorithm on the earlier stages that it needs."""
    module, example = plugins.load("algorithm", name), get_example(name)
    earlier = {stage: build_algorithm(stage, model, problem) for stage in example.earlier}
    chosen = select_options("algorithm", name, {**example.options, **options})
    algorithm: base.Algorithm = module.build(module.Config(**chosen), model, problem, earlier)
    return algorithm


@functools.cache
def make_example_config(name: str) -> Any:
    """Return the config of a task family: the default, or one for files that are removed when the process ends."""
    module = plugins.load("task", name)
    if not hasattr(module, "example"):
        return module.Config()
    folder = tempfile.TemporaryDirectory(prefix="metarun-task-")
    atexit.register(folder.cleanup)
    return module.example(Path(folder.name))


def blobs(ways: int = 3, shots: int = 4, classes: int = 64) -> base.TaskFamily:
    """Return a classification of points around some of many centres: the smallest family, without data."""
    known = 2 * np.random.default_rng(0).standard_normal((classes, 4)).astype(np.float32)

    def sample(data, key) -> base.Episode:
        centre_key, support_key, query_key = jax.random.split(key, 3)
        chosen = jax.random.choice(centre_key, classes, (ways,), replace=False).astype(jnp.int32)
        centres = jnp.asarray(known)[chosen]
        labels = jnp.repeat(jnp.arange(ways, dtype=jnp.int32), shots)

        def around(key):
            return base.Examples(centres[labels] + 0.5 * jax.random.normal(key, (ways * shots, 4)), labels)

        return base.Episode(around(support_key), around(query_key), {"class": chosen, "centres": centres})

    spec = base.Spec((4,), ways, "classes")
    problem = make_problem(spec, training_classes=classes, relations=kinship(classes))
    return base.TaskFamily({"train": (), "test": ()}, sample, problem)


def curves() -> base.TaskFamily:
    """Return a regression: few points of sine curves."""
    module = plugins.load("task", "sinusoid")
    family: base.TaskFamily = module.build(module.Config(shots=6, queries=6, amplitude=(1.0, 3.0)))
    return family


FAMILIES = {"regression": curves, "classification": blobs}


def kinship(classes: int) -> base.Relations:
    """Return relations in which every eight classes, in order, are of one kind."""
    kinds = classes // 8
    names = [f"class{index}" for index in range(classes)] + [f"kin{index}" for index in range(kinds)]
    edges = tuple((index, classes + index // 8) for index in range(kinds * 8))
    return base.Relations(tuple(names), classes, edges, lambda facts: facts["class"])


def draw_inputs(spec: base.Spec, generator: np.random.Generator, count: int) -> base.PyTree:
    """Return inputs [example, ...] as a model for `spec` takes them: normal numbers, or random tokens, some padding."""
    if spec.vocabulary is None:
        return generator.standard_normal((count, *spec.input_shape)).astype(np.float32)
    shape = (count, *spec.input_shape)
    source = generator.integers(1, spec.vocabulary, shape).astype(np.int32)
    source[:, -1] = 0
    return {"source": source, "prefix": generator.integers(0, spec.output_size, shape).astype(np.int32)}
