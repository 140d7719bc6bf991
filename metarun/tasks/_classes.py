"""Episodes of classification from a table of pictures: which classes, which examples, which labels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt8

from metarun import base


def choose(key: PRNGKeyArray, count: int, total: int) -> Int[Array, "{count}"]:
    """`count` different numbers below `total`, in random order, all orders equally likely."""
    return jax.lax.top_k(jax.random.uniform(key, (total,)), count)[1]


def choose_allowed(key: PRNGKeyArray, count: int, allowed: Bool[Array, "candidate"]) -> Int[Array, "{count}"]:
    """`count` different indices at which `allowed` holds (there must be as many), in random order."""
    scores = jnp.where(allowed, jax.random.uniform(key, allowed.shape), -1.0)
    return jax.lax.top_k(scores, count)[1]


def gather_examples(
    images: UInt8[Array, "class drawing height width"],
    classes: Int[Array, "way"],
    count: int,
    key: PRNGKeyArray,
) -> UInt8[Array, "way {count} height width"]:
    """`count` different drawings of each class."""
    keys = jax.random.split(key, classes.shape[0])
    drawings = jax.vmap(lambda way_key: choose(way_key, count, images.shape[1]))(keys)
    return images[classes[:, None], drawings]


def choose_below(key: PRNGKeyArray, count: int, total: Int[Array, ""]) -> Int[Array, "{count}"]:
    """`count` different numbers below `total`, which may be traced, in random order.

    The work grows with the square of `count` and not with `total`: a few of a class of thousands. There must be as
    many numbers. All sets are equally likely by Floyd's algorithm (Bentley and Floyd 1987, "A sample of
    brilliance"), and all orders of them because they are shuffled after.
    """
    draw_key, order_key = jax.random.split(key)
    limits = total - count + jnp.arange(count, dtype=jnp.int32)  # the largest number that each draw may give
    drawn = jax.random.randint(draw_key, (count,), 0, limits + 1)

    def add(index, chosen):
        number = jnp.where((chosen == drawn[index]).any(), limits[index], drawn[index])
        return chosen.at[index].set(number)

    chosen = jax.lax.fori_loop(0, count, add, jnp.full((count,), -1, jnp.int32), unroll=min(count, 4))
    return chosen[choose(order_key, count, count)]


def gather_unequal(
    images: UInt8[Array, "example *picture"],
    starts: Int[Array, "class"],
    counts: Int[Array, "class"],
    classes: Int[Array, "way"],
    count: int,
    key: PRNGKeyArray,
) -> UInt8[Array, "way {count} *picture"]:
    """`count` different pictures of each class, from a table in which a class is a run of rows.

    Class c has the rows from `starts[c]` up to `starts[c] + counts[c]`; it must have `count` of them at least.
    """
    keys = jax.random.split(key, classes.shape[0])
    within = jax.vmap(lambda way_key, total: choose_below(way_key, count, total))(keys, counts[classes])
    return images[starts[classes][:, None] + within]


def rotate(
    images: UInt8[Array, "way example height width *channel"], quarter_turns: Int[Array, "way"]
) -> UInt8[Array, "way example height width *channel"]:
    """Each way's square pictures turned counter-clockwise by its number of quarter turns, 0 to 3."""
    turns = quarter_turns.reshape(-1, *[1] * (images.ndim - 1))
    upright = jnp.where(turns % 2 == 1, jnp.rot90(images, axes=(2, 3)), images)
    return jnp.where(turns >= 2, jnp.flip(upright, axis=(2, 3)), upright)


def to_episode(
    images: UInt8[Array, "way example height width *channel"], shots: int, facts: base.PyTree
) -> base.Episode:
    """The first `shots` pictures of each way are support, the others query; way i has label i.

    Returns:
      Inputs float32 [example, height, width, channel] in [0, 1], ordered by way, with one channel where the
      pictures have no axis of channels; targets int32 [example].
    """

    def examples(part: UInt8[Array, "way example height width *channel"]) -> base.Examples:
        ways, count, height, width = part.shape[:4]
        inputs = part.reshape(ways * count, height, width, -1).astype(jnp.float32) / 255
        return base.Examples(inputs, jnp.repeat(jnp.arange(ways, dtype=jnp.int32), count))

    return base.Episode(examples(images[:, :shots]), examples(images[:, shots:]), facts)


def draw(figure, episode: base.Episode, predictors, inverted: bool = True) -> None:
    """The support in one block and the query in another, a row a class; wrong predictions in red.

    The labels over the query pictures are those of the predictor with the most inner steps. Pictures with one
    channel are drawn as they are, or, where 1 is ink (`inverted`), dark on white.
    """
    ways = int(episode.support.targets.max()) + 1
    labels = jnp.argmax(predictors[max(predictors)](episode.query.inputs), axis=-1)
    shots, queries = (min(part.targets.shape[0] // ways, 8) for part in (episode.support, episode.query))
    figure.set_size_inches(1.5 + 1.1 * max(shots + queries, 3), 0.6 + 1.1 * ways)
    grid = figure.subplots(ways, shots + queries, squeeze=False)
    figure.suptitle("support | query with its predicted class (red: wrong)")
    for row in range(ways):
        for column in range(shots + queries):
            part = episode.support if column < shots else episode.query
            count = part.targets.shape[0] // ways
            index = row * count + (column if column < shots else column - shots)
            axes = grid[row][column]
            axes.imshow(part.inputs[index], cmap="gray_r" if inverted else "gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(f"class {row}", rotation=0, ha="right", va="center")
            if column >= shots:
                right = int(labels[index]) == row
                axes.set_title(
                    f"{int(labels[index])}", color="black" if right else "crimson", fontsize=9, pad=2
                )
                axes.spines[:].set(color="black" if right else "crimson", linewidth=0.8 if right else 2)
