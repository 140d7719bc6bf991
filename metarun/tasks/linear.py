"""Classification of points by a random hyperplane, or around random centres: tasks whose optimum is known.

    hyperplane  two classes on the two sides of {x : w·x = b}, with w uniform on the unit sphere and
                b ~ U[−offset, offset]. A point is standard normal, given its side and that it is at least
                `margin` away from the hyperplane.
    blobs       `ways` classes with centres ~ N(0, spread²·I); a point is its class's centre plus N(0, I).

Every class has equally many examples. With probability `label_noise` a support label is replaced by another class, all
equally likely. With `query_noise` the query labels are replaced in the same way.

The best accuracy of somebody who knows the task is 1 for the hyperplane (1 − `label_noise` with `query_noise`). For
blobs it is that of the nearest centre, which for two classes is Φ(‖c₁ − c₂‖ / 2). With only K clean support points of
each class, the best rule for blobs is the nearest of the class means after shrinking them by spread² / (spread² + 1/K).
These are the means of the posterior, whose predictive distributions all have the same variance.

For the hyperplane the best rule averages over the posterior of hyperplanes that separate the support (`_hyperplanes`).
The ceiling beside a table is that of these two rules; with label noise it is not known.

Every task is drawn anew, so that the three splits differ in nothing but their random keys.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metarun import base, losses
from metarun.ranges import Above, AtLeast, Below, Between
from metarun.tasks import _hyperplanes

COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:olive", "tab:cyan")


@dataclass(frozen=True)
class Config:
    """Where the classes lie, and how many points of each are seen."""

    kind: Literal["hyperplane", "blobs"] = "hyperplane"  # what separates the classes
    dimensions: Annotated[int, AtLeast(2)] = 10  # numbers in a point
    ways: Annotated[int, AtLeast(2)] = 2  # classes of an episode; a hyperplane has two
    shots: Annotated[int, AtLeast(1)] = 10  # support points of each class
    queries: Annotated[int, AtLeast(1)] = 10  # query points of each class
    # Hyperplane: smallest distance between a point and the hyperplane.
    margin: Annotated[float, Between(0, 2)] = 0.0
    # Hyperplane: largest distance between the hyperplane and the origin.
    offset: Annotated[float, Between(0, 2)] = 0.0
    spread: Annotated[float, Above(0)] = 2.0  # blobs: standard deviation of the centres in each dimension
    label_noise: Annotated[float, AtLeast(0), Below(1)] = 0.0  # probability that a support label is replaced
    query_noise: bool = False  # whether query labels are replaced too

    def __post_init__(self):
        if self.kind == "hyperplane" and self.ways != 2:
            what = f"a hyperplane has two sides, not {self.ways} ways"
            raise ValueError(what, "take ways: 2 or kind: blobs")

    @property
    def has_ceiling(self) -> bool:
        """Whether the best possible accuracy is known: that of the posterior given clean labels."""
        return not self.label_noise


def build(config: Config) -> base.TaskFamily:
    """Build the family. Its facts are `normal` [feature] and `offset`, or `centres` [way, feature]."""
    shape = (config.ways, config.shots + config.queries)

    def sample(data, key) -> base.Episode:
        task_key, point_key, label_key = jax.random.split(key, 3)
        if config.kind == "hyperplane":
            facts = draw_hyperplane(config, task_key)
            points = draw_points(config, facts, shape[1], point_key)
        else:
            facts = {"centres": config.spread * draw_normal(task_key, (config.ways, config.dimensions))}
            points = facts["centres"][:, None] + draw_normal(point_key, (*shape, config.dimensions))
        true = jnp.broadcast_to(jnp.arange(config.ways, dtype=jnp.int32)[:, None], shape)
        noisy = replace_labels(config, true, label_key) if config.label_noise else true

        def to_examples(places: slice, labels: Int[Array, "way example"]) -> base.Examples:
            return base.Examples(
                points[:, places].reshape(-1, config.dimensions), labels[:, places].reshape(-1)
            )

        support = to_examples(slice(None, config.shots), noisy)
        query = to_examples(slice(config.shots, None), noisy if config.query_noise else true)
        return base.Episode(support, query, facts)

    splits = dict.fromkeys(("train", "validation", "test"), ())

    def find_ceiling(data, episodes: base.Episode):
        answer = answer_hyperplanes if config.kind == "hyperplane" else answer_blobs
        return judge_answers(answer(config, episodes), np.asarray(episodes.query.targets))

    spec = base.Spec((config.dimensions,), config.ways, "classes")
    problem = base.Problem(spec, losses.classification())
    ceiling = find_ceiling if config.has_ceiling else None
    return base.TaskFamily(splits, sample, problem, draw, ceiling=ceiling)


def draw_normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draw standard normal numbers in one row, which on a CPU is five times as fast as in a shape with few columns."""
    return jax.random.normal(key, (math.prod(shape),)).reshape(shape)


def draw_hyperplane(config: Config, key: PRNGKeyArray) -> dict[str, Array]:
    """Draw the facts of a hyperplane: its unit normal [feature] and its offset."""
    normal_key, offset_key = jax.random.split(key)
    normal = jax.random.normal(normal_key, (config.dimensions,))
    offset = jax.random.uniform(offset_key, (), minval=-config.offset, maxval=config.offset)
    return {"normal": normal / jnp.linalg.norm(normal), "offset": offset}


