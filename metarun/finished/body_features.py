"""The network of a trained stage as a source of features: what its body makes of an input."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from metarun import base, errors
from metarun.blocks import pretrained_body
from metarun.stages import Stage, build_model


def make_embed(stage: Stage, weights: base.Weights, mode: str) -> Callable | None:
    """Make (inputs [example, ...], reference [other, ...]) -> features [example, feature], compiled.

    Args:
      weights: of one learner of the stage.
      mode: inductive, where the batch statistics of the reference normalise the inputs, or transductive.

    Returns:
      None: the stage has no body of its model alone, such as a hypernetwork.
    """
    spec = stage.problem.spec
    model = build_model(stage.settings.model, spec, mode)
    inputs = jnp.zeros((2, *spec.input_shape))
    for held in (weights, base.Weights(weights.frozen)):
        try:
            body = pretrained_body.extract_body(stage.name, held, model, inputs)
        except errors.ConfigError:
            continue

        @jax.jit
        def embed(body, inputs, reference):
            return model.embed(body, inputs, reference=reference).reshape(len(inputs), -1)

        return lambda inputs, reference, body=body, embed=embed: embed(body, inputs, reference)
    return None
