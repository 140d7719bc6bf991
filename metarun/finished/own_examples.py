"""Somebody's own examples, as arrays: checked, and turned into the form of the task family."""

import numpy as np

from metarun import base, errors
from metarun.base import PyTree


def check_inputs(
    spec: base.Spec, form: base.Pictures | base.Sentences | None, inputs: PyTree, where: str
) -> PyTree:
    """Return the inputs in the family's own form, float32 [example, ...]; those of sentences as they are.

    Raises:
      DataError: another shape or type, no example, numbers that are not finite, pictures outside [0, 1].
    """
    if isinstance(form, base.Sentences):
        return inputs
    array = np.asarray(inputs)
    if array.ndim == 0 or array.shape[1:] != spec.input_shape or array.dtype.kind not in "fiu":
        what = f"inputs are numbers of shape {array.shape} and type {array.dtype}"
        raise errors.DataError(what, where, f"give shape (example, *{spec.input_shape})")
    if not len(array):
        raise errors.DataError("there is no example", where, "give at least one")
    array = array.astype(np.float32)
    refuse_not_finite(array, "inputs", where)
    is_plain = isinstance(form, base.Pictures) and form.read is None
    if is_plain and not (array.min() >= 0 and array.max() <= 1):
        what = f"pictures have values from {array.min():g} to {array.max():g}"
        raise errors.DataError(what, where, "give them in [0, 1]: divide bytes by 255")
    return array


def check_targets(spec: base.Spec, targets: PyTree, examples: int) -> PyTree:
    """Return the targets in the family's own form: int32 [example], or float32 [example, feature].

    Raises:
      DataError: another shape or type, numbers that are not finite, labels with gaps or of one class.
    """
    if spec.targets == "tokens":
        return targets
    array, where = np.asarray(targets), "the targets of the support"
    shape = (examples,) if spec.targets == "classes" else (examples, spec.output_size)
    kinds, dtype = ("iu", np.int32) if spec.targets == "classes" else ("fiu", np.float32)
    if array.shape != shape or array.dtype.kind not in kinds:
        what = f"targets have shape {array.shape} and type {array.dtype}"
        raise errors.DataError(what, where, f"give {np.dtype(dtype).name} of shape {shape}")
    refuse_not_finite(array, "targets", where)
    if spec.targets == "classes":
        refuse_gaps(array, where)
    return array.astype(dtype)


def refuse_not_finite(array: np.ndarray, noun: str, where: str) -> None:
    """Raise DataError for an infinity or a NaN."""
    if not np.isfinite(array).all():
        raise errors.DataError(f"{noun} have numbers that are not finite", where, "leave these examples out")


def refuse_gaps(labels: np.ndarray, where: str) -> None:
    """Raise DataError unless labels are those of two classes or more, from 0 without gaps."""
    present = np.unique(labels)
    if len(present) < 2 or present.tolist() != list(range(len(present))):
        what = f"labels are {', '.join(map(str, present[:10]))}"
        raise errors.DataError(what, where, "give two classes or more, with labels from 0 without gaps")
