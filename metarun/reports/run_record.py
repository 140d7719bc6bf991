"""What a run directory holds. All but the directory itself may be missing, half written or damaged.

Every gap becomes a plain sentence, so that a report can say what it does not show. Imports no jax.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarun import config, errors
from metarun.finished import run_names
from metarun.finished.finished_run import read_result
from metarun.reports.outcome_tables import describe_headline, make_groups_table, make_outcome_table
from metarun.runs import damaged_lines, directory, manifest, regular_files, seals
from metarun.runs.metric_rows import Rows, make_rows
from metarun.runs.run_status import RunStatus, read_status


class RunRecord(NamedTuple):
    """What one run left, as far as it can be read."""

    path: Path
    name: str  # `<config name>/<time>`, or the name of the directory
    config_text: str  # config.yaml as it is; "" if it cannot be read
    config: dict[str, Any]  # the resolved config; empty if it cannot be read
    standing: RunStatus
    environment: dict[str, Any]
    result: dict[str, Any] | None  # None: the run is not finished, or its result is damaged
    rows: Rows  # the readable lines of metrics.jsonl
    pictures: dict[str, bytes]  # {file name: PNG}
    gaps: list[str]  # what is missing or damaged, one sentence each

    @property
    def stage_names(self) -> list[str]:
        """The stages in the order of the run."""
        configured = [get_stage_name(stage) for stage in list_stages(self.config)]
        measured = list((self.result or {}).get("stages", {}))
        seen = self.rows.list_values("stage")
        return list(dict.fromkeys([*configured, *measured, *seen]))

    @property
    def may_go_on(self) -> bool:
        """Whether the run trains: on this machine, or, as far as its files say, on another one."""
        return self.standing.state == "running" or (self.standing.state == "unknown" and not self.result)


def list_stages(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the stages of a resolved config; a config without a list of stages is one."""
    if "stages" in document:
        return list(document["stages"])
    return [document] if "algorithm" in document else []


def get_stage_name(stage: dict[str, Any]) -> str:
    """Return the name of a stage of a resolved config."""
    return str(stage.get("name") or stage["algorithm"]["name"])


