"""Replicas of a run and copies of a stage: each is the learner that it would be alone, and all are in one program."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats
from test_experiment import SINGLE, assert_same_run, last_checkpoints, load, read_json, train
from typer.testing import CliRunner

from metarun import (
    assessment,
    cli,
    comparison,
    config,
    errors,
    evaluation,
    experiment,
    measuring,
    parallel,
    population,
    prediction,
    training,
)
from metarun.comparison import Choice
from metarun.progress import Progress
from metarun.runs import metrics, state_files

SHORT = ("training.steps=12", "evaluation.every=6", "evaluation.episodes=8")
SEEDS = (5, 6, 7)
REPLICAS = (*SHORT, "seed=5", "replicas=3")
BOTH = """
task: {name: sinusoid, shots: 5, queries: 5}
stages:
  - {name: base, model: {name: mlp, hidden: [8, 8]}, algorithm: {name: maml}, copies: 3, training: TRAINING}
  - {name: other, model: {name: mlp, hidden: [4]}, algorithm: {name: reptile, inner_steps: 2}, training: TRAINING}
evaluation: {every: 4, episodes: 6, inner_steps: [2]}
checkpoint: {every: 4, keep: 2}
accelerator: {platform: cpu, devices: 1}
seed: 2
replicas: 2
""".replace("TRAINING", "{steps: 8, tasks_per_step: 4, chunk: 2}")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch, request) -> None:
    if "pictures" not in request.node.name:
        monkeypatch.setattr(experiment.pictures, "write", lambda session, trained: None)


@pytest.fixture(scope="module")
def singles(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("singles")
    return [train(folder / f"seed-{seed}", SINGLE, *SHORT, f"seed={seed}") for seed in SEEDS]


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("together") / "run", SINGLE, *REPLICAS)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """A stage with copies and one without, in a run with replicas."""
    return train(tmp_path_factory.mktemp("both") / "run", BOTH)


def state_of(path: Path, stage: str) -> dict[str, np.ndarray]:
    last = last_checkpoints(path)[stage]
    return state_files.read(last.path / "state", dict(last.leaves))


def rows_of(path: Path, **wanted) -> list[dict]:
    rows = metrics.read(path / "metrics.jsonl")
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def values_of(path: Path, stage: str = "maml") -> dict[str, np.ndarray]:
    with np.load(path / "episodes" / f"{stage}-test.npz") as arrays:
        return dict(arrays)


def test_each_replica_ends_as_the_single_run_with_its_seed(together, singles):
    found = state_of(together, "maml")
    for replica, path in enumerate(singles):
        for name, expected in state_of(path, "maml").items():
            np.testing.assert_allclose(found[name][replica], expected, rtol=0, atol=2e-6, err_msg=name)


def test_each_replica_writes_the_metrics_of_the_single_run_with_its_seed(together, singles):
    for replica, path in enumerate(singles):
        mine, alone = rows_of(together, replica=replica), rows_of(path)
        assert [(row["split"], row["step"]) for row in mine] == [(row["split"], row["step"]) for row in alone]
        for left, right in zip(mine, alone, strict=True):
            assert left.keys() == right.keys()
            for name in left.keys() - {"replica", "seconds"}:
                assert left[name] == (
                    pytest.approx(right[name], rel=1e-4) if isinstance(right[name], float) else right[name]
                )


def test_the_result_has_the_interval_over_seeds_beside_that_over_episodes(together, singles):
    result = read_json(together / "result.json")
    part = result["stages"]["maml"]["inductive"]["adapted"]["loss"]
    alone = [
        read_json(path / "result.json")["stages"]["maml"]["inductive"]["adapted"]["loss"]["mean"]
        for path in singles
    ]
    assert result["seeds"] == list(SEEDS)
    np.testing.assert_allclose(part["seeds"]["values"], alone, rtol=1e-4)
    low, high = stats.t.interval(0.95, 2, np.mean(alone), stats.sem(alone))
    assert part["mean"] == pytest.approx(np.mean(alone), rel=1e-4)
    assert part["seeds"]["ci95"] == pytest.approx((high - low) / 2, rel=1e-3)
    means = values_of(together)["inductive/adapted/loss"].mean(axis=0)
    low, high = stats.t.interval(0.95, 7, means.mean(), stats.sem(means))
    assert part["ci95"] == pytest.approx((high - low) / 2, rel=1e-4)


def test_the_seeds_of_values_that_do_not_differ_have_no_interval_but_the_episodes_have():
    column = np.tile(np.array([1.0, 2.0, 6.0]), (4, 1))
    found = evaluation.summary(column)
    assert found["seeds"] == {"ci95": 0.0, "values": [3.0] * 4}
    assert {name: found[name] for name in ("mean", "ci95")} == evaluation.summary(column[0])


def test_members_have_keys_of_their_own_and_replicas_those_of_their_seeds(tmp_path):
    run_config = load(tmp_path, BOTH)
    found = jax.random.key_data(population.keys(run_config, 0)).reshape(6, -1)
    assert len({tuple(row) for row in found.tolist()}) == 6
    for replica in range(2):
        alone = population.keys(load(tmp_path, BOTH, f"seed={2 + replica}", "replicas=1"), 0)
        assert (jax.random.key_data(alone) == found.reshape(2, 3, -1)[replica]).all()
    other = population.keys(run_config, 1)
    assert (
        jax.random.key_data(other[1]) == jax.random.key_data(training.stage_key(3, 1))
    ).all()  # as of one run


def test_a_stage_without_copies_has_no_axis_and_keys_as_ever(tmp_path):
    run_config = load(tmp_path)
    assert population.sizes(run_config, 0) == {}
    assert population.positions(run_config, 0) == [{}]
    key = training.stage_key(0, 0)
    assert (jax.random.key_data(population.keys(run_config, 0)) == jax.random.key_data(key)).all()


def test_members_of_a_replica_are_those_of_the_single_run_with_its_seed(both, tmp_path):
    alone = train(tmp_path / "run", BOTH, "seed=3", "replicas=1")
    for stage, axes in (("base", 3), ("other", None)):
        found, expected = state_of(both, stage), state_of(alone, stage)
        for name, array in expected.items():
            assert found[name].shape == (2, *array.shape)
            assert axes is None or array.shape[0] == axes
            np.testing.assert_allclose(found[name][1], array, rtol=0, atol=2e-6, err_msg=name)


def test_members_start_and_end_apart(both):
    for name, array in state_of(both, "base").items():
        if "kernel" in name:
            flat = array.reshape(6, -1)
            assert len(np.unique(flat, axis=0)) == 6


def test_lines_of_a_stage_with_copies_say_which_member_and_the_others_do_not(both):
    train_rows = rows_of(both, stage="base", split="train")
    assert [(row["step"], row["replica"], row["member"]) for row in train_rows] == [
        (step, replica, member) for step in range(1, 9) for replica in range(2) for member in range(3)
    ]
    assert len(rows_of(both, stage="base", split="validation")) == 2 * 6
    others = rows_of(both, stage="other")
    assert len(others) == 2 * (8 + 2)
    assert not any("member" in row for row in others)


def test_the_result_shows_each_member_their_mean_and_the_best_by_validation(both, tmp_path):
    stages = read_json(both / "result.json")["stages"]
    base, values = stages["base"], values_of(both, "base")["inductive/adapted/loss"]
    assert values.shape == (2, 3, 6)
    assert set(stages["other"]) == {"step", "inductive"}
    assert set(base) == {"step", "inductive", "members", "best"}
    assert base["inductive"]["adapted"]["loss"]["mean"] == pytest.approx(values.mean())
    for number, member in enumerate(base["members"]):
        part = member["inductive"]["adapted"]["loss"]
        np.testing.assert_allclose(part["seeds"]["values"], values[:, number].mean(axis=1), rtol=1e-6)
        assert set(member["inductive"]["inner_steps"]) == {"2"}
    validation = assessment.evaluate(both, [], "validation", Progress()).result["stages"]["base"]
    by_validation = np.array(
        [member["inductive"]["adapted"]["loss"]["seeds"]["values"] for member in validation["members"]]
    ).T
    best = by_validation.argmin(axis=1)
    assert base["best"]["member"] == validation["best"]["member"] == best.tolist()
    chosen = [values[replica, member].mean() for replica, member in enumerate(best)]
    np.testing.assert_allclose(base["best"]["inductive"]["adapted"]["loss"]["seeds"]["values"], chosen)


def test_the_best_member_of_one_replica_is_a_number_that_is_not_nan():
    values = {
        "inductive/adapted": {"loss": np.array([[3.0, 3.0, 3.0], [1.0, 2.0, 3.0]])},
    }
    found = measuring.layout_members(values, np.array(1))
    assert found["best"]["member"] == 1
    assert found["best"]["inductive"] == found["members"][1]["inductive"]
    assert found["inductive"]["adapted"]["loss"]["mean"] == 2.5
    assert "best" not in measuring.layout_members(values, None)


def test_evaluation_afterwards_gives_the_result_of_the_run(both):
    again = assessment.evaluate(both, [], None, Progress()).result
    assert json.loads(json.dumps(again)) == read_json(both / "result.json")


@pytest.mark.parametrize("stop_after", [3, 7])
def test_a_stopped_run_with_replicas_and_copies_goes_on_byte_for_byte(
    both, tmp_path, monkeypatch, stop_after
):
    """Chunks are of two steps, so the third ends in the first stage, and the seventh in the second."""

    class Impatient(Progress):
        chunks = 0

        def advanced(self, stage, step, count, seconds, metrics) -> None:
            self.chunks += 1
            if self.chunks == stop_after:
                raise KeyboardInterrupt  # no answer to it: nothing is saved, as in a kill

    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(path, BOTH, progress=Impatient())
    assert_same_run(train(path, BOTH, resume=True), both)


def test_a_run_is_not_resumed_with_other_replicas_or_copies(both):
    for override in ("replicas=3", "stages.0.copies=2"):
        with pytest.raises(errors.ConfigError, match=override.partition("=")[0]):
            train(both, BOTH, override, resume=True)


def test_without_replicas_and_copies_the_state_has_no_axis_more(singles):
    shapes = {name: array.shape for name, array in state_of(singles[0], "maml").items()}
    assert shapes["state.weights.trained['head']['bias']"] == (1,)


def spoil(monkeypatch, spoiled) -> None:
    """Let stages begin with what `spoiled` makes of the state, in which it may reach each learner's arrays."""
    start = training.initial_states
    monkeypatch.setattr(training, "initial_states", lambda *arguments: spoiled(start(*arguments)))


