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


class Relations(NamedTuple):
    """A knowledge graph of what training knows: its classes, or its kinds of tasks, and the concepts above them.

    The first `known` nodes are the classes of the training split, or the kinds of its tasks. Then come concepts, such
    as alphabets, and last what a user's own edges may name too, such as the classes of other splits.
    """

    names: tuple[str, ...]  # of the nodes, all different
    known: int
    edges: tuple[tuple[int, int], ...]  # (member, concept), places in `names`
    of: Callable[[PyTree], Any]  # facts of ONE training episode -> int32 below `known`, which nodes it is of:
    # [way], its classes, or [], the kind of the task
    of_tasks: bool = False  # whether the nodes are kinds of tasks, and not classes


class Objective(NamedTuple):
    """What "good" means in a task family."""

    loss: Callable[[PyTree, PyTree], Any]  # (outputs, targets) -> scalar, the mean over the examples
    training_metrics: Callable[[PyTree, PyTree], dict[str, Any]]
    # (outputs, targets) -> {name: scalar}: noted at every training step, of the outputs that the loss is taken of
    metrics: Callable[[Callable[[PyTree], PyTree], Examples], dict[str, Any]]
    # (predict, query) -> {name: scalar}, in evaluation: gets the adapted predictor, so that a family can decode a
    # sentence step by step, whatever the algorithm is; with `score`, arrays of any shape
    selection: str = "loss"  # the metric by which the best checkpoint is chosen, on the validation split
    higher_is_better: bool = False
    score: Callable[[Mapping[str, Any]], Mapping[str, float]] | None = None
    # on the host, for what no compiled program can do: what `metrics` gave of ONE episode, as numpy arrays ->
    # {name: scalar}, which is what counts then
    ways: int | None = (
        None  # classes of an episode, whose targets are labels int32 from 0 to ways - 1, and outputs
    )
    # logits [example, way]; None: no classification
    classes: int | None = (
        None  # that the training split has in all: then facts["class"], int32 [way] and below this
    )
    # number, says in a training episode which of them each way is, for pooled pre-training
    relations: Relations | None = (
        None  # between training classes or kinds of tasks, as a prior of what is new; None: none known
    )


class Spec(NamedTuple):
    """The static facts of a task family that a model is built from."""

    input_shape: tuple[
        int, ...
    ]  # of one example: (feature,), (height, width, channel), or (token,) of a sequence
    output_size: int  # ways of a classification, dimensions of a regression, tokens of the target vocabulary
    vocabulary: int | None = None  # sequences only: inputs are tokens, whole numbers below it


class Pictures(NamedTuple):
    """How a picture file becomes an input of the family, float32 [height, width, channel] in [0, 1]."""

    inverted: bool = False  # dark is 1, as in drawings on paper


class Sentences(NamedTuple):
    """How text becomes inputs and targets of the family, and outputs text again."""

    encode: Callable[[list[str], list[str]], Examples]
    # (sources, targets) -> numpy Examples as the family's own; a target is "" where it is not known
    decode: Callable[[Callable[[PyTree], PyTree], PyTree], Any]
    # (predict, inputs) -> int32 [example, token]: what the learner says, token by token; jittable
    spell: Callable[[Any], list[str]]  # int32 [example, token] -> sentences


class Groups(NamedTuple):
    """Kinds of tasks that are reported one by one: the pairs of digits, the modes of a mixture."""

    names: tuple[str, ...]
    of: Callable[[PyTree], Any]  # facts of ONE episode -> int32, which of the names it is


class TaskFamily(NamedTuple):
    """A distribution over tasks."""

    data: Mapping[str, PyTree]  # "train" | "validation" | "test" -> arrays, passed to jit as arguments;
    # a split that a family does not have is absent
    sample: Callable[[PyTree, Any], Episode]  # (data[split], key) -> Episode: ONE task, pure, jittable
    objective: Objective
    spec: Spec
    draw: Callable[[Any, Episode, Mapping[int | None, Callable]], None] | None = None
    # (matplotlib figure, episode, {inner steps: predict}) -> None: a picture of one episode; of an algorithm without
    # inner steps {None: predict}
    groups: Groups | None = None  # of tasks, if there are any
    form: Pictures | Sentences | None = None  # of one input; None: a vector of numbers
    drift: Callable[[PyTree, Any, Any, Any], Episode] | None = None
    # (data[split], task key, position, examples key) -> Episode: a point of the path of tasks that the task key draws.
    # Whole positions from 0 are independent tasks, and the task changes little by little between them; None: no drift


class Model(NamedTuple):
    """A pure function of a plain parameter tree. Nothing outside models/ imports flax.

    `reference` holds the inputs whose batch statistics normalise these inputs: None lets the batch
    normalise itself (transductive); the support inputs make it inductive. `condition` modulates.
    """

    init: Callable[..., PyTree]  # (key, inputs, *, condition=None) -> params
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
    annealed: bool = (
        False  # whether loss takes the share of the stage's steps that are done, in [0, 1), after the key
    )
    update: Callable[[Weights, PyTree, Examples], PyTree] | None = None
    # (weights, learner, support) -> learner: goes on adapting from a learner; None: it can only adapt anew
