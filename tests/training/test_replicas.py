"""Replicas of a run and copies of a stage: each is the learner that it would be alone, and all are in one program."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from helpers import processes
from helpers.assembled import assemble
from helpers.runs import (
    BOTH,
    SINGLE,
    assert_same_run,
    last_checkpoints,
    load,
    read_arrays,
    read_episodes,
    read_json,
    train,
)
from metarun import config, errors, experiment, hardware
from metarun.evaluation import statistics
from metarun.evaluation.run_evaluation import Evaluation
from metarun.progress import Progress
from metarun.runs import metrics
from metarun.runs.checkpoints import Checkpoints
from metarun.stages import Stage
from metarun.training import first_memory

pytestmark = pytest.mark.slow  # whole runs of many models

SHORT = ("training.steps=12", "evaluation.every=6", "evaluation.episodes=8")
SEEDS = (5, 6, 7)
REPLICAS = (*SHORT, "seed=5", "replicas=3")


@pytest.fixture(scope="module")
def singles(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("singles")
    return [train(folder / f"seed-{seed}", SINGLE, *SHORT, f"seed={seed}") for seed in SEEDS]


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("together") / "run", SINGLE, *REPLICAS)


def read_state(path: Path, stage: str) -> dict[str, np.ndarray]:
    """Return the arrays of the last checkpoint of a stage."""
    return read_arrays(last_checkpoints(path)[stage])


def read_rows(path: Path, **values) -> list[dict]:
    """Return the lines of metrics.jsonl with these values, without those about speed."""
    rows = [row for row in metrics.read(path / "metrics.jsonl") if row["split"] != metrics.SPEED]
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


def test_each_replica_ends_as_the_single_run_with_its_seed(together, singles):
    arrays = read_state(together, "maml")
    for replica, path in enumerate(singles):
        for name, expected in read_state(path, "maml").items():
            np.testing.assert_allclose(arrays[name][replica], expected, rtol=0, atol=2e-6, err_msg=name)


def test_each_replica_writes_the_metrics_of_the_single_run_with_its_seed(together, singles):
    for replica, path in enumerate(singles):
        mine, alone = read_rows(together, replica=replica), read_rows(path)
        assert [(row["split"], row["step"]) for row in mine] == [(row["split"], row["step"]) for row in alone]
        for left, right in zip(mine, alone, strict=True):
            assert left.keys() == right.keys()
            for name in left.keys() - {"replica", "seconds"}:
                assert left[name] == (
                    pytest.approx(right[name], rel=1e-4) if isinstance(right[name], float) else right[name]
                )


def test_the_result_has_the_interval_over_seeds_beside_that_over_episodes(together, singles):
    result = read_json(together / "result.json")
    loss = result["stages"]["maml"]["inductive"]["adapted"]["loss"]
    alone = [
        read_json(path / "result.json")["stages"]["maml"]["inductive"]["adapted"]["loss"]["mean"]
        for path in singles
    ]
    assert result["seeds"] == list(SEEDS)
    np.testing.assert_allclose(loss["seeds"]["values"], alone, rtol=1e-4)
    low, high = stats.t.interval(0.95, 2, np.mean(alone), stats.sem(alone))
    assert loss["mean"] == pytest.approx(np.mean(alone), rel=1e-4)
    assert loss["seeds"]["ci95"] == pytest.approx((high - low) / 2, rel=1e-3)
    means = read_episodes(together)["inductive/adapted/loss"].mean(axis=0)
    low, high = stats.t.interval(0.95, 7, means.mean(), stats.sem(means))
    assert loss["episodes"]["ci95"] == pytest.approx((high - low) / 2, rel=1e-4)
    both = statistics.estimate(read_episodes(together)["inductive/adapted/loss"])
    assert loss["ci95"] == pytest.approx(both.interval.ci95, rel=1e-4)


def test_members_have_keys_of_their_own_and_replicas_those_of_their_seeds(tmp_path):
    base, other = assemble(tmp_path, BOTH).stages
    numbers = jax.random.key_data(base.make_keys()).reshape(6, -1)
    assert len({tuple(row) for row in numbers.tolist()}) == 6
    for replica in range(2):
        alone = assemble(tmp_path, BOTH, f"seed={2 + replica}", "replicas=1").stages[0].make_keys()
        assert (jax.random.key_data(alone) == numbers.reshape(2, 3, -1)[replica]).all()
    as_of_one_run = jax.random.fold_in(jax.random.key(3), 1)
    assert (jax.random.key_data(other.make_keys()[1]) == jax.random.key_data(as_of_one_run)).all()


def test_a_stage_without_copies_has_no_axis_and_keys_as_ever(tmp_path):
    stage = assemble(tmp_path).stage
    assert stage.axes == {}
    assert stage.positions == [{}]
    key = jax.random.fold_in(jax.random.key(0), 0)
    assert (jax.random.key_data(stage.make_keys()) == jax.random.key_data(key)).all()


def test_members_of_a_replica_are_those_of_the_single_run_with_its_seed(both, tmp_path):
    alone = train(tmp_path / "run", BOTH, "seed=3", "replicas=1")
    for stage, axes in (("base", 3), ("other", None)):
        together, expected = read_state(both, stage), read_state(alone, stage)
        for name, array in expected.items():
            assert together[name].shape == (2, *array.shape)
            assert axes is None or array.shape[0] == axes
            np.testing.assert_allclose(together[name][1], array, rtol=0, atol=2e-6, err_msg=name)


def test_members_start_and_end_apart(both):
    for name, array in read_state(both, "base").items():
        if "kernel" in name:
            flat = array.reshape(6, -1)
            assert len(np.unique(flat, axis=0)) == 6


def test_lines_of_a_stage_with_copies_say_which_member_and_the_others_do_not(both):
    train_rows = read_rows(both, stage="base", split="train")
    assert [(row["step"], row["replica"], row["member"]) for row in train_rows] == [
        (step, replica, member) for step in range(1, 9) for replica in range(2) for member in range(3)
    ]
    assert len(read_rows(both, stage="base", split="validation")) == 2 * 6
    others = read_rows(both, stage="other")
    assert len(others) == 2 * (8 + 2)
    assert not any("member" in row for row in others)


def test_a_stopped_run_with_replicas_and_copies_goes_on_byte_for_byte(both, tmp_path):
    """It is stopped once in each stage, two steps after a checkpoint."""

    class Impatient(Progress):
        def __init__(self, stage: str) -> None:
            self.stage = stage

        def advanced(self, stage, step, count, seconds, metrics) -> None:
            if (stage, step) == (self.stage, 6):
                raise KeyboardInterrupt  # no answer to it: nothing is saved, as in a kill

    path = tmp_path / "run"
    for stage in ("base", "other"):
        with pytest.raises(KeyboardInterrupt):
            train(path, BOTH, progress=Impatient(stage), resume=True)
        assert last_checkpoints(path)[stage].step == 4
    assert_same_run(train(path, BOTH, resume=True), both)


def test_a_run_is_not_resumed_with_other_replicas_or_copies(both):
    for override in ("replicas=3", "stages.0.copies=2"):
        with pytest.raises(errors.ConfigError, match=override.partition("=")[0]):
            train(both, BOTH, override, resume=True)


def test_without_replicas_and_copies_the_state_has_no_axis_more(singles):
    shapes = {name: array.shape for name, array in read_state(singles[0], "maml").items()}
    assert shapes["weights.trained['head']['bias']"] == (1,)


def add_a_nan(tree):
    """Return the tree with a NaN in the floating arrays of member 2 of replica 1."""
    return jax.tree.map(lambda leaf: leaf.at[1, 2].set(math.nan) if leaf.dtype == np.float32 else leaf, tree)


def spoil(monkeypatch, owner, name: str) -> None:
    """Let what the function of this name makes return arrays with a NaN."""
    make = getattr(owner, name)

    def make_spoiled(*arguments):
        function = make(*arguments)
        return lambda *inputs: add_a_nan(function(*inputs))

    monkeypatch.setattr(owner, name, make_spoiled)


def test_one_diverged_replica_ends_the_run_and_is_named(tmp_path, monkeypatch):
    spoil(monkeypatch, first_memory, "make_memory")
    with pytest.raises(errors.DivergedError) as refusal:
        train(tmp_path / "run", BOTH)
    assert refusal.value.exit_code == 7
    assert refusal.value.what.endswith("stage base, step 1, of replica 1 (seed 3) member 2 (1 of 6)")
    assert len(read_rows(tmp_path / "run", step=1)) == 6  # what the others did is written, too


def test_a_replica_that_begins_with_a_nan_is_named_before_a_step(tmp_path, monkeypatch):
    spoil(monkeypatch, Stage, "make_start")
    with pytest.raises(
        errors.DivergedError, match=r"stage base begins .* of replica 1 \(seed 3\) member 2 \(1 of 6\)"
    ):
        train(tmp_path / "run", BOTH)


def test_of_many_diverged_members_some_are_named_and_all_are_counted(tmp_path):
    overrides = (
        "replicas=1",
        "stages.0.copies=20",
        "stages.0.training.optimizer={name: sgd, learning_rate: 1e30}",
    )
    with pytest.raises(errors.DivergedError) as refusal:
        train(tmp_path / "run", BOTH, *overrides)
    assert refusal.value.what.endswith("member 6, member 7, … (20 of 20)")


def test_the_best_checkpoint_is_that_of_the_mean_over_the_replicas(tmp_path, monkeypatch):
    """The mean of the second validation is the lowest, although each replica alone prefers another one."""
    validations = iter([[1.0, 9.0], [4.0, 4.0], [9.0, 1.0]])
    current: list[float] = []

    def summarise(values, original=statistics.summarise):
        if not current:
            current.extend(next(validations))
        summary = original(values)
        summary["inductive/adapted"]["loss"]["mean"] = current.pop(0)
        return summary

    with monkeypatch.context() as patch:
        patch.setattr(statistics, "summarise", summarise)
        patch.setattr(experiment.run_evaluation, "evaluate", lambda *_: Evaluation({}, {}))
        path = train(tmp_path / "run", SINGLE, "training.steps=12", "evaluation.every=4", "replicas=2")
    assert last_checkpoints(path)["maml"].facts["best"] == 4.0
    best = Checkpoints(path / "checkpoints/maml").best_valid()
    assert best is not None
    assert best.step == 8


def test_the_dry_run_counts_the_parameters_of_one_learner(tmp_path):
    first, second = experiment.describe_dry_run(load(tmp_path, BOTH)).splitlines()
    assert first.startswith("base: 6 learners side by side, each with 25 parameters, 8 steps of 4 tasks")
    assert second.startswith("other: 2 learners side by side, each with 13 parameters")


def test_seeds_beyond_the_last_are_refused_with_the_line(tmp_path):
    with pytest.raises(errors.ConfigError, match="the last of 3 replicas has the seed 4294967297"):
        load(tmp_path, SINGLE, "seed=4294967295", "replicas=3")


def test_the_config_of_a_run_with_one_stage_keeps_its_copies(tmp_path):
    run_config = load(tmp_path, SINGLE, "copies=2", "replicas=4")
    assert run_config.stages[0].copies == 2
    file = tmp_path / "again.yaml"
    file.write_text(config.to_yaml(run_config))
    assert config.load(file) == run_config


PROGRAM = """
import sys
from pathlib import Path
import jax
from helpers.runs import BOTH, train
from metarun import experiment, meshes

