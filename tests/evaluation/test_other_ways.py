"""A run that is trained in some ways and shots, and validated and tested in others."""

import numpy as np
import pytest

from helpers import builders
from helpers.runs import evaluate, read_json, train
from metarun import errors
from metarun.runs import metrics

OWN_WAYS = """
task: {{name: image_folder, folder: {folder}, size: 8, ways: 6, shots: 2, queries: 3, counts: [18, 6, 6]}}
model: {{name: conv4, width: 4, depth: 2}}
algorithm: {{name: {name}}}
training: {{steps: 4, tasks_per_step: 2, chunk: 2}}
evaluation: {{every: 2, episodes: 6, ways: 3, shots: 1, queries: 2}}
accelerator: {{platform: cpu, devices: 1}}
"""


@pytest.mark.slow
def test_a_run_trains_in_its_own_ways_and_shots_and_is_validated_and_tested_in_others(tmp_path):
    path = train(
        tmp_path / "run",
        OWN_WAYS.format(folder=builders.example_config("image_folder").folder, name="protonet"),
    )
    rows = metrics.read(path / "metrics.jsonl")
    shares = {
        split: [row["accuracy"] for row in rows if row["split"] == split] for split in ("train", "validation")
    }
    for split, pictures in {"train": 2 * 6 * 3, "validation": 6 * 3 * 2}.items():  # of a step, of the list
        assert len(shares[split]) == {"train": 4, "validation": 2}[split]
        counts = np.array(shares[split]) * pictures
        np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    again = evaluate(path)
    assert again["stages"] == read_json(path / "result.json")["stages"]
    wider = evaluate(path, "evaluation.ways=5")
    assert wider["episodes"]["hash"] != again["episodes"]["hash"]
    assert 0 <= wider["stages"]["protonet"]["inductive"]["adapted"]["accuracy"]["mean"] <= 1


def test_a_run_with_an_output_a_way_is_refused_in_other_ways_before_its_first_step(tmp_path):
    with pytest.raises(errors.ConfigError, match="6 outputs and cannot tell 3 classes") as raised:
        train(
            tmp_path / "run",
            OWN_WAYS.format(folder=builders.example_config("image_folder").folder, name="maml"),
        )
    assert raised.value.where == "evaluation.ways"
    assert not (tmp_path / "run").exists()  # nothing was begun
