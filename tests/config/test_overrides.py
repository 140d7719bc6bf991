"""Overrides of the command line, where one letter more or less matters."""

import pytest

from metarun import config
from metarun.config import overrides, yaml_file
from metarun.errors import ConfigError

TEXT = """\
task: {name: sinusoid}
stages:
  - {name: one, model: {name: mlp, hidden: [8]}, algorithm: {name: maml}, training: {steps: 3}}
  - {name: two, model: "${stages.0.model}", algorithm: {name: maml}, training: "${stages.0.training}"}
"""
SINGLE = """\
task: {name: sinusoid}
model: {name: mlp, hidden: [8]}
algorithm: {name: maml}
training: {steps: 3}
"""


@pytest.fixture
def load(tmp_path):
    """(text, overrides) -> the config."""

    def load(text: str, *given: str) -> config.RunConfig:
        (tmp_path / "run.yaml").write_text(text)
        return config.load(tmp_path / "run.yaml", given)

    return load


@pytest.fixture
def refuse(load):
    """(text, overrides) -> the error that refuses them."""

    def refuse(text: str, *given: str) -> ConfigError:
        with pytest.raises(ConfigError) as refused:
            load(text, *given)
        return refused.value

    return refuse


def test_a_key_has_as_many_parts_as_sections_may_be_deep(refuse):
    longest = ".".join(["a"] * yaml_file.MAX_DEPTH)
    assert "is not a key" not in refuse(SINGLE, f"{longest}=1").what
    assert refuse(SINGLE, f"{longest}.a=1").what == f"{longest}.a is not a key"


@pytest.mark.parametrize(
    ("names", "option"),
    [
        ("run_dir run-dir out out_dir output output_dir", "--run-dir PLACE"),
        ("dry_run dry-run", "--dry-run"),
        ("resume", "--resume"),
        ("split", "--split SPLIT"),
        ("mode", "--mode MODE"),
        ("stage", "--stage STAGE"),
    ],
)
def test_an_option_that_is_written_as_a_key_is_named(refuse, names, option):
    for name in names.split():
        assert refuse(SINGLE, f"{name}=x").remedy == f"write {option} if the command has it"


@pytest.mark.parametrize("override", ["stages.1.training.steps=5", "stages.two.training.steps=5"])
def test_a_key_within_a_reference_is_refused(refuse, override):
    error = refuse(TEXT, override)
    assert error.what == "stages.1.training is a value, not a section"
    assert error.remedy == "write stages.1.training=VALUE"


def test_the_name_within_a_reference_drops_nothing_of_what_it_refers_to(refuse, caplog):
    assert refuse(TEXT, "stages.1.model.name=conv4").what == "stages.1.model is a value, not a section"
    assert caplog.records == []


def test_a_name_that_is_a_reference_keeps_the_options_of_its_section(refuse, caplog):
    text = SINGLE.replace("{name: mlp", '{name: "${algorithm.name}"')
    assert "no key hidden" in refuse(text, "model.name=conv4").what
    assert caplog.records == []


def test_a_list_in_the_place_of_a_section_has_no_name(refuse):
    assert (
        "model has no item name"
        in refuse(SINGLE.replace("{name: mlp, hidden: [8]}", "[1]"), "model.name=x").what
    )


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("model=conv4", "write model.name=conv4, or model={...} for all of it"),
        ("model=3", "write model.KEY=VALUE, or model={...} for all of it"),
        ("training=fast", "write training.KEY=VALUE, or training={...} for all of it"),
    ],
)
def test_a_value_for_a_section_names_what_may_have_been_meant(refuse, override, remedy):
    assert refuse(SINGLE, override).remedy == remedy


def test_a_name_that_is_no_text_is_refused_and_drops_nothing(refuse, caplog):
    assert "model.name" in str(refuse(SINGLE, "model.name=3"))
    assert caplog.records == []


def test_an_item_is_found_by_name_beside_a_reference_that_leads_nowhere(refuse):
    text = TEXT.replace("${stages.0.model}", "${nowhere}")
    assert "nowhere" in str(refuse(text, "stages.one.training.steps=5"))


def test_what_is_dropped_is_said_in_the_log_of_metarun(load, caplog):
    load(SINGLE, "model.name=resnet12")
    [record] = caplog.records
    assert record.name == "metarun"
    assert record.getMessage() == "model.name=resnet12 drops model.hidden of mlp"
    assert overrides.logger.name == "metarun"
