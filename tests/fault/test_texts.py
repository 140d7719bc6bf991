"""Mutated idx files, tables and texts: what is read fits the promise of its reader, or the file is refused."""

import csv
import gzip
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fault import tries
from fault.mutation import CORNERS, mutate
from fault.share import seed, share
from metarun.data import examples, idx, sentence_pairs
from metarun.errors import DataError

REMEDY = "take another one"
# 16 MiB may be decompressed unchecked, and are held twice for a moment.
BOUNDS = tries.Bounds(memory=40 << 20, seconds=5.0)
# What a text may hold that a reader takes for something else.
PIECES = [
    piece.encode() for piece in ["1e400", "nan", "-inf", "١", "0x1p3", "1_0", "+5", "1e-320", ",", '"', '""']
]
PIECES += [b"\t", b"\r", b"\n", b"\r\n", "\u2028".encode(), "\x85".encode(), b"\x1c", b"\0"]
PIECES += [
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"\x1b[2J",
    b"a" * 5000,
    b",\n\n,",
    b'"a\nb"',
]


def make_idx(chooser: random.Random) -> bytes:
    """Return a good file, plain or gzipped: 12 pictures or 12 labels."""
    axes = chooser.choice((1, 3))
    content = struct.pack(">4B", 0, 0, 8, axes) + struct.pack(">3I", 12, 9, 8)[: 4 * axes]
    content += chooser.randbytes(12 * 72 if axes == 3 else 12)
    return gzip.compress(content, mtime=0) if chooser.random() < 0.5 else content


def alter_idx(content: bytes, chooser: random.Random) -> bytes:
    """Return the file mutated: before it is packed, so that its header lies, or after."""
    if content[:2] != idx.GZIP_MAGIC or chooser.random() < 0.4:
        return mutate(content, chooser)
    inside = bytearray(gzip.decompress(content))
    struct.pack_into(">I", inside, chooser.randrange(0, 13, 4), chooser.choice(CORNERS))
    return gzip.compress(mutate(bytes(inside), chooser) if chooser.random() < 0.5 else bytes(inside), mtime=0)


def read_idx(path: Path) -> None:
    """Read labels or pictures, whichever it is; the array has the sizes that the header states."""
    for axes in (1, 3):
        try:
            sizes = idx.read_sizes(path, axes, REMEDY)
            array = idx.to_array(*idx.read_bytes(path, axes, REMEDY))
        except DataError:
            if axes == 3:
                raise
            continue
        assert array.shape == sizes and array.dtype == np.uint8 and array.size > 0
        return


def alter_text(content: bytes, chooser: random.Random) -> bytes:
    """Return the text with pieces put in that mean something, or mutated as any bytes."""
    if chooser.random() < 0.3:
        return mutate(content, chooser)
    for _ in range(chooser.randint(1, 4)):
        place = chooser.randrange(len(content) + 1)
        content = content[:place] + chooser.choice(PIECES) + content[place + chooser.choice((0, 0, 1, 3)) :]
    return content


def make_table(chooser: random.Random) -> bytes:
    rows = [["x", "y", "class"]] * chooser.choice((0, 1))
    rows += [[f"{chooser.uniform(-9, 9):.3f}", "3", chooser.choice(("a", "b c", '"q"'))] for _ in range(8)]
    return "\n".join(",".join(row) for row in rows).encode()


def read_table(path: Path) -> None:
    """Every row is one line of the file, and its numbers are those of that line."""
    table = examples.read_table(path, 2, labelled=True)
    lines = [line for line in examples.read_lines(path) if line.strip()]
    assert table.numbers.shape == (len(table.labels), 2) and np.isfinite(table.numbers).all()
    assert len(table.labels) + bool(table.names) == len([line for line in lines if next(csv.reader([line]))])
    for line, numbers, label in zip(lines[-len(table.labels) :], table.numbers, table.labels, strict=True):
        cells = [cell.strip() for cell in next(csv.reader([line]))]
        assert [np.float32(float(cell)) for cell in cells[:2]] == list(numbers) and cells[2] == label


def make_sentences(chooser: random.Random) -> bytes:
    words = ["ein", "zwei", "drei", "vier", "one", "two", "three", "four", "é", "語"]
    lines = [
        "\t".join(" ".join(chooser.choices(words, k=4)) + str(number) for _ in range(2))
        for number in range(9)
    ]
    return "\n".join(lines).encode() + b"\n"


def read_own_sentences(path: Path) -> None:
    """Each pair is one line with one tab."""
    pairs = examples.read_pairs(path)
    lines = [line for line in examples.read_lines(path) if line.strip()]
    assert [tuple(cell.strip() for cell in line.split("\t")) for line in lines] == pairs


def read_training_sentences(path: Path) -> None:
    """Both sides have as many sentences, none is empty and none is there twice."""
    [pair] = sentence_pairs.read(path.parent).pairs
    assert len(pair.sources) == len(set(pair.sources)) == len(pair.targets) == len(set(pair.targets))
    assert all(pair.sources) and all(pair.targets)
    assert not any("\n" in sentence or "\0" in sentence for sentence in pair.sources + pair.targets)


def make_packed(chooser: random.Random) -> bytes:
    return gzip.compress(make_sentences(chooser), mtime=0)


def alter_packed(content: bytes, chooser: random.Random) -> bytes:
    """Return packed text mutated, or a few bytes that unpack to very many."""
    if chooser.random() < 0.05:
        return gzip.compress(b"a\tb\n" * 10_000_000, mtime=0)
    if chooser.random() < 0.5:
        return mutate(content, chooser)
    return gzip.compress(alter_text(gzip.decompress(content), chooser), mtime=0)


@pytest.mark.parametrize(
    ("name", "make", "alter", "read", "count"),
    [
        ("idx", make_idx, alter_idx, read_idx, share(236)),
        ("table.csv", make_table, alter_text, read_table, share(200)),
        ("own.tsv", make_sentences, alter_text, read_own_sentences, share(200)),
        ("en-de.tsv", make_sentences, alter_text, read_training_sentences, share(200)),
        ("en-fr.tsv.gz", make_packed, alter_packed, read_training_sentences, share(100)),
    ],
    ids=["idx", "tables", "own sentences", "training sentences", "packed sentences"],
)
def test_a_mutated_file_is_read_as_its_reader_promises_or_refused(
    attack, tmp_path, name: str, make: Callable, alter: Callable, read: Callable, count: int
):
    path, refused = tmp_path / name, 0
    path.write_bytes(make(random.Random(0)))
    read(path)
    for number in range(count):
        chooser = random.Random(f"{seed()} {name} {number}")
        path.write_bytes(alter(make(chooser), chooser))
        refused += tries.is_refused(attack, f"{name} {number}, seed {seed()}", lambda: read(path), BOUNDS)
    assert 0 < refused < count
