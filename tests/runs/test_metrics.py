"""Reading on in metrics.jsonl, from where a reader had come."""

import json

import pytest

from metarun.runs import metrics


@pytest.mark.parametrize("batch", [1, 30, 1 << 20])
def test_batches_hold_whole_lines_and_all_of_them(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(metrics, "BATCH", batch)
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "text": "x" * step} for step in range(1, 20)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"half')
    batches = list(metrics.read_on(path, metrics.Place()))
    assert [row for found in batches for row in found.rows] == rows
    assert batches[-1].end.size == path.read_bytes().rfind(b"\n") + 1
    assert [row for found in metrics.read_on(path, batches[0].end) for row in found.rows] == [
        row for found in batches[1:] for row in found.rows
    ]


def test_a_file_that_was_cut_back_is_read_from_its_start(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    (batch,) = metrics.read_on(path, metrics.Place())
    assert list(metrics.read_on(path, batch.end)) == []
    for content in ('{"a": 1}\n', '{"a": 1}\n{"a": 3}\n', '{"a": 1}\n{"a": 22}\n{"a": 5}\n', ""):
        path.write_text(content)
        rows = [row for found in metrics.read_on(path, batch.end) for row in found.rows]
        assert rows == [json.loads(line) for line in content.splitlines()]
