"""Whether somebody's own inputs lie where the training inputs of a run lay.

Pictures are compared by their brightness and contrast with what the run has noted of its training (`picture_range`).
Vectors are compared, number by number, with the inputs of tasks that the family draws.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from metarun import base
from metarun.assembly import Tasks
from metarun.finished import own_pictures
from metarun.finished.prediction import TrainedRun
from metarun.runs import picture_range

TASKS = 128  # that are drawn to see where the inputs of the training lie
MARGIN = 0.05  # of the range of a number, beyond which it lies outside


class Outside(NamedTuple):
    """Inputs that lie outside what a run was trained on."""

    outside: int  # inputs that do
    of: int  # all inputs
    reason: str  # in words, with the range of the training


def find_outside(run: TrainedRun, inputs: Any) -> Outside | None:
    """Return which of these inputs [example, ...] lie outside. None: none does, or that is not known."""
    if isinstance(run.form, base.Pictures):
        return find_unlike_pictures(run, run.form, np.asarray(inputs))
    if isinstance(run.form, base.Sentences) or run.spec.vocabulary is not None:
        return None
    return find_far_vectors(run, np.asarray(inputs))


def find_unlike_pictures(run: TrainedRun, form: base.Pictures, pictures: np.ndarray) -> Outside | None:
    """Compare pictures with what the run has noted of its training."""
    known = picture_range.read(run.path)
    if known is None or not own_pictures.is_plain(pictures):
        return None
    unlike = picture_range.find_unlike(pictures, known)
    if not unlike.any():
        return None
    low, high = known.brightness
    colours = "ink is 1, paper 0" if form.inverted else "white is 1, black 0"
    mean = pictures[unlike].mean()
    reason = f"a picture's mean was {low:.2f} to {high:.2f} there, and is {mean:.2f} here ({colours})"
    return Outside(int(unlike.sum()), len(unlike), reason)


def find_far_vectors(run: TrainedRun, vectors: np.ndarray) -> Outside | None:
    """Compare vectors with the inputs of tasks of the training split."""
    if run.input_range is None:
        run.input_range = measure_range(run.tasks)
    if run.input_range is None:
        return None
    low, high = run.input_range
    flat, margin = vectors.reshape(len(vectors), -1), MARGIN * (high - low)
    outside = (flat < low - margin) | (flat > high + margin)
    if not outside.any():
        return None
    number = int(outside.sum(axis=0).argmax())  # the one that is outside most often
    name = "the input" if flat.shape[1] == 1 else f"number {number + 1}"
    here = flat[outside[:, number], number]
    ends = f"{here.min():.3g}" if here.min() == here.max() else f"{here.min():.3g} to {here.max():.3g}"
    reason = f"{name} was {low[number]:.3g} to {high[number]:.3g} there, and is {ends} here"
    return Outside(int(outside.any(axis=1).sum()), len(outside), reason)


def measure_range(tasks: Tasks) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the lowest and the highest inputs of tasks of the training split, number by number; None: not known."""
    data = tasks.data["train"]
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(data)):
        return None

    def draw(data, keys):
        inputs = jax.vmap(tasks.family.sample, in_axes=(None, 0))(data, keys).support.inputs
        flat = inputs.reshape(inputs.shape[0] * inputs.shape[1], -1)
        return flat.min(axis=0), flat.max(axis=0)

    low, high = jax.jit(draw)(data, jax.random.split(jax.random.key(0), TASKS))
    return np.asarray(low), np.asarray(high)
