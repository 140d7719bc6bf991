"""How often the nearest task shares a fact: two stages beside one another, by pairs of seed and task."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from metarun.finished import neighbours
from metarun.finished.pairwise import Measured
from metarun.finished.task_vectors import TaskVectors


def test_every_seed_of_a_stage_embeds_the_same_tasks(monkeypatch):
    """The first seed's vectors tell the kind, those of the second put each task beside one of the other kind."""
    kind, raw = np.array([0, 0, 1, 1]), np.array([[0.0], [9.0], [0.1], [9.1]], np.float32)
    vectors = {0: np.float32(kind)[:, None] * 5, 1: raw}

    def embed(opened, tasks, place):
        assert tasks == 4
        known = TaskVectors(vectors[place], np.zeros((4, 0), np.float32), raw, {"kind": kind})
        return SimpleNamespace(tasks=known)

    stage = SimpleNamespace(list_seeds=lambda: np.array([7, 8], np.uint32), positions=[{}, {}])
    monkeypatch.setattr(neighbours, "find_run", lambda path, overrides, stage: (path, stage))
    monkeypatch.setattr(neighbours, "open_run", lambda run: SimpleNamespace(stage=stage))
    monkeypatch.setattr(neighbours, "embed", embed)
    found = neighbours.find_neighbours(Path("run"), "embedding", tasks=4)
    assert found.facts["kind"].seeds == (7, 8)
    np.testing.assert_array_equal(found.facts["kind"].values, [[1, 1, 1, 1], [0, 0, 0, 0]])
    assert found.raw["kind"].seeds == (7, 8)
    np.testing.assert_array_equal(found.raw["kind"].values, np.zeros((2, 4)))


def test_the_difference_is_method_minus_control_over_the_seeds_that_both_have():
    generator = np.random.default_rng(0)
    shares = (generator.random((3, 50)) < 0.5).astype(np.float64)
    method = {"kind": Measured(np.ones((3, 50)), (0, 1, 2))}
    control = {"kind": Measured(shares, (0, 1, 2))}
    (line,) = neighbours.subtract(method, control)
    assert [line[key] for key in ("fact", "method_share", "control_share")] == ["kind", 1.0, shares.mean()]
    np.testing.assert_allclose(line["mean"], 1 - shares.mean())
    assert 0 < line["ci95"] < line["mean"] and line["p"] < 0.05
    (other,) = neighbours.subtract(control, control)
    assert (other["mean"], other["ci95"], other["p"]) == (0.0, 0.0, 1.0)
