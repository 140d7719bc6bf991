"""A config that is written as values of Python."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from metarun import config
from metarun.config import plain_values, yaml_file
from metarun.errors import ConfigError


@pytest.mark.parametrize("name", ["linear/maml-blobs", "parallel_text/maml"])
def test_a_dict_is_the_config_that_a_file_with_its_values_is(name):
    file = config.find_file(name)
    assert config.load(yaml.safe_load(file.read_text("utf-8"))) == config.load(file)


class Place:
    """What has a path, as a `metarun.Run` has."""

    def __fspath__(self) -> str:
        return "runs/y"


def test_types_of_numpy_tuples_and_paths_are_plain_values():
    values = {
        "a": np.float64(0.5),
        "b": np.arange(2),
        "c": (1, None),
        "d": Path("x"),
        "path": Place(),
        "e": {"f": np.bool_(True)},
    }
    assert plain_values.simplify(values) == {
        "a": 0.5,
        "b": [0, 1],
        "c": [1, None],
        "d": "x",
        "path": "runs/y",
        "e": {"f": True},
    }


@pytest.mark.parametrize(
    "value", [1e-05, 100, True, None, "null", "1e3", "a: b", [1, [2]], {"name": "x"}, "ü\n"]
)
def test_an_override_is_read_as_the_value_that_it_was(value):
    text = plain_values.format_override("some.key", value)
    key, _, written = text.partition("=")
    assert key == "some.key" and yaml_file.parse(written, "").value == value


def test_an_error_in_a_dict_names_the_key():
    with pytest.raises(ConfigError, match="kindd") as caught:
        config.load({"task": {"name": "linear", "kindd": 1}})
    assert "the config, key task" in caught.value.where


def test_what_no_file_can_hold_is_refused_by_its_name():
    with pytest.raises(ConfigError, match="no number, text, list or dict: <object") as caught:
        config.load({"task": {"name": "linear"}, "seed": object()})
    assert caught.value.where == "the config"


def test_a_dict_extends_no_file():
    with pytest.raises(ConfigError, match="extends no file"):
        config.load({"extends": "linear/maml", "seed": 1})


def test_a_section_is_written_in_its_own_order():
    assert (
        plain_values.format_override("task", {"name": "linear", "kind": 1}) == "task={name: linear, kind: 1}"
    )
