"""Adapt a learner that `metarun export` wrote, and answer with it.

This module needs jax, numpy and flatbuffers, which `jax.export` reads its programs with. It does not need metarun.
Every exported file carries it, so that the file alone suffices:

    import sys
    sys.path.insert(0, "learner.metarun")
    import metarun_loader

    learner = metarun_loader.load("learner.metarun")
    answers = learner.adapt((inputs, targets)).predict(queries)

`python learner.metarun` prints what the learner takes. The file is a zip archive: header.json (what the programs take),
adapt.jax and predict.jax (programs of `jax.export`), weights.npz, this module, and SHA256SUMS over all of them. Nothing
is read with pickle. jax runs the programs as they stand: load only files that you trust.
"""

import hashlib
import io
import json
import struct
import sys
import zipfile
import zlib

import jax
import numpy as np
from jax import export

FORMAT = 1  # of the file; a file of another format is refused
HEADER, DIGESTS = "header.json", "SHA256SUMS"
ADAPT, PREDICT, WEIGHTS = "adapt.jax", "predict.jax", "weights.npz"
MODULE, MAIN = "metarun_loader.py", "__main__.py"  # this module, and what `python FILE` runs
AT_ONCE = 256  # queries that are answered at once, if they do not normalise one another

RESTORE = "copy the file again, or write it again with `metarun export`"


class ExportError(Exception):
    """What is wrong, where, and what to do about it."""

    def __init__(self, what, where, remedy):
        super().__init__(what, where, remedy)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self):
        return f"error: {self.what}\nwhere: {self.where}\nto do: {self.remedy}"


class ExportedLearner:
    """A learner that was exported. Make it with `load`.

    Attributes:
      header: what the learner is and what it takes, see `describe`.
      path: where it was read from.
    """

    def __init__(self, header, path, adapt, predict, weights):
        self.header, self.path = header, path
        self._device = choose_device(header["platforms"], path)
        self._weights = jax.device_put(weights, self._device)
        self._adapt, self._predict = jax.jit(adapt.call), jax.jit(predict.call)

    def __repr__(self):
        run = self.header["run"]
        return f"<metarun export of {run['name']}: {run['algorithm']}, step {run['step']}>"

    def describe(self):
        """Return what the learner is and what it takes, in lines."""
        return describe(self.header)

    def adapt(self, support):
        """Adapt to labelled examples, and return an AdaptedLearner.

        Args:
          support: (inputs, targets). Inputs are numbers [example, *shape], pictures in [0, 1]. Targets are labels from
            0, whole numbers [example], or numbers [example, output].

        Raises:
          ExportError: the learner cannot take these arrays.
        """
        inputs = check_inputs(self.header, support[0], "the support")
        targets = check_targets(self.header, support[1], len(inputs))
        return AdaptedLearner(
            self, self._adapt(self._weights, *jax.device_put((inputs, targets), self._device))
        )


class AdaptedLearner:
    """A learner that has adapted to a support."""

    def __init__(self, learner, state):
        self._learner, self._state = learner, state

    def __repr__(self):
        return f"<adapted {repr(self._learner)[1:-1]}>"

    def predict(self, inputs):
        """Return the answers for inputs [example, *shape]: as those of `metarun predict`.

        Returns:
          Classes: float32 [example, way], the probability of each class; its argmax is the label. Numbers: float32
          [example, output].

        Raises:
          ExportError: the array has another shape, or numbers that are not finite, or the answers are not finite.
        """
        header, place = self._learner.header, self._learner.path
        queries = check_inputs(header, inputs, "the query")
        batches = split(queries, header["queries"]["count"], header["mode"], place)
        device, program = self._learner._device, self._learner._predict
        answers = [np.asarray(program(self._state, jax.device_put(batch, device))) for batch in batches]
        answer = np.concatenate(answers)[: len(queries)]
        if not np.isfinite(answer).all():
            remedy = "look for examples that are far from those of the training"
            raise ExportError("the adapted learner gives numbers that are not finite", place, remedy)
        return answer


