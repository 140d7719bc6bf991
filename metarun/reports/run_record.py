"""What a run directory holds. All but the directory itself may be missing, half written or damaged.

Every gap becomes a plain sentence, so that a report can say what it does not show. Imports no jax.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarun import config, errors
from metarun.finished import run_names
from metarun.finished.finished_run import read_result
from metarun.reports.outcome_tables import describe_headline, make_groups_table, make_outcome_table
from metarun.runs import directory
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
    rows: list[dict[str, Any]]  # the readable lines of metrics.jsonl
    pictures: dict[str, bytes]  # {file name: PNG}
    gaps: list[str]  # what is missing or damaged, one sentence each

    @property
    def stage_names(self) -> list[str]:
        """The stages in the order of the run."""
        configured = [get_stage_name(stage) for stage in list_stages(self.config)]
        measured = list((self.result or {}).get("stages", {}))
        seen = [row["stage"] for row in self.rows]
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
      CheckpointError: one is no run.
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
        gaps,
    )


def name_run(path: Path) -> str:
    """Return what to call a run: its directory, with the one above it if the directory is named after a time."""
    whole = path.resolve()
    return f"{whole.parent.name}/{whole.name}" if directory.has_stamp(whole) else whole.name


def read_settings(path: Path, gaps: list[str]) -> tuple[str, dict[str, Any]]:
    """Return config.yaml as text and as a tree of plain values, as far as both can be had."""
    try:
        text = directory.read_config(path)
    except errors.CheckpointError:
        raise
    except errors.MetarunError as error:
        gaps.append(f"config.yaml cannot be read: {error.what}.")
        return "", {}
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
        content = json.loads(file.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
    except FileNotFoundError:
        gaps.append(f"{file.name} is missing.")
    except (OSError, ValueError, RecursionError) as error:
        gaps.append(f"{file.name} cannot be read: {error}.")
    else:
        return content
    return {}


def read_outcome(path: Path, gaps: list[str]) -> dict[str, Any] | None:
    """Return result.json; None if there is none, or it cannot be used."""
    try:
        result = read_result(path)
        make_outcome_table(result), make_groups_table(result), describe_headline(result)  # it must be whole
        return result
    except (KeyError, TypeError, AttributeError, ValueError):
        gaps.append("result.json cannot be used: its layout is not that of metarun.")
    except errors.CheckpointError:
        gaps.append("There is no result yet: the run is not finished, or was stopped.")
    except errors.MetarunError as error:
        gaps.append(f"result.json cannot be used: {error.what}.")
    return None


def read_rows(file: Path, gaps: list[str]) -> list[dict[str, Any]]:
    """Return the lines that can be read. The last line may be half written, and others damaged."""
    try:
        *lines, rest = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        gaps.append("metrics.jsonl is missing, so there are no curves.")
        return []
    except OSError as error:
        gaps.append(f"metrics.jsonl cannot be read: {error.strerror}.")
        return []
    rows = [row for row in map(parse_row, lines) if row]
    if rest:
        gaps.append("The last line of metrics.jsonl is half written, and is left out.")
    if damaged := len(lines) - len(rows):
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
            content = file.read_bytes()
        except OSError as error:
            gaps.append(f"{file.name} cannot be read: {error.strerror}.")
            continue
        if content.startswith(b"\x89PNG\r\n\x1a\n") and b"IEND" in content[-12:]:
            pictures[file.name] = content
        else:
            gaps.append(f"{file.name} is no whole PNG file.")
    return pictures
