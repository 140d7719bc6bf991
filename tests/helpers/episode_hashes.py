"""The hash of the episodes that a config asks for."""

from helpers.assembled import assemble
from helpers.runs import SINGLE
from metarun.evaluation import episodes


def hash_of(tmp_path, *overrides: str) -> str:
    """Return the hash as a result records it."""
    run_config, tasks, _ = assemble(tmp_path, SINGLE, *overrides)
    return episodes.hash_episodes(episodes.freeze(tasks, run_config.evaluation), tasks.recipe)
