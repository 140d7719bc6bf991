"""The loader that travels in an exported file: what it reads, and what it refuses."""

import ast
import io
import json
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export

from helpers import processes, untrained
from metarun.exported import exporter, header, loader, portable
from metarun.exported.loader import ExportError
from metarun.exported.portable import Sizes

BLOBS = {"name": "linear", "kind": "blobs", "dimensions": 3, "ways": 3, "shots": 2, "queries": 2}


@pytest.fixture(scope="module")
def content() -> bytes:
    """The file of a learner that tells three classes apart."""
    run = untrained.make_learner(BLOBS, {"name": "mlp", "hidden": [4]}, {"name": "protonet"})
    programs = portable.export_learner(run, 3, [Sizes(None, None)], ("cpu",))
    return exporter.pack(programs, header.describe(run, programs, 3, ("cpu",)))


@pytest.fixture
def file(content, tmp_path) -> Path:
    path = tmp_path / "learner.metarun"
    path.write_bytes(content)
    return path


def unpack(content: bytes) -> dict[str, bytes]:
    """Return the parts of a file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repack(content: bytes, **changes: object) -> io.BytesIO:
    """Return the file with other values in its header, as somebody would write it."""
    parts = unpack(content)
    parts["header.json"] = json.dumps(json.loads(parts["header.json"]) | changes).encode()
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    changed.seek(0)
    return changed


def test_examples_of_several_shapes_are_refused(file):
    learner = loader.load(file)
    with pytest.raises(ExportError, match="differ in shape"):
        learner.adapt(([[1.0, 2.0, 3.0], [1.0]], [0, 1]))
    with pytest.raises(ExportError, match="differ in shape"):
        learner.adapt((np.zeros((2, 3)), [[0], [1, 2]]))


def test_it_needs_jax_and_numpy_alone():
    tree = ast.parse(Path(loader.__file__).read_text("utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) == {"jax", "numpy"}


@pytest.mark.slow
def test_the_file_alone_adapts_and_predicts(file, content):
    x = np.float32(np.arange(18).reshape(6, 3) / 10)
    expected = loader.load(io.BytesIO(content)).adapt((x, [0, 0, 1, 1, 2, 2])).predict(x)
    code = (
        "import sys, numpy as np; sys.path.insert(0, sys.argv[1]); import metarun_loader as m\n"
        "x = np.arange(18).reshape(6, 3) / 10\n"
        "print(m.load(sys.argv[1]).adapt((x, [0, 0, 1, 1, 2, 2])).predict(x).tolist())\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'metarun'])"
    )
    answers, modules = processes.run_code(code, file).splitlines()
    np.testing.assert_allclose(json.loads(answers), expected, atol=1e-6)
    assert modules == "[]"


def test_running_the_file_says_what_it_takes(file, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(file)])
    loader.main()
    said = capsys.readouterr().out
    assert (
        "protonet with mlp on linear" in said and "labels 0 to 2" in said and "any number of examples" in said
    )


def test_any_changed_byte_is_refused_or_changes_nothing(content):
    parts, refused = unpack(content), 0
    for place in range(0, len(content), 61):
        changed = bytearray(content)
        changed[place] ^= 0x15
        try:
            read = loader.read_archive(io.BytesIO(bytes(changed)), "file")
            loader.read_header(read, "file")
            loader.check_digests(read, "file")
        except ExportError:
            refused += 1
        else:
            assert read == parts
    assert refused > 0.8 * len(content) / 61


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_file_is_refused(content, share):
    with pytest.raises(ExportError, match="damaged, or no export"):
        loader.load(io.BytesIO(content[: int(share * len(content))]))


def test_a_file_of_another_format_names_its_own_loader(content):
    with pytest.raises(ExportError, match="has format 2, and this loader reads format 1") as caught:
        loader.load(repack(content, format=2))
    assert "metarun_loader.py" in caught.value.remedy
    assert str(caught.value).splitlines()[0].startswith("error: ")


def test_a_part_that_was_changed_is_named(content):
    with pytest.raises(ExportError, match=r"the file was changed: header\.json is not as it was written"):
        loader.load(repack(content, mode="transductive"))


def test_what_is_no_export_is_refused(tmp_path):
    with pytest.raises(ExportError, match="no such file"):
        loader.load(tmp_path / "nowhere")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("header.json", "[]")
    with pytest.raises(ExportError, match="is no export of metarun"):
        loader.load(tmp_path / "other.zip")


def test_programs_of_another_jax_are_refused(content, monkeypatch):
    monkeypatch.setattr(export, "minimum_supported_calling_convention_version", 1000)
    with pytest.raises(ExportError, match="cannot read these programs") as caught:
        loader.load(io.BytesIO(content))
    assert f"install jax {jax.__version__}" in caught.value.remedy


def test_a_missing_flatbuffers_is_named(content, monkeypatch):
    def deserialize(blob):
        raise ImportError("no flatbuffers")

    monkeypatch.setattr(export, "deserialize", deserialize)
    with pytest.raises(ExportError, match="needs flatbuffers") as caught:
        loader.load(io.BytesIO(content))
    assert caught.value.remedy == "pip install flatbuffers"


def test_programs_for_another_platform_are_refused():
    assert loader.choose_device(["cuda", "cpu"], "file").platform == "cpu"
    with pytest.raises(ExportError, match="for cuda, and jax has cpu here") as caught:
        loader.choose_device(["cuda"], "file")
    assert "--platforms cuda,cpu" in caught.value.remedy


@pytest.mark.parametrize(
    ("inputs", "targets", "what"),
    [
        (np.zeros((3, 2)), [0, 1, 2], r"inputs have shape \(3, 2\)"),
        (np.zeros((0, 3)), [], r"inputs have shape \(0, 3\)"),
        (np.full((3, 3), np.nan), [0, 1, 2], "inputs have numbers that are not finite"),
        (np.zeros((3, 3)), [0, 1], r"targets have shape \(2,\)"),
        (np.zeros((3, 3)), [0.0, 1.0, 2.0], "type float64"),
        (np.zeros((3, 3)), [0, 1, 1], "the labels are 0, 1; the learner tells 3 classes apart"),
    ],
)
def test_a_support_that_it_cannot_take_is_refused(content, inputs, targets, what):
    with pytest.raises(ExportError, match=what):
        loader.load(io.BytesIO(content)).adapt((inputs, targets))


def test_a_fixed_support_and_pictures_are_checked():
    head = {
        "inputs": {"shape": [2], "kind": "pictures"},
        "targets": {"kind": "numbers", "size": 1},
        "support": {"count": 4},
    }
    with pytest.raises(ExportError, match="has 3 examples, and the learner takes 4"):
        loader.check_targets(head, np.zeros((3, 1)), 3)
    with pytest.raises(ExportError, match="values from 0 to 255"):
        loader.check_inputs(head, [[0, 255]], "the support")


def test_queries_are_answered_in_batches_of_few_sizes():
    def list_batches(count: int, fixed: int | None = None) -> list[list[int]]:
        queries = np.arange(count)
        return [batch.tolist() for batch in loader.split(queries, fixed, "inductive", "file")]

    assert list_batches(3) == [[0, 1, 2, 0]]
    assert list_batches(1) == [[0]]
    assert list_batches(5, fixed=3) == [[0, 1, 2], [3, 4, 0]]
    assert [len(batch) for batch in list_batches(600)] == [256, 256, 256]


def test_queries_that_normalise_one_another_stay_together():
    (batch,) = loader.split(np.arange(300), None, "transductive", "file")
    assert len(batch) == 300
    with pytest.raises(ExportError, match="takes 4 at once"):
        loader.split(np.arange(3), 4, "transductive", "file")
