"""Run directories that look finished, without any training."""

import json

import numpy as np

from metarun.runs import manifest
from metarun.runs.directory import RunDirectory

COUNT = 30


def make_run(path, values, stages=("maml",), digest="abc", split="test", config="seed: 0\n"):
    """Make a finished run with these values [episode], worse by 1 in each further stage; checkpoints hold no arrays."""
    with RunDirectory.open(path, False) as run:
        run.write_config(config)
        run.write_status("done")
        result = {
            "modes": ["inductive"],
            "split": split,
            "higher_is_better": ["accuracy"],
            "episodes": {"count": COUNT, "hash": digest},
            "stages": {},
        }
        for number, stage in enumerate(stages):
            columns = {"loss": values + number, "accuracy": -values}
            means = {name: {"mean": float(column.mean()), "ci95": 0.5} for name, column in columns.items()}
            result["stages"][stage] = {"step": 7, "inductive": {"adapted": means}}
            named = {f"inductive/adapted/{name}": column for name, column in columns.items()}
            run.write_episodes(stage, split, named)
            folder = path / "checkpoints" / stage / "7"
            (folder / manifest.WEIGHTS).mkdir(parents=True)
            leaves = {
                "weights.trained['kernel']": manifest.Leaf((3, 4), "float32"),
                "weights.frozen": manifest.Leaf((5,), "float32"),
            }
            manifest.write(manifest.Checkpoint(folder, stage, 7, False, {"seconds": 2.5}, leaves, {}))
        run.write_result(result)
    return path


def make_seeded_run(path, values, seeds, **changes):
    """Make a finished run with these values [seed, episode]; `changes` are further entries of its result."""
    make_run(path, values.mean(axis=0))
    columns = {"inductive/adapted/loss": values, "inductive/adapted/accuracy": -values}
    np.savez(path / "episodes" / "maml-test.npz", **columns)
    result = json.loads((path / "result.json").read_text()) | {"seeds": list(seeds)} | changes
    (path / "result.json").write_text(json.dumps(result))
    return path
