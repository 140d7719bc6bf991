"""TensorBoard, W&B and MLflow themselves: what they have is read back from their own files."""

import json
from pathlib import Path

import pytest

from helpers import copied_runs
from metarun.sinks import bookmark, transfer

TENSORBOARD = "the extra `tensorboard` is not installed"
WANDB = "the extra `wandb` is not installed"
MLFLOW = "the extra `mlflow` is not installed"


def copy(run: Path, name: str, folder: Path | None = None) -> int:
    with transfer.open_copy(run, name, folder) as opened:
        return opened.copy_new()


def extend(run: Path, steps: int) -> list[dict]:
    """Let the run go on, and return all its lines."""
    rows = copied_runs.make_rows(range(1, steps + 1))
    copied_runs.write_rows(run, rows)
    return rows


def assert_events(folder: Path, rows: list[dict]) -> None:
    found, expected = copied_runs.read_events(folder), copied_runs.expect(rows)
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    assert [entry[2] for entry in found] == pytest.approx([entry[2] for entry in expected])


def test_tensorboard_has_every_step_once_after_a_crash_behind_the_bookmark(tmp_path):
    """The files are cut back to the bookmark: the end of one, and the whole of another."""
    pytest.importorskip("tensorboardX", reason=TENSORBOARD)
    run = copied_runs.make_run(tmp_path / "run")
    folder = run / "tensorboard"
    path = bookmark.find_path(run, "tensorboard", None)
    assert copy(run, "tensorboard") == 15
    noted = path.read_text()
    rows = extend(run, 8)
    assert copy(run, "tensorboard") == 5
    path.write_text(noted)  # a crash after the file was written and before the bookmark was
    (oldest,) = json.loads(noted)["facts"]["sizes"]
    with (folder / oldest).open("ab") as file:
        file.write(b"half a record")
    (folder / "events.out.tfevents.1.other").touch()  # not ours
    assert copy(run, "tensorboard") == 5
    assert_events(folder, rows)
    assert (folder / "events.out.tfevents.1.other").exists()


def test_a_folder_of_ones_own_has_the_files_by_config_and_run(tmp_path):
    pytest.importorskip("tensorboardX", reason=TENSORBOARD)
    run = copied_runs.make_run(tmp_path / "maml" / "run")
    assert [copy(run, "tensorboard", tmp_path / "all") for _ in range(2)] == [15, 0]
    assert_events(tmp_path / "all" / "maml" / "run", copied_runs.make_rows())


@pytest.mark.slow
def test_wandb_goes_on_with_its_run_and_has_every_step_once(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason=WANDB)
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = copied_runs.make_run(tmp_path / "maml" / "run")
    assert copy(run, "wandb") == 15
    rows = extend(run, 8)
    assert [copy(run, "wandb"), copy(run, "wandb")] == [5, 0]
    files = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2  # one of each session that had something to say
    heads, found = zip(*map(read_wandb, files), strict=True)
    assert len({head.run_id for head in heads}) == 1
    assert heads[0].display_name == "run"
    assert {item.key for item in heads[0].config.update} >= {"task", "algorithm", "training"}
    assert sorted(entry for session in found for entry in session) == copied_runs.expect(rows)


def read_wandb(path: Path):
    """Return what a .wandb file says of its run, and its (name, step, value)."""
    from wandb.proto import wandb_internal_pb2

    found, head = [], None
    for content in copied_runs.read_wandb_file(path):
        record = wandb_internal_pb2.Record.FromString(content)
        if record.WhichOneof("record_type") == "run":
            head = record.run
        if record.WhichOneof("record_type") == "history":
            items = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            step = items.pop("maml/step")
            found += [(name, step, value) for name, value in items.items() if not name.startswith("_")]
    return head, found


@pytest.mark.slow
def test_mlflow_has_every_step_once_after_a_batch_that_broke_off(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason=MLFLOW)
    pytest.importorskip("alembic", reason=MLFLOW)
    from metarun.sinks import mlflow_store

    run = copied_runs.make_run(tmp_path / "maml" / "run", status="done")
    monkeypatch.setattr(mlflow_store, "AT_ONCE", 4)  # the store takes the first calls of the batch
    original, calls = mlflow.MlflowClient.log_batch, []

    def break_off(self, *arguments, metrics=(), **options):
        calls.extend(metrics)
        if len(calls) > 8:
            raise ConnectionError("the store is gone")
        return original(self, *arguments, metrics=metrics, **options)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", break_off)
        with pytest.raises(ConnectionError):
            copy(run, "mlflow", tmp_path)
    assert [copy(run, "mlflow", tmp_path) for _ in range(2)] == [15, 0]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("maml")
    (stored,) = client.search_runs([experiment.experiment_id])
    assert (stored.info.run_name, stored.info.status) == ("run", "FINISHED")
    assert stored.data.params["algorithm.name"] == "maml"
    histories = [client.get_metric_history(stored.info.run_id, name) for name in stored.data.metrics]
    found = [(metric.key, metric.step, metric.value) for history in histories for metric in history]
    assert sorted(found) == copied_runs.expect(copied_runs.make_rows())
