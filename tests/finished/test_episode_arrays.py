"""Values of episodes that were damaged or edited: `compare` names the file and the array, with exit code 4."""

import io
import os
import warnings
import zipfile

import numpy as np
import pytest

from helpers.finished_runs import COUNT, make_run
from metarun import errors
from metarun.finished import comparison, episode_arrays
from metarun.runs import seals

LOSS, ACCURACY = "inductive/adapted/loss", "inductive/adapted/accuracy"
VALUES = np.arange(float(COUNT))
WHOLE = {LOSS: VALUES, ACCURACY: -VALUES}


def save(path, **changes):
    """Write the arrays; None leaves one out."""
    columns = WHOLE | {f"inductive/adapted/{name}": array for name, array in changes.items()}
    np.savez(path, **{name: array for name, array in columns.items() if array is not None})


def declare(path, shape):
    """Write an array whose header promises more than there is."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{LOSS}.npy", header.getvalue())


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{LOSS}.npy", b"0" * 10_000_000)


def twice(path):
    save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{LOSS}.npy", b"other")


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.index(VALUES.tobytes()) + 100] ^= 1
    path.write_bytes(content)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "missing": (lambda path: path.unlink(), "No such file"),
    "pipe": (pipe, "it is a pipe"),
    "folder": (folder, "it is a folder"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-30]), "zip"),
    "empty": (lambda path: path.write_bytes(b""), "zip"),
    "flipped bit": (flip, f"{LOSS}.*CRC"),
    "another shape": (lambda path: save(path, loss=VALUES[:-1]), rf"{LOSS}.*\[29\].*\[30\]"),
    "no axis": (lambda path: save(path, loss=np.float64(1.0)), rf"{LOSS}.*\[\]"),
    "texts": (lambda path: save(path, loss=VALUES.astype("U9")), f"{LOSS}.*type <U9"),
    "objects": (lambda path: save(path, loss=VALUES.astype(object)), f"{LOSS}.*type object"),
    "complex numbers": (lambda path: save(path, loss=VALUES.astype(complex)), f"{LOSS}.*type complex"),
    "a missing metric": (lambda path: save(path, loss=None), f"{LOSS} is missing"),
    "a number that is none": (
        lambda path: save(path, loss=np.where(VALUES == 3, np.nan, VALUES)),
        "loss.*1 episodes",
    ),
    "infinity": (lambda path: save(path, loss=np.where(VALUES < 2, np.inf, VALUES)), "loss.*2 episodes"),
    "a promise of 8 TB": (lambda path: declare(path, (10**12,)), f"{LOSS}.*shape"),
    "less than it says": (lambda path: declare(path, (COUNT,)), f"{LOSS}.*cut short"),
    "compressed": (bomb, f"{LOSS}.*compressed"),
    "40 GB": (lambda path: os.truncate(path, 4 * 10**10), "are the most"),
    "two of a name": (twice, "two of one name"),
}


@pytest.fixture
def runs(tmp_path):
    """Two runs that can be compared."""
    return [make_run(tmp_path / name, VALUES) for name in "ab"]


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_values_are_a_data_error_that_names_the_file_and_the_array(runs, damage, said):
    file = runs[1] / "episodes" / "maml-test.npz"
    damage(file)
    with pytest.raises(errors.DataError, match=said) as raised:
        comparison.compare(runs, comparison.Choice())
    assert raised.value.exit_code == 4
    assert raised.value.where == str(file)


def test_values_that_the_result_calls_not_finite_are_compared(runs):
    file = runs[1] / "episodes" / "maml-test.npz"
    values = {"loss": np.where(VALUES == 3, np.nan, VALUES)}
    for summary in ({"mean": "nan"}, {"mean": 1.0, "not_finite": 1}):
        episode_arrays.refuse_not_finite(file, values, {"loss": summary})
    with pytest.raises(errors.DataError, match="loss"):
        episode_arrays.refuse_not_finite(file, values, {"loss": {"mean": 1.0}})


def test_an_edited_array_of_the_right_shape_is_told_by_its_digest(runs, tmp_path):
    file = tmp_path / "values.npz"
    save(file)
    shapes, accepted = {(COUNT,)}, [seals.digest_file(file)]
    np.testing.assert_array_equal(episode_arrays.read(file, shapes, accepted)[LOSS], VALUES)
    save(file, loss=VALUES + 0.001)
    with pytest.raises(errors.DataError, match="was changed after the result was written"):
        episode_arrays.read(file, shapes, accepted)


def test_arrays_have_an_axis_for_replicas_and_members_where_the_result_has_some():
    result = {"episodes": {"count": 5}, "stages": {"maml": {"step": 1}}}
    assert episode_arrays.list_shapes(result, "maml") == {(5,)}
    assert episode_arrays.list_shapes(result | {"seeds": [0, 1]}, "maml") == {(5,), (2, 5)}
    result["stages"]["maml"]["members"] = [{}, {}, {}]
    assert episode_arrays.list_shapes(result | {"seeds": [0, 1]}, "maml") == {(3, 5), (2, 3, 5)}
