"""A set encoder: a vector e of a task, read from its support.

Zaheer et al. 2017, Deep Sets, arXiv 1703.06114. The layers are {"pair", "whole"}: "pair" reads each example, "whole"
reads what the examples have in common. Inputs that are vectors of numbers are read as they are. All others, such as
pictures, are read through a third part, a "body" of the encoder's own with the shape of the model's.

`init` and `encode` read classes in the order of their labels. `init_exchangeable` and `encode_exchangeable` read them
as a set of sets, and give a vector of each class, too: with other labels the same classes have the same vectors.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metarun import base
from metarun.base import PyTree
from metarun.blocks import backbone, metric_space, networks
from metarun.options import SetEncoder


def init(config: SetEncoder, key: PRNGKeyArray, model: base.Model, inputs: PyTree, spec: base.Spec) -> PyTree:
    """Return the layers of an encoder for inputs like these."""
    body_key, pair_key, whole_key = jax.random.split(key, 3)
    layers = {}
    if is_vector(spec):
        size = spec.input_shape[-1]
    else:
        layers["body"] = backbone.init_body(model, body_key, inputs)
        size = backbone.count_features(model, layers["body"], inputs)
    if spec.targets != "classes":
        size += spec.output_size
    summaries = spec.ways or 1
    return layers | {
        "pair": networks.init_perceptron(pair_key, [size, *[config.width] * config.depth]),
        "whole": networks.init_perceptron(whole_key, [summaries * config.width, config.width, config.embed]),
    }


def encode(
    layers: PyTree, model: base.Model, support: base.Examples, spec: base.Spec
) -> Float[Array, "embed"]:
    """Return e of a support. The order of the examples does not matter.

    In a regression e is whole(mean of pair(x, y)). In a classification it is whole(the means of pair(x) over each
    class, in the order of the labels), because a label beside x would leave it to the perceptron to multiply the two. A
    class without examples has a mean of zero.
    """
    inputs = support.inputs
    if "body" in layers:
        inputs = model.embed(layers["body"], inputs, reference=inputs)
    if spec.targets != "classes":
        pairs = jnp.concatenate([inputs, support.targets], axis=-1)
        return networks.perceptron(
            layers["whole"], jax.nn.relu(networks.perceptron(layers["pair"], pairs)).mean(axis=0)
        )
    examples = jax.nn.relu(networks.perceptron(layers["pair"], inputs))
    ways = layers["whole"][0][base.KERNEL].shape[0] // examples.shape[-1]
    means = metric_space.class_means(examples, support.targets, ways)
    return networks.perceptron(layers["whole"], means.reshape(-1))


def init_exchangeable(
    config: SetEncoder, key: PRNGKeyArray, features: int, body: PyTree | None = None
) -> PyTree:
    """Return the layers of an encoder of classes whose order does not matter.

    Args:
      features: how many numbers an example has once it is read through `body`.
      body: of the encoder's own; None: examples come as vectors.
    """
    pair_key, whole_key = jax.random.split(key)
    layers = {} if body is None else {"body": body}
    return layers | {
        "pair": networks.init_perceptron(pair_key, [features, *[config.width] * config.depth]),
        "whole": networks.init_perceptron(whole_key, [config.width, config.width, config.embed]),
    }


def encode_exchangeable(
    layers: PyTree, features: Float[Array, "example feature"], labels: Int[Array, "example"], ways: int
) -> tuple[Float[Array, "{ways} width"], Float[Array, "embed"]]:
    """Return a vector of each class, the mean of pair(x) over its examples, and e, the mean of whole(·) over them.

    A class without examples has a vector of zeros.
    """
    examples = jax.nn.relu(networks.perceptron(layers["pair"], features))
    classes = metric_space.class_means(examples, labels, ways)
    return classes, networks.perceptron(layers["whole"], classes).mean(axis=0)


def is_vector(spec: base.Spec) -> bool:
    """Return whether an input is a vector of numbers: neither a picture nor a sentence."""
    return len(spec.input_shape) == 1 and spec.vocabulary is None
