"""Lines of metrics.jsonl as columns: equal to the dicts that they stand for, and much smaller."""

import json
import math
import tracemalloc

import numpy as np
import pytest

from metarun.runs import metric_rows, metrics

LINES = [
    {"stage": "a", "replica": replica, "split": "train", "step": step, "loss": loss, "gradient_norm": norm}
    for step, (loss, norm) in enumerate([(0.5, 1), ("nan", 2.5), (0.25, "inf"), (2**70, None)])
    for replica in (0, 1)
]
LINES.insert(
    3, {"stage": "a", "replica": 1, "split": "validation", "step": 1, "mode": "inductive", "loss": 0.75}
)
LINES.insert(6, {"stage": "b", "split": "speed", "step": 2, "seconds": 0, "memory": 2**40, "flag": True})
LINES.append({"stage": "b", "split": "speed", "step": 3, "seconds": 1.5, "memory": "much", "flag": [1]})
ROWS = metric_rows.make_rows(LINES)


def test_rows_are_the_lines():
    assert ROWS == LINES
    assert [type(row["step"]) for row in ROWS] == [int] * len(LINES)
    assert ROWS[-1] == LINES[-1] and ROWS[2:5] == LINES[2:5]
    assert metric_rows.make_rows(ROWS) is ROWS


@pytest.mark.parametrize(
    "values", [{"split": "train"}, {"stage": "a", "replica": 1}, {"step": 2}, {"mode": "none"}]
)
def test_rows_are_chosen_by_their_values(values):
    chosen = [all(key in row and row[key] == value for key, value in values.items()) for row in LINES]
    assert ROWS.where(**values) == [row for row, flag in zip(LINES, chosen, strict=True) if flag]
    assert len(ROWS.where(**values)) < len(LINES)


def test_columns_are_those_of_the_lines():
    names = list(dict.fromkeys(name for row in LINES for name in row))
    assert ROWS.list_names() == names
    for name in names:
        assert ROWS.list_values(name) == [row.get(name) for row in LINES]
        assert ROWS.having(name) == [row for row in LINES if name in row]
        numbers = [metric_rows.to_number(row.get(name)) for row in LINES]
        np.testing.assert_array_equal(ROWS.get_numbers(name), numbers)
    assert ROWS.without(split="train", stage="b") == [row for row in LINES if row["split"] == "validation"]
    assert ROWS.where_finite("gradient_norm") == [
        row for row in LINES if row.get("gradient_norm") in (1, 2.5)
    ]


def test_a_table_has_a_row_for_each_learner_as_they_come_up():
    steps, values = metric_rows.tabulate(ROWS.where(stage="a", split="train"), "loss")
    assert steps.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(values, [[0.5, math.nan, 0.25, 2.0**70]] * 2)
    order = metric_rows.make_rows(
        [{"replica": 1, "step": 2, "x": 3.0}, {"replica": 0, "member": 1, "step": 1, "x": 4.0}]
    )
    assert metric_rows.index_learners(order)[0] == [(1, 0), (0, 1)]
    np.testing.assert_array_equal(metric_rows.tabulate(order, "x")[1], [[math.nan, 3.0], [4.0, math.nan]])
    assert [array.shape for array in metric_rows.tabulate(metric_rows.make_rows([]), "x")] == [(0,), (0, 0)]


def test_a_long_file_takes_less_than_a_hundred_bytes_a_line(tmp_path):
    """As dicts they took 1,150."""
    path, count = tmp_path / "metrics.jsonl", 4000
    line = {
        "stage": "maml",
        "replica": 0,
        "split": "train",
        "loss": 0.1,
        "accuracy": 0.2,
        "gradient_norm": 0.3,
    }
    path.write_text("".join(json.dumps({**line, "step": step}) + "\n" for step in range(count)))
    tracemalloc.start()
    try:
        rows = metrics.read(path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows[-1] == {**line, "step": count - 1}
    assert held < 100 * count and peak < 150 * count
