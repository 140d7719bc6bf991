"""Which parameters are of a normalisation, told from their names and from what lies beside them."""

import jax.numpy as jnp
import pytest

from metarun import errors
from metarun.blocks import parameter_kinds

NUMBER = jnp.zeros(())
LAYER = {"kernel": NUMBER, "bias": NUMBER}
LAYER_NORM = {"scale": NUMBER, "bias": NUMBER}


def test_a_bias_beside_a_scale_is_an_offset_and_other_biases_are_not():
    params = {"dense": LAYER, "norm": LAYER_NORM, "block": {"kernel": NUMBER, "norm": {"offset": NUMBER}}}
    assert parameter_kinds.find_normalisation(params) == {
        ("norm", "scale"),
        ("norm", "bias"),
        ("block", "norm", "offset"),
    }


def test_an_option_about_a_normalisation_that_is_not_there_is_refused():
    parameter_kinds.refuse_without_normalisation({"norm": LAYER_NORM}, "adapts_normalisation", "it: true")
    with pytest.raises(errors.ConfigError) as raised:
        parameter_kinds.refuse_without_normalisation({"dense": LAYER}, "adapts_normalisation", "it: true")
    assert raised.value.where == "algorithm.adapts_normalisation"
