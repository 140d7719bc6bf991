"""Sizes that no computer has are refused while the config is read, each in three lines."""

import dataclasses
from collections import Counter
from typing import Annotated

import pytest

from helpers.runs import SEVERAL, SINGLE
from metarun import config
from metarun.config import binder, choices
from metarun.config.footprint import MOST_TRIALS
from metarun.config.origin import Origin
from metarun.errors import ConfigError
from metarun.ranges import LARGEST_COUNT, AtLeast, AtMost

HUGE = (10**6, 2**63 - 1, -1, "1e400", ".nan", "-.inf", "[[[[1]]]]", "x" * 500)


@pytest.fixture
def load(tmp_path):
    file = tmp_path / "config.yaml"

    def load(*overrides: str, text: str = SINGLE) -> config.RunConfig:
        file.write_text(text)
        return config.load(file, overrides)

    return load


@pytest.mark.parametrize(
    "key",
    [
        "replicas",
        "copies",
        "task.shots",
        "task.queries",
        "evaluation.ways",
        "evaluation.shots",
        "evaluation.episodes",
        "training.tasks_per_step",
        "model.hidden",
        "algorithm.inner_steps",
    ],
)
def test_what_no_computer_can_hold_is_refused_by_its_key(load, key):
    for value in HUGE:
        with pytest.raises(ConfigError) as refused:
            load(f"{key}={value}")
        assert str(refused.value).count("\n") == 2
        assert key in refused.value.what and key in refused.value.where


@pytest.mark.parametrize("key", ["training.steps", "evaluation.every", "checkpoint.every"])
def test_steps_may_be_a_billion_and_no_more(load, key):
    load(f"{key}=1000000000")
    with pytest.raises(ConfigError, match="1000000000"):
        load(f"{key}=1000000001")


def test_a_schedule_may_reach_as_far_as_a_training(load):
    for schedule in ("{name: step, factor: 0.5, every: 400000}", "{name: cosine, warmup_steps: 400000}"):
        run_config = load(f"training.optimizer.schedule={schedule}", "training.steps=1000000")
        assert "400000" in config.to_yaml(run_config)


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        ("20,000 learners", ("replicas=200", "copies=100")),
        ("values", ("replicas=5000", "evaluation.episodes=50000")),
        (
            "examples side by side",
            ("training.tasks_per_step=5000", "training.task_chunk=null", "task.shots=50000"),
        ),
        (
            "examples side by side",
            ("training.tasks_per_step=5000", "training.task_chunk=5000", "evaluation.queries=50000"),
        ),
    ],
)
def test_numbers_that_are_reasonable_alone_are_refused_by_their_product(load, words, overrides):
    for override in overrides:
        load(*[override] * ("task_chunk=5000" not in override))
    with pytest.raises(ConfigError, match=words):
        load(*overrides)


def test_too_many_stages_or_trials_of_one_run_are_refused(load):
    seeds = ", ".join(map(str, range(MOST_TRIALS + 1)))
    with pytest.raises(ConfigError, match="trials in one run"):
        load(f"replicas={MOST_TRIALS + 1}", f"trials={{seeds: [{seeds}]}}")
    stage = SEVERAL[SEVERAL.index("{name: first") : SEVERAL.index(", {name: second")]
    stages = ", ".join(stage.replace("first", f"stage{place}") for place in range(101))
    with pytest.raises(ConfigError, match="101 stages"):
        load(text=f"task: {{name: sinusoid}}\nstages: [{stages}]\n")


def test_a_run_never_writes_a_config_that_it_could_not_read(load):
    stages = [dataclasses.replace(load().stages[0], name=f"a{place}" + "x" * 60) for place in range(100)]
    wide = [dataclasses.replace(stage, init_from="y" * 1000) for stage in stages]
    with pytest.raises(ConfigError, match="131,072"):
        config.to_yaml(dataclasses.replace(load(), stages=tuple(wide)))


@dataclasses.dataclass(frozen=True)
class Options:
    count: Annotated[int, AtLeast(1)] = 1
    many: Annotated[int, AtLeast(1), AtMost(10**7)] = 1
    seed: int = 0


def test_a_count_has_a_ceiling_unless_it_says_another_one():
    origin = Origin("here", {})
    binder.bind(Options, {"count": LARGEST_COUNT, "many": 10**7, "seed": 2**62}, origin)
    for wrong in ({"count": LARGEST_COUNT + 1}, {"many": 10**7 + 1}):
        with pytest.raises(ConfigError, match="at most"):
            binder.bind(Options, wrong, origin)


def test_a_plug_in_is_read_once_for_all_trials_of_a_run(load, monkeypatch):
    """A second for 500 trials, which `fault/test_configs.py` measures, leaves no time to read it for each."""
    read, kinds = choices.read_config_class, []
    monkeypatch.setattr(
        choices, "read_config_class", lambda kind, name: kinds.append(kind) or read(kind, name)
    )
    counts = []
    for count in (2, 7):
        values = ", ".join(f"{0.01 + 1e-6 * place:.7f}" for place in range(count))
        trials = f"seeds: [{', '.join(map(str, range(count)))}], numbers: "
        kinds.clear()
        load(f"replicas={count}", f"trials={{{trials}[{{path: algorithm.inner_lr, values: [{values}]}}]}}")
        counts.append(Counter(kinds))
    assert counts[0] == counts[1] and counts[0]["algorithm"] > 0
