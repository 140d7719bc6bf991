"""Mutated pictures of every format that metarun opens: each is read or refused, in bounded time and memory."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fault import bounded, pace
from fault.mutation import mutate
from fault.share import seed, share

MOST_SECONDS = 20.0  # of processor time for one picture, read twice
MOST_BYTES = 1536 << 20  # the decoder's share of 1 GiB, and Python
BATCH = 100  # pictures of one child
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("L", "P", "RGB"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB"),
    "WEBP": ("RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I;16"),
}
OPTIONS = {
    "PNG": ({}, {"optimize": True}),
    "JPEG": ({}, {"progressive": True}, {"exif": "turned"}),
    "GIF": ({}, {"save_all": True}),
    "TIFF": ({}, *({"compression": name} for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits"))),
    "WEBP": ({}, {"lossless": True}, {"save_all": True}),
}


def make_pictures() -> Iterator[tuple[str, bytes]]:
    """Yield (suffix, content) of good pictures, one for each format, mode and option that Pillow writes."""
    noise = np.random.default_rng(0).integers(0, 256, (17, 24, 4), dtype=np.uint8)
    for name, modes in MODES.items():
        for mode in modes:
            for options in OPTIONS.get(name, ({},)):
                yield name.lower(), encode(name, make_picture(noise, mode), dict(options))


def make_picture(noise: np.ndarray, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(noise.view(np.uint16)[:, :, 0])
    if mode == "F":
        return Image.fromarray(noise[:, :, 0].astype(np.float32))
    if mode in ("RGBA", "CMYK"):
        return Image.frombytes(mode, (24, 17), noise.tobytes())
    return Image.fromarray(noise[:, :, 0 if mode in ("1", "L", "P") else slice(3)]).convert(mode)


def encode(name: str, picture: Image.Image, options: dict) -> bytes:
    if options.get("save_all"):
        options["append_images"] = [picture.rotate(90, expand=False), picture.rotate(180)]
    if options.get("exif"):
        exif = Image.Exif()
        exif[0x0112] = 6  # the orientation
        options["exif"] = exif.tobytes()
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def mend_checksums(content: bytes) -> bytes:
    """Give each chunk of a PNG its right CRC, so that what was altered reaches the decoder."""
    changed, place = bytearray(content), 8
    while place + 12 <= len(changed):
        (length,) = struct.unpack_from(">I", changed, place)
        end = place + 8 + length
        if end + 4 > len(changed):
            break
        struct.pack_into(">I", changed, end, zlib.crc32(changed[place + 4 : end]))
        place = end + 4
    return bytes(changed)


def make_bomb(chooser: random.Random) -> bytes:
    """Return a PNG of few bytes that claims, and sometimes has, very many pixels or a very long text."""
    width, height = chooser.choice(
        ((1, 1 << 26), (1 << 26, 1), (8192, 8192), (1 << 15, 2048), (60_000, 60_000), *[(9, 9)] * 3)
    )
    width, height = width + chooser.choice((0, 0, 1)), height + chooser.choice((0, 0, 1))
    depth, kind = chooser.choice(((1, 0), (8, 0), (8, 2), (16, 2), (8, 6), (8, 3)))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, chooser.choice((0, 1))))]
    text = zlib.compress(bytes(chooser.choice((10, 50_000_000))), 1)
    parts += chooser.sample(
        [(b"zTXt", b"a\0\0" + text), (b"iCCP", b"a\0\0" + text), (b"iTXt", b"a\0\1\0\0\0" + text)],
        chooser.randint(0, 2),
    )
    row = 1 + (width * depth * {0: 1, 2: 3, 3: 1, 6: 4}[kind] + 7) // 8
    parts.append((b"PLTE", bytes(768)))
    parts.append((b"IDAT", zlib.compress(bytes(min(row * height, chooser.choice((100, 20_000_000)))), 1)))
    chunks = [
        struct.pack(">I", len(data)) + name + data + bytes(4) for name, data in [*parts, (b"IEND", b"")]
    ]
    return mend_checksums(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def write_pictures(folder: Path, first: int, count: int) -> list[Path]:
    good = list(make_pictures())
    files = []
    for number in range(first, first + count):
        chooser = random.Random(f"{seed()} picture {number}")
        suffix, content = good[number % len(good)]
        if number % 25 == 0:
            suffix, content = "png", make_bomb(chooser)
        elif number % 25 == 1:
            suffix = chooser.choice(list(MODES)).lower()  # a good picture under another name
        else:
            content = mutate(content, chooser, [other for _, other in good])
            if suffix == "png" and chooser.random() < 0.6:
                content = mend_checksums(content)
        path = folder / f"{number}.{suffix.replace('jpeg', 'jpg')}"
        path.write_bytes(content)
        files.append(path)
    return files


def test_every_good_picture_is_read_or_refused_for_its_pixels(attack, tmp_path):
    """The formats are really opened: without this, refusing everything would pass below."""
    files = []
    for number, (suffix, content) in enumerate(make_pictures()):
        files.append(tmp_path / f"{number}.{suffix.replace('jpeg', 'jpg')}")
        files[-1].write_bytes(content)
    said = []
    for outcome in bounded.read_all("fault.readers:read_picture", files, tmp_path, 300):
        attack.tries += 1
        said.append(outcome.said)
        if outcome.said not in ("read", "refused"):
            attack.fail(f"{outcome}")
    assert said.count("read") >= 0.8 * len(said)


@pytest.mark.parametrize("first", range(0, share(250), 250))
def test_a_mutated_picture_is_read_or_refused_in_bounded_time_and_memory(attack, tmp_path, first):
    ends = set()
    for start in range(first, min(first + 250, share(250)), BATCH):
        count = min(BATCH, first + 250 - start)
        files = write_pictures(tmp_path, start, count)
        for outcome in bounded.read_all("fault.readers:read_picture", files, tmp_path, 400):
            attack.tries += 1
            ends.add(outcome.said)
            if outcome.said not in ("read", "refused"):
                attack.fail(f"{outcome.path.name}, seed {seed()}: {outcome.said}")
            if outcome.seconds > pace.allow(MOST_SECONDS) or outcome.peak > MOST_BYTES:
                attack.fail(
                    f"{outcome.path.name}, seed {seed()}: {outcome.seconds:.1f} s, {outcome.peak:,} bytes"
                )
        if set(files) != set(tmp_path.iterdir()):
            attack.fail(f"other files were made: {set(tmp_path.iterdir()) - set(files)}")
        for file in files:
            file.unlink()
    assert {"read", "refused"} <= ends
