"""A stage without a `training` section, from its file to the answers to somebody's own points."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_place")]

CONFIG = """
task: {name: sinusoid, shots: 5, queries: 5}
stages:
  - {name: pretrain, model: MODEL, algorithm: {name: pretrain}, training: {steps: 4, tasks_per_step: 2}}
  - {name: tuned, model: MODEL, algorithm: {name: finetune, pretrained: pretrain, inner_steps: 2}}
evaluation: {episodes: 4}
accelerator: {platform: cpu}
""".replace("MODEL", "{name: mlp, hidden: [4]}")


def test_a_stage_without_training_is_measured_and_answers(metarun_, tmp_path):
    (tmp_path / "own.yaml").write_text(CONFIG)
    assert metarun_("train", "own.yaml", "--run-dir", "run").code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert list(result["stages"]) == ["pretrain", "tuned"]
    own = result["costs"]["tuned"]["own"]
    assert (own["steps"], own["parameters"]) == (1, 0)
    measured = metarun_("eval", "run", "--stage", "tuned", "--json")
    assert measured.code == 0
    again = json.loads("\n".join(measured.out))["stages"]["tuned"]
    assert again["inductive"]["adapted"] == result["stages"]["tuned"]["inductive"]["adapted"]
    (tmp_path / "support.csv").write_text("".join(f"{x},{2 * x}\n" for x in (-2, -1, 0, 1, 2)))
    (tmp_path / "query.csv").write_text("0.5\n1.5\n")
    said = metarun_("predict", "run", "--support", "support.csv", "--query", "query.csv", "--json")
    assert said.code == 0
    assert len(json.loads(said.out[0])["predictions"]) == 2
