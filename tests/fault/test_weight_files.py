"""Damaged files of published networks: each gives the options and the parameters of a network, or three lines.

tests/fault/test_weights.py attacks the reader of the format alone; here whole files of every layout are damaged, and
the detection, the map of names and the folding read them.
"""

import json
import random
import struct
from pathlib import Path

import numpy as np

from fault import tries
from fault.mutation import mutate
from fault.share import seed, share
from metarun.backbones import contents

SOURCES = sorted((Path(__file__).parents[1] / "backbones").glob("*.safetensors"))
BOUNDS = tries.Bounds(memory=64 << 20, seconds=5.0)  # for files of 180 kB at most
NOTHING = {"heads": 2}  # what no file has to say; all other options are null


def change_shape(header: dict, chooser: random.Random) -> None:
    """Turn, lengthen or empty the shape of an array."""
    name = chooser.choice([name for name in header if name != "__metadata__"])
    shape = header[name]["shape"]
    header[name]["shape"] = chooser.choice([shape[::-1], [*shape, 1], shape[1:], [0], [1 << 40] * 2, [1] * 8])


def change_name(header: dict, chooser: random.Random) -> None:
    """Leave an array out of the names, or give it another."""
    name = chooser.choice([name for name in header if name != "__metadata__"])
    header[chooser.choice(["other", name[::-1], name + ".weight", ""])] = header.pop(name)


def change_offsets(header: dict, chooser: random.Random) -> None:
    """Let two arrays overlap, or one lie anywhere."""
    first, second = chooser.sample([name for name in header if name != "__metadata__"], 2)
    header[first]["data_offsets"] = chooser.choice(
        [header[second]["data_offsets"], [0, 1 << 40], [1 << 40, 0]]
    )


def change_metadata(header: dict, chooser: random.Random) -> None:
    """Say nonsense of heads, sizes and activations."""
    value = chooser.choice(["", "-1", "0", "nan", "9" * 5000, "a", "3"])
    header["__metadata__"] = {chooser.choice(["heads", "activation", "size", "mean"]): value}


def change_type(header: dict, chooser: random.Random) -> None:
    """Call the numbers something else."""
    name = chooser.choice([name for name in header if name != "__metadata__"])
    header[name]["dtype"] = chooser.choice(["F16", "BF16", "F64", "I32", "I8", "BOOL", "Q", "F32"])


CHANGES = (change_shape, change_name, change_offsets, change_metadata, change_type)


def damage(content: bytes, chooser: random.Random) -> bytes:
    """Return a damaged file: its header, its numbers, or any of its bytes."""
    if chooser.random() < 0.4:
        return mutate(content, chooser)
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    if chooser.random() < 0.2:
        place = chooser.randrange(len(body) - 4)
        body[place : place + 4] = struct.pack("<f", chooser.choice([np.nan, np.inf, -1e38, 1e38]))
    else:
        chooser.choice(CHANGES)(header, chooser)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


def read(path: Path) -> None:
    """Read a file as a training does."""
    model = contents.find_model(path)
    defaults = dict.fromkeys(
        ("layout", "width", "depth", "heads", "patch", "feedforward", "registers", "layer_scale")
    )
    defaults |= dict.fromkeys(
        ("norm_before", "patch_bias", "class_position", "projection", "activation", "epsilon")
    )
    if model == "resnet":
        defaults = dict.fromkeys(("layout", "width", "blocks", "bottleneck", "projection"))
    given = {"weights": str(path), **defaults}
    options = contents.fill(model, given | {name: 2 for name in NOTHING if name in given}, defaults)
    tree = contents.read_tree(model, options, (3, 3))
    leaves = [
        leaf
        for branch in tree.values()
        for leaf in (branch.values() if isinstance(branch, dict) else [branch])
    ]
    assert leaves


def test_damaged_files_of_networks_are_read_or_refused(attack, tmp_path):
    chooser, path, refused = random.Random(seed()), tmp_path / "a.safetensors", 0
    for source in SOURCES:
        read(source)
    for index in range(share(100)):
        source = chooser.choice(SOURCES)
        path.write_bytes(damage(source.read_bytes(), chooser))
        what = f"file {index} of {source.name}, seed {seed()}"
        refused += tries.is_refused(attack, what, lambda: read(path), BOUNDS)
    assert 0 < refused < share(100)
