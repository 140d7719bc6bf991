"""A multilayer perceptron; by default with the two hidden layers of 40 units of MAML's sinusoid.

Finn et al. 2017, arXiv 1703.03400, section 5.1. The authors start the matrices with a deviation of 0.01 and the biases
at zero. We start both uniformly; see `_dense`.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from metarun import base
from metarun.models import _dense, _flax, _normalisation
from metarun.ranges import AtLeast

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jax.nn.tanh, "gelu": jax.nn.gelu}


@dataclass(frozen=True)
class Config:
    """The layers between the inputs and the outputs."""

    hidden: tuple[Annotated[int, AtLeast(1)], ...] = (40, 40)  # units of each hidden layer
    activation: Literal["relu", "tanh", "gelu"] = "relu"  # after each hidden layer
    normalisation: Literal["batch", "layer", "none"] = "none"  # before each activation
    # What a condition becomes: more inputs, or a scale and an offset of every hidden unit before its activation.
    modulation: Literal["inputs", "features"] = "inputs"


class Perceptron(nn.Module):
    """Flattens each example, then dense layers."""

    config: Config
    output_size: int

    def setup(self):
        self.hidden = [_dense.Dense(units) for units in self.config.hidden]
        self.norms = [_normalisation.Normalisation(self.config.normalisation) for _ in self.config.hidden]
        self.modulations = [_normalisation.Modulation() for _ in self.config.hidden]
        self.head = _dense.Dense(self.output_size)

    def embed(self, inputs, reference_count: int, condition=None):
        features = inputs.reshape(inputs.shape[0], -1)
        modulated = condition is not None and self.config.modulation == "features"
        if condition is not None and not modulated:  # the same for every example
            conditions = jnp.broadcast_to(condition, (features.shape[0], condition.shape[0]))
            features = jnp.concatenate([features, conditions], axis=1)
        for dense, norm, modulation in zip(self.hidden, self.norms, self.modulations, strict=True):
            features = norm(dense(features), reference_count)
            features = modulation(features, condition) if modulated else features
            features = ACTIVATIONS[self.config.activation](features)
        return features

    def __call__(self, inputs, reference_count: int, condition=None):
        return self.head(self.embed(inputs, reference_count, condition))


def build(config: Config, spec: base.Spec) -> base.Model:
    """Build the model for inputs of `spec.input_shape`, flattened, and `spec.output_size` outputs.

    Raises:
      ValueError: the inputs are sentences of tokens.
    """
    if spec.vocabulary is not None:
        raise ValueError("mlp takes numbers, not sentences of tokens", "take model.name=seq2seq")
    module = Perceptron(config, spec.output_size)
    return _flax.from_module(module, config.normalisation == "batch", takes_condition=True)
