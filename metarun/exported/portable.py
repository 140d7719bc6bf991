"""Adapt and predict of a learner as programs of `jax.export`, with the numbers of examples left open where that works.

A program with an open number is traced once for all of them. An algorithm that asks for its number while it is traced,
such as one that reads the support as a sequence of a fixed length, gets the number that it was trained with.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

from metarun import base, errors
from metarun.base import PyTree
from metarun.finished.prediction import TrainedRun
from metarun.stages import config_errors

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

logger = logging.getLogger("metarun")


class Sizes(NamedTuple):
    """How many examples the programs take; None: any number from 1 on."""

    support: int | None
    queries: int | None


class Portable(NamedTuple):
    """A learner as two programs on flat lists of arrays."""

    adapt: export.Exported  # (weights, inputs, targets) -> the leaves of the learner
    predict: export.Exported  # (the leaves of the learner, inputs) -> answers
    weights: list[np.ndarray]
    sizes: Sizes


def list_sizes(trained: Sizes, fixed: bool) -> list[Sizes]:
    """Return the sizes to try, the most open first.

    Args:
      trained: as the learner was trained.
      fixed: whether the support has to have that size.
    """
    attempts = [Sizes(trained.support, None), trained]
    return attempts if fixed else [Sizes(None, None), *attempts]


def export_learner(
    run: TrainedRun, ways: int, attempts: Sequence[Sizes], platforms: Sequence[str]
) -> Portable:
    """Return the programs with the first sizes that the algorithm can be traced with.

    Args:
      ways: classes of the support; 0 if no classes are predicted.
      platforms: of `PLATFORMS`, that the programs are for.

    Raises:
      ConfigError: the learner cannot be exported with any of these sizes.
    """
    weights = list_weights(run)
    failure: Exception | None = None
    for sizes in attempts:
        try:
            with config_errors("the learner"):
                return Portable(*trace(run, ways, sizes, platforms), weights, sizes)
        # What an algorithm does with a number that it does not know may fail in any way; the last attempt knows them.
        except Exception as error:
            logger.debug("no export with %s: %s", sizes, error)
            failure = error
    assert failure is not None
    what = f"the learner cannot be exported: {str(failure).partition(chr(10))[0].removeprefix('error: ')}"
    remedy = getattr(failure, "remedy", "use `metarun predict` on the run itself")
    raise errors.ConfigError(what, f"stage {run.stage} of {run.path}", remedy) from failure


def list_weights(run: TrainedRun) -> list[np.ndarray]:
    """Return the weights of the learner as arrays that a file can hold.

    Raises:
      ConfigError: one of them is no plain number.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(run.weights)]
    if foreign := [leaf.dtype for leaf in leaves if leaf.dtype.kind not in "fiub"]:
        what = f"the weights have numbers of type {foreign[0]}, which a file of arrays does not keep"
        raise errors.ConfigError(what, f"stage {run.stage} of {run.path}", "train with plain numbers")
    return leaves


def trace(
    run: TrainedRun, ways: int, sizes: Sizes, platforms: Sequence[str]
) -> tuple[export.Exported, export.Exported]:
    """Return adapt and predict, traced for these sizes."""
    open_support, open_queries = export.symbolic_shape("support, queries")
    support, queries = sizes.support or open_support, sizes.queries or open_queries
    weights, outline = jax.tree.flatten(run.weights)
    programs, learner_outline = run.programs(ways), None

    def adapt(leaves: list, inputs: Any, targets: Any) -> list:
        nonlocal learner_outline
        learner = programs.adapt(jax.tree.unflatten(outline, leaves), base.Examples(inputs, targets))
        answer, learner_outline = jax.tree.flatten(learner)
        return answer

    def predict(leaves: list, inputs: Any) -> PyTree:
        return programs.answer(jax.tree.unflatten(learner_outline, leaves), inputs)

    examples = outline_support(run, support)
    adapting = export.export(jax.jit(adapt), platforms=platforms)(
        list(map(outline_array, weights)), examples.inputs, examples.targets
    )
    learner = list(map(outline_array, adapting.out_avals))
    return adapting, export.export(jax.jit(predict), platforms=platforms)(
        learner, outline_inputs(run, queries)
    )


def outline_array(array: Any) -> jax.ShapeDtypeStruct:
    """Return shape and dtype."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def outline_inputs(run: TrainedRun, count: Any) -> jax.ShapeDtypeStruct:
    """Return the shape of so many inputs."""
    return jax.ShapeDtypeStruct((count, *run.spec.input_shape), np.float32)


def outline_support(run: TrainedRun, count: Any) -> base.Examples:
    """Return the shapes of a support of so many examples."""
    if run.targets == "classes":
        targets = jax.ShapeDtypeStruct((count,), np.int32)
    else:
        targets = jax.ShapeDtypeStruct((count, run.spec.output_size), np.float32)
    return base.Examples(outline_inputs(run, count), targets)
