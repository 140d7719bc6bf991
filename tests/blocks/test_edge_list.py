"""A user's own edge lists: which lines count, and how a wrong one is refused."""

import os

import pytest

from helpers import animals
from metarun.blocks import edge_list

WRONG = {
    "lion,cat\nlion": ("1 values, or an empty one, are no edge", ", line 2"),
    "lion,": ("2 values, or an empty one", ", line 1"),
    "lion,cat,heavy": ("heavy is no weight", ", line 1"),
    "lion,cat,-1": ("-1 is no weight", ", line 1"),
    "lion,cat,inf": ("inf is no weight", ", line 1"),
    "lion,lion": ("lion is related to itself", ", line 1"),
    "lion,cat\ncat,lion": ("cat and lion are related in line 1 already", ", line 2"),
    "lion,cat\ntigre,cat": ("has no tigre", ", line 2"),
    "lion,cat,1e300": ("1e300 is no weight", ", line 1"),  # infinity in float32
    'lion,"cat\ntiger,cat': ("no line of CSV", ", line 1"),
    "lion,cat\x1b[31m": ("characters that cannot be printed", ", line 1"),
    "oak,tree\nelm,tree": ("no edge names a class", "edges.csv"),
    "# nothing": ("has no edges", "edges.csv"),
    "": ("has no edges", "edges.csv"),
}


def test_a_quotation_mark_in_a_comment_does_not_hide_the_lines_after_it(tmp_path):
    (tmp_path / "edges.csv").write_text('# big, "wild\nlion,cat\ntiger,cat\n')
    assert [edge.line for edge in edge_list.read(tmp_path / "edges.csv", animals.NAMES)] == [2, 3]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_edge_list_is_told_with_its_line(tmp_path, text):
    file = tmp_path / "edges.csv"
    file.write_text(text)
    with pytest.raises(edge_list.DataError) as raised:
        edge_list.read(file, animals.NAMES)
    what, where = WRONG[text]
    assert what in raised.value.what
    assert raised.value.where.startswith(str(file)) and raised.value.where.endswith(where)
    if "tigre" in text:
        assert raised.value.remedy.startswith("did you mean tiger?")


def test_bytes_that_are_no_text_and_folders_are_told(tmp_path):
    (tmp_path / "edges.csv").write_bytes(b"lion,\xff")
    for path, what in ((tmp_path / "edges.csv", "not UTF-8"), (tmp_path, "cannot be read")):
        with pytest.raises(edge_list.DataError, match=what):
            edge_list.read(path, animals.NAMES)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "edges.csv")
    with pytest.raises(edge_list.DataError, match="not a regular file"):
        edge_list.read(tmp_path / "edges.csv", animals.NAMES)
