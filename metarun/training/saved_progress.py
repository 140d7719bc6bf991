"""How far a run that goes on has come: the checkpoints of its stages, and the best one of a stage."""

import jax

from metarun import base, errors
from metarun.runs import checkpoints
from metarun.runs.checkpoints import Checkpoint
from metarun.stages import Stage, Trained
from metarun.training import budgets
from metarun.training.facts import Spent, read_facts
from metarun.training.session import Session


def find(session: Session, stages: list[Stage]) -> dict[str, Checkpoint]:
    """Return the checkpoint that each stage goes on from, and cut metrics.jsonl back to the last of them.

    Damaged lines before that are set aside.

    A stage whose last checkpoint is damaged is trained to its end again, and the stages after it from their start.
    The first process looks, and tells the others.

    Raises:
      CheckpointError: a stage has to begin again with the weights of another run, and its start is gone.
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
    finished, lines = True, (0, "")  # size and digest of metrics.jsonl
    for stage in stages:
        with session.run.checkpoints(stage.name, session.checkpoint.keep) as saved:
            if not finished and stage.settings.taken_from is None:
                saved.clear()
            if newest := saved.newest_valid():
                begun[stage.name] = newest
                facts = read_facts(newest)
                lines = max(lines, (facts.metrics_bytes, facts.metrics_sha256))
            elif stage.settings.init_from is not None:
                what = (
                    f"the weights of another run that the stage {stage.name} starts from are damaged or gone"
                )
                remedy = f"resume the run once more, while {stage.settings.init_from} is there"
                raise errors.CheckpointError(what, str(saved.folder), remedy)
        if stage.settings.taken_from is not None:
            continue
        finished = stage.name in begun and is_finished(stage, begun[stage.name])
    session.run.metrics.truncate(lines[0])
    session.run.metrics.mend(lines[1])
    return begun


def is_finished(stage: Stage, checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint is that of the end of its stage."""
    return budgets.find_end(stage.training, checkpoint.step, read_facts(checkpoint).seconds) is not None


def restore_taken(
    session: Session, stage: Stage, begun: Checkpoint, earlier: dict[str, base.Weights]
) -> tuple[Trained, Spent]:
    """Return a stage that was taken from another run, and what its training there took."""
    shapes = stage.trace_weights(session.tasks.family.sample, session.tasks.data["train"], earlier)
    weights = session.processes.spread(lambda: checkpoints.load_weights(begun, shapes), shapes)
    facts = read_facts(begun)
    end = budgets.find_end(stage.training, begun.step, facts.seconds, facts.step_flops)
    spent = Spent(begun.step, facts.seconds, facts.step_flops, facts.flops_at_least, end)
    return Trained(begun.step, jax.device_put(weights, session.device)), spent


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
