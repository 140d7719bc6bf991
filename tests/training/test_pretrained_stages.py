"""A run whose second stage adapts what the first has pre-trained."""

import pytest

from helpers.assembled import assemble
from helpers.runs import read_json, train
from metarun import errors

STAGES = """
task: {name: sinusoid, shots: 5, queries: 5}
stages:
  - name: pretrain
    model: {name: mlp, hidden: [8]}
    algorithm: {name: pretrain}
    training: {steps: 8, tasks_per_step: 4}
  - name: finetune
    model: {name: mlp, hidden: [8]}
    algorithm: {name: finetune, inner_steps: 3}
    training: {steps: 1, tasks_per_step: 1}
evaluation: {episodes: 6, inner_steps: [0, 1]}
accelerator: {platform: cpu, devices: 1}
"""


@pytest.mark.slow
def test_a_run_of_two_stages_trains_and_measures_both(tmp_path):
    path = train(tmp_path / "run", STAGES.replace("inner_steps: [0, 1]", "inner_steps: []"))
    stages = read_json(path / "result.json")["stages"]
    pretrained = stages["pretrain"]["inductive"]["adapted"]["loss"]["mean"]
    assert stages["finetune"]["inductive"]["unadapted"]["loss"]["mean"] == pytest.approx(pretrained, rel=1e-5)
    assert stages["finetune"]["inductive"]["adapted"]["loss"]["mean"] != pytest.approx(pretrained, rel=1e-3)


def test_a_config_that_names_a_missing_stage_is_an_error_of_its_stage(tmp_path):
    built = assemble(tmp_path, STAGES.replace("inner_steps: 3", "pretrained: base"))
    with pytest.raises(errors.ConfigError) as raised:
        built.stage.build_algorithm()
    assert "finetune" in raised.value.where
    assert "pretrain" in raised.value.remedy
