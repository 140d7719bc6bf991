"""Five hundred hostile downloads, made from seeds: each ends in exit code 4, none writes anything or takes much memory.

Half of them take the place of an archive of Omniglot, half that of a gzipped file of MNIST. What is told of each must
be what is wrong with it. A hostile file that looks right has another content, which the digest finds.
"""

import functools
import gzip
import hashlib
import http.server
import io
import logging
import random
import re
import stat
import struct
import sys
import threading
import tracemalloc
import zipfile
import zlib

import pytest
import typer.main
from PIL import Image

from metarun import cli, errors
from metarun.data import archives, datasets, downloads

COUNT = 500
# While memory is traced, building the commands takes most of the time.
BUILD = functools.cache(typer.main.get_command)
MOST_MEMORY = 24 << 20  # bytes; the largest bombs here unpack to 200 million
OTHER_CONTENT = "not the published one"
LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
PREFIX = "images_background/Greek/character01/"


def png(side: int = 105) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (side, side), 1).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = png()
NO_PICTURE = "not a PNG drawing of 105×105"


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def good_members(chooser: random.Random) -> list[tuple[zipfile.ZipInfo, bytes]]:
    numbers = chooser.sample(range(10_000), chooser.randint(1, 30))
    return [(member(f"{PREFIX}{number:04}_01.png"), PICTURE) for number in numbers]


