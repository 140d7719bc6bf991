"""kill -9 at any moment of a sweep costs nothing but time: the ranking is that of an undisturbed one, byte for byte.

METARUN_SWEEP_KILLS says how many kills there are in all; without it the share does.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fault.share import seed as fault_seed
from fault.share import share
from helpers import processes, sweeps
from helpers.sweeps import RATE
from metarun.sweeps.sweep_directory import RANKING

KILLS = int(os.environ.get("METARUN_SWEEP_KILLS") or share(4))


def start(folder: Path, name: str, *options: str) -> subprocess.Popen:
    arguments = ["base.yaml", f"{RATE}=log(1e-3,1e-1,3)", "checkpoint.every=4", "--sweep-dir", name, *options]
    with (folder / f"{name}.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "metarun", "sweep", *arguments],
            cwd=folder,
            env=processes.environment(),
            stdout=log,
            stderr=log,
        )


@pytest.mark.parametrize(
    ("options", "seed"),
    [(("model.hidden=[8],[4]", "seed=0..1", "--halve", "3"), 0), (("--search", "tpe", "--trials", "4"), 1)],
    ids=["grid with halving", "tpe"],
)
def test_a_sweep_killed_at_any_moment_ends_with_the_undisturbed_ranking(tmp_path, attack, options, seed):
    if "tpe" in options:
        pytest.importorskip("optuna", reason="the extra `search` is not installed")
    sweeps.write_base(tmp_path)
    began = time.monotonic()
    assert start(tmp_path, "reference", *options).wait() == 0, (tmp_path / "reference.txt").read_text()
    life = time.monotonic() - began
    delays, delivered = random.Random(fault_seed() + seed), 0
    while delivered < -(-KILLS // 2):
        process = start(tmp_path, "killed", *options)
        try:
            process.wait(delays.uniform(0, life / 2))
            if delivered:
                break  # it came to its end before the kill
            # Compiled programs are in the cache by now: it takes less long.
            shutil.rmtree(tmp_path / "killed")
            (tmp_path / "killed.txt").unlink()
            life /= 2
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            delivered += 1
            attack.tries += 1
    assert start(tmp_path, "killed", *options).wait() == 0, (tmp_path / "killed.txt").read_text()
    assert delivered > 0
    assert (tmp_path / "killed" / RANKING).read_bytes() == (tmp_path / "reference" / RANKING).read_bytes()
    # Each program is trained to its end once.
    ended = (tmp_path / "killed.txt").read_text().count(": done after")
    assert ended <= len(list((tmp_path / "killed" / "programs").iterdir()))
