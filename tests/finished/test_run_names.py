"""What runs are called beside one another."""

from pathlib import Path

import pytest

from metarun.finished import run_names


@pytest.fixture
def make(tmp_path):
    def make_run(name: str, text: str) -> Path:
        path = tmp_path / name
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(text)
        return path

    return make_run


def test_a_run_is_called_by_its_config_or_by_the_name_that_it_was_given(make):
    paths = [make("maml/20260101-000000-aaaa", "seed: 0"), make("own", "seed: 1")]
    assert run_names.name_runs(paths) == ["maml", "own"]


def test_runs_of_one_config_are_told_apart_by_the_keys_that_differ(make):
    text = "algorithm: {{inner_lr: {}}}\naccelerator: {{devices: {}}}\nseed: {}\n"
    values = [(0.1, 1, 0), (0.1, 2, 1), (0.25, 3, 0)]
    paths = [make(f"maml/20260101-000000-aaa{n}", text.format(*value)) for n, value in enumerate(values)]
    labels = ["maml inner_lr=0.1 seed=0", "maml inner_lr=0.1 seed=1", "maml inner_lr=0.25 seed=0"]
    assert run_names.name_runs(paths) == labels


def test_of_many_keys_the_first_that_tell_the_runs_apart_are_named(make):
    paths = [
        make(f"maml/20260101-000000-aaa{n}", "\n".join(f"key{k}: {n if k else n // 2}" for k in range(9)))
        for n in range(3)
    ]
    assert run_names.name_runs(paths) == ["maml key0=0 key1=0", "maml key0=0 key1=1", "maml key0=1 key1=2"]


def test_runs_that_nothing_tells_apart_are_called_by_their_paths(make):
    paths = [make(f"maml/20260101-000000-aaa{n}", "seed: 0") for n in range(2)]
    assert run_names.name_runs(paths) == list(map(str, paths))
    (paths[0] / "config.yaml").write_text("[")
    assert run_names.name_runs(paths) == list(map(str, paths))


def test_keys_are_as_short_as_they_can_be():
    keys = ["stages.a.training.steps", "stages.b.training.steps", "seed", "task.seed"]
    assert list(run_names.shorten_keys(keys).values()) == [
        "a.training.steps",
        "b.training.steps",
        "seed",
        "task.seed",
    ]


def test_values_are_written_as_in_a_config():
    values = [None, True, 0.1, 1e-4, 3, [1, 2], "maml"]
    assert [run_names.format_value(value) for value in values] == [
        "null", "true", "0.1", "0.0001", "3", "[1,2]", "maml"
    ]  # fmt: skip
