"""What scripts/bench.py measures, and how its workers answer. Needs nothing but Python: both sides read it."""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

PICTURE = 28  # pixels a side
CLASSES, DRAWINGS = 1100, 20  # of the table of random pictures: Omniglot's training split
HIDDEN = 40  # units of both hidden layers of the sinusoid's network
INPUTS, AMPLITUDES, PHASES = (-5.0, 5.0), (0.1, 5.0), (0.0, 3.141592653589793)  # of the sinusoid
OUTER_RATE = 1e-3  # of Adam
EPSILON = 1e-3  # of batch normalisation


@dataclass(frozen=True)
class Setting:
    """One piece of second-order MAML. The queries are normalised by their own batch, as in the authors' code."""

    name: str
    tasks: int  # in one outer step
    shots: int  # support examples of each class; of the curve, without classes
    queries: int  # likewise
    inner_steps: int
    inner_rate: float
    ways: int = 0  # classes; 0 is the sinusoid
    width: int = 0  # channels of each of the four convolutions


SINUSOID = Setting("sinusoid, K=10, 25 tasks, 1 inner step", 25, 10, 10, 1, 0.01)
FIVE_WAY = Setting("5-way 1-shot, 15 queries, 32 tasks, 1 inner step", 32, 1, 15, 1, 0.4, 5, 64)
TWENTY_WAY = Setting("20-way 1-shot, 1 query, 16 tasks, 5 inner steps", 16, 1, 1, 5, 0.1, 20, 64)


def grown(quick: bool) -> list[Setting]:
    """The 5-way setting, and what becomes of it with more tasks, inner steps or shots."""
    base = replace(FIVE_WAY, tasks=8, width=16) if quick else FIVE_WAY
    settings = [base]
    settings += [replace(base, tasks=tasks) for tasks in ((32,) if quick else (8, 16, 64))]
    settings += [replace(base, inner_steps=steps) for steps in ((5,) if quick else (2, 5))]
    settings += [replace(base, shots=5)]
    return [replace(setting, name=point(setting)) for setting in settings]


def point(setting: Setting) -> str:
    """What sets this one apart from the others of `grown`."""
    return f"width {setting.width}, tasks {setting.tasks}, inner steps {setting.inner_steps}, shots {setting.shots}"


def encode(setting: Setting) -> str:
    """The setting as a worker's argument."""
    return json.dumps(asdict(setting))


def serve(prepare: Callable[[Setting], tuple[Callable[[int], None], dict[str, Any]]]) -> None:
    """A worker: says what `prepare` knows of the setting, then takes as many steps as each line of stdin asks for,
    after one that is not timed.

    Args:
      prepare: setting -> (function that takes so many steps, facts for the report).
    """
    take_steps, facts = prepare(Setting(**json.loads(sys.argv[1])))
    answer(facts)
    for line in sys.stdin:
        count = json.loads(line)
        take_steps(1)  # untimed: after the other side's turn, caches and memory are the other's
        started = time.perf_counter()
        take_steps(count)
        seconds = (time.perf_counter() - started) / count
        answer({"seconds": seconds, "memory": peak_memory()})


def answer(message: dict[str, Any]) -> None:
    """One line of JSON to the caller."""
    print(json.dumps(message), flush=True)


def peak_memory() -> int:
    """The most memory that this process has had resident, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
