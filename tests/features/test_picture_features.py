"""Features are extracted once for each picture, whatever happens in between, and never taken for another's."""

import numpy as np
import pytest
from PIL import Image

from metarun import errors
from metarun.data.preparation import Preparation
from metarun.features import extract, feature_table, picture_features


class Means:
    """A network whose features are the means of the channels; it counts the pictures that it sees."""

    digest, features = "a" * 64, 3

    def __init__(self, size=8, spoiled=None):
        self.preparation = Preparation(size)
        self.batches, self.spoiled = [], spoiled

    def extract(self, pictures):
        """Return the means, with a batch noted."""
        self.batches.append(len(pictures))
        if self.spoiled is not None and len(self.batches) > self.spoiled:
            raise KeyboardInterrupt
        return pictures.mean(axis=(1, 2))


@pytest.fixture
def files(tmp_path):
    """Ten pictures of one colour each."""
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for number, path in enumerate(paths):
        Image.new("RGB", (9, 9), (10 * number, 255 - number, 7)).save(path)
    return paths


def expect(numbers):
    return np.array([[10 * number, 255 - number, 7] for number in numbers], np.float32) / 255


def get(files, network, tmp_path, **options):
    return extract(files, network, cache=tmp_path / "cache", batch=4, **options)


def test_features_are_those_of_each_picture_in_order_and_are_extracted_once(files, tmp_path):
    network, reports = Means(), []
    found = get(files, network, tmp_path, observer=lambda *report: reports.append(report))
    np.testing.assert_allclose(found.features, expect(range(10)), atol=1e-6)
    assert (found.files, found.skipped, network.batches) == (tuple(files), [], [4, 4, 2])
    assert reports[-1] == (10, 10, "extracting features")
    assert isinstance(found.features, np.memmap) and not found.features.flags.writeable
    again = get([files[7], files[2], files[7]], network, tmp_path)
    np.testing.assert_allclose(again.features, expect([7, 2, 7]), atol=1e-6)
    assert len(network.batches) == 3


def test_a_copied_picture_is_known_and_an_edited_one_is_not(files, tmp_path):
    network = Means()
    get(files, network, tmp_path)
    (tmp_path / "copy.png").write_bytes(files[3].read_bytes())
    Image.new("RGB", (9, 9), (255, 0, 0)).save(files[0])
    found = get([tmp_path / "copy.png", files[0]], network, tmp_path)
    np.testing.assert_allclose(found.features, [*expect([3]), [1, 0, 0]], atol=1e-6)
    assert network.batches == [4, 4, 2, 1]


def test_another_network_or_preparation_has_a_table_of_its_own(files, tmp_path):
    network, other, third = Means(), Means(size=9), Means()
    third.digest = "b" * 64
    for extractor in (network, other, third):
        get(files, extractor, tmp_path)
        assert sum(extractor.batches) == 10


def test_what_was_killed_half_way_goes_on_where_it_was(files, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        get(files, Means(spoiled=2), tmp_path)
    opened = picture_features.open_table(Means(), tmp_path / "cache")
    with (opened.folder / "features.bin").open("ab") as file:
        file.write(b"half a row")  # as a process that was killed while it wrote
    network = Means()
    found = get(files, network, tmp_path)
    assert network.batches == [2]
    np.testing.assert_allclose(found.features, expect(range(10)), atol=1e-6)


@pytest.mark.parametrize(
    ("file", "step"), [("features.bin", 12), ("index.bin", feature_table.ENTRY.itemsize)]
)
def test_a_damaged_row_is_extracted_again_and_no_other(files, tmp_path, file, step):
    get(files, Means(), tmp_path)
    path = picture_features.open_table(Means(), tmp_path / "cache").folder / file
    content = bytearray(path.read_bytes())
    content[6 * step + 1] ^= 0xFF
    path.write_bytes(content)
    network = Means()
    np.testing.assert_allclose(get(files, network, tmp_path).features, expect(range(10)), atol=1e-6)
    assert network.batches == [1]
    get(files, network, tmp_path)
    assert network.batches == [1]


def test_files_that_are_no_pictures_are_named_and_skipped(files, tmp_path):
    files[4].write_bytes(b"no picture")
    missing, network = tmp_path / "gone.png", Means()
    found = get([*files, missing, tmp_path], network, tmp_path)
    assert [path.name for path, _ in found.skipped[:2]] == ["4.png", "gone.png"]
    assert "no readable picture" in found.skipped[0][1]
    np.testing.assert_allclose(found.features, expect([0, 1, 2, 3, 5, 6, 7, 8, 9]), atol=1e-6)
    assert len(found.digests) == 9 == len(found.files)
    assert get([], network, tmp_path).features.shape == (0, 3)


def test_a_picture_whose_features_are_not_finite_is_skipped(files, tmp_path):
    network, compute = Means(), Means.extract
    network.extract = lambda pictures: np.where(
        pictures[:, :1, 0, 0] == 0, np.nan, compute(network, pictures)
    )
    found = get(files, network, tmp_path)
    assert found.skipped == [(files[0], picture_features.NOT_FINITE)]
    np.testing.assert_allclose(found.features, expect(range(1, 10)), atol=1e-6)


def test_a_full_disk_is_said_and_keeps_what_is_there(files, tmp_path, monkeypatch):
    get(files[:4], Means(), tmp_path)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(feature_table, "write_at", refuse)
        with pytest.raises(errors.StorageError, match="No space left") as caught:
            get(files, Means(), tmp_path)
    assert caught.value.exit_code == 8
    network = Means()
    get(files, network, tmp_path)
    assert network.batches == [4, 2]
