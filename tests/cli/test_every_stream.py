"""Every command ends with 8 where its output cannot be written, and does its work where its error stream is gone."""

import pytest

from helpers import failing_streams
from helpers.runs import SINGLE

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")


@pytest.mark.parametrize("way", ["full", "broken"])  # test_streams closes it
def test_a_command_whose_output_cannot_be_written_ends_with_8(tmp_path, capsys, single, way):
    (tmp_path / "small.yaml").write_text(SINGLE)
    commands: list[list[object]] = [
        ["list"],
        ["list", "configs"],
        ["data", "list"],
        ["runs", single.parent],
        ["init", "sinusoid/maml", "--to", tmp_path / f"{way}.yaml"],
        ["train", "small.yaml", "--print-config"],
        ["train", "--help"],
        ["--version"],
    ]
    assert [
        fault for command in commands if (fault := failing_streams.find_fault(command, way, capsys))
    ] == []


def test_an_error_stream_that_is_gone_changes_nothing_of_a_training(tmp_path):
    (tmp_path / "small.yaml").write_text(SINGLE)
    with failing_streams.replace("stderr", "broken"):
        command: list[object] = [
            "train",
            "small.yaml",
            "--run-dir",
            "run",
            "training.steps=4",
            "evaluation.every=null",
        ]
        assert failing_streams.run(command) == 0
    assert (tmp_path / "run" / "result.json").exists()
