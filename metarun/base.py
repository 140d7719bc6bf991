"""The types that all parts share. They hold no logic; every part imports them, and they import no part of metarun.

A task family samples episodes, a model is a pure function of a plain parameter tree, and an algorithm is four pure
functions. Each function is written for ONE task; its caller vmaps. Shapes use these axis names everywhere:
replica, task, member, way, shot, query, example, step, height, width, channel, token, feature, embed.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

PyTree = Any  # nested tuples, dicts and NamedTuples of arrays


class Examples(NamedTuple):
    """Labelled examples of ONE task."""

    inputs: PyTree  # leaves [example, ...]
    targets: PyTree  # leaves [example, ...]


class Related(NamedTuple):
    """Inputs of a support that says which concept each example's class belongs to, such as its alphabet.

    A task family whose new classes bring edges gives its supports such inputs; queries have plain ones. Models see the
    plain inputs alone.
    """

    inputs: PyTree  # leaves [example, ...]
    concepts: Any  # int32 [example], places in `Relations.names`; -1: the class brings no edge


class Episode(NamedTuple):
    """One sampled task."""

    support: Examples  # what the learner adapts on
    query: Examples  # what it is judged on
    # What the sampler knows of the task, such as amplitude and phase, or global class ids. Pooled pre-training,
    # pictures and diagnostics may read it; `adapt` and `predict` never see it.
    facts: PyTree = ()


class Spec(NamedTuple):
    """The static facts of a task family that a model is built from."""

    # The shape of one example: (feature,), (height, width, channel), or (token,) for a sequence.
    input_shape: tuple[int, ...]
    # How many numbers an output has: the ways of a classification, the dimensions of a regression, or the size of the
    # target vocabulary.
    output_size: int
    # What the targets are:
    #   classes   labels, int32 [example], from 0 to output_size - 1; outputs are logits [example, way]
    #   numbers   float32 [example, output_size]; outputs have the same shape
    #   tokens    int32 [example, token] below output_size, 0 for padding; outputs are logits [example, token, output]
    targets: Literal["classes", "numbers", "tokens"]
    # Inputs of a sequence are whole numbers below this; None: the inputs are no tokens.
    vocabulary: int | None = None

    @property
    def ways(self) -> int | None:
        """How many classes an episode has; None if the targets are no classes."""
        return self.output_size if self.targets == "classes" else None


class Objective(NamedTuple):
    """What "good" means in a task family."""

    # (outputs, targets) -> scalar, the mean over the examples
    loss: Callable[[PyTree, PyTree], Any]
    # (outputs, targets) -> {name: scalar}, computed at every training step from the outputs that the loss sees
    training_metrics: Callable[[PyTree, PyTree], dict[str, Any]]
    # (predict, query) -> {name: scalar}, computed in evaluation. It gets the adapted predictor, so that a family can
    # decode a sentence token by token, whatever the algorithm is. With `score`, the values are arrays of any shape.
    metrics: Callable[[Callable[[PyTree], PyTree], Examples], dict[str, Any]]
    # The metric that chooses the best checkpoint, on the validation split.
    selection: str = "loss"
    # The metrics for which a higher value is better; for all others a lower value is.
    higher_is_better: tuple[str, ...] = ()
    # Runs on the host, for what no compiled program can do: what `metrics` gave for ONE episode, as numpy arrays ->
    # {name: scalar}. These scalars then replace what `metrics` gave. None: `metrics` gives the scalars.
    score: Callable[[Mapping[str, Any]], Mapping[str, float]] | None = None


class Relations(NamedTuple):
    """A knowledge graph over what training knows: its classes or its kinds of tasks, and the concepts above them.

    The first `known` nodes are the classes of the training split, or the kinds of its tasks. Then come concepts, such
    as alphabets. Last come the names that a user's own edges may also use, such as the classes of other splits.
    """

    names: tuple[str, ...]  # names of the nodes, all different
    known: int  # how many nodes training knows
    edges: tuple[tuple[int, int], ...]  # (member, concept), as places in `names`
    # Facts of ONE training episode -> int32 below `known`, the nodes that the episode belongs to: [way] for classes,
    # [] for the kind of the task.
    locate: Callable[[PyTree], Any]
    # What the nodes are: the classes of the training split, or the kinds of its tasks.
    subjects: Literal["classes", "tasks"] = "classes"


class Problem(NamedTuple):
    """The static facts of a task family that an algorithm is built from."""

    spec: Spec
    objective: Objective
    # How many classes the training split has in all. Then facts["class"], int32 [way] and below this number, names the
    # class of each way of a training episode, for pooled pre-training. None: the classes are not numbered.
    training_classes: int | None = None
    # Relations between training classes or kinds of tasks, as prior knowledge about new ones; None: none are known.
    relations: Relations | None = None
    # An episode is one stream: support and query are the same examples in the same order, and each is answered before
    # its target is told; see `Algorithm.follow`.
    stream: bool = False


class Pictures(NamedTuple):
    """How a picture file becomes an input of the family, float32 [height, width, channel] in [0, 1]."""

    inverted: bool = False  # dark is 1, as in drawings on paper
    # Picture files, [path], to inputs [example, ...] as numpy, as the training prepared them. None: each picture is
    # stretched to the shape of an input.
    read: Callable[[Any], Any] | None = None
    prepared: str = ""  # how `read` prepares a picture, in words


class Sentences(NamedTuple):
    """How text becomes inputs and targets of the family, and how outputs become text."""

    # (sources, targets) -> numpy Examples in the family's own form; a target is "" if it is not known
    encode: Callable[[list[str], list[str]], Examples]
    # (predict, inputs) -> int32 [example, token], the learner's answer, decoded token by token; jittable
    decode: Callable[[Callable[[PyTree], PyTree], PyTree], Any]
    # int32 [example, token] -> sentences
    spell: Callable[[Any], list[str]]
    # A sentence -> its parts in their order, each short enough for `encode`; [sentence] if it is short enough itself.
    # None: a sentence that is too long is refused.
    divide: Callable[[str], list[str]] | None = None


class Groups(NamedTuple):
    """Kinds of tasks that are reported one by one, such as the pairs of digits or the modes of a mixture."""

    names: tuple[str, ...]
    locate: Callable[[PyTree], Any]  # facts of ONE episode -> int32, the place of its group in `names`


class TaskFamily(NamedTuple):
    """A distribution over tasks."""

    # "train" | "validation" | "test" -> arrays, which jit takes as arguments. A split that the family does not have is
    # absent.
    data: Mapping[str, PyTree]
    sample: Callable[[PyTree, Any], Episode]  # (data[split], key) -> Episode: ONE task, pure, jittable
    problem: Problem
    # (matplotlib figure, episode, {inner steps: predict}) -> None: draws one episode. The key is None for an algorithm
    # without inner steps.
    draw: Callable[[Any, Episode, Mapping[int | None, Callable]], None] | None = None
    groups: Groups | None = None  # groups of tasks; None: the family has none
    form: Pictures | Sentences | None = None  # the form of one input; None: a vector of numbers
    # (data[split], task key, position, examples key) -> Episode: one point of the path of tasks that the task key
    # draws. Whole positions from 0 are independent tasks, and the task changes little by little between them. None:
    # the family has no such path.
    drift: Callable[[PyTree, Any, Any, Any], Episode] | None = None
    # (data[split], episodes [episode] as numpy arrays) -> {metric: [episode]}: what the best possible rule reaches on
    # the queries of each episode. It knows how the tasks of the split are drawn, and the support, but not the task. It
    # runs on the host, in numpy. None: it is not known. `Config.has_ceiling` says beforehand whether there is one.
    ceiling: Callable[[PyTree, Episode], Mapping[str, Any]] | None = None
    # (data[split], episodes [episode] as numpy arrays) -> {rule: {metric: [episode]}}: what simple rules without any
    # training reach on the queries of each episode, to stand beside every result. It runs on the host, in numpy. None:
    # the family has no such rule.
    baselines: Callable[[PyTree, Episode], Mapping[str, Mapping[str, Any]]] | None = None
    # What a run must keep of its data in order to answer without them, as a tree of JSON values: a vocabulary, the
    # names of classes, the shapes of the data. It is written to `task.json` before the training. A plug-in reads it
    # back by a second argument: `build(config, kept=None)` and `outline(config, kept=None)` get what the run has kept,
    # or None in a new run and in one of an older version. Some names in it mean the same in every family:
    #   fingerprint  what identifies the data; `assembly` refuses episodes of data with another one
    #   options      {option: value} that count in place of those of the config in the hash of the frozen episodes,
    #                such as the folder of the training, where the data may lie elsewhere today
    #   says         sentences about the split that stand beside every result
    # None: the family keeps nothing.
    kept: Mapping[str, Any] | None = None


# Tokens that are no part of a text, in every family of sentences: PAD fills a row, BEGIN stands before a target, END
# closes a sentence.
PAD, BEGIN, END = range(3)
# Beside "source", in place of "prefix": zeros of the shape of the targets; see `Model`.
GREEDY = "greedy"

# The names that algorithms read in the parameters of a model; see `Model`.
HEAD, KERNEL, BIAS, SCALE, OFFSET = "head", "kernel", "bias", "scale", "offset"
MODULATION = ("scale_map", "offset_map")


class Model(NamedTuple):
    """A pure function of a plain parameter tree. Only models/ imports flax.

    The parameters are nested dicts. Algorithms read these names in them, and the contract tests check each model:

        HEAD              at the outermost level, the last layer; `embed` does not use it, and without it the tree is
                          the body. A model has exactly one head, and more than a head unless its body has no
                          parameters.
        KERNEL, BIAS      beside each other: the matrix [..., input, output] and the bias [output] of a layer
        SCALE, OFFSET     the scale and the offset of a normalisation, and nothing else; a BIAS beside a SCALE is the
                          offset of a normalisation, too
        MODULATION        the two maps from a condition to the modulation of a layer, and nothing else
        <word>_<number>   at the outermost level of a plain chain, an array or a group of hidden layer <number>, from 0;
                          each number has one KERNEL
        any other name    at the outermost level, an array that belongs to no layer, such as inputs that adapt

    `reference` holds the inputs whose batch statistics normalise these inputs: with None the batch normalises itself
    (transductive), with the support inputs the support normalises it (inductive). `condition`, a vector [feature],
    modulates the network; a model that takes none raises ValueError.

    A model of sentences takes {"source", "prefix"}, and its outputs are the logits of the next token at each position.
    It may also take {"source", GREEDY}, zeros int32 [example, token]. Its outputs are then whole sentences, int32 of
    this shape: the likeliest token at each position up to END, and PAD after it, never PAD or BEGIN before. They are
    those that decoding token by token gives, at less cost.
    """

    init: Callable[..., PyTree]  # (key, inputs, *, condition=None) -> params
    apply: Callable[..., PyTree]  # (params, inputs, *, condition=None, reference=None) -> outputs
    embed: Callable[..., PyTree]  # (params, inputs, *, condition=None, reference=None) -> [example, feature]


class Weights(NamedTuple):
    """What a stage has learned."""

    trained: PyTree  # what the outer optimizer updates
    # What is carried over from earlier stages or fitted in closed form: it has no gradient and no optimizer memory.
    frozen: PyTree = ()


class Points(NamedTuple):
    """Points of the curve of one adaptation, and what is noted of the learner at each."""

    counts: tuple[int, ...]  # numbers of inner steps, ascending and all different
    observe: Callable[[PyTree], PyTree]  # learner -> what is noted of it


class Algorithm(NamedTuple):
    """Four pure functions, each written for ONE task; callers vmap."""

    # (key, episodes [task], earlier: {stage name: Weights}) -> Weights
    init: Callable[..., Weights]
    # (weights, episode, key, progress) -> (scalar, {name: scalar}): the outer objective and the training metrics.
    # `progress` is the share of the stage's outer steps that are done, in [0, 1).
    loss: Callable[..., tuple[Any, dict[str, Any]]]
    adapt: Callable[[Weights, Examples], PyTree]  # (weights, support) -> learner
    predict: Callable[[PyTree, PyTree], PyTree]  # (learner, inputs) -> outputs
    # (weights, learner, support) -> learner: continues to adapt from a learner. None: it can only adapt anew.
    update: Callable[[Weights, PyTree, Examples], PyTree] | None = None
    # (weights, support, points) -> what is noted, leaves [point, ...], in one adaptation. The learner after k steps is
    # that of `adapt` with `inner_steps: k`, whatever number is configured. It is the learner of the other mode, too,
    # because the support is the reference wherever a model is called. None: the algorithm takes no inner steps, or
    # does not promise this; then it is built and adapts anew for each number and each mode.
    watch: Callable[[Weights, Examples, Points], PyTree] | None = None
    # (weights, stream) -> outputs: the answer to each example, given after the targets of all earlier ones are known.
    # Place t is predict(adapt(weights, the first t examples), example t). None: the algorithm cannot follow a stream.
    follow: Callable[[Weights, Examples], PyTree] | None = None
    # Whether the support decides where the inner steps begin. The learner after none of them has then seen the support,
    # so "unadapted" is the mean of such learners over training tasks; leaves below `reference` stay the task's own.
    writes_start: bool = False


class Example(NamedTuple):
    """The smallest setting in which the contract tests try an algorithm: its module's `EXAMPLE`, if it needs one."""

    # The algorithms of the stages before it, each by its own smallest setting. A stage has the name of its algorithm.
    earlier: tuple[str, ...] = ()
    options: Mapping[str, Any] = {}  # options of the algorithm in place of the defaults
    # Kinds of targets for which the answers do not depend on the support.
    ignores_support: tuple[str, ...] = ()
