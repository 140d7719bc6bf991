"""Weight matching: the permutation of hidden units that brings one network nearest to another.

A network computes the same when the units of a hidden layer change places, if the columns of its matrix, its biases,
scales and offsets, and the rows of the next matrix change with them. Weight matching (Ainsworth, Hayase, Srinivasa
2022, arXiv 2209.04836, algorithm 1) maximises Σ ⟨A, π(B)⟩ over all arrays, one layer at a time with the others fixed:
each is a linear assignment, which is solved exactly. No layer makes the sum smaller, and there are finitely many
orders, so that the passes end.

A network must be a chain of layers, dense or convolutions, as `mlp` and `conv4` are; any other is refused.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from metarun import base, errors, trees
from metarun.base import PyTree

PASSES = 20  # over all layers; our networks of two to four hidden layers stand still after fewer than ten
ROOTS = ("params", "body")  # the keys under which some algorithms keep a model's parameters


class Place(NamedTuple):
    """An axis of an array along which the units of a layer stand."""

    leaf: int  # place of the array among the leaves
    axis: int  # of the array in its unfolded shape


class Chain(NamedTuple):
    """The hidden layers of a network, from the inputs to the outputs."""

    # The shape of every leaf. Rows of a matrix that stand for position and channel are two axes.
    shapes: list[tuple[int, ...]]
    layers: list[list[Place]]  # for each hidden layer, every place where its units stand


def align(reference: PyTree, network: PyTree) -> PyTree:
    """Return the network with its hidden units in the order that is nearest to the reference's.

    Raises:
      ConfigError: the weights are no chain of layers.
    """
    chain = find_chain(reference)
    fixed = [leaf.reshape(s) for leaf, s in zip(jax.tree.leaves(reference), chain.shapes, strict=True)]
    moving = [leaf.reshape(s) for leaf, s in zip(jax.tree.leaves(network), chain.shapes, strict=True)]

    def one_pass(_, moving):
        for places in chain.layers:
            products = sum(compare_units(fixed[leaf], moving[leaf], axis) for leaf, axis in places)
            order = assign(products)
            for leaf, axis in places:
                moving[leaf] = jnp.take(moving[leaf], order, axis=axis)
        return moving

    moving = jax.lax.fori_loop(0, PASSES, one_pass, moving)
    return jax.tree.unflatten(
        jax.tree.structure(network),
        [leaf.reshape(old.shape) for leaf, old in zip(moving, jax.tree.leaves(network), strict=True)],
    )


def compare_units(left: Array, right: Array, axis: int) -> Float[Array, "unit unit"]:
    """Return the scalar product of every pair of slices along an axis."""
    rows = [jnp.moveaxis(leaf, axis, 0).reshape(leaf.shape[axis], -1) for leaf in (left, right)]
    return rows[0] @ rows[1].T


def assign(products: Float[Array, "unit unit"]) -> Int[Array, "unit"]:
    """Return the order of the second's units with the largest Σ_i products[i, order[i]]."""
    rows, columns = optax.assignment.hungarian_algorithm(-products)
    return jnp.zeros(products.shape[0], columns.dtype).at[rows].set(columns)


def find_chain(weights: PyTree) -> Chain:
    """Find the layers by the names and shapes of the arrays: `kernel` of a numbered layer, and of the `head` at last.

    Raises:
      ConfigError: an array has no place in a chain of layers.
    """
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    paths = [strip(trees.path_names(path)) for path, _ in leaves]
    shapes = [leaf.shape for _, leaf in leaves]
    kernels = sorted(
        (find_number(path), index)
        for index, path in enumerate(paths)
        if path[-1] == base.KERNEL and shapes[index]
    )
    layers: list[list[Place]] = [[] for _ in kernels[:-1]]
    for position, (number, index) in enumerate(kernels):
        if len(paths[index]) != 2 or number != (position if position < len(kernels) - 1 else float("inf")):
            raise make_refusal(paths[index])
        if position:
            before = shapes[kernels[position - 1][1]][-1]
            shapes[index] = unfold(shapes[index], before, paths[index])
            layers[position - 1].append(Place(index, len(shapes[index]) - 2))
        if position < len(layers):
            layers[position].append(Place(index, len(shapes[index]) - 1))
    for index, path in enumerate(paths):
        if shapes[index] and path[-1] != base.KERNEL:
            add_vector(layers, index, path, shapes)
    return Chain(shapes, layers)


def add_vector(layers: list[list[Place]], index: int, path: tuple[str, ...], shapes: list) -> None:
    """Add a bias, scale or offset to the places of its layer; those of the last layer stay where they are."""
    number = find_number(path)
    if number == float("inf"):
        return
    if not 0 <= number < len(layers) or shapes[index] != shapes[layers[int(number)][0].leaf][-1:]:
        raise make_refusal(path)
    layers[int(number)].append(Place(index, 0))


def unfold(shape: tuple[int, ...], before: int, path: tuple[str, ...]) -> tuple[int, ...]:
    """Return the shape of a matrix with an axis of its own for the units of the layer before, `before` of them.

    The other rows are positions: a matrix behind flattened features has rows of position and channel.
    """
    *window, rows, columns = shape
    if rows % before or (window and rows != before):
        raise make_refusal(path)
    return (*window, rows // before, before, columns)


def strip(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the path without the key under which an algorithm keeps the model's parameters."""
    return path[1:] if path[0] in ROOTS else path


def find_number(path: tuple[str, ...]) -> float:
    """Return the place of a layer in the network, from 0: infinity for the last layer, −1 for what has no number."""
    if path[0] == base.HEAD:
        return float("inf")
    match = re.fullmatch(r"[a-z]+_(\d+)", path[0])
    return int(match[1]) if match else -1


def make_refusal(path: tuple[str, ...]) -> errors.ConfigError:
    """Make the error for an array that is no part of a chain of layers."""
    return errors.ConfigError(
        f"rebasin knows chains of dense layers and convolutions, and {'/'.join(path)} is no part of one",
        "algorithm.kind",
        "take members of the model mlp or conv4 with plain weights, or another kind, such as average",
    )
