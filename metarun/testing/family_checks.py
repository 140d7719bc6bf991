"""What a task family promises, as configured by default, or by its `example` if it needs files."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base, plugins
from metarun.base import PyTree
from metarun.testing import small_problems
from metarun.testing.claims import Counted, claim, claim_close, claim_equal, describe_kinds

COUNT = 64  # episodes
CEILINGS = 4  # episodes for which the best possible rule is computed
SPLITS = {"train", "validation", "test"}


class Case:
    """A family, and some of its training episodes."""

    def __init__(self, family: base.TaskFamily, has_ceiling: bool | None = None) -> None:
        self.family = family
        self.has_ceiling = has_ceiling  # what its config says; None: there is no config
        self.traced = Counted(self.family.sample)
        self.sample = jax.jit(jax.vmap(self.traced, in_axes=(None, 0)))
        self.data = {split: jax.device_put(arrays) for split, arrays in self.family.data.items()}
        self.episodes = self.draw_episodes("train", 0)

    def draw_episodes(self, split: str, seed: int) -> base.Episode:
        """Draw episodes [task] of a split."""
        keys = jax.random.split(jax.random.key(seed), COUNT)
        episodes: base.Episode = jax.device_get(self.sample(self.data[split], keys))
        return episodes

    def answer(self, inputs: PyTree) -> Any:
        """Predict zeros, in the shape of the family's outputs."""
        spec = self.family.problem.spec
        if spec.vocabulary is not None:
            return jnp.zeros((*inputs["prefix"].shape, spec.output_size))
        return jnp.zeros((inputs.shape[0], spec.output_size))


@functools.cache
def make_case(name: str) -> Case:
    """Return the case of a family by its name."""
    module, config = plugins.load("task", name), small_problems.make_example_config(name)
    return Case(module.build(config), getattr(config, "has_ceiling", False))


def take_inputs(examples: base.Examples) -> Any:
    """Return the inputs, or the source sentences of a translation."""
    return examples.inputs["source"] if isinstance(examples.inputs, dict) else examples.inputs


def check_splits(case: Case) -> None:
    """There is training and test data, and no other split than validation."""
    splits = set(case.family.data)
    claim({"train", "test"} <= splits <= SPLITS, f"the splits are {sorted(splits)}")


def check_shapes(case: Case) -> None:
    """Every split gives episodes of the same shapes and dtypes."""
    key = jax.random.key(0)
    kinds = [describe_kinds(jax.eval_shape(case.family.sample, data, key)) for data in case.data.values()]
    claim(all(kind == kinds[0] for kind in kinds), "the splits give episodes of different shapes or dtypes")
    batched = jax.tree.map(lambda leaf: (COUNT, *leaf.shape), kinds[0])
    claim(jax.tree.map(np.shape, case.episodes) == batched, "vmap gives other shapes")


def check_traces(case: Case) -> None:
    """Many keys need one trace."""
    before = case.traced.traces
    for seed in range(1, 4):
        case.draw_episodes("train", seed)
    claim(case.traced.traces == before, "another key is traced again")


def check_keys(case: Case) -> None:
    """An episode is a function of its key, and different keys give different ones."""
    claim_equal(case.draw_episodes("train", 0), case.episodes, "the same key gives another episode")
    for part in ("support", "query"):
        for leaf in jax.tree.leaves(getattr(case.episodes, part).inputs):
            different = len(np.unique(leaf.reshape(COUNT, -1), axis=0))
            claim(different == COUNT, f"{COUNT} keys give {different} different inputs of the {part}")


def check_vmap(case: Case) -> None:
    """An episode alone is that of the batch."""
    keys = jax.random.split(jax.random.key(0), COUNT)
    alone = jax.device_get(jax.jit(case.family.sample)(case.data["train"], keys[5]))
    expected = jax.tree.map(lambda leaf: leaf[5], case.episodes)
    claim_close(alone, expected, "an episode alone is not that of the batch", rtol=1e-5, atol=1e-6)


def check_disjoint(case: Case) -> None:
    """Support and query share no example."""
    support, query = (
        take_inputs(part).reshape(COUNT, part.targets.shape[1], -1)
        for part in (case.episodes.support, case.episodes.query)
    )
    same = (support[:, :, None] == query[:, None]).all(axis=-1)
    claim(not same.any(), f"{same.any(axis=(1, 2)).sum()} of {COUNT} episodes have a query in their support")


def check_spec(case: Case) -> None:
    """Episodes are as the spec tells the model."""
    spec = case.family.problem.spec
    for part in (case.episodes.support, case.episodes.query):
        shape = take_inputs(part).shape[2:]
        claim(shape == spec.input_shape, f"inputs have the shape {shape}, the spec says {spec.input_shape}")
        check_values(spec, part)


