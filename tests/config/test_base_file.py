"""A config that extends another one: what it takes from it, what it replaces, and what is refused."""

from pathlib import Path

import pytest

from metarun import config
from metarun.config import base_file, yaml_file
from metarun.errors import ConfigError

BASE = """\
task: {name: sinusoid, shots: 10, queries: 10}
model: {name: mlp, hidden: [40, 40]}
training:
  steps: 100
  tasks_per_step: 25
  optimizer: {name: adam, learning_rate: 2e-3, b1: 0.8, schedule: {name: cosine, final: 0.5}}
evaluation: {episodes: 20, modes: [inductive, transductive]}
seed: 3
"""
EXTENDING = """\
extends: base.yaml
algorithm: {name: maml, inner_lr: 0.1}
training: {steps: 7}
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of configs, with a base file."""
    folder = tmp_path / "configs" / "sinusoid"
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text(BASE)
    return folder


@pytest.fixture
def load(folder):
    """Loads a text as `run.yaml` beside the base file."""

    def load(text, *overrides):
        (folder / "run.yaml").write_text(text)
        return config.load(folder / "run.yaml", overrides)

    return load


@pytest.fixture
def refuse(load):
    """The ConfigError that a text is refused with: exit code 3 and three printable lines."""

    def refuse(text, *overrides):
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        error = caught.value
        assert error.exit_code == 3
        assert len(str(error).splitlines()) == 3
        assert all(line and line.isprintable() for line in (error.what, error.where, error.remedy))
        return error

    return refuse


# What is right.


def test_a_config_has_the_values_of_the_file_that_it_extends_and_its_own(load):
    run = load(EXTENDING)
    (stage,) = run.stages
    assert stage.algorithm.name == "maml" and stage.algorithm.config.inner_lr == 0.1
    assert run.task.config.shots == 10 and run.seed == 3 and run.evaluation.episodes == 20


def test_sections_merge_key_by_key_at_every_depth(load):
    text = EXTENDING.replace(
        "{steps: 7}", "{steps: 7, optimizer: {learning_rate: 0.5, schedule: {final: 0.25}}}"
    )
    training = load(text).stages[0].training
    assert training.steps == 7 and training.tasks_per_step == 25
    assert training.optimizer.config.learning_rate == 0.5 and training.optimizer.config.b1 == 0.8
    schedule = training.optimizer.config.schedule
    assert schedule.name == "cosine" and schedule.config.final == 0.25


def test_a_list_replaces_the_whole_list(load):
    run = load(EXTENDING + "model: {hidden: [8]}\nevaluation: {modes: [transductive]}\n")
    assert run.stages[0].model.config.hidden == (8,)
    assert run.evaluation.modes == ("transductive",)


def test_another_name_drops_the_options_of_the_old_one(load):
    optimizer = (
        load(EXTENDING.replace("{steps: 7}", "{optimizer: {name: sgd, momentum: 0.9}}"))
        .stages[0]
        .training.optimizer
    )
    assert optimizer.name == "sgd" and optimizer.config.momentum == 0.9
    assert optimizer.config.learning_rate == 1e-3  # the default, not that of the base file
    assert optimizer.config.schedule.name == "constant"


def test_the_same_name_keeps_the_options(load):
    text = EXTENDING.replace("{steps: 7}", "{optimizer: {name: adam, b1: 0.7}}")
    optimizer = load(text).stages[0].training.optimizer.config
    assert optimizer.b1 == 0.7 and optimizer.schedule.name == "cosine"


def test_a_reference_sees_the_merged_values(load, folder):
    (folder / "base.yaml").write_text(BASE.replace("episodes: 20", "episodes: '${training.steps}'"))
    assert load(EXTENDING).evaluation.episodes == 7
    assert load(EXTENDING, "training.steps=9").evaluation.episodes == 9


def test_overrides_apply_after_the_merge(load):
    run = load(EXTENDING, "training.steps=8", "seed=4")
    assert run.stages[0].training.steps == 8 and run.seed == 4


def test_the_resolved_config_stands_alone(load, tmp_path):
    run = load(EXTENDING)
    text = config.to_yaml(run)
    assert "extends" not in text
    alone = tmp_path / "alone.yaml"
    alone.write_text(text)
    assert config.load(alone) == run


def test_the_printed_config_is_the_merged_one(load, folder, tmp_path, metarun_):
    run = load(EXTENDING)
    said = metarun_("train", folder / "run.yaml", "--print-config")
    printed = tmp_path / "printed.yaml"
    printed.write_text("\n".join(said.out) + "\n")
    assert "extends" not in printed.read_text()
    assert config.load(printed) == run


def test_a_file_may_extend_one_in_another_folder_of_the_configs(folder):
    other = folder.parent / "other"
    other.mkdir()
    (other / "run.yaml").write_text(EXTENDING.replace("base.yaml", "../sinusoid/base.yaml"))
    assert config.load(other / "run.yaml").seed == 3


