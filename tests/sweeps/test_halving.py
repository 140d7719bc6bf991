"""The rungs of successive halving."""

import pytest

from helpers import sweeps
from metarun.sweeps import halving


@pytest.mark.parametrize(
    ("count", "factor", "rungs"),
    [
        (9, 3, [(9, 9), (3, 3), (1, 1)]),
        (8, 3, [(8, 9), (3, 3), (1, 1)]),
        (4, 3, [(4, 3), (2, 1)]),
        (2, 3, [(2, 1)]),
        (5, 2, [(5, 8), (3, 4), (2, 2), (1, 1)]),
        (7, None, [(7, 1)]),
    ],
)
def test_each_rung_keeps_one_of_k_and_has_k_times_the_steps(count, factor, rungs):
    assert [tuple(rung) for rung in halving.list_rungs(count, factor)] == rungs


def test_every_stage_has_its_share_of_the_steps_rounded_up(tmp_path):
    stage = "{name: NAME, model: {name: mlp}, algorithm: {name: maml}, training: {steps: STEPS}}"
    stages = [
        stage.replace("NAME", name).replace("STEPS", steps) for name, steps in (("a", "10"), ("b", "1"))
    ]
    file = sweeps.write_base(tmp_path, f"task: {{name: sinusoid}}\nstages: [{', '.join(stages)}]\n")
    asked = sweeps.request.read(file, ["seed=0..1"])
    assert halving.scale_steps(asked.base, 3) == ["stages.0.training.steps=4", "stages.1.training.steps=1"]
    assert halving.scale_steps(sweeps.ask(tmp_path, "seed=0..1").base, 1) == []
    assert halving.scale_steps(sweeps.ask(tmp_path, "seed=0..1").base, 9) == ["training.steps=3"]
