"""What the targets of a task family are, for algorithms that take only some kinds of them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base
from metarun.blocks import related_inputs


def require_ways(problem: base.Problem, algorithm: str) -> int:
    """Return the number of classes of an episode.

    Raises:
      ValueError: the targets are no classes.
    """
    if problem.spec.ways is None:
        raise ValueError(
            f"{algorithm} tells classes apart, and this task family has none",
            "choose a task family of classification, or another algorithm",
        )
    return problem.spec.ways


def refuse_tokens(problem: base.Problem) -> None:
    """Refuse a task family whose targets are sentences.

    Raises:
      ValueError: the targets are neither classes nor numbers.
    """
    if problem.spec.targets == "tokens":
        raise ValueError(
            "the targets of this task family are neither class labels nor numbers",
            "choose an algorithm that adapts the model itself, such as maml",
        )


def refuse_stream(name: str, problem: base.Problem, algorithm: base.Algorithm) -> None:
    """Refuse a stream if the algorithm cannot follow one.

    Raises:
      ValueError: the labels of the episodes come one example late.
    """
    if problem.stream and algorithm.follow is None:
        raise ValueError(
            f"{name} cannot answer a stream, whose labels come one example late",
            "take algorithm.name=memory, or a task of support and query",
        )


def as_numbers(spec: base.Spec, targets: base.PyTree, size: int) -> Float[Array, "example feature"]:
    """Return targets as inputs of a network: a label becomes a one-hot vector [size]; numbers stay."""
    return jax.nn.one_hot(targets, size) if spec.targets == "classes" else jnp.asarray(targets)


def join(support: base.Examples, query: base.Examples) -> base.Examples:
    """Return the examples of both, without the concepts that a support may say its classes belong to."""
    support = support._replace(inputs=related_inputs.drop_concepts(support.inputs))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), support, query)
