"""A model as a source of features: its body alone, how wide it is, and the targets that go with them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun import base, losses
from metarun.base import PyTree

HEAD = "head"  # the key of a model's last layer in its parameters; `embed` never looks at it


def init_body(model: base.Model, key: PRNGKeyArray, inputs: PyTree) -> PyTree:
    """The parameters that `model.embed` uses: all but those of the head, which would have no gradient."""
    params = model.init(key, inputs)
    return {name: part for name, part in params.items() if name != HEAD} if HEAD in params else params


def width(model: base.Model, body: PyTree, inputs: PyTree) -> int:
    """How many features the body gives for each example. Computes nothing."""
    return jax.eval_shape(model.embed, body, inputs).shape[-1]


def output_size(model: base.Model, inputs: PyTree) -> int:
    """How many outputs the model gives for each example: the ways of a classification. Computes nothing."""

    def outputs(key):
        return model.apply(model.init(key, inputs), inputs)

    return jax.eval_shape(outputs, jax.random.key(0)).shape[-1]


def ways(model: base.Model, objective: base.Objective, inputs: PyTree) -> int:
    """How many classes an episode has: as the family says, else as many as the model has outputs."""
    return objective.ways or output_size(model, inputs)


def has_labels(objective: base.Objective) -> bool:
    """Whether the targets are class labels, int32 [example].

    Raises:
      ValueError: they are neither labels nor numbers, float32 [example, feature]: a sequence, say.
    """
    if objective.loss is losses.cross_entropy:
        return True
    if objective.loss is losses.mean_squared_error:
        return False
    raise ValueError(
        "the targets of this task family are neither class labels nor numbers",
        "choose an algorithm that adapts the model itself, such as maml",
    )


def refuse_numbers(objective: base.Objective, name: str) -> None:
    """Refuse a family without classes.

    Raises:
      ValueError: the targets are no class labels.
    """
    if not has_labels(objective):
        raise ValueError(
            f"{name} tells classes apart, and this task family has none",
            "choose a task family of classification, or an algorithm for regression such as finetune",
        )


def as_numbers(targets: PyTree, size: int) -> Float[Array, "example feature"]:
    """The targets as inputs of a network: labels as one of `size` ones, numbers as they are."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return jax.nn.one_hot(targets, size)
    return targets


def join(support: base.Examples, query: base.Examples) -> base.Examples:
    """The examples of both."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), support, query)
