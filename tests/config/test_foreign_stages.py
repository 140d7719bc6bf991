"""Stages of other runs in a file: `init_from` and `taken_from` become whole names and whole sections."""

from pathlib import Path

import pytest

from metarun import config
from metarun.errors import CheckpointError, ConfigError
from metarun.runs import stage_reference

OTHER = """
task: {name: sinusoid}
stages:
  - {name: pretrain, model: {name: mlp}, algorithm: {name: pretrain}, training: {steps: 3}}
  - {name: beside, model: {name: mlp}, algorithm: {name: maml}, training: {steps: 3}}
  - {name: tune, model: {name: mlp}, algorithm: {name: finetune, adapts: all}, draws_as: pretrain,
     training: {steps: 1, tasks_per_step: 7}}
"""
OWN = """
task: {name: sinusoid}
stages:
  - {name: teacher, taken_from: RUN}
  - {name: student, model: {name: mlp}, algorithm: {name: maml}, training: {steps: 3}, init_from: latest/beside}
"""


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A run directory with a config alone, the newest below `runs`."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/other/20261121-144857-dafe"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OTHER)
    (folder / "lock").touch()
    return folder


def load(text: str, *overrides: str) -> config.RunConfig:
    Path("own.yaml").write_text(text)
    return config.load("own.yaml", overrides, stage_reference.find_stage)


@pytest.mark.parametrize("name", ["latest", "dafe/tune", "runs/other", "other/20261121-144857-dafe/tune"])
def test_a_taken_stage_has_all_its_sections_and_comes_with_what_it_stands_on(run, name):
    bound = load(OWN.replace("RUN", name))
    base, teacher, student = bound.stages
    tune = config.load(run / "config.yaml").stages[2]
    assert (base.name, base.taken_from) == ("teacher-pretrain", str(run / "pretrain"))
    assert (teacher.name, teacher.taken_from, teacher.draws_as) == ("teacher", str(run / "tune"), None)
    assert (teacher.model, teacher.training) == (tune.model, tune.training)
    assert teacher.algorithm.config.adapts == "all"
    assert teacher.algorithm.config.pretrained == "teacher-pretrain"
    assert (student.taken_from, student.init_from) == (None, str(run / "beside"))


def test_the_config_of_a_run_opens_when_the_other_run_is_gone(run, tmp_path):
    bound = load(OWN.replace("RUN", "latest"))
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(config.to_yaml(bound))
    (run / "config.yaml").unlink()
    assert config.load(resolved) == bound
    assert config.load(resolved, (), stage_reference.find_stage) == bound


def test_a_named_checkpoint_stays_named(run):
    (run / "checkpoints/tune/2").mkdir(parents=True)
    stages = load(OWN.replace("RUN", "dafe/checkpoints/tune/2")).stages
    assert [stage.taken_from for stage in stages[:2]] == [
        str(run / "pretrain"),
        str(run / "checkpoints/tune/2"),
    ]


def test_a_file_with_one_stage_may_start_from_another_run(run):
    text = "{task: {name: sinusoid}, model: {name: mlp}, algorithm: {name: maml}, training: {steps: 3}}"
    bound = load(text, "init_from=dafe")
    assert bound.stages[0].init_from == str(run / "tune")
    assert config.document(bound)["init_from"] == str(run / "tune")
    assert "init_from" not in config.document(load(text))


def test_what_is_wrong_with_a_stage_behind_a_taken_one_keeps_its_line(run):
    with pytest.raises(ConfigError, match=r"own\.yaml:5, key stages\.2\.training\.stepps"):
        load(OWN.replace("RUN", "latest").replace("{steps: 3}", "{stepps: 3}"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ("stages.teacher.taken_from=nowhere/tune", CheckpointError, "there is no run here"),
        ("stages.student.init_from=latest/nothing", ConfigError, "has no stage nothing"),
        ("stages.teacher.training={steps: 5}", ConfigError, "has training of its own"),
        ("stages.teacher.draws_as=x", ConfigError, "has draws_as of its own"),
        ("stages.student.taken_from=latest", ConfigError, "both init_from and taken_from"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_the_place(run, change, error, words):
    with pytest.raises(error, match=words) as refusal:
        load(OWN.replace("RUN", "latest"), change)
    assert change.split("=")[0] in refusal.value.where or "stages.2" in refusal.value.where


def test_trials_with_different_numbers_are_not_taken(run):
    number = "{path: stages.beside.algorithm.inner_lr, values: [0.1, 0.2]}"
    trials = f"replicas: 2\ntrials: {{seeds: [0, 1], numbers: [{number}]}}\n"
    (run / "config.yaml").write_text(f"{OTHER}{trials}")
    with pytest.raises(ConfigError, match="trials with different numbers"):
        load(OWN.replace("RUN", "latest"))


def test_without_somebody_who_looks_for_runs_a_taken_stage_is_refused(run):
    Path("own.yaml").write_text(OWN.replace("RUN", "latest"))
    with pytest.raises(ConfigError, match="is not looked for here"):
        config.load("own.yaml")


def test_a_stage_is_taken_from_a_name(run):
    with pytest.raises(ConfigError, match="taken_from is 5, and not the name of a run"):
        load(OWN.replace("RUN", "5"))
