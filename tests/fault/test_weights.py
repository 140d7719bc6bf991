"""Mutated files of weights: each array has the shape of the header and finite numbers, or the file is refused."""

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from fault import tries
from fault.mutation import mutate
from fault.share import seed, share
from metarun.backbones import safetensors_file
from metarun.errors import DataError

BOUNDS = tries.Bounds(memory=8 << 20, seconds=5.0)  # for files of some hundred bytes
# What may stand in the place of any value of a header.
VALUES = (
    0, -1, 1 << 40, 1 << 62, 1e300, True, None, "", "F32", "BOOL", [], [0], [-1, 2], [1 << 31, 1 << 31], [0, 1 << 62],
    [[1]], {}, {"dtype": "F32"}, "\u202e", "../x", "a" * 3000,
)  # fmt: skip


def make_file() -> tuple[dict, bytes]:
    """Return the header and the numbers of a good file."""
    arrays = {
        "body.0.kernel": np.linspace(-1, 1, 12, dtype="<f4").reshape(3, 4),
        "half": np.ones((2, 2), "<f2"),
        "none": np.zeros((0, 5), "<f4"),
    }
    header, content = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        span = [len(content), len(content) + array.nbytes]
        header[name] = {"dtype": f"F{8 * array.itemsize}", "shape": list(array.shape), "data_offsets": span}
        content += array.tobytes()
    return header, content


def pack(header: object, content: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def alter(chooser: random.Random) -> bytes:
    """Return a file with other values in its header, with other bytes, or both."""
    header, content = make_file()
    kind = chooser.randrange(4)
    for _ in range(chooser.randint(1, 2) if kind < 2 else 0):
        name = chooser.choice(list(header))
        if isinstance(header[name], dict) and header[name] and chooser.random() < 0.8:
            header[name][chooser.choice(list(header[name]))] = chooser.choice(VALUES)
        else:
            header[chooser.choice([name, "other"])] = chooser.choice(VALUES)
    text = json.dumps(header).encode()
    if kind == 2:
        text = chooser.choice(
            (mutate(text, chooser), b"[" * 100_000, b"9" * 9000, b'{"a":' * 5000, b"NaN", b"[1]")
        )
    whole = struct.pack("<Q", len(text)) + text + content
    return mutate(whole, chooser) if kind in (1, 3) else whole


def read(path: Path) -> None:
    weights = safetensors_file.open_file(path)
    for name, shape in weights.shapes.items():
        try:
            array = weights.read(name)
        except DataError:
            continue
        assert array.shape == shape and array.dtype == np.float32 and np.isfinite(array).all()


def test_mutated_weights_are_read_whole_or_refused(attack, tmp_path):
    path, refused = tmp_path / "weights.safetensors", 0
    path.write_bytes(pack(*make_file()))
    read(path)
    for number in range(share(500)):
        chooser = random.Random(f"{seed()} weights {number}")
        path.write_bytes(alter(chooser))
        refused += tries.is_refused(attack, f"weights {number}, seed {seed()}", lambda: read(path), BOUNDS)
        if list(tmp_path.iterdir()) != [path]:
            attack.fail(f"weights {number}, seed {seed()}: something was written")
    assert 0 < refused < share(500)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_pickle_is_refused_before_anything_of_it_runs(attack, tmp_path, name):
    """The pickle would make a file; with either name nothing of it is loaded."""
    attack.tries += 1
    path = tmp_path / name
    path.write_bytes(b"\x80\x04cos\nmkdir\n(S'" + str(tmp_path / "made").encode() + b"'\ntR.")
    with pytest.raises(DataError):
        read(path)
    assert not (tmp_path / "made").exists()
