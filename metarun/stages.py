"""A built stage: the one noun for a model with its algorithm, its training settings, its axes and its random keys.

The mode of normalisation is decided here, around the model, so that no algorithm needs to know of it: an algorithm
always passes the support as `reference`, and a transductive model does not look at it.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray, UInt32

from metarun import base, config, errors, numbers, plugins
from metarun.base import PyTree
from metarun.blocks import related_inputs, target_kinds
from metarun.config import Selection
from metarun.numbers import Numbers

START, STEPS, MEMBERS = range(3)  # what is folded into the key of a stage, for each use of it

# The place of a learner on the leading axes of its stage: {"replica": 1, "member": 0}.
Position = dict[str, int]


class Divergence(NamedTuple):
    """The step at which a trial was not finite."""

    stage: str
    step: int  # 0: it began so


class Trained(NamedTuple):
    """What a stage has learned, and after how many steps."""

    step: int
    weights: base.Weights
    # Trials, by their replica, that have the weights of an earlier step.
    diverged: Mapping[int, Divergence] = {}


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One stage of a run, on the built stages before it.

    The learners of a stage are trained side by side: the replicas of a run, and the members of a stage with copies.
    Replica r is the single run with the seed `seed + r`; a member differs from the others in its random keys alone.
    Weights, metrics and values have one leading axis for each of the two that the config asks for, in the order
    [replica, member], and no axis for the other.

    Trials are replicas that differ in numbers, too: replica r is the single run with the seed and the numbers of
    trial r. The settings have the numbers of trial 0.
    """

    settings: config.Stage
    problem: base.Problem  # of the task family as it is trained on
    earlier: tuple["Stage", ...]
    axes: dict[str, int]  # the leading axes in their order, each with its size
    seed: int  # of the run, or of its replica 0
    draws_as: int  # the place in the run of the stage whose random numbers this one draws
    adapted_steps: int | None  # inner steps of the adapted learner; None: the algorithm has no inner steps
    # Numbers in place of those in the settings of this stage and of the earlier ones; see `take_numbers`.
    replaced: Numbers = dataclasses.field(default_factory=dict)
    trials: config.Trials | None = None  # what the replicas differ in; None: in their seeds, seed + r
    # {as in `list_numbers`: [replica]}: the numbers of this stage and of the earlier ones that the trials differ in.
    differing: Numbers = dataclasses.field(default_factory=dict)

    @property
    def has_trials(self) -> bool:
        """Whether the replicas are trials: one that diverges does not end the others."""
        return self.trials is not None and "replica" in self.axes

    @property
    def name(self) -> str:
        return self.settings.name

    @functools.cached_property
    def training(self) -> config.Training:
        return self.replace_numbers("training", self.settings.training)

    @property
    def at_once(self) -> int:
        """How many tasks are computed at once, also in evaluation. `auto` that nobody has settled is all tasks."""
        chunk = self.training.task_chunk
        return chunk if isinstance(chunk, int) else self.training.tasks_per_step

    @property
    def shares_tasks(self) -> bool:
        """Whether the cores of a CPU share out the tasks of a step: so much work is worth the wait for each other."""
        return self.at_once < self.training.tasks_per_step

    @functools.cached_property
    def positions(self) -> list[Position]:
        """The places of all learners, in the order of the axes; one empty place without axes."""
        places = itertools.product(*map(range, self.axes.values()))
        return [dict(zip(self.axes, place, strict=True)) for place in places]

    def list_numbers(self) -> Numbers:
        """Return the numbers that a program of this stage may take as arguments: {"maml/algorithm.inner_lr": 0.01}.

        They are those of its algorithm, its model and its training, and of the algorithms and models before it. Those
        in which trials differ are not among them; see `differing`.
        """
        listed: dict[str, Any] = {}
        for stage in (*self.earlier, self):
            listed |= stage._list_own(with_training=stage is self)
        return {path: value for path, value in listed.items() if path not in self.differing}

    def _list_own(self, with_training: bool) -> Numbers:
        own = {name: numbers.collect(getattr(self.settings, name)) for name in ("algorithm", "model")}
        if with_training:
            own["training"] = numbers.collect(self.settings.training.by_steps(), whole=numbers.STEPS)
        named = {f"{name}.{path}": value for name, found in own.items() for path, value in found.items()}
        return numbers.prefix(self.name, named, "/")

    def take_numbers(self, replaced: Numbers) -> "Stage":
        """Return this stage with other numbers in the places that `list_numbers` names. They may be traced.

        Numbers that it has taken before stay where these have no other.
        """
        if not replaced:
            return self
        taken: tuple[Stage, ...] = ()  # each stands on those before it here, so that no stage is made twice
        for stage in (*self.earlier, self):
            taken += (dataclasses.replace(stage, earlier=taken, replaced={**stage.replaced, **replaced}),)
        return taken[-1]

    def replace_numbers(self, name: str, section: Any) -> Any:
        """Return a section of the settings, or one derived from it, with the numbers that the stage has taken."""
        return numbers.replace(section, numbers.select(numbers.select(self.replaced, self.name, "/"), name))

    def build_algorithm(
        self, mode: str | None = None, inner_steps: int | None = None, problem: base.Problem | None = None
    ) -> base.Algorithm:
        """Build the algorithm on those of the earlier stages. The same arguments give the same object.

        Args:
          mode: what normalises the queries, here and in the earlier stages; None: as each stage trains.
          inner_steps: of this stage's inner loop; None: as configured.
          problem: of the task family as it is evaluated, perhaps in other ways. The models keep the shape that
            training gives them. None: the problem of training.

        Raises:
          ConfigError: the algorithm or the model refuses its options, the problem, or an earlier stage.
        """
        key = (mode, inner_steps, problem or self.problem)
        if key not in self._algorithms:
            self._algorithms[key] = self._build(*key)
        return self._algorithms[key]

    @functools.cached_property
    def _algorithms(self) -> dict[tuple[str | None, int | None, base.Problem], base.Algorithm]:
        """The algorithms that were built."""
        return {}

    def _build(self, mode: str | None, inner_steps: int | None, problem: base.Problem) -> base.Algorithm:
        earlier = {before.name: before.build_algorithm(mode, None, problem) for before in self.earlier}
        selection = self.settings.algorithm
        options = plugins.make_config("algorithm", selection.name, selection.config)
        if inner_steps is not None:
            options = dataclasses.replace(options, inner_steps=inner_steps)
        options = self.replace_numbers("algorithm", options)
        with config_errors(f"algorithm of stage {self.name}"):
            replace = functools.partial(self.replace_numbers, "model")
            model = build_model(self.settings.model, self.problem.spec, mode or self.training.mode, replace)
            module = plugins.load("algorithm", selection.name)
            algorithm: base.Algorithm = module.build(options, model, problem, earlier)
            target_kinds.refuse_stream(selection.name, problem, algorithm)
        return algorithm

    def list_seeds(self) -> UInt32[np.ndarray, "replica"]:
        """Return the seed of each replica; without replicas there is one, that of the run."""
        if self.trials is not None:
            return np.array(self.trials.seeds, np.uint32)
        return (self.seed + np.arange(self.axes.get("replica", 1), dtype=np.uint64)).astype(np.uint32)

    def make_keys(self, seeds: UInt32[Array | np.ndarray, "replica"] | None = None) -> Key[Array, "..."]:
        """Return the root of all random numbers of each learner, [replica, member].

        Args:
          seeds: as of `list_seeds`, perhaps traced; None: those.
        """

        def make_replica_keys(seed) -> Key[Array, "..."]:
            key = jax.random.fold_in(jax.random.key(seed), self.draws_as)
            if "member" not in self.axes:
                return key
            root = jax.random.fold_in(key, MEMBERS)
            return jax.vmap(lambda member: jax.random.fold_in(root, member))(jnp.arange(self.axes["member"]))

        def make(seeds) -> Key[Array, "..."]:
            return (
                jax.vmap(make_replica_keys)(seeds) if "replica" in self.axes else make_replica_keys(seeds[0])
            )

        keys: Array = jax.jit(make)(self.list_seeds() if seeds is None else seeds)
        return keys

    def make_start(self, sample: Callable, differing: Numbers | None = None) -> Callable:
        """Make (data[train], keys [replica, member], earlier) -> the weights before the first step.

        The weights of earlier stages have the replica axis, too. A member axis among their leading axes is their own:
        every member of this stage sees all members of those.

        Args:
          differing: like the stage's own, perhaps traced; None: those.
        """

        def start(own: Numbers, data, key, earlier) -> base.Weights:
            algorithm = self.take_numbers(own).build_algorithm()
            return _start_learner(algorithm, sample, self.training.tasks_per_step, data, key, earlier)

        if "member" in self.axes:
            start = jax.vmap(start, in_axes=(None, None, 0, None))
        if "replica" in self.axes:
            start = jax.vmap(start, in_axes=(0, None, 0, 0))
        return functools.partial(start, self.differing if differing is None else differing)

    def trace_weights(self, sample: Callable, data: PyTree, earlier: dict[str, base.Weights]) -> base.Weights:
        """Return the shapes and dtypes of the stage's weights. Computes nothing.

        Args:
          sample: of the task family.
          data: the training split, or its shapes.
          earlier: weights of the stages before it, or their shapes.
        """
        keys = jax.eval_shape(self.make_keys)
        weights: base.Weights = jax.eval_shape(self.make_start(sample), data, keys, earlier)
        return weights


