"""A model whose parameters begin as those of a file of weights, all but its head and what a condition needs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base, trees
from metarun.backbones import contents
from metarun.errors import MetarunError


def start_from(model: base.Model, name: str, options: Mapping[str, Any], grid: tuple[int, int]) -> base.Model:
    """Return the model whose `init` reads the file of `options["weights"]`.

    The file is read when the compiled start runs. So its arrays are no constants of a program, and a finished run,
    whose start is only traced, opens without the file. If it cannot be read, the parameters are NaN, and
    `contents.raise_failures` says why.

    Args:
      name: of the model among the plug-ins.
      grid: rows and columns of the positions that the network has vectors for.
    """

    def init(key, inputs, *, condition=None):
        params = model.init(key, inputs, condition=condition)
        stored, others = trees.partition(params, is_stored)
        leaves, structure = jax.tree.flatten(stored)
        shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]

        def read() -> list[np.ndarray]:
            try:
                tree = contents.read_tree(name, options, grid)
            except MetarunError as error:
                contents.FAILURES.append(error)
                return [np.full(shape.shape, np.nan, shape.dtype) for shape in shapes]
            pairs = zip(jax.tree.leaves(tree), shapes, strict=True)
            return [np.asarray(leaf, shape.dtype) for leaf, shape in pairs]

        return trees.merge(structure.unflatten(jax.pure_callback(read, shapes)), others)

    return model._replace(init=init)


def is_stored(path: tuple[str, ...]) -> bool:
    """Return whether the parameters at a path are in the file: not those of the head, nor of a modulation."""
    return path[0] != base.HEAD and path[-1] not in base.MODULATION


def repeat_grey(inputs, channels: int):
    """Return pictures [example, height, width, channel] with as many channels; grey stands in all of them."""
    if inputs.shape[-1] == channels:
        return inputs
    return jnp.broadcast_to(inputs, (*inputs.shape[:-1], channels))
