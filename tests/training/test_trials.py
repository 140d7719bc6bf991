"""Trials of a run: replicas that differ in numbers. Each is the single run with its seed and its numbers."""

from pathlib import Path

import jax
import numpy as np
import pytest

from helpers.assembled import assemble
from helpers.runs import SINGLE, assert_same_run, last_checkpoints, load, read_arrays, read_json, train
from metarun import config, errors, experiment, numbers
from metarun.config import trials
from metarun.progress import Progress
from metarun.runs import metrics
from metarun.training import optimizer, traceable, trial_memory

pytestmark = pytest.mark.slow  # whole runs of many models

SHORT = ("training.steps=12", "evaluation={every: 6, episodes: 8}", "checkpoint.every=4")
MAML = (
    *SHORT,
    "replicas=3",
    "trials={seeds: [5, 6, 5], numbers: ["
    "{path: training.optimizer.learning_rate, values: [0.001, 0.01, 0.05]}, "
    "{path: algorithm.inner_lr, values: [0.01, 0.1, 0.02]}]}",
)
# Reptile learns its start from the end of its inner loop; every number of its outer loop differs here.
REPTILE = """
task: {name: sinusoid, shots: 5, queries: 5}
model: {name: mlp, hidden: [8]}
algorithm: {name: reptile, inner_steps: 2, inner_lr: 0.02}
training:
  steps: 12
  tasks_per_step: 4
  clip_norm: 1.0
  optimizer: {name: adamw, learning_rate: 0.01, schedule: {name: cosine, final: 0.1, warmup_steps: 3}}
evaluation: {every: 6, episodes: 8}
accelerator: {platform: cpu, devices: 1}
replicas: 2
trials:
  seeds: [1, 2]
  numbers:
    - {path: training.clip_norm, values: [0.05, 5.0]}
    - {path: training.optimizer.schedule.warmup_steps, values: [2, 6]}
    - {path: training.optimizer.schedule.final, values: [0.5, 0.01]}
    - {path: training.optimizer.weight_decay, values: [0.1, 0.001]}
"""
STAGES = """
task: {name: sinusoid, shots: 5, queries: 5}
stages:
  - {name: members, model: {name: mlp, hidden: [8]}, algorithm: {name: maml}, copies: 2, training: TRAINING}
  - {name: fused, model: {name: mlp, hidden: [8]}, algorithm: {name: fusion, members: [members], kind: weighted},
     training: TRAINING}
evaluation: {episodes: 8}
accelerator: {platform: cpu, devices: 1}
replicas: 2
trials:
  seeds: [3, 3]
  numbers:
    - {path: stages.members.algorithm.inner_lr, values: [0.01, 0.1]}
    - {path: stages.members.training.optimizer.learning_rate, values: [0.001, 0.02]}
    - {path: stages.1.training.optimizer.learning_rate, values: [0.05, 0.002]}
""".replace("TRAINING", "{steps: 12, tasks_per_step: 4}")


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("together") / "run", SINGLE, *MAML)


def read_rows(path: Path, **values) -> list[dict]:
    rows = [row for row in metrics.read(path / "metrics.jsonl") if row["split"] != "speed"]
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


def train_trial(path: Path, run_config: config.RunConfig, trial: int) -> Path:
    """Train the single run that a trial is."""
    text = config.to_yaml(config.make_trial_config(run_config, trial))
    assert "trials: null" in text and "replicas: 1" in text
    return train(path, text)


