"""How far a run that goes on has come: the checkpoints of its stages, and the best one of a stage."""

import jax

from metarun import base
from metarun.runs import checkpoints
from metarun.runs.checkpoints import Checkpoint
from metarun.stages import Stage, Trained
from metarun.training.facts import read_facts
from metarun.training.session import Session


def find(session: Session, stages: list[Stage]) -> dict[str, Checkpoint]:
    """Return the checkpoint that each stage goes on from, and cut metrics.jsonl back to the last of them.

    A stage whose last checkpoint is damaged is trained to its end again, and the stages after it from their start.
    The first process looks, and tells the others.
    """
    begun = look_for(session, stages) if session.processes.is_first else {}
    heads = {name: (checkpoint.step, checkpoint.best, checkpoint.facts) for name, checkpoint in begun.items()}
    heads = session.processes.share(heads)
    if session.processes.is_first:
        return begun
    folder = session.run.path / "checkpoints"
    return {
        name: Checkpoint(folder / name / str(step), name, step, best, facts, {}, {})
        for name, (step, best, facts) in heads.items()
    }


def look_for(session: Session, stages: list[Stage]) -> dict[str, Checkpoint]:
    """Read what `find` returns, on the process that has the run directory."""
    begun: dict[str, Checkpoint] = {}
    finished, metrics_bytes = True, 0
    for stage in stages:
        with session.run.checkpoints(stage.name, session.checkpoint.keep) as saved:
            if not finished:
                saved.clear()
            elif newest := saved.newest_valid():
                begun[stage.name], metrics_bytes = newest, read_facts(newest).metrics_bytes
        finished = stage.name in begun and begun[stage.name].step == stage.training.steps
    session.run.metrics.truncate(metrics_bytes)
    return begun


def restore_best(session: Session, stage: Stage, last: Trained) -> Trained:
    """Return the stage at its best validation, or at its last step if none was validated."""
    with session.run.checkpoints(stage.name, session.checkpoint.keep) as saved:
        best = saved.best_valid()
    step = session.processes.share(best.step if best else None)
    if step is None:
        return last
    shapes = jax.eval_shape(lambda: last.weights)

    def read() -> base.Weights:
        assert best is not None  # the first process has found it
        return checkpoints.load_weights(best, shapes)

    weights = session.processes.spread(read, shapes)
    return Trained(step, jax.device_put(weights, session.device))
