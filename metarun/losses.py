"""Losses and the metrics that belong to them, each over the examples of one task."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metarun import base


def cross_entropy(logits: Float[Array, "example way"], labels: Int[Array, "example"]) -> Float[Array, ""]:
    """Return the mean negative log-likelihood of the labels under softmax(logits), in nats."""
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1))


def accuracy(logits: Float[Array, "example way"], labels: Int[Array, "example"]) -> Float[Array, ""]:
    """Return the share of the examples whose label has the largest logit, in [0, 1]."""
    return jnp.mean((jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32))


def mean_squared_error(
    outputs: Float[Array, "example feature"], targets: Float[Array, "example feature"]
) -> Float[Array, ""]:
    """Return the squared error, averaged over examples and output dimensions."""
    return jnp.mean(jnp.square(outputs - targets))


def classification() -> base.Objective:
    """Return the objective of classification: cross-entropy; the checkpoint with the highest accuracy is the best."""

    def measure(logits, labels):
        return {"loss": cross_entropy(logits, labels), "accuracy": accuracy(logits, labels)}

    return base.Objective(cross_entropy, measure, measure_predictions(measure), "accuracy", ("accuracy",))


def regression() -> base.Objective:
    """Return the objective of regression: mean squared error; the checkpoint with the lowest error is the best."""

    def measure(outputs, targets):
        return {"loss": mean_squared_error(outputs, targets)}

    return base.Objective(mean_squared_error, measure, measure_predictions(measure))


def measure_predictions(measure: Callable) -> Callable:
    """Make (predict, query) -> metrics from (outputs, targets) -> metrics, for queries answered all at once."""
    return lambda predict, query: measure(predict(query.inputs), query.targets)
