"""The keys in which two configs differ: which may change when a run goes on, and which when it is measured again."""

import dataclasses

import pytest

from helpers.runs import SEVERAL, SINGLE, STAGE, load
from metarun.config import differences
from metarun.config.selection import Selection
from metarun.errors import ConfigError


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """(text, overrides) -> the config."""
    folder = tmp_path_factory.mktemp("configs")
    return lambda *overrides, text=SINGLE: load(folder, text, *overrides)


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2}}, []),
        ({"a": 1, "b": {"c": 2, "d": 0}}, {"a": 3, "b": {"c": 4, "d": 0}}, ["a", "b.c"]),
        ({"a": 1}, {"b": 2}, ["a", "b"]),
        ({"a": [1, 2, 3]}, {"a": (1, 5, 3)}, ["a.1"]),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, ["a"]),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, ["a.0.b"]),
        ({"a": {"b": 1}}, {"a": [1]}, ["a"]),
        ({"a": [1]}, {"a": {"b": 1}}, ["a"]),
        ({"a": None}, {}, []),
        ({"X": {"X": 1}}, {"X": {"X": 2}}, ["X.X"]),
    ],
)
def test_two_trees_differ_at_their_leaves_and_where_their_forms_do(before, after, keys):
    assert differences.list_different_keys(before, after) == keys


@pytest.mark.parametrize(
    ("override", "keys"),
    [
        ("accelerator.devices=2", []),
        ("checkpoint.keep=9", []),
        ("sinks=[tensorboard]", []),
        ("controls=[{name: shorter, says: fewer steps, changes: [training.steps=3]}]", []),
        ("training.chunk=2", []),
        ("training.task_chunk=2", []),
        ("seed=5", ["seed"]),
        ("training.steps=25", ["training.steps"]),
        ("evaluation.every=5", ["evaluation.every"]),
        ("model.hidden=[9]", ["model.hidden.0"]),
        ("model.hidden=[8,8]", ["model.hidden"]),
    ],
)
def test_what_cannot_change_the_numbers_of_a_run_is_no_change(read, override, keys):
    assert differences.list_changes(read(), read(override)) == keys


def test_the_chunks_of_every_stage_may_change_and_its_steps_may_not(read):
    before = read(text=SEVERAL)
    free = ("stages.0.training.chunk=2", "stages.1.training.chunk=2", "stages.1.training.task_chunk=1")
    assert differences.list_changes(before, read(*free, text=SEVERAL)) == []
    changed = read("stages.1.training.steps=9", text=SEVERAL)
    assert differences.list_changes(before, changed) == ["stages.1.training.steps"]


def test_a_run_does_not_resume_with_other_values_and_the_error_names_them_and_its_own_config(read):
    differences.check_resume(read(), read("checkpoint.every=3"), "run/config.yaml")
    with pytest.raises(ConfigError) as refused:
        differences.check_resume(read(), read("seed=3", "task.shots=6"), "run/config.yaml")
    assert refused.value.what == "the run was begun with other values of: task.shots, seed"
    assert refused.value.where == "run/config.yaml"


def test_a_run_does_not_resume_with_another_number_of_stages(read):
    fewer = read(text=SEVERAL.replace(f", {STAGE.format('second')}", ""))
    for before, after in ((read(text=SEVERAL), fewer), (fewer, read(text=SEVERAL))):
        with pytest.raises(ConfigError, match="other values of: stages"):
            differences.check_resume(before, after, "run/config.yaml")
        with pytest.raises(ValueError):
            differences.keep_settled(before, after)


def test_an_open_task_chunk_is_the_one_that_was_settled_and_a_given_one_is_kept(read):
    before = read("training.task_chunk=2")
    for given, kept in (("auto", 2), ("4", 4), ("null", None)):
        settled = differences.keep_settled(before, read(f"training.task_chunk={given}"))
        assert settled.stages[0].training.task_chunk == kept
    chunks = [f"stages.{place}.training.task_chunk={2 + 2 * place}" for place in (0, 1)]
    open_ones = [f"stages.{place}.training.task_chunk=auto" for place in (0, 1)]
    settled = differences.keep_settled(read(*chunks, text=SEVERAL), read(*open_ones, text=SEVERAL))
    assert [stage.training.task_chunk for stage in settled.stages] == [2, 4]