def _start_learner(
    algorithm: base.Algorithm,
    sample: Callable,
    tasks: int,
    data: PyTree,
    key: PRNGKeyArray,
    earlier: dict[str, base.Weights],
) -> base.Weights:
    """Return the weights of ONE learner before its first step, fitted to `tasks` sampled episodes."""
    init_key, episodes_key = jax.random.split(jax.random.fold_in(key, START))
    keys = jax.random.split(episodes_key, tasks)
    return algorithm.init(init_key, jax.vmap(sample, in_axes=(None, 0))(data, keys), earlier)


def build_model(
    selection: Selection, spec: base.Spec, mode: str, replace: Callable[[Any], Any] = lambda options: options
) -> base.Model:
    """Build the model. In transductive mode every batch normalises itself, whatever reference it is given.

    Args:
      replace: gives other numbers to the model's options.
    """
    options: Any = replace(plugins.make_config("model", selection.name, selection.config))
    model = related_inputs.make_plain_model(plugins.load("model", selection.name).build(options, spec))
    if mode == "inductive":
        return model

    def drop_reference(function: Callable) -> Callable:
        return lambda params, inputs, *, condition=None, reference=None: function(
            params, inputs, condition=condition
        )

    return model._replace(apply=drop_reference(model.apply), embed=drop_reference(model.embed))


def take_learner(tree: PyTree, position: Position) -> PyTree:
    """Return what belongs to one learner of a stage, from arrays or from their shapes."""
    place = tuple(position.values())

    def take(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape[len(place) :], leaf.dtype)
        return leaf[place]

    if not place:
        return tree
    if all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(tree)):
        return _take_place(tree, place)  # one program, where each leaf would be one
    return jax.tree.map(take, tree)


@jax.jit
def _take_place(tree: PyTree, place: tuple[Any, ...]) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[place], tree)


@contextmanager
def config_errors(section: str) -> Iterator[None]:
    """Turn the ValueError of a plug-in that cannot be built as configured into a ConfigError."""
    try:
        yield
    except ValueError as error:
        what, *remedy = map(str, error.args)
        raise errors.ConfigError(what, section, *(remedy or [f"change {section} in the config"])) from error
