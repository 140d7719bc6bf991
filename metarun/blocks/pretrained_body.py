"""The network of an earlier stage, as the start of an algorithm that adapts it or uses its features."""

import jax
import jax.numpy as jnp

from metarun import base, errors
from metarun.base import PyTree
from metarun.blocks import backbone


def extract_body(stage: str, weights: base.Weights, model: base.Model, inputs: PyTree) -> PyTree:
    """Return the body that an earlier stage has learned, for `model.embed`.

    What a stage has trained is {"body": ...}, {"params": ...} or the parameters themselves.

    Raises:
      ConfigError: this is no body of `model`, or the stage has copies, and there are several bodies.
    """
    trained: PyTree = weights.trained
    if isinstance(trained, dict):
        trained = trained.get("body", trained.get("params", trained))
        trained = {name: layer for name, layer in trained.items() if name != base.HEAD}
    body = jax.eval_shape(lambda: backbone.init_body(model, jax.random.key(0), inputs))
    shapes = jax.tree.map(jnp.shape, body)
    if jax.tree.map(jnp.shape, trained) == shapes:
        return trained
    if jax.tree.map(lambda leaf: jnp.shape(leaf)[1:], trained) == shapes:
        raise errors.ConfigError(
            f"the stage {stage} has copies, and what is adapted is one network",
            "algorithm.pretrained",
            "name a stage without copies",
        )
    raise errors.ConfigError(
        f"what the stage {stage} has trained is no body of this stage's model",
        "algorithm.pretrained",
        f"give this stage the model of the stage {stage}, or name another one",
    )


def extract_network(
    stage: str, weights: base.Weights, model: base.Model, spec: base.Spec, inputs: PyTree
) -> dict[str, PyTree]:
    """Return {"body", "head"} of an earlier stage, or {"body"} if targets are classes.

    The last layer of a pooled classification tells training classes apart, and knows nothing of new ones.

    Raises:
      ConfigError: the stage has another model, or no last layer in a regression.
    """
    body = extract_body(stage, weights, model, inputs)
    if spec.targets == "classes":
        return {"body": body}
    if base.HEAD not in weights.trained:
        raise errors.ConfigError(
            f"the stage {stage} has no last layer to start from in a regression",
            "algorithm.pretrained",
            "name a stage whose algorithm is pretrain",
        )
    return {"body": body, base.HEAD: weights.trained[base.HEAD]}