def assert_trials_are_single_runs(together: Path, folder: Path) -> None:
    """Compare the states after the last step, every line of metrics, and the results."""
    run_config = config.load(together / "config.yaml")
    for trial in range(run_config.replicas):
        alone = train_trial(folder / f"trial-{trial}", run_config, trial)
        for stage, checkpoint in last_checkpoints(alone).items():
            arrays = read_arrays(last_checkpoints(together)[stage])
            for name, expected in read_arrays(checkpoint).items():
                np.testing.assert_allclose(arrays[name][trial], expected, rtol=1e-5, atol=1e-6, err_msg=name)
        mine, others = read_rows(together, replica=trial), read_rows(alone)
        assert len(mine) == len(others)
        for left, right in zip(mine, others, strict=True):
            assert left.keys() == right.keys()
            np.testing.assert_allclose(left["loss"], right["loss"], rtol=1e-4)
        compare_results(read_json(together / "result.json"), read_json(alone / "result.json"), trial)


def compare_results(together: dict, alone: dict, trial: int) -> None:
    for stage, layout in alone["stages"].items():
        values = together["stages"][stage]["inductive"]["adapted"]["loss"]["seeds"]["values"]
        np.testing.assert_allclose(values[trial], layout["inductive"]["adapted"]["loss"]["mean"], rtol=1e-4)


def test_trials_of_maml_are_the_single_runs_with_their_rates_and_seeds(together, tmp_path):
    assert_trials_are_single_runs(together, tmp_path)
    result = read_json(together / "result.json")
    assert result["seeds"] == [5, 6, 5]
    assert result["trials"][1] == {
        "seed": 6,
        "training.optimizer.learning_rate": 0.01,
        "algorithm.inner_lr": 0.1,
    }
    assert result["diverged"] == []


@pytest.mark.parametrize("text", [REPTILE, STAGES], ids=["schedules and clips", "two stages"])
def test_trials_are_the_single_runs(text, tmp_path):
    assert_trials_are_single_runs(train(tmp_path / "run", text), tmp_path)


class Impatient(Progress):
    """Stops like a kill at a step that is no checkpoint's."""

    def __init__(self, stage: str, step: int) -> None:
        self.place = (stage, step)

    def advanced(self, stage, step, count, seconds, metrics) -> None:
        if (stage, step) == self.place:
            raise KeyboardInterrupt


def test_stopped_trials_go_on_byte_for_byte(together, tmp_path):
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(path, SINGLE, *MAML, "training.chunk=2", progress=Impatient("maml", 6))
    assert last_checkpoints(path)["maml"].step == 4
    assert_same_run(train(path, SINGLE, *MAML, resume=True), together)
    with pytest.raises(errors.ConfigError, match="trials"):
        train(path, SINGLE, *MAML, "trials.seeds=[5, 6, 7]", resume=True)


# Stochastic gradient descent with a huge rate: trial 1 ends with an infinity after a few steps.
DIVERGING = (
    *SHORT,
    "replicas=3",
    "training.optimizer={name: sgd}",
    "trials={seeds: [5, 5, 6], numbers: [{path: training.optimizer.learning_rate, values: [0.001, 1e5, 0.01]}]}",
)


@pytest.fixture(scope="module")
def one_diverged(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("diverged") / "run", SINGLE, *DIVERGING)


def test_a_trial_that_diverges_is_frozen_and_the_others_go_on(one_diverged, tmp_path):
    result, run_config = read_json(one_diverged / "result.json"), config.load(one_diverged / "config.yaml")
    ((trial, stage, step),) = [tuple(row.values()) for row in result["diverged"]]
    assert (trial, stage) == (1, "maml") and 1 < step < 6
    rows = read_rows(one_diverged)
    steps = [[row["step"] for row in rows if row["replica"] == replica] for replica in range(3)]
    assert steps[1] == list(range(1, step + 1))
    assert steps[0] == steps[2] == sorted([*range(1, 13), 6, 12])  # with two validations
    alone = train_trial(tmp_path / "good", run_config, 0)
    compare_results(result, read_json(alone / "result.json"), 0)
    with pytest.raises(errors.DivergedError, match=f"step {step}"):
        train_trial(tmp_path / "bad", run_config, 1)
    # Its state is the one before the step that was not finite.
    text = config.to_yaml(config.make_trial_config(run_config, 1))
    before = train(tmp_path / "before", text.replace("steps: 12", f"steps: {step - 1}"))
    frozen = read_arrays(last_checkpoints(one_diverged)["maml"])
    for name, expected in read_arrays(last_checkpoints(before)["maml"]).items():
        np.testing.assert_allclose(frozen[name][1], expected, rtol=1e-4, err_msg=name)


