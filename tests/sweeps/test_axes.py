"""The grammar of what a sweep tries."""

import pytest

from metarun.errors import ConfigError
from metarun.sweeps import axes


def test_a_logarithmic_range_has_equal_ratios_and_the_ends_that_were_given():
    axis = axes.parse("rate", "log(1e-4,1e-2,5)", "here")
    assert axis.values == pytest.approx((1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2), rel=1e-5)
    assert (axis.values[0], axis.values[-1], axis.scale) == (1e-4, 1e-2, "log")


@pytest.mark.parametrize(
    ("text", "values", "scale"),
    [
        ("linear(0,1,3)", (0.0, 0.5, 1.0), "linear"),
        ("linear(1,9,3)", (1, 5, 9), "linear"),
        ("log(16,128,4)", (16, 32, 64, 128), "log"),
        ("0.01,0.1", (0.01, 0.1), "choice"),
        ("[8],[8,4]", ([8], [8, 4]), "choice"),
        ("adam,sgd", ("adam", "sgd"), "choice"),
        (
            "{name: mlp, hidden: [8, 4]},{name: conv4}",
            ({"name": "mlp", "hidden": [8, 4]}, {"name": "conv4"}),
            "choice",
        ),
        ("null,1.0", (None, 1.0), "choice"),
        ("0..2", (0, 1, 2), "linear"),
    ],
)
def test_several_values_are_an_axis(text, values, scale):
    axis = axes.parse("key", text, "here")
    assert (axis.values, axis.scale) == (values, scale)
    assert [type(value) for value in axis.values] == [type(value) for value in values]


@pytest.mark.parametrize("text", ["0.1", "[0,1,5]", "adam", "'a,b'", "", "${training.steps}", "1e-3"])
def test_a_single_value_is_no_axis(text):
    assert axes.parse("key", text, "here") is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("log(0,1,3)", "cannot begin at 0"),
        ("log(1e-4,1e-2)", "not three numbers"),
        ("linear(1,0,3)", "not below"),
        ("linear(0,1,1)", "no number of values"),
        ("linear(0,inf,3)", "not three numbers"),
        ("sqrt(0,1,3)", "no range sqrt"),
        ("2..1", "no range of whole numbers"),
        ("0..99999999999", "no range of whole numbers"),
        ("1,1", "twice"),
        ("1,", "no value beside a comma"),
        ("1,&a b", "anchor"),
    ],
)
def test_what_is_no_axis_is_refused_with_its_place(text, word):
    with pytest.raises(ConfigError) as raised:
        axes.parse("key", text, "sweep.yaml:3, key sweep.key")
    assert word in str(raised.value)
    assert raised.value.where == "sweep.yaml:3, key sweep.key"
