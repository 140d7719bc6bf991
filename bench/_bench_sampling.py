"""The `--sampling` part of bench/bench.py: what drawing a step's tasks costs beside the whole training step.

It asks _bench_sampling_worker.py, in a process of its own for each config, and lays out the answers.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
CONFIGS = BENCH.parent / "configs"
LIMIT = 0.1  # the share of a training step above which the sampling takes too long
HEADER = ("config", "stage", "tasks", "step ms", "sampling ms", "share", f"at most {LIMIT:.0%}")


def list_default_configs() -> list[list[Path]]:
    """Return the configs of every task family by name. The first whose data is there is measured."""
    return [list_family_configs(folder) for folder in sorted(CONFIGS.iterdir()) if folder.is_dir()]


def list_family_configs(folder: Path) -> list[Path]:
    """Return the configs in a folder and its subfolders, without base files."""
    paths = [path for path in folder.rglob("*.yaml") if not path.stem.startswith("base")]
    return sorted(paths, key=lambda path: path.name)


def measure_configs(configs: list[Path], environment: dict[str, str] | None) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table, each config in a process of its own, and say on stderr what is left out.

    Args:
      configs: empty: the first config of every task family whose data is there.
    """
    for candidates in [[path] for path in configs] or list_default_configs():
        for path in candidates:
            answer = run_worker(path, environment)
            if "left_out" in answer:
                print(f"{path} is left out: {answer['left_out']}", file=sys.stderr)
                continue
            yield from (make_line(path, row) for row in answer["rows"])
            break


def run_worker(path: Path, environment: dict[str, str] | None) -> dict[str, Any]:
    """Return what a process of its own answers for the config."""
    print(f"measuring {path}", file=sys.stderr)
    command = [sys.executable, str(BENCH / "_bench_sampling_worker.py"), str(path)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if finished.returncode:
        raise SystemExit(finished.returncode)  # it has said why on stderr
    answer: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return answer


def make_line(path: Path, row: dict[str, Any]) -> tuple[str, ...]:
    """Return the row of one stage as a line of the table."""
    share = row["sampling"] / row["step"]
    return (
        f"{path.parent.name}/{path.stem}",
        row["stage"],
        f"{row['tasks']}",
        f"{1000 * row['step']:.3g}",
        f"{1000 * row['sampling']:.3g}",
        f"{share:.1%}",
        "yes" if share <= LIMIT else "NO",
    )
