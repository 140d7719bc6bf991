"""The configs that come with metarun: each loads, builds, and says where it is from and what it gave."""

from pathlib import Path

import pytest

from metarun import building, config, experiment, plugins

ROOT = Path(__file__).parent.parent / "configs"
FILES = sorted(ROOT.rglob("*.yaml"))


def test_there_are_configs_for_every_task_family():
    assert {path.parent.name for path in FILES} >= set(plugins.names("task"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_config_loads_and_its_header_names_source_command_and_result(path):
    run_config = config.load(path)
    assert run_config.task.name == path.parent.name
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("# Source: ", f"# Command: metarun train configs/{path.relative_to(ROOT)}", "# Result: "):
        assert any(line.startswith(word) for line in header), f"{path} has no line {word!r}"


def test_the_algorithms_of_every_sinusoid_config_build():
    for path in ROOT.glob("sinusoid/*.yaml"):
        run_config = config.load(path)
        family = building.task_family(run_config.task)
        for index in range(len(run_config.stages)):
            experiment.build_once(run_config, index, family)
