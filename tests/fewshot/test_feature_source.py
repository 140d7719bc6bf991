"""Where features come from: a run on features may be told where its file of weights lies now."""

from pathlib import Path

import pytest

from metarun import config, errors
from metarun.fewshot import feature_source
from metarun.finished import moved_weights
from metarun.finished.finished_run import FinishedRun

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def loaded(monkeypatch):
    """The overrides that runs are loaded with; a run is named after its config."""
    given: list[list[str]] = []

    def find_run(path):
        return FinishedRun(path, None, config.load(CONFIGS / f"{path}.yaml", ["task.folder=photos"]), None)

    def load(path, *, stage, overrides):
        given.append(overrides)
        raise errors.CheckpointError("this run is its config alone", str(path), "train it")

    monkeypatch.setattr(moved_weights, "find_run", find_run)
    monkeypatch.setattr(feature_source.prediction, "load", load)
    return given


def test_a_run_on_features_takes_the_place_of_its_file_of_weights(loaded):
    for weights in (None, Path("a b/net.safetensors")):
        with pytest.raises(errors.CheckpointError):
            feature_source.choose(weights, Path("feature_folder/protonet"))
    assert loaded[0] == []
    before, after = (
        config.load(CONFIGS / "feature_folder/protonet.yaml", ["task.folder=photos", *overrides])
        for overrides in loaded
    )
    assert (before.task.config.weights, after.task.config.weights) == (
        None,
        str(Path("a b/net.safetensors").absolute()),
    )


def test_a_run_whose_checkpoints_have_the_network_takes_no_file_of_weights(loaded):
    with pytest.raises(errors.UsageError, match="in its checkpoints") as refused:
        feature_source.choose(Path("net.safetensors"), Path("image_folder/own"))
    assert refused.value.remedy == "leave --weights out, or name a run on features"
    assert not loaded
