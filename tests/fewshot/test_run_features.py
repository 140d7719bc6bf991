"""Pictures of a run: read once, kept, and those that cannot be read are named."""

from pathlib import Path

import numpy as np
import pytest

from helpers import photographs
from metarun import base, errors
from metarun.data import examples
from metarun.fewshot import run_features
from metarun.finished.own_pictures import PictureReader


class Run:
    """A run whose pictures become means of colours, or small pictures."""

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.read: list[list[Path]] = []
        self.pictures = PictureReader(shape, base.Pictures(read=self.read_files, prepared="small"), folder)

    def read_files(self, files):
        self.read.append(list(files))
        if any(file.name == "weights.png" for file in files):
            raise errors.DataError(
                "these weights are not those of the run", "net.safetensors", "restore them"
            )
        pictures = examples.read_pictures(list(files), (4, 4, 3), inverted=False)
        return pictures - 0.5 if len(self.pictures.shape) == 3 else pictures.mean(axis=(1, 2))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Eight pictures, of which the fourth is broken."""
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    photographs.write_classes(tmp_path / "photos", {"apple": 4, "sky": 4})
    files = sorted(tmp_path.glob("photos/*/*.png"))
    files[3].write_bytes(b"broken")
    return files


@pytest.mark.parametrize("shape", [(4, 4, 3), (3,)])
def test_a_broken_picture_is_named_and_the_others_are_read(files, tmp_path, shape):
    run = Run(tmp_path, shape)
    found = run_features.read_pictures(run.pictures, files)
    good = [*files[:3], *files[4:]]
    assert [path for path, _ in found.skipped] == [files[3]] and list(found.files) == good
    np.testing.assert_array_equal(found.inputs, run.read_files(good))
    assert len(found.digests) == len(good)


def test_pictures_that_were_read_once_are_not_read_again(files, tmp_path):
    run = Run(tmp_path, (4, 4, 3))
    first = run_features.read_pictures(run.pictures, files)
    run.read.clear()
    second = run_features.read_pictures(run.pictures, files)
    assert run.read == [[files[3]]]  # it may have been mended
    np.testing.assert_array_equal(first.inputs, second.inputs)


def test_few_calls_find_the_broken_one_and_what_is_wrong_with_the_network_is_no_fault_of_pictures(
    files, tmp_path
):
    run = Run(tmp_path, (3,))
    run_features.read_pictures(run.pictures, files)
    assert len(run.read) == 7  # eight, and twice the halves of four, two and one
    (tmp_path / "weights.png").write_bytes(files[0].read_bytes())
    with pytest.raises(errors.DataError, match="not those of the run"):
        run_features.read_pictures(run.pictures, [*files, tmp_path / "weights.png"])
