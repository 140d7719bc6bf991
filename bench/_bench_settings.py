"""The settings that bench/bench.py measures, and how its workers answer. Imports only Python: both sides read it."""

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
    """One setting of second-order MAML. The queries are normalised by their own batch, as in the authors' code."""

    name: str
    tasks: int  # in one outer step
    shots: int  # support examples of each class, or of the curve if there are no classes
    queries: int  # query examples, counted in the same way
    inner_steps: int
    inner_rate: float
    ways: int = 0  # classes; 0 is the sinusoid
    width: int = 0  # channels of each of the four convolutions


SINUSOID = Setting("sinusoid, K=10, 25 tasks, 1 inner step", 25, 10, 10, 1, 0.01)
FIVE_WAY = Setting("5-way 1-shot, 15 queries, 32 tasks, 1 inner step", 32, 1, 15, 1, 0.4, 5, 64)
TWENTY_WAY = Setting("20-way 1-shot, 1 query, 16 tasks, 5 inner steps", 16, 1, 1, 5, 0.1, 20, 64)


def make_growth(quick: bool) -> list[Setting]:
    """Return the 5-way setting, and the same with more tasks, inner steps or shots."""
    base = replace(FIVE_WAY, tasks=8, width=16) if quick else FIVE_WAY
    settings = [base]
    settings += [replace(base, tasks=tasks) for tasks in ((32,) if quick else (8, 16, 64))]
    settings += [replace(base, inner_steps=steps) for steps in ((5,) if quick else (2, 5))]
    settings += [replace(base, shots=5)]
    return [replace(setting, name=name_point(setting)) for setting in settings]


def name_point(setting: Setting) -> str:
    """Return a name that sets this setting apart from the others of `make_growth`."""
    return f"width {setting.width}, tasks {setting.tasks}, inner steps {setting.inner_steps}, shots {setting.shots}"


def encode(setting: Setting) -> str:
    """Return the setting as a worker's argument."""
    return json.dumps(asdict(setting))


def serve(prepare: Callable[[Setting], tuple[Callable[[int], None], dict[str, Any]]]) -> None:
    """Serve as a worker: print the facts of the setting, then take as many steps as each line of stdin asks for.

    Args:
      prepare: setting -> (function that takes a number of steps, facts for the report).
    """
    take_steps, facts = prepare(Setting(**json.loads(sys.argv[1])))
    print_answer(facts)
    for line in sys.stdin:
        count = json.loads(line)
        take_steps(1)  # not timed: the other side has just used the caches and the memory
        started = time.perf_counter()
        take_steps(count)
        seconds = (time.perf_counter() - started) / count
        print_answer({"seconds": seconds, "memory": read_peak_memory()})


def print_answer(message: dict[str, Any]) -> None:
    """Send one line of JSON to the caller."""
    print(json.dumps(message), flush=True)


def read_peak_memory() -> int:
    """Return the most memory that this process has had resident, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
