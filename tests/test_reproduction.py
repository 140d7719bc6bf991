"""Published numbers, reached from the configs as they are. Minutes each: `scripts/test.sh --reproduction`."""

from pathlib import Path

import pytest

from metarun import config, experiment
from metarun.progress import Progress

CONFIGS = Path(__file__).parent.parent / "configs"
pytestmark = pytest.mark.reproduction


def train_maml(name: str, folder: Path, *overrides: str) -> dict:
    """Train a config, and return the measured values of its stage `maml`."""
    run_config = config.load(CONFIGS / name, overrides)
    result = experiment.train(run_config, folder / "run", resume=False, argv=["pytest"], progress=Progress())
    return result["stages"]["maml"]


def test_maml_on_the_sinusoid_is_below_040_after_one_step(tmp_path):
    adapted = train_maml("sinusoid/maml.yaml", tmp_path)["inductive"]["adapted"]["loss"]
    assert adapted["mean"] <= 0.40


def test_maml_on_omniglot_learns_characters_that_it_has_never_seen(tmp_path, data_root):
    overrides = ["training.steps=1000", "evaluation.every=1000"]
    stage = train_maml("omniglot/5way-1shot/maml-6000-steps.yaml", tmp_path, *overrides)
    adapted = stage["transductive"]["adapted"]["accuracy"]
    unadapted = stage["transductive"]["unadapted"]["accuracy"]
    assert adapted["mean"] - adapted["ci95"] > 0.80
    assert unadapted["mean"] + unadapted["ci95"] < 0.25
