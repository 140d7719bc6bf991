"""A small episode for learners that compare queries with the support, and what several of them compute."""

import functools

import jax
import numpy as np

from helpers import builders, compiled, gradients, trees
from metarun import base, plugins
from metarun.base import Episode, Examples, Weights

KEY = jax.random.key(0)  # none of their losses uses random numbers
SUPPORT_LABELS = (2, 0, 1, 0, 2, 2)  # unequal shots, in no order
QUERY_LABELS = (0, 1, 2, 1)


@functools.cache
def build_model(ways: int) -> base.Model:
    small = {"hidden": (5, 4), "activation": "tanh", "normalisation": "batch"}
    spec = builders.classification_problem(ways).spec
    return compiled.compile_model(builders.build_model("mlp", spec, **small))


@functools.cache
def build(name: str, ways: int, **options) -> tuple[base.Problem, base.Model, base.Algorithm]:
    problem, module = builders.classification_problem(ways), plugins.load("algorithm", name)
    algorithm = module.build(module.Config(**options), build_model(ways), problem)
    return problem, build_model(ways), compiled.compile_algorithm(algorithm)


class Case:
    """A metric learner over a small smooth network with random weights, on a random episode, in float64."""

    def __init__(self, name: str, ways: int = 3, **options) -> None:
        generator = np.random.default_rng(5)
        inputs = [
            jax.device_put(generator.standard_normal((len(labels), 2)))
            for labels in (SUPPORT_LABELS, QUERY_LABELS)
        ]
        labels = [jax.device_put(np.asarray(labels, np.int32)) for labels in (SUPPORT_LABELS, QUERY_LABELS)]
        self.episode = Episode(*(Examples(*part) for part in zip(inputs, labels, strict=True)))
        self.problem, self.model, self.algorithm = build(name, ways, **options)
        batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], self.episode)
        shapes = jax.eval_shape(self.algorithm.init, KEY, batch, {})
        self.weights = Weights(gradients.to_float64(trees.normal_like(shapes.trained, 1)))

    @property
    def body(self):
        trained = self.weights.trained
        return trained.get("features", trained.get("body", trained))

    def features(self, inputs) -> np.ndarray:
        return np.asarray(self.model.embed(self.body, inputs, reference=self.episode.support.inputs))

    def outputs(self, support: Examples | None = None) -> np.ndarray:
        support, inputs = support or self.episode.support, self.episode.query.inputs
        return np.asarray(compiled.answer(self.algorithm, self.weights, support, inputs))

    def loss(self, trained=None, episode: Episode | None = None):
        return self.algorithm.loss(
            Weights(trained or self.weights.trained), episode or self.episode, KEY, 0.0
        )


def prototypes(case: Case) -> np.ndarray:
    features = case.features(case.episode.support.inputs)
    return np.stack([features[[label == way for label in SUPPORT_LABELS]].mean(axis=0) for way in range(3)])


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()
