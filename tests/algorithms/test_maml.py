"""MAML's meta-gradient in closed form, by differences, and whatever way the inner loop is compiled."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, compiled, gradients, trees
from metarun import base, errors, losses
from metarun.algorithms import maml
from metarun.base import Episode, Examples, Weights

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)  # MAML's outer loss uses no random numbers
RATE = 0.07  # α


def slope_model() -> base.Model:
    """f(x) = θ·x with the one parameter θ."""

    def apply(params, inputs, *, condition=None, reference=None):
        return params * inputs

    return base.Model(lambda key, inputs: jnp.asarray(0.3), apply, apply)


class Line:
    """Two lines of slope w through the origin: every loss is a parabola in θ around its w."""

    support_slope, query_slope, start = 1.5, 0.8, -0.4
    support_inputs = np.array([[1.0], [-2.0], [0.5]])
    query_inputs = np.array([[0.7], [1.1]])
    curvature = 2 * (support_inputs**2).mean()  # h, the second derivative of the support loss
    query_curvature = 2 * (query_inputs**2).mean()

    def episode(self) -> Episode:
        def examples(inputs, slope):
            return Examples(jax.device_put(inputs), jax.device_put(slope * inputs))

        return Episode(
            examples(self.support_inputs, self.support_slope), examples(self.query_inputs, self.query_slope)
        )

    def shrinking(self, steps: int) -> float:
        """∂θ_K/∂θ = (1 − α·h)^K."""
        return (1 - RATE * self.curvature) ** steps

    def adapted(self, steps: int) -> float:
        """θ_K = w + (1 − α·h)^K (θ − w)."""
        return self.support_slope + self.shrinking(steps) * (self.start - self.support_slope)


WAYS_TO_COMPILE = [
    {"loop": loop, "rematerialise": again}
    for loop, again in itertools.product(("scan", "unroll"), (False, True))
]


def build(model: base.Model, problem: base.Problem, **options) -> base.Algorithm:
    algorithm = maml.build(maml.Config(**{"inner_lr": RATE, **options}), model, problem)
    return compiled.compile_algorithm(algorithm)


@functools.partial(jax.jit, static_argnums=0)
def outer_and_gradient(algorithm: base.Algorithm, params, episode: Episode):
    """Return the outer loss and its gradient."""
    return jax.value_and_grad(lambda params: algorithm.loss(Weights(params), episode, KEY, 0.0)[0])(params)


def meta_gradient(algorithm: base.Algorithm, params, episode: Episode):
    return outer_and_gradient(algorithm, params, episode)[1]


# The other ways to compile give the same numbers; see below. They are tried here where a loop has no step, and many.
@pytest.mark.parametrize(
    ("steps", "order", "compiled"),
    [(steps, order, WAYS_TO_COMPILE[0]) for steps in (0, 1, 3) for order in ("first", "second")]
    + [(steps, "second", compiled) for steps in (0, 3) for compiled in WAYS_TO_COMPILE[1:]],
    ids=str,
)
def test_on_a_parabola_the_meta_gradient_has_its_closed_form(steps, order, compiled):
    line = Line()
    algorithm = build(
        slope_model(), builders.regression_problem(), inner_steps=steps, order=order, **compiled
    )
    start, episode = jax.device_put(line.start), line.episode()
    learner = algorithm.adapt(Weights(start), episode.support)
    np.testing.assert_allclose(learner.params, line.adapted(steps), rtol=1e-12)
    slope = line.query_curvature * (line.adapted(steps) - line.query_slope)  # of the query loss, at θ_K
    expected = slope * (line.shrinking(steps) if order == "second" else 1.0)
    np.testing.assert_allclose(meta_gradient(algorithm, start, episode), expected, rtol=1e-12)


def random_episode(spec: base.Spec, whole_labels: bool) -> Episode:
    generator = np.random.default_rng(3)

    def examples(count):
        inputs = jax.device_put(generator.standard_normal((count, *spec.input_shape)))
        if whole_labels:
            return Examples(inputs, jax.device_put(np.arange(count, dtype=np.int32) % spec.output_size))
        return Examples(inputs, jax.device_put(generator.standard_normal((count, spec.output_size))))

    return Episode(examples(4), examples(3))


def descend(leaf, slope):
    """Return a leaf after one step, in numpy."""
    return np.asarray(leaf) - RATE * np.asarray(slope)


class Network:
    """A small smooth network on a random episode, in float64."""

    def __init__(self, name: str, mode: str = "inductive") -> None:
        spec = base.Spec((4, 4, 1), 2, "classes") if name == "conv4" else base.Spec((2,), 2, "numbers")
        small = {"hidden": (4,), "activation": "tanh", "depth": 1, "width": 2, "normalisation": "batch"}
        self.model = builders.build_model(name, spec, **small)
        self.model = builders.transductive(self.model) if mode == "transductive" else self.model
        self.problem = builders.make_problem(spec)
        self.objective = self.problem.objective
        self.episode = random_episode(spec, whole_labels=name == "conv4")
        shapes = jax.eval_shape(self.model.init, KEY, self.episode.support.inputs)
        self.params = gradients.to_float64(trees.normal_like(shapes, 1))

        self.support_slope = jax.jit(jax.grad(self.support_loss))

    @functools.cache  # noqa: B019 - as long as the networks, which are few
    def algorithm(self, **options) -> base.Algorithm:
        return build(self.model, self.problem, **options)

    def adapted(self, algorithm: base.Algorithm):
        return algorithm.adapt(Weights(self.params), self.episode.support)

    def support_loss(self, params):
        inputs, targets = self.episode.support
        return self.objective.loss(self.model.apply(params, inputs, reference=inputs), targets)

    def query_loss(self, params):
        inputs, targets = self.episode.query
        outputs = self.model.apply(params, inputs, reference=self.episode.support.inputs)
        return self.objective.loss(outputs, targets)


make_network = functools.cache(Network)


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
@pytest.mark.parametrize("name", ["mlp", "conv4"])
def test_the_second_order_meta_gradient_is_that_of_differences_of_the_outer_loss(name, mode):
    network = make_network(name, mode)
    algorithm = network.algorithm(inner_steps=2)

    def outer(params):
        return algorithm.loss(Weights(params), network.episode, KEY, 0.0)[0]

    gradients.assert_gradient_is_that_of_differences(outer, network.params)


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
def test_the_first_order_meta_gradient_is_the_query_gradient_at_the_adapted_parameters(mode):
    network = make_network("mlp", mode)
    algorithm = network.algorithm(inner_steps=3, order="first")
    expected = jax.jit(jax.grad(network.query_loss))(network.adapted(algorithm).params)
    gradient = meta_gradient(algorithm, network.params, network.episode)
    trees.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


def test_first_order_maml_drops_the_hessian_term():
    network = make_network("mlp")
    first, second = (
        meta_gradient(network.algorithm(inner_steps=1, order=order), network.params, network.episode)
        for order in ("first", "second")
    )

    @jax.jit
    def hessian_times(vector):
        return jax.jvp(jax.grad(network.support_loss), (network.params,), (vector,))[1]

    hessian_times_first = hessian_times(first)
    expected = jax.tree.map(descend, first, hessian_times_first)
    trees.assert_close(second, expected, rtol=1e-10, atol=1e-12)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(hessian_times_first)) > 1e-3


@pytest.mark.parametrize("order", ["first", "second"])
def test_scanned_unrolled_and_rematerialised_inner_loops_are_the_same_function(order):
    network = make_network("mlp")
    first, *others = (
        meta_gradient(
            network.algorithm(inner_steps=2, order=order, **compiled), network.params, network.episode
        )
        for compiled in WAYS_TO_COMPILE
    )
    for other in others:
        trees.assert_close(other, first, rtol=1e-11, atol=1e-13)


def test_every_inner_step_is_gradient_descent_on_the_support_loss():
    network = make_network("mlp")
    params = network.params
    for _ in range(2):
        params = jax.tree.map(descend, params, network.support_slope(params))
    learner = network.adapted(network.algorithm(inner_steps=2))
    trees.assert_close(learner.params, params, rtol=1e-12, atol=1e-14)


def test_without_inner_steps_nothing_is_adapted():
    network = make_network("mlp")
    algorithm = network.algorithm(inner_steps=0)
    learner = network.adapted(algorithm)
    trees.assert_equal(learner.params, network.params)
    gradient = meta_gradient(algorithm, network.params, network.episode)
    trees.assert_close(
        gradient, jax.jit(jax.grad(network.query_loss))(network.params), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
def test_the_outer_loss_is_the_query_loss_of_what_adapt_and_predict_give(mode):
    network = make_network("conv4", mode)
    algorithm = network.algorithm(inner_steps=2)
    weights, query = Weights(network.params), network.episode.query

    @jax.jit
    def judge(learner):
        expected = network.objective.metrics(lambda inputs: algorithm.predict(learner, inputs), query)
        return losses.cross_entropy(algorithm.predict(learner, query.inputs), query.targets), expected

    expected_loss, expected = judge(algorithm.adapt(weights, network.episode.support))
    loss, metrics = algorithm.loss(weights, network.episode, KEY, 0.0)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-12)
    trees.assert_close(metrics, expected, rtol=1e-12)


def test_adaptation_sees_neither_the_query_nor_the_facts():
    network = make_network("mlp")
    watched = network.objective._replace(training_metrics=lambda outputs, targets: {"outputs": outputs})
    algorithm = build(network.model, network.problem._replace(objective=watched), inner_steps=2)
    inputs, targets = network.episode.query

    @jax.jit
    def outputs(targets, facts):
        episode = Episode(network.episode.support, Examples(inputs, targets), facts)
        return algorithm.loss(Weights(network.params), episode, KEY, 0.0)[1]["outputs"]

    seen, hidden = ({"amplitude": jnp.asarray(value)} for value in (1.0, jnp.nan))
    trees.assert_equal(outputs(targets, seen), outputs(np.asarray(targets) + 100, hidden))


def test_the_start_is_the_models_own_initialisation():
    network = make_network("mlp")
    batch = jax.tree.map(lambda leaf: np.stack([leaf, 2 * np.asarray(leaf)]), network.episode)
    weights = network.algorithm().init(KEY, batch, {})
    expected = jax.jit(network.model.init)(KEY, network.episode.support.inputs)
    trees.assert_equal(weights, Weights(expected))


@pytest.mark.parametrize(("adapts", "moving"), [("head", {"head"}), ("body", {"hidden_0", "norms_0"})])
def test_anil_adapts_the_head_alone_and_boil_all_but_the_head(adapts, moving):
    network = make_network("mlp")
    everything = network.adapted(network.algorithm(inner_steps=1)).params
    learner = network.adapted(network.algorithm(inner_steps=1, adapts=adapts))
    for name, layer in learner.params.items():
        trees.assert_close(layer, (everything if name in moving else network.params)[name], rtol=1e-12)
    assert all(trees.differ(learner.params[name], network.params[name]) for name in moving)


@pytest.mark.parametrize(
    "option", [{"adapts": "head"}, {"normalisation_per_step": True}, {"adapts_normalisation": False}]
)
def test_a_model_without_what_the_config_names_is_refused(option):
    episodes = jax.tree.map(lambda leaf: np.asarray(leaf)[None], Line().episode())
    with pytest.raises(errors.ConfigError, match=r"last layer|scales and offsets"):
        build(slope_model(), builders.regression_problem(), **option).init(KEY, episodes, {})


class Learned:
    """MAML with learned rates on the small network: what is trained, with rates of random numbers."""

    def __init__(self, learned_lr: str, **options) -> None:
        self.network = make_network("mlp")
        self.algorithm = self.network.algorithm(learned_lr=learned_lr, inner_steps=2, **options)
        episodes = jax.tree.map(lambda leaf: np.asarray(leaf)[None], self.network.episode)
        self.initial = self.algorithm.init(KEY, episodes, {}).trained
        noise = trees.normal_like(self.initial["rates"], 8)
        rates = jax.tree.map(lambda leaf: jnp.asarray(0.1 + 0.02 * np.asarray(leaf), jnp.float64), noise)
        self.trained = {"params": self.network.params, "rates": rates}

    def outer(self, trained):
        return self.algorithm.loss(Weights(trained), self.network.episode, KEY, 0.0)[0]

    def descended(self, rate_of_step):
        """Two steps by hand; `rate_of_step(k)` is a tree of rates like the parameters."""
        params, gradient = self.network.params, self.network.support_slope
        for index in range(2):
            parts = jax.tree.map(np.asarray, (params, rate_of_step(index), gradient(params)))
            params = jax.tree.map(lambda p, a, s: p - a * s, *parts)
        return params


LEARNED = ["global", "layer", "parameter", "layer_and_step"]


@pytest.mark.parametrize("learned_lr", LEARNED)
def test_learned_rates_start_at_inner_lr_and_are_as_many_as_the_option_says(learned_lr):
    case = Learned(learned_lr)
    shapes = {
        "global": lambda leaf: (),
        "layer": lambda leaf: (),
        "parameter": jnp.shape,
        "layer_and_step": lambda leaf: (2,),
    }
    rates, params = case.initial["rates"], case.network.params
    expected = () if learned_lr == "global" else jax.tree.map(shapes[learned_lr], params)
    assert jax.tree.map(jnp.shape, rates) == expected
    for leaf in jax.tree.leaves(rates):
        np.testing.assert_allclose(leaf, RATE, rtol=1e-6)


@pytest.mark.parametrize("loop", ["scan", "unroll"])
@pytest.mark.parametrize("learned_lr", LEARNED)
def test_every_parameter_descends_at_its_own_learned_rate(learned_lr, loop):
    case = Learned(learned_lr, loop=loop)
    rates = case.trained["rates"]

    def rate_of_step(index):
        if learned_lr == "global":
            return jax.tree.map(lambda _: rates, case.network.params)
        return compiled.select(rates, index) if learned_lr == "layer_and_step" else rates

    learner = case.algorithm.adapt(Weights(case.trained), case.network.episode.support)
    trees.assert_close(learner.params, case.descended(rate_of_step), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("learned_lr", LEARNED)
def test_the_gradient_of_learned_rates_is_that_of_differences(learned_lr):
    case = Learned(learned_lr)
    gradients.assert_gradient_is_that_of_differences(case.outer, case.trained)


def test_steps_beyond_those_of_the_training_take_the_last_rate():
    case = Learned("layer_and_step")
    rates = case.trained["rates"]
    longer = compiled.select(rates, np.array([0, 1, 1, 1]))

    def adapted(rates, steps):
        algorithm = case.network.algorithm(learned_lr="layer_and_step", inner_steps=steps)
        weights = Weights({"params": case.network.params, "rates": rates})
        return algorithm.adapt(weights, case.network.episode.support)

    trees.assert_equal(adapted(rates, 4), adapted(longer, 4))
    trees.assert_equal(adapted(rates, 0).params, case.network.params)


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_the_multi_step_loss_is_the_mean_of_the_query_losses_after_each_step(loop):
    network = make_network("mlp")
    many = network.algorithm(inner_steps=3, outer_loss="all", loop=loop)
    single = [network.algorithm(inner_steps=steps) for steps in (1, 2, 3)]

    loss, gradient = outer_and_gradient(many, network.params, network.episode)
    parts = [outer_and_gradient(algorithm, network.params, network.episode) for algorithm in single]
    expected, mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *parts)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    trees.assert_close(gradient, mean, rtol=1e-9, atol=1e-12)


def test_the_annealed_loss_moves_from_all_steps_to_the_last_one():
    network = make_network("mlp")
    annealed, every, last = (
        network.algorithm(inner_steps=3, outer_loss=name) for name in ("annealed", "all", "last")
    )

    def outer(algorithm, progress):
        return float(algorithm.loss(Weights(network.params), network.episode, KEY, progress)[0])

    np.testing.assert_allclose(outer(annealed, 0.0), outer(every, 0.0), rtol=1e-12)
    np.testing.assert_allclose(outer(annealed, 0.1), outer(last, 0.0), rtol=1e-12)
    np.testing.assert_allclose(outer(annealed, 0.9), outer(last, 0.9), rtol=1e-12)
    weigh = jax.jit(maml.weigh_steps, static_argnums=0)
    np.testing.assert_allclose(weigh(4, 0.05), [0.125, 0.125, 0.125, 0.625], rtol=1e-6)
    np.testing.assert_allclose(weigh(4, 0.0999), [0.0075, 0.0075, 0.0075, 0.9775], rtol=1e-6)


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_with_normalisation_per_step_each_step_has_its_own_scales_and_offsets_and_none_adapts(loop):
    network = make_network("mlp")
    algorithm = network.algorithm(inner_steps=2, normalisation_per_step=True, loop=loop)
    first, second = ({"scale": np.full(4, a), "offset": np.full(4, b)} for a, b in ((1.5, 0.1), (0.7, -0.2)))
    norms = jax.tree.map(lambda *rows: jax.device_put(np.stack(rows)), first, second)
    trained = network.params | {"norms_0": norms}
    params = network.params
    for norm in (first, second):
        params = jax.tree.map(descend, params, network.support_slope(params | {"norms_0": norm}))
    learner = algorithm.adapt(Weights(trained), network.episode.support)
    trees.assert_close(learner.params, params | {"norms_0": second}, rtol=1e-11, atol=1e-13)

    episodes = jax.tree.map(lambda leaf: np.asarray(leaf)[None], network.episode)
    initial = jax.eval_shape(algorithm.init, KEY, episodes, {}).trained["norms_0"]
    assert jax.tree.map(jnp.shape, initial) == {"scale": (2, 4), "offset": (2, 4)}
    unadapted = network.algorithm(inner_steps=0, normalisation_per_step=True).adapt(
        Weights(trained), network.episode.support
    )
    trees.assert_equal(unadapted.params, network.params | {"norms_0": first})


def test_the_inner_loss_sum_is_the_mean_times_the_ways():
    network = make_network("conv4")  # 2 ways
    summed = network.adapted(network.algorithm(inner_steps=2, inner_loss="sum"))
    mean = network.adapted(network.algorithm(inner_steps=2, inner_lr=2 * RATE))
    trees.assert_close(summed, mean, rtol=1e-10)
    labels = np.asarray(network.episode.support.targets)
    inputs = network.episode.support.inputs

    def sum_of_the_classes_means(params):
        logits = jax.nn.log_softmax(network.model.apply(params, inputs, reference=inputs))
        of_each = -logits[np.arange(len(labels)), labels]
        return sum(of_each[labels == way].mean() for way in range(2))

    slope = jax.jit(jax.grad(sum_of_the_classes_means))(network.params)
    once = network.adapted(network.algorithm(inner_steps=1, inner_loss="sum"))
    by_hand = jax.tree.map(descend, network.params, slope)
    trees.assert_close(once.params, by_hand, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["momentum", "rmsprop", "adam", "adam_without_momentum"])
def test_the_gradient_through_an_inner_optimizer_is_that_of_differences(name):
    network = make_network("mlp")
    algorithm = network.algorithm(inner_steps=2, inner_optimizer=name, inner_lr=0.01)

    def outer(params):
        return algorithm.loss(Weights(params), network.episode, KEY, 0.0)[0]

    gradients.assert_gradient_is_that_of_differences(outer, network.params)


@pytest.mark.parametrize("name", ["rmsprop", "adam"])
def test_a_gradient_of_zero_leaves_the_outer_gradient_finite(name):
    algorithm = build(slope_model(), builders.regression_problem(), inner_optimizer=name)
    solved = jnp.asarray(Line.support_slope)
    assert np.isfinite(meta_gradient(algorithm, solved, Line().episode()))


def test_a_normalisation_that_does_not_adapt_is_the_same_for_all_tasks_and_still_learned():
    network = make_network("conv4")
    algorithm, params = network.algorithm(adapts_normalisation=False), network.params
    learner = network.adapted(algorithm)
    block = next(name for name in params if name != base.HEAD)
    norm = next(name for name, part in params[block].items() if isinstance(part, dict))
    trees.assert_equal(learner.params[block][norm], params[block][norm])
    assert trees.differ(learner.params[base.HEAD], params[base.HEAD])
    assert trees.differ(learner.params[block][base.KERNEL], params[block][base.KERNEL])
    slope = meta_gradient(algorithm, params, network.episode)[block][norm]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope))
