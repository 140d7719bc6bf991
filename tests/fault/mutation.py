"""Bytes altered at random, as damage and as an attacker alter them. Everything depends on the chooser alone."""

import random
import struct
from collections.abc import Callable, Sequence

# Numbers at which counters overflow and signs change.
CORNERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)


def flip(content: bytes, chooser: random.Random) -> bytes:
    """Alter one to ten single bits."""
    changed = bytearray(content)
    for _ in range(chooser.randint(1, 10)):
        changed[chooser.randrange(len(changed))] ^= 1 << chooser.randrange(8)
    return bytes(changed)


def place_corner(content: bytes, chooser: random.Random) -> bytes:
    """Write a number at which something overflows, mostly near the beginning, where headers are."""
    changed = bytearray(content)
    for _ in range(chooser.randint(1, 3)):
        layout = chooser.choice(["B", "<H", ">H", "<I", ">I"])
        size = struct.calcsize(layout)
        end = len(changed) - size if chooser.random() < 0.3 else min(len(changed) - size, 120)
        value = chooser.choice(CORNERS) & ((1 << 8 * size) - 1)
        struct.pack_into(layout, changed, chooser.randint(0, max(0, end)), value)
    return bytes(changed)


def cut(content: bytes, chooser: random.Random) -> bytes:
    """Keep the beginning alone."""
    return content[: chooser.randrange(len(content))]


def take_out(content: bytes, chooser: random.Random) -> bytes:
    """Leave out a piece."""
    first = chooser.randrange(len(content))
    return content[:first] + content[first + chooser.randint(1, 40) :]


def repeat(content: bytes, chooser: random.Random) -> bytes:
    """Write a piece many times."""
    first = chooser.randrange(len(content))
    return content[:first] + content[first : first + 60] * chooser.randint(2, 200) + content[first:]


def put_in(content: bytes, chooser: random.Random) -> bytes:
    """Put random bytes between."""
    first = chooser.randrange(len(content))
    return content[:first] + chooser.randbytes(chooser.randint(1, 80)) + content[first:]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip,
    place_corner,
    cut,
    take_out,
    repeat,
    put_in,
)


def mutate(content: bytes, chooser: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Return the content after one to three mutations; now and then with the end of another one."""
    for _ in range(chooser.choice((1, 1, 2, 3))):
        if len(content) < 8:
            return content
        content = chooser.choice(MUTATIONS)(content, chooser)
    if others and content and chooser.random() < 0.1:
        other = chooser.choice(others)
        content = content[: chooser.randrange(len(content))] + other[chooser.randrange(len(other)) :]
    return content
