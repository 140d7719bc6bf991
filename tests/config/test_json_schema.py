"""The schema that `metarun schema` prints accepts what metarun accepts, and refuses what editors should mark."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from metarun import config
from metarun.config import json_schema, shipped, yaml_file

ROOT = Path(__file__).parents[2] / "configs"
SCHEMA = json_schema.make_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SMALL: dict[str, Any] = {
    "task": {"name": "sinusoid"},
    "model": {"name": "mlp"},
    "algorithm": {"name": "maml"},
    "training": {"steps": 1},
}


def test_the_command_prints_the_schema_and_it_is_one(metarun_):
    said = metarun_("schema")
    assert json.loads("\n".join(said.out)) == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_file_that_editors_find_beside_the_configs_is_that_schema():
    """After a change of options: metarun schema > configs/schema.json."""
    assert json.loads((ROOT / "schema.json").read_text("utf-8")) == SCHEMA


def test_it_accepts_every_config_as_it_is_written():
    for path in sorted(ROOT.rglob("*.yaml")):
        VALIDATOR.validate(yaml_file.read(path).value)


@pytest.mark.parametrize("name", ["sinusoid/maml", "sinusoid/distillation", "omniglot/5way-1shot/maml"])
def test_it_accepts_every_key_of_a_whole_config(name):
    VALIDATOR.validate(yaml.safe_load(config.to_yaml(config.load(name))))


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("algorithm", {"name": "./learner.py", "anything": 1}),
        ("model", {"name": "my_package.net"}),
        ("training", {"steps": "${checkpoint.every}"}),
        ("evaluation", {"inner_steps": 5}),
    ],
)
def test_it_accepts_own_code_references_and_single_values(section, value):
    VALIDATOR.validate(SMALL | {section: value})


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("algorithm", {"name": "mamml"}, "mamml"),
        ("algorithm", {"name": "maml", "inner_rate": 1}, "inner_rate"),
        ("training", {"steps": 0}, "0"),
        ("training", {"steps": 1, "optimizer": {"name": "adam", "b1": 1.0}}, "1.0"),
        ("evaluation", {"modes": ["both"]}, "both"),
        ("evalution", {}, "evalution"),
    ],
)
def test_it_refuses_wrong_names_keys_and_values(section, value, words):
    (error,) = VALIDATOR.iter_errors(SMALL | {section: value})
    assert words in error.message


def test_a_key_has_its_default_its_range_and_its_meaning():
    (maml,) = [
        branch["then"]
        for branch in SCHEMA["$defs"]["algorithm"]["allOf"]
        if branch["if"]["properties"]["name"] == {"const": "maml"}
    ]
    rate = maml["properties"]["inner_lr"]
    assert rate["default"] == 0.01
    assert rate["description"]
    assert {"type": "number", "exclusiveMinimum": 0} in rate["anyOf"]
    assert "sinusoid/maml" in shipped.list_names()
