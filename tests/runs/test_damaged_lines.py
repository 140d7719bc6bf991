"""Damaged lines of metrics.jsonl: set aside and blanked in their place, while every sound one stays."""

import json

import pytest

from metarun.runs import damaged_lines, metrics

ROWS = [{"stage": "maml", "split": "train", "step": step, "loss": 1 / step} for step in range(1, 8)]
LINES = [json.dumps(row).encode() + b"\n" for row in ROWS]
SOUND = b"".join(LINES)


@pytest.fixture
def path(tmp_path):
    """A file of sound lines."""
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(SOUND)
    return file


DAMAGES = {
    "a flipped brace": (LINES[2].replace(b"{", b"z"), 3),
    "bytes of no letter": (b"\xff\x00\xfe\n", 3),
    "a list": (b"[1, 2]\n", 3),
    "a renamed key": (LINES[2].replace(b"stage", b"stagf"), 3),
    "a step that is none": (LINES[2].replace(b'"step": 3', b'"step": 3.5'), 3),
    "deep brackets": (b"[" * 100_000 + b"\n", 3),
}


@pytest.mark.parametrize(("damaged", "number"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_line_is_said_and_set_aside_and_the_others_stay(path, warnings_of_metarun, damaged, number):
    path.write_bytes(b"".join([*LINES[:2], damaged, *LINES[3:]]))
    size = path.stat().st_size
    digest = damaged_lines.mend(path)
    assert list(metrics.read(path)) == [*ROWS[:2], *ROWS[3:]]
    assert path.stat().st_size == size  # what checkpoints and sinks have noted still holds
    assert path.with_name("metrics.damaged").read_bytes() == b"%d\t" % number + damaged
    assert len(warnings_of_metarun) == 1
    assert "line 3" in warnings_of_metarun[0]
    assert digest.hexdigest() == damaged_lines.hash_file(path).hexdigest()
    damaged_lines.mend(path, "0")  # a checkpoint from before the damage
    assert len(warnings_of_metarun) == 1
    (batch,) = metrics.read_on(path, metrics.Place())
    assert batch.rows == [*ROWS[:2], *ROWS[3:]]


def test_two_lines_whose_end_is_damaged_are_one_damaged_line(path, warnings_of_metarun):
    path.write_bytes(SOUND.replace(b"}\n{", b"} {", 1))
    damaged_lines.mend(path)
    assert list(metrics.read(path)) == ROWS[2:]


def test_sound_lines_are_read_once_and_left_alone(path, warnings_of_metarun, monkeypatch):
    monkeypatch.setattr(damaged_lines, "is_sound", lambda line: pytest.fail("the digest says enough"))
    with_digest = damaged_lines.hash_file(path)
    assert damaged_lines.mend(path, with_digest.hexdigest()).digest() == with_digest.digest()
    assert path.read_bytes() == SOUND
    assert warnings_of_metarun == []


def test_a_changed_number_is_said_although_no_line_shows_it(path, warnings_of_metarun):
    before = damaged_lines.hash_file(path).hexdigest()
    path.write_bytes(SOUND.replace(b"0.5", b"0.6"))
    damaged_lines.mend(path, before)
    assert list(metrics.read(path))[1]["loss"] == 0.6
    assert not path.with_name("metrics.damaged").exists()
    assert len(warnings_of_metarun) == 1
    assert "some number in it was changed" in warnings_of_metarun[0]


def test_an_open_file_knows_the_digest_of_its_lines(path):
    file = metrics.MetricsFile(path)
    file.truncate(len(LINES[0]))
    file.mend()
    file.append(ROWS[1:3])
    assert path.read_bytes() == b"".join(LINES[:3])
    assert file.digest() == damaged_lines.hash_file(path).hexdigest()
    file.close()
