"""Learners agree with their authors' formulas, as PyTorch's autograd computes them in float64.

scripts/record_references.py recorded the arrays, and makes them again. Every case draws other weights and tasks.
"""

import functools
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from helpers import builders
from metarun import base
from metarun.algorithms import alfa, cavia, imaml, maml, protonet, reptile
from metarun.base import Episode, Examples, Weights

pytestmark = pytest.mark.usefixtures("in_float64")

FILE = Path(__file__).parent / "references.npz"
KEY = jax.random.key(0)  # none of these losses uses random numbers
RATE, STEPS = 0.07, 2  # of the inner loop, as in the script
AGREEMENT = 1e-10  # relative, and as a share of 1
REGRESSION = builders.regression_problem(2, 2)


@functools.cache
def read(case: str) -> dict[str, dict]:
    """Return {"given", "expected"} of a case, as nested dicts of arrays."""
    tree: dict = {}
    with np.load(FILE) as stored:
        for name in stored.files:
            head, *path, last = name.split("/")
            if head == case:
                node = tree
                for key in path:
                    node = node.setdefault(key, {})
                node[last] = stored[name]
    return tree


def select(tree: dict, *names: str) -> dict:
    """Return the parts of a tree that are there, on the device."""
    return {name: jax.device_put(tree[name]) for name in names if name in tree}


def read_weights(case: str) -> dict:
    return select(read(case)["given"], "extra_inputs", "hidden_0", "head")


def read_episode(case: str) -> Episode:
    parts = [read(case)["given"][part] for part in ("support", "query")]
    return Episode(*(Examples(*jax.device_put((part["inputs"], part["targets"]))) for part in parts))


def build_model(**options) -> base.Model:
    return builders.build_model("mlp", REGRESSION.spec, hidden=(3,), activation="tanh", **options)


def make_outer(algorithm: base.Algorithm, case: str):
    """Make trained -> the outer loss on the episode of a case."""
    episode = read_episode(case)
    return lambda trained: algorithm.loss(Weights(trained), episode, KEY, 0.0)[0]


def differentiate(algorithm: base.Algorithm, case: str, trained) -> dict:
    loss, gradient = jax.jit(jax.value_and_grad(make_outer(algorithm, case)))(trained)
    return {"loss": loss, "gradient": gradient}


def assert_agrees(case: str, **found) -> None:
    expected = read(case)["expected"]
    assert found.keys() <= expected.keys()
    for name, tree in found.items():
        assert jax.tree.structure(tree) == jax.tree.structure(expected[name]), name
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=AGREEMENT, atol=AGREEMENT),
            tree,
            expected[name],
        )


@pytest.mark.parametrize(
    ("case", "extra", "options"),
    [("maml", 2, {}), ("fomaml", 2, {"order": "first"}), ("anil", 0, {"adapts": "head"})],
)
def test_learner_loss_and_meta_gradient_of_maml_are_recorded(case, extra, options):
    config = maml.Config(inner_lr=RATE, inner_steps=STEPS, **options)
    algorithm, params = maml.build(config, build_model(extra_inputs=extra), REGRESSION), read_weights(case)
    learner = jax.jit(algorithm.adapt)(Weights(params), read_episode(case).support)
    assert_agrees(case, adapted=learner.params, **differentiate(algorithm, case, params))


def test_the_gradient_of_meta_sgd_is_recorded():
    config = maml.Config(inner_steps=STEPS, learned_lr="parameter")
    trained = select(read("meta-sgd")["given"], "params", "rates")
    assert_agrees(
        "meta-sgd", **differentiate(maml.build(config, build_model(), REGRESSION), "meta-sgd", trained)
    )


def test_the_gradient_of_prototypical_networks_is_recorded():
    problem = builders.classification_problem(2)
    algorithm = protonet.build(protonet.Config(), build_model(), problem)
    body = select(read("protonet")["given"], "hidden_0")
    assert_agrees("protonet", **differentiate(algorithm, "protonet", body))


def test_context_and_gradient_of_cavia_are_recorded():
    config = cavia.Config(context=2, inner_lr=1.0, inner_steps=STEPS)
    algorithm, params = cavia.build(config, build_model(), REGRESSION), read_weights("cavia")
    learner = jax.jit(algorithm.adapt)(Weights(params), read_episode("cavia").support)
    assert_agrees("cavia", context=learner.condition, **differentiate(algorithm, "cavia", params))


def test_solver_and_implicit_gradient_of_imaml_are_those_of_its_code():
    config = imaml.Config(
        solver="fixed",
        inner_lr=RATE,
        inner_steps=STEPS,
        proximity=2.0,
        damping=1.0,
        curvature_damping=10.0,
        cg_steps=30,
        cg_tolerance=1e-14,
    )
    algorithm, params = imaml.build(config, build_model(), REGRESSION), read_weights("imaml")
    learner = jax.jit(algorithm.adapt)(Weights(params), read_episode("imaml").support)
    gradient = differentiate(algorithm, "imaml", params)["gradient"]
    assert_agrees("imaml", adapted=learner.params, gradient=gradient)


def test_the_gradient_of_alfa_with_the_options_of_its_code_is_recorded():
    config = alfa.Config(
        inner_steps=STEPS, inner_lr=RATE, decay="subtracted", per_step=True, constant_gradient=True
    )
    given = read("alfa")["given"]
    trained = select(given, "params", "rates", "decays")
    layers = [jax.device_put(given["generator"][name]) for name in ("0", "1")]
    found = differentiate(
        alfa.build(config, build_model(), REGRESSION), "alfa", trained | {"generator": layers}
    )
    found["gradient"]["generator"] = dict(zip(("0", "1"), found["gradient"]["generator"], strict=True))
    assert_agrees("alfa", **found)


def test_reptile_goes_on_with_the_moments_that_it_carries():
    """θ and the moments after the inner loop are what the outer step of rate 1 leads to."""
    options = {"inner_optimizer": "adam_without_momentum", "carries_moments": True, "trains_on": "support"}
    config = reptile.Config(inner_steps=STEPS, inner_lr=RATE, **options)
    given = read("reptile")["given"]
    moments = reptile.Moments(jax.device_put(given["second"]), jax.device_put(given["weight"]))
    trained = {"params": jax.device_put(given["params"]), "moments": moments}
    algorithm = reptile.build(config, build_model(), REGRESSION)
    gradient = differentiate(algorithm, "reptile", trained)["gradient"]
    ends = jax.tree.map(lambda leaf, slope: np.asarray(leaf) - np.asarray(slope), trained, gradient)
    assert_agrees(
        "reptile", params=ends["params"], second=ends["moments"].second, weight=ends["moments"].weight
    )


def test_three_outer_steps_of_adam_are_recorded():
    config = maml.Config(inner_lr=RATE, inner_steps=STEPS)
    outer = make_outer(maml.build(config, build_model(), REGRESSION), "adam")
    adam = optax.adam(0.01)

    @jax.jit
    def train(params):
        def step(state, _):
            updates, memory = adam.update(jax.grad(outer)(state[0]), state[1])
            return (optax.apply_updates(state[0], updates), memory), ()

        return jax.lax.scan(step, (params, adam.init(params)), length=3)[0][0]

    assert_agrees("adam", trained=train(read_weights("adam")))


def test_every_recorded_case_is_compared():
    with np.load(FILE) as stored:
        cases = {name.partition("/")[0] for name in stored.files}
        assert all(stored[name].dtype in (np.float64, np.int64) for name in stored.files)
    source = Path(__file__).read_text("utf-8")
    assert {case for case in cases if f'"{case}"' not in source} == set()