def load(path):
    """Return the learner in a file that `metarun export` wrote.

    Args:
      path: of the file, or a file that is open for reading bytes.

    Raises:
      ExportError: the file is missing, damaged, of another format, or for another version of jax.
    """
    place = "the exported file" if hasattr(path, "read") else str(path)
    contents = read_archive(path, place)
    header = read_header(contents, place)
    check_digests(contents, place)
    check_jax(header, place)
    with np.load(io.BytesIO(contents[WEIGHTS]), allow_pickle=False) as arrays:
        weights = [arrays[name] for name in sorted(arrays.files)]
    adapt, predict = (read_program(contents[name], header, place) for name in (ADAPT, PREDICT))
    return ExportedLearner(header, place, adapt, predict, weights)


def read_archive(path, place):
    """Return {name: bytes} of what the file holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except FileNotFoundError:
        raise ExportError("there is no such file", place, "check the path") from None
    except (zipfile.BadZipFile, EOFError, zlib.error, struct.error) as error:
        raise ExportError(f"the file is damaged, or no export: {error}", place, RESTORE) from None
    except (OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ExportError(f"the file cannot be read: {error}", place, RESTORE) from None


def read_header(contents, place):
    """Return the header, if this module knows the format of the file."""
    try:
        header = json.loads(contents[HEADER])
        found = header["format"]
    except (KeyError, TypeError, ValueError):
        raise ExportError("the file is no export of metarun", place, RESTORE) from None
    if found != FORMAT:
        what = f"the file has format {found}, and this loader reads format {FORMAT}"
        raise ExportError(what, place, f"use the loader inside the file, {MODULE}, or export the run again")
    return header


def check_digests(contents, place):
    """Raise ExportError unless every part has the digest that was noted of it."""
    lines = contents.get(DIGESTS, b"").decode("ascii", "replace").splitlines()
    noted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {name: hashlib.sha256(part).hexdigest() for name, part in contents.items() if name != DIGESTS}
    names = found.keys() | noted.keys() | {ADAPT, PREDICT, WEIGHTS}
    if changed := sorted(name for name in names if name not in found or found[name] != noted.get(name)):
        what = f"the file was changed: {', '.join(changed)} is not as it was written"
        raise ExportError(what, place, RESTORE)


def check_jax(header, place):
    """Raise ExportError if this jax says that it does not know the calling convention of the programs."""
    low = export.minimum_supported_calling_convention_version
    high = export.maximum_supported_calling_convention_version
    if not low <= header["calling_convention"] <= high:
        raise refuse_jax(header, place, f"it knows calling conventions {low} to {high}")


def read_program(content, header, place):
    """Return a program of `jax.export`."""
    try:
        return export.deserialize(bytearray(content))
    except ImportError:
        raise ExportError("jax.export needs flatbuffers", place, "pip install flatbuffers") from None
    except Exception as error:  # jax promises no type for what it cannot read
        raise refuse_jax(header, place, str(error).partition("\n")[0]) from error


def refuse_jax(header, place, reason):
    """Return what to say of programs that this jax cannot read."""
    what = f"jax {jax.__version__} cannot read these programs, which jax {header['jax']} wrote: {reason}"
    remedy = f"install jax {header['jax']}, or export the run again with a newer metarun and jax"
    return ExportError(what, place, remedy)


def choose_device(platforms, place):
    """Return the device to compute on: the first one of jax, or else a CPU, if the programs are for it."""
    default = export.default_export_platform()
    if not {default, "cpu"}.isdisjoint(platforms):
        return jax.devices(None if default in platforms else "cpu")[0]
    what = f"the programs are for {', '.join(platforms)}, and jax has {default} here"
    raise ExportError(what, place, f"export the run again with --platforms {','.join(platforms)},{default}")


def to_array(values, place):
    """Return values as one array."""
    try:
        return np.asarray(values)
    except ValueError:
        raise ExportError("the examples differ in shape", place, "give all the same shape") from None


def check_inputs(header, inputs, place):
    """Return the inputs as float32 [example, *shape]."""
    array, shape = to_array(inputs, place), tuple(header["inputs"]["shape"])
    if array.ndim == 0 or array.shape[1:] != shape or array.dtype.kind not in "fiu" or not len(array):
        what = f"inputs have shape {array.shape} and type {array.dtype}"
        raise ExportError(what, place, f"give numbers of shape (example, {', '.join(map(str, shape))})")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ExportError("inputs have numbers that are not finite", place, "leave these examples out")
    if header["inputs"]["kind"] == "pictures" and not (array.min() >= 0 and array.max() <= 1):
        what = f"pictures have values from {array.min():g} to {array.max():g}"
        raise ExportError(what, place, "give them in [0, 1]: divide bytes by 255")
    return array


def check_targets(header, targets, examples):
    """Return the targets as int32 [example] or float32 [example, output], if there are as many as the learner takes."""
    count, size, place = header["support"]["count"], header["targets"]["size"], "the support"
    if count not in (None, examples):
        what = f"the support has {examples} examples, and the learner takes {count}"
        raise ExportError(what, place, f"give {count} examples, or export the run again with other --shots")
    array, is_labels = to_array(targets, place), header["targets"]["kind"] == "classes"
    shape = (examples,) if is_labels else (examples, size)
    if array.shape != shape or array.dtype.kind not in ("iu" if is_labels else "fiu"):
        what = f"targets have shape {array.shape} and type {array.dtype}"
        raise ExportError(what, place, f"give {'whole ' * is_labels}numbers of shape {shape}")
    labels = np.unique(array).tolist()
    if is_labels and labels != list(range(size)):
        what = f"the labels are {', '.join(map(str, labels[:10]))}; the learner tells {size} classes apart"
        remedy = f"give every label from 0 to {size - 1}, or export the run again with other --ways"
        raise ExportError(what, place, remedy)
    if not np.isfinite(array).all():
        raise ExportError("targets have numbers that are not finite", place, "leave these examples out")
    return array.astype(np.int32 if is_labels else np.float32)


def split(queries, count, mode, place):
    """Return queries in batches of few different sizes, because each size is compiled anew.

    Batches are filled with the first query. Queries that normalise one another stay together.
    """
    if mode == "transductive":
        if count not in (None, len(queries)):
            what = f"there are {len(queries)} queries, and the learner takes {count} at once"
            raise ExportError(what, place, f"give {count} queries, or export the run again in inductive mode")
        return [queries]
    size = count or min(AT_ONCE, 1 << (len(queries) - 1).bit_length())
    order = np.arange(-(-len(queries) // size) * size)
    filled = queries[np.where(order < len(queries), order, 0)]
    return [filled[start : start + size] for start in range(0, len(order), size)]


def describe(header):
    """Return what a learner is and what it takes, in lines."""
    run, inputs, targets = header["run"], header["inputs"], header["targets"]
    count, queries, steps = header["support"]["count"], header["queries"]["count"], header["inner_steps"]
    lines = {
        "run": f"{run['name']}, stage {run['stage']}, step {run['step']}",
        "learner": f"{run['algorithm']} with {run['model']} on {run['task']}, {header['parameters']:,} numbers",
        "measured": run["result"],
        "inputs": inputs["meaning"],
        "targets": targets["meaning"],
        "support": f"exactly {count} examples" if count else "any number of examples",
        "queries": f"{queries} at once" if queries else "any number",
        "mode": header["mode"] + ("" if steps is None else f", {steps} inner step{'s' * (steps != 1)}"),
        "platforms": ", ".join(header["platforms"]),
        "written": f"{header['written']} by metarun {header['metarun']} with jax {header['jax']}",
    }
    return "\n".join(f"{name:<10} {text}" for name, text in lines.items() if text)


def main():
    """Print what the file holds that Python runs."""
    path = sys.argv[0]
    try:
        contents = read_archive(path, path)
        print(describe(read_header(contents, path)))
        check_digests(contents, path)
    except ExportError as error:
        sys.exit(str(error))
