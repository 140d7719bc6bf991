"""One run from its config to its files: what it leaves, what repeats it, and where it ends."""

from pathlib import Path

import numpy as np
import pytest

from helpers.runs import (
    SEVERAL,
    SINGLE,
    STAGE,
    assert_same_run,
    evaluate,
    last_checkpoints,
    lines,
    load,
    read_arrays,
    read_json,
    results,
    train,
    weights,
)
from metarun import assembly, config, errors, experiment
from metarun.figures import run_pictures
from metarun.runs import metrics


@pytest.fixture(scope="module")
def again(tmp_path_factory) -> Path:
    """The run of `single` once more, with its pictures."""
    return train(tmp_path_factory.mktemp("again") / "run", pictures=True)


def test_a_run_leaves_the_files_of_the_design_and_no_others(again):
    last, best = str(last_checkpoints(again)["maml"].step), "20"
    files = "config.yaml environment.json metrics.jsonl status.json result.json log.txt lock"
    folders = "checkpoints episodes pictures"
    assert {path.name for path in again.iterdir()} == {*files.split(), *folders.split()}
    assert [path.name for path in (again / "episodes").iterdir()] == ["maml-test.npz"]
    assert {path.name for path in (again / "pictures").iterdir()} == {"maml-curves.png", "maml-episode.png"}
    assert {last, best} <= {path.name for path in (again / "checkpoints/maml").iterdir()}


def test_the_config_of_a_run_is_the_one_that_it_was_begun_with_and_says_what_that_left_open(single):
    settled = load(single.parent, SINGLE, "training.task_chunk=4")
    assert config.load(single / "config.yaml") == settled


def test_the_status_says_that_the_run_is_done_and_how_far_it_came(single):
    status = read_json(single / "status.json")
    assert (status["status"], status["stage"], status["step"]) == ("done", "maml", 24)


def test_the_environment_names_the_devices_and_the_command_line(single):
    environment = read_json(single / "environment.json")
    assert environment["argv"] == ["test"]
    assert any("cpu" in device for device in environment["devices"])


def test_the_log_says_when_each_stage_began_and_ended(several):
    log = (several / "log.txt").read_text()
    for stage in ("first", "second"):
        assert f"{stage} begins after step 0" in log
        assert f"{stage} ended" in log


def test_every_step_and_every_validation_has_one_line_in_order(several):
    rows = [row for row in metrics.read(several / "metrics.jsonl") if row["split"] != metrics.SPEED]
    assert [(row["stage"], row["split"], row["step"]) for row in rows] == [
        (stage, split, step)
        for stage in ("first", "second")
        for steps in (range(1, 11), range(11, 21), range(21, 25))
        for split, step in [*(("train", step) for step in steps), ("validation", steps[-1])]
        if split == "train" or step % 10 == 0
    ]
    assert all(row["replica"] == 0 and np.isfinite(row["loss"]) for row in rows)


def test_the_result_has_the_layout_of_the_design(several):
    result = read_json(several / "result.json")
    keys = ["run", "accelerator", "step", "split", "modes", "higher_is_better", "episodes", "stages", "costs"]
    assert list(result) == keys
    used = {"platform": "cpu", "precision": "float32", "memory_fraction": None, "deterministic": True}
    assert result["accelerator"] == {"devices": ["cpu"]} | used
    assert result["higher_is_better"] == []
    assert (result["run"], result["step"], result["split"]) == (str(several), 24, "test")
    assert result["episodes"]["count"] == 6
    assert int(result["episodes"]["hash"], 16) >= 0
    assert list(result["stages"]) == ["first", "second"]
    for stage in result["stages"].values():
        assert list(stage) == ["step", *result["modes"]]
        assert list(stage["inductive"]) == ["unadapted", "adapted"]
        assert set(stage["inductive"]["adapted"]["loss"]) == {"mean", "ci95"}


