"""The network of an earlier stage, as the start of an algorithm that adapts it or uses its features."""

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metarun import base, errors
from metarun.base import PyTree
from metarun.blocks import backbone


def start(stage: str | None, model: base.Model, key: PRNGKeyArray, inputs: PyTree, earlier) -> PyTree:
    """Return the first body: that of an earlier stage, or a random one without a stage.

    Args:
      earlier: {stage: Weights} of the earlier stages.

    Raises:
      ConfigError: as of `extract_body`.
    """
    if stage is None:
        return backbone.init_body(model, key, inputs)
    return extract_body(stage, earlier[stage], model, inputs)


def extract_body(
    stage: str,
    weights: base.Weights,
    model: base.Model,
    inputs: PyTree,
    option: str = "algorithm.pretrained",
) -> PyTree:
    """Return the body that an earlier stage has learned, for `model.embed`.

    What a stage has trained is {"body": ...}, {"params": ...} or the parameters themselves.

    Args:
      option: that names the stage.

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
            f"the stage {stage} has copies, and one network is needed",
            option,
            "name a stage without copies",
        )
    raise errors.ConfigError(
        f"what the stage {stage} has trained is no body of this stage's model",
        option,
        f"give this stage the model of the stage {stage}, or name another one",
    )


def begin_network(model: base.Model, key: PRNGKeyArray, spec: base.Spec, inputs: PyTree) -> dict[str, PyTree]:
    """Return {"body", "head"} that the model begins with, or {"body"} if targets are classes; as `extract_network`."""
    params = model.init(key, inputs)
    body = {name: layer for name, layer in params.items() if name != base.HEAD}
    return {"body": body} if spec.targets == "classes" else {"body": body, base.HEAD: params[base.HEAD]}


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


def extract_head(stage: str, weights: base.Weights, model: base.Model, inputs: PyTree) -> PyTree:
    """Return the last layer that an earlier stage has learned for the outputs of an episode, as MAML does.

    Raises:
      ConfigError: the stage has none, or one for other outputs.
    """
    trained = weights.trained.get("params", weights.trained)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(model.init, jax.random.key(0), inputs)[base.HEAD])
    if jax.tree.map(jnp.shape, trained.get(base.HEAD)) != shapes:
        raise errors.ConfigError(
            f"the stage {stage} has no last layer for the classes of an episode",
            "algorithm.head",
            "name a stage that adapts its last layer, such as maml, or set head: new",
        )
    return trained[base.HEAD]
