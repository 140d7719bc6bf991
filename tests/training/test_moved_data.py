"""A run goes on where its data lie now: with the same pictures alone."""

import pytest

from helpers import photographs, runs
from helpers.runs import read_json
from metarun import config, errors

RUN = """
task: {name: image_folder, folder: FOLDER, size: 8, ways: 2, queries: 1, counts: [2, 0, 2]}
model: {name: affine}
algorithm: {name: maml, inner_steps: 1, inner_lr: 0.1}
training: {steps: 1, tasks_per_step: 1}
evaluation: {episodes: 2}
accelerator: {platform: cpu, devices: 1}
"""


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_pictures_in_another_place_and_with_no_others(tmp_path, metarun_):
    here, there, other = (tmp_path / name for name in ("here", "there", "other"))
    photographs.write_classes(here, dict.fromkeys(photographs.COLOURS, 2))
    run = runs.train(tmp_path / "run", RUN.replace("FOLDER", str(here)))
    before = read_json(run / "result.json")["episodes"]
    here.rename(there)
    photographs.write_classes(other, dict.fromkeys(photographs.COLOURS, 2), first=9)
    refused = metarun_("train", run, "--resume", f"task.folder={other}")
    assert refused.code == errors.DataError.exit_code and "their fingerprint differs" in refused.err[-3]
    assert config.load(run / "config.yaml").task.config.folder == str(here)  # the mistake leaves no trace
    assert metarun_("train", run, "--resume", f"task.folder={there}").code == 0
    assert config.load(run / "config.yaml").task.config.folder == str(there)
    assert read_json(run / "result.json")["episodes"] == before
    longer = metarun_("train", run, "--extend", "training.steps=2", f"task.folder={there}", "--dry-run")
    assert longer.code == 0, longer.err
