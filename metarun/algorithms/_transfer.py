"""What the algorithms on pre-trained features share: which stage these come from."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from metarun import base, errors
from metarun.algorithms import _features
from metarun.base import PyTree


def refuse_missing(stage: str, earlier: Mapping[str, base.Algorithm] | None) -> None:
    """Refuse an option `pretrained` that names no earlier stage.

    Raises:
      ValueError: there is no such stage before this one.
    """
    known = list(earlier or {})
    if stage not in known:
        raise ValueError(
            f"pretrained names the stage {stage}, and there is none of that name before this one",
            f"set pretrained to one of {', '.join(known)}"
            if known
            else "put a stage that trains before this one",
        )


def body_of(stage: str, weights: base.Weights, model: base.Model, inputs: PyTree) -> PyTree:
    """The body that an earlier stage has learned, for `model.embed`.

    What it has trained is {"body": ...}, {"params": ...} or the parameters themselves.

    Raises:
      ConfigError: this is no body of the stage's own model, or there are several, of a stage with copies.
    """
    trained: PyTree = weights.trained
    if isinstance(trained, dict):
        trained = trained.get("body", trained.get("params", trained))
        trained = {name: part for name, part in trained.items() if name != _features.HEAD}
    wanted = jax.eval_shape(lambda: _features.init_body(model, jax.random.key(0), inputs))
    shapes = jax.tree.map(jnp.shape, wanted)
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
