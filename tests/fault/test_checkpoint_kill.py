"""kill -9 while checkpoints are saved: the newest one is whole, and it is one of those that the process has saved."""

import random
import time

from fault.share import seed, share
from helpers import attempts
from helpers.saved_states import assert_same, load, names, save
from helpers.training_states import training
from metarun.runs.checkpoints import Checkpoints


def test_after_kill_9_at_any_moment_the_newest_checkpoint_is_whole(attack, tmp_path, caplog):
    folder = tmp_path / "run" / "checkpoints" / "maml"
    start = attempts.make_start(["helpers.training_states", "metarun.runs.checkpoints"], attempts.save_on)
    moments, newest = random.Random(seed()), 0
    for index in range(share(12)):
        ready = tmp_path / f"ready-{index}"
        process = start(folder, newest, ready)
        while not ready.exists():  # the first of its saves is over
            assert process.is_alive()
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.4))  # seconds: none to ten more saves
        process.kill()
        process.join()
        attack.tries += 1
        found = Checkpoints(folder).newest_valid()
        assert found.step > newest
        assert_same(load(found, training(0)), training(found.step))
        newest = found.step
    assert caplog.records == []  # a kill leaves nothing that looks like a checkpoint and is none
    save(folder, newest + 1, keep=1)
    assert not [name for name in names(folder) if not name.isdecimal()]