experiment.evaluate = lambda *_: {}  # what is measured does not change what is trained
train(Path(sys.argv[1]), BOTH, "accelerator.devices=4", "evaluation.every=null")
for devices in range(1, 5):
    print(*meshes.make_mesh(jax.devices()[:devices], 4, 2).shape.values())
"""


def test_devices_share_out_replicas_and_then_tasks(both, tmp_path):
    """Two replicas and four tasks a step: of 4 devices two take a replica each, and share its tasks; 3 are too many."""
    path = tmp_path / "run"
    printed = processes.run_code(PROGRAM, path, devices=4)
    assert printed.split() == ["1", "1", "2", "1", "2", "1", "2", "2"]
    for stage in ("base", "other"):
        for name, expected in read_state(both, stage).items():
            np.testing.assert_allclose(
                read_state(path, stage)[name], expected, rtol=0, atol=2e-6, err_msg=name
            )


def test_cores_become_devices_unless_somebody_chose(monkeypatch):
    asked = []
    monkeypatch.setattr(hardware.jax.config, "update", lambda name, value: asked.append((name, value)))
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda process: range(4), raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    hardware.use_cores(4)
    monkeypatch.delenv("XLA_FLAGS")
    hardware.use_cores(1)
    assert asked == []
    hardware.use_cores(3)
    hardware.use_cores(16)
    hardware.use_cores(None)
    assert asked == [("jax_num_cpu_devices", count) for count in (3, 4, 4)]
