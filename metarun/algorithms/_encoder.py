"""An encoder of a support set to a vector, a decoder that answers from it, and what holds the vectors together."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun import base
from metarun.algorithms import _features, _network, _prototypes
from metarun.base import PyTree

LEAST_DEVIATION = 1e-3  # of a posterior, beside the prior's 1


@dataclass(frozen=True)
class Shape:
    """The size of the networks."""

    dimensions: int  # of the vector
    width: int  # units of every layer
    depth: int  # layers of the encoder, and of the decoder
    gaussian: bool  # whether the encoder gives deviations too
    ways: int | None  # classes of an episode; None in regression


def init(key: PRNGKeyArray, shape: Shape, model: base.Model, support: base.Examples) -> PyTree:
    """{"body", "encoder", "vector", "decoder"}: of the encoder, the layers before the mean and those after it."""
    keys = jax.random.split(key, 4)
    body = _features.init_body(model, keys[0], support.inputs)
    features = _features.width(model, body, support.inputs)
    hidden = [shape.width] * shape.depth
    outputs = shape.width if shape.ways else support.targets.shape[-1]
    pair = features + (features if shape.ways else support.targets.shape[-1])
    numbers = shape.dimensions * (2 if shape.gaussian else 1)
    return {
        "body": body,
        "encoder": _network.init_perceptron(keys[1], [pair, *hidden]),
        "vector": _network.init_perceptron(keys[2], [shape.width, shape.width, numbers]),
        "decoder": _network.init_perceptron(keys[3], [features + shape.dimensions, *hidden[:-1], outputs]),
    }


def encode(shape: Shape, model: base.Model, trained: PyTree, support: base.Examples):
    """(mean, deviation) of the vector, each [embed]; the deviation is () where the encoder gives none.

    An example is read as φ(x) beside its target or, in a classification, beside the mean of φ over its class: what is
    read does not depend on which class has which label.
    """
    features = model.embed(trained["body"], support.inputs, reference=support.inputs)
    if shape.ways:
        beside = _prototypes.class_means(features, support.targets, shape.ways)[support.targets]
    else:
        beside = support.targets
    read = _network.perceptron(trained["encoder"], jnp.concatenate([features, beside], axis=1))
    numbers = _network.perceptron(trained["vector"], read.mean(axis=0))
    if not shape.gaussian:
        return numbers, ()
    mean, raw = jnp.split(numbers, 2)
    return mean, LEAST_DEVIATION + jax.nn.softplus(raw)


def decode(
    shape: Shape,
    model: base.Model,
    trained: PyTree,
    vector: Float[Array, "embed"],
    support: base.Examples,
    inputs: PyTree,
) -> Float[Array, "example output"]:
    """g(φ(x), vector); in a classification −‖g(φ(x), vector) − c_k‖², with c_k the class mean of g over the support."""

    def read(inputs):
        features = model.embed(trained["body"], inputs, reference=support.inputs)
        beside = jnp.tile(vector, (features.shape[0], 1))
        return _network.perceptron(trained["decoder"], jnp.concatenate([features, beside], axis=1))

    if not shape.ways:
        return read(inputs)
    means = _prototypes.class_means(read(support.inputs), support.targets, shape.ways)
    return -_prototypes.squared_distances(read(inputs), means)


def divergence(mean: Float[Array, "embed"], deviation: Float[Array, "embed"]) -> Float[Array, ""]:
    """KL(N(mean, deviation²) ‖ N(0, 1)), in nats, summed over the dimensions."""
    return jnp.sum(0.5 * (jnp.square(mean) + jnp.square(deviation) - 1) - jnp.log(deviation))


def init_discriminator(key: PRNGKeyArray, shape: Shape) -> PyTree:
    """The layers that tell the prior's vectors from the encoder's."""
    return _network.init_perceptron(key, [shape.dimensions, shape.width, shape.width, 1])


def contest(
    layers: PyTree, vector: Float[Array, "embed"], key: PRNGKeyArray
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(the discriminator's loss, the encoder's), in nats; neither has a derivative in what the other trains.

    Cross-entropies of D, a logit that a vector is the prior's: that of a draw of N(0, 1) and of the vector told apart,
    and that of the vector taken for a draw.
    """

    def logit(layers, vector):
        return _network.perceptron(layers, vector)[0]

    drawn = jax.random.normal(key, vector.shape)
    told_apart = jax.nn.softplus(-logit(layers, drawn)) + jax.nn.softplus(
        logit(layers, jax.lax.stop_gradient(vector))
    )
    return told_apart, jax.nn.softplus(-logit(jax.lax.stop_gradient(layers), vector))
