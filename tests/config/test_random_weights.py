"""Which learners stand on a network that nothing has trained."""

from pathlib import Path

import pytest

from metarun import config
from metarun.config import random_weights

CONFIGS = Path(__file__).parents[2] / "configs"
FILE = Path(__file__).parents[1] / "backbones" / "timm.safetensors"


@pytest.mark.parametrize(
    ("name", "overrides", "stages"),
    [
        ("image_folder/lora", [], ["finetune"]),
        ("image_folder/lora", [f"model.weights={FILE}"], []),
        ("image_folder/own", [], []),
        ("feature_folder/logistic", [], ["body", "logistic"]),
        ("feature_folder/logistic", [f"task.weights={FILE}"], []),
        ("sinusoid/pretrain-finetune", [], []),
    ],
)
def test_a_learner_on_random_weights_is_known_by_its_config(name, overrides, stages):
    run_config = config.load(CONFIGS / f"{name}.yaml", overrides)
    names = [stage.name for stage in run_config.stages]
    assert [stage for stage in names if random_weights.stands_on_random_weights(run_config, stage)] == stages
    assert not random_weights.stands_on_random_weights(run_config, "logistic regression on pixels")
