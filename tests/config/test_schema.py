"""The sections of a configuration: their bounds, and what does not go together."""

import dataclasses
import inspect

import pytest

from helpers.runs import SINGLE, STAGE, load
from metarun.config import schema
from metarun.errors import ConfigError

TRIALS = (
    "trials={seeds: [3, 4], numbers: [{path: training.optimizer.learning_rate, values: [0.1, 0.2]}]}",
    "replicas=2",
)
LAST = 2**32 - 1


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """(overrides) -> the config."""
    folder = tmp_path_factory.mktemp("configs")
    return lambda *overrides, text=SINGLE: load(folder, text, *overrides)


def refuse(read, *overrides: str, text: str = SINGLE) -> str:
    with pytest.raises(ConfigError) as refused:
        read(*overrides, text=text)
    return refused.value.what


def make_stages(*options: str) -> str:
    """Return a config with a stage for each text of further options."""
    stages = [
        STAGE.format(f"s{place}").removesuffix("}") + f"{option}}}" for place, option in enumerate(options)
    ]
    return f"task: {{name: sinusoid}}\nstages: [{', '.join(stages)}]\n"


def test_no_section_changes_after_it_was_read():
    sections = [value for value in vars(schema).values() if dataclasses.is_dataclass(value)]
    assert len(sections) > 8
    for section in filter(inspect.isclass, sections):
        assert section.__dataclass_params__.frozen, section


def test_the_bounds_are_those_of_the_documentation():
    assert (schema.LAST_STEP, schema.LAST_SEED, schema.MOST_STAGES) == (10**9, LAST, 100)
    assert (schema.Evaluation().episodes, schema.Checkpoint().keep, schema.Evaluation().modes) == (
        600,
        3,
        ("inductive",),
    )


@pytest.mark.parametrize(
    "overrides",
    [
        (f"seed={LAST}",),
        (f"seed={LAST - 1}", "replicas=2"),
        ("training.steps=1000000000",),
        ("training={steps: 5, optimizer: {schedule: {name: cosine, warmup_steps: 4}}}",),
        ("training={flops: 5, optimizer: {schedule: {name: cosine}}}",),
        ("training.task_chunk=2",),
        ("training.turns=[[a, b], [c]]", "training.part_rates=[{part: a, factor: 2}, {part: c, factor: 3}]"),
        ("training.part_rates=[{part: a, factor: 2}]",),
        ("evaluation.episodes=2",),
        ("evaluation.inner_steps=[0,1]", "evaluation.modes=[transductive,inductive]"),
        ("sinks=[tensorboard,wandb,mlflow]",),
        TRIALS,
    ],
)
def test_what_goes_together_is_read(read, overrides):
    read(*overrides)


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        ((f"seed={LAST + 1}",), f"seed cannot be {LAST + 1}"),
        (("seed=-1",), "seed cannot be -1"),
        ((f"seed={LAST}", "replicas=2"), f"the last of 2 replicas has the seed {LAST + 1}"),
        (("training.steps=1000000001",), "training.steps cannot be 1000000001"),
        (("training.steps=null",), "the training has no end: steps, seconds and flops are missing"),
        (
            ("training={steps: 4, optimizer: {schedule: {name: cosine, warmup_steps: 4}}}",),
            "the schedule warms up for 4 steps, the training has 4",
        ),
        (
            ("training={seconds: 5, optimizer: {schedule: {name: cosine}}}",),
            "the schedule cosine needs the number of steps, which seconds do not tell",
        ),
        (("training.task_chunk=3",), "task_chunk 3 does not divide tasks_per_step 4"),
        (("training.turns=[[a], []]",), "turns has a group without parts"),
        (("training.turns=[[a], [b, a]]",), "turns has a twice"),
        (("training.part_rates=[{part: a, factor: 2}, {part: a, factor: 3}]",), "part_rates has a twice"),
        (
            ("training.turns=[[a]]", "training.part_rates=[{part: b, factor: 2}]"),
            "part_rates has b, which has no turn",
        ),
        (("training.part_rates=[{part: a, factor: 0}]",), "training.part_rates.0.factor cannot be 0"),
        (("training.clip_norm=0",), "training.clip_norm cannot be 0"),
        (("evaluation.episodes=1",), "evaluation.episodes cannot be 1"),
        (("evaluation.modes=[]",), "modes is empty"),
        (("evaluation.modes=[inductive,inductive]",), "modes has inductive twice"),
        (("evaluation.inner_steps=[0,1,1]",), "inner_steps has 1 twice"),
        (("evaluation.inner_steps=[-1]",), "evaluation.inner_steps.0 cannot be -1"),
        (("sinks=[wandb,wandb]",), "sinks has wandb twice"),
        (
            ("controls=[{name: a, says: b, changes: [seed=1]}, {name: a, says: b, changes: [seed=2]}]",),
            "controls has",
        ),
        ((TRIALS[0],), "trials.seeds has 2 values for 1 replicas"),
        (
            (TRIALS[0].replace("[0.1, 0.2]", "[0.1]"), TRIALS[1]),
            "training.optimizer.learning_rate has 1 values",
        ),
        ((*TRIALS, "evaluation.checkpoint=best"), "trials have no best checkpoint of their own"),
        (("checkpoint.keep=0",), "checkpoint.keep cannot be 0"),
        (("copies=0",), "copies cannot be 0"),
    ],
)
def test_what_does_not_go_together_is_refused(read, overrides, what):
    assert refuse(read, *overrides).startswith(what)