def test_the_values_per_episode_have_the_means_of_the_result(several):
    for stage, layout in read_json(several / "result.json")["stages"].items():
        with np.load(several / f"episodes/{stage}-test.npz", allow_pickle=False) as values:
            assert sorted(values) == ["inductive/adapted/loss", "inductive/unadapted/loss"]
            for name, column in values.items():
                mode, learner, metric = name.split("/")
                assert column.shape == (6,)
                assert np.mean(column, dtype=np.float64) == layout[mode][learner][metric]["mean"]


def test_a_later_stage_draws_other_random_numbers(several):
    rows = metrics.read(several / "metrics.jsonl")
    first, second = (
        [row["loss"] for row in rows if row["stage"] == name and row["split"] == "train"]
        for name in ("first", "second")
    )
    assert not set(first) & set(second)


def test_the_first_of_several_stages_is_the_run_of_that_stage_alone(single, several):
    renamed = [line.replace('"maml"', '"first"') for line in lines(single)]
    assert renamed == [line for line in lines(several) if '"first"' in line]


def test_the_same_seed_gives_the_same_bits(single, again):
    assert_same_run(again, single)


def test_another_seed_gives_other_numbers_on_the_same_episodes(single, tmp_path):
    other = train(tmp_path / "other", SINGLE, "seed=1")
    assert not set(lines(other)) & set(lines(single))
    assert read_json(other / "result.json")["episodes"] == read_json(single / "result.json")["episodes"]


@pytest.mark.slow
def test_neither_validation_nor_checkpoints_nor_chunks_change_the_weights(single, tmp_path):
    cadence = ("evaluation.every=7", "evaluation.episodes=3", "checkpoint.every=5", "training.chunk=null")
    other = train(tmp_path / "other", SINGLE, *cadence)
    assert weights(other) == weights(single)
    assert lines(other, "train") == lines(single, "train")


@pytest.mark.slow
def test_the_best_checkpoint_is_measured_where_the_config_wants_it(tmp_path):
    """A learning rate at which the validation loss rises again makes the best step another than the last."""
    overrides = ["evaluation.checkpoint=best", "evaluation.every=1", "training.optimizer.learning_rate=0.3"]
    overrides.append("model.hidden=[8, 8]")
    run = train(tmp_path / "run", SINGLE, *overrides)
    rows = [row for row in metrics.read(run / "metrics.jsonl") if row["split"] == "validation"]
    best = min(rows, key=lambda row: row["loss"])["step"]
    assert best < 24
    result = results(run)
    assert result["step"] == result["stages"]["maml"]["step"] == best
    assert evaluate(run / f"checkpoints/maml/{best}")["stages"] == result["stages"]
    assert evaluate(run)["stages"] == result["stages"]


def test_a_run_that_diverges_says_where_and_keeps_the_last_good_checkpoint(tmp_path):
    wild = ("training.optimizer={name: sgd, learning_rate: 100.0}", "checkpoint.every=1", "training.steps=99")
    with pytest.raises(errors.DivergedError) as raised:
        train(tmp_path / "run", SINGLE, *wild)
    run = tmp_path / "run"
    bad = metrics.read(run / "metrics.jsonl")[-1]["step"]
    assert bad > 1
    assert f"stage maml, step {bad}" in raised.value.what
    assert raised.value.exit_code == 7
    assert str(raised.value).count("\n") == 2
    status = read_json(run / "status.json")
    assert (status["status"], status["step"]) == ("diverged", bad - 1)
    last = last_checkpoints(run)["maml"]
    assert last.step == bad - 1
    assert all(np.isfinite(array).all() for array in read_arrays(last).values())
    assert not (run / "result.json").exists()


def test_a_run_that_diverges_at_once_says_that_there_is_no_checkpoint(tmp_path):
    with pytest.raises(errors.DivergedError, match="step 1\n") as raised:
        train(tmp_path / "run", SINGLE, "algorithm.inner_lr=1.0e+20")
    assert "no checkpoint yet" in raised.value.where
    assert len(lines(tmp_path / "run")) == 1


