"""How much an attacker tries, and with which numbers.

METARUN_FAULT_LONG=1, which `scripts/test.sh --fault --long` sets, tries twenty times as much. METARUN_FAULT_SEED is the
seed of all attackers, 0 by default: with another one they try other things.
"""

import os

LONG = 20  # the long suite tries so many times as much


def share(tries: int) -> int:
    """Return how often an attacker tries what the short suite tries so often."""
    return tries * LONG if os.environ.get("METARUN_FAULT_LONG") == "1" else tries


def seed() -> int:
    """Return the seed of the attackers; each adds a number of its own."""
    return int(os.environ.get("METARUN_FAULT_SEED", "0"))
