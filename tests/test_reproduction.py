"""Published numbers, reached from the configs as they are. Minutes each: `scripts/test.sh --reproduction`."""

import re
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


def read_row(name: str) -> tuple[float, float]:
    """Return the mean and the half interval of a method in the first table of docs/results.md."""
    text = (CONFIGS.parent / "docs" / "results.md").read_text().partition("<!-- results: begin -->")[2]
    mean, half = re.findall(rf"^\| \d+ \| {name} \| 3 \| ([0-9.]+) ± ([0-9.]+) ", text, re.MULTILINE)[0]
    return float(mean), float(half)


@pytest.mark.parametrize("name", ["maml", "fomaml", "anil"])
def test_a_seed_of_its_own_is_within_the_intervals_of_its_row_in_the_table(tmp_path, name):
    run_config = config.load(CONFIGS / f"sinusoid/{name}.yaml", ["seed=11"])
    result = experiment.train(
        run_config, tmp_path / "run", resume=False, argv=["pytest"], progress=Progress()
    )
    (stage,) = result["stages"].values()
    loss, (mean, half) = stage["inductive"]["adapted"]["loss"], read_row(name)
    assert abs(loss["mean"] - mean) <= loss["ci95"] + half


def test_maml_on_omniglot_learns_characters_that_it_has_never_seen(tmp_path, data_root):
    overrides = ["training.steps=1000", "evaluation.every=1000"]
    stage = train_maml("omniglot/5way-1shot/maml-6000-steps.yaml", tmp_path, *overrides)
    adapted = stage["transductive"]["adapted"]["accuracy"]
    unadapted = stage["transductive"]["unadapted"]["accuracy"]
    assert adapted["mean"] - adapted["ci95"] > 0.80
    assert unadapted["mean"] + unadapted["ci95"] < 0.25


def test_every_trial_ends_where_the_single_run_with_its_values_does(tmp_path):
    """Sums of another order part after some hundred steps; the intervals at the end overlap all the same."""
    rates, seeds, steps = (0.0005, 0.001, 0.002), (0, 1, 2), "training.steps=5000"
    trials = (
        f"trials={{seeds: {list(seeds)}, "
        f"numbers: [{{path: training.optimizer.learning_rate, values: {list(rates)}}}]}}"
    )
    together = train_maml("sinusoid/maml.yaml", tmp_path / "trials", steps, "replicas=3", trials)
    ends = together["inductive"]["adapted"]["loss"]["seeds"]["values"]
    for end, rate, seed in zip(ends, rates, seeds, strict=True):
        overrides = [steps, f"training.optimizer.learning_rate={rate}", f"seed={seed}"]
        alone = train_maml("sinusoid/maml.yaml", tmp_path / str(seed), *overrides)
        loss = alone["inductive"]["adapted"]["loss"]
        assert abs(end - loss["mean"]) < 2 * loss["ci95"]
    assert len(set(ends)) == 3
