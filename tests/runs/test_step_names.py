"""What lies among the checkpoints of a stage and is none: it is ignored, whatever it is called."""

import shutil

import pytest

from helpers.saved_states import names, save
from metarun.runs import manifest, stage_reference
from metarun.runs.checkpoints import Checkpoints

NO_STEPS = ["0030", "007", "00", "٣", "+5", "-5", "1_0", " 9", "9 ", "9\n", "1e3", "²", "", "9" * 5000]


def test_only_a_name_that_is_its_number_again_is_a_step():
    assert [manifest.parse_step(name) for name in ("0", "7", "1200")] == [0, 7, 1200]
    assert [name for name in NO_STEPS if manifest.parse_step(name) is not None] == []


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints among folders and links that are none."""
    folder = tmp_path / "run" / "checkpoints" / "maml"
    save(folder, 1, 2)
    for name in ("0030", "007", "٣", "+5", "1_0"):
        (folder / name).mkdir()
    (folder / "40").symlink_to("nowhere")
    (folder / "41").symlink_to("41")  # a loop
    (folder / "42").write_text("a file")
    return folder


def test_what_is_no_checkpoint_is_neither_found_nor_warned_of(folder, warnings_of_metarun):
    assert Checkpoints(folder).steps() == [1, 2]
    assert Checkpoints(folder).newest_valid().step == 2
    assert Checkpoints(folder).best_valid() is None
    assert warnings_of_metarun == []


def test_a_step_that_is_saved_takes_the_place_of_a_link_to_nowhere(folder):
    save(folder, 3, 40, keep=1)
    assert Checkpoints(folder).newest_valid().step == 40
    assert not (folder / "40").is_symlink()
    assert set(names(folder)) == {"40", "0030", "007", "٣", "+5", "1_0", "41", "42"}


def test_a_stage_is_trained_again_without_what_a_link_in_it_leads_to(folder, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (folder / "50").symlink_to(tmp_path / "precious")
    Checkpoints(folder).clear()
    assert not folder.exists() and (tmp_path / "precious" / "file").exists()


def test_a_run_that_trains_may_remove_each_checkpoint_that_is_looked_at(
    folder, monkeypatch, warnings_of_metarun
):
    read, seen = manifest.read, []

    def read_too_late(path):
        seen.append(int(path.name))
        if path.name != "5":
            shutil.rmtree(path)
            save(folder, 5)
        return read(path)

    monkeypatch.setattr(manifest, "read", read_too_late)
    assert Checkpoints(folder).newest_valid().step == 5
    assert seen[0] == 2 and warnings_of_metarun == []


def test_a_number_that_is_no_step_is_the_name_of_a_stage(folder):
    run = folder.parents[1]
    assert stage_reference.split(folder / "2") == (run.resolve(), "maml", 2)
    assert stage_reference.split(folder / "007")[1:] == (None, None)
