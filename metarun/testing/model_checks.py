"""What a model promises: it is a pure function of its parameters, and says honestly which examples normalise which.

It is tried on the first of `small_problems.SPECS` that it accepts, and once for each of its normalisations.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base, plugins
from metarun.base import PyTree
from metarun.testing import derivatives, small_problems
from metarun.testing.claims import (
    claim,
    claim_close,
    claim_equal,
    claim_finite,
    describe_kinds,
    draw_normal_like,
)

EXAMPLES = 3


def find_spec(name: str) -> base.Spec:
    """Return the first of the specs that the model can be built for."""
    refusals: list[ValueError] = []
    for spec in small_problems.SPECS:
        try:
            small_problems.build_model(name, spec)
        except ValueError as refusal:
            refusals.append(refusal)
            continue
        return spec
    raise AssertionError(f"{name} refuses every spec of metarun.testing.small_problems.SPECS: {refusals}")


def list_normalisations(name: str) -> list[str]:
    """Return the values of the option `normalisation` that are tried; "default" if the model has no such option."""
    known = {field.name for field in plugins.list_fields("model", name)}
    return ["batch", "layer", "none"] if "normalisation" in known else ["default"]


class Case:
    """A model with its parameters and some inputs."""

    def __init__(self, name: str, normalisation: str) -> None:
        self.key, self.spec, self.normalisation = jax.random.key(0), find_spec(name), normalisation
        # One layer of a Transformer has all kinds of parts, and compiling the initialisation takes seconds a layer.
        depth = {} if self.spec.vocabulary is None else {"depth": 1}
        self.model = small_problems.build_model(name, self.spec, normalisation=normalisation, **depth)
        self.support, self.query, others = (self.examples(seed, EXAMPLES) for seed in (1, 2, 3))
        self.others_replaced = jax.tree.map(replace_all_but_first, self.query, others)
        self.shapes = jax.eval_shape(self.model.init, self.key, self.support)
        self.params = draw_normal_like(self.shapes, 4)  # no bias is 0, no scale 1
        self.apply = jax.jit(self._apply)

    def _apply(self, params: PyTree, inputs: PyTree, reference: PyTree = None) -> PyTree:
        return self.model.apply(params, inputs, reference=reference)

    def examples(self, seed: int, count: int) -> PyTree:
        """Return inputs of the spec."""
        inputs = small_problems.draw_inputs(self.spec, np.random.default_rng(seed), count)
        return jax.tree.map(jax.device_put, inputs) if self.spec.vocabulary is not None else inputs


def replace_all_but_first(own: Any, other: Any) -> Any:
    """Return the first example of `own`, and far other ones behind it."""
    return np.concatenate([own[:1], 5 * other[1:] if own.dtype.kind == "f" else other[1:]])


@functools.cache
def make_case(name: str, normalisation: str) -> Case:
    """Return the case of a model and one of its normalisations."""
    return Case(name, normalisation)


def check_outputs(case: Case) -> None:
    """Outputs and features have a row for each example."""
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(case.params)}
    claim(dtypes == {jnp.dtype("float32")}, f"parameters are {dtypes}, not float32 alone")
    outputs = case.apply(case.params, case.query)
    positions = () if case.spec.vocabulary is None else case.query["prefix"].shape[1:]
    shape = (EXAMPLES, *positions, case.spec.output_size)
    claim(outputs.shape == shape, f"the outputs have the shape {outputs.shape}, not {shape}")
    claim(outputs.dtype == jnp.float32, f"the outputs are {outputs.dtype}, not float32")
    claim_finite(outputs, "an output is not finite")
    features = jax.eval_shape(case.model.embed, case.params, case.query)
    kind = features.ndim, features.shape[0], features.dtype
    claim(kind == (2, EXAMPLES, jnp.float32), f"the features are {features}, not float32 [example, feature]")


def check_init(case: Case) -> None:
    """Parameters are a function of the key and of the shape of the inputs."""
    init = jax.jit(case.model.init)
    params = init(case.key, case.support)
    claim_equal(init(case.key, case.examples(4, EXAMPLES)), params, "parameters depend on the inputs")
    pairs = zip(*map(jax.tree.leaves, (init(jax.random.key(1), case.support), params)), strict=True)
    claim(any(not np.array_equal(*pair) for pair in pairs), "another key gives the same parameters")
    claim_finite(params, "a parameter is not finite")
    of_more = jax.eval_shape(case.model.init, case.key, case.examples(2, EXAMPLES + 1))
    same = describe_kinds(of_more) == describe_kinds(case.shapes)
    claim(same, "the parameters depend on the number of examples")


def check_vmap(case: Case) -> None:
    """Under vmap over parameters every task computes as if alone."""
    tasks = [draw_normal_like(case.params, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *tasks)
    together = jax.jit(jax.vmap(case.apply, in_axes=(0, None, None)))(stacked, case.query, case.support)
    alone = np.stack([case.apply(params, case.query, case.support) for params in tasks])
    largest = float(np.abs(alone).max())
    claim_close(np.asarray(together), alone, "vmap is not the loop", rtol=1e-4, atol=1e-5 * largest)


def check_gradient(case: Case) -> None:
    """The gradient of a loss is that of differences.

    It is taken of the sum over both modes: a wrong derivative of either makes that of the sum wrong.
    """
    with derivatives.compute_in_float64():
        params, support, query = derivatives.to_float64((case.params, case.support, case.query))
        noise = draw_normal_like(params, 9)
        params = jax.tree.map(lambda leaf, part: np.asarray(leaf) + 0.1 * np.asarray(part), params, noise)

        def loss(params):
            outputs = [case.model.apply(params, query, reference=reference) for reference in (None, support)]
            return jnp.mean(jnp.sin(jnp.stack(outputs)))

        derivatives.claim_gradient(loss, params)


def check_queries(case: Case) -> None:
    """With the support as reference, no query depends on another."""
    together = np.asarray(case.apply(case.params, case.query, case.support))
    replaced = np.asarray(case.apply(case.params, case.others_replaced, case.support))
    message = "with the support as reference, a query depends on the others"
    claim_close(replaced[0], together[0], message, rtol=1e-5, atol=1e-6)
    alone = [
        np.asarray(case.apply(case.params, take_one(case.query, index), case.support))[0]
        for index in range(EXAMPLES)
    ]
    claim_close(together, np.stack(alone), message, rtol=1e-5, atol=1e-6)


def take_one(inputs: PyTree, index: int) -> PyTree:
    """Return a batch of one example."""
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)[index : index + 1]), inputs)


def check_batch_alone(case: Case) -> None:
    """Without a reference, batch normalisation lets queries see each other."""
    queries = case.query, case.others_replaced
    together, replaced = (np.asarray(case.apply(case.params, query)) for query in queries)
    claim(
        np.abs(together[0] - replaced[0]).max() > 1e-3, "without a reference, queries do not see each other"
    )


def check_batch_reference(case: Case) -> None:
    """With a reference, batch normalisation depends on it."""
    references = case.support, jax.tree.map(lambda leaf: 5 * leaf, case.support)
    own, other = (np.asarray(case.apply(case.params, case.query, reference)) for reference in references)
    claim(np.abs(own - other).max() > 1e-3, "the reference does not normalise the query")


def check_own_reference(case: Case) -> None:
    """A reference of the same examples is no reference."""
    own, none = case.apply(case.params, case.query, case.query), case.apply(case.params, case.query)
    message = "with itself as reference, a batch is not normalised as without one"
    claim_close(np.asarray(own), np.asarray(none), message, rtol=1e-5, atol=1e-6)


def check_independence(case: Case) -> None:
    """Without batch statistics the reference is ignored, and queries are independent."""
    plain = np.asarray(case.apply(case.params, case.query))
    referred = np.asarray(case.apply(case.params, case.query, case.support))
    claim_equal(referred, plain, "the reference matters without batch statistics")
    replaced = np.asarray(case.apply(case.params, case.others_replaced))
    message = "a query depends on the others without batch statistics"
    claim_close(replaced[0], plain[0], message, rtol=1e-5, atol=1e-6)


def check_head(case: Case) -> None:
    """The last layer is called `head`, at the outermost level, and `embed` does not use it."""
    claim(base.HEAD in case.params, f"there is no {base.HEAD} among the parameters {sorted(case.params)}")
    body = {name: part for name, part in case.params.items() if name != base.HEAD}
    jax.eval_shape(case.model.embed, body, case.query)


CHECKS = (
    check_outputs,
    check_head,
    check_init,
    check_vmap,
    check_gradient,
    check_queries,
    check_own_reference,
)
BATCH_CHECKS = (check_batch_alone, check_batch_reference)  # with batch normalisation
PLAIN_CHECKS = (check_independence,)  # with another normalisation, or without one
SOME_CHECKS = {"batch": BATCH_CHECKS, "layer": PLAIN_CHECKS, "none": PLAIN_CHECKS}


def list_checks(name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield every check on every normalisation."""
    for normalisation in list_normalisations(name):
        for check in [*CHECKS, *SOME_CHECKS.get(normalisation, ())]:
            yield f"{normalisation}-{check.__name__}", functools.partial(_run, check, name, normalisation)


def _run(check: Callable[[Case], None], name: str, normalisation: str) -> None:
    check(make_case(name, normalisation))
