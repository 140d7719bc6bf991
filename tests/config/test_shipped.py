"""The configs that come with metarun: found by name from anywhere, and copied so that they train."""

from pathlib import Path

import pytest

from helpers.commands import assert_three_lines
from metarun import config, errors
from metarun.cli import train
from metarun.config import copies, shipped

ROOT = Path(__file__).parents[2] / "configs"


def test_every_config_but_base_files_has_a_name_and_a_summary():
    names = shipped.list_names()
    files = {file.relative_to(ROOT).with_suffix("").as_posix() for file in ROOT.rglob("*.yaml")}
    assert set(names) == {name for name in files if not Path(name).name.startswith("base")}
    assert shipped.read_summary("sinusoid/maml").startswith("Sinusoid, K=10: second-order MAML")
    assert all(shipped.read_summary(name) for name in names)


@pytest.mark.parametrize("name", ["sinusoid/maml", "sinusoid/maml.yaml", "configs/sinusoid/maml.yaml"])
def test_a_name_is_found_from_an_empty_folder(own_place, name):
    assert config.find_file(name) == ROOT / "sinusoid/maml.yaml"
    assert config.load(name) == config.load(ROOT / "sinusoid/maml.yaml")


def test_a_file_comes_before_a_name(own_place):
    Path("sinusoid").mkdir()
    Path("sinusoid/maml").write_text("")
    assert config.find_file("sinusoid/maml") == Path("sinusoid/maml")


@pytest.mark.parametrize(
    "name", ["../configs/sinusoid/maml", "/sinusoid/maml.yaml", "sinusoid/mmal.yaml", ""]
)
def test_what_is_no_name_stays_a_path(own_place, name):
    assert config.find_file(name) == Path(name)
    with pytest.raises(errors.ConfigError):
        config.load(name)


def test_a_wrong_name_gets_the_nearest(own_place):
    with pytest.raises(errors.ConfigError, match="no config of this name") as caught:
        config.load("sinusoid/mmal")
    assert caught.value.remedy.startswith("did you mean sinusoid/maml?")


def test_a_run_of_a_name_is_called_as_that_of_its_file(own_place):
    assert train.name_config(config.find_file("sinusoid/maml")) == "sinusoid-maml"


@pytest.mark.parametrize("name", shipped.list_names())
def test_a_copy_is_the_same_config(own_place, name):
    copy = copies.copy_config(name, Path("copy.yaml"))
    assert config.load(copy) == config.load(name)
    header = [line for line in copy.read_text().splitlines() if line.startswith("#")]
    assert "# Command: metarun train copy.yaml" in header
    assert shipped.MODELINE not in copy.read_text()  # the schema does not lie beside the copy


def test_init_writes_files_that_load_and_overwrites_none(own_place, metarun_):
    for kind, name in (("algorithm", "my_learner"), ("model", "my_net"), ("task", "my_lines")):
        assert metarun_("init", kind, name).code == 0
        assert metarun_("train", f"{name}.yaml", "--print-config").code == 0
        assert_three_lines(metarun_("init", kind, name), 6, "a file here already")
    said = metarun_("init", "sinusoid/maml", "--to", "deep/own.yaml")
    assert (said.code, said.out[-1]) == (0, "deep/own.yaml")
    assert config.load("deep/own.yaml") == config.load("sinusoid/maml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("algorithm",), "my_algorithm"),
        (("algorithm", "maml"), "my_maml"),
        (("model", "My Net"), "small letter"),
        (("metric", "mine"), "algorithm, model or task"),
        (("sinusoid/mmal",), "did you mean sinusoid/maml?"),
    ],
)
def test_init_refuses_what_it_cannot_write(own_place, metarun_, arguments, words):
    assert_three_lines(metarun_("init", *arguments), 2, words)
    assert not list(Path().iterdir())
