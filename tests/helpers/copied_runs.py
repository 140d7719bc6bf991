"""A small run directory without any training, as sinks see it, and what they have of it."""

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from helpers.runs import SINGLE
from metarun.runs import directory, metrics

STEPS = 6


def make_row(step: int, replica: int = 0, seconds: float | None = None, **values: object) -> dict:
    """Return a line of training, or with `seconds` one about speed."""
    split = "train" if seconds is None else metrics.SPEED
    head = {"stage": "maml", "replica": replica, "split": split, "step": step}
    return head | ({"loss": 1.0 / step} if seconds is None else {"seconds": seconds}) | values


def make_rows(steps: Iterable[int] = range(1, STEPS + 1), seconds: float = 0.5) -> list[dict]:
    """Return the lines of two replicas, and one about speed after every second step."""
    rows: list[dict] = []
    for step in steps:
        rows += [make_row(step), make_row(step, 1)]
        rows += [make_row(step, seconds=seconds * step)] if step % 2 == 0 else []
    return rows


def make_run(path: Path, rows: list[dict] | None = None, status: str = "running") -> Path:
    """Make a run directory with a config, a status and lines of metrics."""
    path.mkdir(parents=True, exist_ok=True)
    (path / directory.CONFIG).write_text(SINGLE)
    (path / directory.STATUS).write_text(json.dumps({"status": status}))
    write_rows(path, make_rows() if rows is None else rows)
    return path


def write_rows(path: Path, rows: list[dict], end: str = "") -> None:
    """Replace metrics.jsonl, as a run does that goes on from an earlier checkpoint."""
    (path / directory.METRICS).write_text("".join(f"{json.dumps(row)}\n" for row in rows) + end)


def expect(rows: list[dict]) -> list[tuple[str, int, float]]:
    """Return what a sink has after these lines: (name, step, value), sorted."""
    found = []
    for row in rows:
        learner = f"/replica-{row['replica']}" if row["replica"] else ""
        name = "seconds" if row["split"] == metrics.SPEED else "loss"
        found.append((f"maml/{row['split']}/{name}{learner}", row["step"], row[name]))
    return sorted(found)


def read_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a TFRecord file, and check their sums."""
    from tensorboardX.record_writer import masked_crc32c

    place = 0
    while place < len(data):
        head = data[place : place + 8]
        (length,) = struct.unpack("<Q", head)
        assert struct.pack("<I", masked_crc32c(head)) == data[place + 8 : place + 12]
        record = data[place + 12 : place + 12 + length]
        end = place + 12 + length + 4
        assert struct.pack("<I", masked_crc32c(record)) == data[end - 4 : end]
        yield record
        place = end


def read_events(folder: Path) -> list[tuple[str, int, float]]:
    """Return (name, step, value) of all event files of a folder, sorted."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in folder.glob("*tfevents*"):
        for record in read_records(path.read_bytes()):
            event = event_pb2.Event.FromString(record)
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return sorted(found)


def read_wandb_file(path: Path) -> Iterator[bytes]:
    """Yield the records of a .wandb file: blocks of 32 KiB, as in a log of LevelDB."""
    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""
