"""Hostile archives: of every kind, and with fields of their headers altered one by one. None writes or escapes."""

import random
import re
import struct
import zipfile
from pathlib import Path

import pytest

from fault import tries
from fault.mutation import CORNERS, mutate
from fault.share import seed, share
from helpers import hostile_archives
from metarun.data import archives

REMEDY = "take another one"
LIMITS = archives.Limits(members=50, member_bytes=100_000, total_bytes=1_000_000)
EXPECTED = re.compile(r"folder/\d+\.txt")
CONTENTS = tuple(random.Random(number).randbytes(40) * (5 * number + 1) for number in range(6))
# Where the fields lie in the three headers (PKWARE APPNOTE 4.3.7, 4.3.12, 4.3.16).
FIELDS = {
    b"PK\x03\x04": (4, 6, 8, 10, 12, 14, 18, 22, 26, 28, 30),
    b"PK\x01\x02": (4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 30, 32, 34, 36, 38, 42, 46),
    b"PK\x05\x06": (4, 6, 8, 10, 12, 16, 20),
}
BOUNDS = tries.Bounds(memory=8 << 20, seconds=5.0)  # for one archive of these limits


@pytest.fixture
def place(own_place, tmp_path, monkeypatch) -> Path:
    return hostile_archives.make_place(tmp_path, monkeypatch)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("first", range(0, share(500), 250))
def test_an_archive_of_any_hostile_kind_ends_in_exit_code_4_and_writes_nothing(
    attack, place, metarun_, first
):
    for number in range(first, min(first + 250, share(500))):
        attack.tries += 1
        if fault := hostile_archives.refuse(place, metarun_, number, seed()):
            attack.fail(fault)


def alter(content: bytes, chooser: random.Random) -> bytes:
    """Return the archive with one to three fields of its headers set to what may overflow, or damaged anywhere."""
    if chooser.random() < 0.3:
        return mutate(content, chooser)
    changed = bytearray(content)
    for _ in range(chooser.randint(1, 3)):
        signature = chooser.choice(list(FIELDS))
        places = [match.start() for match in re.finditer(re.escape(signature), changed)]
        if not places:
            continue
        place = chooser.choice(places) + chooser.choice(FIELDS[signature])
        layout = chooser.choice(("<H", "<I"))
        if place + 4 <= len(changed):
            value = chooser.choice((*CORNERS, chooser.randrange(len(changed))))
            struct.pack_into(layout, changed, place, value & ((1 << 8 * struct.calcsize(layout)) - 1))
    return bytes(changed)


def make_archive(chooser: random.Random) -> bytes:
    method = chooser.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    members = [
        (hostile_archives.member(f"folder/{number}.txt"), content) for number, content in enumerate(CONTENTS)
    ]
    return hostile_archives.packed(members, method)


def test_a_good_archive_is_read(attack, tmp_path):
    attack.tries += 1
    path = tmp_path / "good.zip"
    path.write_bytes(make_archive(random.Random(0)))
    found = list(archives.read_members(path, EXPECTED, LIMITS, REMEDY))
    assert found == [(f"folder/{number}.txt", content) for number, content in enumerate(CONTENTS)]


def read(path: Path) -> None:
    """Every member has one of the names and the contents that were packed."""
    for name, content in archives.read_members(path, EXPECTED, LIMITS, REMEDY):
        assert EXPECTED.fullmatch(name) and content in CONTENTS, f"other bytes in {name!r}"


def test_altered_fields_give_the_right_bytes_or_are_refused(attack, tmp_path):
    path = tmp_path / "altered.zip"
    refused = 0
    for number in range(share(500)):
        chooser = random.Random(f"{seed()} archive {number}")
        path.write_bytes(alter(make_archive(chooser), chooser))
        refused += tries.is_refused(attack, f"archive {number}, seed {seed()}", lambda: read(path), BOUNDS)
        if list(tmp_path.iterdir()) != [path]:
            attack.fail(f"archive {number}, seed {seed()}: something was written")
    assert 0 < refused < share(500)
