"""The points that bench/gpu.py measures, each in a process of its own, in the order in which they tell most.

Imports no jax: the process that starts the others must not take the device's memory.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
CONVOLUTIONS = ("products", "native")  # matrix products of patches; on a GPU, grouped convolutions of cuDNN
LOOPS = ("recorded", "launched")  # whether loops are recorded into command buffers, or launched by the host
REPLICAS = (1, 2, 4, 8)
# What xla_gpu_enable_command_buffer adds to XLA's own kinds of commands, or takes from them.
FLAGS = {"recorded": "+WHILE,+CONDITIONAL", "launched": "-WHILE,-CONDITIONAL"}
TORCH_SIDES = ("loop", "vmap")
# The choices that all others are compared with.
FIRST = {"precision": "float32", "convolution": "products", "loops": "recorded", "replicas": 1}

# The four settings, cheapest first, and the estimates before anybody had a GPU: milliseconds a step in float32.
ESTIMATES = {
    "5way-1shot": "1, of about 480 kernels",
    "5way-5shot": "3",
    "20way-1shot": "5 to 8",
    "20way-5shot": "23 to 30",
}
SETTINGS = tuple(ESTIMATES)
TINY = ("model.width=2", "model.depth=1", "training.tasks_per_step=2", "algorithm.inner_steps=1")
GRADIENT_TASKS = 8  # the reference in float64 is computed on a CPU


@dataclass(frozen=True)
class Point:
    """What one process measures."""

    part: str  # install, smoke, reference, gradient, peak, step, torch or run
    name: str  # unique, also as the name of a file
    arguments: dict[str, Any] = field(default_factory=dict)  # of the worker
    flags: dict[str, str] = field(default_factory=dict)  # of XLA
    rank: int = 0  # points of a lower rank come first


def list_points(tiny: bool) -> list[Point]:
    """Return all points in their order: what everything else needs, each choice by itself, the long runs, the rest."""
    points = [Point("install", "install"), Point("smoke", "smoke"), *list_gradients(tiny)]
    precisions = PRECISIONS[:1] if tiny else PRECISIONS
    size = 128 if tiny else 8192
    points += [Point("peak", f"peak-{name}", {"precision": name, "size": size}) for name in precisions]
    points += [*list_steps(tiny), *list_torch(tiny), *list_runs(tiny)]
    return sorted(points, key=lambda point: point.rank)  # a stable sort


def list_gradients(tiny: bool) -> list[Point]:
    """Return the gradient in float64 on a CPU, then those to compare with it."""
    overrides = [*(TINY if tiny else (f"training.tasks_per_step={GRADIENT_TASKS}",))]
    shared = {"config": find_config(SETTINGS[0]), "overrides": overrides}
    choices = [("float32", "products")] if tiny else itertools.product(PRECISIONS, CONVOLUTIONS)
    return [
        Point("reference", "reference", shared),
        *(
            Point(
                "gradient",
                f"gradient-{precision}-{form}",
                {**shared, "precision": precision, "convolution": form},
            )
            for precision, form in choices
        ),
    ]


def list_steps(tiny: bool) -> list[Point]:
    """Return the points of the training step. Their rank is the number of choices that differ from the first ones."""
    factors: list[tuple[Any, ...]] = [PRECISIONS, CONVOLUTIONS, LOOPS, REPLICAS]
    settings = SETTINGS
    if tiny:
        settings, factors = SETTINGS[:1], [PRECISIONS[:1], CONVOLUTIONS, LOOPS[:1], REPLICAS[:2]]
    points = []
    for choices in itertools.product(*factors):
        differing = sum(choice != factor[0] for choice, factor in zip(choices, factors, strict=True))
        precision, form, loops, replicas = choices
        for setting in settings:
            arguments = {
                "setting": setting,
                "config": find_config(setting),
                "overrides": list(TINY) if tiny else [],
                "precision": precision,
                "convolution": form,
                "loops": loops,
                "replicas": replicas,
            }
            flags = {"xla_gpu_enable_command_buffer": FLAGS[loops]}
            rank = {0: 0, 1: 1}.get(differing, 3)
            if not (tiny and differing > 1):
                points.append(Point("step", name_step(arguments), arguments, flags, rank))
    return points


def name_step(arguments: dict[str, Any]) -> str:
    """Return the name of the point of a training step with these choices."""
    return "step-" + "-".join(str(arguments[name]) for name in ("setting", *FIRST))


def list_torch(tiny: bool) -> list[Point]:
    """Return the points of the PyTorch loops, in single precision first."""
    settings = SETTINGS[:1] if tiny else SETTINGS
    precisions = PRECISIONS[:1] if tiny else PRECISIONS[:2]
    return [
        Point(
            "torch",
            f"torch-{setting}-{precision}-{side}",
            {"setting": setting, "precision": precision, "side": side, "tiny": tiny},
            rank=index,
        )
        for index, precision in enumerate(precisions)
        for setting in settings
        for side in TORCH_SIDES
    ]


def list_runs(tiny: bool) -> list[Point]:
    """Return the long runs. A tiny one takes the sinusoid, which needs no data."""
    if tiny:
        overrides = ["training.steps=20", "training.tasks_per_step=2", "evaluation.episodes=4"]
        overrides += ["evaluation.every=null", "evaluation.inner_steps=[]", "accelerator.devices=1"]
        config = str(ROOT / "configs" / "sinusoid" / "maml.yaml")
        return [
            Point(
                "run",
                "run-sinusoid",
                {"setting": "sinusoid", "config": config, "overrides": overrides},
                rank=2,
            )
        ]
    return [
        Point(
            "run",
            f"run-{setting}",
            {"setting": setting, "config": find_config(setting), "overrides": []},
            rank=2,
        )
        for setting in SETTINGS
    ]


def find_config(setting: str) -> str:
    """Return the path of the config with the settings of the paper."""
    return str(ROOT / "configs" / "omniglot" / setting / "maml.yaml")
