"""Networks in one order of their units: the permutation of hidden units that brings one network nearest to another.

A network computes the same when the units of a hidden layer change places, if the columns of its matrix, its biases,
scales and offsets, and the rows of the next matrix change with them. Weight matching (Ainsworth, Hayase, Srinivasa
2022, arXiv 2209.04836, algorithm 1) maximises Σ ⟨A, π(B)⟩ over all arrays, one layer at a time with the others fixed:
each is a linear assignment, which is solved exactly. No layer makes the sum smaller, and it is finite: the passes end.

What is known is a chain of layers, dense or convolutions, as `mlp` and `conv4` have: all else is refused.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from metarun import errors
from metarun.algorithms import _features, _inner
from metarun.base import PyTree

PASSES = 20  # over all layers; our networks of two to four hidden layers stand still after fewer than ten
ROOTS = ("params", "body")  # the keys under which some algorithms keep a model's parameters


class Place(NamedTuple):
    """An axis of an array along which the units of a layer stand."""

    leaf: int  # place of the array among the leaves
    axis: int  # of the array in its unfolded shape


class Chain(NamedTuple):
    """The hidden layers of a network, from the inputs to the outputs."""

    shapes: list[tuple[int, ...]]  # of every leaf, where rows that are position and channel are two axes
    layers: list[list[Place]]  # every place of the units of each hidden layer


def align(reference: PyTree, network: PyTree) -> PyTree:
    """The network with its hidden units in the order that is nearest to the reference's.

    Raises:
      ConfigError: the weights are no chain of layers.
    """
    chain = find_chain(reference)
    fixed = [leaf.reshape(s) for leaf, s in zip(jax.tree.leaves(reference), chain.shapes, strict=True)]
    moving = [leaf.reshape(s) for leaf, s in zip(jax.tree.leaves(network), chain.shapes, strict=True)]

    def one_pass(_, moving):
        for places in chain.layers:
            products = sum(similarity(fixed[leaf], moving[leaf], axis) for leaf, axis in places)
            order = assignment(products)
            for leaf, axis in places:
                moving[leaf] = jnp.take(moving[leaf], order, axis=axis)
        return moving

    moving = jax.lax.fori_loop(0, PASSES, one_pass, moving)
    return jax.tree.unflatten(
        jax.tree.structure(network),
        [leaf.reshape(old.shape) for leaf, old in zip(moving, jax.tree.leaves(network), strict=True)],
    )


def similarity(left: Array, right: Array, axis: int) -> Float[Array, "unit unit"]:
    """The scalar product of every pair of slices along an axis."""
    rows = [jnp.moveaxis(leaf, axis, 0).reshape(leaf.shape[axis], -1) for leaf in (left, right)]
    return rows[0] @ rows[1].T


def assignment(products: Float[Array, "unit unit"]) -> Int[Array, "unit"]:
    """The order of the second's units with the largest Σ_i products[i, order[i]]."""
    rows, columns = optax.assignment.hungarian_algorithm(-products)
    return jnp.zeros(products.shape[0], columns.dtype).at[rows].set(columns)


def find_chain(weights: PyTree) -> Chain:
    """The layers by the names and shapes of the arrays: `kernel` of a numbered layer, the last one `head`."""
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    paths = [strip(_inner.names(path)) for path, _ in leaves]
    shapes = [leaf.shape for _, leaf in leaves]
    kernels = sorted(
        (number_of(path), index) for index, path in enumerate(paths) if path[-1] == "kernel" and shapes[index]
    )
    layers: list[list[Place]] = [[] for _ in kernels[:-1]]
    for position, (number, index) in enumerate(kernels):
        if len(paths[index]) != 2 or number != (position if position < len(kernels) - 1 else float("inf")):
            raise refusal("/".join(paths[index]))
        if position:
            before = shapes[kernels[position - 1][1]][-1]
            shapes[index] = unfold(shapes[index], before, "/".join(paths[index]))
            layers[position - 1].append(Place(index, len(shapes[index]) - 2))
        if position < len(layers):
            layers[position].append(Place(index, len(shapes[index]) - 1))
    for index, path in enumerate(paths):
        if shapes[index] and path[-1] != "kernel":
            add_vector(layers, index, path, shapes)
    return Chain(shapes, layers)


def add_vector(layers: list[list[Place]], index: int, path: tuple[str, ...], shapes: list) -> None:
    """Note a bias, scale or offset as a place of its layer; the last layer's stay where they are."""
    number = number_of(path)
    if number == float("inf"):
        return
    if number >= len(layers) or shapes[index] != shapes[layers[int(number)][0].leaf][-1:]:
        raise refusal("/".join(path))
    layers[int(number)].append(Place(index, 0))


def unfold(shape: tuple[int, ...], before: int, name: str) -> tuple[int, ...]:
    """The shape of a matrix whose inputs are the units of the layer before, perhaps at many positions."""
    *window, rows, columns = shape
    if rows % before or (window and rows != before):
        raise refusal(name)
    return (*window, rows // before, before, columns)


def strip(path: tuple[str, ...]) -> tuple[str, ...]:
    """The path without the key under which an algorithm keeps the model's parameters."""
    return path[1:] if path[0] in ROOTS else path


def number_of(path: tuple[str, ...]) -> float:
    """Which layer of the network, from 0; infinity for the last; −1 for what has no number."""
    if path[0] == _features.HEAD:
        return float("inf")
    found = re.fullmatch(r"[a-z]+_(\d+)", path[0])
    return int(found[1]) if found else -1


def refusal(name: str) -> errors.ConfigError:
    """What to say of an array that is no part of a chain of layers."""
    return errors.ConfigError(
        f"rebasin knows chains of dense layers and convolutions, and {name} is no part of one",
        "algorithm.kind",
        "take members of the model mlp or conv4 with plain weights, or another kind, such as average",
    )
