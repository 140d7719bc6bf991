"""A disk that takes no more ends a training with exit code 8, and the newest checkpoint is whole."""

import pytest

from helpers.commands import assert_three_lines, run_process
from helpers.runs import SINGLE
from metarun.runs import checkpoints

pytestmark = pytest.mark.usefixtures("own_place")


@pytest.mark.parametrize(
    "limit",
    [100, 1300, 3000],
    ids=["before the first step", "at the first words of the log", "while it trains"],
)
def test_a_disk_that_takes_no_more_exits_with_8(attack, tmp_path, limit):
    """A limit on the size of files acts as a full disk, also for what Orbax writes."""
    attack.tries += 1
    config_file = tmp_path / "small.yaml"
    config_file.write_text(SINGLE)
    cache = tmp_path / "cache"  # an entry cut short must not lie in the cache of the other tests
    said = run_process("train", config_file, "--run-dir", "run", limit=limit, METARUN_CACHE=str(cache))
    assert_three_lines(said, 8)
    newest = checkpoints.Checkpoints(tmp_path / "run/checkpoints/maml").newest_valid()
    assert newest is None or newest.step <= 24
