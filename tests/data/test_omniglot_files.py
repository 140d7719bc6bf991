"""Omniglot arrives whole, in the order of its paths, or not at all; the cache is never believed blindly."""

import errno
import hashlib
import io
import json
import logging
import multiprocessing
import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import local_servers
from metarun import errors
from metarun.data import cache, datasets, downloads
from metarun.data.sets import omniglot_files
from metarun.data.sources import Source

SMALL_ALPHABETS = ({"Greek": 2, "Latin_(old)": 1}, {"Zulu-like": 2})  # characters of each, per archive


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Small:
    """A data root with five characters, and their drawings [class, drawing, height, width], 0 = ink."""

    def __init__(self, root):
        self.root, generator = root, np.random.default_rng(0)
        self.drawings = generator.integers(0, 2, (5, 20, 105, 105)).astype(np.uint8) * 255
        self.parts = tuple(
            self.part(name, alphabets, self.drawings[classes])
            for name, alphabets, classes in zip(
                ("background", "evaluation"), SMALL_ALPHABETS, (slice(3), slice(3, 5)), strict=True
            )
        )

    def part(self, name, alphabets, drawings):
        path = self.root / "omniglot" / f"images_{name}.zip"
        names = [
            f"{alphabet}/character{n + 1:02}" for alphabet, count in alphabets.items() for n in range(count)
        ]
        write_archive(path, names, drawings)
        packed, content = path.read_bytes(), hashlib.sha256(drawings.tobytes()).hexdigest()
        md5 = f"md5:{hashlib.md5(packed).hexdigest()}"
        return omniglot_files.Archive(
            Source(f"omniglot/{path.name}", (), md5, content, len(packed)), len(names)
        )

    def archive(self, number):
        return self.parts[number].source.path(self.root)

    def load(self, size=28, progress=None):
        return omniglot_files._load(self.root, size, self.parts, progress)


def states(reports):
    return [report.state for report in reports]