def with_a_nan(tree):
    """The floating arrays with a NaN for member 2 of replica 1."""
    return jax.tree.map(lambda leaf: leaf.at[1, 2].set(math.nan) if leaf.dtype == np.float32 else leaf, tree)


def test_one_diverged_replica_ends_the_run_and_is_named(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda state: state._replace(optimizer=with_a_nan(state.optimizer)))
    with pytest.raises(errors.DivergedError) as refusal:
        train(tmp_path / "run", BOTH)
    assert refusal.value.exit_code == 7
    assert refusal.value.what.endswith("stage base, step 1, of replica 1 (seed 3) member 2 (1 of 6)")
    assert len(rows_of(tmp_path / "run", step=1)) == 6  # what the others did is written, too


def test_a_replica_that_begins_with_a_nan_is_named_before_a_step(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda state: state._replace(weights=with_a_nan(state.weights)))
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
    given = iter([[1.0, 9.0], [4.0, 4.0], [9.0, 1.0]])
    current: list[float] = []
    summarise = evaluation.summarise

    def found(values):
        if not current:
            current.extend(next(given))
        summary = summarise(values)
        summary["inductive/adapted"]["loss"]["mean"] = current.pop(0)
        return summary

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "summarise", found)
        patch.setattr(assessment, "measure", lambda *arguments: ({}, {}))
        path = train(tmp_path / "run", SINGLE, "training.steps=12", "evaluation.every=4", "replicas=2")
    assert last_checkpoints(path)["maml"].facts["best"] == 4.0
    stage = assessment.checkpoints.Checkpoints(path / "checkpoints/maml").best_valid()
    assert stage is not None
    assert stage.step == 8


