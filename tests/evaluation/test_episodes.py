"""The frozen list of episodes: its keys, its hash, and the split that it is of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import processes
from helpers.assembled import assemble
from helpers.episode_hashes import hash_of
from helpers.families import labelled
from helpers.runs import SINGLE
from metarun import base, errors
from metarun.evaluation import episodes
from metarun.evaluation.episodes import FrozenEpisodes


def test_a_longer_list_begins_with_the_shorter_one():
    short, long = (jax.random.key_data(episodes.make_keys(5, "test", count)) for count in (3, 8))
    np.testing.assert_array_equal(long[:3], short)


def test_every_split_and_seed_has_its_own_list():
    lists = [
        jax.random.key_data(episodes.make_keys(seed, split, 4))
        for seed in (0, 1)
        for split in episodes.SPLITS
    ]
    assert len({tuple(key) for keys in lists for key in np.asarray(keys).tolist()}) == 4 * len(lists)


def test_a_split_that_the_family_does_not_have_is_refused(tmp_path):
    run_config, tasks, _ = assemble(tmp_path, SINGLE, "evaluation.split=validation")
    data = {split: tasks.data[split] for split in ("train", "test")}
    with pytest.raises(errors.ConfigError, match="no validation split") as raised:
        episodes.freeze(tasks._replace(data=data), run_config.evaluation)
    assert "train, test" in raised.value.remedy


def test_the_hash_depends_on_the_episodes_and_on_nothing_else(tmp_path):
    same = ("seed=3", "algorithm.inner_lr=0.5", "model.hidden=[4]", "training.steps=9", "evaluation.every=3")
    other = ("seed=1", "split=validation", "shots=3", "queries=7", "episodes=7")
    assert {hash_of(tmp_path, override) for override in same} == {hash_of(tmp_path)}
    hashes = {hash_of(tmp_path, f"evaluation.{override}") for override in other}
    hashes |= {hash_of(tmp_path, "task.noise=0.5"), hash_of(tmp_path)}
    assert len(hashes) == len(other) + 2


def test_shots_of_the_evaluation_and_of_the_task_give_the_same_list(tmp_path):
    assert hash_of(tmp_path, "evaluation.shots=7") == hash_of(tmp_path, "task.shots=7")


def test_the_hash_knows_which_examples_were_drawn():
    """Two families with one recipe that draw other classes have other hashes."""
    keys = episodes.make_keys(0, "test", 4)

    def draw_from(offset: int) -> FrozenEpisodes:
        def sample(data, key):
            classes = offset + jax.random.randint(key, (3,), 0, 100)
            examples = base.Examples(jnp.zeros((3, 1)), classes)
            return base.Episode(examples, examples, classes)

        return FrozenEpisodes(labelled()._replace(sample=sample), "test", (), keys)

    hashes = [episodes.hash_episodes(draw_from(offset), {"task": "same"}) for offset in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.slow
def test_the_hash_is_the_same_in_every_process(tmp_path):
    hash_of(tmp_path)
    code = f"""
from pathlib import Path
from helpers.episode_hashes import hash_of
print(hash_of(Path({str(tmp_path)!r})))
"""
    assert processes.run_code(code).strip() == hash_of(tmp_path)