def packed(members, method=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for info, content in members:
            archive.writestr(info, content, method)
    return buffer.getvalue()


def among(chooser: random.Random, *hostile: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    """An archive with the hostile members in random places among good ones."""
    members = good_members(chooser)
    for each in hostile:
        members.insert(chooser.randint(0, len(members)), each)
    return packed(members)


def patched(content: bytes, signature: bytes, offset: int, layout: str, value: int) -> bytes:
    """The archive with a field of its last header of that kind overwritten."""
    changed = bytearray(content)
    struct.pack_into(layout, changed, content.rindex(signature) + offset, value)
    return bytes(changed)


# ZIP archives: each maker gives the bytes, and a pattern of what is said of them


def parent_folder(chooser):
    steps = "../" * chooser.randint(1, 8)
    name = chooser.choice(
        [f"{steps}evil.png", f"{PREFIX}{steps}evil.png", f"{PREFIX}{steps}", f"./{PREFIX}a.png"]
    )
    return among(chooser, (member(name), b"")), "points outside its folder"


def absolute_name(chooser):
    name, reason = chooser.choice(
        [
            (f"/tmp/evil{chooser.random()}.png", "points outside its folder"),
            (f"//host/share/{chooser.random()}.png", "points outside its folder"),
            (f"C:/evil{chooser.random()}.png", "not expected here"),
            (f"~/evil{chooser.random()}", "not expected here"),
        ]
    )
    return among(chooser, (member(name), PICTURE)), reason


def backslash(chooser):
    content = among(chooser, (member(f"..Z{chooser.randint(0, 99)}Zevil.png"), PICTURE))
    return content.replace(b"..Z", b"..\\"), "backslash"


def link(chooser):
    target = chooser.choice([b"/etc/passwd", b"../../..", b"0001_01.png"])
    name = f"{PREFIX}{chooser.randint(0, 9999):04}_02.png"
    return among(chooser, (member(name, stat.S_IFLNK | 0o777), target)), "a link or a device"


def link_and_a_file_behind_it(chooser):
    hostile = [(member("images_background/Evil", stat.S_IFLNK | 0o777), b"/tmp")]
    hostile.append((member("images_background/Evil/character01/0001_01.png"), PICTURE))
    return among(chooser, *hostile), "a link or a device"


def device(chooser):
    kind = chooser.choice([stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
    return among(chooser, (member(f"{PREFIX}0001_02.png", kind | 0o666), b"")), "a link or a device"


def duplicate(chooser):
    name = f"{PREFIX}{chooser.randint(0, 9999):04}_02.png"
    other = name + "/" if chooser.random() < 0.5 else name
    twins = [(member(name), PICTURE), (member(other, 0), PICTURE if other == name else b"")]
    return among(chooser, *twins), "same name"


def unexpected_name(chooser):
    names = [
        "setup.py",
        f"{PREFIX}0001_01.png.exe",
        f"{PREFIX}0001_01.svg",
        f"evil/{PREFIX}0001_01.png",
        "a\nb",
    ]
    return among(chooser, (member(chooser.choice(names)), PICTURE)), "not expected here"


def hidden_by_a_nul(chooser):
    content = among(chooser, (member(f"{PREFIX}0001_02.pngZ{chooser.randint(0, 99)}.exe"), PICTURE))
    return content.replace(b"pngZ", b"png\0"), "NUL in its name"


def bomb(chooser):
    content = bytes(chooser.randint(1 << 17, 1 << 24))
    return among(chooser, (member(f"{PREFIX}0001_02.png"), content)), "too large"


def small_bomb(chooser):
    content = bytes(chooser.randint(30_000, 1 << 16))
    return among(chooser, (member(f"{PREFIX}0001_02.png"), content)), "compressed beyond reason"


def bomb_behind_a_small_stated_size(chooser):
    content = packed([(member(f"{PREFIX}0001_02.png"), bytes(chooser.randint(1 << 20, 1 << 24)))])
    return patched(content, CENTRAL, 24, "<I", chooser.randint(1, 60_000)), "CRC|damaged"


def too_many_members(chooser):
    """A directory of entries without files: 47 bytes each here, 414 in zipfile."""
    count = chooser.randint(40_001, 60_000)
    entry = CENTRAL + struct.pack("<6H3I5H2I", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, *[0] * 6) + b"a"
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, len(entry) * count, 0, 0)
    return entry * count + end, f"{count} members, more than the 40000"


def overlapping_members(chooser):
    """Every entry of the directory points at the same compressed bytes."""
    stored = LOCAL + struct.pack(
        "<5H3I2H", 20, 0, 0, 0, 0, zlib.crc32(PICTURE), *[len(PICTURE)] * 2, 24 + 36, 0
    )
    names = [f"{PREFIX}{number:04}_01.png".encode() for number in range(chooser.randint(10, 500))]
    stored = stored[:26] + struct.pack("<2H", len(names[0]), 0) + names[0] + PICTURE
    size = len(PICTURE)
    directory = b"".join(
        CENTRAL
        + struct.pack("<6H3I5H2I", 20, 20, 0, 0, 0, 0, zlib.crc32(PICTURE), size, size, len(name), *[0] * 6)
        + name
        for name in names
    )
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, len(names), len(names), len(directory), len(stored), 0)
    return stored + directory + end, "overlap|differ"


def lying_header(chooser):
    content = packed(good_members(chooser))
    offset, layout, value = chooser.choice(
        [(16, "<I", 12345), (20, "<I", 5), (24, "<I", 3), (42, "<I", 7), (24, "<I", len(PICTURE) + 9)]
    )
    return patched(content, CENTRAL, offset, layout, value), "damaged|ends before|beyond reason"


def encrypted(chooser):
    return patched(packed(good_members(chooser)), CENTRAL, 8, "<H", chooser.choice([1, 0x40])), "encrypted"


def other_method(chooser):
    method = chooser.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    return packed(good_members(chooser), method), "other than deflate"


def truncated_zip(chooser):
    content = packed(good_members(chooser))
    return content[: chooser.randint(0, len(content) - 1)], "truncated, damaged or not a ZIP"


def no_zip(chooser):
    content = chooser.choice([b"<html>", b"\x1f\x8b\x08", b"PK", b"ustar", b""]) + chooser.randbytes(500)
    return content, "not a ZIP"


def no_picture(chooser):
    """Members of the right names that are no drawings: text, other sizes, and a picture of 3.6 billion pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    large = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    content = chooser.choice([b"text", png(106), png(1), large, PICTURE[:60], b"GIF89a" + bytes(50)])
    return among(chooser, (member(f"{PREFIX}0001_02.png"), content)), NO_PICTURE


def other_drawings(chooser):
    return packed(good_members(chooser)), OTHER_CONTENT


def other_drawings_among_strays(chooser):
    """What a Mac leaves is not what is wrong: it is passed over, and then the content is another one."""
    names = [
        "__MACOSX/",
        f"__MACOSX/{PREFIX}._0001_01.png",
        ".DS_Store",
        f"{PREFIX}.DS_Store",
        f"{PREFIX}Thumbs.db",
    ]
    return among(chooser, *[(member(name, 0), b"stray" * (name[-1] != "/")) for name in names]), OTHER_CONTENT


def stray_that_is_a_link(chooser):
    name = chooser.choice([".DS_Store", "__MACOSX/a", f"{PREFIX}._x"])
    return among(chooser, (member(name, stat.S_IFLNK | 0o777), b"/etc")), "a link or a device"


def stray_outside(chooser):
    name = chooser.choice(["../.DS_Store", "/__MACOSX/a", "__MACOSX/../../a"])
    return among(chooser, (member(name), b"")), "points outside its folder"


def damaged_zip(chooser):
    """Any bytes altered: whatever it is then, it is not Omniglot."""
    content = bytearray(packed(good_members(chooser)))
    for _ in range(chooser.randint(1, 20)):
        content[chooser.randrange(len(content))] = chooser.randrange(256)
    return bytes(content), "."


# Gzipped idx files, in the place of the 10,000 test labels of MNIST


def idx(count: int, axes: int = 1, kind: int = 8) -> bytes:
    return bytes((0, 0, kind, axes)) + struct.pack(">I", count) * axes


def labels(chooser) -> bytes:
    return idx(10_000) + chooser.randbytes(10_000)


def truncated_gzip(chooser):
    content = gzip.compress(labels(chooser))
    return content[: chooser.randint(2, len(content) - 1)], "truncated or damaged|magic number|header"


def gzip_bomb(chooser):
    """200 million bytes after a header that promises a few."""
    return compressed_zeros(idx(chooser.randint(1, 10_000)), 200_000_000), "goes on after"


def gzip_bomb_that_keeps_its_promise(chooser):
    count = chooser.randint(1 << 28, 1 << 29)
    return compressed_zeros(idx(count), 200_000_000), "beyond reason"


@functools.cache
def zeros(count: int) -> bytes:
    """A raw deflate stream of so many zero bytes, to come after others in one stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(count)) + packer.flush()


def compressed_zeros(head: bytes, count: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + zeros(count)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + stream + struct.pack("<II", 0, (count + len(head)) & 0xFFFFFFFF)


def too_much_promised(chooser):
    return gzip.compress(idx(chooser.choice([(1 << 32) - 1, (1 << 30) + 1])) + bytes(100)), "bytes, and 1 to"


def less_than_promised(chooser):
    count = chooser.randint(10_001, 100_000)
    return gzip.compress(idx(count) + bytes(10_000)), f"ends before the {count} bytes"


def other_idx(chooser):
    header = chooser.choice([idx(10_000, kind=13), idx(100, axes=2), b"\x89PNG" + bytes(4), b"\0\0\x08\1"])
    return gzip.compress(header + bytes(10_000 if len(header) > 4 else 2)), "magic number|header"


def after_the_end(chooser):
    tail = chooser.choice([b"evil", gzip.compress(b"evil"), PICTURE])
    return gzip.compress(labels(chooser)) + tail, "goes on after|truncated or damaged"


def wrong_checksum(chooser):
    content = bytearray(gzip.compress(labels(chooser)))
    content[-chooser.randint(1, 8)] ^= 0xFF
    return bytes(content), "truncated or damaged"


def name_in_the_header(chooser):
    """Gzip may hold the name of a file, which some programs write to."""
    buffer = io.BytesIO()
    with gzip.GzipFile("../../evil", "wb", fileobj=buffer) as file:  # only its last part is kept
        file.write(labels(chooser))
    assert b"evil" in buffer.getvalue()
    return buffer.getvalue(), OTHER_CONTENT


def other_labels(chooser):
    return gzip.compress(labels(chooser)), OTHER_CONTENT


def no_gzip(chooser):
    content = chooser.choice([b"<html>", b"PK\x03\x04", b"BZh9", b"", bytes(4)]) + chooser.randbytes(50)
    return content, "magic number"


def damaged_gzip(chooser):
    content = bytearray(gzip.compress(labels(chooser)))
    for _ in range(chooser.randint(1, 20)):
        content[chooser.randrange(2, len(content))] = chooser.randrange(256)
    return bytes(content), "."


ZIPS = [
    parent_folder, absolute_name, backslash, link, link_and_a_file_behind_it, device, duplicate, unexpected_name,
    hidden_by_a_nul, bomb, small_bomb, bomb_behind_a_small_stated_size, too_many_members, overlapping_members,
    lying_header, encrypted, other_method, truncated_zip, no_zip, no_picture, other_drawings,
    other_drawings_among_strays, stray_that_is_a_link, stray_outside, damaged_zip,
]  # fmt: skip
GZIPS = [
    truncated_gzip, gzip_bomb, gzip_bomb_that_keeps_its_promise, too_much_promised, less_than_promised, other_idx,
    after_the_end, wrong_checksum, name_in_the_header, other_labels, no_gzip, damaged_gzip,
]  # fmt: skip
PLACES = {"omniglot": "omniglot/images_background.zip", "mnist": "mnist/t10k-labels-idx1-ubyte.gz"}


def maker_of(number: int):
    """The data set and the maker of an archive; half of them are ZIP archives."""
    name, makers = ("omniglot", ZIPS) if number % 2 else ("mnist", GZIPS)
    return name, makers[number // 2 % len(makers)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The data root, in a folder of its own; loggers as they were, afterwards."""
    root = tmp_path / "around" / "data"
    for file in PLACES.values():
        (root / file).parent.mkdir(parents=True)
    monkeypatch.setenv("METARUN_DATA", str(root))
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(root)
    logger = logging.getLogger("metarun")
    before = (list(logger.handlers), logger.propagate)
    yield root
    logger.handlers, logger.propagate = before


def everything(folder):
    """All files below, with their content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def exit_code(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["metarun", *arguments])
    monkeypatch.setattr(typer.main, "get_command", BUILD)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("first", range(0, COUNT, 100))
def test_five_hundred_hostile_archives_end_in_exit_code_4_and_write_nothing(
    place, monkeypatch, capsys, first
):
    for number in range(first, first + 100):
        name, maker = maker_of(number)
        content, reason = maker(random.Random(number))
        (place / PLACES[name]).write_bytes(content)
        before = everything(place.parents[1])
        tracemalloc.start()
        assert exit_code(monkeypatch, "data", "verify", name) == 4, (number, maker.__name__)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert everything(place.parents[1]) == before, (number, maker.__name__)
        assert peak < MOST_MEMORY, (number, maker.__name__, peak)
        out, err = capsys.readouterr()
        assert err.count("\n") == 3, err
        told = next(line for line in out.splitlines() if line.startswith(PLACES[name]))
        assert " altered " in told, (number, maker.__name__, told)
        assert re.search(reason, told), (number, maker.__name__, told)
        (place / PLACES[name]).unlink()


def test_every_maker_has_its_share_of_the_five_hundred():
    makers = [maker_of(number)[1] for number in range(COUNT)]
    assert set(makers) == {*ZIPS, *GZIPS}
    assert min(makers.count(maker) for maker in makers) >= 10


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_download_with_the_right_checksum_replaces_nothing(place, monkeypatch, tmp_path):
    """Even if the published checksum were that of the hostile archive, its content would not be taken."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    offered = tmp_path / "offered"
    offered.mkdir()
    handler = functools.partial(QuietHandler, directory=str(offered))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    module = datasets.load_module("omniglot")
    try:
        for number, maker in enumerate(ZIPS):
            content, _ = maker(random.Random(number))
            source = module.SOURCES[0]
            (offered / "images_background.zip").write_bytes(content)
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            monkeypatch.setattr(module, "SOURCES", (source._replace(packed=digest),))
            (place / source.file).write_text("what was there")
            before = everything(place)
            with pytest.raises(errors.DataError) as caught:
                downloads.fetch("omniglot", place, None, f"http://127.0.0.1:{server.server_port}")
            assert caught.value.exit_code == 4
            assert everything(place) == before, maker.__name__
    finally:
        server.shutdown()
        server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *message):
        pass


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
