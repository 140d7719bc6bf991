"""The config of a longer run: more steps for the last stage, and nothing else that changes numbers."""

from pathlib import Path

import pytest

from metarun.config import extension
from metarun.errors import ConfigError

SINGLE = """
task: {name: sinusoid}
model: {name: mlp}
algorithm: {name: maml}
training: {steps: 6, task_chunk: 4}
"""
SEVERAL = """
task: {name: sinusoid}
stages:
  - {name: first, model: {name: mlp}, algorithm: {name: maml}, training: {steps: 6}}
  - {name: second, model: {name: mlp}, algorithm: {name: maml}, training: {steps: 6}}
"""


def load(folder: Path, text: str, *overrides: str):
    file = folder / "config.yaml"
    file.write_text(text)
    return extension.load(file, overrides)


def test_the_steps_grow_and_what_changes_no_number_may_change(tmp_path):
    longer = load(tmp_path, SINGLE, "training.steps=12", "checkpoint.keep=1", "training.chunk=3")
    assert (longer.stages[0].training.steps, longer.checkpoint.keep) == (12, 1)


@pytest.mark.parametrize("key", ["training.steps", "stages.second.training.steps", "stages.1.training.steps"])
def test_the_last_of_several_stages_is_extended(tmp_path, key):
    longer = load(tmp_path, SEVERAL, f"{key}=12")
    assert [stage.training.steps for stage in longer.stages] == [6, 12]


@pytest.mark.parametrize(
    ("text", "override", "words"),
    [
        (SINGLE, "training.steps=6", "has 6 steps, and is to have no more"),
        (SINGLE, "training.steps=4", "has 6 steps, and is to have no more"),
        (SINGLE, "seed=1", "seed cannot change when a run is extended"),
        (SINGLE, "evaluation.every=2", "evaluation.every cannot change"),
        (SEVERAL, "stages.first.training.steps=12", r"stages\.0\.training\.steps cannot change"),
        (SINGLE.replace("steps: 6", "steps: 6, optimizer: {schedule: {name: cosine}}"), "", "schedule of .* is cosine"),
        (SINGLE.replace("steps: 6", "steps: 6, optimizer: {schedule: {name: linear}}"), "", "schedule of .* is linear"),
        (SINGLE.replace("steps: 6", "steps: 6, seconds: 5"), "", r"training\.seconds of the stage maml says"),
        (SINGLE.replace("steps: 6", "steps: 6, flops: 1e9"), "", r"training\.flops of the stage maml says"),
    ],
)  # fmt: skip
def test_what_would_give_another_run_than_one_trained_at_once_is_refused(tmp_path, text, override, words):
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, text, override or "training.steps=12")


@pytest.mark.parametrize("schedule", ["name: exponential, decay: 0.5", "name: step, factor: 0.5"])
def test_a_schedule_that_does_not_know_the_length_is_extended(tmp_path, schedule):
    text = SINGLE.replace("steps: 6", f"steps: 6, optimizer: {{schedule: {{{schedule}, every: 3}}}}")
    assert load(tmp_path, text, "training.steps=12").stages[0].training.steps == 12
