"""An encoder of a support set to a vector, a decoder that answers from it, and what holds the vectors together."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun import base
from metarun.base import PyTree
from metarun.blocks import backbone, metric_space, networks

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
    """Draw {"body", "encoder", "vector", "decoder"}; "encoder" is before the mean over the examples, "vector" after."""
    keys = jax.random.split(key, 4)
    body = backbone.init_body(model, keys[0], support.inputs)
    features = backbone.count_features(model, body, support.inputs)
    hidden = [shape.width] * shape.depth
    outputs = shape.width if shape.ways else support.targets.shape[-1]
    pair = features + (features if shape.ways else support.targets.shape[-1])
    numbers = shape.dimensions * (2 if shape.gaussian else 1)
    return {
        "body": body,
        "encoder": networks.init_perceptron(keys[1], [pair, *hidden]),
        "vector": networks.init_perceptron(keys[2], [shape.width, shape.width, numbers]),
        "decoder": networks.init_perceptron(keys[3], [features + shape.dimensions, *hidden[:-1], outputs]),
    }


def encode(shape: Shape, model: base.Model, trained: PyTree, support: base.Examples):
    """Return (mean, deviation) of the vector, each [embed]; the deviation is () if the encoder gives none.

    The encoder reads an example as φ(x) beside its target or, in a classification, beside the mean of φ over its class.
    So the vector does not depend on which class has which label.
    """
    features = model.embed(trained["body"], support.inputs, reference=support.inputs)
    if shape.ways:
        companions = metric_space.class_means(features, support.targets, shape.ways)[support.targets]
    else:
        companions = support.targets
    pairs = networks.perceptron(trained["encoder"], jnp.concatenate([features, companions], axis=1))
    numbers = networks.perceptron(trained["vector"], pairs.mean(axis=0))
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
    """Return g(φ(x), vector); in a classification −‖g(φ(x), vector) − c_k‖², with c_k the support's class mean of g."""

    def read(inputs):
        features = model.embed(trained["body"], inputs, reference=support.inputs)
        vectors = jnp.tile(vector, (features.shape[0], 1))
        return networks.perceptron(trained["decoder"], jnp.concatenate([features, vectors], axis=1))

    if not shape.ways:
        return read(inputs)
    means = metric_space.class_means(read(support.inputs), support.targets, shape.ways)
    return -metric_space.squared_distances(read(inputs), means)


def compute_divergence(mean: Float[Array, "embed"], deviation: Float[Array, "embed"]) -> Float[Array, ""]:
    """Return KL(N(mean, deviation²) ‖ N(0, 1)), in nats, summed over the dimensions."""
    return jnp.sum(0.5 * (jnp.square(mean) + jnp.square(deviation) - 1) - jnp.log(deviation))


def init_discriminator(key: PRNGKeyArray, shape: Shape) -> PyTree:
    """Draw the layers that tell the prior's vectors from the encoder's."""
    return networks.init_perceptron(key, [shape.dimensions, shape.width, shape.width, 1])


def contest(
    layers: PyTree, vector: Float[Array, "embed"], key: PRNGKeyArray
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return (the discriminator's loss, the encoder's loss), in nats.

    Neither has a derivative in what the other one trains.
    With the logit D that a vector is a draw of N(0, 1), these are two cross-entropies: the first is low where D tells
    a draw and the vector apart, the second where D takes the vector for a draw.
    """

    def logit(layers, vector):
        return networks.perceptron(layers, vector)[0]

    draw = jax.random.normal(key, vector.shape)
    own_loss = jax.nn.softplus(-logit(layers, draw)) + jax.nn.softplus(
        logit(layers, jax.lax.stop_gradient(vector))
    )
    return own_loss, jax.nn.softplus(-logit(jax.lax.stop_gradient(layers), vector))
