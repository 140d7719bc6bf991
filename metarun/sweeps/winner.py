"""The best setting of a sweep: a config that trains alone, and what it reaches on the test split.

The winner is not trained again: its replicas are taken out of the runs that trained it. No other trial is measured on
the test split.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from metarun import config
from metarun.sweeps.request import Request, Setting
from metarun.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    from metarun.stages import Trained

SPLIT = "test"


def make_config(request: Request, setting: Setting) -> config.RunConfig:
    """Return the config that trains a setting alone, with its seeds as replicas if they follow each other."""
    first, *rest = request.seeds
    side_by_side = list(rest) == list(range(first + 1, first + 1 + len(rest)))
    replicas = len(request.seeds) if side_by_side else 1
    return request.load(setting, [f"seed={first}", f"replicas={replicas}"])


def measure(sweep: SweepDirectory, request: Request, line: dict[str, Any]) -> dict[str, Any]:
    """Return what the winner reaches on the test split, as result.json has it. Imports jax.

    Args:
      line: of the ranking.

    Raises:
      MetarunError: the weights are gone, or the task family has no test split.
    """
    from metarun import assembly, hardware
    from metarun.evaluation import run_evaluation
    from metarun.progress import Progress
    from metarun.runs import task_file

    replicas = len(line["places"])
    chosen = [f"evaluation.split={SPLIT}", f"replicas={replicas}", "seed=0", "accelerator.hosts.count=1"]
    run_config = request.load(line["setting"], chosen)
    device = hardware.select(run_config.accelerator)[0]
    kept = task_file.read(sweep.path / line["places"][0]["run"])
    tasks = assembly.build_tasks(run_config, device, kept)
    stages = assembly.build_stages(run_config, tasks.family.problem)
    trained = join_seeds(sweep, [(place["run"], place["replica"]) for place in line["places"]])
    evaluation = run_evaluation.evaluate(stages, trained, tasks, run_config.evaluation, Progress())
    return dict(evaluation.result) | ({"seeds": list(request.seeds)} if replicas > 1 else {})


def join_seeds(sweep: SweepDirectory, places: Sequence[tuple[str, int]]) -> "dict[str, Trained]":
    """Return the weights of every stage, from (run, replica) for each seed; several seeds are a leading axis."""
    import jax
    import jax.numpy as jnp

    from metarun.finished import finished_run, opened_run

    runs = {name: finished_run.find_run(sweep.path / name) for name, _ in places}
    opened = {name: opened_run.open_run(run).trained for name, run in runs.items()}
    joined: dict[str, Any] = {}
    for stage, first in opened[places[0][0]].items():
        learned = [
            jax.tree.map(lambda leaf, r=replica: leaf[r], opened[name][stage].weights)
            if runs[name].config.replicas > 1
            else opened[name][stage].weights
            for name, replica in places
        ]
        weights = (
            learned[0] if len(learned) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *learned)
        )
        joined[stage] = first._replace(weights=weights)
    return joined
