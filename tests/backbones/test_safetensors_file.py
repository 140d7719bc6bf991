"""Files of weights: every array as it was written, and three lines for whatever is wrong."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from metarun import errors
from metarun.backbones import safetensors_file

VALUES = np.array([[1.5, -2.0, 0.0], [3.25, 1024.0, -0.125]], np.float32)  # each type holds them exactly


def write(path: Path, header: dict | bytes, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def describe(values: np.ndarray = VALUES, dtype: str = "F32", start: int = 0) -> dict:
    size = values.size * safetensors_file.BYTES[dtype]
    return {"dtype": dtype, "shape": list(values.shape), "data_offsets": [start, start + size]}


def encode(dtype: str) -> bytes:
    if dtype == "BF16":  # the upper half of each float32
        return (VALUES.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return VALUES.astype({"F32": np.float32, "F16": np.float16}[dtype]).tobytes()


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_an_array_of_each_type_is_read_as_float32(tmp_path, dtype):
    file = write(tmp_path / "a.safetensors", {"b": describe(dtype=dtype)}, encode(dtype))
    opened = safetensors_file.open_file(file)
    assert opened.shapes == {"b": (2, 3)}
    values = opened.read("b")
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, VALUES)


def test_float32_is_mapped_and_not_copied(tmp_path):
    file = write(tmp_path / "a.safetensors", {"b": describe()}, encode("F32"))
    assert isinstance(safetensors_file.open_file(file).read("b").base, np.memmap)


def test_arrays_lie_anywhere_between_others_and_metadata_are_texts(tmp_path):
    header = {"__metadata__": {"heads": "2"}, "b": describe(start=8), "count": describe(np.zeros(1), "I64")}
    file = write(tmp_path / "a.safetensors", header, struct.pack("<q", 7) + encode("F32"))
    opened = safetensors_file.open_file(file)
    assert opened.metadata == {"heads": "2"}
    np.testing.assert_array_equal(opened.read("b"), VALUES)
    with pytest.raises(errors.DataError, match="I64"):
        opened.read("count")


def test_the_digest_is_that_of_the_bytes(tmp_path):
    file = write(tmp_path / "a.safetensors", {}, b"")
    other = write(tmp_path / "b.safetensors", b"{} ", b"")
    first, second = (safetensors_file.open_file(path).digest() for path in (file, other))
    assert len(first) == 64
    assert first != second


LONG = {"b": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 24]}}
FAULTS = {
    "too short": (b"", "no header"),
    "no such length": (struct.pack("<Q", 2**63) + b"{}", "bytes"),
    "no JSON": (b"nonsense", "JSON"),
    "no UTF-8": (b"\xff\xfe", "JSON"),
    "a list": (b"[]", "object"),
    "deep": (b'{"a":' * 100_000, "JSON"),
    "twice": (b'{"a": 1, "a": 1}', "twice"),
    "not a number": (b'{"a": NaN}', "NaN"),
    "no fields": ({"b": {"dtype": "F32"}}, "shape and data_offsets"),
    "unknown type": ({"b": describe() | {"dtype": "F12"}}, "F12"),
    "a shape of text": ({"b": describe() | {"shape": "23"}}, "whole numbers"),
    "a negative axis": ({"b": describe() | {"shape": [-2, -3]}}, "whole numbers"),
    "many axes": ({"b": describe() | {"shape": [1] * 9}}, "at most 8"),
    "true as an axis": ({"b": describe() | {"shape": [True, 6]}}, "whole numbers"),
    "three offsets": ({"b": describe() | {"data_offsets": [0, 12, 24]}}, "offsets"),
    "a huge shape": (LONG, "does not fill"),
    "offsets turned around": ({"b": describe() | {"data_offsets": [24, 0]}}, "does not fill"),
    "an overlap": ({"a": describe(), "b": describe(start=12)}, "begins at byte 12"),
    "a gap": ({"b": describe(start=4)}, "begins at byte 4"),
    "cut off": ({"b": describe(), "c": describe(start=24)}, "the file at"),
    "metadata of numbers": ({"__metadata__": {"heads": 2}, "b": describe()}, "metadata"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_header_is_said_in_three_lines(tmp_path, fault):
    header, words = FAULTS[fault]
    path = tmp_path / "a.safetensors"
    if fault in ("too short", "no such length"):
        path.write_bytes(header)
    else:
        write(path, header, encode("F32"))
    with pytest.raises(errors.DataError, match=words) as refused:
        safetensors_file.open_file(path)
    assert len(str(refused.value).splitlines()) == 3
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_refused_with_the_name_of_its_array(tmp_path, value):
    body = np.full(VALUES.shape, value, np.float32).tobytes()
    opened = safetensors_file.open_file(write(tmp_path / "a.safetensors", {"b": describe()}, body))
    with pytest.raises(errors.DataError, match="'b' holds a number that is not finite"):
        opened.read("b")


def test_a_file_that_has_become_shorter_is_refused(tmp_path):
    path = write(tmp_path / "a.safetensors", {"b": describe()}, encode("F32"))
    opened = safetensors_file.open_file(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(errors.DataError, match="ends before"):
        opened.read("b")


@pytest.mark.parametrize(
    ("name", "content"), [("a.pth", b"anything"), ("a.bin", b"x" * 9), ("a.safetensors", b"PK\x03\x04" * 4)]
)
def test_a_file_of_pytorch_is_never_loaded_and_its_conversion_is_said(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(errors.DataError, match="can run any code") as refused:
        safetensors_file.open_file(tmp_path / name)
    assert "save_file" in refused.value.remedy


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(errors.DataError):
            safetensors_file.open_file(path)
