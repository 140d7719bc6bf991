"""Everything in this folder is marked `fault`: it runs by `scripts/test.sh --fault` and not in the default suite.

The fixture `attack` counts tries and failures; see `helpers.attacks`.
"""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
# The attackers that take longest, longest first: they begin first, so that no process ends the suite alone.
SLOW = (
    "kill",
    "together",
    "storage",
    "damaged_runs",
    "sweep_kill",
    "signals",
    "environments",
    "streams_of_commands",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.fault)
    items.sort(key=find_place)  # a stable sort: the order within a file stays


def find_place(item: pytest.Item) -> int:
    """Return the place of a test: those of the slow attackers first, and what is no attacker where it was."""
    name = item.path.stem.removeprefix("test_")
    return SLOW.index(name) if item.path.is_relative_to(HERE) and name in SLOW else len(SLOW)
