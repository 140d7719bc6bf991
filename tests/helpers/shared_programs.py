"""One trace and one compiled program for all runs of a process that differ in numbers and seeds alone.

A run of a test trains for milliseconds; tracing, lowering and compiling its programs takes a hundred times as long, and
the same few configs are trained again and again. Within `share`, `numbers.trace` gives the program that an earlier run
of the same structure has traced, with the numbers of the run at hand for its arguments. Everything else (directories,
checkpoints, steps, evaluation) is done as ever. A structure is all that a program is built from but its numbers: the
settings of the stages, the sampler, the mesh, and the shapes of the arguments.

What is replaced by a monkeypatch before a program is traced is a part of the structure, too, if `list_replaceable` has
it. Tests of tracing and compiling themselves train with `fresh=True`; see `runs.train`.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import pytest

from metarun import assembly, numbers
from metarun.evaluation import episodes
from metarun.finished.prediction import TrainedRun
from metarun.stages import Stage
from metarun.training import first_memory, stage_run, task_chunks

known: dict[tuple, Any] = {}  # what was made once, by what it was made from
kept: dict[int, Any] = {}  # the objects whose ids are in the keys of `known`
counts = {"traced": 0, "shared": 0}  # programs, by where they came from


class Kept:
    """A traced function that is lowered and compiled once."""

    def __init__(self, traced: jax.stages.Traced) -> None:
        self.traced = traced
        self.compiled: dict[str, jax.stages.Compiled] = {}

    def lower(self) -> "Kept":
        return self

    def compile(self, options: dict | None = None) -> jax.stages.Compiled:
        """Return the compiled program."""
        if repr(options) not in self.compiled:
            self.compiled[repr(options)] = self.traced.lower().compile(options)
        return self.compiled[repr(options)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.traced, name)


@contextmanager
def share() -> Iterator[None]:
    """Let what is built and traced here be that of earlier calls of the same structure."""
    if getattr(numbers.trace, "is_shared", False):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "trace", make_trace(numbers.trace))
        patch.setattr(assembly, "build_tasks", share_tasks(assembly.build_tasks))
        patch.setattr(assembly, "outline_tasks", share_tasks(assembly.outline_tasks))
        patch.setattr(Stage, "trace_weights", share_shapes(Stage.trace_weights))
        patch.setattr(task_chunks, "measure", share_sizes(task_chunks.measure))
        patch.setattr(Stage, "make_keys", share_keys(Stage.make_keys))
        patch.setattr(episodes, "hash_episodes", share_hash(episodes.hash_episodes))
        patch.setattr(TrainedRun, "programs", share_answers(TrainedRun.programs))
        yield


def keep(thing: Any) -> int:
    """Return the id of an object that from now on stays."""
    kept[id(thing)] = thing
    return id(thing)


def list_replaceable() -> tuple[int, ...]:
    """Return the identities of what tests replace in order to change programs."""
    return keep(first_memory.make_memory), keep(Stage.make_start), keep(assembly.build_family)


def describe_arrays(tree: Any) -> str:
    """Return structure, shapes, dtypes and places of a tree."""

    def describe(leaf: Any) -> tuple:
        return str(jax.typeof(leaf)), getattr(leaf, "committed", None), str(getattr(leaf, "sharding", ""))

    return repr(jax.tree.map(describe, tree))


def describe_stage(stage: Stage, masked: bool = True) -> tuple:
    """Return the structure of a stage.

    Args:
      masked: without the numbers that its programs may take as arguments.
    """
    if type(stage) is not Stage:
        return ("made", keep(stage))
    settings = stage.settings
    sections = [settings.algorithm, settings.model, settings.training.by_steps()]
    if masked:
        hidden = [dict.fromkeys(numbers.collect(section, numbers.STEPS), "number") for section in sections]
        sections = [numbers.replace(*both) for both in zip(sections, hidden, strict=True)]
    return (
        settings.name,
        repr((sections, settings.copies)),
        keep(stage.problem),
        tuple(describe_stage(before, masked) for before in stage.earlier),
        repr((stage.axes, stage.draws_as, stage.adapted_steps, sorted(stage.differing), stage.has_trials)),
        repr(sorted(stage.replaced.items())) if stage.replaced else "",
    )


def read_cells(function: Callable) -> dict[str, Any]:
    """Return the variables that an inner function takes from around it, by their names."""
    inner = inspect.unwrap(function)
    contents = [cell.cell_contents for cell in inner.__closure__ or ()]
    return dict(zip(inner.__code__.co_freevars, contents, strict=True))


def describe_function(function: Callable) -> tuple | None:
    """Return the structure of a function that the product traces; None: it is none of those that are shared."""
    cells, owner = read_cells(function), getattr(function, "__self__", None)
    if isinstance(owner, stage_run.StageRun):
        return "start", describe_stage(owner.stage), owner.loop.mesh, keep(owner.loop.sample)
    if function.__name__ == "chunk" and (loop := cells.get("loop")) and loop.stage:
        return "chunk", describe_stage(loop.stage), loop.mesh, keep(loop.sample)
    if function.__name__ == "measure_batches" and (renumber := cells.get("renumber")):
        chosen = read_cells(renumber)
        if {"stage", "tasks", "settings"} <= chosen.keys():
            settings = chosen["settings"]
            return (
                renumber.__qualname__,
                describe_stage(chosen["stage"]),
                keep(chosen["tasks"].evaluated),
                repr((settings.modes, settings.inner_steps)),
                (cells["axes"], cells["order"].tobytes(), cells["order"].shape),
            )
    return None


def make_trace(trace: Callable) -> Callable:
    """Make `numbers.trace` with a memory."""

    def trace_once(function: Callable, listed: numbers.Numbers, *arguments: Any, **options: Any) -> Any:
        structure = describe_function(function)
        if structure is None:
            return trace(function, listed, *arguments, **options)
        key = (
            structure,
            tuple(listed),
            describe_arrays(arguments),
            repr(options),
            list_replaceable(),
            (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision),
        )
        for constants, traced in known.setdefault(key, []):
            if all(listed[path] == value for path, value in constants.items()):
                counts["shared"] += 1
                return traced._replace(numbers={path: listed[path] for path in traced.numbers})
        counts["traced"] += 1
        traced = trace(function, listed, *arguments, **options)
        traced = traced._replace(program=Kept(traced.program))
        constants = {path: value for path, value in listed.items() if path not in traced.numbers}
        known[key].append((constants, traced))
        return traced

    trace_once.is_shared = True
    return trace_once


def share_tasks(build: Callable) -> Callable:
    def build_once(run_config: Any, *device_and_kept: Any) -> Any:
        settings = run_config.evaluation
        evaluated = (settings.ways, settings.shots, settings.queries)
        key = ("tasks", keep(build), keep(assembly.build_family), repr(run_config.task), evaluated)
        key += (repr(device_and_kept),)
        if key not in known:
            known[key] = build(run_config, *device_and_kept)
        return known[key]

    return build_once


def share_shapes(trace_weights: Callable) -> Callable:
    def trace_once(stage: Stage, sample: Callable, data: Any, earlier: dict) -> Any:
        key = (
            "shapes",
            describe_stage(stage),
            keep(sample),
            repr(jax.tree.map(jax.typeof, (data, earlier))),
            list_replaceable(),
        )
        if key not in known:
            known[key] = trace_weights(stage, sample, data, earlier)
        return known[key]

    return trace_once


def share_sizes(measure: Callable) -> Callable:
    def measure_once(stage: Stage, weights: Any, tasks: assembly.Tasks) -> Any:
        shapes = repr(jax.tree.map(jax.typeof, weights))
        key = ("sizes", describe_stage(stage), shapes, keep(tasks.family), list_replaceable())
        if key not in known:
            known[key] = measure(stage, weights, tasks)
        return known[key]

    return measure_once


def share_keys(make_keys: Callable) -> Callable:
    def make_once(stage: Stage, seeds: Any = None) -> Any:
        if seeds is not None:
            return make_keys(stage, seeds)
        key = ("keys", stage.draws_as, repr(stage.axes), stage.list_seeds().tobytes())
        if key not in known:
            with jax.ensure_compile_time_eval():
                known[key] = make_keys(stage)
        return known[key]

    return make_once


def share_hash(hash_episodes: Callable) -> Callable:
    def hash_once(frozen: episodes.FrozenEpisodes, recipe: Any) -> str:
        drawn = np.asarray(jax.random.key_data(frozen.keys)).tobytes()
        key = ("hash", keep(frozen.family), frozen.split, drawn, repr(sorted(recipe.items())))
        if key not in known:
            known[key] = hash_episodes(frozen, recipe)
        return known[key]

    return hash_once


def share_answers(programs: Callable) -> Callable:
    def make_once(run: TrainedRun, ways: int) -> Any:
        stage = describe_stage(run._stage, masked=False)
        key = ("answers", stage, run.mode, run.inner_steps, ways, keep(run.problem), keep(run.form))
        if key not in known:
            known[key] = programs(run, ways)
        return known[key]

    return make_once
