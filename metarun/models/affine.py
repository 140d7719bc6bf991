"""One linear layer on the flattened inputs: softmax regression, or linear regression.

Its features are the flattened inputs themselves, so an algorithm that measures distances compares the raw inputs.
"""

from dataclasses import dataclass

import flax.linen as nn

from metarun import base
from metarun.models import _dense, _flax


@dataclass(frozen=True)
class Config:
    """There is nothing to choose."""


class Affine(nn.Module):
    """Flattens each example, then one dense layer."""

    output_size: int

    def setup(self):
        self.head = _dense.Dense(self.output_size)

    def embed(self, inputs, reference_count: int):
        return inputs.reshape(inputs.shape[0], -1)

    def __call__(self, inputs, reference_count: int):
        return self.head(self.embed(inputs, reference_count))


def build(config: Config, spec: base.Spec) -> base.Model:
    """Build the model for inputs of `spec.input_shape`, flattened, and `spec.output_size` outputs.

    Raises:
      ValueError: the inputs are sentences of tokens.
    """
    if spec.vocabulary is not None:
        raise ValueError("affine takes numbers, not sentences of tokens", "take model.name=seq2seq")
    return _flax.from_module(Affine(spec.output_size), uses_batch_statistics=False)
