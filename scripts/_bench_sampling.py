"""The `--sampling` part of scripts/bench.py: what drawing a step's tasks costs beside the whole training step.

It asks _bench_sampling_worker.py, in a process of its own for each config, and lays out the answers.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent
CONFIGS = SCRIPTS.parent / "configs"
LIMIT = 0.1  # of a training step: more is too much
HEADER = ("config", "stage", "tasks", "step ms", "sampling ms", "share", f"at most {LIMIT:.0%}")


def default_configs() -> list[list[Path]]:
    """The configs of every task family, of which the first whose data is there is measured."""
    return [sorted(folder.glob("*.yaml")) for folder in sorted(CONFIGS.iterdir()) if folder.is_dir()]


def report(given: list[Path], environment: dict[str, str] | None) -> Iterator[tuple[str, ...]]:
    """The lines of the table, each config in a process of its own; what is left out is said on stderr."""
    for choices in [[path] for path in given] or default_configs():
        for path in choices:
            answer = ask(path, environment)
            if "left_out" in answer:
                print(f"{path} is left out: {answer['left_out']}", file=sys.stderr)
                continue
            yield from (line(path, row) for row in answer["rows"])
            break


def ask(path: Path, environment: dict[str, str] | None) -> dict[str, Any]:
    """What a process of its own says of the config."""
    print(f"measuring {path}", file=sys.stderr)
    command = [sys.executable, str(SCRIPTS / "_bench_sampling_worker.py"), str(path)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if finished.returncode:
        raise SystemExit(finished.returncode)  # it has said why on stderr
    return json.loads(finished.stdout.splitlines()[-1])


def line(path: Path, row: dict[str, Any]) -> tuple[str, ...]:
    """The row of one stage as a line of the table."""
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