def write_archive(path, class_names, drawings):
    """Packs drawings [class, drawing, 105, 105] in the layout of Omniglot, last first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir(path.stem)
        for number, name in reversed(list(enumerate(class_names))):
            for drawing in reversed(range(len(drawings[number]))):
                buffer = io.BytesIO()
                Image.fromarray(drawings[number, drawing]).convert("1").save(buffer, "PNG")
                archive.writestr(f"{path.stem}/{name}/{number:04}_{drawing + 1:02}.png", buffer.getvalue())


@pytest.fixture(scope="session")
def packed_small(tmp_path_factory):
    return Small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def small(packed_small, tmp_path):
    """A copy that the test may damage."""
    copy = object.__new__(Small)
    copy.root, copy.drawings, copy.parts = tmp_path / "data", packed_small.drawings, packed_small.parts
    shutil.copytree(packed_small.root, copy.root)
    return copy


@pytest.fixture
def decodings(monkeypatch):
    """The sizes that were decoded, in order."""
    sizes, decode = [], omniglot_files._decode
    monkeypatch.setattr(omniglot_files, "_decode", lambda *given: (sizes.append(given[1]), decode(*given))[1])
    return sizes


@pytest.fixture(scope="session")
def real_root():
    if not os.environ.get("METARUN_DATA"):
        pytest.skip("set METARUN_DATA to a folder with omniglot/images_background.zip to test the real data")
    return Path(os.environ["METARUN_DATA"])


@pytest.fixture(scope="session")
def real(real_root):
    """The real Omniglot, decoded once for all tests of a session."""
    return omniglot_files.load(real_root)


# The real data


def test_omniglot_has_1623_characters_of_20_drawings_in_50_alphabets(real):
    assert real.images.shape == (1623, 20, 28, 28)
    assert real.images.dtype == np.uint8
    assert len(real.class_names) == len(set(real.class_names)) == len(real.alphabet) == 1623
    assert len(set(real.alphabet_names)) == 50


def test_background_comes_first_with_964_characters_of_30_alphabets(real):
    assert real.background == 964
    assert set(real.alphabet[:964]) == set(range(30))
    assert set(real.alphabet[964:]) == set(range(30, 50))
    for part in (slice(964), slice(964, None)):
        assert list(real.class_names[part]) == sorted(real.class_names[part])


def test_every_character_is_indexed_by_its_alphabet(real):
    names = [f"{real.alphabet_names[index]}/" for index in real.alphabet]
    assert all(map(str.startswith, real.class_names, names))


def test_ink_is_bright_on_dark_paper_in_every_drawing(real):
    assert np.median(real.images) == 0
    assert real.images.max(axis=(2, 3)).min() > 128
    assert real.images.mean() < 64


@pytest.mark.slow
def test_the_real_archives_verify_by_content(real_root):
    assert states(downloads.verify("omniglot", real_root)) == ["ok", "ok"]


# Decoding


def test_drawings_at_their_own_size_are_the_archive_inverted(small):
    loaded = small.load(105)
    assert np.array_equal(loaded.images, 255 - small.drawings)
    assert loaded.class_names == (
        "Greek/character01",
        "Greek/character02",
        "Latin_(old)/character01",
        "Zulu-like/character01",
        "Zulu-like/character02",
    )
    assert loaded.alphabet.tolist() == [0, 0, 1, 2, 2]
    assert loaded.alphabet.dtype == np.int32
    assert loaded.background == 3


@pytest.mark.parametrize("size", [8, 28, 64])
def test_scaling_keeps_the_mean_ink(small, size):
    images = small.load(size).images
    assert images.shape == (5, 20, size, size)
    ink = (255 - small.drawings).mean(axis=(2, 3))
    assert np.abs(images.mean(axis=(2, 3)) - ink).max() < 8  # of 255: edges weigh differently


@pytest.mark.parametrize("size", [-1, 0, 7, 106])
def test_sizes_beyond_the_original_are_refused(small, size):
    with pytest.raises(errors.ConfigError, match="8 to 105"):
        small.load(size)


def test_progress_ends_at_the_number_of_drawings(small, monkeypatch):
    monkeypatch.setattr(omniglot_files, "REPORT_EVERY", 30)
    reports = []
    small.load(progress=lambda *report: reports.append(report))
    assert reports == [(done, 100, "decoding Omniglot") for done in (30, 60, 90, 100)]


# Archives that are not what they should be


def truncate(small):
    content = small.archive(0).read_bytes()
    small.archive(0).write_bytes(content[: len(content) // 2])


def swap(small):
    first, second = (small.archive(number).read_bytes() for number in (0, 1))
    small.archive(0).write_bytes(second)
    small.archive(1).write_bytes(first)


def alter_one_pixel(small):
    drawings = small.drawings[:3].copy()
    drawings[1, 7, 50, 50] ^= 255
    write_archive(small.archive(0), small.load().class_names[:3], drawings)


def drop_a_drawing(small):
    write_archive(small.archive(0), small.load().class_names[:3], small.drawings[:3, :19])


def put_another_picture(small):
    with zipfile.ZipFile(small.archive(0), "w") as archive:
        archive.writestr("images_background/Greek/character01/0001_01.png", b"no picture")


def put_larger_pictures(small):
    write_archive(small.archive(0), ["Greek/character01"], np.zeros((1, 20, 106, 105), np.uint8))


DAMAGES = {
    "missing": (lambda small: small.archive(0).unlink(), "missing", "missing"),
    "no folder": (lambda small: shutil.rmtree(small.root), "missing", "missing"),
    "truncated": (truncate, "truncated", "altered"),
    "empty": (lambda small: small.archive(0).write_bytes(b""), "not a ZIP", "altered"),
    "text": (lambda small: small.archive(0).write_text("<html>not found</html>"), "not a ZIP", "altered"),
    "MNIST": (
        lambda small: small.archive(0).write_bytes(b"\x1f\x8b\x08" + bytes(99)),
        "not a ZIP",
        "altered",
    ),
    "swapped": (swap, "not expected here", "altered"),
    "one pixel": (alter_one_pixel, "its drawings are not Omniglot's", "altered"),
    "a drawing short": (drop_a_drawing, "holds 57 drawings, not 20 of each of 3", "altered"),
    "no picture": (put_another_picture, "not a PNG drawing", "altered"),
    "other size": (put_larger_pictures, "not a PNG drawing of 105×105", "altered"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_archive_is_a_data_error_that_says_what_where_and_what_to_do(small, damage):
    spoil, reason, _ = DAMAGES[damage]
    spoil(small)
    with pytest.raises(errors.DataError, match=reason) as caught:
        small.load()
    assert caught.value.exit_code == 4
    assert caught.value.where == str(small.archive(0))
    assert "`metarun data fetch omniglot`" in caught.value.remedy
    assert "METARUN_DATA" in caught.value.remedy


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_tells_missing_from_altered(small, damage, listed):
    spoil, _, state = DAMAGES[damage]
    spoil(small)
    assert downloads.verify("omniglot", small.root)[0].state == state


def test_an_archive_altered_after_decoding_is_noticed(small):
    small.load()
    alter_one_pixel(small)
    with pytest.raises(errors.DataError, match="altered"):
        small.load()


# The cache


def entry_folder(private_cache):
    return private_cache / "decoded" / "omniglot-28"


def rewrite_record(folder, change):
    """Changes entry.json and seals it again, as another version of metarun would write it."""
    record = json.loads((folder / "entry.json").read_text())["record"]
    change(record)
    sealed = {"digest": cache._digest(record), "record": record}
    (folder / "entry.json").write_text(json.dumps(sealed))


def replace_array(folder, array):
    """Puts another array in place, and the time and size that entry.json states."""
    np.save(folder / "images.npy", array)
    rewrite_record(folder, lambda record: record["arrays"].update(images=cache._stamp(folder / "images.npy")))


def flip_a_fact(folder):
    text = (folder / "entry.json").read_text()
    (folder / "entry.json").write_text(text.replace("Greek", "Grook"))


CACHE_DAMAGES = {
    "truncated": lambda folder: os.truncate(folder / "images.npy", 1000),
    "emptied": lambda folder: os.truncate(folder / "images.npy", 0),
    "lost": lambda folder: (folder / "images.npy").unlink(),
    "written over": lambda folder: (folder / "images.npy").write_bytes(b"x" * 78528),
    "a pickle": lambda folder: replace_array(folder, np.array([{}])),
    "other shape": lambda folder: replace_array(folder, np.zeros((5, 20, 28, 27), np.uint8)),
    "other dtype": lambda folder: replace_array(folder, np.zeros((5, 20, 28, 28), np.float32)),
    "no record": lambda folder: (folder / "entry.json").unlink(),
    "garbage record": lambda folder: (folder / "entry.json").write_bytes(b"\xff\x00{"),
    "deep record": lambda folder: (folder / "entry.json").write_text("[" * 100_000),
    "list for a record": lambda folder: (folder / "entry.json").write_text("[1, 2]"),
    "altered fact": flip_a_fact,
    "other format": lambda folder: rewrite_record(folder, lambda record: record.update(format=0)),
    "other decoder": lambda folder: rewrite_record(folder, lambda record: record["recipe"].update(decoder=0)),
    "other arrays": lambda folder: rewrite_record(folder, lambda record: record["arrays"].clear()),
}


def test_a_second_load_is_a_read_only_map_and_does_not_decode(small, decodings):
    first, second = small.load(), small.load()
    assert decodings == [28]
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    assert np.array_equal(first.images, second.images)
    assert first.class_names == second.class_names


def test_each_size_has_its_own_entry(small, decodings):
    for size in (28, 14, 28, 14):
        assert small.load(size).images.shape[-1] == size
    assert decodings == [28, 14]


@pytest.mark.parametrize("damage", CACHE_DAMAGES)
def test_a_damaged_cache_is_decoded_again_with_one_line_in_the_log(
    small, decodings, private_cache, caplog, damage
):
    intact = np.array(small.load().images)
    CACHE_DAMAGES[damage](entry_folder(private_cache))
    caplog.clear()
    with caplog.at_level(logging.INFO, "metarun"):
        loaded = small.load()
    assert np.array_equal(loaded.images, intact)
    assert loaded.alphabet_names[0] == "Greek"
    assert len(caplog.records) == 1
    small.load()
    assert decodings == [28, 28]


def test_archives_written_again_are_decoded_again(small, decodings):
    small.load()
    os.utime(small.archive(1), ns=(0, 0))
    small.load()
    assert decodings == [28, 28]


def test_the_cache_is_private_and_the_data_folder_is_left_alone(small, private_cache):
    before = sorted(small.root.rglob("*"))
    small.load()
    assert sorted(small.root.rglob("*")) == before
    for path in [private_cache, *private_cache.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0


def test_a_full_disk_is_a_storage_error_that_leaves_nothing_half_written(small, private_cache, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.StorageError, match="No space left") as caught:
        small.load()
    assert caught.value.exit_code == 8
    assert "METARUN_CACHE" in caught.value.remedy
    assert [path.name for path in entry_folder(private_cache).iterdir()] == ["lock"]


def test_a_cache_that_cannot_be_a_folder_is_a_storage_error(small, private_cache):
    private_cache.write_text("a file")
    with pytest.raises(errors.StorageError):
        small.load()


def test_what_a_killed_process_left_is_swept_away(small, private_cache):
    entry_folder(private_cache).mkdir(parents=True)
    old, new = (entry_folder(private_cache) / name for name in ("old.tmp", "new.tmp"))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    small.load()
    assert (old.exists(), new.exists()) == (False, True)


def decode_in_a_process(small, ready, results, locks):
    """Loads as soon as all processes are ready, decoding slowly."""
    decode, decoded = omniglot_files._decode, []

    def slowly(*given):
        decoded.append(True)
        time.sleep(0.3)
        return decode(*given)

    omniglot_files._decode = slowly
    if not locks:
        cache.fcntl = None
    ready.wait()
    results.put((hashlib.sha256(small.load().images).hexdigest(), len(decoded)))


@pytest.mark.parametrize("locks", [True, False])
def test_processes_that_decode_at_once_get_the_same_images(small, decodings, locks):
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(2), context.Queue()
    arguments = (small, ready, results, locks)
    processes = [context.Process(target=decode_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    digests, decoded = zip(*(results.get(timeout=60) for _ in processes), strict=True)
    for process in processes:
        process.join()
    assert set(digests) == {hashlib.sha256(small.load().images).hexdigest()}
    if locks and cache.fcntl is not None:
        assert sum(decoded) == 1
        assert decodings == []


# The registry


def test_the_data_sets_are_the_modules_of_the_folder():
    assert "omniglot" in datasets.list_names()
    for name in datasets.list_names():
        module = datasets.load_module(name)
        assert name == module.NAME
        assert callable(module.load)
        assert callable(module.content_digest)
        for source in module.SOURCES:
            assert source.file.startswith(f"{name}/")
            assert source.packed.startswith(("md5:", "sha256:"))
            assert all(url.startswith("https://") for url in source.urls)


@pytest.mark.parametrize("name", ["omniglt", "..", "", "__init__", "omniglot.py"])
def test_an_unknown_data_set_is_a_usage_error_that_lists_them(name):
    with pytest.raises(errors.UsageError) as caught:
        datasets.load_module(name)
    assert "omniglot" in caught.value.remedy


# Fetching


@pytest.fixture
def listed(small, monkeypatch):
    """The small Omniglot in the place of the real one."""
    monkeypatch.setattr(omniglot_files, "SOURCES", tuple(part.source for part in small.parts))
    return small


@pytest.fixture
def mirror(packed_small, tmp_path):
    """The address and the folder of a server that offers the small archives."""
    folder = shutil.copytree(packed_small.root / "omniglot", tmp_path / "mirror")
    with local_servers.serve(local_servers.offer(folder)) as server:
        yield server.address, folder


def test_fetch_brings_what_load_needs(listed, mirror, tmp_path, capsys):
    reports, root = [], tmp_path / "new"
    fetched = downloads.fetch("omniglot", root, lambda *report: reports.append(report), mirror[0])
    assert states(fetched) == ["ok", "ok"]
    assert np.array_equal(omniglot_files._load(root, 105, listed.parts, None).images, 255 - listed.drawings)
    total = listed.parts[0].source.bytes
    assert (total, total, "fetching omniglot/images_background.zip") in reports
    assert capsys.readouterr() == ("", "")


def test_fetch_keeps_what_verifies_and_replaces_what_does_not(listed, mirror):
    kept = listed.archive(0).stat().st_ino
    listed.archive(1).write_text("altered")
    assert states(downloads.fetch("omniglot", listed.root, None, mirror[0])) == ["ok", "ok"]
    assert listed.archive(0).stat().st_ino == kept
    assert states(downloads.verify("omniglot", listed.root)) == ["ok", "ok"]


def test_fetch_keeps_an_archive_that_is_packed_differently(listed):
    with zipfile.ZipFile(listed.archive(0), "a") as archive:
        archive.comment = b"packed again"
    nowhere = "http://127.0.0.1:9"
    assert states(downloads.fetch("omniglot", listed.root, None, nowhere)) == ["ok", "ok"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


BAD_DOWNLOADS = {
    "not there": lambda path: path.unlink(),
    "cut short": cut,
    "a web page": lambda path: path.write_text("<html>sign in</html>"),
    "endless": lambda path: path.write_bytes(bytes(4 << 20)),
}


@pytest.mark.parametrize("case", BAD_DOWNLOADS)
def test_a_bad_download_is_a_data_error_and_leaves_what_was_there(listed, mirror, case):
    BAD_DOWNLOADS[case](mirror[1] / "images_background.zip")
    listed.archive(0).write_text("altered")
    with pytest.raises(errors.DataError, match=r"cannot download omniglot/images_background\.zip") as caught:
        downloads.fetch("omniglot", listed.root, None, mirror[0])
    assert caught.value.exit_code == 4
    assert str(caught.value).count("\n") == 2
    assert listed.archive(0).read_text() == "altered"
    assert sorted(path.name for path in listed.archive(0).parent.iterdir()) == [
        "images_background.zip",
        "images_evaluation.zip",
    ]


def test_a_download_with_the_right_checksum_and_other_content_is_refused(listed, mirror, monkeypatch):
    sources = tuple(source._replace(content="0" * 64) for source in omniglot_files.SOURCES)
    monkeypatch.setattr(omniglot_files, "SOURCES", sources)
    with pytest.raises(errors.DataError, match="not the published one"):
        downloads.fetch("omniglot", listed.root, None, mirror[0])


def test_without_a_network_fetch_says_so(listed, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(errors.DataError, match="cannot download") as caught:
        downloads.fetch("omniglot", tmp_path / "new", None, "http://127.0.0.1:9")
    assert "network" in caught.value.remedy


def test_a_data_root_that_cannot_be_written_is_a_storage_error(listed, mirror, tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(errors.StorageError, match="cannot write") as caught:
        downloads.fetch("omniglot", tmp_path / "file", None, mirror[0])
    assert "METARUN_DATA" in caught.value.remedy
