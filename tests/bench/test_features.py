"""bench/bench_features.py: how the sides take turns. Nothing is timed here."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
for index, _ in enumerate(sys.stdin):
    print({seconds} if index > 1 else 1000.0, flush=True)
"""


@pytest.fixture(autouse=True)
def bench_folder(monkeypatch):
    """Let a test import the files of bench/, which is no package."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])


def test_the_quotient_is_of_pictures_a_second_and_the_first_batches_do_not_count(monkeypatch):
    import bench_features

    def start_sides(network, batch):
        texts = {"metarun": WORKER.format(seconds=2.0), "torch": WORKER.format(seconds=1.0)}
        return {name: bench_features.Side([sys.executable, "-c", text], {}) for name, text in texts.items()}

    monkeypatch.setattr(bench_features, "start_sides", start_sides)
    row = bench_features.measure("any", batch=4, rounds=3)
    assert (row["metarun"], row["torch"], row["quotient"]) == (2.0, 4.0, 0.5)


def test_a_side_that_ends_is_said():
    import bench_features

    side = bench_features.Side([sys.executable, "-c", ""], {})
    with pytest.raises(SystemExit, match="has ended"):
        side.process.wait()
        side.take_turn()
