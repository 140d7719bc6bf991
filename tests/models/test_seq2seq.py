"""The Transformer for sentences: causal, blind to padding, and refused where the inputs are no sentences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, gradients, trees
from metarun import base, plugins
from metarun.models import seq2seq

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
