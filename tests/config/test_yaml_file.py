"""The values, places and bounds of a YAML file."""

import math
from pathlib import Path

import pytest
import yaml

from metarun.config import yaml_file
from metarun.errors import ConfigError


def parse(text: str):
    return yaml_file.parse(text, "run.yaml").value


def refuse(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    return refused.value


def test_numbers_that_are_not_finite_are_numbers():
    infinite = parse("[.inf, +.Inf, -.INF]")
    assert infinite == [math.inf, math.inf, -math.inf]
    assert all(math.isnan(value) for value in parse("[.nan, .NaN]"))


def test_a_whole_number_has_at_most_64_bits():
    assert parse(f"[{2**63 - 1}, -{2**63 - 1}]") == [2**63 - 1, -(2**63) + 1]
    for text in (str(2**63), f"-{2**63}", "1" + "0" * 20):
        assert refuse(text).what == f"the integer {text[:20]}… is beyond 64 bits"


def test_sections_are_nested_at_most_so_deep():
    most = yaml_file.MAX_DEPTH
    assert most == 16
    assert parse("[" * most + "1" + "]" * most) is not None
    assert "more than 16 deep" in refuse("[" * (most + 1) + "1" + "]" * (most + 1)).what


def test_a_file_has_at_most_so_many_values():
    most = yaml_file.MAX_VALUES
    assert most == 10_000
    assert len(parse("[" + "1, " * (most - 1) + "]")) == most - 1  # the list is one of them
    assert "more than 10000 values" in refuse("[" + "1, " * most + "]").what


def test_a_file_has_at_most_so_many_bytes(tmp_path):
    file = tmp_path / "run.yaml"
    assert yaml_file.MAX_BYTES == 128 * 1024
    file.write_bytes(b"a: 1\n" + b"#" * (yaml_file.MAX_BYTES - 5))
    assert yaml_file.read(file).value == {"a": 1}
    file.write_bytes(b"a: 1\n" + b"#" * (yaml_file.MAX_BYTES - 4))
    with pytest.raises(ConfigError, match="larger than 128 KiB"):
        yaml_file.read(file)


def test_every_key_and_every_item_has_its_line():
    places = yaml_file.parse("a:\n  - 1\n  - b: 2\n    c: 3\nd: 4\n", "run.yaml").places
    lines = {path: int(place.removeprefix("run.yaml:")) for path, place in places.items()}
    assert lines == {"a": 1, "a.0": 2, "a.1": 3, "a.1.b": 3, "a.1.c": 4, "d": 5}


@pytest.mark.parametrize("text", ["a: &x 1", "&x a: 1", "a: *x", "a: &x [1]"])
def test_anchors_and_aliases_are_refused(text):
    assert "anchors and aliases" in refuse(text).what


@pytest.mark.parametrize(
    ("text", "words", "where"),
    [
        ("a: 1\nb: [", "expected the node content", "run.yaml:2"),
        ("a: b: c", "mapping values are not allowed here", "run.yaml:1"),
        ("a: \x07", "special characters are not allowed", "run.yaml"),
        ("a: [1, 2", "expected ',' or ']'", "run.yaml:1"),
        ("1: 2", "the key 1 is not text", "run.yaml:1"),
        ("a: 1\na: 2", "the key a is given twice", "run.yaml:2"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line(text, words, where):
    error = refuse(text)
    assert words in error.what and error.where == where


def test_the_words_of_the_reader_come_without_its_own_account_of_the_place():
    assert refuse("a: b: c").what == "this is not YAML: mapping values are not allowed here"
    assert refuse("a: \x07").what == "this is not YAML: special characters are not allowed"


def test_the_place_of_a_missing_file_names_the_nearest_of_its_folder(tmp_path):
    assert yaml_file.suggest_sibling(tmp_path / "maml.yaml").startswith("there is no *.yaml file")
    for name in ("zebra.yaml", "mamml.yaml", "notes.txt"):
        (tmp_path / name).touch()
    assert yaml_file.suggest_sibling(tmp_path / "maml.yaml") == f"did you mean {tmp_path / 'mamml.yaml'}?"
    with pytest.raises(ConfigError, match="this is not a file") as refused:
        yaml_file.read(tmp_path)
    assert refused.value.remedy.startswith(f"did you mean {tmp_path}/")


@pytest.mark.parametrize(("text", "fault"), [("", "empty"), ("- 1", "not a mapping"), ("3", "not a mapping")])
def test_a_file_is_a_mapping(tmp_path, text, fault):
    file = Path(tmp_path, "run.yaml")
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"the configuration is {fault}"):
        yaml_file.read(file)


@pytest.mark.parametrize(
    "value", ["null", "true", "1", "-1", "1e3", ".5", ".inf", ".nan", "~", "", "a: b", "x"]
)
def test_text_that_looks_like_another_value_is_written_as_text(value):
    written = yaml.dump({"key": value}, Dumper=yaml_file.Dumper)
    assert parse(written) == {"key": value}
