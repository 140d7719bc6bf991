"""Seals: a run whose config was changed behind its back is refused; one that metarun changes itself is not."""

import json
import os

import pytest

from helpers.saved_states import save, training
from metarun import errors
from metarun.runs import files, manifest, regular_files, seals, strict_json
from metarun.runs.checkpoints import Checkpoints
from metarun.runs.directory import RunDirectory

TEXT = "seed: 0\n"


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints and a result."""
    path = tmp_path / "run"
    with RunDirectory.open(path, False) as opened:
        opened.write_config(TEXT)
        with opened.checkpoints("maml", 2) as saved:
            for step in (1, 2):
                saved.save(step, *training(step), {}, best=False)
        opened.write_result(seals.seal_result(path, opened.sealed, {"split": "test"}, []))
    return path


def test_an_untouched_run_passes_and_its_manifests_hold_the_config(run):
    seals.check(run)
    held = manifest.read(run / "checkpoints/maml/2").sealed
    assert held == {"config.yaml": (seals.digest(TEXT.encode()),)}
    assert seals.read_result_seal(run) == held


@pytest.mark.parametrize("rest", ["checkpoints", "result.json"])
def test_an_edited_config_is_refused_by_checkpoints_and_by_the_result(run, rest):
    other = {"checkpoints": run / "result.json", "result.json": run / "checkpoints"}[rest]
    other.rename(run.parent / other.name)
    (run / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(errors.CheckpointError, match=r"config\.yaml was changed after") as raised:
        seals.check(run)
    assert raised.value.where == str(run / "config.yaml")


def test_a_resumed_run_may_change_its_config_and_older_checkpoints_accept_it(run):
    with RunDirectory.open(run, True) as opened:
        opened.write_config("seed: 0  # another cadence\n")
        seals.check(run)
        opened.write_config("seed: 0  # and another one\n")
        seals.check(run)
        with opened.checkpoints("maml", 3) as saved:
            saved.save(3, *training(3), {}, best=False)
        manifest.verify(run / "checkpoints/maml/1")
        assert Checkpoints(run / "checkpoints/maml").newest_valid().step == 3
    seals.check(run)
    (run / "config.yaml").write_text("seed: 0  # another cadence\n")  # the last but one is known, too
    with pytest.raises(errors.CheckpointError, match=r"after checkpoints/maml/3 was written"):
        seals.check(run)


def test_a_kill_between_the_seals_and_the_config_leaves_a_run_that_fits(run):
    seals.accept(run, "config.yaml", b"seed: 0  # never written\n")
    seals.check(run)
    (run / "config.yaml").write_bytes(b"seed: 0  # never written\n")
    seals.check(run)


def test_what_one_seal_accepts_already_the_others_accept_too(run):
    first, second = seals.list_checkpoints(run)
    new = b"seed: 0  # another cadence\n"
    manifest.write_seal(first, {"config.yaml": (seals.digest(TEXT.encode()), seals.digest(new))})
    seals.accept(run, "config.yaml", new)
    assert seals.digest(new) in manifest.read(second).sealed["config.yaml"]
    (run / "config.yaml").write_bytes(new)
    seals.check(run)


@pytest.mark.parametrize("damaged", [7, {"config.yaml": "a digest"}, {"config.yaml": [7]}])
def test_a_damaged_seal_in_a_result_is_a_value_error(run, damaged):
    files.write_json(run / "result.json", strict_json.seal({seals.KEY: damaged}))
    with pytest.raises(ValueError, match="its seal is damaged"):
        seals.read_result_seal(run)


def test_a_config_that_is_gone_or_a_pipe_is_refused_at_once(run):
    (run / "config.yaml").unlink()
    for make in (lambda path: None, os.mkfifo):
        make(run / "config.yaml")
        with pytest.raises(errors.CheckpointError, match="is gone or cannot be read"):
            seals.check(run)


def test_a_config_that_is_too_large_is_refused_and_not_read(run):
    config = run / "config.yaml"
    config.write_bytes(TEXT.encode() + b"#" * regular_files.MOST_TEXT)
    with pytest.raises(errors.CheckpointError, match="is gone or cannot be read"):
        seals.check(run)
    os.truncate(config, 4 * 10**10)  # hashing it would take a minute
    with pytest.raises(errors.CheckpointError, match="is gone or cannot be read"):
        seals.check(run)


def test_a_run_of_an_older_version_is_not_compared(run):
    for path in seals.list_checkpoints(run):
        content = json.loads((path / "manifest.json").read_text())
        del content["sealed"], content["sha256"]
        (path / "manifest.json").write_text(json.dumps(content | {"format": 2}))
    (run / "result.json").unlink()
    (run / "config.yaml").write_text("seed: 1\n")
    seals.check(run)


def test_a_checkpoint_outside_of_a_run_holds_nothing_of_one(tmp_path):
    save(tmp_path / "maml", 1)
    assert dict(manifest.read(tmp_path / "maml/1").sealed) == {}


def test_the_digest_of_an_object_is_of_its_values_alone():
    sealed = strict_json.seal({"a": 0.1, "b": [1, float("nan")], "c": {"x": None, "y": "z"}})
    text = json.dumps(json.loads(strict_json.encode_indented(sealed)), indent=7)
    assert strict_json.open_seal(json.loads(text)) == {"a": 0.1, "b": [1, "nan"], "c": {"x": None, "y": "z"}}
    for old, new in (("0.1", "0.2"), ('"x"', '"w"'), ("null", "0"), ('"nan"', "1")):
        with pytest.raises(ValueError, match="was changed"):
            strict_json.open_seal(json.loads(text.replace(old, new, 1)))
    assert strict_json.open_seal({"a": 1}) == {"a": 1}
