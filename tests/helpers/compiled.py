"""Plug-ins whose functions are compiled as wholes.

Outside jit every operation is a program of its own, and compiling programs is most of the time of the tests.
"""

import functools

import jax
import numpy as np

from metarun import base


def compile_algorithm(algorithm: base.Algorithm) -> base.Algorithm:
    """Return the algorithm with its functions under jit."""
    names = [name for name in ("init", "loss", "adapt", "predict", "update") if getattr(algorithm, name)]
    return algorithm._replace(**{name: jax.jit(getattr(algorithm, name)) for name in names})


def compile_model(model: base.Model) -> base.Model:
    """Return the model with its functions under jit."""
    return base.Model(*map(jax.jit, model))


@functools.partial(jax.jit, static_argnums=0)
def answer(algorithm: base.Algorithm, weights: base.Weights, support: base.Examples, inputs: base.PyTree):
    """Return what the learner of the support predicts; one program for an algorithm."""
    return algorithm.predict(algorithm.adapt(weights, support), inputs)


def sample(family: base.TaskFamily, key, count: int, split: base.PyTree = ()) -> base.Episode:
    """Return episodes [task, ...]."""
    return jax.jit(jax.vmap(family.sample, in_axes=(None, 0)))(split, jax.random.split(key, count))


def select(batch: base.PyTree, index) -> base.PyTree:
    """Return the leaves at an index of their first axis, or in another order of it. In numpy a slice is no program."""
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)[index]), batch)
