"""Drawings of a few classes, as arrays and as files, and a run that was trained on such drawings."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from helpers.runs import load
from metarun import assembly, base, config
from metarun.runs.checkpoints import Checkpoints
from metarun.training import optimizer
from metarun.training.stage_run import Facts

PICTURES = """
task: {name: omniglot, ways: 4, shots: 2, queries: 3, counts: [8, 0, 8], size: 16, rotations: none}
model: {name: conv4, width: 4, depth: 2}
algorithm: {name: maml, inner_steps: 2, inner_lr: 0.5}
training: {steps: 1, tasks_per_step: 2}
evaluation: {modes: [inductive, transductive]}
accelerator: {platform: cpu, devices: 1}
"""


def make_split() -> dict[str, Any]:
    """Make what stands for a split of Omniglot: eight classes that noise tells apart more or less."""
    generator = np.random.default_rng(0)
    centres = generator.integers(0, 256, (8, 1, 16, 16))
    noisy = centres + generator.integers(-120, 121, (8, 20, 16, 16))
    numbers = np.arange(8, dtype=np.int32)
    return {"images": noisy.clip(0, 255).astype(np.uint8), "character": numbers, "alphabet": numbers}


def put_split() -> dict[str, Any]:
    """Return the same as the family samples it, on the device."""
    return jax.device_put(make_split())


def make_run(path: Path) -> Path:
    """Make a run with the weights that training begins with, without any data set."""
    path.mkdir()
    run_config = load(path.parent, PICTURES)
    (path / "config.yaml").write_text(config.to_yaml(run_config))
    family = assembly.outline_tasks(run_config).family
    (stage,) = assembly.build_stages(run_config, family.problem)

    @jax.jit
    def start(split, key, task_keys):
        episodes = jax.vmap(family.sample, in_axes=(None, 0))(split, task_keys)
        weights = stage.build_algorithm().init(key, episodes, {})
        return weights, optimizer.build(stage.training).init(weights.trained)

    weights, memory = start(put_split(), jax.random.key(0), jax.random.split(jax.random.key(1), 2))
    with Checkpoints(path / "checkpoints" / "maml") as saved:
        saved.save(1, weights, memory, dataclasses.asdict(Facts(step=1)), False)
    return path


def write_picture(path: Path, ink: np.ndarray) -> None:
    """Write ink [height, width], 255 = black, on white paper."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(255 - ink).save(path)


def write_episode(folder: Path, episode: base.Episode) -> None:
    """Write support/<class>/*.png and query/<class>/*.png."""
    for name in ("support", "query"):
        examples = getattr(episode, name)
        for index, label in enumerate(np.asarray(examples.targets)):
            ink = np.round(255 * np.asarray(examples.inputs[index, :, :, 0])).astype(np.uint8)
            write_picture(folder / name / f"class {label}" / f"{index:03}.png", ink)


def write_classes(folder: Path, counts: list[int]) -> None:
    """Write support/<class>/*.png with so many drawings of each class."""
    for label, count in enumerate(counts):
        for index in range(count):
            ink = make_split()["images"][label, index]
            write_picture(folder / "support" / f"class {label}" / f"{index}.png", ink)


def make_examples(counts: list[int], first: int = 0) -> base.Examples:
    """Make so many drawings of each class, from the drawing `first` on, as the family has them."""
    pairs = [(label, index) for label, count in enumerate(counts) for index in range(first, first + count)]
    images = np.stack([make_split()["images"][pair] for pair in pairs])[..., None]
    return base.Examples(images.astype(np.float32) / 255, np.array([label for label, _ in pairs], np.int32))
