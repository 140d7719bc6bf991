"""Published numbers, reached from the configs as they are. Minutes each: `scripts/test.sh --reproduction`."""

from pathlib import Path

import pytest

from metarun import config, experiment
from metarun.progress import Progress

CONFIGS = Path(__file__).parent.parent / "configs"
pytestmark = pytest.mark.reproduction


def result_of(name: str, folder: Path, *overrides: str) -> dict:
    run_config = config.load(CONFIGS / name, overrides)
    outcome = experiment.train(run_config, folder / "run", resume=False, argv=["pytest"], progress=Progress())
    return outcome.result["stages"]["maml"]


def test_maml_on_the_sinusoid_is_below_040_after_one_step(tmp_path):
    adapted = result_of("sinusoid/maml.yaml", tmp_path)["inductive"]["adapted"]["loss"]
    assert adapted["mean"] <= 0.40


def test_maml_on_omniglot_learns_characters_that_it_has_never_seen(tmp_path, data_root):
    overrides = ["training.steps=1000", "evaluation.every=1000"]
    stage = result_of("omniglot/maml-5way-1shot-cpu.yaml", tmp_path, *overrides)
    adapted = stage["transductive"]["adapted"]["accuracy"]
    unadapted = stage["transductive"]["unadapted"]["accuracy"]
    assert adapted["mean"] - adapted["ci95"] > 0.80
    assert unadapted["mean"] + unadapted["ci95"] < 0.25
