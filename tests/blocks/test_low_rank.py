"""Updates of low rank: the dense formula, the start that changes nothing, and the gradient at it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import trees
from metarun import errors
from metarun.blocks import low_rank

SHAPES = {"dense": (5, 4), "convolution": (3, 3, 2, 4)}
ROWS = {"dense": 5, "convolution": 18}


def make_network():
    """Return a dense layer, a convolution, and a normalisation without a kernel."""
    generator = np.random.default_rng(0)
    layers = {
        name: {"kernel": generator.standard_normal(shape, np.float32), "bias": np.ones(4, np.float32)}
        for name, shape in SHAPES.items()
    }
    norm = {"scale": np.ones(4, np.float32), "offset": np.zeros(4, np.float32)}
    return jax.tree.map(jnp.asarray, layers | {"norm": norm})


def test_an_update_adds_a_product_of_the_rank_to_every_kernel_and_to_nothing_else():
    network = make_network()
    factors = low_rank.init(jax.random.key(0), network, 2)
    drawn = {
        name: {**own["kernel"], "up": jax.random.normal(jax.random.key(1), (2, 4))}
        for name, own in factors.items()
        if name in SHAPES
    }
    updated = low_rank.update(
        network, factors | {name: {"kernel": own, "bias": None} for name, own in drawn.items()}
    )
    for name, shape in SHAPES.items():
        down, up = (np.asarray(drawn[name][part]) for part in ("down", "up"))
        assert down.shape == (ROWS[name], 2)
        dense = sum(np.outer(down[:, index], up[index]) for index in range(2)).reshape(shape)
        np.testing.assert_allclose(
            updated[name]["kernel"], network[name]["kernel"] + dense, rtol=1e-5, atol=1e-6
        )
        change = np.asarray(updated[name]["kernel"] - network[name]["kernel"])
        assert np.linalg.matrix_rank(change.reshape(-1, 4), tol=1e-4) == 2
        np.testing.assert_array_equal(updated[name]["bias"], network[name]["bias"])
    trees.assert_equal(updated["norm"], network["norm"])


def test_the_first_update_changes_nothing_and_its_gradient_is_that_of_the_second_factor():
    network = make_network()
    factors = low_rank.init(jax.random.key(0), network, 3)
    trees.assert_equal(low_rank.update(network, factors), network)
    slope = np.random.default_rng(2).standard_normal(SHAPES["dense"], np.float32)  # of the loss by the kernel

    def loss(factors):
        return jnp.sum(low_rank.update(network, factors)["dense"]["kernel"] * slope)

    gradient = jax.grad(loss)(factors)["dense"]["kernel"]
    np.testing.assert_array_equal(gradient["down"], 0)
    down = np.asarray(factors["dense"]["kernel"]["down"])
    np.testing.assert_allclose(gradient["up"], down.T @ slope, rtol=1e-5, atol=1e-6)


def test_a_network_without_a_kernel_is_refused():
    with pytest.raises(errors.ConfigError, match="no kernel"):
        low_rank.init(jax.random.key(0), {"positions": jnp.zeros((3, 2))}, 1)
