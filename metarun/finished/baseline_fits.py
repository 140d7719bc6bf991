"""Logistic regression on pixels, and on a random network, fitted to the support of each frozen episode.

Features are centred by the mean of the support's and divided by their norm; `algorithms.logistic` fits the classifier,
in the span of the support's features, where its solution lies (Schölkopf, Herbrich, Smola 2001, "A generalized
representer theorem"). That gives the same answers, and takes no longer with many pixels.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarun import assembly, base, errors, hardware, plugins
from metarun.algorithms import logistic
from metarun.blocks import metric_space, networks
from metarun.config import RunConfig, Selection
from metarun.evaluation import episodes, simple_rules
from metarun.evaluation.episodes import FrozenEpisodes
from metarun.finished import moved_weights
from metarun.finished.finished_run import find_run
from metarun.models import conv4
from metarun.runs import task_file

BATCH = 8  # episodes at once
PIXELS, NETWORK = "logistic regression on pixels", "logistic regression on a random network"

Columns = dict[str, dict[str, np.ndarray]]  # {baseline: {metric: [episode]}}
# (inputs, reference) -> features
Embed = Callable[[base.PyTree, base.PyTree], Float[Array, "example feature"]]


def compute(path: Path, result: dict[str, Any], weights: Path | None = None) -> Columns:
    """Compute both baselines on the episodes of a result; see `baselines.find_values`."""
    run = find_run(path, moved_weights.place_weights(path, weights))
    device = hardware.select(run.config.accelerator)[0]
    tasks = assembly.build_tasks(run.config, device, task_file.read(run.path))
    frozen = episodes.freeze(tasks, run.config.evaluation)
    if episodes.hash_episodes(frozen, tasks.recipe) != result["episodes"]["hash"]:
        what = "its data give other episodes now than those of its result"
        raise errors.UsageError(what, str(path), "measure it again with metarun eval, or restore the data")
    if (rules := simple_rules.measure(frozen)) is not None:
        return rules
    return measure(choose_pictures(frozen, run.config, device, path))


def choose_pictures(
    frozen: FrozenEpisodes, run_config: RunConfig, device: jax.Device, path: Path
) -> FrozenEpisodes:
    """Return the same episodes with pictures as inputs: those of the run, or the pictures that its features are of.

    Raises:
      UsageError: the run classifies no pictures.
    """
    spec = frozen.family.problem.spec
    if spec.ways is not None and len(spec.input_shape) == 3:
        return frozen
    options = getattr(run_config.task.config, "picture_options", None)
    if options is None:
        what = "the baselines are for pictures and classes, and this run has others"
        raise errors.UsageError(what, str(path), "leave --baselines out")
    twin = plugins.read_config_class("task", "image_folder")(**options)
    pictures = dataclasses.replace(run_config, task=Selection("image_folder", twin))
    return episodes.freeze(assembly.build_tasks(pictures, device), run_config.evaluation)


def measure(frozen: FrozenEpisodes) -> Columns:
    """Return {baseline: {metric: [episode]}} on episodes of pictures."""
    columns = {}
    for name, embed in {PIXELS: embed_pixels, NETWORK: make_network(frozen.family.problem.spec)}.items():
        values = _measure(frozen, embed)
        columns[name] = {metric: np.asarray(column, np.float64) for metric, column in values.items()}
    return columns


def _measure(frozen: FrozenEpisodes, embed: Embed) -> dict[str, Any]:
    family, objective = frozen.family, frozen.family.problem.objective
    ways = family.problem.spec.output_size

    def judge(data: base.PyTree, key):
        episode = family.sample(data, key)
        logits = answer(embed, episode, ways)
        return objective.metrics(lambda _: logits, episode.query)

    @jax.jit
    def judge_all(data: base.PyTree, keys):
        return jax.lax.map(lambda key: judge(data, key), keys, batch_size=BATCH)

    return dict(jax.device_get(judge_all(frozen.data, frozen.keys)))


def answer(embed: Embed, episode: base.Episode, ways: int) -> Float[Array, "example way"]:
    """Return the logits of the query, by a logistic regression on the support.

    With the support's features X [example, feature] = Rᵀ·Qᵀ, Q with orthonormal columns, a classifier of minimal norm
    is Q·V. So V is fitted to X·Q, which has as many columns as there are examples, and answers the query's X'·Q.
    """
    inputs = episode.support.inputs
    support, query = embed(inputs, inputs), embed(episode.query.inputs, inputs)
    middle = support.mean(axis=0, keepdims=True)
    support, query = metric_space.unit(support - middle), metric_space.unit(query - middle)
    if support.shape[0] < support.shape[1]:
        span = jnp.linalg.qr(support.T)[0]  # [feature, example]
        support, query = support @ span, query @ span
    classifier = logistic.fit(logistic.Config(), support, episode.support.targets, ways)
    return networks.dense(classifier, query)


def embed_pixels(inputs: base.PyTree, reference: base.PyTree) -> Float[Array, "example feature"]:
    """Return pictures as vectors."""
    return inputs.reshape(inputs.shape[0], -1)


def make_network(spec: base.Spec) -> Embed:
    """Make a network of four blocks with random weights, the same for every run of these shapes."""
    model = conv4.build(conv4.Config(head="flatten"), spec)
    sample = jnp.zeros((1, *spec.input_shape), jnp.float32)
    params = jax.jit(model.init)(jax.random.key(0), sample)
    return functools.partial(_embed, model, params)


def _embed(model: base.Model, params: base.PyTree, inputs: base.PyTree, reference: base.PyTree):
    return model.embed(params, inputs, reference=reference)
