"""What a support says of its task, as one long vector, by means of a network that an earlier stage has trained."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from metarun import base, errors
from metarun.algorithms import _features, _inner, _prototypes, _transfer
from metarun.base import PyTree


class Learner(NamedTuple):
    """A task as a vector, and what answers its queries."""

    embedding: Float[Array, "embed"]
    cluster: Float[Array, "cluster"] | None  # the membership in each; None without clusters
    solver: PyTree  # the learner of the base stage, or what the decoder needs


class Descent(NamedTuple):
    """Plain gradient steps on the support."""

    steps: int
    rate: float


def network_of(
    stage: str, weights: base.Weights, model: base.Model, inputs: PyTree, with_head: bool
) -> PyTree:
    """The parameters that an earlier stage has learned: the body, and `with_head` the last layer too.

    Raises:
      ConfigError: the stage has another model, or a last layer of another size or none.
    """
    body = _transfer.body_of(stage, weights, model, inputs)
    if not with_head:
        return body
    trained = weights.trained if _features.HEAD in weights.trained else weights.trained.get("params", {})
    params = body | {_features.HEAD: trained.get(_features.HEAD)}
    wanted = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs))
    if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, wanted):
        raise errors.ConfigError(
            f"the stage {stage} has no last layer of the model's size",
            "algorithm.head",
            "set head: means in a classification, or name a stage that trains one",
        )
    return params


def make_outputs(model: base.Model, ways: int | None) -> Callable:
    """(params, support) -> outputs for the support's own inputs.

    With `ways` these are the cosines with the class means of the features, times ten, and not the last layer's: they
    do not depend on which class has which label. The means are constants in every derivative.
    """

    def outputs(params, support: base.Examples):
        inputs = support.inputs
        if ways is None:
            return model.apply(params, inputs, reference=inputs)
        features = model.embed(params, inputs, reference=inputs)
        means = _prototypes.class_means(jax.lax.stop_gradient(features), support.targets, ways)
        return _prototypes.similarities(features, means, "cosine", None)

    return outputs


def chosen(params, parameters: str) -> PyTree:
    """The parameters, or changes of them, that count: "all", "head" or "body"."""
    return _inner.partition(
        params, lambda path: parameters == "all" or (path[:1] == (_features.HEAD,)) == (parameters == "head")
    )[0]


def make_adapt(loss: Callable, descent: Descent) -> Callable:
    """(params, support) -> the params after the steps on `loss`: (params, support) -> scalar."""

    def adapt(params, support: base.Examples):
        step = _inner.make_step(
            lambda params: jax.grad(loss)(params, support), optax.identity(), descent.rate, None, "first"
        )
        return _inner.repeat(step, (params, optax.EmptyState()), (), descent.steps, "scan")[0][0]

    return adapt


def gradient(loss: Callable, params, support: base.Examples, parameters: str) -> Float[Array, "feature"]:
    """∇L_S at the network."""
    return ravel_pytree(chosen(jax.grad(loss)(params, support), parameters))[0]


def change(adapt: Callable, params, support: base.Examples, parameters: str) -> Float[Array, "feature"]:
    """θ_K − θ_0."""
    moved = jax.tree.map(jnp.subtract, adapt(params, support), params)
    return ravel_pytree(chosen(moved, parameters))[0]


def fisher(
    outputs: Callable, params, support: base.Examples, parameters: str, labelled: bool
) -> Float[Array, "feature"]:
    """The diagonal of the Fisher information of the support's inputs under the network's own distribution.

    The mean over the examples of E_{y ~ p(y|x)} (∂ log p(y|x) / ∂θ)², exact: one backward pass for every output of
    every example. For numbers p is the normal distribution of variance 1 around the output.
    """
    values, pull = jax.vjp(lambda params: outputs(params, support), params)
    examples, size = values.shape
    chances = jax.nn.softmax(values) if labelled else jnp.ones_like(values)

    def add(total, place):
        example, output = place // size, place % size
        slope = jax.nn.one_hot(output, size, dtype=values.dtype)
        slope = slope - chances[example] if labelled else slope
        (derivative,) = pull(jnp.zeros_like(values).at[example].set(slope))
        square = jnp.square(ravel_pytree(chosen(derivative, parameters))[0])
        return total + chances[example, output] * square, None

    start = jnp.zeros_like(ravel_pytree(chosen(params, parameters))[0])
    return jax.lax.scan(add, start, jnp.arange(examples * size))[0] / examples


def pooled(model: base.Model, params, support: base.Examples, labelled: bool) -> Float[Array, "feature"]:
    """The mean of the features φ(x); of numbers y, the means of φ(x), y and φ(x)·y."""
    features = model.embed(params, support.inputs, reference=support.inputs)
    if labelled:
        return features.mean(axis=0)
    products = features[:, :, None] * support.targets[:, None, :]
    flat = products.reshape(len(features), -1)
    return jnp.concatenate([features, support.targets, flat], axis=1).mean(axis=0)


def scaled(vector: Float[Array, "feature"], scaling: str) -> Float[Array, "feature"]:
    """The vector as it is, at length 1 ("unit"), or sign(v)·log(1 + |v|/m) with m the mean of |v| ("logarithm")."""
    if scaling == "unit":
        return _prototypes.unit(vector[None])[0]
    if scaling == "logarithm":
        size = jnp.abs(vector)
        return jnp.sign(vector) * jnp.log1p(size / jnp.maximum(size.mean(), jnp.finfo(vector.dtype).tiny))
    return vector
