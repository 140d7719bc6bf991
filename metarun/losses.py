"""Losses and the metrics that go with them, each over the examples of one task."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metarun import base


def cross_entropy(logits: Float[Array, "example way"], labels: Int[Array, "example"]) -> Float[Array, ""]:
    """Mean negative log-likelihood of the labels under softmax(logits), in nats."""
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1))


def accuracy(logits: Float[Array, "example way"], labels: Int[Array, "example"]) -> Float[Array, ""]:
    """Share of the examples whose largest logit is the label's, in [0, 1]."""
    return jnp.mean((jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32))


def mean_squared_error(
    outputs: Float[Array, "example feature"], targets: Float[Array, "example feature"]
) -> Float[Array, ""]:
    """Squared error, averaged over examples and output dimensions."""
    return jnp.mean(jnp.square(outputs - targets))


def classification(ways: int, classes: int | None = None) -> base.Objective:
    """Cross-entropy on integer labels; selects the checkpoint with the highest accuracy.

    Args:
      ways: classes of an episode.
      classes: of the training split in all, where facts["class"] names them; without them no pooled pre-training.
    """

    def of_outputs(logits, labels):
        return {"loss": cross_entropy(logits, labels), "accuracy": accuracy(logits, labels)}

    return base.Objective(
        cross_entropy,
        of_outputs,
        after_predict(of_outputs),
        selection="accuracy",
        higher_is_better=True,
        ways=ways,
        classes=classes,
    )


def regression() -> base.Objective:
    """Mean squared error; selects the checkpoint with the lowest."""

    def of_outputs(outputs, targets):
        return {"loss": mean_squared_error(outputs, targets)}

    return base.Objective(mean_squared_error, of_outputs, after_predict(of_outputs))


def after_predict(of_outputs: Callable) -> Callable:
    """Metrics (predict, query) of an objective whose queries are answered all at once."""
    return lambda predict, query: of_outputs(predict(query.inputs), query.targets)
