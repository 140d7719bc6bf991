"""What a learner is made from beside its support's gradients: a vector e of the task, and what is generated from it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun import base, errors
from metarun.algorithms import _features, _inner, _network, _prototypes
from metarun.base import PyTree

FIRST_SCALE = (
    0.1  # of the last layer of a generator before training: what it writes is small beside what it adds to
)


class Sizes(NamedTuple):
    """Of a set encoder."""

    width: int  # units of its hidden layers
    depth: int  # layers before the mean
    embed: int  # numbers of e


def init_encoder(key: PRNGKeyArray, model: base.Model, support: base.Examples, sizes: Sizes) -> PyTree:
    """A set encoder (Zaheer et al. 2017, Deep Sets, arXiv 1703.06114): "pair" before the mean, "whole" after it.

    Inputs that are vectors are read as they are; others through a "body" of its own, that of the model.
    """
    body_key, pair_key, whole_key = jax.random.split(key, 3)
    inputs, layers = support.inputs, {}
    size, summaries = inputs.shape[-1] if is_vectors(inputs) else 0, 1
    if not size:
        layers["body"] = _features.init_body(model, body_key, inputs)
        size = _features.width(model, layers["body"], inputs)
    if is_labels(support.targets):
        summaries = _features.output_size(model, inputs)
    else:
        size += support.targets.shape[-1]
    return layers | {
        "pair": _network.init_perceptron(pair_key, [size, *[sizes.width] * sizes.depth]),
        "whole": _network.init_perceptron(whole_key, [summaries * sizes.width, sizes.width, sizes.embed]),
    }


def encode(layers: PyTree, model: base.Model, support: base.Examples) -> Float[Array, "embed"]:
    """e of a support, whatever the order of its examples.

    In regression whole(mean of pair(x, y)); in classification whole(the means of pair(x) over each class, in the order
    of their labels): a label beside x would leave it to the perceptron to multiply the two. A class without examples
    has a mean of zero.
    """
    read = support.inputs
    if "body" in layers:
        read = model.embed(layers["body"], read, reference=read)
    if not is_labels(support.targets):
        pairs = jax.nn.relu(
            _network.perceptron(layers["pair"], jnp.concatenate([read, support.targets], axis=-1))
        )
        return _network.perceptron(layers["whole"], pairs.mean(axis=0))
    examples = jax.nn.relu(_network.perceptron(layers["pair"], read))
    ways = layers["whole"][0]["kernel"].shape[0] // examples.shape[-1]
    means = _prototypes.class_means(examples, support.targets, ways)
    return _network.perceptron(layers["whole"], means.reshape(-1))


def is_labels(targets: PyTree) -> bool:
    """Whether targets are class labels, int32 [example], and not numbers."""
    return bool(jnp.issubdtype(targets.dtype, jnp.integer))


def is_vectors(inputs: PyTree) -> bool:
    """Whether an example is a vector of numbers: not a picture, nor tokens."""
    return getattr(inputs, "ndim", 0) == 2 and jnp.issubdtype(inputs.dtype, jnp.floating)


def init_generator(key: PRNGKeyArray, inputs: int, width: int, outputs: int) -> PyTree:
    """A perceptron with one hidden layer, whose last layer begins FIRST_SCALE times as large as others."""
    first, last = _network.init_perceptron(key, [inputs, width, outputs])
    return [first, jax.tree.map(lambda leaf: FIRST_SCALE * leaf, last)]


def generate(layers: PyTree, vector: Float[Array, "embed"], like: PyTree) -> PyTree:
    """What the generator writes for e, in the shapes of `like`, whose size it was made for."""
    _, unravel = jax.flatten_util.ravel_pytree(like)
    return unravel(_network.perceptron(layers, vector))


def add(left: PyTree, right: PyTree) -> PyTree:
    """The sum, leaf by leaf."""
    return jax.tree.map(jnp.add, left, right)


def mix(shares: Float[Array, "member"], members: PyTree) -> PyTree:
    """Σ_m shares_m · members_m, of leaves [member, ...]."""
    return jax.tree.map(lambda leaf: jnp.tensordot(shares, leaf, axes=1), members)


def init_model(model: base.Model, key: PRNGKeyArray, inputs: PyTree, condition: Array | None) -> PyTree:
    """The model's parameters for a condition of this size; None: for none.

    Raises:
      ConfigError: the model takes no condition.
    """
    try:
        return model.init(key, inputs, condition=condition)
    except ValueError as refusal:
        raise errors.ConfigError(
            f"modulation needs a model that takes a condition: {refusal}",
            "model",
            "take model.name=mlp with model.modulation=features, or conv4",
        ) from refusal


def is_modulation(path: tuple[str, ...]) -> bool:
    """Whether parameters map a condition to a modulation: see metarun/models/_normalisation.py."""
    return path[-1:] in (("scale_map",), ("offset_map",))


def adapting(params: PyTree) -> PyTree:
    """What the inner loop changes, with None in place of the rest: all but the modulation's own maps."""
    return _inner.partition(params, is_modulation)[1]


def equal_rates(params: PyTree, rate: Any) -> PyTree:
    """The same step size for every array that adapts."""
    return jax.tree.map(lambda leaf: rate, adapting(params))


def descend(gradient: Callable, params: PyTree, rates: PyTree, config: Any) -> PyTree:
    """The parameters after all inner steps, θ − rates ∘ ∇L_S(θ) each.

    Args:
      gradient: params -> the gradient of the support loss at them.
      rates: of every array that adapts one number, or as many as it has.
      config: with inner_steps, inner_clip_norm, order, loop and rematerialise.
    """
    fixed, fast = _inner.partition(params, is_modulation)

    def step(fast, _):
        slope = adapting(gradient(_inner.merge(fast, fixed)))
        slope = _inner.bounded(slope, config.inner_clip_norm, config.order)
        return jax.tree.map(lambda leaf, rate, each: leaf - rate * each, fast, rates, slope), ()

    fast, _ = _inner.repeat(step, fast, (), config.inner_steps, config.loop, config.rematerialise)
    return _inner.merge(fast, fixed)
