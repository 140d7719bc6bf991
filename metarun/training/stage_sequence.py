"""The stages of a run, one after another: each is trained on what those before it have learned."""

import jax

from metarun import base
from metarun.backbones import contents
from metarun.hosts.transfers import collect
from metarun.stages import Stage, Trained
from metarun.training import saved_progress
from metarun.training.facts import Spent
from metarun.training.session import Session
from metarun.training.stage_run import StageRun


def train(session: Session, stages: list[Stage]) -> tuple[dict[str, Trained], dict[str, Spent]]:
    """Train every stage in turn, and return what each has learned, and what its training took.

    What it has learned is that of its last step, or of its best validation. A stage that is taken from another run is
    not trained.
    """
    begun = saved_progress.find(session, stages)
    earlier: dict[str, base.Weights] = {}
    trained: dict[str, Trained] = {}
    spent: dict[str, Spent] = {}
    stage_run: StageRun | None = None
    for stage in stages:
        name = stage.name
        if stage.settings.taken_from is not None:
            trained[name], spent[name] = saved_progress.restore_taken(session, stage, begun[name], earlier)
            earlier = earlier | {name: trained[name].weights}
            continue
        diverged = stage_run.survivors.diverged if stage_run else {}
        stage_run = StageRun(session, stage, earlier, begun.get(name), diverged)
        with contents.raise_failures():
            weights = jax.device_put(collect(stage_run.train()), session.device)
        earlier = earlier | {name: weights}
        spent[name] = stage_run.spent
        trained[name] = Trained(stage_run.spent.steps, weights, stage_run.survivors.diverged)
        if session.evaluation.checkpoint == "best":
            trained[name] = saved_progress.restore_best(session, stage, trained[name])
    return trained, spent
