"""Small runs: their configs, how they are trained, and what must be the same in two of them."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from helpers import shared_programs
from metarun import config, experiment
from metarun.finished import remeasurement
from metarun.finished.finished_run import find_run
from metarun.progress import Progress
from metarun.runs import checkpoints, manifest, metrics, state_files

SINGLE = """
task: {name: sinusoid, shots: 5, queries: 5}
model: {name: mlp, hidden: [8]}
algorithm: {name: maml}
training: {steps: 24, tasks_per_step: 4, chunk: 4}
evaluation: {every: 10, episodes: 6}
checkpoint: {every: 8, keep: 2}
accelerator: {platform: cpu, devices: 1}
"""
SEALS = ("sealed", "sha256")  # keys of the digests in a JSON file of a run
STAGE = (
    "{{name: {}, model: {{name: mlp, hidden: [8]}}, algorithm: {{name: maml}}, "
    "training: {{steps: 24, tasks_per_step: 4, chunk: 4}}}}"
)
SEVERAL = f"""
task: {{name: sinusoid, shots: 5, queries: 5}}
stages: [{STAGE.format("first")}, {STAGE.format("second")}]
evaluation: {{every: 10, episodes: 6}}
checkpoint: {{every: 8, keep: 2}}
accelerator: {{platform: cpu, devices: 1}}
"""
BOTH = """
task: {name: sinusoid, shots: 5, queries: 5}
stages:
  - {name: base, model: {name: mlp, hidden: [8]}, algorithm: {name: maml}, copies: 3, training: TRAINING}
  - {name: other, model: {name: mlp, hidden: [4]}, algorithm: {name: reptile, inner_steps: 2}, training: TRAINING}
evaluation: {every: 4, episodes: 6, inner_steps: [2]}
checkpoint: {every: 4, keep: 2}
accelerator: {platform: cpu, devices: 1}
seed: 2
replicas: 2
""".replace("TRAINING", "{steps: 8, tasks_per_step: 4, chunk: 2}")


def load(folder: Path, text: str = SINGLE, *overrides: str) -> config.RunConfig:
    """Write a config into the folder, and load it."""
    file = folder / "small.yaml"
    file.write_text(text)
    return config.load(file, overrides)


def train(
    path: Path,
    text: str = SINGLE,
    *overrides: str,
    resume: bool = False,
    progress: Progress | None = None,
    pictures: bool = False,
    fresh: bool = False,
) -> Path:
    """Train in `path`, with the config beside it, and return `path`.

    Args:
      pictures: whether they are drawn. They take half of the time of so small a run.
      fresh: trace and compile all programs anew; else those of an earlier run of the same structure serve again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    run_config = load(path.parent, text, *overrides)
    with pytest.MonkeyPatch.context() as patch, nullcontext() if fresh else shared_programs.share():
        if not pictures:
            patch.setattr(experiment, "draw_pictures", lambda *_: None)
        experiment.train(run_config, path, resume, ["test"], progress or Progress())
    return path


def evaluate(path: Path, *overrides: str, stage: str | None = None, split: str | None = None) -> dict:
    """Return the result of `metarun eval` on a run or a checkpoint, without what the best possible rule reaches."""
    with shared_programs.share():
        result = remeasurement.measure(find_run(path, overrides, stage=stage, split=split), Progress())
    return {key: value for key, value in result.items() if key != "ceiling"}


def read_json(path: Path) -> dict:
    """Return what a JSON file holds, without its digests."""
    return {key: value for key, value in json.loads(path.read_text()).items() if key not in SEALS}


def lines(path: Path, split: str | None = None) -> list[str]:
    """Return the lines of metrics.jsonl without the time that they took, and without those about speed."""
    rows = [row for row in metrics.read(path / "metrics.jsonl") if row["split"] != metrics.SPEED]
    for row in rows:
        row.pop("seconds", None)
    return [json.dumps(row) for row in rows if split in (None, row["split"])]


def last_checkpoints(path: Path) -> dict[str, manifest.Checkpoint]:
    """Return the newest valid checkpoint of each stage."""
    stages = sorted(folder.name for folder in (path / "checkpoints").iterdir())
    return {stage: checkpoints.open_checkpoint(path, stage) for stage in stages}


def read_arrays(checkpoint: manifest.Checkpoint) -> dict[str, np.ndarray]:
    """Return {leaf: array} of the weights and of the memory of the optimizer."""
    arrays: dict[str, np.ndarray] = {}
    for folder in (manifest.WEIGHTS, manifest.MEMORY):
        leaves = {name: leaf for name, leaf in checkpoint.leaves.items() if name.startswith(folder)}
        arrays |= state_files.read(checkpoint.path / folder, leaves)
    return arrays


def read_episodes(path: Path, stage: str = "maml") -> dict[str, np.ndarray]:
    """Return {variant/metric: values} of the frozen test episodes."""
    with np.load(path / "episodes" / f"{stage}-test.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def final_states(path: Path) -> dict[str, bytes]:
    """Return {stage and leaf: bytes} of the weights and the memory of the optimizer, with the best validation."""
    content: dict[str, bytes] = {}
    for stage, last in last_checkpoints(path).items():
        content |= {f"{stage} {name}": array.tobytes() for name, array in read_arrays(last).items()}
        content |= {f"{stage} facts": repr((last.step, last.best, last.facts["best"])).encode()}
    return content


def weights(path: Path) -> dict[str, bytes]:
    """Return {stage and leaf: bytes}, without the best validation."""
    return {name: content for name, content in final_states(path).items() if not name.endswith("facts")}


def results(path: Path) -> dict:
    """Return the result without the path of the run, and without the seconds that it took."""
    result = {key: value for key, value in read_json(path / "result.json").items() if key != "run"}
    for cost in result["costs"].values():
        del cost["own"]["seconds"], cost["total"]["seconds"]
    return result


def measured(path: Path) -> dict:
    """Return the result without the costs, as `metarun eval` gives it."""
    return {key: value for key, value in read_json(path / "result.json").items() if key != "costs"}


def assert_same_run(path: Path, reference: Path) -> None:
    """Compare byte for byte: weights, memory of the optimizer, best so far, metrics, result, episodes."""
    assert lines(path) == lines(reference)
    assert final_states(path) == final_states(reference)
    assert results(path) == results(reference)
    for file in (reference / "episodes").iterdir():
        assert (path / "episodes" / file.name).read_bytes() == file.read_bytes()
