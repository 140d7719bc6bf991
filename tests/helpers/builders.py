"""Plug-ins at a size for tests, and the problems that they are built for."""

import dataclasses
import os
from typing import Any

import pytest

from metarun import base, errors, plugins
from metarun.testing import small_problems
from metarun.testing.small_problems import (
    SPECS,
    TINY,
    blobs,
    build_algorithm,
    build_model,
    kinship,
    make_problem,
    select_options,
)
from metarun.testing.small_problems import draw_inputs as inputs_for
from metarun.testing.small_problems import get_example as example
from metarun.testing.small_problems import make_example_config as example_config

__all__ = [
    "SPECS",
    "TINY",
    "blobs",
    "build_algorithm",
    "build_model",
    "example",
    "example_config",
    "inputs_for",
    "kinship",
    "make_problem",
    "select_options",
]


def regression_problem(inputs: int = 1, outputs: int = 1) -> base.Problem:
    """Return a regression of vectors."""
    return make_problem(base.Spec((inputs,), outputs, "numbers"))


def classification_problem(ways: int, inputs: int = 2, **facts: Any) -> base.Problem:
    """Return a classification of vectors; `facts` are further fields of the problem."""
    return make_problem(base.Spec((inputs,), ways, "classes"), **facts)


def build_task(name: str, **options: Any) -> base.TaskFamily:
    """Build the family; skip the test where there are no data sets at all."""
    module = plugins.load("task", name)
    try:
        return module.build(dataclasses.replace(small_problems.make_example_config(name), **options))
    except errors.DataError as error:
        if os.environ.get("METARUN_DATA"):
            raise
        pytest.skip(f"set METARUN_DATA: {error.what}")


def transductive(model: base.Model) -> base.Model:
    """Return the model that lets every batch normalise itself."""

    def drop_reference(function):
        return lambda params, inputs, *, condition=None, reference=None: function(
            params, inputs, condition=condition
        )

    return base.Model(model.init, drop_reference(model.apply), drop_reference(model.embed))
