"""The Transformer for sentences: causal, blind to padding, and refused where the inputs are no sentences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, gradients, trees
from metarun import base, plugins
from metarun.models import seq2seq
from metarun.tasks import _sentences

KEY = jax.random.key(0)
SPEC = base.Spec((6,), 9, "tokens", vocabulary=8)


@pytest.fixture(scope="module")
def model() -> base.Model:
    return builders.build_model("seq2seq", SPEC)


@pytest.fixture(scope="module")
def inputs():
    return jax.tree.map(jax.device_put, builders.inputs_for(SPEC, np.random.default_rng(0), 3))


@pytest.fixture(scope="module")
def params(model, inputs):
    return trees.normal_like(jax.eval_shape(model.init, KEY, inputs), 1)


@pytest.fixture(scope="module")
def apply(model):
    return jax.jit(lambda params, inputs: model.apply(params, inputs))


@pytest.fixture(scope="module")
def embed(model):
    return jax.jit(lambda params, inputs: model.embed(params, inputs))


def test_outputs_are_a_logit_for_every_token_at_every_position(apply, params, inputs):
    logits = apply(params, inputs)
    assert logits.shape == (3, 6, 9)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()


def test_no_position_sees_a_later_token_of_the_prefix(apply, params, inputs):
    before = np.asarray(apply(params, inputs))
    for position in range(6):
        changed = np.array(inputs["prefix"])
        changed[:, position] = (changed[:, position] + 1) % 9
        after = np.asarray(apply(params, inputs | {"prefix": changed}))
        np.testing.assert_array_equal(after[:, :position], before[:, :position])
        assert np.abs(after[:, position:] - before[:, position:]).max() > 1e-3


def test_tokens_behind_padding_of_the_source_do_not_exist(apply, embed, params, inputs):
    """A source with more padding gives the same answers: padding is masked, not read as a word."""
    short = np.array(inputs["source"])
    short[:, 3:] = 0
    moved = jax.tree.map(np.asarray, params)  # other vectors for padding, and for the places where it stands
    embedding = dict(moved["source_embedding"])
    embedding["tokens"] = np.concatenate([-3 * embedding["tokens"][:1], embedding["tokens"][1:]])
    embedding["positions"] = np.concatenate([embedding["positions"][:3], -3 * embedding["positions"][3:]])
    moved = moved | {"source_embedding": embedding}
    given = inputs | {"source": short}
    for method in (apply, embed):
        np.testing.assert_allclose(method(moved, given), method(params, given), rtol=1e-5, atol=1e-5)
    full = inputs | {"source": np.where(short == 0, 1, short)}
    assert np.abs(np.subtract(apply(moved, full), apply(params, full))).max() > 1e-3


def test_features_are_the_mean_of_the_encoded_words(embed, params, inputs):
    one = {name: np.asarray(tokens)[:1] for name, tokens in inputs.items()}
    alone = {**one, "source": np.where(np.arange(6)[None] < 1, one["source"], 0)}
    pair = {**one, "source": np.where(np.arange(6)[None] < 2, one["source"], 0)}
    assert embed(params, alone).shape == (1, 4)
    assert trees.differ(embed(params, alone), embed(params, pair))
    other = {**pair, "prefix": np.ones_like(pair["prefix"])}
    np.testing.assert_array_equal(embed(params, other), embed(params, pair))


@pytest.mark.slow
def test_the_second_derivative_is_that_of_differences(inputs):
    """What second-order MAML needs: the gradient of the loss after one inner step."""
    model = builders.build_model("seq2seq", SPEC, depth=1)
    with gradients.float64():
        params = gradients.to_float64(trees.normal_like(jax.eval_shape(model.init, KEY, inputs), 2))

        def loss(params):
            return jnp.mean(jnp.sin(model.apply(params, inputs)))

        def adapted(params):
            gradient = jax.grad(loss)(params)
            return loss(jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, params, gradient))

        gradients.assert_gradient_is_that_of_differences(adapted, params, directions=1)


@pytest.mark.slow
def test_it_can_learn_to_reverse_sentences(model, inputs):
    """Order is what a bag of words cannot have: 150 steps bring the loss near zero."""
    generator = np.random.default_rng(0)
    model = seq2seq.build(
        seq2seq.Config(width=32, heads=4, feedforward=32), base.Spec((4,), 8, "tokens", vocabulary=8)
    )
    source = generator.integers(3, 8, (64, 4)).astype(np.int32)
    target = source[:, ::-1]
    given = {
        "source": source,
        "prefix": np.concatenate([np.ones((64, 1), np.int32), target[:, :-1]], axis=1),
    }

    def loss(params):
        logits = jax.nn.log_softmax(model.apply(params, given))
        return -jnp.mean(jnp.take_along_axis(logits, target[..., None], axis=-1))

    @jax.jit
    def descend(params):
        def step(_, params):
            slope = jax.grad(loss)(params)
            return jax.tree.map(lambda leaf, part: leaf - 0.5 * part, params, slope)

        return jax.lax.fori_loop(0, 150, step, params)

    params, compute = jax.jit(model.init)(KEY, given), jax.jit(loss)
    assert compute(params) > 1.0
    assert compute(descend(params)) < 0.2


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="3 heads do not divide the width 64"):
        seq2seq.Config(heads=3)


@pytest.mark.parametrize("spec", [base.Spec((8, 8, 1), 3, "classes"), base.Spec((3,), 2, "numbers")])
def test_pictures_and_vectors_are_refused_with_a_remedy(spec):
    with pytest.raises(ValueError, match="seq2seq needs sentences") as caught:
        seq2seq.build(seq2seq.Config(), spec)
    assert "mlp" in caught.value.args[1]


@pytest.mark.parametrize("name", [name for name in plugins.list_names("model") if name != "seq2seq"])
def test_every_other_model_refuses_sentences(name):
    with pytest.raises(ValueError):
        builders.build_model(name, SPEC)


@pytest.fixture(scope="module")
def deep() -> base.Model:
    return builders.build_model("seq2seq", SPEC, depth=2)


def decode_anew(model: base.Model, params, source, length: int):
    """Decode with a whole forward pass for every token, which `_sentences.translate` does without GREEDY."""
    inputs = {"source": source, "prefix": jnp.zeros((source.shape[0], length), jnp.int32)}

    def predict(inputs):
        return model.apply(params, {name: inputs[name] for name in ("source", "prefix")})

    return _sentences.translate(predict, inputs)


def test_sentences_with_remembered_keys_and_values_are_those_decoded_anew(deep, inputs):
    generator = np.random.default_rng(3)
    source = generator.integers(3, 8, (7, 6)).astype(np.int32)
    source[::2, 4:] = 0
    source = jnp.asarray(source)

    @jax.jit
    def both(params):
        whole = deep.apply(params, {"source": source, base.GREEDY: jnp.zeros((7, 6), jnp.int32)})
        return whole, decode_anew(deep, params, source, 6)

    ended = 0
    for seed in range(6):
        params = trees.normal_like(jax.eval_shape(deep.init, KEY, inputs), seed)
        whole, anew = map(np.asarray, both(params))
        np.testing.assert_array_equal(whole, anew)
        assert whole.dtype == np.int32
        ended += (whole == base.END).any(axis=1).sum()
    assert 0 < ended < 6 * 7  # some end early, and some never


def test_the_logits_of_one_token_after_another_are_those_of_the_whole_prefix(deep, inputs):
    """The cache in numbers: equal to 1e-5 at every position, not only in the choice of the token."""
    params = trees.normal_like(jax.eval_shape(deep.init, KEY, inputs), 5)
    settings = seq2seq.Config(**builders.select_options("model", "seq2seq", {"depth": 2}))
    module = seq2seq.Transformer(settings, 8, 9, 6)

    @jax.jit
    def say_all(params):
        memories = module.apply({"params": params}, inputs["source"], 6, method="begin")
        logits = []
        for position in range(6):
            token = inputs["prefix"][:, position]
            one, memories = module.apply(
                {"params": params}, inputs["source"], token, memories, position, method="say"
            )
            logits.append(one)
        return jnp.stack(logits, axis=1), deep.apply(params, inputs)

    stepwise, whole = say_all(params)
    np.testing.assert_allclose(stepwise, whole, rtol=1e-4, atol=1e-4)


def test_an_average_of_learners_is_decoded_token_by_token(inputs):
    """An algorithm that changes the outputs never passes averaged tokens off as a sentence."""
    model = builders.build_model("seq2seq", SPEC, depth=1)
    made = [trees.normal_like(jax.eval_shape(model.init, KEY, inputs), seed) for seed in (1, 2)]
    source = jnp.asarray(inputs["source"])
    given = {"source": source, "prefix": jnp.zeros((3, 6), jnp.int32)}

    def average(inputs):
        return sum(model.apply(params, inputs) for params in made) / 2

    def alone(inputs):
        return model.apply(made[0], inputs)

    whole = {"source": source, base.GREEDY: jnp.zeros((3, 6), jnp.int32)}

    @jax.jit
    def translate(given, whole):
        assert _sentences.ask_whole(alone, whole) is not None
        assert _sentences.ask_whole(average, whole) is None
        assert _sentences.ask_whole(lambda inputs: inputs["prefix"], whole) is None
        return _sentences.translate(average, given)

    said = translate(given, whole)
    assert said.shape == (3, 6) and said.dtype == jnp.int32
