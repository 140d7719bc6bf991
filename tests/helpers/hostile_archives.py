"""Hostile downloads, made from seeds: ZIP archives in the place of Omniglot's, gzipped idx files in that of MNIST's.

Each maker gives the bytes, and a pattern of what is said of them. A hostile file that looks right has another content,
which the digest finds.
"""

import functools
import gzip
import io
import random
import re
import stat
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main
from PIL import Image

MOST_MEMORY = 24 << 20  # bytes; the largest bombs here unpack to 200 million
# While memory is traced, building the commands takes most of the time.
BUILD = functools.cache(typer.main.get_command)
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
            (f"/evil{chooser.random()}.png", "points outside its folder"),
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


def everything(folder):
    """All files below, with their content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_place(folder: Path, monkeypatch) -> Path:
    """Make a data root in a folder of its own, which is then that of metarun and the working folder."""
    root = folder / "around" / "data"
    for file in PLACES.values():
        (root / file).parent.mkdir(parents=True)
    monkeypatch.setenv("METARUN_DATA", str(root))
    monkeypatch.setenv("METARUN_CACHE", str(folder / "cache"))
    monkeypatch.chdir(root)
    return root


def refuse(place: Path, metarun_: Callable, number: int, seed: int = 0) -> str | None:
    """Offer the archive of a number to `metarun data verify`, and say what went wrong; None if nothing did.

    Args:
      place: the data root, in a folder of its own, with the folders of PLACES.
    """
    name, maker = maker_of(number)
    content, reason = maker(random.Random(1_000_000 * seed + number))
    file = place / PLACES[name]
    file.write_bytes(content)
    before = everything(place.parents[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", BUILD)
        tracemalloc.start()
        said = metarun_("data", "verify", name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    changed = everything(place.parents[1]) != before
    file.unlink()
    told = next((line for line in said.out if line.startswith(PLACES[name])), "")
    faults = {
        f"exit code {said.code}": said.code != 4,
        f"{peak} bytes of memory": peak >= MOST_MEMORY,
        "something was written": changed,
        f"said {said.err}": len(said.err) != 3,
        f"told {told!r}": " altered " not in told or not re.search(reason, told),
    }
    wrong = [fault for fault, holds in faults.items() if holds]
    return f"archive {number} ({maker.__name__}), seed {seed}: {', '.join(wrong)}" if wrong else None