def test_prediction_takes_the_replica_and_the_member_that_it_is_asked_for(both):
    state = state_of(both, "base")
    for replica, member in ((0, 0), (1, 2)):
        learner = prediction.load(both, stage="base", replica=replica, member=member)
        kernel = learner.weights.trained["head"]["kernel"]
        whole = state["state.weights.trained['head']['kernel']"]
        np.testing.assert_array_equal(kernel, whole[replica, member])
    inputs = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    answers = [
        prediction.load(both, replica=replica).adapt((inputs, inputs)).predict(inputs) for replica in (0, 1)
    ]
    assert answers[0].shape == (5, 1)
    assert not np.allclose(*answers)


@pytest.mark.parametrize(
    ("asked", "what"),
    [({"replica": 2}, "no replica 2"), ({"member": 1}, "no member 1"), ({"replica": -1}, "no replica -1")],
)
def test_a_learner_that_is_not_there_is_refused(both, asked, what):
    with pytest.raises(errors.UsageError, match=what):
        prediction.load(both, **asked)


def test_compare_takes_members_as_learners_and_shows_the_seeds(both):
    found = comparison.compare([both], Choice())
    labels = {each["label"].partition("/")[2] for each in found["ranking"]}
    assert labels == {"base[0]", "base[1]", "base[2]", "other"}
    values = values_of(both, "base")["inductive/adapted/loss"]
    second = next(each for each in found["ranking"] if each["stage"] == "base[1]")
    assert second["mean"] == pytest.approx(values[:, 1].mean())
    np.testing.assert_allclose(second["seeds"]["values"], values[:, 1].mean(axis=1))
    assert second["cost"]["parameters"] == 8 + 8 + 64 + 8 + 8 + 1


