"""Pictures a second of `Backbone.extract` beside the same network in PyTorch, on the same cores, in turns.

    python bench/bench_features.py [--networks vit_s14 resnet18] [--batch 16] [--rounds 8] [--json FILE]

Both sides have random weights, which take as long as trained ones, and all cores; each lives in a process of its own,
which is idle while the other computes. The first two batches of each are not counted: they compile, and fill caches.
metarun's batch begins and ends as a numpy array. As in its commands, each core is a device and has large pages. torch
has an environment of its own: see bench/bench.py, whose --install-torch makes it. Without torch, metarun is timed
alone.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from metarun.large_pages import add_large_pages

BENCH = Path(__file__).parent
SIDE = 224  # pixels
UNCOUNTED = 2  # batches


class Side:
    """A process that answers each line with the seconds of one batch."""

    def __init__(self, command: list[str], paths: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | paths
        )

    def take_turn(self) -> float:
        """Return the seconds of one batch.

        Raises:
          SystemExit: the process has ended; what it said stands on the standard error.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.process.args!r} has ended")
        return float(answer)

    def end(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def start_sides(network: str, batch: int) -> dict[str, Side]:
    """Start metarun, and torch if it is there."""
    sizes = [network, str(batch), str(SIDE)]
    checkout = add_large_pages({"PYTHONPATH": str(BENCH.parent)})
    sides = {"metarun": Side([sys.executable, str(BENCH / "_bench_features_worker.py"), *sizes], checkout)}
    python = os.environ.get("METARUN_TORCH_PYTHON") or str(BENCH.parent / ".venv-torch" / "bin" / "python")
    if Path(python).exists():
        sides["torch"] = Side([python, str(BENCH / "_bench_features_torch.py"), *sizes], {})
    else:
        print(f"no torch: {python} is not there", file=sys.stderr)
    return sides


def measure(network: str, batch: int, rounds: int) -> dict[str, Any]:
    """Return the medians of pictures a second, and the quotient of the two."""
    sides = start_sides(network, batch)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + UNCOUNTED):
        for name, side in sides.items():
            taken = side.take_turn()
            if turn >= UNCOUNTED:
                seconds[name].append(taken)
    for side in sides.values():
        side.end()
    row: dict[str, Any] = {"network": network, "batch": batch, "rounds": rounds}
    row |= {name: round(batch / statistics.median(values), 2) for name, values in seconds.items()}
    if "torch" in seconds:
        pairs = zip(seconds["torch"], seconds["metarun"], strict=True)
        row["quotient"] = round(statistics.median(theirs / ours for theirs, ours in pairs), 3)
    return row


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=["vit_s14", "resnet18"])
    parser.add_argument("--batch", type=int, default=16, help="pictures at once")
    parser.add_argument("--rounds", type=int, default=8, help="batches of each side that are counted")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    rows = []
    for network in arguments.networks:
        rows.append(measure(network, arguments.batch, arguments.rounds))
        print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
