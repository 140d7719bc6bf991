"""Small networks in numpy, to compare with."""

import numpy as np


def perceptron(layers, inputs):
    """Return what a perceptron computes: dense layers with a ReLU between them, and none after the last."""
    for index, layer in enumerate(layers):
        inputs = np.asarray(inputs) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        inputs = inputs if index == len(layers) - 1 else np.maximum(inputs, 0)
    return inputs
