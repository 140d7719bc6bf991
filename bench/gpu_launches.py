"""How many kernels a step launches, counted in the text of the compiled program. Imports only Python.

Every instruction of the body of the loop over steps is one launch: a fusion, a call of a library, a copy, a sort. What
only names or reshapes memory is none. A loop within a step counts as often as it runs, and once if that is not known.
"""

import re
from typing import NamedTuple

# Instructions that launch nothing, or whose start has been counted.
SILENT = frozenset(
    [
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "add-dependency",
        "opt-barrier",
        "partition-id",
        "replica-id",
        "domain",
        "get-dimension-size",
        "copy-done",
        "async-done",
        "async-update",
        "all-reduce-done",
    ]
)
HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = .*? ([a-z][\w\-]*)\((.*)$")
CALLED = re.compile(
    r"\b(?:body|to_apply|calls|called_computations|true_computation|false_computation)=\{?%?([\w.\-]+)"
)
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Instruction(NamedTuple):
    """One line of a computation."""

    operation: str
    called: list[str]  # computations that it runs
    trips: int | None  # how often, if that is known


def count_launches(text: str) -> int | None:
    """Return the launches of one step; None: the program has no loop over steps.

    The loop over steps is the loop outside all others with the most launches in its body.
    """
    computations, entry = parse(text)
    loops = find_loops(computations, entry)
    bodies = [count_body(computations, loop.called[0]) for loop in loops]
    return max(bodies, default=None)


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Return the instructions of each computation, and the name of the first computation to run."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        if head := HEAD.match(line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif (found := INSTRUCTION.match(line)) and current:
            computations[current].append(read_instruction(found[1], found[2]))
    return computations, entry


def read_instruction(operation: str, rest: str) -> Instruction:
    """Return an instruction from its name and what follows its bracket."""
    called = CALLED.findall(rest)
    for branches in BRANCHES.findall(rest):
        called += [name.strip().lstrip("%") for name in branches.split(",")]
    trips = TRIPS.search(rest)
    return Instruction(operation, called, int(trips[1]) if trips else None)


def find_loops(computations: dict[str, list[Instruction]], name: str) -> list[Instruction]:
    """Return the loops outside all others."""
    loops = []
    for instruction in computations.get(name, []):
        if instruction.operation == "while":
            loops.append(instruction)
        elif instruction.operation in ("call", "conditional", "async-start"):
            for called in instruction.called:
                loops += find_loops(computations, called)
    return loops


def count_body(computations: dict[str, list[Instruction]], name: str) -> int:
    """Return the launches of a computation."""
    total = 0
    for instruction in computations.get(name, []):
        if instruction.operation == "while":
            total += (instruction.trips or 1) * count_body(computations, instruction.called[0])
        elif instruction.operation in ("call", "async-start"):
            total += sum(count_body(computations, called) for called in instruction.called)
        elif instruction.operation == "conditional":  # one branch runs
            total += max(count_body(computations, called) for called in instruction.called)
        else:
            total += instruction.operation not in SILENT
    return total
