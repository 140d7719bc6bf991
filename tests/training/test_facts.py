"""What a checkpoint records beside the state: of the right type, or it is refused."""

from pathlib import Path

import pytest

from metarun import errors
from metarun.runs.manifest import Checkpoint
from metarun.training import facts
from metarun.training.facts import Facts

WHOLE = Facts(7, 0.25, 2.5, 1000, 400, "ab", True, ((0, 3), (2, 5)), True)


def make_checkpoint(**changes):
    content = facts.write_facts(WHOLE) | {"diverged": [[0, 3], [2, 5]]} | changes
    return Checkpoint(Path("run/checkpoints/maml/7"), "maml", 7, False, content, {}, {})


def test_facts_come_back_as_they_were_written():
    assert facts.read_facts(make_checkpoint()) == WHOLE
    assert facts.read_facts(make_checkpoint(best="-inf")).best == -float("inf")
    assert facts.read_facts(make_checkpoint(best=None, step_flops=None)).best is None


@pytest.mark.parametrize(
    "changes",
    [
        {"best": "x"},
        {"best": True},
        {"best": [1]},
        {"step": 8},
        {"step": "7"},
        {"seconds": None},
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"metrics_bytes": -1},
        {"metrics_bytes": 1.5},
        {"metrics_sha256": 0},
        {"flops_at_least": 1},
        {"diverged": [1, 2]},
        {"diverged": [[1]]},
        {"diverged": {"0": 3}},
        {"other": 1},
    ],
    ids=str,
)
def test_facts_of_another_type_are_a_checkpoint_error(changes):
    with pytest.raises(errors.CheckpointError, match="records other facts") as raised:
        facts.read_facts(make_checkpoint(**changes))
    assert raised.value.where == str(Path("run/checkpoints/maml/7"))