def test_the_tables_show_the_interval_over_seeds_and_every_replica(both):
    shown = CliRunner().invoke(cli.application, ["eval", str(both)])
    assert shown.exit_code == 0, shown.output
    result = read_json(both / "result.json")
    loss = result["stages"]["other"]["inductive"]["adapted"]["loss"]
    table = shown.stdout.splitlines()
    assert any(
        f"{loss['mean']:.4f} ± {loss['ci95']:.4f} (± {loss['seeds']['ci95']:.4f})" in line for line in table
    )
    cells = [f"{value:.4f}" for value in loss["seeds"]["values"]]
    assert any(line.split()[0] == "other" and line.split()[-2:] == cells for line in table if line)
    assert any("seed 2" in line and "seed 3" in line for line in table)
    assert {"base[0]", "base[2]", "base[best]"} <= {line.split()[0] for line in table if line}
    shown = CliRunner().invoke(cli.application, ["compare", str(both)])
    assert "base[1]" in shown.stdout
    assert "seeds" in shown.stdout.splitlines()[-2]


def test_pictures_are_of_the_first_replica_and_member(tmp_path):
    path = train(tmp_path / "run", BOTH)
    assert {file.name for file in (path / "pictures").iterdir()} == {
        f"{stage}-{kind}.png" for stage in ("base", "other") for kind in ("curves", "episode")
    }


def test_the_dry_run_counts_the_parameters_of_one_learner(tmp_path):
    first, second = experiment.dry_run(load(tmp_path, BOTH)).splitlines()
    assert first.startswith("base: 6 learners side by side, each with 97 parameters, 8 steps of 4 tasks")
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
from metarun import parallel
from test_experiment import train
from test_replicas import BOTH

train(Path(sys.argv[1]), BOTH, "accelerator.devices=null")
for devices in range(1, 5):
    print(*parallel.make_mesh(jax.devices()[:devices], 4, 2).shape.values())
"""


def test_devices_share_out_replicas_and_then_tasks(both, tmp_path):
    """Two replicas and four tasks a step: of 4 devices two take a replica each, and share its tasks; 3 are too many."""
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.path.dirname(__file__),  # noqa: PTH120
    }
    path = tmp_path / "run"
    command = [sys.executable, "-c", PROGRAM, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "1", "2", "1", "2", "1", "2", "2"]
    for stage in ("base", "other"):
        for name, expected in state_of(both, stage).items():
            np.testing.assert_allclose(state_of(path, stage)[name], expected, rtol=0, atol=2e-6, err_msg=name)


def test_cores_become_devices_only_where_there_are_replicas_and_nobody_chose(monkeypatch):
    asked = []
    monkeypatch.setattr(parallel.jax.config, "update", lambda name, value: asked.append((name, value)))
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda process: range(4), raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    parallel.use_cores(4)
    monkeypatch.delenv("XLA_FLAGS")
    parallel.use_cores(1)
    assert asked == []
    parallel.use_cores(3)
    parallel.use_cores(16)
    assert asked == [("jax_num_cpu_devices", 3), ("jax_num_cpu_devices", 4)]
