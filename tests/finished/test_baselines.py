"""Baselines without any training beside the runs: what they compute, and that they are computed once."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from helpers import runs
from metarun import base
from metarun.algorithms import logistic
from metarun.blocks import metric_space, networks
from metarun.finished import baseline_fits, baselines, comparison
from metarun.finished.comparison import Choice
from metarun.finished.finished_run import read_result

RUN = """
task: {name: image_folder, folder: FOLDER, size: 8, ways: 2, queries: 2, counts: [4, 0, 4]}
model: {name: affine}
algorithm: {name: maml, inner_steps: 1, inner_lr: 0.1}
training: {steps: 1, tasks_per_step: 1}
evaluation: {episodes: 6}
accelerator: {platform: cpu, devices: 1}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on classes of one colour each, which pixels tell apart."""
    folder = tmp_path_factory.mktemp("baselines")
    for number in range(8):
        for picture in range(3):
            path = folder / "pictures" / f"class{number}" / f"{picture}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (30 * number, 255 - 30 * number, 10 * picture)).save(path)
    return runs.train(folder / "run", RUN.replace("FOLDER", str(folder / "pictures")))


def test_the_fit_in_the_span_of_the_support_is_the_fit_of_all_pixels():
    generator = np.random.default_rng(0)
    support = jnp.asarray(generator.uniform(size=(6, 40)), jnp.float32)
    query = jnp.asarray(generator.uniform(size=(9, 40)), jnp.float32)
    labels = jnp.array([0, 1, 2, 0, 1, 2], jnp.int32)
    episode = base.Episode(base.Examples(support, labels), base.Examples(query, jnp.zeros(9, jnp.int32)))
    in_span = jax.jit(lambda: baseline_fits.answer(baseline_fits.embed_pixels, episode, 3))()
    middle = support.mean(axis=0, keepdims=True)
    whole = jax.jit(lambda features: logistic.fit(logistic.Config(tolerance=1e-6), features, labels, 3))
    classifier = whole(metric_space.unit(support - middle))
    expected = networks.dense(classifier, metric_space.unit(query - middle))
    np.testing.assert_allclose(in_span, expected, atol=2e-4)


@pytest.mark.slow
def test_the_baselines_are_computed_once_when_asked_for_and_shown_ever_after(run, monkeypatch):
    result = read_result(run)
    assert baselines.find_values(run, result, compute_missing=False) is None
    compared = comparison.compare([run], Choice(baselines=True))
    labels = [entry["label"] for entry in compared["ranking"]]
    assert sorted(labels) == sorted([baseline_fits.PIXELS, baseline_fits.NETWORK, "run"])
    pixels = compared["ranking"][labels.index(baseline_fits.PIXELS)]
    assert pixels["mean"] == 1 and pixels["cost"]["flops"] == 0
    kept = json.loads((run / baselines.FILE).read_text())
    assert kept["hash"] == result["episodes"]["hash"]
    monkeypatch.setattr(baseline_fits, "compute", None)
    assert [entry["label"] for entry in comparison.compare([run], Choice())["ranking"]] == labels


@pytest.mark.parametrize("damage", ["", "[]", '{"baselines": 3}', '{"baselines": {}}'])
def test_a_damaged_file_counts_as_none(run, damage):
    kept = (run / baselines.FILE).read_bytes() if (run / baselines.FILE).exists() else b""
    (run / baselines.FILE).write_text(damage)
    assert baselines.find_values(run, read_result(run), compute_missing=False) is None
    (run / baselines.FILE).write_bytes(kept)


def test_without_pictures_there_are_no_baselines(single, metarun_):
    end = metarun_("compare", single, "--baselines")
    assert end.code == 2 and "for pictures and classes" in end.err[0]