def test_a_resumed_run_knows_which_trials_have_diverged(one_diverged, tmp_path):
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(path, SINGLE, *DIVERGING, "training.chunk=2", progress=Impatient("maml", 10))
    assert last_checkpoints(path)["maml"].step == 8
    assert_same_run(train(path, SINGLE, *DIVERGING, resume=True), one_diverged)


def test_a_run_whose_trials_have_all_diverged_ends_as_a_single_run_does(tmp_path):
    override = "trials.numbers=[{path: training.optimizer.learning_rate, values: [1e5, 1e6, 1e7]}]"
    with pytest.raises(errors.DivergedError, match=r"\(3 of 3\)") as refusal:
        train(tmp_path / "run", SINGLE, *DIVERGING, override)
    assert "learning_rate 1e+06" in refusal.value.what


def test_which_numbers_can_differ_is_found_by_tracing(tmp_path):
    run_config = load(tmp_path, REPTILE)
    assert traceable.list_traceable(run_config) == {
        "algorithm.inner_lr",
        "training.clip_norm",
        "training.optimizer.learning_rate",
        "training.optimizer.eps",
        "training.optimizer.weight_decay",
        "training.optimizer.schedule.warmup_steps",
        "training.optimizer.schedule.final",
    }
    obstacles = traceable.find_obstacles(
        run_config,
        [
            "training.steps",
            "training.clip_value",
            "training.optimizer.b1",
            "training.tasks_per_step",
            "model.name",
            "task.shots",
            "algorithm.inner_lr",
        ],
    )
    assert obstacles == {
        "training.steps": "the trials of a program take the same number of steps",
        "training.clip_value": "a zero or null stays a constant",
        "training.optimizer.b1": "the decay of a running mean loses digits as an argument",
        "training.tasks_per_step": "shapes may depend on a whole number",
        "model.name": "it is no number",
        "task.shots": "task.shots cannot differ between the trials of one run",
        "algorithm.inner_lr": None,
    }


def test_a_number_that_a_program_must_know_is_found_among_others_that_it_need_not():
    def compute(values, x):
        factor = 2.0 if values["decides"] > 1 else 3.0
        return x * values["rate"] * factor

    listed = {"decides": 4.0, "rate": 0.5}

    def program(values, x):
        return compute({**listed, **values}, x)

    assert traceable.choose_traceable(program, listed, ["rate"], jax.numpy.ones(2)) == ["rate"]
    assert traceable.choose_traceable(program, listed, list(listed), jax.numpy.ones(2)) == ["rate"]


def test_as_many_trials_fit_as_the_memory_holds(tmp_path):
    run_config, tasks, stages = assemble(tmp_path, SINGLE, *MAML)
    devices = jax.devices()[:1]

    def count(memory: int | None) -> int:
        return trial_memory.count_trials_that_fit(run_config, devices, tasks, stages, memory)

    assert [count(None), count(1)] == [3, 1]
    state = 3 * 25 * 4 * 3  # of three replicas: 25 weights, and two moments of each
    assert count(state) < 3


