"""The list of runs: how each stands, what came out, in what they differ; and whatever is damaged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.finished_runs import COUNT, make_run
from helpers.runs import read_json
from metarun import errors
from metarun.finished.listed_run import describe
from metarun.finished.run_list import list_runs
from metarun.runs import seals, strict_json

CONFIG = """
task: {{name: sinusoid}}
model: {{name: mlp}}
algorithm: {{name: {}, inner_lr: {}}}
training: {{steps: 9, chunk: {}}}
seed: {}
"""


@pytest.fixture
def root(tmp_path) -> Path:
    """Three finished runs with accuracies −1, −3 and −2, the last of another algorithm."""
    kinds = [("a", "maml", 0.1, 1.0), ("b", "maml", 0.2, 3.0), ("c", "reptile", 0.1, 2.0)]
    for seed, (name, algorithm, rate, loss) in enumerate(kinds):
        config = CONFIG.format(algorithm, rate, seed + 1, seed)
        make_run(tmp_path / "runs" / name, np.full(COUNT, loss), stages=(algorithm,), config=config)
    return tmp_path / "runs"


def names(root, *conditions, sort=None):
    return [run.name for run in list_runs(root, list(conditions), sort)]


def test_a_run_says_how_it_stands_and_what_came_out(root):
    run = describe(list_runs(root, ["name=a"], None)[0])
    assert (run["state"], run["metric"], run["problem"]) == ("done", "accuracy", None)
    assert run["result"]["accuracy"] == {"mean": -1.0, "ci95": 0.5}
    assert run["age_seconds"] < 600
    json.dumps(run)


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["algorithm.name=maml"], "ab"),
        (["algorithm.name=m*", "seed=0"], "a"),
        (["algorithm.inner_lr=1e-1"], "ac"),
        (["status=done", "name=[bc]"], "bc"),
        (["seed=7"], ""),
        (["absent=1"], ""),
    ],
)
def test_conditions_are_all_met(root, conditions, found):
    assert sorted(names(root, *conditions)) == list(found)


@pytest.mark.parametrize(
    ("sort", "order"), [("accuracy", "acb"), ("loss", "acb"), ("name", "abc"), ("algorithm.inner_lr", "acb")]
)
def test_the_best_comes_first(root, sort, order):
    (root / "foreign").mkdir()
    assert names(root, sort=sort) == [*order, "foreign"]


@pytest.mark.parametrize(("conditions", "sort"), [(["algorithm.name"], None), (["=3"], None), ([], "bleu")])
def test_what_cannot_be_asked_is_a_usage_error(root, conditions, sort):
    with pytest.raises(errors.UsageError):
        list_runs(root, conditions, sort)


def test_runs_of_one_kind_are_told_apart_and_other_kinds_do_not_count(root):
    differences = {run.name: run.differences for run in list_runs(root, [], None)}
    assert differences == {
        "a": {"algorithm.inner_lr": 0.1, "seed": 0},
        "b": {"algorithm.inner_lr": 0.2, "seed": 1},
        "c": {},
    }


def test_the_step_is_that_of_the_stage_that_the_run_is_in(root):
    text = "stages: [{name: first, training: {steps: 5}}, {name: second, training: {steps: 8}}]"
    (root / "a/config.yaml").write_text(text)
    status = read_json(root / "a/status.json") | {"stage": "second", "step": 3}
    (root / "a/status.json").write_text(json.dumps(status))
    run = list_runs(root, ["name=a"], None)[0]
    assert (run.status.stage, run.status.step, run.steps) == ("second", 3, 8)
    assert names(root, "training.steps=5") == ["a"]  # of any stage


DAMAGES = [
    ("config.yaml", "[", "config.yaml"),
    ("config.yaml", "\x00", "config.yaml"),
    ("config.yaml", None, "no config yet"),
    ("result.json", "{", "result.json"),
    ("result.json", '{"stages": {}, "modes": []}', "result.json"),
    ("result.json", '{"stages": {"a": []}, "modes": ["b"]}', "result.json"),
    ("status.json", "[]", "status.json"),
]


@pytest.mark.parametrize(("file", "content", "problem"), DAMAGES)
def test_a_damaged_run_is_a_line_that_says_what_is_damaged(root, file, content, problem):
    (root / "a" / file).unlink()
    if content is None:
        for entry in (root / "a").iterdir():
            if entry.name not in ("lock", "metrics.jsonl"):
                entry.rename(root.parent / entry.name)
    else:
        (root / "a" / file).write_text(content)
    runs = {run.name: run for run in list_runs(root, [], "accuracy")}
    assert problem in runs["a"].problem
    assert runs["b"].problem is None


def test_checkpoints_that_cannot_be_listed_end_no_list(root, monkeypatch):
    shutil.rmtree(root / "a" / "checkpoints")
    (root / "a" / "checkpoints").symlink_to("checkpoints")  # a loop
    assert [run.problem for run in list_runs(root, [], None)] == [None] * 3

    def refuse(run: Path) -> list[Path]:
        raise errors.StorageError("permission denied", str(run / "checkpoints"), "check the permissions")

    monkeypatch.setattr(seals, "list_checkpoints", refuse)
    assert [run.problem for run in list_runs(root, [], None)] == ["checkpoints: permission denied"] * 3


def test_a_finished_run_without_its_result_is_damaged(root):
    (root / "a" / "result.json").unlink()
    (root / "a" / "status.json").write_text(json.dumps(strict_json.seal({"status": "done"})))
    first, second, _ = list_runs(root, [], None)
    assert (first.status.state, first.problem, second.problem) == ("done", "result.json is gone", None)


def test_a_result_that_was_made_with_another_config_is_not_that_of_the_run(root):
    for name in "ab":
        result = read_json(root / name / "result.json")
        sealed = seals.seal_result(root / name, seals.take(root / name), result, [])
        (root / name / "result.json").write_text(json.dumps(sealed))
    shutil.copy(root / "b" / "result.json", root / "a" / "result.json")
    first, second, _ = list_runs(root, [], None)
    assert (first.result, first.problem) == ({}, "config.yaml was changed after result.json was written")
    assert (second.result["accuracy"]["mean"], second.problem) == (-3.0, None)


def test_a_result_that_is_not_finite_comes_last_and_is_no_damage(root):
    result = json.loads((root / "a/result.json").read_text())
    result["stages"]["maml"]["inductive"]["adapted"]["accuracy"] = {"mean": "nan", "ci95": "nan"}
    (root / "a/result.json").write_text(json.dumps(result))
    assert names(root, sort="accuracy") == ["c", "b", "a"]


def test_a_folder_that_is_not_there_is_no_run(tmp_path):
    with pytest.raises(errors.CheckpointError, match="no such folder"):
        list_runs(tmp_path / "absent", [], None)
