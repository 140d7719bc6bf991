"""A task as one long vector, from the network of an earlier stage: gradients, Fisher information, changes, features."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from metarun import base, trees
from metarun.algorithms.task_embedding import solver_network
from metarun.base import PyTree
from metarun.blocks import metric_space

if TYPE_CHECKING:
    from metarun.algorithms.task_embedding import Config


def make_vector(config: "Config", model: base.Model, problem: base.Problem) -> Callable:
    """Make (params, support) -> the scaled vector [feature] of `config.source`, before any reduction."""
    compute_outputs, loss = solver_network.make_loss(config, model, problem)
    descend = solver_network.make_descent(config, loss)

    def compute_vector(params, support: base.Examples):
        match config.source:
            case "gradient":
                vector = compute_gradient(loss, params, support, config.parameters)
            case "adapted":
                vector = compute_change(descend, params, support, config.parameters)
            case "fisher":
                params = descend(params, support)
                vector = compute_fisher(compute_outputs, params, support, config.parameters, problem.spec)
            case _:
                vector = pool_features(model, params, support, problem.spec)
        return scale(vector, config.scaling)

    return compute_vector


def compute_gradient(
    loss: Callable, params: PyTree, support: base.Examples, parameters: str
) -> Float[Array, "feature"]:
    """Return ∇L_S at the network."""
    return flatten(jax.grad(loss)(params, support), parameters)


def compute_change(
    descend: Callable, params: PyTree, support: base.Examples, parameters: str
) -> Float[Array, "feature"]:
    """Return θ_K − θ_0."""
    change = jax.tree.map(jnp.subtract, descend(params, support), params)
    return flatten(change, parameters)


def compute_fisher(
    compute_outputs: Callable, params: PyTree, support: base.Examples, parameters: str, spec: base.Spec
) -> Float[Array, "feature"]:
    """Return the diagonal of the Fisher information of the support's inputs under the network's own distribution.

    It is the mean over the examples of E_{y ~ p(y|x)} (∂ log p(y|x) / ∂θ)², exact: one backward pass for every output
    of every example. For numbers p is the normal distribution of variance 1 around the output.
    """
    classifies = spec.targets == "classes"
    values, pull = jax.vjp(lambda params: compute_outputs(params, support), params)
    examples, size = values.shape
    chances = jax.nn.softmax(values) if classifies else jnp.ones_like(values)

    def add(total, place):
        example, output = place // size, place % size
        slope = jax.nn.one_hot(output, size, dtype=values.dtype)
        slope = slope - chances[example] if classifies else slope
        (derivative,) = pull(jnp.zeros_like(values).at[example].set(slope))
        square = jnp.square(flatten(derivative, parameters))
        return total + chances[example, output] * square, None

    start = jnp.zeros_like(flatten(params, parameters))
    return jax.lax.scan(add, start, jnp.arange(examples * size))[0] / examples


def pool_features(
    model: base.Model, params: PyTree, support: base.Examples, spec: base.Spec
) -> Float[Array, "feature"]:
    """Return the mean of the features φ(x); for numbers y, the means of φ(x), y and φ(x)·y."""
    features = model.embed(params, support.inputs, reference=support.inputs)
    if spec.targets == "classes":
        return features.mean(axis=0)
    products = (features[:, :, None] * support.targets[:, None, :]).reshape(len(features), -1)
    return jnp.concatenate([features, support.targets, products], axis=1).mean(axis=0)


def flatten(tree: PyTree, parameters: str) -> Float[Array, "feature"]:
    """Return the numbers of a tree like the parameters as one vector: "all", or those of the "head" or the "body"."""
    chosen, _ = trees.partition(
        tree, lambda path: parameters == "all" or (path[:1] == (base.HEAD,)) == (parameters == "head")
    )
    return ravel_pytree(chosen)[0]


def scale(vector: Float[Array, "feature"], scaling: str) -> Float[Array, "feature"]:
    """Return the vector as it is ("none"), at length 1 ("unit"), or as "logarithm".

    That is sign(v)·log(1 + |v|/m), with m the mean of |v|.
    """
    if scaling == "unit":
        return metric_space.unit(vector[None])[0]
    if scaling == "logarithm":
        size = jnp.abs(vector)
        return jnp.sign(vector) * jnp.log1p(size / jnp.maximum(size.mean(), jnp.finfo(vector.dtype).tiny))
    return vector