def test_the_base_file_is_found_from_the_folder_of_the_file_and_not_from_the_working_folder(
    load, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    load(EXTENDING)
    assert config.load(Path("configs", "sinusoid", "run.yaml")).seed == 3


def test_a_link_within_the_folder_of_configs_is_followed(load, folder):
    (folder / "link.yaml").symlink_to("base.yaml")
    assert load(EXTENDING.replace("base.yaml", "link.yaml")).seed == 3


# What is refused.


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("run.yaml", "extends itself"),
        ("../sinusoid/run.yaml", "extends itself"),
        ("absent.yaml", "there is no file"),
        ("nowhere/base.yaml", "there is no file"),
        (".", "there is no file"),
        ("/etc/hostname", "an absolute path"),
        ("../../outside.yaml", "outside of the folder of configs"),
        ("../../../../../etc/hostname", "outside of the folder of configs"),
        ("way-out.yaml", "outside of the folder of configs"),
        ("loop.yaml", "loop.yaml"),
        ('"nul\\0l.yaml"', "cannot be found"),
        (5000 * "a", "cannot be found"),
        ("5", "does not name a file"),
        ("null", "does not name a file"),
        ("''", "does not name a file"),
        ("[base.yaml]", "does not name a file"),
        ("{file: base.yaml}", "does not name a file"),
    ],
)
def test_a_file_that_cannot_be_extended_is_refused_at_its_line(value, words, folder, refuse):
    (folder.parents[1] / "outside.yaml").write_text(BASE)
    (folder / "way-out.yaml").symlink_to(folder.parents[1] / "outside.yaml")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    error = refuse(f"seed: 1\nextends: {value}\n")
    assert words in error.what
    assert error.where == f"{folder}/run.yaml:2, key extends"


def test_a_missing_file_names_its_nearest_sibling(refuse):
    assert "base.yaml?" in refuse("extends: bas.yaml\n").remedy


def test_outside_of_a_folder_configs_a_file_extends_those_of_its_own_folder_alone(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    for place in (tmp_path, inner):
        (place / "base.yaml").write_text(BASE)
    (inner / "run.yaml").write_text(EXTENDING)
    assert config.load(inner / "run.yaml").seed == 3
    (inner / "run.yaml").write_text(EXTENDING.replace("base.yaml", "../base.yaml"))
    with pytest.raises(ConfigError, match=r"outside of the folder of configs, .*inner"):
        config.load(inner / "run.yaml")


def test_there_is_one_level(folder, refuse):
    (folder / "middle.yaml").write_text("seed: 5\nextends: base.yaml\n")
    error = refuse("extends: middle.yaml\n")
    assert "extends a file itself" in error.what
    assert error.where == f"{folder}/middle.yaml:2, key extends"


def test_two_files_that_extend_each_other_are_refused(folder, refuse):
    (folder / "middle.yaml").write_text("extends: run.yaml\n")
    assert refuse("extends: middle.yaml\n").where == f"{folder}/middle.yaml:1, key extends"


@pytest.mark.parametrize("override", ["extends=other.yaml", "extends=null", "extends.x=1"])
def test_extends_is_no_override(override, refuse):
    error = refuse(EXTENDING, override)
    assert "cannot be overridden" in error.what
    assert error.where == f"override {override}"


def test_extends_within_a_section_is_an_unknown_key(refuse):
    assert "no key extends" in refuse(EXTENDING.replace("{steps: 7}", "{extends: base.yaml}")).what


@pytest.mark.parametrize(
    ("claim", "old", "new", "place"),
    [
        ("a key of the base file alone", "shots: 10", "shotz: 10", "base.yaml:1, key task.shotz"),
        ("a nested one", "b1: 0.8", "b1: 2", "base.yaml:6, key training.optimizer.b1"),
        ("an item of a list", "[40, 40]", "[40, 0]", "base.yaml:2, key model.hidden.1"),
        ("a repeated key", "seed: 3", "seed: 3\nseed: 4", "base.yaml:9"),
        ("a tag", "seed: 3", "seed: !!int 3", "base.yaml:8"),
        ("a syntax error", "seed: 3", "seed: [", "base.yaml:9"),
        ("nesting too deep", "seed: 3", "seed: " + "[" * 20, "base.yaml:8"),
        ("too many values", "seed: 3", "seed: [" + "1," * 10_001 + "]", "base.yaml:8"),
        ("a megabyte", "seed: 3", "#" * 2**20, "base.yaml"),
        ("no mapping", BASE, "- 1\n", "base.yaml"),
    ],
)
def test_an_error_in_the_base_file_names_the_base_file_and_its_line(claim, old, new, place, folder, refuse):
    assert old in BASE
    (folder / "base.yaml").write_text(BASE.replace(old, new, 1))
    assert refuse(EXTENDING).where == f"{folder}/{place}"


@pytest.mark.parametrize(
    ("claim", "text", "place"),
    [
        ("a value that both files give", EXTENDING.replace("7", "0"), "run.yaml:3, key training.steps"),
        ("a shorter list", EXTENDING + "model: {hidden: [0]}\n", "run.yaml:4, key model.hidden.0"),
        (
            "a section of another name",
            EXTENDING + "model: {name: conv4, hiden: 1}\n",
            "run.yaml:4, key model.hiden",
        ),
        ("a repeated key", EXTENDING + "seed: 1\nseed: 1\n", "run.yaml:5"),
    ],
)
def test_an_error_in_the_extending_file_names_the_extending_file(claim, text, place, folder, refuse):
    assert refuse(text).where == f"{folder}/{place}"


def test_what_is_replaced_has_no_place_in_the_base_file_any_more():
    """Else an error of a key that is missing now would name the line of another choice."""
    base = yaml_file.parse("outer: {inner: {name: one, width: 1}, list: [1, 2]}", "base.yaml")
    extending = yaml_file.parse("\nouter: {inner: {name: two}, list: [3]}", "run.yaml")
    merged = base_file.merge(base, extending)
    assert merged.value == {"outer": {"inner": {"name": "two"}, "list": [3]}}
    assert set(merged.places) == {"outer", "outer.inner", "outer.inner.name", "outer.list", "outer.list.0"}
    assert set(merged.places.values()) == {"run.yaml:2"}


def test_stages_do_not_fit_a_base_file_with_a_training(folder, refuse):
    error = refuse("extends: base.yaml\nstages: []\n")
    assert error.where == f"{folder}/base.yaml:2, key model"