def draw_points(config: Config, facts, count: int, key: PRNGKeyArray) -> Float[Array, "2 {count} feature"]:
    """Draw `count` points on the lower side of a hyperplane, then as many on its upper side.

    A standard normal point is moved along the normal vector to a place that is drawn from a normal distribution, cut
    off at the margin. No point is rejected.
    """
    free_key, normal_key = jax.random.split(key)
    points = draw_normal(free_key, (2, count, config.dimensions))
    side = jnp.array([-1.0, 1.0])[:, None]
    nearest = jnp.broadcast_to(side * facts["offset"] + config.margin, (2, count))
    along = side * jax.random.truncated_normal(normal_key, nearest, jnp.inf)
    return points + (along - points @ facts["normal"])[..., None] * facts["normal"][None, None]


def replace_labels(
    config: Config, labels: Int[Array, "way example"], key: PRNGKeyArray
) -> Int[Array, "way example"]:
    """Replace each label, with probability `label_noise`, by another one."""
    wrong_key, class_key = jax.random.split(key)
    wrong = jax.random.bernoulli(wrong_key, config.label_noise, labels.shape)
    others = (labels + jax.random.randint(class_key, labels.shape, 1, config.ways)) % config.ways
    return jnp.where(wrong, others, labels)


def answer_hyperplanes(config: Config, episodes: base.Episode) -> Float[np.ndarray, "episode query 2"]:
    """Return the best possible probabilities of the two classes for the queries, given the support."""
    inputs, labels = np.asarray(episodes.support.inputs, np.float64), np.asarray(episodes.support.targets)
    support = _hyperplanes.Separation(inputs, 2.0 * labels - 1, config.margin, config.offset)
    facts = {name: np.asarray(leaf, np.float64) for name, leaf in episodes.facts.items()}
    queries = np.asarray(episodes.query.inputs, np.float64)
    return _hyperplanes.answer(support, (facts["normal"], facts["offset"]), queries)


def answer_blobs(config: Config, episodes: base.Episode) -> Float[np.ndarray, "episode query way"]:
    """Return the best possible probabilities of the classes for the queries, given the support.

    The posterior of a centre is normal around its shrunken class mean, so the predictive density of a class is, too.
    """
    inputs, labels = np.asarray(episodes.support.inputs, np.float64), np.asarray(episodes.support.targets)
    is_class = labels[:, None, :] == np.arange(config.ways)[:, None]
    shrinkage = config.spread**2 / (config.spread**2 + 1 / config.shots)
    centres = shrinkage * np.matmul(is_class.astype(np.float64), inputs) / config.shots
    variance = 1 + shrinkage / config.shots
    queries = np.asarray(episodes.query.inputs, np.float64)
    logits = -((queries[:, :, None] - centres[:, None]) ** 2).sum(axis=-1) / (2 * variance)
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def judge_answers(
    probabilities: Float[np.ndarray, "episode query way"], labels: Int[np.ndarray, "episode query"]
) -> dict[str, np.ndarray]:
    """Return cross-entropy and accuracy of each episode."""
    own = np.take_along_axis(probabilities, labels[..., None], axis=-1)[..., 0]
    right = probabilities.argmax(axis=-1) == labels
    return {"loss": -np.log(own).mean(axis=1), "accuracy": right.mean(axis=1)}


def draw(figure, episode: base.Episode, predictors) -> None:
    """Draw the points in the plane that shows most of the task, in the colours of their labels.

    Support points are triangles. Query points are dots in the colour that the predictor with the most inner steps
    gives them, with a ring around those that are wrong.
    """
    labels = np.argmax(predictors[max(predictors)](episode.query.inputs), axis=-1)
    directions, names = find_view(episode)
    support, query = (
        np.asarray(examples.inputs) @ directions for examples in (episode.support, episode.query)
    )
    axes = figure.subplots()
    for label in np.unique(episode.support.targets):
        color = COLORS[label % len(COLORS)]
        chosen = episode.support.targets == label
        axes.plot(*support[chosen].T, "^", color=color, markersize=8, label=f"class {label}, support")
        axes.plot(*query[labels == label].T, ".", color=color, label=f"class {label}, predicted")
    wrong = labels != np.asarray(episode.query.targets)
    label = f"wrong: {wrong.mean():.0%}"
    axes.plot(*query[wrong].T, "o", color="crimson", fillstyle="none", markersize=9, label=label)
    if "normal" in episode.facts:
        axes.axvline(float(episode.facts["offset"]), color="black", label="hyperplane")
    axes.set(xlabel=names[0], ylabel=names[1], title="One task of the test split")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)


def find_view(episode: base.Episode) -> tuple[np.ndarray, tuple[str, str]]:
    """Return two directions [feature, 2] that show most of a task, and their names."""
    if "normal" in episode.facts:
        normal = np.asarray(episode.facts["normal"])
        across = np.eye(len(normal))[np.argmin(np.abs(normal))]
        across -= (across @ normal) * normal
        return np.stack([normal, across / np.linalg.norm(across)], axis=1), ("along the normal", "across it")
    centres = np.asarray(episode.facts["centres"])
    axes = np.linalg.svd(centres - centres.mean(axis=0))[2]
    return axes[:2].T, ("first principal axis of the centres", "second")
