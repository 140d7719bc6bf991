"""The conditioned learner: each use of a task's vector against its formula, by differences, and MAML without any."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, compiled, gradients, trees
from metarun import base, errors, plugins
from metarun.algorithms import conditioned, maml
from metarun.algorithms.conditioned import vector_source
from metarun.algorithms.task_embedding import fitted_source
from metarun.base import Algorithm, Episode, Examples, Weights

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)  # the outer loss uses no random numbers
RATE = 0.07  # α
SPEC = base.Spec((3,), 2, "numbers")
PROBLEM = builders.make_problem(SPEC)
USES = {
    "offset": {"uses": ("initialisation",)},
    "mixture": {"uses": ("initialisation",), "initialisation": "mixture"},
    "layer": {"uses": ("optimizer",)},
    "parameter": {"uses": ("optimizer",), "optimizer": "parameter"},
    "modulation": {"uses": ("attention",)},
    "experts": {"uses": ("attention",), "attention": "experts"},
    "all": {
        "uses": ("initialisation", "optimizer", "attention"),
        "initialisation": "mixture",
        "optimizer": "parameter",
        "attention": "both",
    },
}


def examples(seed: int, spec: base.Spec = SPEC, count: int = 5) -> Examples:
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((count, *spec.input_shape))
    return Examples(
        jax.device_put(inputs), jax.device_put(generator.standard_normal((count, spec.output_size)))
    )


def episode() -> Episode:
    return Episode(examples(0), examples(1))


def episodes() -> Episode:
    """A batch of four tasks."""
    tasks = [Episode(examples(2 * index), examples(2 * index + 1)) for index in range(4)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *tasks)


def perceptron() -> base.Model:
    return builders.build_model("mlp", SPEC, hidden=(4,), activation="tanh", modulation="features")


def build(earlier=None, **options) -> base.Algorithm:
    small = {"inner_lr": RATE, "width": 12, "embed": 3, "condition": 2, "clusters": 3, "experts": 3}
    config = conditioned.Config(**{**small, **options})
    return compiled.compile_algorithm(conditioned.build(config, perceptron(), PROBLEM, earlier))


def build_maml(**options) -> base.Algorithm:
    config = maml.Config(inner_lr=RATE, **options)
    return compiled.compile_algorithm(maml.build(config, perceptron(), PROBLEM))


def start(algorithm: base.Algorithm):
    """Trained weights of random numbers."""
    shapes = jax.eval_shape(algorithm.init, KEY, episodes(), {}).trained
    return gradients.to_float64(jax.tree.map(lambda leaf: np.asarray(leaf) / 3, trees.normal_like(shapes, 5)))


class Described(NamedTuple):
    """What a stage of task embeddings gives."""

    embedding: jax.Array


def describing() -> dict[str, Algorithm]:
    """An earlier stage whose embedding is its frozen factor times the mean and the spread of the targets."""

    def adapt(weights: Weights, support: Examples) -> Described:
        return Described(
            weights.frozen * jnp.concatenate([support.targets.mean(axis=0), support.targets.std(axis=0)])
        )

    def never(*arguments):
        raise AssertionError("a later stage only adapts an earlier one")

    return {"embedding": Algorithm(never, never, adapt, never)}


@pytest.mark.parametrize("use", ["offset", "layer", "all"])
def test_the_second_order_gradient_is_that_of_differences_of_the_outer_loss(use):
    algorithm = build(inner_steps=2, **USES[use])
    trained, task = start(algorithm), episode()

    def outer(trained):
        return algorithm.loss(Weights(trained), task, KEY, 0.0)[0]

    gradients.assert_gradient_is_that_of_differences(outer, trained)


@pytest.mark.parametrize("use", USES)
def test_two_supports_get_two_learners_before_any_inner_step_unless_e_sets_the_steps_alone(use):
    algorithm = build(inner_steps=0, **USES[use])
    weights = Weights(start(algorithm))

    inputs = examples(9).inputs
    outputs = [compiled.answer(algorithm, weights, examples(seed), inputs) for seed in (0, 1)]
    assert trees.differ(*outputs) == (use not in ("layer", "parameter"))


def test_without_any_use_it_is_maml():
    algorithm = build(uses=(), inner_steps=3)
    trained, support = start(algorithm), examples(0)
    plain = build_maml(inner_steps=3)
    expected = plain.adapt(Weights(trained["params"]), support).params
    trees.assert_close(algorithm.adapt(Weights(trained), support).params, expected, rtol=1e-12)


def test_before_training_the_generated_rates_are_about_inner_lr():
    algorithm = build(uses=("optimizer",))
    weights = algorithm.init(KEY, episodes(), {})
    plain = build_maml()
    params = weights.trained["params"]
    steps = [
        jax.tree.map(np.subtract, learner.params, params)
        for learner in (
            algorithm.adapt(weights, examples(0)),
            plain.adapt(Weights(params), examples(0)),
        )
    ]
    trees.assert_close(*steps, rtol=0.2, atol=0)


def test_a_rate_is_a_learned_number_times_the_exponential_of_a_generated_one():
    algorithm = build(uses=("optimizer",))
    trained, support = start(algorithm), examples(0)
    # one number for each array in the order of jax: first the head's, then the hidden layer's
    bias = np.log([2.0, 3.0, 5.0, 7.0])
    first, last = trained["rate_generator"]
    silent = {"kernel": np.zeros_like(last["kernel"]), "bias": jax.device_put(bias)}
    trained |= {"rate_generator": [first, silent], "rates": jax.tree.map(lambda leaf: RATE, trained["rates"])}
    plain = build_maml()
    params = trained["params"]
    found = algorithm.adapt(Weights(trained), support).params
    once = plain.adapt(Weights(params), support).params
    leaves = (map(np.asarray, jax.tree.leaves(tree)) for tree in (found, once, params))
    for factor, a, b, c in zip((2, 3, 5, 7), *leaves, strict=True):
        np.testing.assert_allclose(a - c, factor * (b - c), rtol=1e-9)


def test_the_mixture_starts_at_the_cluster_that_the_task_is_nearest_to():
    """With a silent encoder e is its last bias: put on a centre far from the others, its start is the start."""
    algorithm = build(uses=("initialisation",), initialisation="mixture", inner_steps=0)
    trained = start(algorithm)
    trained["encoder"] = jax.tree.map(np.zeros_like, trained["encoder"])
    trained["encoder"]["whole"][-1]["bias"] = jnp.array([9.0, 0.0, -9.0])
    trained["centres"] = jnp.array([[0.0, 0.0, 0.0], [9.0, 0.0, -9.0], [0.0, 9.0, 9.0]])
    expected = compiled.select(trained["params"], 1)
    trees.assert_close(algorithm.adapt(Weights(trained), examples(0)).params, expected, rtol=1e-12)


def test_experts_are_averaged_where_the_keys_do_not_tell_them_apart():
    algorithm = build(uses=("attention",), attention="experts", inner_steps=0)
    trained = start(algorithm)
    bank = trained["bank"]["head"]["kernel"]
    bank["keys"] = np.ones_like(bank["keys"])
    found = algorithm.adapt(Weights(trained), examples(0)).params["head"]["kernel"]
    expected = np.asarray(trained["params"]["head"]["kernel"]) + np.mean(bank["values"], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_modulation_scales_and_offsets_before_the_activation_and_its_maps_do_not_adapt():
    algorithm = build(uses=("attention",), inner_steps=2)
    trained = start(algorithm)
    learner = algorithm.adapt(Weights(trained), examples(0))
    params, inputs = learner.params, np.asarray(examples(1).inputs)
    maps = params["modulations_0"]
    trees.assert_equal(maps, trained["params"]["modulations_0"])
    params, maps, condition = jax.tree.map(np.asarray, (params, maps, learner.condition))  # numpy broadcasts
    hidden = inputs @ params["hidden_0"]["kernel"] + params["hidden_0"]["bias"]
    scaled = hidden * (1 + condition @ maps["scale_map"]) + condition @ maps["offset_map"]
    expected = np.tanh(scaled) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(algorithm.predict(learner, inputs), expected, rtol=1e-12)


def test_an_earlier_stage_gives_the_vector_standardised_over_the_first_tasks_whatever_its_units():
    earlier = describing()
    algorithm = build(earlier, embedding="embedding", uses=("initialisation",), inner_steps=0)
    found = [algorithm.init(KEY, episodes(), {"embedding": Weights((), factor)}) for factor in (1.0, 1000.0)]
    assert "encoder" not in found[0].trained
    learners = [algorithm.adapt(weights, examples(0)).params for weights in found]
    trees.assert_close(*learners, rtol=1e-9)
    describe = jax.jit(jax.vmap(earlier["embedding"].adapt, in_axes=(None, 0)))
    vectors = describe(Weights((), 1.0), episodes().support).embedding
    np.testing.assert_allclose(found[0].frozen["mean"], np.mean(vectors, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found[0].frozen["deviation"], np.std(vectors, axis=0), rtol=1e-12)


class Fitted(NamedTuple):
    """What a stage gives that keeps what its vectors were fitted to."""

    embedding: jax.Array
    fit: fitted_source.Fit


def fitting(centres=None) -> dict[str, Algorithm]:
    """The stage of `describing`, with a mean, a deviation and perhaps clusters of the tasks of its fit."""
    stage = describing()["embedding"]
    fit = fitted_source.Fit(jnp.arange(4.0), jnp.array([2.0, 1.0, 4.0, 0.5]), centres)
    return {"embedding": stage._replace(adapt=lambda *task: Fitted(stage.adapt(*task).embedding, fit))}


def test_a_stage_that_keeps_its_fit_gives_vectors_standardised_over_the_tasks_of_the_fit():
    earlier = fitting()
    algorithm = build(earlier, embedding="embedding", uses=("initialisation",), inner_steps=0)
    frozen = algorithm.init(KEY, episodes(), {"embedding": Weights((), 1.0)}).frozen
    np.testing.assert_array_equal(frozen["mean"], np.arange(4.0))
    np.testing.assert_array_equal(frozen["deviation"], [2.0, 1.0, 4.0, 0.5])


def test_the_mixture_can_begin_at_the_clusters_of_the_embedding_in_the_units_of_its_vectors():
    centres = np.arange(12.0).reshape(3, 4)
    options = {
        "embedding": "embedding",
        "uses": ("initialisation",),
        "initialisation": "mixture",
        "clusters": 3,
    }
    algorithm = build(fitting(jnp.asarray(centres)), **options, centres="embedding")
    found = algorithm.init(KEY, episodes(), {"embedding": Weights((), 1.0)}).trained["centres"]
    np.testing.assert_allclose(found, (centres - np.arange(4.0)) / [2.0, 1.0, 4.0, 0.5], rtol=1e-12)
    for earlier in (fitting(), fitting(jnp.asarray(centres[:2]))):
        with pytest.raises(errors.ConfigError, match="clusters, and the mixture 3"):
            build(earlier, **options, centres="embedding").init(
                KEY, episodes(), {"embedding": Weights((), 1.0)}
            )
    config = plugins.read_config_class("algorithm", "conditioned")
    with pytest.raises(ValueError, match="no mixture"):
        config(embedding="embedding", centres="embedding")


def test_a_shuffled_vector_is_that_of_another_task_whatever_the_order_of_the_support():
    """The start of a task is that which its own vector would give to one of the tasks of the first step."""
    earlier = {"embedding": Weights((), 1.0)}
    own, shuffled = (
        build(describing(), embedding="embedding", uses=("initialisation",), inner_steps=0, vector=vector)
        for vector in ("own", "shuffled")
    )
    weights = shuffled.init(KEY, episodes(), earlier)
    trees.assert_equal(weights.frozen["others"], episodes().support)
    starts = [shuffled.adapt(weights, examples(seed)).params for seed in (20, 21, 22, 23)]
    plain = own.init(KEY, episodes(), earlier)
    known = [own.adapt(plain, compiled.select(episodes().support, task)).params for task in range(4)]
    chosen = [[not trees.differ(start, other) for other in known].index(True) for start in starts]
    assert len(set(chosen)) > 1
    turned = compiled.select(examples(20), slice(None, None, -1))
    trees.assert_equal(shuffled.adapt(weights, turned).params, starts[0])


def test_a_trained_encoder_reads_the_support_of_another_task_where_the_vector_is_shuffled():
    algorithm = build(uses=("initialisation",), inner_steps=0, vector="shuffled")
    weights = algorithm.init(KEY, episodes(), {})
    place = int(jax.jit(vector_source.hash_numbers)(examples(20))) % 4
    plain = build(uses=("initialisation",), inner_steps=0)
    other = compiled.select(episodes().support, place)
    expected = plain.adapt(Weights(weights.trained), other).params
    trees.assert_close(algorithm.adapt(weights, examples(20)).params, expected, rtol=1e-12)


def test_a_number_that_the_first_tasks_share_is_not_blown_up_in_others():
    vectors, measure = (
        np.array([[1.0, 2.0, 5e-9], [3.0, 2.0, 5e-9]]),
        jax.jit(vector_source.measure_deviations),
    )
    np.testing.assert_allclose(measure(vectors), [1, 1, 1])
    np.testing.assert_allclose(measure(1e-9 * vectors), [1e-9, 1e-9, 1e-9])
    np.testing.assert_array_equal(measure(vectors[:1]), [1, 1, 1])


def test_an_embedding_that_is_no_earlier_stage_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match="embeding") as refused:
        build(describing(), embedding="embeding")
    assert "one of embedding" in refused.value.args[1]


def test_a_stage_that_gives_no_embedding_is_refused():
    stage = builders.build_algorithm("maml", perceptron(), PROBLEM)
    algorithm = build({"maml": stage}, embedding="maml")
    weights = jax.eval_shape(stage.init, KEY, episodes(), {})
    with pytest.raises(errors.ConfigError, match="gives no embedding"):
        jax.eval_shape(algorithm.init, KEY, episodes(), {"maml": weights})


def test_a_use_that_stands_there_twice_is_refused():
    config = plugins.read_config_class("algorithm", "conditioned")
    with pytest.raises(ValueError, match="twice"):
        config(uses=("attention", "attention"))


def test_the_condition_of_the_perceptron_stands_beside_its_inputs_unless_it_modulates():
    shapes = {}
    for modulation in ("inputs", "features"):
        model = builders.build_model("mlp", SPEC, hidden=(4,), modulation=modulation)
        init = functools.partial(model.init, condition=jax.device_put(np.zeros(2)))
        params = jax.eval_shape(init, KEY, examples(0).inputs)
        shapes[modulation] = params["hidden_0"]["kernel"].shape, "modulations_0" in params
    assert shapes == {"inputs": ((5, 4), False), "features": ((3, 4), True)}


def test_clusters_experts_and_condition_are_numbers_of_what_is_trained():
    trained = start(build(**USES["all"]))
    sizes = {
        name: {leaf.shape[0] for leaf in jax.tree.leaves(trained[name])} for name in ("params", "centres")
    }
    assert sizes == {"params": {3}, "centres": {3}}
    assert trained["bank"]["head"]["kernel"]["values"].shape == (3, 4, 2)
    wider = start(
        build(uses=("initialisation", "attention"), initialisation="mixture", clusters=4, condition=6)
    )
    assert wider["centres"].shape == (4, 3)
    assert wider["condition"][-1]["bias"].shape == (6,)
    assert wider["params"]["modulations_0"]["scale_map"].shape == (4, 6, 4)


@pytest.mark.float32
def test_the_graph_weighs_the_distance_from_the_kind_and_takes_as_many_steps_as_it_is_told():
    family = builders.build_task("mixture", shots=3, queries=3)
    network = builders.build_model("mlp", family.problem.spec, hidden=(4,))
    batch = compiled.sample(family, KEY, 12)
    task = compiled.select(batch, 0)

    def make(**options) -> base.Algorithm:
        config = conditioned.Config(graph="family", width=6, embed=3, uses=("initialisation",), **options)
        return conditioned.build(config, network, family.problem)

    weights = jax.jit(make().init)(KEY, batch, {})
    algorithms = [
        make(**options)
        for options in ({"memory_weight": 0.0}, {"memory_weight": 3.0}, {"propagation_steps": 0})
    ]

    @jax.jit
    def compute(weights, task):
        return [algorithm.loss(weights, task, KEY, 0.0) for algorithm in algorithms]

    plain, heavy, unmoved = compute(weights, task)
    np.testing.assert_allclose(heavy[0] - plain[0], 3 * plain[1]["memory_loss"], rtol=1e-4)
    assert unmoved[1]["loss"] != plain[1]["loss"]