@pytest.mark.slow
def test_a_stage_that_is_fitted_to_what_is_not_finite_says_so_before_others_build_on_it(tmp_path):
    stages = """
task: {name: sinusoid, shots: 3, queries: 3}
stages:
  - name: maml
    model: {name: mlp, hidden: [4]}
    algorithm: {name: maml}
    training: {steps: 1, tasks_per_step: 2}
  - name: embedding
    model: {name: mlp, hidden: [4]}
    algorithm: {name: task_embedding, source: adapted, scaling: none, adapted_lr: 1.0e+20, dimensions: 2}
    training: {steps: 1, tasks_per_step: 4}
accelerator: {platform: cpu, devices: 1}
"""
    with pytest.raises(errors.DivergedError, match="the stage embedding begins with weights that are not"):
        train(tmp_path / "run", stages)


def test_a_run_that_fails_says_so_and_keeps_the_traceback_in_its_log(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("this is what went wrong")

    monkeypatch.setattr(experiment.run_evaluation, "evaluate", broken)
    with pytest.raises(RuntimeError):
        train(tmp_path / "run", SINGLE, "training.steps=4", "evaluation.every=null")
    status = read_json(tmp_path / "run/status.json")
    assert (status["status"], status["stage"], status["step"]) == ("failed", "maml", 4)
    assert "this is what went wrong" in status["message"]
    assert "Traceback" in (tmp_path / "run/log.txt").read_text()


def test_a_family_that_does_not_fit_is_said_before_inner_steps_that_do_not_exist(tmp_path):
    overrides = ["algorithm={name: protonet}", "evaluation.inner_steps=[0, 1]"]
    with pytest.raises(errors.ConfigError, match="this task family has none"):
        experiment.describe_dry_run(load(tmp_path, SINGLE, *overrides))


def test_a_dry_run_names_every_stage_and_its_size_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "config"
    folder.mkdir()
    report = experiment.describe_dry_run(load(folder, SEVERAL))
    parameters = (1 * 8 + 8) + (8 * 1 + 1)
    assert [line.partition(" parameters")[0] for line in report.splitlines()] == [
        f"first: {parameters}",
        f"second: {parameters}",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no ink"),
        errors.DataError("no ink", "metrics.jsonl", "restore it"),
        errors.StorageError("no ink", "pictures", "buy some"),
    ],
    ids=["any", "of the data", "of the disk"],
)
def test_a_picture_that_cannot_be_drawn_costs_neither_the_result_nor_the_end(tmp_path, monkeypatch, error):
    def broken(path, *_):
        assert (path / "result.json").is_file()  # it is written before anything is drawn
        raise error

    monkeypatch.setattr(run_pictures, "write", broken)
    run = train(tmp_path / "run", SINGLE, "training.steps=4", pictures=True)
    assert read_json(run / "status.json")["status"] == "done"
    assert "no pictures: " in (run / "log.txt").read_text()
    assert "no ink" in (run / "log.txt").read_text()


@pytest.mark.parametrize(
    ("algorithm", "where"),
    [
        ("{name: fusion, members: [first, small], kind: soup}", "algorithm.members"),
        (
            "{name: distillation, teachers: [first], student: small, student_shots: 9}",
            "algorithm.student_shots",
        ),
    ],
)
def test_what_a_later_stage_cannot_do_is_refused_before_the_first_is_trained(tmp_path, algorithm, where):
    small = STAGE.format("small").replace("[8]", "[4]")
    third = STAGE.format("third").replace("{name: maml}", algorithm)
    text = SEVERAL.replace(STAGE.format("second"), f"{small}, {third}")
    with pytest.raises(errors.ConfigError) as refused:
        train(tmp_path / "run", text)
    assert refused.value.where == f"stage third: {where}"
    assert not (tmp_path / "run").exists()  # nothing was begun


def test_an_evaluation_that_cannot_be_is_refused_before_training(tmp_path, monkeypatch):
    def build_without_test(selection, kept, build=assembly.build_family):
        family = build(selection)
        return family._replace(data={split: family.data[split] for split in ("train", "validation")})

    monkeypatch.setattr(assembly, "build_family", build_without_test)
    with pytest.raises(errors.ConfigError, match="no test split"):
        train(tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*/*"))