def check_values(spec: base.Spec, part: base.Examples) -> None:
    """Claim that dtypes and values of examples are those of the spec."""
    if spec.vocabulary is not None:
        tokens = jax.tree.leaves((part.inputs, part.targets))
        claim(all(leaf.dtype == np.int32 and leaf.min() >= 0 for leaf in tokens), "tokens are int32 from 0")
        claim(part.inputs["source"].max() < spec.vocabulary, "a source token is not below the vocabulary")
        highest = max(part.targets.max(), part.inputs["prefix"].max())
        claim(highest < spec.output_size, "a target token is not below the output size")
        claim(part.inputs["prefix"].shape == part.targets.shape, "prefix and targets differ in shape")
        return
    claim(part.inputs.dtype == np.float32, f"inputs are {part.inputs.dtype}, not float32")
    if np.issubdtype(part.targets.dtype, np.integer):
        claim(part.targets.dtype == np.int32, f"labels are {part.targets.dtype}, not int32")
        labels = set(np.unique(part.targets).tolist())
        claim(labels == set(range(spec.output_size)), f"the labels are {sorted(labels)}")
    else:
        claim(part.targets.dtype == np.float32, f"targets are {part.targets.dtype}, not float32")
        shape = part.targets.shape[2:]
        claim(shape == (spec.output_size,), f"targets have the shape {shape}, not ({spec.output_size},)")


def check_facts(case: Case) -> None:
    """Facts say something different of different tasks."""
    facts = jax.tree.leaves(case.episodes.facts)
    claim(facts, "an episode has no facts: say what the sampler knows of the task")
    claim(all(len(leaf) == COUNT and np.isfinite(leaf).all() for leaf in facts), "a fact is not finite")
    rows = np.concatenate([leaf.reshape(COUNT, -1) for leaf in facts], axis=1)
    different = len(np.unique(rows, axis=0))
    claim(different > COUNT / 2, f"{COUNT} tasks have {different} different facts")


def check_objective(case: Case) -> None:
    """The objective measures outputs of the size of the spec."""
    query = jax.tree.map(lambda leaf: leaf[0], case.episodes.query)
    objective = case.family.problem.objective

    @jax.jit
    def measure(query):
        outputs = case.answer(query.inputs)
        return objective.metrics(lambda inputs: outputs, query), objective.loss(outputs, query.targets)

    metrics, loss = jax.device_get(measure(query))
    if objective.score is not None:
        metrics = {name: np.asarray(value) for name, value in objective.score(metrics).items()}
    claim(objective.selection in metrics, f"there is no metric {objective.selection}, which selects")
    for name, value in metrics.items():
        claim(value.shape == () and np.isfinite(value), f"the metric {name} is {value}, no finite number")
    claim(loss == metrics["loss"], f"the loss is {loss}, the metric loss {metrics['loss']}")


def check_drawing(case: Case) -> None:
    """An episode can be drawn, with inner steps and without, if the family draws at all."""
    if case.family.draw is None:
        return
    from matplotlib.figure import Figure

    for steps in ((0, 1), (None,)):
        figure, episode = Figure(), jax.tree.map(lambda leaf: leaf[0], case.episodes)
        case.family.draw(figure, episode, dict.fromkeys(steps, case.answer))
        claim(figure.axes, "draw leaves the figure empty")


def check_ceiling(case: Case) -> None:
    """The best possible rule has finite metrics of the family for every episode, if `has_ceiling` promises it."""
    ceiling = case.family.ceiling
    if case.has_ceiling is not None:
        there = "no ceiling" if ceiling is None else "a ceiling"
        claim(
            case.has_ceiling == (ceiling is not None), f"has_ceiling is {case.has_ceiling}: there is {there}"
        )
    if ceiling is None:
        return
    episodes = jax.tree.map(lambda leaf: leaf[:CEILINGS], case.episodes)
    reached = ceiling(jax.device_get(case.data["train"]), episodes)
    claim(reached, "the ceiling has no metric")
    for name, values in reached.items():
        shape = np.shape(values)
        claim(shape == (CEILINGS,), f"the ceiling {name} has the shape {shape}, not ({CEILINGS},)")
        claim(np.isfinite(values).all(), f"the ceiling {name} is not finite")


CHECKS = (
    check_splits,
    check_shapes,
    check_traces,
    check_keys,
    check_vmap,
    check_disjoint,
    check_spec,
    check_facts,
    check_objective,
    check_drawing,
    check_ceiling,
)


def list_checks(name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield every check."""
    for check in CHECKS:
        yield check.__name__, functools.partial(_run, check, name)


def _run(check: Callable[[Case], None], name: str) -> None:
    check(make_case(name))