def get_object(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the object at a key; an empty one if there is none."""
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def read_records(paths: Sequence[Path]) -> list[RunRecord]:
    """Read what is there of some runs. Several runs are called by what tells them apart.

    Raises:
      CheckpointError: one is no run, or its config is not the one that it was trained with.
    """
    records = [read_record(path) for path in paths]
    if len(records) == 1:
        return records
    names = run_names.name_runs(list(paths))
    return [record._replace(name=name) for record, name in zip(records, names, strict=True)]


def read_record(path: Path) -> RunRecord:
    """Read what is there of a run.

    Raises:
      CheckpointError: there is no run.
    """
    gaps: list[str] = []
    text, document = read_settings(path, gaps)
    return RunRecord(
        path,
        name_run(path),
        text,
        document,
        read_standing(path, gaps),
        read_object(path / "environment.json", gaps),
        read_outcome(path, gaps),
        read_rows(path / directory.METRICS, gaps),
        read_picture_files(sorted(path.glob("pictures/*.png")), gaps),
        note_checkpoints(path, gaps),
    )


def note_checkpoints(path: Path, gaps: list[str]) -> list[str]:
    """Return the gaps, with one more for each damaged manifest, and for lines that are not those of the newest one."""
    lines: list[tuple[int, str]] = []  # how long metrics.jsonl was at a checkpoint, and its digest
    for checkpoint in seals.list_checkpoints(path):
        try:
            facts = manifest.read(checkpoint).facts
        except errors.CheckpointError as error:
            gaps.append(f"{checkpoint.relative_to(path)}: {error.what}.")
            continue
        size, digest = facts.get("metrics_bytes"), facts.get("metrics_sha256")
        if type(size) is int and size > 0 and isinstance(digest, str):
            lines.append((size, digest))
    with contextlib.suppress(OSError, ValueError, errors.StorageError):
        size, digest = max(lines)
        if damaged_lines.hash_file(path / directory.METRICS, size).hexdigest() != digest:
            gaps.append(
                "metrics.jsonl is not what was written in the training, and the curves may be other ones."
            )
    return gaps


def name_run(path: Path) -> str:
    """Return what to call a run: its directory, with the one above it if the directory is named after a time."""
    whole = path.resolve()
    return f"{whole.parent.name}/{whole.name}" if directory.has_stamp(whole) else whole.name


def read_settings(path: Path, gaps: list[str]) -> tuple[str, dict[str, Any]]:
    """Return config.yaml as text and as a tree of plain values, as far as both can be had."""
    try:
        text = directory.read_config(path)
    except directory.UnreadableConfigError as error:
        gaps.append(f"config.yaml is not shown: {error.what}.")
        return "", {}
    seals.check(path)
    try:
        return text, config.document(config.load(path / directory.CONFIG))
    except errors.MetarunError as error:
        gaps.append(f"config.yaml is shown as it is, because this version cannot resolve it: {error.what}.")
        return text, {}


def read_standing(path: Path, gaps: list[str]) -> RunStatus:
    """Return how the run stands."""
    standing = read_status(path)
    if standing.state == "damaged":
        gaps.append("status.json cannot be read, so it is not known whether the run goes on.")
    elif standing.state == "unknown":
        gaps.append("It is not known whether the run goes on: nothing says so, or it is on another machine.")
    return standing


def read_object(file: Path, gaps: list[str]) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one if there is none."""
    try:
        return regular_files.read_sealed(file)
    except FileNotFoundError:
        gaps.append(f"{file.name} is missing.")
    except (OSError, ValueError) as error:
        gaps.append(f"{file.name} cannot be read: {error}.")
    return {}


def read_outcome(path: Path, gaps: list[str]) -> dict[str, Any] | None:
    """Return result.json; None if there is none, or it cannot be used."""
    try:
        result = read_result(path)
        make_outcome_table(result), make_groups_table(result), describe_headline(result)  # it must be whole
        return result
    except (KeyError, TypeError, AttributeError, ValueError):
        gaps.append("result.json cannot be used: its layout is not that of metarun.")
    except directory.UnreadableConfigError as error:
        gaps.append(f"result.json cannot be used: {error.what}.")
    except errors.CheckpointError:
        gaps.append("There is no result yet: the run is not finished, or was stopped.")
    except errors.MetarunError as error:
        gaps.append(f"result.json cannot be used: {error.what}.")
    return None


def read_rows(file: Path, gaps: list[str]) -> Rows:
    """Return the lines that can be read. The last line may be half written, and others damaged."""
    damaged, half = 0, False

    def select_usable(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        nonlocal damaged, half
        for line in lines:
            half = not line.endswith(b"\n")
            row = None if half else parse_row(line)
            damaged += row is None and not half
            if row:
                yield row

    try:
        with regular_files.open_file(file) as content:
            rows = make_rows(select_usable(regular_files.read_lines(content)))
    except FileNotFoundError:
        gaps.append("metrics.jsonl is missing, so there are no curves.")
        return make_rows([])
    except (OSError, ValueError) as error:
        gaps.append(f"metrics.jsonl cannot be read: {error}.")
        return make_rows([])
    if half:
        gaps.append("The last line of metrics.jsonl is half written, and is left out.")
    if damaged:
        gaps.append(f"{damaged:,} damaged line{'s' * (damaged > 1)} of metrics.jsonl left out.")
    if not rows:
        gaps.append("metrics.jsonl has no lines yet, so there are no curves.")
    return rows


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Return a line of metrics.jsonl; None if it is damaged."""
    try:
        row = json.loads(line)
        usable = (
            isinstance(row["stage"], str) and isinstance(row["step"], int) and isinstance(row["split"], str)
        )
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    return row if usable else None


def read_picture_files(files: Sequence[Path], gaps: list[str]) -> dict[str, bytes]:
    """Return {file name: content} of those that are whole PNG files."""
    pictures = {}
    for file in files:
        try:
            content = regular_files.read_bytes(file)
        except (OSError, ValueError) as error:
            gaps.append(f"{file.name} cannot be read: {error}.")
            continue
        if content.startswith(b"\x89PNG\r\n\x1a\n") and b"IEND" in content[-12:]:
            pictures[file.name] = content
        else:
            gaps.append(f"{file.name} is no whole PNG file.")
    return pictures