@pytest.mark.parametrize(
    ("settled", "again", "steps"),
    [
        ("steps=7, flops=1e9", "steps=null, flops=1e9", 7),
        ("steps=7, flops=1e9", "steps=24, flops=1e9", 7),
        ("steps=7, flops=1e9", "steps=7, flops=1e9", 7),
        ("steps=7, flops=1e9", "steps=6, flops=1e9", 6),
        ("steps=7, flops=1e9", "steps=24, flops=2e9", 24),
        ("steps=7, flops=1e9", "steps=24, flops=null", 24),
        ("steps=7, flops=null", "steps=24, flops=null", 24),
        ("steps=null, flops=1e9", "steps=24, flops=1e9", 24),
    ],
)
def test_the_steps_of_a_budget_in_flops_are_those_that_were_settled_for_the_same_budget(
    read, settled, again, steps
):
    def set_budget(text: str):
        return read(*(f"training.{option}" for option in text.split(", ")))

    kept = differences.keep_settled(set_budget(settled), set_budget(again))
    assert kept.stages[0].training.steps == steps


def test_the_budget_of_each_stage_is_settled_by_itself(read):
    budget = [f"stages.1.training.{option}" for option in ("steps=7", "flops=1e9")]
    kept = differences.keep_settled(
        read(*budget, text=SEVERAL), read("stages.1.training.flops=1e9", text=SEVERAL)
    )
    assert [stage.training.steps for stage in kept.stages] == [24, 7]


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a task that chooses some by its data."""

    folder: str = "here"
    ways: int | None = None
    counts: tuple[int, ...] = ()
    shots: int = 1
    settled_options = ("ways", "counts")


def test_what_a_task_chose_by_its_data_stays_where_the_config_leaves_it_open():
    before = Selection("pictures", Options(ways=3, counts=(5, 0, 3), shots=4))
    kept = differences.keep_choices(before, Selection("pictures", Options("there", counts=(4, 1, 3))))
    assert kept == Selection("pictures", Options("there", ways=3, counts=(4, 1, 3), shots=1))


def test_an_evaluation_changes_how_it_measures_and_where_it_computes_and_nothing_else(read):
    allowed = read("evaluation.episodes=9", "evaluation.seed=3", "accelerator.devices=2")
    differences.check_evaluation(read(), allowed)
    with pytest.raises(ConfigError) as refused:
        differences.check_evaluation(read(), read("seed=3", "evaluation.seed=3", "task.shots=6"))
    assert refused.value.what == "task.shots, seed cannot change after training"


@pytest.fixture
def moved(read):
    """The configs of one task in two places."""
    return [
        read(f"task={{name: image_folder, folder: {folder}}}", "model={name: conv4}")
        for folder in ("/here", "/there")
    ]


def test_an_evaluation_and_a_training_that_goes_on_may_find_the_same_data_in_another_place(moved):
    differences.check_evaluation(*moved)
    differences.check_resume(*moved, "run/config.yaml")
    differences.refuse_unknown_data(*moved, {"fingerprint": {"sha256": "ab"}}, "run/config.yaml")


@pytest.mark.parametrize("kept", [None, {}])
def test_data_without_a_fingerprint_stay_where_they_are(moved, kept):
    differences.refuse_unknown_data(moved[0], moved[0], kept, "run/config.yaml")
    with pytest.raises(ConfigError) as refused:
        differences.refuse_unknown_data(*moved, kept, "run/config.yaml")
    assert refused.value.what.startswith("task.folder cannot change: the run has kept no fingerprint")


def test_an_option_of_a_task_that_is_called_places_says_no_place(read):
    world = [
        read(f"task={{name: translation, places: {places}}}", "model={name: seq2seq}") for places in (3, 4)
    ]
    differences.check_evaluation(world[0], world[0])
    with pytest.raises(ConfigError, match=r"task\.places cannot change"):
        differences.check_evaluation(*world)
