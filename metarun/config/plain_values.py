"""A configuration, or an override, that somebody writes as values of Python in the place of text."""

import os
from collections.abc import Mapping
from typing import Any

import yaml

from metarun.config import yaml_file
from metarun.config.base_file import EXTENDS
from metarun.config.origin import make_error
from metarun.config.yaml_file import Parsed

NAME = "the config"  # in errors, where another configuration has its file


def read(mapping: Mapping[str, Any]) -> Parsed:
    """Return what a file with these values would give; no value has a line.

    Raises:
      ConfigError: a value is none that a file can have.
    """
    if EXTENDS in mapping:
        remedy = "give the name of the config, and the other values as overrides"
        raise make_error("a config of Python values extends no file", NAME, remedy)
    value = yaml_file.parse(dump(mapping, NAME), NAME).value
    return Parsed(value or {}, {})


def format_override(key: str, value: Any) -> str:
    """Return `key=value` as somebody would type it.

    Raises:
      ConfigError: the value is none that a file can have.
    """
    return f"{key}={dump([value], key).strip()[1:-1]}"


def dump(value: Any, where: str) -> str:
    """Return values as YAML on one line."""
    try:
        return yaml.dump(
            simplify(value),
            Dumper=yaml_file.Dumper,
            sort_keys=False,
            default_flow_style=True,
            width=float("inf"),
        )
    except yaml.YAMLError as error:
        what = f"this is no number, text, list or dict: {error.args[-1]!r:.80}"
        raise make_error(what, where, "give plain values, as a file would have them") from None


def simplify(value: Any) -> Any:
    """Return a value without numpy's types and tuples; what has a path, such as a Run, is its path."""
    if isinstance(value, Mapping):
        return {key: simplify(member) for key, member in value.items()}
    if isinstance(value, list | tuple | range):
        return [simplify(member) for member in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value