@pytest.mark.parametrize("name", ["a", "a" * 64, "a-b_c9"])
def test_a_stage_has_a_name_that_can_be_one_of_a_file(read, name):
    [stage] = read(text=make_stages("").replace("s0", name)).stages
    assert stage.name == name


@pytest.mark.parametrize("name", ["'9a'", "a" * 65, "aB", "'-a'", "''", "a.b"])
def test_another_name_of_a_stage_is_refused(read, name):
    assert "cannot name files and keys" in refuse(read, text=make_stages("").replace("s0", name))


def test_a_stage_draws_as_one_before_it(read):
    assert read(text=make_stages("", ", draws_as: s0")).stages[1].draws_as == "s0"
    for options in (("", ", draws_as: s1"), (", draws_as: s1", ""), (", draws_as: s0",)):
        assert "which is no stage before it" in refuse(read, text=make_stages(*options))


def test_weights_come_from_one_place(read):
    assert "both init_from and taken_from" in refuse(read, text=make_stages(", init_from: a, taken_from: b"))
    assert "draws nothing" in refuse(read, text=make_stages("", ", draws_as: s0, taken_from: b"))


def test_there_are_at_most_a_hundred_stages(read):
    many = (
        "task: {name: sinusoid}\nstages: ["
        + ", ".join(STAGE.format(f"s{place}") for place in range(100))
        + "]"
    )
    assert len(read(text=many).stages) == 100
    assert refuse(read, text=many[:-1] + f", {STAGE.format('more')}]") == "there are 101 stages"
    assert refuse(read, text="task: {name: sinusoid}\nstages: []") == "stages is empty"


def test_a_single_stage_is_a_run_of_one_with_the_name_of_its_algorithm(read):
    single = read("copies=3", "seed=5", "replicas=2")
    [stage] = single.stages
    assert (stage.name, stage.copies, single.seed, single.replicas) == ("maml", 3, 5, 2)


def test_a_training_without_steps_ends_at_the_last_step_that_can_be_counted(read):
    training = read("training={seconds: 5, flops: 7}").stages[0].training
    assert training.last_step == 10**9
    counted = training.by_steps()
    assert (counted.steps, counted.seconds, counted.flops) == (10**9, None, None)
    assert read().stages[0].training.last_step == 24
