"""A folder of 100,000 pictures is listed within seconds and bounded memory, before any picture is opened."""

import io
import os
import shutil

import pytest
from PIL import Image

from fault import bounded

CLASSES, EACH = 100, 1000
MOST_SECONDS = 60.0  # of processor time, for four listings
MOST_BYTES = 400 << 20


@pytest.fixture
def folder(tmp_path):
    """So many names of few files: a hard link is made faster than a file, and most file systems allow 65,000 of one."""
    root = tmp_path / str(CLASSES * EACH)
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    for number in range(CLASSES):
        place = root / f"class{number:03}"
        place.mkdir(parents=True)
        first = place / "0.png"
        first.write_bytes(buffer.getvalue())
        for index in range(1, EACH):
            os.link(first, place / f"{index}.png")
    yield root
    shutil.rmtree(root)


def test_a_folder_of_a_hundred_thousand_pictures_is_listed_in_bounded_time_and_memory(
    attack, folder, tmp_path
):
    [outcome] = bounded.read_all("fault.readers:list_folder", [folder], tmp_path, 400)
    attack.tries += 4
    if outcome.said != "read" or outcome.seconds > MOST_SECONDS or outcome.peak > MOST_BYTES:
        attack.fail(f"{outcome}")
