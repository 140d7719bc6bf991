"""The types that every part speaks. No logic; imported by all, imports none of metarun.

A task family samples episodes, a model is a pure function of a plain parameter tree, and an algorithm
is four pure functions, each written for ONE task: callers vmap. Axis names in shapes, everywhere:
replica, task, member, way, shot, query, example, step, height, width, channel, token, feature, embed.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

PyTree = Any  # nested tuples, dicts and NamedTuples of arrays


class Examples(NamedTuple):
    """Labelled examples of ONE task."""

    inputs: PyTree  # leaves [example, ...]
    targets: PyTree  # leaves [example, ...]


class Episode(NamedTuple):
    """One sampled task."""

    support: Examples  # what the learner adapts on
    query: Examples  # what it is judged on
    facts: PyTree = ()  # what the sampler knows of the task (amplitude and phase, global class ids):
    # for pooled pre-training, pictures and diagnostics; adapt and predict never see it


class Objective(NamedTuple):
    """What "good" means in a task family."""

    loss: Callable[[PyTree, PyTree], Any]  # (outputs, targets) -> scalar, the mean over the examples
    metrics: Callable[[Callable[[PyTree], PyTree], Examples], dict[str, Any]]
    # (predict, query) -> {name: scalar}: gets the adapted predictor, so that a family can decode a
    # sentence step by step, whatever the algorithm is
    selection: str = "loss"  # the metric by which the best checkpoint is chosen, on the validation split
    higher_is_better: bool = False


class Spec(NamedTuple):
    """The static facts of a task family that a model is built from."""

    input_shape: tuple[int, ...]  # of one example: (feature,) or (height, width, channel)
    output_size: int  # ways of a classification, dimensions of a regression


class TaskFamily(NamedTuple):
    """A distribution over tasks."""

    data: Mapping[str, PyTree]  # "train" | "validation" | "test" -> arrays, passed to jit as arguments;
    # a split that a family does not have is absent
    sample: Callable[[PyTree, Any], Episode]  # (data[split], key) -> Episode: ONE task, pure, jittable
    objective: Objective
    spec: Spec
    draw: Callable[[Any, Episode, Mapping[int, Callable]], None] | None = None
    # (matplotlib figure, episode, {inner steps: predict}) -> None: a picture of one episode


class Model(NamedTuple):
    """A pure function of a plain parameter tree. Nothing outside models/ imports flax.

    `reference` holds the inputs whose batch statistics normalise these inputs: None lets the batch
    normalise itself (transductive); the support inputs make it inductive. `condition` modulates.
    """

    init: Callable[..., PyTree]  # (key, inputs) -> params
    apply: Callable[..., PyTree]  # (params, inputs, *, condition=None, reference=None) -> outputs
    embed: Callable[..., PyTree]  # (params, inputs, *, condition=None, reference=None) -> [example, feature]


class Weights(NamedTuple):
    """What a stage has learned."""

    trained: PyTree  # what the outer optimizer updates
    frozen: PyTree = ()  # carried from earlier stages or fitted in closed form: no gradient, no optimizer memory


class Algorithm(NamedTuple):
    """Four pure functions, each written for ONE task; callers vmap."""

    init: Callable[..., Weights]  # (key, episodes[task], earlier: {stage name: Weights}) -> Weights
    loss: Callable[
        ..., tuple[Any, dict[str, Any]]
    ]  # (weights, episode, key) -> (scalar, {name: scalar}): the outer objective
    adapt: Callable[[Weights, Examples], PyTree]  # (weights, support) -> learner
    predict: Callable[[PyTree, PyTree], PyTree]  # (learner, inputs) -> outputs
