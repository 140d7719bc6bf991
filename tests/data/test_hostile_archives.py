"""Hostile downloads: each ends in exit code 4, none writes anything or takes much memory.

One of each kind is tried here, and five hundred in tests/fault/test_archives.py.
"""

import hashlib
import random
import re
import zipfile

import pytest

from helpers import local_servers
from helpers.hostile_archives import GZIPS, ZIPS, everything, make_place, maker_of, member, packed, refuse
from metarun import errors
from metarun.data import archives, datasets, downloads


@pytest.fixture
def place(own_place, tmp_path, monkeypatch):
    return make_place(tmp_path, monkeypatch)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_of_each_hostile_kind_ends_in_exit_code_4_and_writes_nothing(place, metarun_):
    for number in range(2 * max(len(ZIPS), len(GZIPS))):
        assert refuse(place, metarun_, number) is None


def test_every_maker_has_its_share_of_five_hundred():
    makers = [maker_of(number)[1] for number in range(500)]
    assert set(makers) == {*ZIPS, *GZIPS}
    assert min(makers.count(maker) for maker in makers) >= 10


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_download_with_the_right_checksum_replaces_nothing(place, monkeypatch, tmp_path):
    """Even if the published checksum were that of the hostile archive, its content would not be taken."""
    offered = tmp_path / "offered"
    offered.mkdir()
    module = datasets.load_module("omniglot")
    with local_servers.serve(local_servers.offer(offered)) as server:
        for number, maker in enumerate(ZIPS):
            content, _ = maker(random.Random(number))
            source = module.SOURCES[0]
            (offered / "images_background.zip").write_bytes(content)
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            monkeypatch.setattr(module, "SOURCES", (source._replace(packed=digest),))
            (place / source.file).write_text("what was there")
            before = everything(place)
            with pytest.raises(errors.DataError) as caught:
                downloads.fetch("omniglot", place, None, server.address)
            assert caught.value.exit_code == 4
            assert everything(place) == before, maker.__name__


def test_strays_of_other_systems_are_passed_over_and_never_unpacked(tmp_path):
    path, limits = tmp_path / "packed-on-a-mac.zip", archives.Limits(20, 1000, 4000)
    names = [
        "__MACOSX/",
        "__MACOSX/._a.txt",
        "__MACOSX/sub/._b",
        ".DS_Store",
        "sub/.DS_Store",
        "Thumbs.db",
        "._a.txt",
    ]
    members = [(member(name, 0), b"stray" * (name[-1] != "/")) for name in names]
    whole = packed([(member("a.txt"), b"first"), *members], zipfile.ZIP_STORED)
    path.write_bytes(whole.replace(b"stray", b"STRAY"))  # their CRCs are wrong now: reading one would raise
    assert b"STRAY" in path.read_bytes()
    assert list(archives.read_members(path, re.compile("a.txt"), limits, "")) == [("a.txt", b"first")]


def test_strays_count_among_the_members(tmp_path):
    path = tmp_path / "many.zip"
    path.write_bytes(packed((member(f"__MACOSX/{number}"), b"") for number in range(21)))
    with pytest.raises(errors.DataError, match="21 members"):
        list(archives.read_members(path, re.compile("a.txt"), archives.Limits(20, 1000, 4000), ""))
