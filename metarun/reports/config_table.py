"""Which keys of the configs differ, and what each run has there."""

from collections.abc import Sequence
from typing import Any

from metarun.finished.run_names import flatten, format_value
from metarun.reports.outcome_tables import Table

ABSENT = "—"


def compare_configs(names: Sequence[str], documents: Sequence[dict[str, Any]]) -> Table:
    """Return a line for each key in which the configs differ, with a column for each run."""
    flat = [{key: format_value(value) for key, value in flatten(document).items()} for document in documents]
    keys = dict.fromkeys(key for values in flat for key in values)
    rows = [[key, *(values.get(key, ABSENT) for values in flat)] for key in keys]
    return Table(["key", *names], [row for row in rows if len(set(row[1:])) > 1])
