"""Episodes of classification from a table of pictures: the choice of classes and pictures, labels, and a drawing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt8

from metarun import base


def choose(key: PRNGKeyArray, count: int, total: int) -> Int[Array, "{count}"]:
    """Draw `count` different numbers below `total` in random order. All orders are equally likely."""
    return jax.lax.top_k(jax.random.uniform(key, (total,)), count)[1]


def choose_allowed(key: PRNGKeyArray, count: int, allowed: Bool[Array, "candidate"]) -> Int[Array, "{count}"]:
    """Draw `count` different indices at which `allowed` is true, in random order. There must be as many."""
    scores = jnp.where(allowed, jax.random.uniform(key, allowed.shape), -1.0)
    return jax.lax.top_k(scores, count)[1]


def gather_examples(
    images: UInt8[Array, "class drawing height width"],
    classes: Int[Array, "way"],
    count: int,
    key: PRNGKeyArray,
) -> UInt8[Array, "way {count} height width"]:
    """Draw `count` different drawings of each class."""
    keys = jax.random.split(key, classes.shape[0])
    drawings = jax.vmap(lambda way_key: choose(way_key, count, images.shape[1]))(keys)
    return images[classes[:, None], drawings]


def choose_below(key: PRNGKeyArray, count: int, total: Int[Array, ""]) -> Int[Array, "{count}"]:
    """Draw `count` different numbers below `total`, which may be traced, in random order. There must be as many.

    The work grows with the square of `count` and not with `total`, which suits a few pictures of a class of thousands.
    All sets are equally likely by Floyd's algorithm (Bentley and Floyd 1987, "A sample of brilliance"), and all orders
    because the numbers are shuffled afterwards.
    """
    draw_key, order_key = jax.random.split(key)
    limits = total - count + jnp.arange(count, dtype=jnp.int32)  # the largest number that each draw may give
    drawn = jax.random.randint(draw_key, (count,), 0, limits + 1)

    def add(index, chosen):
        number = jnp.where((chosen == drawn[index]).any(), limits[index], drawn[index])
        return chosen.at[index].set(number)

    chosen = jax.lax.fori_loop(0, count, add, jnp.full((count,), -1, jnp.int32), unroll=min(count, 4))
    return chosen[choose(order_key, count, count)]


def choose_rows(
    starts: Int[Array, "class"],
    counts: Int[Array, "class"],
    classes: Int[Array, "way"],
    count: int,
    key: PRNGKeyArray,
) -> Int[Array, "way {count}"]:
    """Draw `count` different rows of each class, in a table in which a class is a run of rows.

    Class c has the rows from `starts[c]` up to `starts[c] + counts[c]`. It must have at least `count` rows.
    """
    keys = jax.random.split(key, classes.shape[0])
    within = jax.vmap(lambda way_key, total: choose_below(way_key, count, total))(keys, counts[classes])
    return starts[classes][:, None] + within


def rotate(
    images: UInt8[Array, "way example height width *channel"], quarter_turns: Int[Array, "way"]
) -> UInt8[Array, "way example height width *channel"]:
    """Turn the square pictures of each way counter-clockwise by its number of quarter turns, 0 to 3."""
    turns = quarter_turns.reshape(-1, *[1] * (images.ndim - 1))
    upright = jnp.where(turns % 2 == 1, jnp.rot90(images, axes=(2, 3)), images)
    return jnp.where(turns >= 2, jnp.flip(upright, axis=(2, 3)), upright)


def to_episode(
    images: UInt8[Array, "way example height width *channel"], shots: int, facts: base.PyTree
) -> base.Episode:
    """Return an episode: the first `shots` pictures of each way are support, the others query. Way i has label i.

    Returns:
      Inputs float32 [example, height, width, channel] in [0, 1], ordered by way, with one channel if the pictures have
      no axis of channels; targets int32 [example].
    """
    return base.Episode(to_examples(images[:, :shots]), to_examples(images[:, shots:]), facts)


def to_examples(images: UInt8[Array, "way example height width *channel"]) -> base.Examples:
    """Return the pictures as examples, ordered by way. Way i has label i."""
    ways, count, height, width = images.shape[:4]
    inputs = images.reshape(ways * count, height, width, -1).astype(jnp.float32) / 255
    return base.Examples(inputs, jnp.repeat(jnp.arange(ways, dtype=jnp.int32), count))


def to_stream(
    images: UInt8[Array, "way example height width *channel"], facts: base.PyTree, key: PRNGKeyArray
) -> base.Episode:
    """Return a stream of all pictures in a random order, all orders being equally likely; see `Problem.stream`."""
    examples = to_examples(images)
    count = examples.targets.shape[0]
    order = choose(key, count, count)
    stream = jax.tree.map(lambda leaf: leaf[order], examples)
    return base.Episode(stream, stream, facts)


def number_presentations(labels: Int[Array, "example"], ways: int) -> Int[Array, "example"]:
    """Return for each example of a stream how many of its class there have been, itself included: 1 for the first."""
    members = jax.nn.one_hot(labels, ways, dtype=jnp.int32)  # [example, way]
    return (jnp.cumsum(members, axis=0) * members).sum(axis=1)


def count_presentations(objective: base.Objective, presentations: int) -> base.Objective:
    """Return the objective with accuracy_1, accuracy_2, …: the accuracy at each presentation of a class of a stream."""

    def measure(predict, stream: base.Examples) -> dict[str, Array]:
        logits = predict(stream.inputs)
        numbers = number_presentations(stream.targets, logits.shape[-1])
        right = jnp.argmax(logits, axis=-1) == stream.targets
        whole = objective.metrics(lambda _: logits, stream)
        return whole | {
            f"accuracy_{number}": jnp.mean(right, where=numbers == number)
            for number in range(1, presentations + 1)
        }

    names = tuple(f"accuracy_{number}" for number in range(1, presentations + 1))
    return objective._replace(metrics=measure, higher_is_better=(*objective.higher_is_better, *names))


def draw(
    figure,
    episode: base.Episode,
    predictors,
    inverted: bool = True,
    restore: Callable = lambda inputs: inputs,
) -> None:
    """Draw the support in one block and the query in another, with a row for each class; wrong predictions in red.

    The labels above the query pictures are those of the predictor with the most inner steps. Pictures with one channel
    are drawn as they are; with `inverted`, where 1 is ink, dark on white. `restore` turns inputs into pictures in
    [0, 1].
    """
    ways = int(episode.support.targets.max()) + 1
    labels = np.argmax(predictors[max(predictors)](episode.query.inputs), axis=-1)
    halves = (episode.support, episode.query)
    shots, queries = (min(examples.targets.shape[0] // ways, 8) for examples in halves)
    figure.set_size_inches(1.5 + 1.1 * max(shots + queries, 3), 0.6 + 1.1 * ways)
    grid = figure.subplots(ways, shots + queries, squeeze=False)
    figure.suptitle("support | query with its predicted class (red: wrong)")
    for row in range(ways):
        for column in range(shots + queries):
            examples = episode.support if column < shots else episode.query
            count = examples.targets.shape[0] // ways
            index = row * count + (column if column < shots else column - shots)
            axes = grid[row][column]
            pictures = jax.tree.leaves(examples.inputs)[0]  # without what a support says of them
            axes.imshow(
                restore(pictures[index]),
                cmap="gray_r" if inverted else "gray",
                vmin=0,
                vmax=1,
            )
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(f"class {row}", rotation=0, ha="right", va="center")
            if column >= shots:
                right = int(labels[index]) == row
                color = "black" if right else "crimson"
                axes.set_title(f"{int(labels[index])}", color=color, fontsize=9, pad=2)
                axes.spines[:].set(color=color, linewidth=0.8 if right else 2)


def draw_stream(figure, episode: base.Episode, predictors) -> None:
    """Draw a stream with a row for each class and a column for each presentation, and above each what was answered.

    Before an answer stands when its picture came, counted from 1. Wrong answers are red.
    """
    labels = np.asarray(episode.query.targets)
    answers = np.argmax(predictors[max(predictors)](episode.query.inputs), axis=-1)
    ways = int(labels.max()) + 1
    places = [np.flatnonzero(labels == way) for way in range(ways)]
    columns = max(map(len, places))
    figure.set_size_inches(1.5 + 1.1 * columns, 0.6 + 1.2 * ways)
    grid = figure.subplots(ways, columns, squeeze=False)
    figure.suptitle(
        "a stream: the number of the picture, and the answer before its label was told (red: wrong)"
    )
    for way, row in enumerate(grid):
        for axes, place in zip(row, places[way], strict=True):
            axes.imshow(episode.query.inputs[place], cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            color = "black" if answers[place] == way else "crimson"
            axes.set_title(f"{place + 1}: {answers[place]}", color=color, fontsize=9, pad=2)
            axes.spines[:].set(color=color)
        row[0].set_ylabel(f"class {way}", rotation=0, ha="right", va="center")
    for number, axes in enumerate(grid[-1], 1):
        axes.set_xlabel(f"presentation {number}", fontsize=8)
