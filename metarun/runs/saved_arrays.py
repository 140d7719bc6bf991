"""The arrays of a checkpoint as a tree, if they are those that the program expects."""

from metarun import errors
from metarun.base import PyTree
from metarun.runs import state_files
from metarun.runs.manifest import Checkpoint, Leaf


def restore(checkpoint: Checkpoint, folder: str, template: PyTree) -> PyTree:
    """Return the tree of one of the two folders of a checkpoint, in the structure of `template`.

    Raises:
      CheckpointError: one side lacks a leaf, or the two differ in its shape or dtype. The message names the leaf.
    """
    leaves, structure = state_files.flatten(folder, template)
    expected = state_files.describe(leaves)
    saved = {name: leaf for name, leaf in checkpoint.leaves.items() if name.startswith(folder)}
    _refuse_difference(checkpoint, saved, expected)
    arrays = state_files.read(checkpoint.path / folder, leaves)
    _refuse_difference(checkpoint, state_files.describe(arrays), expected)
    return structure.unflatten(arrays[name] for name in expected)


def _refuse_difference(checkpoint: Checkpoint, saved: dict[str, Leaf], expected: dict[str, Leaf]) -> None:
    """Raise CheckpointError about the first leaf that is not the same on both sides."""
    for name in sorted(saved.keys() | expected.keys()):
        if saved.get(name) != expected.get(name):
            there, here = format_leaf(saved.get(name)), format_leaf(expected.get(name))
            what = f"{name} is {there} in the checkpoint, and {here} in this program"
            remedy = "use the config that the run was trained with, or another run"
            raise errors.CheckpointError(what, str(checkpoint.path), remedy)


def format_leaf(leaf: Leaf | None) -> str:
    """Return the dtype and the shape of a leaf: float32[5, 64]."""
    return "missing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
