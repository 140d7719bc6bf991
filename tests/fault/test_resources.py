"""Memory, threads and open files of a long run: they stay where they are after its first part."""

import os
import threading
from pathlib import Path

import pytest

from fault.share import share
from helpers.runs import SINGLE, STAGE, train
from metarun.progress import Progress

STEPS = share(10_000)
PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes, as /proc counts
LEAST = 24 * 2**20  # bytes that the memory may grow by: allocators keep what they have once held
EACH_STAGE = 12 * 2**20  # bytes that the programs of a further stage may take


def measure() -> tuple[int, int, int]:
    """Return the bytes in memory, the threads and the open files of this process."""
    held = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    return held, threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


class Watch(Progress):
    """Keep what the process holds after each chunk, and at the end of each stage."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, ...]] = []
        self.stages: list[tuple[int, ...]] = []

    def advanced(self, stage, step, count, seconds, metrics) -> None:
        self.chunks.append((step, *measure()))

    def stage_ended(self, stage) -> None:
        self.stages.append(measure())


def test_a_long_training_holds_no_more_at_its_end_than_after_a_quarter(tmp_path, attack):
    watch = Watch()
    overrides = (
        f"training.steps={STEPS}",
        "training.chunk=100",
        "evaluation.every=2000",
        "checkpoint.every=1000",
    )
    train(tmp_path / "run", SINGLE, *overrides, progress=watch, fresh=True)
    attack.tries += len(watch.chunks)
    quarter = next(chunk for chunk in watch.chunks if chunk[0] >= STEPS // 4)
    rest = [chunk for chunk in watch.chunks if chunk[0] >= STEPS // 4]
    grown = rest[-1][1] - quarter[1]
    print(
        f"{STEPS:,} steps: {grown / 2**20:.1f} MiB more than after a quarter, {rest[-1][1] / 2**20:.0f} in all"
    )
    if grown > LEAST:
        attack.fail(f"the memory has grown by {grown:,} bytes")
    for name, place in (("threads", 2), ("open files", 3)):
        if rest[-1][place] > max(chunk[place] for chunk in rest[: len(rest) // 3]):
            attack.fail(f"{name}: {quarter[place]} became {rest[-1][place]}")


@pytest.mark.parametrize("count", [20])
def test_many_stages_leave_no_thread_and_no_file_open(tmp_path, attack, count):
    watch = Watch()
    stages = ", ".join(STAGE.format(f"stage{place}") for place in range(count))
    text = SINGLE[: SINGLE.index("model:")] + f"stages: [{stages}]\n" + SINGLE[SINGLE.index("evaluation:") :]
    train(tmp_path / "run", text, "evaluation.every=null", progress=watch, fresh=True)
    attack.tries += len(watch.stages)
    (first, threads, files), (last, last_threads, last_files) = watch.stages[2], watch.stages[-1]
    grown = (last - first) / (count - 3)
    print(f"{count} stages: {grown / 2**20:.2f} MiB each")
    if grown > EACH_STAGE:
        attack.fail(f"a stage leaves {grown:,.0f} bytes")
    if last_threads > threads or last_files > files:
        attack.fail(f"threads {threads} -> {last_threads}, open files {files} -> {last_files}")
