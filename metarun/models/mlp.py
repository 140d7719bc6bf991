"""A multilayer perceptron; by default with the two hidden layers of 40 units of MAML's sinusoid.

Finn et al. 2017, arXiv 1703.03400, section 5.1. The authors start the matrices with a deviation of 0.01 and the biases
at zero, which is `initial: normal` (theirs is cut off at two deviations). Our default starts both uniformly; see
`_dense`.

`extra_inputs` is the bias transformation of the public code of MMAML (Vuorio et al. 2019, arXiv 1910.13616) and of
CAVIA (Zintgraf et al. 2019, 1810.03642): a learned vector z, zero at first, stands behind the inputs of every example
and adapts with the weights. The first layer then has the bias b + z·V, where V are the rows of its kernel that belong
to z. So one inner step moves that bias by a matrix VᵀV that the outer loop learns.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from metarun import base
from metarun.models import _dense, _flax, _normalisation
from metarun.ranges import AtLeast

EXTRA_INPUTS = "extra_inputs"  # the name of their parameter, at the outermost level

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jax.nn.tanh, "gelu": jax.nn.gelu}


@dataclass(frozen=True)
class Config:
    """The layers between the inputs and the outputs."""

    hidden: tuple[Annotated[int, AtLeast(1)], ...] = (40, 40)  # units of each hidden layer
    activation: Literal["relu", "tanh", "gelu"] = "relu"  # after each hidden layer
    normalisation: Literal["batch", "layer", "none"] = "none"  # before each activation
    # Learned inputs, the same for every example of a task, that start at zero and adapt with the weights.
    extra_inputs: Annotated[int, AtLeast(0)] = 0
    # First weights of every layer. uniform: kernel and bias in ±1/√(inputs); uniform_by_units: both in ±1/√(units), as
    # in CAVIA's code for MAML; normal: a kernel of deviation 0.01 and a bias of zeros, as in the code of MMAML.
    initial: Literal["uniform", "uniform_by_units", "normal"] = "uniform"
    # What a condition becomes: more inputs, or a scale and an offset of every hidden unit before its activation.
    modulation: Literal["inputs", "features"] = "inputs"


class Perceptron(nn.Module):
    """Flattens each example, then dense layers."""

    config: Config
    output_size: int

    def setup(self):
        self.hidden = [_dense.Dense(units, self.config.initial) for units in self.config.hidden]
        self.norms = [_normalisation.Normalisation(self.config.normalisation) for _ in self.config.hidden]
        self.modulations = [_normalisation.Modulation() for _ in self.config.hidden]
        self.head = _dense.Dense(self.output_size, self.config.initial)
        if self.config.extra_inputs:
            self.extra = self.param(EXTRA_INPUTS, nn.initializers.zeros, (self.config.extra_inputs,))

    def embed(self, inputs, reference_count: int, condition=None):
        modulated = condition is not None and self.config.modulation == "features"
        features = self.join_inputs(inputs, None if modulated else condition)
        for dense, norm, modulation in zip(self.hidden, self.norms, self.modulations, strict=True):
            features = norm(dense(features), reference_count)
            features = modulation(features, condition) if modulated else features
            features = ACTIVATIONS[self.config.activation](features)
        return features

    def join_inputs(self, inputs, condition):
        """Return the flat inputs of each example, and behind them what all examples share: [example, feature]."""
        features = inputs.reshape(inputs.shape[0], -1)
        shared = [self.extra] if self.config.extra_inputs else []
        shared += [] if condition is None else [condition]
        rows = [jnp.broadcast_to(vector, (features.shape[0], vector.shape[0])) for vector in shared]
        return jnp.concatenate([features, *rows], axis=1) if rows else features

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