def test_the_free_memory_is_that_of_the_container_if_it_has_less(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert trial_memory.read_free_memory(meminfo, tmp_path) == 8000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    for limit, expected in (("max", 8000 * 1024), ("5000", 4000), ("500", 0)):
        (tmp_path / "memory.max").write_text(limit)
        assert trial_memory.read_free_memory(meminfo, tmp_path) == expected


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("trials.seeds=[1, 2]", "trials.seeds has 2 values for 3 replicas"),
        ("trials.numbers.0.values=[1, 2]", "training.optimizer.learning_rate has 2 values for 3 replicas"),
        ("trials.numbers.0.values=[1, 2, -1]", "trial 2: training.optimizer.learning_rate cannot be -1.0"),
        ("trials.numbers.0.path=algorithm.inner_lr", "trials.numbers has algorithm.inner_lr twice"),
        ("trials.numbers.0.path=algorithm.rate", "there is no key algorithm.rate"),
        ("trials.numbers.0.path=task.shots", "task.shots cannot differ between the trials of one run"),
        ("trials.numbers.0.path=algorithm.order", "algorithm.order is no number"),
        ("evaluation.checkpoint=best", "trials have no best checkpoint of their own"),
    ],
)
def test_impossible_trials_are_refused(tmp_path, override, what):
    with pytest.raises(errors.ConfigError) as refusal:
        load(tmp_path, SINGLE, *MAML, override)
    assert what in refusal.value.what
    assert refusal.value.remedy


@pytest.mark.parametrize(
    ("path", "values", "reason"),
    [
        ("training.steps", "[12, 13, 14]", "the same number of steps"),
        ("training.optimizer.b1", "[0.9, 0.8, 0.7]", "the decay of a running mean"),
        ("training.tasks_per_step", "[4, 5, 6]", "shapes may depend on a whole number"),
        ("training.optimizer.eps", "[1e-8, 1e-8, 0]", "a zero or null"),
    ],
)
def test_trials_do_not_differ_in_what_stays_a_constant(tmp_path, path, values, reason):
    override = f"trials.numbers=[{{path: {path}, values: {values}}}]"
    run_config = load(tmp_path, SINGLE, *MAML, override)
    with pytest.raises(errors.ConfigError, match=f"{path} cannot differ .*{reason}"):
        experiment.assemble(run_config, jax.devices()[0])


def test_an_error_of_the_tracer_names_the_number_that_it_is_about(tmp_path, monkeypatch):
    run_config = load(tmp_path, SINGLE, *MAML)
    monkeypatch.setattr(optimizer, "make_schedule", lambda selection, peak, steps: float(peak))
    with (
        pytest.raises(errors.ConfigError, match=r"optimizer.learning_rate cannot differ .* must know it"),
        traceable.explain_errors(run_config),
    ):
        jax.jit(lambda values: optimizer.build(numbers.replace(run_config.stages[0].training, values)))(
            {"optimizer.learning_rate": 0.1}
        )


def test_a_trial_is_the_config_that_it_was_asked_for(tmp_path):
    run_config = load(tmp_path, STAGES)
    trial = config.make_trial_config(run_config, 1)
    assert trial.seed == 3 and trial.replicas == 1 and trial.trials is None
    members, fused = trial.stages
    assert members.algorithm.config.inner_lr == 0.1
    assert (
        members.training.optimizer.config.learning_rate,
        fused.training.optimizer.config.learning_rate,
    ) == (
        0.02,
        0.002,
    )
    assert config.make_trial_config(trial, 0) is trial
    assert config.settle_trials(run_config) == run_config
    warmup = config.make_trial_config(load(tmp_path, REPTILE), 0).stages[0].training
    assert warmup.optimizer.config.schedule.config.warmup_steps == 2


@pytest.mark.parametrize(
    ("path", "names"), [("stages.0.algorithm.inner_lr", ["maml"]), ("model.rate", ["maml"])]
)
def test_a_key_of_the_only_stage_may_name_it(path, names):
    assert trials.name_number(path, names)[0] == "maml"


@pytest.mark.parametrize("path", ["stages.c.algorithm.x", "algorithm.x", "stages.2.algorithm.x"])
def test_a_key_of_several_stages_names_one_of_them(path):
    with pytest.raises(ValueError, match="stage"):
        trials.name_number(path, ["a", "b"])
