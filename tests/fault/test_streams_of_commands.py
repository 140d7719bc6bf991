"""The commands that take long, with an output that cannot be written; see `tests/cli/test_every_stream.py`."""

import shutil

import pytest

from fault.share import share
from helpers import failing_streams
from helpers.runs import SINGLE

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")
CONFIG = SINGLE + "seed: 3\n"


def test_a_command_on_a_finished_run_whose_output_cannot_be_written_ends_with_8(
    attack, tmp_path, capsys, single
):
    (tmp_path / "small.yaml").write_text(CONFIG)
    other = shutil.copytree(single, tmp_path / "other")
    commands: list[list[object]] = [
        ["schema"],
        ["doctor"],
        ["eval", single],
        ["online", single],
        ["compare", single, other],
        ["report", single, "--out", tmp_path / "report.html"],
        ["export", single, "--out", tmp_path / "learner.metarun"],
        ["train", "small.yaml"],
        ["train", "small.yaml", "--dry-run"],
        ["sweep", "small.yaml", "training.steps=4,8", "--dry-run"],
        ["sync", single, "--to", "tensorboard", "--dir", tmp_path / "logs"],
        ["list", "--markdown"],
    ]
    ways = failing_streams.WAYS if share(1) > 1 else ("full", "broken")
    for way in ways:
        for command in commands:
            attack.tries += 1
            if fault := failing_streams.find_fault(command, way, capsys):
                attack.fail(fault)
