"""The configs that come with metarun: each loads, builds, and says where it is from and what it gave."""

from pathlib import Path

import jax
import pytest
import yaml

from helpers import shared_programs
from metarun import config, errors, experiment, plugins

ROOT = Path(__file__).parents[1] / "configs"
FILES = sorted(ROOT.rglob("*.yaml"))
BASES = [path for path in FILES if path.stem.startswith("base")]
EXPERIMENTS = [path for path in FILES if path not in BASES]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT).with_suffix(""))


def read_header(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.startswith("#")]


def find_base(path: Path) -> Path | None:
    extends = yaml.safe_load(path.read_text()).get("extends")
    return None if extends is None else (path.parent / extends).resolve()


def test_there_are_configs_for_every_task_family():
    assert {path.relative_to(ROOT).parts[0] for path in EXPERIMENTS} >= set(plugins.list_names("task"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_a_config_loads_and_its_header_names_source_command_and_result(path):
    run_config = config.load(path)
    assert run_config.task.name == path.relative_to(ROOT).parts[0]
    header = read_header(path)
    for word in ("# Source: ", f"# Command: metarun train configs/{path.relative_to(ROOT)}", "# Result: "):
        assert any(line.startswith(word) for line in header), f"{path} has no line {word!r}"
    depth = len(path.relative_to(ROOT).parts) - 1
    assert header[-1] == f"# yaml-language-server: $schema={'../' * depth}schema.json"
    assert max(map(len, header)) <= 120


@pytest.mark.parametrize("path", BASES, ids=name)
def test_a_base_file_is_extended_and_claims_no_result(path):
    assert sum(find_base(experiment_path) == path for experiment_path in EXPERIMENTS) > 1
    header = read_header(path)
    assert header[0].startswith("# Base of ")
    assert not any(line.startswith(("# Command: ", "# Result: ")) for line in header)
    with pytest.raises(errors.ConfigError, match="is missing"):
        config.load(path)


def test_configs_extend_base_files_only():
    assert {find_base(path) for path in EXPERIMENTS} - {None} == set(BASES)


@pytest.mark.slow
def test_the_algorithms_of_every_sinusoid_config_build():
    """A stage that stands in several configs is traced once."""
    with shared_programs.share():
        for path in EXPERIMENTS:
            if path.parent == ROOT / "sinusoid":
                experiment.assemble(config.load(path), jax.devices("cpu")[0])
